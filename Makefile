# `make` lists the targets. Everything is installed into .venv, and nowhere else.
PYTHON ?= python3
BRANCH ?= main
JUPYTERLAB = jupyterlab>=4.4,<4.7

VENV = .venv/bin/python
READY = .venv/.ready
PIP = $(VENV) -m pip install --disable-pip-version-check

.PHONY: help course test test-widgets test-browser trlx lab notebooks lint publish tiny clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1|/' | awk -F'|' '{printf "%-20s%s\n", $$1, $$2}'

course: $(READY)  ## run all notebooks in order, without a browser
	@$(VENV) -m helpers run

test: $(READY)  ## run every test, and every notebook with a tenth of the training
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	RLHF_SCALE=tiny RLHF_BUDGET=0.1 RLHF_OUT="$$out" OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} \
	$(VENV) -m pytest -rs -n 2 --dist loadfile --no-loadscope-reorder \
		--nbval-lax --nbval-current-env --nbval-cell-timeout 600 \
		--ignore tests/colab_gpu.ipynb --ignore tests/browser tests notebooks

test-widgets:  ## the widgets on Colab's ipywidgets 7.7, in a small environment without torch
	@[ -d .venv-widgets ] || $(PYTHON) -m venv .venv-widgets
	@.venv-widgets/bin/python -m pip install --quiet --disable-pip-version-check -r tests/widgets/requirements.txt
	@.venv-widgets/bin/python -m pytest -q tests/widgets

test-browser: .venv/.lab .venv-classic/.ready  ## work the widgets in a real browser (needs Chromium); screenshots go to out/screenshots
	@$(PIP) --quiet -r tests/browser/requirements.txt
	@$(VENV) -m pytest -q -s -rs tests/browser

trlx: $(READY)  ## install the real trlX too; from then on the notebooks train with it
	@$(VENV) -m helpers trlx

lab: .venv/.lab  ## open the course in JupyterLab
	@$(VENV) -m jupyter lab $(LAB_ARGS) notebooks/01_install.ipynb

notebooks: $(READY)  ## run the notebooks and store their outputs in them
	@$(VENV) -m helpers notebooks

lint: $(READY)  ## check the code's style
	@$(VENV) -m ruff check . && $(VENV) -m ruff format --check .

publish: $(READY)  ## REPO=owner/name [BRANCH=main]: write where the course lives into its badges
	@$(VENV) -m helpers publish '$(REPO)' --branch '$(BRANCH)'

tiny: $(READY)  ## build the embedded models again
	@$(VENV) -m helpers.tiny.build

clean:  ## remove .venv and caches; results in out/ stay
	rm -rf .venv .venv-widgets .venv-classic .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: without it an environment is half made, and is made again.
$(READY): requirements.txt tests/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "The course needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is not one of them. If you have one under another"; \
		  echo "name, say so: make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	@[ -f $@ ] || rm -rf .venv
	@[ -d .venv ] || { echo "Making .venv; installing takes some minutes the first time."; $(PYTHON) -m venv .venv; }
	@$(PIP) -r requirements.txt -r tests/requirements.txt
	@touch $@

.venv/.lab: $(READY)
	@$(PIP) '$(JUPYTERLAB)'
	@touch $@

# Classic Notebook with Colab's widgets; the path file gives it the other packages of .venv.
PACKAGES = -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
.venv-classic/.ready: $(READY) tests/browser/requirements-classic.txt
	@rm -rf .venv-classic && $(PYTHON) -m venv .venv-classic
	@.venv-classic/bin/python -m pip install --quiet --disable-pip-version-check -r tests/browser/requirements-classic.txt
	@$(VENV) $(PACKAGES) > "$$(.venv-classic/bin/python $(PACKAGES))/course.pth"
	@touch $@
