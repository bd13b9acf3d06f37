"""Running notebooks and storing their outputs, on small notebooks."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading

import nbformat
import pytest
from common import ROOT

from helpers import course, notebooks
from helpers.errors import CourseError


def run_cells(make_notebook, folder, *sources, name="01_small.ipynb", **env):
    """Execute a small notebook's cells and return it."""
    path = make_notebook(folder / "notebooks" / name, *sources)
    notebook = nbformat.read(path, as_version=4)
    notebooks.execute(notebook, path, os.environ | env)
    return notebook


def text(notebook):
    """All that a notebook printed."""
    return "".join(
        output.get("text", "") for cell in notebooks.code_cells(notebook) for output in cell.outputs
    )


@pytest.fixture
def in_course(tmp_path):
    """A folder whose notebooks find the course's helpers: a link to them stands beside."""
    (tmp_path / "helpers").symlink_to(ROOT / "helpers")
    return tmp_path


def test_runs_in_order_in_this_python_and_keeps_copies(make_notebook, in_course, monkeypatch, tmp_path):
    """Whatever kernel the user has under the name python3, and whatever their start-up files do."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        '{"argv": ["false"], "display_name": "Python 3", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text("mine = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    folder = in_course / "notebooks"
    make_notebook(
        folder / "02_second.ipynb",
        "print(open('left').read(), os.environ['RLHF_SCALE'], 'mine' in globals())",
    )
    make_notebook(
        folder / "01_first.ipynb", "open('left', 'w').write('from 01'); print(sys.executable); secret = 1"
    )
    make_notebook(folder / "notes.ipynb", "1 / 0")
    monkeypatch.delenv("RLHF_SCALE")
    copies = notebooks.run(course.start(), folder)
    assert [copy.name for copy in copies] == ["01_first.ipynb", "02_second.ipynb"]
    first, second = (nbformat.read(copy, as_version=4) for copy in copies)
    assert text(first).strip().splitlines()[-1] == sys.executable
    assert text(second) == "from 01 tiny False\n"
    assert copies[0].parent == tmp_path / "out" / "tiny" / "notebooks"


def test_figures_are_in_the_copy(make_notebook, in_course):
    notebook = run_cells(
        make_notebook,
        in_course,
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        MPLBACKEND="agg",
    )
    assert "image/png" in notebook.cells[2].outputs[0].data


def test_a_failing_cell_is_shown(make_notebook, in_course):
    folder = in_course / "notebooks"
    make_notebook(folder / "01_first.ipynb", "print('so far')", "sum_of = 1\nsum_of / 0", "print('after')")
    make_notebook(folder / "02_second.ipynb", "open('ran', 'w')")
    here = course.start()
    with pytest.raises(CourseError) as error:
        notebooks.run(here, folder)
    message = str(error.value)
    assert "01_first.ipynb stopped at code cell 3 of 4:\n\n    sum_of = 1\n    sum_of / 0\n" in message
    assert "ZeroDivisionError: division by zero" in message and "\x1b" not in message
    assert "make lab" in message and "make course" in message
    copy = here.out / "notebooks" / "01_first.ipynb"
    assert f"What ran so far is in {copy}." in message
    kept = text(nbformat.read(copy, as_version=4))
    assert "so far" in kept and "after" not in kept
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("last_words", ["", "no memory left"])
def test_a_dead_kernel_is_said(make_notebook, in_course, last_words):
    with pytest.raises(
        CourseError, match=r"(?s)code cell 2 of 2:.*os._exit\(1\)\n\nThe kernel died.*memory"
    ) as error:
        run_cells(
            make_notebook,
            in_course,
            f"import time\nos.write(2, {last_words.encode()!r})\ntime.sleep(1)\nos._exit(1)",
        )
    assert last_words in str(error.value)


def test_a_kernel_that_does_not_start_is_said(make_notebook, in_course, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ipykernel_launcher.py").write_text("raise SystemExit('a broken installation')")
    with pytest.raises(CourseError, match="(?s)code cell 1 of 2.*The kernel died.*a broken installation"):
        run_cells(make_notebook, in_course, "1", PYTHONPATH=str(tmp_path / "broken"))


def test_progress_says_what_runs(make_notebook, in_course, capsys):
    run_cells(make_notebook, in_course, "print('round 1')")
    said = capsys.readouterr().out
    assert said.startswith("01_small: 2 cells\n") and "01_small: 2/2 cells, 00:" in said


def test_progress_remembers_the_last_line(capsys):
    progress = notebooks.Progress("01_small", 3)
    progress.begin(1)
    progress.heard("one\ntwo\n\rthree  \r\x1b[A")
    progress._show()
    progress.close()
    assert "01_small: 1/3 cells, 00:00 three\n" in capsys.readouterr().out


def test_progress_on_a_terminal(make_notebook, in_course, monkeypatch):
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    drawn = []

    def watch():
        with contextlib.suppress(OSError):  # the terminal is closed
            while data := os.read(master, 1024):
                drawn.append(data)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with open(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        run_cells(make_notebook, in_course, "import time\nprint('round 1')\ntime.sleep(3)")
        monkeypatch.undo()
    watcher.join()
    os.close(master)
    text = b"".join(drawn).decode()
    assert re.search(r"\r01_small \|█+ +\| 1/2 cells, \d\d:\d\d, round 1", text)
    assert re.search(r"\r01_small \|█+\| 2/2 cells, \d\d:\d\d", text)


# Storing outputs


def store(make_notebook, in_course, *sources):
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", *sources)
    assert notebooks.store_outputs(folder=path.parent) == [path]
    return nbformat.read(path, as_version=4)


def test_stored_outputs_are_clean_and_true(make_notebook, in_course, monkeypatch):
    monkeypatch.setenv("RLHF_BUDGET", "0.1")
    monkeypatch.setenv("RLHF_SCALE", "full")
    notebook = store(
        make_notebook,
        in_course,
        "import time, ipywidgets\nfrom tqdm import tqdm\nfrom tqdm.auto import tqdm as auto\n"
        "for i in tqdm(range(3)): time.sleep(0.2)\n"
        "for i in tqdm(range(3), leave=False): pass\n"
        "for i in auto(range(3)): pass\n"
        "ipywidgets.IntSlider()",
        "print('one')\nprint('two')\nprint(os.environ['RLHF_SCALE'], os.environ.get('RLHF_BUDGET'))",
    )
    bar, printed = notebook.cells[2].outputs, notebook.cells[3].outputs
    assert len(bar) == 1 and bar[0].text.startswith("100%|") and bar[0].text.count("\n") == 1
    assert [output.text for output in printed] == ["one\ntwo\ntiny None\n"]
    nbformat.validate(notebook)


def test_stored_metadata(make_notebook, in_course):
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", "1 + 1")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(notebook, path)
    notebooks.store_outputs(folder=path.parent)
    stored = nbformat.read(path, as_version=4)
    assert stored.metadata.pop("course") == {"code_sha256": notebooks.code_hash(stored), "scale": "tiny"}
    assert stored.metadata == notebooks.METADATA
    assert all("execution" not in cell.metadata for cell in stored.cells)
    assert [cell.id for cell in stored.cells] == [cell.id for cell in notebook.cells]


@pytest.mark.parametrize(
    "source",
    [
        "print(os.getcwd())",
        "sys.stderr.write(sys.executable)",
        "Path.cwd()",
        "from IPython.display import HTML\nHTML('<a href=\"/home/someone/x\">')",
    ],
)
def test_machine_paths_are_not_stored(make_notebook, in_course, source):
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", source)
    before = path.read_bytes()
    with pytest.raises(
        CourseError, match="01_small.ipynb: outputs name paths on this machine .*here.show_path"
    ):
        notebooks.store_outputs(folder=path.parent)
    assert path.read_bytes() == before


def test_a_failing_notebook_is_not_stored(make_notebook, in_course):
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(CourseError, match="ZeroDivisionError"):
        notebooks.store_outputs(folder=path.parent)
    assert path.read_bytes() == before


def test_only_the_named_notebooks_are_stored(make_notebook, in_course):
    folder = in_course / "notebooks"
    for name in ("01_a.ipynb", "02_b.ipynb"):
        make_notebook(folder / name, "1")
    assert notebooks.store_outputs(["02_b.ipynb"], folder) == [folder / "02_b.ipynb"]
    with pytest.raises(
        CourseError, match="no notebook is called 03_c.ipynb: there are 01_a.ipynb, 02_b.ipynb"
    ):
        notebooks.store_outputs(["03_c.ipynb"], folder)


# The pieces


@pytest.mark.parametrize(
    "drawn, left",
    [
        ("plain\ntext\n", "plain\ntext\n"),
        ("\r 0%\r 50%\r100%\n", "100%\n"),
        ("\r 0%\r100%\r     \rdone\n", "done\n"),
        ("\r 0%\r100%\r     \r", ""),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        ("\rtwo\n\r0%\x1b[A\r100%\n", "two\n100%\n"),
        ("\x1b[31mred\x1b[0m\n", "\x1b[31mred\x1b[0m\n"),
    ],
)
def test_last_state_of_progress_bars(drawn, left):
    assert notebooks.last_state(drawn) == left


@pytest.mark.parametrize(
    "printed, found",
    [
        ("saved to /home/someone/model", ["/home/someone/model"]),
        ("'/tmp/x1/y'", ["/tmp/x1/y"]),
        ("C:\\Users\\me", ["C:\\Users\\me"]),
        (str(ROOT / "helpers"), None),
        ("out/tiny/model", []),
        ("see https://example.com/home/page and a/work/b", []),
        ("either/or, 1/2, /", []),
    ],
)
def test_machine_paths(printed, found):
    output = nbformat.v4.new_output("stream", name="stdout", text=printed)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
    paths = notebooks.machine_paths(notebook)
    assert paths == found if found is not None else paths


def test_the_hash_covers_the_code_and_nothing_else(make_notebook, tmp_path):
    notebook = nbformat.read(make_notebook(tmp_path / "01_small.ipynb", "x = 1"), as_version=4)
    before = notebooks.code_hash(notebook)
    notebook.cells[0].source += "more words"
    notebook.cells[1].source = notebook.cells[1].source.replace(
        'REPOSITORY = ""', 'REPOSITORY = "owner/name"'
    )
    assert notebooks.code_hash(notebook) == before
    notebook.cells[2].source = "x = 2"
    assert notebooks.code_hash(notebook) != before
