"""Where the course lives on GitHub, stamped everywhere from one place: `[tool.course]` in pyproject.toml.

A stamp is the Colab badge at the top of each notebook and in README.md, and two constants in each notebook's Setup cell.
Before the course is published each of them says so in words, and links nowhere.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from helpers.course import ROOT, atomic_write
from helpers.errors import CourseError

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
UNPUBLISHED = "Colab: this copy of the course has not been published yet; `make publish REPO=owner/name` adds the button."
README_START, README_END = "<!-- colab badge -->", "<!-- end of colab badge -->"

SETUP = """\
# Setup: on Colab, fetch the course and install what is missing; elsewhere, only find the course
import os
import sys
from pathlib import Path

REPOSITORY = ""
BRANCH = ""
if ("google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ) and not Path("../helpers").exists():
    assert REPOSITORY, "This copy of the course is not published yet, so Colab cannot fetch it."
    if not Path("course").exists():
        !git clone --quiet --depth 1 --branch {BRANCH} https://github.com/{REPOSITORY} course
    os.chdir("course/notebooks")
    !{sys.executable} -m pip install --quiet --requirement ../requirements.txt
folders = [Path.cwd(), *Path.cwd().parents]
course_folder = next((folder for folder in folders if (folder / "helpers/course.py").exists()), None)
assert course_folder, "Above this notebook is no helpers folder: download the whole course, not one file."
sys.path.insert(0, str(course_folder))"""

STAMPED = re.compile(r'^(REPOSITORY|BRANCH) = ".*"$', re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """A repository on GitHub ("owner/name"; empty before publishing) and the branch readers get."""

    repository: str = ""
    branch: str = "main"

    def __post_init__(self):
        if self.repository and not re.fullmatch(
            r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}", self.repository
        ):
            raise CourseError(
                f"{self.repository!r} is not a GitHub repository: expected owner/name, such as octocat/rlhf-course, "
                "without https://github.com/"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", self.branch) or ".." in self.branch:
            raise CourseError(
                f"{self.branch!r} is not a branch: expected letters, digits and . _ / -, such as main"
            )


def read_place(root: Path = ROOT) -> Place:
    """Where pyproject.toml says the course lives."""
    return Place(**tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"])


def badge_line(notebook: str, place: Place | None = None) -> str:
    """The first line of a notebook, such as "notebooks/01_install.ipynb": its Colab badge, or a sentence before publishing."""
    place = place or read_place()
    if not place.repository:
        return UNPUBLISHED
    address = f"https://colab.research.google.com/github/{place.repository}/blob/{place.branch}/{notebook}"
    return f"[![Open In Colab]({BADGE})]({address})"


def setup_cell(place: Place | None = None) -> str:
    """The source of the Setup cell, the first code cell of every notebook."""
    place = place or read_place()
    values = {"REPOSITORY": place.repository, "BRANCH": place.branch if place.repository else ""}
    return STAMPED.sub(lambda line: f'{line[1]} = "{values[line[1]]}"', SETUP)


def without_stamp(source: str) -> str:
    """A code cell's source with the stamped values blanked, so that publishing does not make outputs look stale."""
    return STAMPED.sub(r'\1 = ""', source)


def publish(place: Place, root: Path = ROOT) -> list[Path]:
    """Stamp `place` into pyproject.toml, README.md and every notebook; `Place()` takes the stamp off again.

    Nothing is written unless all of them can be stamped. Outputs, and everything else in the notebooks, stay as they are.

    Returns:
        The files that changed.

    Raises:
        CourseError: a notebook without a badge line or Setup cell, or a README without the badge's markers.
    """
    notebooks = [*sorted(root.glob("notebooks/*.ipynb")), *sorted(root.glob("tests/*.ipynb"))]
    paths = [root / "pyproject.toml", root / "README.md", *notebooks]
    old = {path: path.read_text(encoding="utf-8") for path in paths}
    new = {path: stamp(path.relative_to(root).as_posix(), text, place) for path, text in old.items()}
    changed = [path for path in paths if new[path] != old[path]]
    for path in changed:
        atomic_write(path, new[path])
    return changed


def stamp(name: str, text: str, place: Place) -> str:
    """One file's text with the stamp on it."""
    if name == "pyproject.toml":
        return stamp_pyproject(text, place)
    return stamp_readme(text, place) if name == "README.md" else stamp_notebook(text, name, place)


def stamp_pyproject(text: str, place: Place) -> str:
    """The text of pyproject.toml with the place in its [tool.course]."""
    table = f'[tool.course]\nrepository = "{place.repository}"\nbranch = "{place.branch}"\n'
    text, found = re.subn(r'\[tool\.course\]\nrepository = ".*"\nbranch = ".*"\n', table, text)
    if found != 1:
        raise CourseError(
            f"pyproject.toml: expected one table like this, with nothing between its lines:\n{table}"
        )
    return text


def stamp_readme(text: str, place: Place) -> str:
    """README.md's text with the first notebook's badge between the markers."""
    block = f"{README_START}\n{badge_line('notebooks/01_install.ipynb', place)}\n{README_END}"
    text, found = re.subn(re.escape(README_START) + r"\n.*\n" + re.escape(README_END), block, text)
    if found != 1:
        raise CourseError(f"README.md: expected one place for the badge, these three lines:\n{block}")
    return text


def stamp_notebook(text: str, name: str, place: Place) -> str:
    """A notebook's text with its badge line and the Setup cell's constants stamped, and not a byte else changed."""
    notebook = json.loads(text)
    first = notebook["cells"][0]
    badge, *rest = lines_of(first)
    if not badge.startswith(("[![Open In Colab]", UNPUBLISHED)):
        raise CourseError(f"{name}: the first line should be the Colab badge or this sentence: {UNPUBLISHED}")
    first["source"] = [badge_line(name, place) + "\n" * badge.endswith("\n"), *rest]

    setup = next((cell for cell in notebook["cells"] if cell["cell_type"] == "code"), {"source": []})
    if without_stamp("".join(setup["source"])) != SETUP:
        raise CourseError(
            f"{name}: the first code cell should be the Setup cell that helpers.publish.setup_cell() returns"
        )
    setup["source"] = setup_cell(place).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def lines_of(cell: dict) -> list[str]:
    """A cell's source as lines; nbformat allows one string as well."""
    return "".join(cell["source"]).splitlines(keepends=True)
