"""`make test-colab` and `make drift`, as far as they go without a network: lists of packages, and a small course in a small environment."""

import subprocess
import sys
import sysconfig
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from common import ROOT, write_wheel

from helpers import packages
from helpers.__main__ import main
from helpers.errors import CourseError
from helpers.maintain import colab, drift
from helpers.maintain.publish import README_END, README_START, UNPUBLISHED

LISTED = """\
# Do not modify this file directly; it is generated
accelerate==1.14.0
-e git+https://example.org/it.git#egg=editable
huggingface_hub==1.27.0
PyYAML==6.0.3
nvidia-cudnn-cu12==9.19.0.56
pyarrow @ file:///tmp/pyarrow.whl
ruamel.yaml==0.18.1
something @ https://example.org/something-1.0-py3-none-any.whl
torch==2.11.0+cu128
torchao==0.10.0 ; python_version < "4"
triton==3.6.0
unasked-for==1.0
"""


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder that is all that pip has; makes small wheels in it, of a name and a version."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in ("PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)

    return partial(write_wheel, folder)


@pytest.fixture
def small_course(tmp_path, monkeypatch, make_notebook):
    """A course of one notebook in a git checkout. Its `python -m helpers install` replaces the package probe."""
    root = tmp_path / "course"
    make_notebook(root / "notebooks" / "01_small.ipynb", "1 + 1", "1 / 0", "import helpers.course")
    install = 'import subprocess, sys\nsubprocess.run([sys.executable, "-m", "pip", "install", "-q", "probe==2.0", "other"])'
    texts = {
        "helpers/course.py": "def start(): ...\n",
        "helpers/settings.py": "def set_defaults(**given): ...\n",
        "helpers/__main__.py": f"{install}\nprint('this is the install of a small course')\n",
        "pyproject.toml": '[tool.course]\nrepository = ""\nbranch = "main"\nscale = ""\nengine = ""\n',
        "README.md": f"{README_START}\n{UNPUBLISHED}\n{README_END}\n",
        "requirements.txt": "probe>=1.0,!=3.0\nnewest-is-tested>=1\nSetup_adds>=2  # a comment\n",
        "tests/requirements.txt": "",
        "constraints.txt": "probe==2.0\nnewest_is_tested==1.5\nsetup-adds==2\n",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    (root / ".ci").symlink_to(ROOT / ".ci")
    for module in (colab, drift):
        monkeypatch.setattr(module, "ROOT", root)
    return root


# Lists


def test_a_list_as_pip_freeze_prints_it(tmp_path):
    (tmp_path / "list.txt").write_text(LISTED)
    assert colab.read_list(tmp_path / "list.txt") == {
        "accelerate": "1.14.0",
        "huggingface-hub": "1.27.0",
        "pyyaml": "6.0.3",
        "nvidia-cudnn-cu12": "9.19.0.56",
        "ruamel-yaml": "0.18.1",
        "torch": "2.11.0",
        "torchao": "0.10.0",
        "triton": "3.6.0",
        "unasked-for": "1.0",
    }


@pytest.mark.parametrize("content", [None, b"", b"<html>not found</html>", b"\xff\xfe==1.0"])
def test_a_list_that_is_none(tmp_path, content):
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CourseError, match="list.txt.*(COLAB=FILE|expected lines like numpy==2.1.3)"):
        colab.read_list(file)


def test_github_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(colab, "ADDRESS", "http://127.0.0.1:9/pip-freeze.gpu.txt")
    with pytest.raises(CourseError, match="127.0.0.1:9.*Connection refused.*COLAB=FILE"):
        colab.read_list()


def test_what_is_installed_for_each_row():
    listed = colab.parse_list(LISTED)
    wanted, constraints = colab.wanted("colab", listed)
    # what the list lacks, such as nbval, is for the Setup cell to add
    assert wanted == ["accelerate", "huggingface-hub", "pyyaml", "torch", "torchao"]
    assert "unasked-for==1.0" in constraints and "torch==2.11.0" in constraints
    assert not [each for each in constraints if each.startswith(("nvidia", "triton"))]

    wanted, constraints = colab.wanted("oldest", {})
    assert {"transformers==5.13.1", "numpy==2.0.2", "peft==0.19"} <= set(wanted) and not constraints
    assert len(wanted) == len(colab.needed()) and all("==" in each for each in wanted)
    wanted, constraints = colab.wanted("newest", {})
    assert {"transformers", "numpy", "peft"} <= set(wanted) and not constraints


def test_the_oldest_is_the_lower_bound(monkeypatch):
    monkeypatch.setattr(colab, "needed", lambda: ["one>=1.2,!=1.3", "two>=2"])
    assert colab.wanted("oldest", {})[0] == ["one==1.2", "two==2"]


def test_added_and_replaced():
    before = {"numpy": "2.1.3", "torch": "2.11.0", "gone": "1"}
    after = {"numpy": "2.5.5", "torch": "2.11.0", "nbval": "0.11.0"}
    assert packages.compare(before, after) == (
        ["nbval 0.11.0"],
        ["numpy 2.1.3 (now 2.5.5)", "gone 1 (now gone)"],
    )
    assert packages.compare(before, before) == ([], [])


def test_a_set_that_is_none(tmp_path, capsys):
    assert main(["test-colab", str(tmp_path), "latest"]) == 2
    assert "'latest' is no set of packages: expected colab, oldest, newest" in capsys.readouterr().err
    (tmp_path / "oldest").mkdir()
    assert main(["test-colab", str(tmp_path), "oldest"]) == 2
    assert "`make test-colab` makes it anew" in capsys.readouterr().err


