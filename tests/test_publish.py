"""Stamping where the course lives, on a copy; and the Setup cell, run as on Colab."""

import json
import os
import shutil
import subprocess

import nbformat
import pytest
from common import ROOT

from helpers import notebooks
from helpers.errors import CourseError
from helpers.maintain import publish, stored_outputs
from helpers.maintain.publish import Place

HERE = Place("octocat/rlhf-course", "stable")
README = f"# A course\n\n{publish.README_START}\n{publish.UNPUBLISHED}\n{publish.README_END}\n\nWords.\n"


@pytest.fixture
def copy(tmp_path, make_notebook):
    """A small course with two notebooks, and any the course really has."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*", "data"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "colab_gpu.ipynb", folder / "tests")
    (folder / "README.md").write_text(README)
    publish.publish(Place(), folder)  # the course itself may be published already
    (folder / "helpers").symlink_to(ROOT / "helpers")
    for name in ("98_small.ipynb", "99_small.ipynb"):
        make_notebook(folder / "notebooks" / name, "print('café ✓')")
        unstamp(folder / "notebooks" / name)
    return folder


def unstamp(path):
    path.write_text(publish.stamp_notebook(path.read_text(), path.name, Place()))


def contents(folder):
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "helpers" not in path.parts
    }


def test_everything_agrees_and_comes_off_again(copy):
    before = contents(copy)
    changed = publish.publish(HERE, copy)
    assert set(changed) == set(before)
    assert publish.read_place(copy) == HERE
    for path in [*copy.glob("notebooks/*.ipynb"), *copy.glob("tests/*.ipynb")]:
        notebook = nbformat.read(path, as_version=4)
        place = f"{path.parent.name}/{path.name}"
        address = f"https://colab.research.google.com/github/octocat/rlhf-course/blob/stable/{place}"
        assert notebook.cells[0].source.splitlines()[0].endswith(f"({address})")
        assert (
            'REPOSITORY = "octocat/rlhf-course"\nBRANCH = "stable"\n'
            in notebooks.code_cells(notebook)[0].source
        )
    assert f"{publish.README_START}\n[![Open In Colab]" in (copy / "README.md").read_text()

    assert publish.publish(HERE, copy) == []  # once more changes nothing
    publish.publish(Place("someone/else"), copy)
    assert "octocat" not in "".join(data.decode() for data in contents(copy).values())
    publish.publish(Place(), copy)
    assert contents(copy) == before


def test_outputs_and_hash_survive(copy):
    path = copy / "notebooks" / "99_small.ipynb"
    stored_outputs.store_outputs([path.name], path.parent)
    before = nbformat.read(path, as_version=4)
    publish.publish(HERE, copy)
    after = nbformat.read(path, as_version=4)
    assert [cell.get("outputs") for cell in after.cells] == [cell.get("outputs") for cell in before.cells]
    assert (
        after.metadata.course.code_sha256
        == before.metadata.course.code_sha256
        == stored_outputs.code_hash(after)
    )


def test_unpublished_links_nowhere():
    assert "http" not in publish.badge_line("notebooks/01_install.ipynb", Place())
    assert "make publish REPO=owner/name" in publish.badge_line("notebooks/01_install.ipynb", Place())
    assert publish.setup_cell(Place()) == publish.SETUP


@pytest.mark.parametrize(
    "repository",
    [
        "name",
        "https://github.com/owner/name",
        "owner/name/more",
        "own er/name",
        'owner/na"me',
        "-o/name",
        "/name",
    ],
)
def test_impossible_repository(repository):
    with pytest.raises(CourseError, match="is not a GitHub repository: expected owner/name"):
        Place(repository)


@pytest.mark.parametrize("branch", ["", "a b", "a..b", "-x", "$(id)", "a;b"])
def test_impossible_branch(branch):
    with pytest.raises(CourseError, match="is not a branch"):
        Place("owner/name", branch)


def spoil_encoding(copy):
    (copy / "README.md").write_bytes(README.replace("Words", "Caf\xe9").encode("latin-1"))


def spoil_json(copy):
    (copy / "notebooks" / "98_small.ipynb").write_text('{"cells": [')


def spoil_list(copy):
    (copy / "notebooks" / "98_small.ipynb").write_text("[]")


def spoil_cells(copy):
    edit(copy, lambda cells: cells.clear())


def spoil_source(copy):
    edit(copy, lambda cells: cells[1].pop("source"))


def spoil_source_kind(copy):
    edit(copy, lambda cells: cells[1].update(source=[1, None]))


def spoil_cell_kind(copy):
    edit(copy, lambda cells: cells.append(None))


def spoil_first_cell(copy):
    edit(copy, lambda cells: cells[0].update(source=[]))


def lose_readme(copy):
    (copy / "README.md").unlink()


def spoil_readme(copy):
    (copy / "README.md").write_text("# A course\n")


def spoil_badge(copy):
    edit(copy, lambda cells: cells[0].update(source="# A title"))


def spoil_setup(copy):
    edit(copy, lambda cells: cells[1].update(source="import os"))


def spoil_pyproject(copy):
    (copy / "pyproject.toml").write_text("[tool.other]\n")


def edit(copy, change):
    path = copy / "notebooks" / "98_small.ipynb"
    notebook = json.loads(path.read_text())
    change(notebook["cells"])
    path.write_text(json.dumps(notebook))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (spoil_readme, "README.md: expected one place for the badge"),
        (spoil_badge, "98_small.ipynb: the first line should be the Colab badge"),
        (spoil_setup, "98_small.ipynb: the first code cell should be the Setup cell"),
        (spoil_pyproject, "pyproject.toml: expected one table"),
        (spoil_encoding, r"README.md is not UTF-8 text \(byte \d+ is 0xe9\): save it as UTF-8"),
        (spoil_json, "98_small.ipynb is not a whole notebook .*: fetch the course's own"),
        (spoil_list, "98_small.ipynb is not a whole notebook"),
        (spoil_cells, "98_small.ipynb is not a whole notebook .it has no cells"),
        (spoil_source, "98_small.ipynb is not a whole notebook .its cells are not those of a notebook"),
        (spoil_source_kind, "98_small.ipynb is not a whole notebook .its cells are not those of a notebook"),
        (spoil_cell_kind, "98_small.ipynb is not a whole notebook .its cells are not those of a notebook"),
        (spoil_first_cell, "98_small.ipynb: the first line should be the Colab badge"),
        (lose_readme, "README.md cannot be read"),
    ],
)
def test_nothing_is_written_unless_all_can_be(copy, spoil, message):
    spoil(copy)
    before = contents(copy)
    with pytest.raises(CourseError, match=message):
        publish.publish(HERE, copy)
    assert contents(copy) == before


def fail_at(monkeypatch, wanted, error):
    """Writing fails from the file at these places of the order on; returns what was written."""
    written, whole = [], publish.write_text

    def write(path, text):
        written.append(path)
        if len(written) in wanted:
            raise error
        whole(path, text)

    monkeypatch.setattr(publish, "write_text", write)
    return written


@pytest.mark.parametrize("error", [CourseError("the disk is full."), KeyboardInterrupt()])
@pytest.mark.parametrize("place", [1, 3, 11])
def test_where_one_cannot_be_written_the_others_are_put_back(copy, monkeypatch, place, error):
    (copy / "README.md").write_bytes(README.replace("\n", "\r\n").encode())
    before = contents(copy)
    written = fail_at(monkeypatch, [place], error)
    with pytest.raises(type(error)) as raised:
        publish.publish(HERE, copy)
    assert contents(copy) == before and len(written) >= place
    if isinstance(error, CourseError):
        assert str(raised.value) == "the disk is full. No file is stamped."


def test_and_where_that_fails_too_they_are_named(copy, monkeypatch):
    before = contents(copy)
    fail_at(monkeypatch, range(3, 100), CourseError("the disk is full."))
    with pytest.raises(CourseError, match=r"full\. pyproject.toml, README.md may be stamped already.*again"):
        publish.publish(HERE, copy)
    assert {path.name for path, data in contents(copy).items() if data != before[path]} == {
        "pyproject.toml",
        "README.md",
    }
    monkeypatch.undo()
    publish.publish(Place(), copy)
    assert contents(copy) == before


def test_the_readers_notebooks_are_not_stamped(copy, make_notebook):
    mine = [
        copy / "notebooks" / name for name in ("mine.ipynb", "99_small-Copy1.ipynb", "99_small.yours.ipynb")
    ]
    mine.append(copy / "tests" / "mine.ipynb")
    for path in mine[1:]:
        make_notebook(path, "1")
    mine[0].write_text("not even a notebook")
    before = [path.read_bytes() for path in mine]
    publish.publish(HERE, copy)
    assert [path.read_bytes() for path in mine] == before


def test_line_ends_and_half_characters_stay(copy):
    (copy / "README.md").write_bytes(README.replace("\n", "\r\n").encode())
    edit(copy, lambda cells: cells[2].update(outputs=[stream("half \ud83d of it")]))
    publish.publish(Place(), copy)  # lays the notebook out
    before = contents(copy)
    publish.publish(HERE, copy)
    readme = (copy / "README.md").read_bytes()
    assert b"octocat" in readme and readme.count(b"\n") == readme.count(b"\r\n")
    publish.publish(Place(), copy)
    assert contents(copy) == before
    assert b"half \\ud83d of it" in (copy / "notebooks" / "98_small.ipynb").read_bytes()


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": [text]}


# The Setup cell, run in a kernel


def run_setup(path, **env):
    notebook = nbformat.read(path, as_version=4)
    notebooks.execute(notebook, path, os.environ | env)
    return "".join(
        output.get("text", "") for cell in notebooks.code_cells(notebook) for output in cell.outputs
    )


@pytest.fixture
def on_github(tmp_path):
    """A repository that git finds under a GitHub address, for git clone to be run for real without a network."""
    work = tmp_path / "github" / "octocat" / "rlhf-course"
    for folder in ("helpers", "notebooks"):
        (work / folder).mkdir(parents=True)
    (work / "helpers" / "course.py").write_text("fetched = True\n")
    (work / "helpers" / "__init__.py").touch()
    (work / "notebooks" / "01_x.ipynb").touch()
    (work / "helpers" / "__main__.py").write_text("import sys\nprint(*sys.argv[1:])\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q", "-b", "stable"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=work, check=True)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path / 'github'}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "COLAB_RELEASE_TAG": "release-colab",
    }


def test_setup_on_colab(tmp_path, make_notebook, on_github):
    path = make_notebook(
        tmp_path / "content" / "01_small.ipynb",
        publish.setup_cell(HERE),  # a second time, as readers do
        "from helpers import course\nprint(os.getcwd(), course.fetched)",
    )
    path.write_text(publish.stamp_notebook(path.read_text(), path.name, HERE))
    for _ in ("the first notebook of a session", "the next one"):
        said = run_setup(path, **on_github).split()
        assert said == ["install", str(tmp_path / "content" / "course" / "notebooks"), "True"]


def test_setup_on_colab_before_publishing(tmp_path, make_notebook, on_github):
    path = make_notebook(tmp_path / "content" / "01_small.ipynb")
    unstamp(path)
    with pytest.raises(
        CourseError,
        match="AssertionError: This copy of the course is not published yet, so Colab cannot fetch it",
    ):
        run_setup(path, **on_github)
    assert not (tmp_path / "content" / "course").exists()


def test_setup_elsewhere_finds_the_course_and_stays(copy, make_notebook):
    path = make_notebook(
        copy / "notebooks" / "01_small.ipynb", "import helpers.course\nprint(os.getcwd(), sys.path[0])"
    )
    assert run_setup(path) == f"{copy / 'notebooks'} {copy}\n"


def test_setup_beside_nothing(tmp_path, make_notebook):
    path = make_notebook(tmp_path / "downloads" / "01_small.ipynb")
    with pytest.raises(CourseError, match="AssertionError: .*download the whole course, not one file"):
        run_setup(path)
