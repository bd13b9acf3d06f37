"""Two editions of the notebooks for a class: one without solutions, one with the solutions in their places and run.

Both are made from the notebooks by one command, and never edited: what was changed in a folder of editions is not replaced.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from helpers import files
from helpers.errors import CourseError
from helpers.exercise_cells import CHECK, SOLUTION, Exercise, of_notebook, solved
from helpers.maintain.stored_outputs import code_hash, run_afresh
from helpers.notebooks import numbered, read

MARK = "editions.json"
"""In a folder of editions: the SHA-256 of every notebook that was written there."""


def make(folder: str | Path, paths: Sequence[Path] = ()) -> Path:
    """Write the editions of notebooks into `folder`/student and `folder`/instructor, all of them or none.

    Args:
        folder: new, empty, or made by this function and not changed since.
        paths: the notebooks; those of the course when empty.
    Returns:
        The folder.
    Raises:
        CourseError: the folder holds something else, a notebook cannot be read, a solution has no place in its exercise, a
            cell failed, or a check did not say right of its solution. The folder is then as it was.
    """
    folder = files.expand(folder)
    before = check_folder(folder)
    editions = {}
    for path in paths or numbered():
        editions[f"student/{path.name}"] = student(read(path), path)
        editions[f"instructor/{path.name}"] = instructor(read(path), path)
    texts = {name: nbformat.writes(notebook) + "\n" for name, notebook in editions.items()}
    marks = {name: digest(text.encode()) for name, text in texts.items()}

    def write(into: Path) -> None:
        for name, text in {**texts, MARK: json.dumps(marks, indent=1) + "\n"}.items():
            (into / name).parent.mkdir(exist_ok=True)
            files.write_text(into / name, text)

    files.write_folder(folder, write)
    for name in before - marks.keys():  # of a notebook that the course has no more
        (folder / name).unlink()
    return folder


def check_folder(folder: Path) -> set[str]:
    """Refuse a folder with anything in it but editions as they were made. Hidden files, such as a Mac's, may be there.

    Returns:
        The names of the editions that are there.
    Raises:
        CourseError: names what is in the way.
    """
    files.check_folder(folder)
    files.settle(folder)
    there = {name.as_posix() for name in files.files_in(folder) if not name.name.startswith(".")}
    if not there:
        return set()
    if MARK not in there:
        raise CourseError(
            f"{folder} is not empty and was not made by this command: name a folder that is new or empty."
        )
    try:
        marks = json.loads((folder / MARK).read_text(encoding="utf-8"))
        changed = sorted(
            name for name in there - {MARK} if marks.get(name) != digest((folder / name).read_bytes())
        )
    except (OSError, ValueError, AttributeError) as error:
        raise CourseError(
            f"{folder / MARK} cannot be read: {files.reason(error)}. Name another folder."
        ) from error
    if changed:
        raise CourseError(
            f"{folder / changed[0]} was changed or added since the editions were made: move it away, or name another folder."
        )
    return there - {MARK}


def digest(data: bytes) -> str:
    """The SHA-256 of what stands in a file."""
    return hashlib.sha256(data).hexdigest()


def student(notebook: NotebookNode, path: Path) -> NotebookNode:
    """The notebook without its printed solutions, and without what the cells of exercises gave."""
    for exercise in of_notebook(notebook, path.stem):
        for index in exercise.cells:
            notebook.cells[index].outputs, notebook.cells[index].execution_count = [], None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub("", cell.source).strip()
    notebook.cells = [cell for cell in notebook.cells if cell.source]
    return notebook


def instructor(notebook: NotebookNode, path: Path) -> NotebookNode:
    """The notebook with each printed solution in its exercise, run at tiny scale, with what it gave.

    Raises:
        CourseError: as `make` says.
    """
    exercises = [exercise for exercise in of_notebook(notebook, path.stem) if exercise.check]
    for exercise in exercises:
        put_in(notebook, exercise)
    run_afresh(notebook, path)  # in a folder of its own: the solutions are not this reader's progress
    for exercise in exercises:
        refuse_wrong(notebook, exercise)
    notebook.metadata["course"] = {"code_sha256": code_hash(notebook), "scale": "tiny"}
    return notebook


def put_in(notebook: NotebookNode, exercise: Exercise) -> None:
    """Put the printed solution into the first cell of its exercise that has an open answer to it.

    Raises:
        CourseError: no code is printed, or no cell sets what the solution sets.
    """
    if not exercise.solution:
        raise CourseError(f"exercise {exercise.name} has a check, but its solution has no code")
    for index in exercise.cells:
        cell = notebook.cells[index]
        source = solved(cell.source, exercise.solution)
        if source != cell.source:
            cell.source = source
            return
    raise CourseError(f"exercise {exercise.name}: no cell of it sets a name that its solution sets")


def refuse_wrong(notebook: NotebookNode, exercise: Exercise) -> None:
    """Refuse an exercise that ran and whose check did not say right.

    Raises:
        CourseError: has what the check said.
    """
    cell = notebook.cells[exercise.cells[-1]]
    assert CHECK.search(cell.source)
    said = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    if not said or "Not yet: " in said or "Not attempted" in said:
        raise CourseError(f"exercise {exercise.name}: its printed solution is not right: {said.strip()}")
