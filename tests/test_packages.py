"""Packages added beside those that are here: a real pip, in environments of their own, with wheels made here and no index."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from common import ROOT, metadata_of, write_wheel

from helpers import packages


@pytest.fixture(scope="module")
def with_pip(tmp_path_factory):
    """A folder with the pip of this environment, and nothing else."""
    pip = pytest.importorskip("pip", reason="there is no pip here")
    folder, place = tmp_path_factory.mktemp("pip"), Path(pip.__file__).parent
    for part in (place, place.with_name(f"pip-{pip.__version__}.dist-info")):
        (folder / part.name).symlink_to(part)
    return folder


def packages_of(python) -> Path:
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(
        subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    )


class Environment:
    """A new environment, with `pip` from another; and a folder of wheels, which is all that this pip knows of."""

    def __init__(self, folder: Path, pip: Path | None):
        self.python, self.wheels = folder / "env" / "bin" / "python", folder / "wheels"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
        self.wheels.mkdir()
        self.folder = packages_of(self.python)
        if pip:
            (self.folder / "pip.pth").write_text(f"{pip}\n")
        own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        self.settings = own | {
            "PYTHONPATH": str(ROOT),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_CACHE_DIR": "1",
        }

    def offer(self, name: str, version: str, *needs: str) -> Path:
        """Put a wheel into the folder of wheels."""
        return write_wheel(self.wheels, name, version, needs, module=f"version = {version!r}\n")

    def put(self, name: str, version: str) -> None:
        """Have a package installed: by unpacking its wheel, which is not offered."""
        wheel = self.offer(name, version)
        zipfile.ZipFile(wheel).extractall(self.folder)
        wheel.unlink()

    def start(self, *names: str, **settings) -> subprocess.Popen:
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")
        command = [self.python, "-m", "helpers", "install", *names]
        return subprocess.Popen(command, env=self.settings, cwd=self.wheels, **pipes, **settings)

    def install(self, *names: str) -> tuple[int, list[str]]:
        """`python -m helpers install` there: its exit status, and the lines that it printed."""
        with self.start(*names) as process:
            printed, errors = process.communicate()
        return process.returncode, (printed + errors).strip().splitlines()

    def here(self) -> dict[str, str]:
        """What is installed, by the folders' metadata and not by pip: {name: version}."""
        found = importlib.metadata.distributions(path=[str(self.folder)])
        return {entry.metadata["Name"]: entry.version for entry in found}


@pytest.fixture
def environment(tmp_path, with_pip):
    return Environment(tmp_path, with_pip)


def test_what_is_missing_is_added_with_what_it_needs(environment):
    environment.put("here", "1.0")
    environment.offer("new", "2.0", "here", "needed>=1")
    environment.offer("needed", "1.5")
    assert environment.install("new", "here") == (
        0,
        ["Installing new ...", "2 packages added (needed 1.5, new 2.0), none replaced."],
    )
    assert environment.here() == {"here": "1.0", "new": "2.0", "needed": "1.5"}
    assert environment.install("new>=1", "here") == (
        0,
        ["All packages asked for are here: nothing was installed."],
    )


def test_none_is_replaced_and_who_wants_what_is_said(environment):
    """And what one wants does not keep another out. `here` 2.0 is offered, so that pip could replace it."""
    environment.put("here", "1.0")
    environment.offer("here", "2.0")
    environment.offer("greedy", "3.0", "here>=2")
    environment.offer("good", "1.0")
    status, lines = environment.install("greedy", "good", "nowhere")
    assert status == 1
    assert lines == [
        "Installing greedy, good, nowhere ...",
        "1 packages added (good 1.0), none replaced.",
        "greedy was not added: greedy 3.0 depends on here>=2, which is not what is here. What is here stays as it is.",
        "nowhere was not added: ERROR: Could not find a version that satisfies the requirement nowhere (from versions: none). "
        "What is here stays as it is.",
    ]
    assert environment.here() == {"here": "1.0", "good": "1.0"}


def test_an_older_one_is_taken_where_the_newest_wants_too_much(environment):
    environment.put("here", "1.0")
    environment.offer("here", "2.0")
    environment.offer("part", "2.0", "here>=2")
    environment.offer("part", "1.0", "here")
    assert environment.install("part")[1][1:] == ["1 packages added (part 1.0), none replaced."]
    assert environment.here() == {"here": "1.0", "part": "1.0"}


def test_what_is_here_and_too_old_is_left(environment):
    environment.put("here", "1.0")
    environment.offer("here", "2.0")
    assert environment.install("here>=2") == (
        0,
        ["All packages asked for are here: nothing was installed."],
    )
    assert environment.here() == {"here": "1.0"}


def test_a_version_that_is_none_to_pip_is_held(environment):
    """Machines hold some, from their makers. From 24.1 on pip fails over it, and so after it has added another package too."""
    environment.put("odd", "2.0.maker-7")
    environment.offer("odd", "3.0")
    environment.offer("greedy", "1.0", "odd>=3")
    environment.offer("good", "1.0")
    status, lines = environment.install("greedy", "good")
    assert (status, lines[1]) == (1, "1 packages added (good 1.0), none replaced."), lines
    (refused,) = lines[2:]
    assert re.match(
        "greedy was not added: (greedy 1.0 depends on|Cannot process installed package) odd", refused
    )
    assert environment.here() == {"odd": "2.0.maker-7", "good": "1.0"}


