"""What is solved: remembered once and whole, by several kernels at once, damaged or not; shown for a reader and for a class."""

import json
import re
import subprocess
import sys

import pytest
from common import ROOT

from helpers import course, exercise_cells, exercises, progress
from helpers.errors import CourseError

PARTS = {1: "policy", 2: "reference", 3: "reward", 4: "prompt"}
ALL = exercise_cells.of_course()


@pytest.fixture
def path():
    path = progress.where()
    path.parent.mkdir(parents=True)
    return path


def solved(path):
    return json.loads(path.read_text())["solved"]


# ------------------------------------------------------------------------------------------------------------ remembered


def test_a_right_answer_is_remembered_once_and_a_wrong_one_is_not(capsys):
    exercises.check_parts(PARTS | {1: "reward"})
    assert not progress.where().exists()
    exercises.check_parts(PARTS)
    for _ in range(2):
        exercises.check_memory(1.82)
    assert solved(progress.where()) == ["check_parts", "check_memory"]
    assert capsys.readouterr().out.endswith("Correct.\nCorrect.\nCorrect.\n")


def test_it_lies_where_results_go_whatever_the_scale(monkeypatch):
    assert progress.where() == course.results() / "progress.json"
    monkeypatch.setenv("RLHF_SCALE", "full")
    assert progress.where() == course.results() / "progress.json"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\0" * 50, b"[1]", b'{"solved": 3}', b'{"solved": [1]}', b"[" * 99_999, b'"' + b"a" * 200_000 + b'"']
)  # fmt: skip
def test_a_damaged_file_is_kept_and_told_of(path, capsys, content):
    path.write_bytes(content)
    assert exercises.check_memory(1.82) is True
    first, second = capsys.readouterr().out.splitlines()
    assert first == "Correct." and "progress.json.damaged-1" in second
    assert path.with_name("progress.json.damaged-1").read_bytes() == content
    assert solved(path) == ["check_memory"]
    with pytest.raises(CourseError, match="The next exercise that you solve"):
        path.write_bytes(content)
        progress.mine()


def test_names_of_another_version_stay(path, capsys):
    path.write_text('{"solved": ["check_of_old", "check_parts"]}')
    exercises.check_memory(1.82)
    assert solved(path) == ["check_of_old", "check_parts", "check_memory"]
    assert "kept and not counted: check_of_old" in progress.notes(progress.mine(), ALL)[1]


def test_a_right_answer_is_right_where_nothing_can_be_written(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("a file, no folder")
    monkeypatch.setenv("RLHF_OUT", str(tmp_path / "file"))
    assert exercises.check_memory(1.82) is True
    first, second = capsys.readouterr().out.splitlines()
    assert first == "Correct." and second.startswith("This could not be remembered")


def test_several_kernels_lose_nothing():
    """Six processes remember five names each, as fast as they can."""
    code = "import sys; from helpers import progress\nfor i in range(5): print(progress.remember(sys.argv[1] + str(i)), end='')"
    kernels = [
        subprocess.Popen([sys.executable, "-c", code, f"check_{k}_"], cwd=ROOT, stdout=subprocess.PIPE)
        for k in range(6)
    ]
    assert [kernel.communicate()[0] for kernel in kernels] == [b""] * 6
    assert sorted(solved(progress.where())) == [f"check_{k}_{i}" for k in range(6) for i in range(5)]


# ------------------------------------------------------------------------------------------------------------------ shown


def test_no_check_is_asked_by_two_exercises():
    """A name in the file has to mean one exercise."""
    checks = [exercise.check for exercise in ALL if exercise.check]
    assert len(checks) == len(set(checks)) > 30


def test_headings_are_read_whole():
    """Every heading of an exercise in any notebook has become an exercise, with its stars."""
    for path in exercise_cells.numbered():
        text = path.read_text(encoding="utf-8")
        assert len(re.findall("### Exercise", text)) == sum(e.notebook == path.stem for e in ALL) > 0
        assert text.count("★") == sum(e.stars for e in ALL if e.notebook == path.stem)


def test_the_table_adds_up():
    table = progress.rows(["check_parts"], ALL)
    first, last = table[0], table[-1]
    assert first["notebook"] == "01_install" and first["solved"] == "1 of 2" and first["open"] == "01.2"
    assert first["stars"] == "1 of 3" and first["minutes left"] == "10"
    assert int(last["minutes left"]) == sum(int(row["minutes left"]) for row in table[:-1])
    assert last["solved"] == f"1 of {sum(bool(e.check) for e in ALL)}"


def test_a_notebook_shows_the_table_or_why_there_is_none(path, capsys):
    exercises.check_parts(PARTS)
    markup = progress.show()._repr_html_()
    assert "1 of 2" in markup and "13_own_project" in markup and "<caption>" in markup
    path.write_text("{")
    assert "cannot be read" in progress.show()._repr_html_()


def test_the_command(cli, path):
    path.write_text('{"solved": ["check_parts"]}')
    page = path.parent / "page.html"
    done = cli("progress", "--page", page, "--name", "Zoë <b>")
    assert done.returncode == 0, done.stderr
    assert "01_install         1 of 2" in done.stdout and "13.3" in done.stdout
    html = page.read_text(encoding="utf-8")
    assert (
        "Zoë &lt;b&gt;" in html
        and "<td>01.1</td><td>✓ solved</td>" in html
        and "<td>01.2</td><td>open</td>" in html
    )
    assert not re.search(r"(src|href)=|url\(|<script|@import", html)
    assert cli("progress", "--page", page).returncode == 0  # a page of its own is replaced
    page.write_text("mine")
    assert cli("progress", "--page", page).returncode == 2 and page.read_text() == "mine"


def test_a_class(cli, tmp_path):
    folder = tmp_path / "class"
    for name in ("anna/progress.json", "Bo Li/handed in/progress (1).json", "dora.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"solved": ["check_parts", "check_kl", "check_of_old"]}')
    (folder / "dora.txt").write_text('{"solved": ["check_reward_function", "check_parts"]}')
    (folder / "cut.json").write_text('{"solved": ["check_')
    (folder / "picture.png").write_bytes(b"\x89PNG\xff")
    done = cli("progress", "--class", folder)
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert lines["anna"].split()[1:] == [
        "1/2",
        *"····",
        "1/4",
        *"·······",
        "2",
        "of",
        str(sum(bool(e.check) for e in ALL)),
        "06.1",
    ]
    assert lines["dora"].split()[1] == "2/2" and lines["dora"].endswith("01.1")
    assert "Bo Li/handed in/progress (1)" in lines
    assert lines["all, of 3"].split()[3] == "1"
    assert [
        line
        for line in lines
        if line.startswith("Skipped: ") and ("cut.json" in line or "picture.png" in line)
    ]
    assert done.stdout.count("Skipped: ") == 2
    assert {path.name for path in folder.rglob("*")} >= {"cut.json", "picture.png"}


def test_a_class_that_is_none(cli, tmp_path):
    assert "is no folder" in cli("progress", "--class", tmp_path / "nobody").stderr
    (tmp_path / "empty").mkdir()
    assert "holds no file of progress" in cli("progress", "--class", tmp_path / "empty").stderr
