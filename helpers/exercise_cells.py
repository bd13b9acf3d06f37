"""The exercises of a notebook, read off its cells: number, stars, minutes, check, and the printed solution.

An exercise begins with a heading such as `### Exercise 2 ★★ · 10 minutes`. Code cells follow it: the last one calls the
exercise's check. The cell after that holds the solution, folded, with its code between ```python and ```.
"""

import ast
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from helpers.notebooks import NOTEBOOKS, numbered, read

HEADING = re.compile(
    r"^### Exercise (?P<number>\d+) (?P<stars>★+) · (?:(?P<minutes>\d+) minutes)?.*$", re.MULTILINE
)
CHECK = re.compile(r"^exercises\.(check_\w+)\(.*\);$", re.MULTILINE)
SOLUTION = re.compile(r"<details><summary>Solutions?</summary>\n(.*?)</details>\n?", re.DOTALL)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook. What cannot be checked, such as a project of one's own, has no `check` and no `cells`."""

    notebook: str  # "06_train"
    number: int
    stars: int
    minutes: int | None  # None where the heading gives none
    task: str  # the first sentence
    check: str = ""  # the name of the function, such as "check_kl"
    cells: tuple[int, ...] = ()  # where its code cells are in the notebook; the last one calls the check
    solution: str = ""  # the printed solution's code; of several solutions the first

    @property
    def name(self) -> str:
        """Notebook and number, such as 06.2."""
        return f"{self.notebook[:2]}.{self.number}"


def of_course(folder: Path = NOTEBOOKS) -> list[Exercise]:
    """The exercises of all notebooks, in reading order.

    Raises:
        CourseError: a notebook cannot be read.
    """
    return [exercise for path in numbered(folder) for exercise in of_notebook(read(path), path.stem)]


def of_notebook(notebook: NotebookNode, name: str) -> list[Exercise]:
    """The exercises of one notebook, which is called `name`, such as "06_train"."""
    return [
        exercise
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "markdown"
        for exercise in begun_in(notebook.cells, index, name)
    ]


def begun_in(cells: list[NotebookNode], index: int, name: str) -> list[Exercise]:
    """The exercises whose headings stand in a cell. The cells after it belong to the last of them."""
    source = cells[index].source
    headings = list(HEADING.finditer(source))
    found = []
    for heading, following in itertools.zip_longest(headings, headings[1:]):
        text = source[heading.end() : following.start() if following else None]
        parts = () if following else code_after(cells, index)
        check = CHECK.search(cells[parts[-1]].source) if parts else None
        found.append(
            Exercise(
                notebook=name,
                number=int(heading["number"]),
                stars=len(heading["stars"]),
                minutes=int(heading["minutes"]) if heading["minutes"] else None,
                task=first_sentence(text),
                check=check[1] if check else "",
                cells=parts if check else (),
                solution=solution_after(cells, parts[-1]) if check else "",
            )
        )
    return found


def code_after(cells: list[NotebookNode], index: int) -> tuple[int, ...]:
    """Where the code cells are that follow a cell without prose between them, up to the first that calls a check."""
    found = []
    for place in range(index + 1, len(cells)):
        if cells[place].cell_type != "code":
            break
        found.append(place)
        if CHECK.search(cells[place].source):
            break
    return tuple(found)


def solution_after(cells: list[NotebookNode], index: int) -> str:
    """The code of the first solution printed in the cell after this one; empty where there is none."""
    folded = SOLUTION.search(cells[index + 1].source) if index + 1 < len(cells) else None
    code = CODE.search(folded[1]) if folded else None
    return code[1] if code else ""


def first_sentence(text: str) -> str:
    """The first sentence of a text in Markdown, as plain text."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", re.sub(r"[*`$]", "", paragraph))
    return re.split(r"(?<=[.?!])\s", plain, maxsplit=1)[0]


def solved(starter: str, solution: str) -> str:
    """A starter's code with the printed solution in the place of the answers that are open.

    The first statement that sets a name which the solution sets too becomes the solution; further ones are left out. Code
    without such a statement stays as it is.
    """
    wanted = set().union(*(names_set(statement) for statement in ast.parse(solution).body))
    open_ = [statement for statement in ast.parse(starter).body if names_set(statement) & wanted]
    lines = starter.splitlines()
    for statement in reversed(open_):
        answer = solution.strip().splitlines() if statement is open_[0] else []
        lines[statement.lineno - 1 : statement.end_lineno] = answer
    return "\n".join(lines)


def names_set(statement: ast.stmt) -> set[str]:
    """The names that a statement gives a value at its top: of assignments, functions and classes."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
