"""The course on Colab's packages, on the oldest that it allows, and on the newest there are: `make test-colab`.

Each of the three is an environment of its own. A published copy of the course is made of this one, and git is told to find it
at GitHub's address, so that the notebooks' own Setup cell runs, and not a copy of it.
"""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from packaging.utils import canonicalize_name

from helpers import packages
from helpers.course import ROOT, one_thread
from helpers.errors import CourseError
from helpers.files import reason, write_text
from helpers.maintain.publish import Place, publish, setup_cell
from helpers.notebooks import numbered
from helpers.real_trlx.install import NEEDED
from helpers.terminal import plain

ADDRESS = "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.gpu.txt"
ANSWER = 30  # seconds for GitHub to answer
PLACE = Place("course/under-test")

# The Python of each row: of Colab in August 2026; of its oldest runtime that the course is meant for; the newest that is.
PYTHONS = {"colab": "3.13", "oldest": "3.12", "newest": "3.13"}
# What Colab has and nobody asks for, and what libraries of the course look for and then use, or refuse.
BESIDE = [
    "notebook",
    "protobuf",
    "pyarrow",
    "sentence-transformers",
    "tensorboard",
    "torchao",
    "torchaudio",
    "torchtune",
]
BESIDE += ["torchvision", "pip", "setuptools"]
# These go with a build of torch for one GPU; PyPI's torch names its own.
OF_A_BUILD = re.compile(r"nvidia-|cuda-|triton$")
SHOWN = ("torch", "transformers", "numpy", "peft")


def read_list(file: Path | None = None) -> dict[str, str]:
    """Colab's packages, {name: version}: from a file, or from GitHub.

    Raises:
        CourseError: it cannot be read, or lists no packages.
    """
    try:
        if file:
            text = file.read_text(encoding="utf-8")
        else:
            with urllib.request.urlopen(ADDRESS, timeout=ANSWER) as answer:
                text = answer.read().decode("utf-8")
    except (OSError, ValueError) as error:
        raise CourseError(
            f"Colab's list of packages cannot be read from {file or ADDRESS} ({reason(error)}). With a copy of that file: COLAB=FILE"
        ) from error
    listed = parse_list(text)
    if not listed:
        raise CourseError(
            f"{file or ADDRESS} is no list of packages: expected lines like numpy==2.1.3, as pip freeze prints."
        )
    return listed


