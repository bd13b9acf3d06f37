"""Where the course lives on GitHub, stamped everywhere from one place: `[tool.course]` in pyproject.toml.

A stamp is the Colab badge at the top of each notebook and in README.md, and two constants in each notebook's Setup cell.
Before the course is published each of them says so in words, and links nowhere.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from helpers.course import ROOT
from helpers.errors import CourseError
from helpers.files import write_text
from helpers.notebooks import COURSE_NOTEBOOK

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
    !cd .. && {sys.executable} -m helpers install
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
    """Stamp `place` into pyproject.toml, README.md and every notebook of the course; `Place()` takes the stamp off again.

    Nothing is written unless all of them can be stamped; where one cannot be written, those written before it are put back.
    Outputs, and everything else in the notebooks, stay as they are.

    Returns:
        The files that changed.

    Raises:
        CourseError: a notebook without a badge line or Setup cell, a README without the badge's markers, or a file that
            cannot be read or written.
    """
    notebooks = [path for path in root.glob("notebooks/*.ipynb") if COURSE_NOTEBOOK.fullmatch(path.name)]
    paths = [
        root / "pyproject.toml",
        root / "README.md",
        *sorted(notebooks),
        *root.glob("tests/colab_gpu.ipynb"),
    ]
    old = {path: read_text(path, root) for path in paths}
    new = {path: stamp(path.relative_to(root).as_posix(), text, place) for path, text in old.items()}
    changed = [path for path in paths if new[path] != old[path]]
    write_all(changed, old, new, root)
    return changed


def read_text(path: Path, root: Path) -> str:
    """A file's text, line ends included.

    Raises:
        CourseError: the file cannot be read, or is not UTF-8.
    """
    name = path.relative_to(root).as_posix()
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise CourseError(
            f"{name} cannot be read ({error.strerror}), and publishing stamps it. Nothing was stamped."
        ) from error
    except UnicodeDecodeError as error:
        raise CourseError(
            f"{name} is not UTF-8 text (byte {error.start + 1} is {error.object[error.start]:#x}): save it as UTF-8. "
            "Nothing was stamped."
        ) from error


def write_all(paths: list[Path], old: dict[Path, str], new: dict[Path, str], root: Path) -> None:
    """Write all files, or put those back that were written.

    Raises:
        CourseError: one could not be written; names those that could not be put back either.
    """
    written = []
    try:
        for path in paths:
            written.append(path)  # before it is: an interruption may come just after
            write_text(path, new[path])
    except BaseException as error:
        stamped = [path.relative_to(root).as_posix() for path in written if not put_back(path, old[path])]
        if stamped:
            raise CourseError(
                f"{str(error) or 'Stopped.'} {', '.join(stamped)} may be stamped already and could not be put back: "
                "run the same command again when there is room."
            ) from error
        if isinstance(error, CourseError):
            raise CourseError(f"{error} No file is stamped.") from error
        raise


def put_back(path: Path, text: str) -> bool:
    """Write a file's former text, where it has another, and return whether the file has its former text now."""
    try:
        if path.read_bytes() != text.encode("utf-8"):
            write_text(path, text)
    except (CourseError, OSError):
        return False
    return True


def stamp(name: str, text: str, place: Place) -> str:
    """One file's text with the stamp on it, and the line ends that it had.

    Raises:
        CourseError: the file has no place for the stamp.
    """
    if "\r\n" in text:
        return stamp(name, text.replace("\r\n", "\n"), place).replace("\n", "\r\n")
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
    notebook, cells = read_cells(text, name)
    first = cells[0]
    badge, *rest = lines_of(first) or [""]
    if not badge.startswith(("[![Open In Colab]", UNPUBLISHED)):
        raise CourseError(f"{name}: the first line should be the Colab badge or this sentence: {UNPUBLISHED}")
    first["source"] = [badge_line(name, place) + "\n" * badge.endswith("\n"), *rest]

    setup = next((cell for cell in cells if cell["cell_type"] == "code"), {"source": []})
    if without_stamp("".join(setup["source"])) != SETUP:
        raise CourseError(
            f"{name}: the first code cell should be the Setup cell that helpers.maintain.publish.setup_cell() returns"
        )
    setup["source"] = setup_cell(place).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def read_cells(text: str, name: str) -> tuple[dict, list[dict]]:
    """A notebook as JSON has it, and its cells, of which there is one at least.

    Raises:
        CourseError: the text is not such a notebook.
    """
    try:
        notebook = json.loads(text)
        cells = notebook["cells"]
        for cell in cells:
            cell["cell_type"], "".join(cell["source"])
        if not cells:
            raise ValueError("it has no cells")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = error if isinstance(error, ValueError) else "its cells are not those of a notebook"
        raise CourseError(
            f"{name} is not a whole notebook ({reason}): fetch the course's own. Nothing was stamped."
        ) from error
    return notebook, cells


def lines_of(cell: dict) -> list[str]:
    """A cell's source as lines; nbformat allows one string as well."""
    return "".join(cell["source"]).splitlines(keepends=True)