def test_all_is_well_where_nothing_failed_and_nothing_was_replaced(capsys):
    before, more = {"torch": "2.11.0", "NumPy": "2.1.3"}, {"nbval": "0.11.0"}
    fine, one_failed = Counter(passed=3, skipped=1), Counter(passed=2, failed=1)
    line, well = colab.summary("oldest", "3.12.1", before, before | more, fine)
    assert well and line == ("oldest", "3.12.1", "2.11.0", "none", "2.1.3", "none", "3", "0", "1", "1", "0")
    assert "oldest: added nbval 0.11.0; replaced nothing." in capsys.readouterr().out
    assert not colab.summary("oldest", "3.12.1", before, before, one_failed)[1]
    assert not colab.summary("oldest", "3.12.1", before, before | {"torch": "2.15.0"}, fine)[1]


# A row


def test_a_whole_row(small_course, wheels, tmp_path, monkeypatch, capfd):
    """The Setup cell fetches the published copy and runs its install; what that replaces, and the cell that fails, are found."""
    for version in ("1.0", "2.0"):
        wheels("probe", version)
    wheels("other", "1.0")
    (small_course / "requirements.txt").write_text("probe>=1.0\n")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setitem(colab.PYTHONS, "oldest", "3.99")
    # IPython and nbval, which the new environment gets from this one
    monkeypatch.setenv("PYTHONPATH", sysconfig.get_path("purelib"))
    monkeypatch.setenv("RLHF_SCALE", "full")

    assert main(["test-colab", str(tmp_path / "environments"), "oldest"]) == 1
    said = capfd.readouterr().out
    assert "no python3.99 on PATH, so this row is tried with" in said
    assert "this is the install of a small course" in said
    assert "oldest: added other 1.0; replaced probe 1.0 (now 2.0)." in said
    assert "ZeroDivisionError" in said
    head, line = (row.split() for row in said.strip().splitlines()[-2:])
    assert dict(zip(head[-5:], line[-5:])) == {
        "passed": "3",
        "failed": "1",
        "skipped": "0",
        "added": "1",
        "replaced": "1",
    }
    fetched = tmp_path / "environments" / "oldest" / "content" / "course"
    assert "colab.research.google.com" in (fetched / "README.md").read_text() and (fetched / ".git").is_dir()
    assert UNPUBLISHED in (small_course / "README.md").read_text()


def test_packages_that_cannot_be_installed(small_course, wheels, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(colab.PYTHONS, "oldest", "3.99")
    assert main(["test-colab", str(tmp_path / "environments"), "oldest"]) == 1
    said = capfd.readouterr().out
    assert "No matching distribution found for probe==1.0" in said
    assert said.count("not made") >= 5


def test_a_course_that_is_no_checkout(small_course, tmp_path, monkeypatch, capsys):
    (small_course / ".git").rename(tmp_path / "no longer git")
    assert main(["test-colab", str(tmp_path / "environments"), "newest"]) == 2
    assert "The course cannot be tried: fatal: not a git repository" in capsys.readouterr().err


def test_a_notebook_that_leaves_no_report_has_failed(tmp_path):
    assert colab.count_cells(tmp_path / "none.xml") == {"failed": 1}


def test_settings_are_colabs_and_not_those_of_whoever_tests(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_SCALE", "full")
    monkeypatch.setenv("RLHF_ENGINE", "trlx")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    env = colab.as_on_colab(tmp_path, tmp_path / "published")
    assert env["RLHF_SCALE"] == "tiny" and "RLHF_ENGINE" not in env and env["COLAB_RELEASE_TAG"]
    assert env["GIT_CONFIG_COUNT"] == "2" and env["GIT_CONFIG_VALUE_1"].startswith("https://github.com/")


# Drift


def drift_table(file):
    """{package: (tested, newest, Colab, what changed)}"""
    return {row[0].split(">")[0]: row[1:] for row in drift.table(file)[1:]}


def test_drift(small_course, wheels, tmp_path, monkeypatch):
    for name, version in [
        ("probe", "3.0"),
        ("probe", "2.0"),
        ("newest_is_tested", "1.5"),
        ("setup_adds", "2"),
    ]:
        wheels(name, version)
    (tmp_path / "list.txt").write_text("probe==0.9\nnewest-is-tested==1.4\n")
    assert drift_table(tmp_path / "list.txt") == {
        "probe": (
            "2.0",
            "3.0",
            "0.9",
            "the newest is FORBIDDEN by >=1.0,!=3.0; Colab's is FORBIDDEN by >=1.0,!=3.0",
        ),
        "newest-is-tested": ("1.5", "1.5", "1.4", "Colab's is another"),
        "Setup_adds": ("2", "2", "none", "not on Colab"),
    }
    wheels("probe", "4.0")
    (tmp_path / "list.txt").write_text("probe==2.0\nnewest-is-tested==1.5\nsetup_adds==2\n")
    words = {name: row[-1] for name, row in drift_table(tmp_path / "list.txt").items()}
    assert words == {"probe": "newer", "newest-is-tested": "same", "Setup_adds": "same"}


def test_drift_without_a_network(small_course, wheels, monkeypatch, capsys):
    monkeypatch.setattr(colab, "ADDRESS", "http://127.0.0.1:9/pip-freeze.gpu.txt")
    assert main(["drift"]) == 0
    said = capsys.readouterr().out
    assert "The newest versions are not known: ERROR: Could not find a version" in said
    assert "Colab's list of packages cannot be read" in said
    assert "2.0     not known" in said
