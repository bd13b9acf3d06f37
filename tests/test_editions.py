"""The student's edition has no solution in it; in the instructor's every check says right of its solution. Neither replaces anything else."""

import json
import re
import shutil

import nbformat
import pytest
from common import ROOT

from helpers import exercise_cells, notebooks
from helpers.errors import CourseError
from helpers.maintain import editions

NAMES = ["03_pipeline.ipynb", "05_reward.ipynb"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return editions.make(
        tmp_path_factory.mktemp("class") / "editions", [ROOT / "notebooks" / name for name in NAMES]
    )


@pytest.fixture
def small(tmp_path):
    """A notebook of one exercise, quickly run."""

    def write(solution='parts = {1: "policy", 2: "reference", 3: "reward", 4: "prompt"}'):
        cells = [
            nbformat.v4.new_code_cell(f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom helpers import course, exercises\nprint(course.make_out('tiny'))"),
            nbformat.v4.new_markdown_cell("### Exercise 1 ★ · 3 minutes\n\nWhich?"),
            nbformat.v4.new_code_cell("parts = {1: None}  # your answer\nexercises.check_parts(parts);"),
            nbformat.v4.new_markdown_cell(f"<details><summary>Solution</summary>\n\n```python\n{solution}\n```\n\nA word.\n\n</details>"),
        ]  # fmt: skip
        path = tmp_path / "01_small.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return write


@pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
def test_the_students_edition_has_no_line_of_a_solution(path):
    """Of any notebook. A line that the lesson has too stands there as often as in the lesson."""
    given = "\n".join(cell.source for cell in notebooks.read(path).cells)
    text = "\n".join(cell.source for cell in editions.student(notebooks.read(path), path).cells)
    solutions = "\n".join(
        re.findall(r"<details><summary>Solutions?</summary>.*?</details>", given, re.DOTALL)
    )
    lines = {line for line in map(str.strip, solutions.splitlines()) if len(line) > 5}
    assert len(lines) > 5
    assert [line for line in lines if text.count(line) > given.count(line) - solutions.count(line)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_rest_of_the_students_edition_is_as_it_was(folder, name):
    own, given = notebooks.read(folder / "student" / name), notebooks.read(ROOT / "notebooks" / name)
    of_exercises = [i for e in exercise_cells.of_notebook(given, name[:-6]) for i in e.cells]
    for index in of_exercises:
        given.cells[index].outputs, given.cells[index].execution_count = [], None
    assert notebooks.code_cells(own) == notebooks.code_cells(given)
    assert own.metadata == given.metadata
    untouched = [cell for cell in given.cells if "<summary>Solution" not in cell.source]
    assert len(untouched) > 20 and all(cell in own.cells for cell in untouched)
    assert "### Exercise 2" in "".join(cell.source for cell in own.cells)


@pytest.mark.parametrize("name", NAMES)
def test_every_check_of_the_instructors_edition_says_right(folder, name):
    text = (folder / "instructor" / name).read_text(encoding="utf-8")
    notebook = notebooks.read(folder / "instructor" / name)
    exercises = exercise_cells.of_notebook(notebook, name[:-6])
    assert len(exercises) >= 3
    for exercise in exercises:
        said = "".join(
            output.text
            for output in notebook.cells[exercise.cells[-1]].outputs
            if output.output_type == "stream"
        )
        assert said.startswith("Correct"), (exercise.name, said)
    assert "Not attempted" not in text and "# your answer" not in text


def test_the_solutions_are_nobodys_progress(small, tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_OUT", str(tmp_path / "mine"))
    folder = editions.make(tmp_path / "editions", [small()])
    assert not (tmp_path / "mine").exists()
    text = (folder / "instructor" / "01_small.ipynb").read_text(encoding="utf-8")
    assert '"out/tiny\\n"' in text  # and no path of this machine


def test_a_wrong_solution_is_refused_and_nothing_written(small, tmp_path):
    with pytest.raises(CourseError, match=r"01\.1: its printed solution is not right: Not yet"):
        editions.make(tmp_path / "editions", [small('parts = {1: "policy"}')])
    with pytest.raises(CourseError, match="no cell of it sets a name"):
        editions.make(tmp_path / "editions", [small("answer = 3")])
    assert not (tmp_path / "editions").exists()


def test_only_its_own_folder_is_written_to(small, tmp_path):
    path, folder = small(), tmp_path / "editions"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CourseError, match="not made by this command"):
        editions.make(folder, [path])
    (folder / "notes.txt").unlink()
    editions.make(folder, [path])
    (folder / ".DS_Store").write_text("a Mac's")
    second = shutil.copy(path, path.with_name("02_other.ipynb"))
    editions.make(folder, [second])
    assert [file.name for file in (folder / "student").iterdir()] == ["02_other.ipynb"]
    edited = folder / "student" / "02_other.ipynb"
    edited.write_text(edited.read_text() + " ")
    before = edited.read_text()
    with pytest.raises(CourseError, match=r"02_other.ipynb was changed"):
        editions.make(folder, [path])
    assert edited.read_text() == before and json.loads((folder / editions.MARK).read_text())
