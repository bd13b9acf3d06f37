"""Which exercises are solved: remembered in a file among the results, and shown by notebook. Nothing is sent anywhere.

The file holds the names of the checks that said right. A name leads to its exercise through the notebooks' own headings, so
that a file outlives an exercise that moves to another place.
"""

import collections
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import course, files
from helpers.errors import CourseError

if TYPE_CHECKING:  # a check that remembers needs no notebook
    from helpers.exercise_cells import Exercise

NAME = "progress.json"
LIMIT = 100_000
"""Bytes. A file of progress has about one thousand; larger ones are none."""


def where() -> Path:
    """The file: at the top of the folder for results, because what is solved at one scale is solved."""
    return course.results() / NAME


def remember(check: str) -> str:
    """Add a check that said right to the file, unless it is there.

    Returns:
        A sentence where the file was damaged, or could not be written; else "". It raises nothing: an exercise that is
        solved stays so.
    """
    try:
        path = where()
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(path):
            return add(path, check)
    except CourseError as error:
        return f"This could not be remembered: {error}"
    except OSError as error:
        return f"This could not be remembered in {path}: {files.reason(error)}."


def add(path: Path, check: str) -> str:
    """Add a name to the file, which is locked. A damaged file is renamed first, and the sentence returned says so."""
    told = ""
    try:
        names = names_in(path) if path.exists() else []
    except CourseError as error:
        aside = files.set_aside(path, "damaged")
        told, names = f"{error} It is {aside.name} now, and a new one begins with this exercise.", []
    if check not in names:
        files.write_text(path, json.dumps({"solved": [*names, check]}, indent=1) + "\n")
    return told


def names_in(path: Path) -> list[str]:
    """The names of the checks in a file, in the order in which they were solved.

    Raises:
        CourseError: the file cannot be read, or is no file of progress.
    """
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(LIMIT + 1).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CourseError(f"{course.show_path(path)} cannot be read: {files.reason(error)}.") from error
    names = found.get("solved") if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CourseError(
            f'{course.show_path(path)} is no file of progress: it has no list of names under "solved".'
        )
    return list(dict.fromkeys(names))


def mine() -> list[str]:
    """The names in the reader's own file; none where there is no file yet.

    Raises:
        CourseError: the file cannot be read, or is no file of progress.
    """
    try:
        return names_in(where()) if where().exists() else []
    except CourseError as error:
        raise CourseError(
            f"{error} The next exercise that you solve renames it and begins a new file; nothing is lost before."
        ) from error


def with_check(exercises: Iterable["Exercise"]) -> dict[str, list["Exercise"]]:
    """The exercises that have a check, by notebook."""
    by_notebook = collections.defaultdict(list)
    for exercise in exercises:
        if exercise.check:
            by_notebook[exercise.notebook].append(exercise)
    return dict(by_notebook)


def rows(names: list[str], exercises: list["Exercise"]) -> list[dict[str, str]]:
    """The table: of each notebook, and of all, how many exercises and stars are solved, the minutes left, and what is open."""
    table = [row(notebook, names, own) for notebook, own in with_check(exercises).items()]
    checked = [exercise for exercise in exercises if exercise.check]
    return [*table, row("all", names, checked) | {"open": ""}]


def row(notebook: str, names: list[str], exercises: list["Exercise"]) -> dict[str, str]:
    """One notebook's row of the table."""
    done = [exercise for exercise in exercises if exercise.check in names]
    open_ = [exercise for exercise in exercises if exercise.check not in names]
    return {
        "notebook": notebook,
        "solved": f"{len(done)} of {len(exercises)}",
        "stars": f"{sum(e.stars for e in done)} of {sum(e.stars for e in exercises)}",
        "minutes left": str(sum(e.minutes or 0 for e in open_)),
        "open": ", ".join(e.name for e in open_),
    }


def notes(names: list[str], exercises: list["Exercise"]) -> list[str]:
    """What the table leaves out: exercises that nothing checks, and names that no notebook has."""
    unchecked = [exercise.name for exercise in exercises if not exercise.check]
    unknown = sorted(set(names) - {exercise.check for exercise in exercises})
    said = [f"Without a check, and not counted: {', '.join(unchecked)}."] if unchecked else []
    if unknown:
        said.append(f"Solved in another version of the course, kept and not counted: {', '.join(unknown)}.")
    return said


def show():
    """The table for the last cell of a notebook; a sentence in its place where the file cannot be read."""
    from helpers.exercise_cells import of_course
    from helpers.widgets import design
    from helpers.widgets.html import sentence

    try:
        table = [row | {"open": row["open"] or "–"} for row in rows(mine(), of_course())]
    except CourseError as error:
        return design.static(sentence(str(error)))
    return design.static(design.table(table, "Your exercises"))