def parse_list(text: str) -> dict[str, str]:
    """{name: version} of what `pip freeze` printed, names as pip compares them; without packages that are files or addresses.

    A version such as 2.11.0+cu128 becomes the release that PyPI has, 2.11.0.
    """
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s+;]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def needed() -> list[str]:
    """The requirements of the course and of its tests."""
    files = (ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt")
    return [requirement for file in files for requirement in packages.read_requirements(file)]


def wanted(row: str, listed: dict[str, str]) -> tuple[list[str], list[str]]:
    """What pip is to install for a row, and the constraints to hold it to.

    On Colab only what the list has: the rest is for the Setup cell to add.
    """
    if row == "newest":
        return [packages.name_of(requirement) for requirement in needed()], []
    if row == "oldest":
        return [re.sub(r"^([\w.-]+)>=([^,]+).*", r"\1==\2", requirement) for requirement in needed()], []
    names = {canonicalize_name(packages.name_of(each)) for each in [*needed(), *NEEDED, *BESIDE]}
    constraints = [f"{name}=={version}" for name, version in listed.items() if not OF_A_BUILD.match(name)]
    return sorted(names & listed.keys()), constraints


def main(folder: Path, list_file: Path | None, rows: Iterable[str]) -> tuple[list[tuple[str, ...]], bool]:
    """Try the course in every row, and print what was added, replaced, and failed.

    Args:
        folder: where the environments are made; rows of these names must not be there yet.

    Returns:
        The table, and whether all is well: every cell passed, and nothing was replaced.

    Raises:
        CourseError: Colab's list cannot be read, there is something in the way, or this is no git checkout.
    """
    listed = read_list(list_file) if "colab" in rows else {}
    for row in rows:
        if (folder / row).exists():
            raise CourseError(f"{folder / row} is there already: `make test-colab` makes it anew.")
    try:
        results = [try_row(row, (folder / row).absolute(), *wanted(row, listed)) for row in rows]
    except (subprocess.SubprocessError, OSError) as error:
        why = packages.reason(error)
        raise CourseError(
            f"The course cannot be tried: {why}. This needs git, a checkout of the course, and pip."
        ) from error
    head = ("row", "Python", *SHOWN, "passed", "failed", "skipped", "added", "replaced")
    return [head, *[cells for cells, _ in results]], all(well for _, well in results)


def try_row(
    row: str, folder: Path, wanted: list[str], constraints: list[str]
) -> tuple[tuple[str, ...], bool]:
    """Make a row's environment, set the course up in it as on Colab, and run every notebook: its line of the table, and whether all is well."""
    published = published_copy(folder / "published")
    python = make_environment(row, folder, wanted, constraints)
    if not python:
        return (row, *["not made"] * (len(SHOWN) + 6)), False
    before = packages.versions(python)
    content = folder / "content"  # where Colab has a notebook that was opened from GitHub
    content.mkdir()
    env = as_on_colab(folder, published)
    write_text(folder / "setup.ipy", setup_cell(PLACE) + "\n")
    setup = [python, "-m", "IPython", "--no-term-title", "../setup.ipy"]
    step(f"{row}: the Setup cell", folder / "setup.log", *setup, cwd=content, env=env)
    print(plain((folder / "setup.log").read_text(encoding="utf-8", errors="replace").strip()))
    cells = Counter()
    for notebook in numbered(published / "notebooks"):
        shutil.copy(notebook, content)
        cells += run_notebook(row, python, content / notebook.name, env)
    version = packages.run(python, "-c", "import platform; print(platform.python_version())").strip()
    return summary(row, version, before, packages.versions(python), cells)


def summary(
    row: str, python: str, before: dict[str, str], after: dict[str, str], cells: Counter
) -> tuple[tuple[str, ...], bool]:
    """Print what was added and replaced; returns a row's line of the table, and whether all is well in it."""
    added, replaced = packages.compare(before, after)
    print(f"{row}: added {', '.join(added) or 'nothing'}; replaced {', '.join(replaced) or 'nothing'}.")
    found = {canonicalize_name(name): version for name, version in before.items()}
    counts = [cells["passed"], cells["failed"], cells["skipped"], len(added), len(replaced)]
    line = (row, python, *[found.get(name, "none") for name in SHOWN], *map(str, counts))
    return line, not (cells["failed"] or replaced)


def make_environment(row: str, folder: Path, wanted: list[str], constraints: list[str]) -> str | None:
    """The Python of a new environment with these packages; None where pip could not install them, which it has said."""
    python = f"python{PYTHONS[row]}"
    try:
        packages.run(python, "-c", "")  # pyenv has some on PATH that only say that they are not there
    except (subprocess.SubprocessError, OSError):
        print(f"{row}: no {python} on PATH, so this row is tried with {sys.executable}.")
        python = sys.executable
    packages.run(python, "-m", "venv", str(folder / "python"))
    write_text(folder / "constraints.txt", "\n".join(constraints) + "\n")
    made = str(folder / "python" / "bin" / "python")
    options = "--no-compile --progress-bar off --no-input --disable-pip-version-check".split()
    pip = [made, "-m", "pip", "install", *options, "--constraint", str(folder / "constraints.txt")]
    what = f"{row}: installing {len(wanted)} packages and what they need"
    done = step(what, folder / "install.log", *pip, *wanted)
    return made if done else None


def published_copy(folder: Path) -> Path:
    """A git repository of this checkout as it is, uncommitted changes included, published at PLACE."""
    listing = packages.run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():  # not one that was deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    publish(PLACE, folder)
    as_nobody = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for arguments in (
        ["init", "--quiet", "--initial-branch", PLACE.branch],
        ["add", "--all"],
        [*as_nobody, "commit", "--quiet", "-m", "."],
    ):
        packages.run("git", *arguments, cwd=folder)
    return folder


def as_on_colab(folder: Path, repository: Path) -> dict[str, str]:
    """The environment variables of a row: Colab's, no setting of whoever runs this, and GitHub's address leads to `repository`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RLHF_")}
    count = int(own.get("GIT_CONFIG_COUNT", 0))
    git = {
        "GIT_CONFIG_COUNT": str(count + 1),
        f"GIT_CONFIG_KEY_{count}": f"url.{repository.as_uri()}.insteadOf",
        f"GIT_CONFIG_VALUE_{count}": f"https://github.com/{PLACE.repository}",
    }
    colab = {"COLAB_RELEASE_TAG": "a test", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    apart = {
        name: str(folder / "settings") for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
    }
    return own | git | colab | apart | one_thread() | {"RLHF_SCALE": "tiny"}


def run_notebook(row: str, python: str, notebook: Path, env: dict[str, str]) -> Counter:
    """Run a notebook under nbval: how many of its cells passed, failed and were skipped. Those that failed are printed."""
    report, log = notebook.with_suffix(".xml"), notebook.with_suffix(".log")
    # on a busy machine a kernel does not start in the minute that nbval gives it
    options = "-q -p no:cacheprovider --nbval-lax --nbval-current-env --nbval-cell-timeout 3600 --nbval-kernel-startup-timeout 600"
    command = [python, "-m", "pytest", *options.split(), "--junitxml", str(report), notebook.name]
    step(f"{row}: {notebook.stem}", log, *command, cwd=notebook.parent, env=env)
    return count_cells(report)


def count_cells(report: Path) -> Counter:
    """{"passed": cells, "failed": ..., "skipped": ...} of a report as pytest writes it; one failure where there is none."""
    if not report.exists():
        return Counter(failed=1)
    suite = ElementTree.parse(report).getroot().find("testsuite")
    failed, skipped = int(suite.get("failures")) + int(suite.get("errors")), int(suite.get("skipped"))
    return Counter(passed=int(suite.get("tests")) - failed - skipped, failed=failed, skipped=skipped)


def step(what: str, log: Path, *command: str, **settings) -> bool:
    """Run a command with one line of progress and its last words where it fails; returns whether it succeeded."""
    quietly = [sys.executable, str(ROOT / ".ci" / "quietly.py"), what, str(log)]
    return subprocess.run([*quietly, *command], **settings).returncode == 0
