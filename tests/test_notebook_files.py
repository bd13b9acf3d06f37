"""The notebooks as files: whole, of the course's anatomy, with outputs that their code really made."""

import ast
import base64
import re

import nbformat
import pytest
from common import ROOT

from helpers import exercise_cells, notebooks
from helpers.maintain import publish, stored_outputs

PATHS = notebooks.numbered()


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def markdown(notebook):
    """All prose, without code blocks, whose comments look like headings."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def outputs(notebook):
    return [output for cell in notebooks.code_cells(notebook) for output in cell.outputs]


def test_all_are_there():
    tutorial = ["01_install", "02_finetune", "03_pipeline", "04_prompts", "05_reward", "06_train"]
    assert [path.stem for path in PATHS] == [
        *tutorial,
        "07_inside_ppo",
        "08_clinic",
        "09_human_feedback",
        "10_goodhart",
        "11_beyond_ppo",
        "12_scale",
        "13_own_project",
    ]


def test_valid(notebook):
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_one_title(notebook):
    assert len(re.findall(r"^# ", markdown(notebook), re.MULTILINE)) == 1


def test_the_head_says_how_long_it_takes(path, notebook):
    """To read: words at 200 a minute, folded ones left out, and half a minute for each code cell but Setup and progress; to the nearest 5."""
    shown = re.sub(r"<details>.*?</details>", "", markdown(notebook), flags=re.DOTALL)
    minutes = len(shown.split()) / 200 + (len(notebooks.code_cells(notebook)) - 2) / 2
    exercises = sum(exercise.minutes or 0 for exercise in exercise_cells.of_notebook(notebook, path.stem))
    [row] = re.findall(r"^\| Time \| .*$", notebook.cells[0].source, re.MULTILINE)
    assert f"about {5 * round(minutes / 5)} minutes to read" in row
    assert f"{exercises} minutes of exercises" in row


def test_badge_and_setup_are_the_courses_own(path, notebook):
    assert notebook.cells[0].source.splitlines()[0] == publish.badge_line(f"notebooks/{path.name}")
    setup = notebooks.code_cells(notebook)[0]
    assert setup.source == publish.setup_cell() and setup.metadata == publish.SETUP_METADATA
    (output,) = setup.outputs
    assert output.text.startswith("Scale tiny · ") and output.text.count("\n") == 1


def test_the_first_cell_shows_the_cover(notebook):
    """Title, promise and table, and then the figure that the cell tagged `cover` made, with its text alternative."""
    png, alt = stored_outputs.cover(notebook)
    first = notebook.cells[0]
    assert first.attachments == {stored_outputs.COVER: {"image/png": png}}
    before, shown = first.source.rsplit("\n\n", 1)
    assert "attachment:" not in before
    assert shown == f"![{alt}](attachment:{stored_outputs.COVER})" and len(alt) > 20
    assert len(base64.b64decode(png)) <= stored_outputs.COVER_BYTES
    assert re.search(r"\n\n# [^\n]+\n\n[^|#!]+\n\n\| \| \|\n\|---\|---\|\n(\|[^\n]+\|\n?){4}", before), before


def test_imports_stand_where_they_are_used(notebook):
    """No cell only imports; and what is imported at the top of a cell is used in it or in the cell below it."""
    _setup, *cells = notebooks.code_cells(notebook)
    for cell, below in zip(cells, [*cells[1:], cells[-1]]):
        body = ast.parse(cell.source).body
        imported = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert len(imported) < len(body), cell.source
        used = {
            node.id
            for source in (cell.source, below.source)
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Name)
        }
        names = {(alias.asname or alias.name).split(".")[0] for node in imported for alias in node.names}
        assert names <= used, names - used


def test_looks_are_set_in_one_place(notebook):
    """Colours have names, in helpers/palette.py; what else figures and tables look like is in helpers/look.py."""
    for cell in notebooks.code_cells(notebook):
        own = r"#[0-9A-Fa-f]{6}|set_option|rcParams|frameon|constrained|spines|plt\.style"
        assert not re.search(own, cell.source), cell.source


def test_links_to_its_neighbours(path, notebook):
    at = PATHS.index(path)
    neighbours = {neighbour.name for neighbour in (PATHS[at - 1 : at] if at else []) + PATHS[at + 1 : at + 2]}
    links = set(re.findall(r"\]\((\d\d_\w+\.ipynb)\)", notebook.cells[0].source))
    assert links == neighbours


def test_links_lead_somewhere(notebook):
    for target in re.findall(r"\]\((?!https?://|#|attachment:|data:)([^)#\s]+)", markdown(notebook)):
        assert (ROOT / "notebooks" / target).exists(), target


def test_metadata(notebook):
    metadata = dict(notebook.metadata)
    assert metadata.pop("course")["scale"] == "tiny"
    assert metadata == publish.metadata()
    assert not any(key in cell.metadata for cell in notebook.cells for key in ("execution", "ExecuteTime"))


def test_code_cells_are_short(notebook):
    _setup, *cells = notebooks.code_cells(notebook)
    long = {
        cell.source.splitlines()[0]: len(cell.source.splitlines())
        for cell in cells
        if cell.source.count("\n") >= 15
    }
    assert not long


def test_outputs_were_made_by_this_code(notebook):
    assert notebook.metadata.course.code_sha256 == stored_outputs.code_hash(notebook), "run `make notebooks`"
    counts = [cell.execution_count for cell in notebooks.code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_are_fit_to_read(notebook):
    assert outputs(notebook)
    assert not any(output.output_type == "error" for output in outputs(notebook))
    assert not any(stored_outputs.WIDGET in output.get("data", {}) for output in outputs(notebook))
    assert not any("\r" in output.get("text", "") for output in outputs(notebook))
    assert stored_outputs.machine_paths(notebook) == []


def test_size(path):
    assert path.stat().st_size < 2_000_000
