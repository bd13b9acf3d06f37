"""Where the course lives on GitHub, stamped everywhere from one place: `[tool.course]` in pyproject.toml.

A stamp is the buttons at the top of each notebook and in README.md, and four constants in each notebook's Setup cell: repository and
branch, and a scale and an engine for a whole class. Before the course is published each says so in words, and links nowhere.
"""

import copy
import json
import re
import subprocess
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from helpers.course import ROOT
from helpers.errors import CourseError
from helpers.files import write_text
from helpers.notebooks import COURSE_NOTEBOOK
from helpers.terminal import printable

UNPUBLISHED = "Colab, Kaggle, Binder, Codespaces: this copy of the course has not been published yet; `make publish` adds the buttons."
COLAB = (
    "On Colab: changes are lost with the session, so choose *File > Save a copy in Drive* first; mount Drive in the *Files* pane "
    "before you run anything, and results are kept there."
)
README_START, README_END = "<!-- badges -->", "<!-- end of badges -->"

# What Colab reads: a T4 is asked for, the table of contents is shown. Versions are left out: they would change in every run.
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

SETUP = """\
# @title Setup
# Find the course, and start it. Colab and Kaggle open one notebook alone: there, fetch it and install what is missing.
import os
import sys
from pathlib import Path

REPOSITORY, BRANCH = "", ""
SCALE = ""  # @param ["", "tiny", "full"]
ENGINE = ""  # @param ["", "trlx", "builtin"]
hosted = "google.colab" in sys.modules or {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"} & set(os.environ)
folders = [Path.cwd(), *Path.cwd().parents]
course_folder = next((folder for folder in folders if (folder / "helpers/course.py").exists()), None)
if hosted and not course_folder:
    assert REPOSITORY, "This copy of the course is not published yet, so it cannot be fetched."
    os.environ["GIT_TERMINAL_PROMPT"] = "0"  # where the repository is gone, git would ask for a name and wait
    !test -e course/helpers || git clone -q --depth 1 -b {BRANCH} https://github.com/{REPOSITORY} course
    assert Path("course/helpers").exists(), (
        f"Nothing came from github.com/{REPOSITORY}, see above. On Kaggle, turn Internet on in Settings (it wants your phone number)."
    )
    os.chdir("course")
    !{sys.executable} -m helpers install
    course_folder = Path.cwd()
    os.chdir("notebooks")
assert course_folder, "Above this notebook is no helpers folder: download the whole course, not one file."
sys.path.insert(0, str(course_folder))
from helpers import course, settings

settings.set_defaults(scale=SCALE, engine=ENGINE)
here = course.start()"""

# Folded to its title: `cellView` for Colab, `source_hidden` for JupyterLab.
SETUP_METADATA = {"cellView": "form", "jupyter": {"source_hidden": True}}