def test_without_pip_a_sentence_says_how_to_have_it(tmp_path):
    bare = Environment(tmp_path, pip=None)
    status, lines = bare.install("new")
    assert status == 2
    (line,) = lines
    assert re.fullmatch(
        r"pip could not be asked what is here \(.+\): python -m ensurepip brings it\.", line
    ), line


SLOW = """\
import os, pathlib, time

def build_wheel(*arguments, **settings):
    with open(os.environ["BEGUN"], "w") as begun:  # waits until the test reads; ends when this process does
        begun.write("begun\\n")
        begun.flush()
        time.sleep(60)
        begun.write("went on\\n")
"""


def test_ctrl_c_ends_all_that_was_started_and_leaves_things_as_they_were(environment, tmp_path):
    """While pip builds a package, which tells when it has begun, and by its silence that it is gone."""
    environment.put("here", "1.0")
    files = {
        "slow-1.0/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "build"\nbackend-path = ["."]\n',
        "slow-1.0/build.py": SLOW,
        "slow-1.0/PKG-INFO": metadata_of("slow", "1.0"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with tarfile.open(environment.wheels / "slow-1.0.tar.gz", "w:gz") as source:
        source.add(tmp_path / "slow-1.0", "slow-1.0")
    os.mkfifo(tmp_path / "begun")
    environment.settings["BEGUN"] = str(tmp_path / "begun")
    with environment.start("slow") as process, open(tmp_path / "begun") as begun:
        assert begun.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert begun.read() == "", "the build went on"
        printed, errors = process.communicate()
    assert (process.returncode, printed, errors) == (130, "Installing slow ...\n", "\nStopped.\n")
    assert environment.here() == {"here": "1.0"}


# Units


@pytest.mark.parametrize(
    "version, ranges, inside",
    [
        ("2.10.1", ">=2.11,<2.14", False),
        ("2.11", ">=2.11,<2.14", True),
        ("2.11.0+cu128", ">=2.11,<2.14", True),
        ("2.13.1", ">=2.11,<2.14", True),
        ("2.14.0", ">=2.11,<2.14", False),
        ("3", ">=2.11,<2.14", False),
        ("2.9", ">=2.10", False),  # numbers, not letters
        ("2.12.0", ">=2.10,!=2.12", False),
        ("2.12.1", ">=2.10, !=2.12.0", True),
        ("1.0", "", True),
        ("unknown", ">=1", False),
    ],
)
def test_in_range(version, ranges, inside):
    assert packages.in_range(version, ranges) is inside


@pytest.mark.parametrize(
    "requirement, name",
    [
        ("torch>=2.10", "torch"),
        ("huggingface-hub >= 1.5", "huggingface-hub"),
        ("ruamel.yaml", "ruamel.yaml"),
        ("trl[vllm]==1.0", "trl"),
        ("numpy!=2.1", "numpy"),
    ],
)
def test_name_of(requirement, name):
    assert packages.name_of(requirement) == name


def test_read_requirements(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_bytes("# Größe\n\ntorch>=2.10  # why\r\n  nbval>=0.11\n".encode())
    assert packages.read_requirements(file) == ["torch>=2.10", "nbval>=0.11"]


def test_a_package_that_came_though_pip_failed_is_here(monkeypatch, tmp_path, capsys):
    """As pip does from 24.1 on, beside a version that is none to it."""
    monkeypatch.syspath_prepend(tmp_path)

    def fail_at_the_end(before, requirements):
        (tmp_path / "came-1.0.dist-info").mkdir(exist_ok=True)
        (tmp_path / "came-1.0.dist-info/METADATA").write_text(metadata_of("came", "1.0"))
        return "pip failed"

    monkeypatch.setattr(packages, "try_beside", fail_at_the_end)
    assert packages.add(["came"])
    assert "not added" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "printed, errors, said",
    [
        (
            "",
            "error: invalid-installed-package\n\n× Cannot process odd 2.x:\n│ Invalid version\n",
            "Cannot process odd 2.x",
        ),
        ("", "WARNING: slow\nERROR: No matching distribution\n", "ERROR: No matching distribution"),
        (
            "  a 1.0 depends on b>=2\n",
            "ERROR: ResolutionImpossible\n",
            "a 1.0 depends on b>=2, which is not what is here",
        ),
        ("", "Traceback:\n  File ...\n", "pip failed"),
    ],
)
def test_pips_reason_in_one_line(printed, errors, said):
    assert packages.reason(subprocess.CalledProcessError(1, "pip", printed, errors)) == said


def test_why_an_optional_package_is_of_no_use():
    missing = packages.why_unusable(
        "no-such-package", ModuleNotFoundError("No module named 'no_such_package'")
    )
    assert missing == (
        'no-such-package is not installed. packages.add(["no-such-package"]) in a new cell adds it and replaces nothing.'
    )
    broken = packages.why_unusable(
        "pytest", RuntimeError("Failed to import\nbecause of\nwhat comes\x1b[2J below")
    )
    assert broken == f"pytest {pytest.__version__} is here and cannot be used: Failed to import."