def of_class(folder: Path, exercises: list["Exercise"]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The table of a class, and a sentence about each file that is no file of progress.

    Args:
        folder: the students' files, of any names, in it or in its folders.
    Returns:
        Lines of the table: a head, and one line a student, with what is solved in each notebook, in all, and which
        exercise was solved last; a last line with how many students solved all of a notebook. And the sentences.
    Raises:
        CourseError: there is no such folder, or no file of progress in it.
    """
    if not folder.is_dir():
        raise CourseError(f"{folder} is no folder: expected one with the files {NAME} of a class.")
    paths = [Path(top) / name for top, _, names in os.walk(folder) for name in names if name[0] != "."]
    students, skipped = {}, []
    for path in sorted(path for path in paths if path.is_file()):
        try:
            students[path] = names_in(path)
        except CourseError as error:
            skipped.append(f"Skipped: {error}")
    if not students:
        raise CourseError("\n".join([*skipped, f"{folder} holds no file of progress, such as {NAME}."]))
    by_notebook = with_check(exercises)
    names_of = {exercise.check: exercise.name for exercise in exercises if exercise.check}
    head = ("who", *(notebook[:2] for notebook in by_notebook), "solved", "last")
    lines = []
    for path, names in students.items():
        known = [name for name in names if name in names_of]
        counts = [sum(e.check in names for e in own) for own in by_notebook.values()]
        lines.append(
            (
                who(path, folder),
                *(
                    f"{count}/{len(own)}" if count else "·"
                    for count, own in zip(counts, by_notebook.values())
                ),
                f"{len(known)} of {len(names_of)}",
                names_of[known[-1]] if known else "",
            )
        )
    whole = [
        str(sum(all(e.check in names for e in own) for names in students.values()))
        for own in by_notebook.values()
    ]
    return [head, *lines, (f"all, of {len(students)}", *whole, "", "")], skipped


def who(path: Path, folder: Path) -> str:
    """Whose file it is, by its path in the folder: the file's name, with the folders' names before it."""
    path = path.relative_to(folder)
    return str(path.parent if path.name == NAME and path.parent.name else path.with_suffix(""))


PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Reinforcement learning from human feedback: what was solved</title>
<style>
body {{ font: 11pt/1.45 system-ui, sans-serif; color: #1b1f24; background: white; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 20pt; line-height: 1.2; margin: 0 0 .5rem }}
.name {{ font-size: 16pt; border-bottom: 1px solid #1b1f24; min-height: 1.5em; margin: 1.5rem 0 }}
table {{ border-collapse: collapse; width: 100%; table-layout: fixed }}
th {{ width: 4.5rem }}
th:last-child {{ width: auto }}
caption {{ text-align: left; font-weight: bold; padding: 1.2rem 0 .3rem }}
th, td {{ text-align: left; vertical-align: top; padding: .15rem .6rem .15rem 0; border-top: 1px solid #d3d9df }}
tr {{ break-inside: avoid }}
@page {{ margin: 15mm }}
</style>
</head>
<body>
<main>
<h1>Reinforcement learning from human feedback with trlX</h1>
<p>{summary}</p>
<div class="name">{name}</div>
{tables}
<p>{note}</p>
</main>
</body>
</html>
"""
NOTE = (
    "Each exercise was checked by the course on the reader's own machine, and this page was made there. It says what a file "
    "on that machine says; nobody has watched."
)


def write_page(path: Path, name: str) -> Path:
    """Write a page to print: a name, and each exercise with whether it is solved. It needs nothing else and loads nothing.

    Args:
        path: the file; a page that was written here before is replaced.
        name: whose page it is; empty leaves a line to write on.
    Raises:
        CourseError: another file is there, the file of progress cannot be read, or the page cannot be written.
    """
    from helpers.exercise_cells import of_course
    from helpers.seal import check_own, sealed
    from helpers.widgets.html import escape

    path = files.expand(path)
    check_own(path)
    names, exercises = mine(), of_course()
    total = rows(names, exercises)[-1]
    page = PAGE.format(
        summary=escape(f"{total['solved']} exercises solved, with {total['stars']} stars."),
        name=escape(name),
        tables="\n".join(page_table(notebook, names, own) for notebook, own in with_check(exercises).items()),
        note=NOTE,
    )
    with course.errors_about_results(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, sealed(page))
    return path


def page_table(notebook: str, names: list[str], exercises: list["Exercise"]) -> str:
    """One notebook's exercises on the page to print."""
    from helpers.widgets.html import escape

    lines = "\n".join(
        f"<tr><td>{e.name}</td><td>{'✓ solved' if e.check in names else 'open'}</td><td>{'★' * e.stars}</td>"
        f"<td>{escape(e.task)}</td></tr>"
        for e in exercises
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("exercise", "state", "stars", "task"))
    return f"<table><caption>{escape(notebook)}</caption><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table>"