PLACE = re.compile(r'^REPOSITORY, BRANCH = ".*", ".*"$', re.MULTILINE)
FIELD = re.compile(r'^(SCALE|ENGINE) = ".*"(  # @param .*)$', re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """A repository on GitHub ("owner/name"; empty before publishing), the branch readers get, and what is fixed for all of them."""

    repository: str = ""
    branch: str = "main"
    scale: str = ""  # "tiny" or "full"; empty: the course chooses
    engine: str = ""  # "trlx" or "builtin"; empty: the course chooses

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
        if self.scale not in ("", "tiny", "full"):
            raise CourseError(f"{self.scale!r} is not a scale: expected tiny or full, or nothing")
        if self.engine not in ("", "trlx", "builtin"):
            raise CourseError(f"{self.engine!r} is not an engine: expected trlx or builtin, or nothing")


def read_place(root: Path = ROOT) -> Place:
    """Where pyproject.toml says the course lives."""
    return Place(**tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"])


def read_remote(root: Path = ROOT) -> str:
    """The GitHub repository, "owner/name", that git's remote origin names.

    Raises:
        CourseError: git is missing, the folder is no repository of its own, it has no origin, or origin is elsewhere.
    """
    name_it = "Name the repository: make publish REPO=owner/name"
    try:
        top = git(root, "rev-parse", "--show-toplevel")
        if top.returncode or Path(top.stdout.strip()).resolve() != root.resolve():
            raise CourseError(f"The course's folder is no git repository of its own. {name_it}")
        origin = git(root, "remote", "get-url", "origin")
    except FileNotFoundError as error:
        raise CourseError(
            f"git, which knows where the course comes from, is not installed. {name_it}"
        ) from error
    if origin.returncode:
        raise CourseError(f"git knows no remote called origin. {name_it}")
    address = re.sub(r"//[^/]*@", "//", origin.stdout.strip())  # a password may stand before the @
    github = r"(?:(?:https?|ssh|git)://(?:www\.)?github\.com(?::\d+)?/|(?:[^/@:]+@)?github\.com:/?)([^/]+/[^/]+?)(?:\.git)?/?"
    found = re.fullmatch(github, address, re.IGNORECASE)
    if not found:
        raise CourseError(
            f"git's remote origin is {printable(address)}, which is not on github.com, where all the buttons look. {name_it}"
        )
    return found[1]


def git(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    """What git says about the folder."""
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", errors="replace"
    )


def buttons(notebook: str, place: Place) -> str:
    """The buttons that open a notebook, such as "notebooks/01_install.ipynb", or a sentence before publishing."""
    if not place.repository:
        return UNPUBLISHED
    file = f"{place.repository}/blob/{place.branch}/{notebook}"
    binder = f"{place.repository}/{quote(place.branch, safe='')}?urlpath=lab/tree/{notebook}"
    return " ".join(
        f"[![{words}]({picture})]({address})"
        for words, picture, address in [
            (
                "Open In Colab",
                "https://colab.research.google.com/assets/colab-badge.svg",
                f"https://colab.research.google.com/github/{file}",
            ),
            (
                "Open in Kaggle",
                "https://kaggle.com/static/images/open-in-kaggle.svg",
                f"https://kaggle.com/kernels/welcome?src=https://github.com/{file}",
            ),
            (
                "Open in Binder",
                "https://mybinder.org/badge_logo.svg",
                f"https://mybinder.org/v2/gh/{binder}",
            ),
            (
                "Open in GitHub Codespaces",
                "https://github.com/codespaces/badge.svg",
                f"https://codespaces.new/{place.repository}/tree/{place.branch}",
            ),
        ]
    )


def badge_line(notebook: str, place: Place | None = None) -> str:
    """The first line of a notebook, such as "notebooks/01_install.ipynb": its buttons, and under them how to keep work on Colab."""
    place = place or read_place()
    line = buttons(notebook, place)
    return f"{line}<br>{COLAB}" if place.repository else line


def setup_cell(place: Place | None = None) -> str:
    """The source of the Setup cell, the first code cell of every notebook."""
    place = place or read_place()
    branch = place.branch if place.repository else ""
    values = {"SCALE": place.scale, "ENGINE": place.engine}
    source = PLACE.sub(f'REPOSITORY, BRANCH = "{place.repository}", "{branch}"', SETUP)
    return FIELD.sub(lambda line: f'{line[1]} = "{values[line[1]]}"{line[2]}', source)


def without_stamp(source: str) -> str:
    """A code cell's source with the stamped values blanked, so that publishing does not make outputs look stale."""
    return FIELD.sub(r'\1 = ""\2', PLACE.sub('REPOSITORY, BRANCH = "", ""', source))


def metadata(place: Place | None = None) -> dict:
    """A notebook's metadata. Where the scale is tiny for all, Colab is asked for no GPU: others need it more."""
    place, wanted = place or read_place(), copy.deepcopy(METADATA)
    if place.scale == "tiny":
        del wanted["accelerator"], wanted["colab"]["gpuType"]
    return wanted


def publish(place: Place, root: Path = ROOT) -> list[Path]:
    """Stamp `place` into pyproject.toml, README.md and every notebook of the course; `Place()` takes the stamp off again.

    Nothing is written unless all of them can be stamped; where one cannot be written, those written before it are put back.
    Outputs, and everything else in the notebooks, stay as they are.

    Returns:
        The files that changed.

    Raises:
        CourseError: a notebook without a badge line or Setup cell, a README without the badges' markers, or a file that
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
    table = "[tool.course]\n" + "".join(f'{name} = "{value}"\n' for name, value in asdict(place).items())
    text, found = re.subn(re.sub('".*?"', '".*"', re.escape(table)), lambda _: table, text)
    if found != 1:
        raise CourseError(
            f"pyproject.toml: expected one table like this, with nothing between its lines:\n{table}"
        )
    return text


def stamp_readme(text: str, place: Place) -> str:
    """README.md's text with the first notebook's buttons between the markers."""
    block = f"{README_START}\n{buttons('notebooks/01_install.ipynb', place)}\n{README_END}"
    text, found = re.subn(re.escape(README_START) + r"\n.*\n" + re.escape(README_END), block, text)
    if found != 1:
        raise CourseError(f"README.md: expected one place for the buttons, these three lines:\n{block}")
    return text


def stamp_notebook(text: str, name: str, place: Place) -> str:
    """A notebook's text with its badge line, the Setup cell's constants and Colab's GPU stamped, and not a byte else changed."""
    notebook, cells = read_cells(text, name)
    first = cells[0]
    badge, *rest = lines_of(first) or [""]
    if not badge.startswith(("[![Open In Colab]", UNPUBLISHED)):
        raise CourseError(
            f"{name}: the first line should be the Colab button or this sentence: {UNPUBLISHED}"
        )
    first["source"] = [badge_line(name, place) + "\n" * badge.endswith("\n"), *rest]

    setup = next((cell for cell in cells if cell["cell_type"] == "code"), {"source": []})
    if without_stamp("".join(setup["source"])) != SETUP:
        raise CourseError(
            f"{name}: the first code cell should be the Setup cell that helpers.maintain.publish.setup_cell() returns"
        )
    setup["source"] = setup_cell(place).splitlines(keepends=True)
    stamp_gpu(notebook.get("metadata", {}), place.scale != "tiny" or name.startswith("tests/"))
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def stamp_gpu(of_notebook: dict, gpu: bool) -> None:
    """Have a notebook's metadata ask Colab for a GPU, or for none; another kind than the course's own stays as it is."""
    colab = of_notebook.get("colab")
    if not isinstance(colab, dict):
        return
    for table, name, value in ((of_notebook, "accelerator", "GPU"), (colab, "gpuType", "T4")):
        if gpu and name not in table:
            in_order = sorted([*table.items(), (name, value)])  # as nbformat writes them
            table.clear()
            table.update(in_order)
        elif not gpu and table.get(name) == value:
            del table[name]


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
