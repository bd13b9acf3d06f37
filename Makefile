# `make` lists the targets. Everything is installed into .venv, and nowhere else.
#
# Variables of these names in the environment do not count; what is given after make does: make PYTHON=python3.13 course
PYTHON = python3
LAB_ARGS =
# These are taken letter by letter: neither make nor the shell runs anything in them.
given = $(if $(filter command line,$(origin $1)),$(value $1))
override REPO := $(call given,REPO)
override BRANCH := $(or $(call given,BRANCH),main)
override SCALE := $(call given,SCALE)
override ENGINE := $(call given,ENGINE)
override COLAB := $(call given,COLAB)
override FROM := $(call given,FROM)
export REPO BRANCH SCALE ENGINE COLAB FROM
# With one of these set, pip would install elsewhere.
unexport PIP_PREFIX PIP_ROOT PIP_TARGET PIP_USER

VENV = .venv/bin/python
READY = .venv/.ready

# With FROM=DIR packages come out of DIR/packages and from nowhere else. A folder without packages is refused before anything is made.
define from
case "$$FROM" in "~" | "~/"*) FROM="$$HOME$${FROM#?}";; esac; \
set -- "$$FROM"/packages/*.whl; \
if [ -n "$$FROM" ] && [ ! -f "$$1" ]; then \
	printf 'FROM=%s has no packages in it: `python -m helpers prefetch DIR --packages` fills a folder DIR.\n' \
		"$$(printf %s "$$FROM" | tr '\000-\037\177' ' ')"; exit 1; \
fi
endef

# Install into environment $1 what $2 names, with pip's arguments $3: one line of progress, all that pip says in install.log, and
# nothing asked of anybody.
install = @$(from); $1/bin/python .ci/quietly.py "Installing $2 into $1" $1/install.log \
	$1/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
	$${FROM:+--no-index "--find-links=$$FROM/packages"} $3

# Whether make made an environment: it has a mark, or .ready from before there was a mark. A link is the reader's, wherever it leads.
MARK = .made-by-make
ours = { [ ! -L $1 ] && { [ -f $1/$(MARK) ] || [ -f $1/.ready ]; }; }

# Make a folder for environments anew, with the mark. What make did not make is never deleted, unless it is an empty folder.
define new_folder
$(from); \
if $(call ours,$1); then rm -rf $1 || exit 1; else rmdir $1 2> /dev/null || true; fi; \
if [ -e $1 ] || [ -L $1 ]; then \
	echo "$1 is here and make did not make it, so make leaves it alone. Rename it, then try again: mv $1 $1-mine"; exit 1; \
fi; \
mkdir $1 && touch $1/$(MARK)
endef
new_environment = $(new_folder) && $(PYTHON) -m venv $1

.PHONY: help course test test-widgets test-browser test-colab drift trlx lab notebooks site slides lint publish tiny clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1|/' | awk -F'|' '{printf "%-20s%s\n", $$1, $$2}'

course: $(READY)  ## run all notebooks in order, without a browser
	@$(VENV) -m helpers run

test: $(READY)  ## run every test, and every notebook with a tenth of the training
	@$(VENV) -m helpers test

test-widgets: .venv-widgets/.ready  ## the widgets on Colab's ipywidgets 7.7, in a small environment without torch
	@.venv-widgets/bin/python -m pytest -q tests/widgets

test-browser: .venv/.browser .venv-classic/.ready  ## work the widgets in a real browser (needs Chromium); screenshots go to out/screenshots
	@$(VENV) -m pytest -q -rs -n 2 tests/browser

test-colab: $(READY)  ## [COLAB=FILE]: the notebooks on Colab's packages, on the oldest allowed, and on the newest
	@$(call new_folder,.venv-colab)
	@$(VENV) -m helpers test-colab --list="$$COLAB" -- .venv-colab

drift: $(READY)  ## [COLAB=FILE]: say what changed since the versions that were tested
	@$(VENV) -m helpers drift --list="$$COLAB"

trlx: $(READY)  ## install the real trlX too; from then on the notebooks train with it
	@$(VENV) -m helpers trlx

lab: .venv/.lab  ## open the course in JupyterLab
	@$(VENV) -m jupyter lab $(LAB_ARGS) notebooks/01_install.ipynb

notebooks: $(READY)  ## run the notebooks and store their outputs in them
	@$(VENV) -m helpers notebooks

SITE = out/site
site: .venv-site/.ready  ## build the course as pages, in out/site
	@mkdir -p $(dir $(SITE))
	@$(call new_folder,$(SITE))
	@.venv-site/bin/python -m sphinx -q -W --keep-going -E -c docs/site -d .venv-site/doctrees . $(SITE)
	@.venv-site/bin/python docs/site/links.py $(SITE)

SLIDES = out/slides
slides: .venv-site/.ready  ## make slides of the notebooks, in out/slides
	@mkdir -p $(dir $(SLIDES))
	@$(call new_folder,$(SLIDES))
	@.venv-site/bin/python docs/site/slides.py $(SLIDES)

lint: $(READY)  ## check the code's style
	@$(VENV) -m ruff check . && $(VENV) -m ruff format --check .

publish: $(READY)  ## [REPO=owner/name] [BRANCH=main] [SCALE=tiny] [ENGINE=builtin]: write where the course lives into its buttons
	@$(VENV) -m helpers publish --branch="$$BRANCH" --scale="$$SCALE" --engine="$$ENGINE" -- "$$REPO"

tiny: $(READY)  ## build the embedded models again
	@$(VENV) -m helpers.maintain.build_tiny

clean:  ## remove the environments that make made, and caches; results in out/ stay
	@for folder in .venv .venv-widgets .venv-classic .venv-colab .venv-site; do \
		if $(call ours,$$folder); then rm -rf $$folder; \
		elif [ -e $$folder ] || [ -L $$folder ]; then echo "$$folder is not from make, so it stays."; fi; \
	done
	@rm -rf .pytest_cache .ruff_cache
	@find helpers notebooks tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: without it an environment is half made, and is made again.
$(READY): requirements.txt tests/requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "The course needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is not one of them. If you have one under another"; \
		  echo "name, say so: make PYTHON=python3.13 course"; exit 1; }
	@[ -f $@ ] || { $(call new_environment,.venv); }
	$(call install,.venv,the course,$$($(VENV) .ci/cpu_torch.py) -c constraints.txt -r requirements.txt -r tests/requirements.txt)
	@touch $@

# Else JupyterLab's first word to a reader is a question about its news.
LAB_SETTINGS = .venv/share/jupyter/lab/settings
.venv/.lab: $(READY) requirements-lab.txt
	$(call install,.venv,JupyterLab,-c constraints.txt -r requirements-lab.txt)
	@mkdir -p $(LAB_SETTINGS)
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' > $(LAB_SETTINGS)/overrides.json
	@touch $@

.venv/.browser: .venv/.lab tests/browser/requirements.txt
	$(call install,.venv,Playwright,-c constraints.txt -r tests/browser/requirements.txt)
	@touch $@

# Classic Notebook with Colab's widgets; the path file gives it the other packages of .venv.
PACKAGES = -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
.venv-classic/.ready: $(READY) tests/browser/requirements-classic.txt
	@$(call new_environment,.venv-classic)
	$(call install,.venv-classic,classic Notebook,-r tests/browser/requirements-classic.txt)
	@$(VENV) $(PACKAGES) > "$$(.venv-classic/bin/python $(PACKAGES))/course.pth"
	@touch $@

.venv-widgets/.ready: tests/widgets/requirements.txt
	@[ -f $@ ] || { $(call new_environment,.venv-widgets); }
	$(call install,.venv-widgets,the widgets,-r tests/widgets/requirements.txt)
	@touch $@

.venv-site/.ready: requirements-site.txt constraints.txt
	@[ -f $@ ] || { $(call new_environment,.venv-site); }
	$(call install,.venv-site,the site,-c constraints.txt -r requirements-site.txt)
	@touch $@
