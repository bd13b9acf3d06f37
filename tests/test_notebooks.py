"""Running notebooks and storing their outputs, on small notebooks."""

import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from common import ROOT

from helpers import course, notebooks, terminal
from helpers.course import GIB
from helpers.errors import CourseError
from helpers.maintain import publish, stored_outputs


def run_cells(make_notebook, folder, *sources, name="01_small.ipynb", **env):
    """Execute a small notebook's cells and return it."""
    path = make_notebook(folder / "notebooks" / name, *sources)
    notebook = nbformat.read(path, as_version=4)
    notebooks.execute(notebook, path, os.environ | env)
    return notebook


def text(notebook):
    """All that a notebook printed below Setup."""
    _setup, *cells = notebooks.code_cells(notebook)
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


@pytest.fixture
def make_notebook(make_notebook):
    """As everywhere, but Setup ends before `course.start()`: these kernels need nothing that takes seconds to load."""

    def make(path, *sources):
        make_notebook(path, *sources)
        text = path.read_text(encoding="utf-8")
        assert text.count("here = course.start()") == 1
        path.write_text(text.replace("here = course.start()", "here = None"), encoding="utf-8")
        return path

    return make


@pytest.fixture
def in_course(tmp_path):
    """A folder whose notebooks find the course's helpers: a link to them stands beside."""
    (tmp_path / "helpers").symlink_to(ROOT / "helpers")
    return tmp_path


def test_runs_in_this_python_and_keeps_copies(make_notebook, in_course, monkeypatch, tmp_path):
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
        "print(os.environ['RLHF_SCALE'], 'mine' in globals(), 'secret' in globals())",
    )
    make_notebook(folder / "01_first.ipynb", "print(sys.executable); secret = 1")
    make_notebook(folder / "notes.ipynb", "1 / 0")
    monkeypatch.delenv("RLHF_SCALE")
    copies = notebooks.run(course.start(), folder)
    assert [copy.name for copy in copies] == ["01_first.ipynb", "02_second.ipynb"]
    first, second = (nbformat.read(copy, as_version=4) for copy in copies)
    assert text(first).strip().splitlines()[-1] == sys.executable
    assert text(second) == "tiny False False\n"
    assert copies[0].parent == tmp_path / "out" / "tiny" / "notebooks"


def test_figures_are_in_the_copy(make_notebook, in_course):
    notebook = run_cells(
        make_notebook,
        in_course,
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        MPLBACKEND="agg",
    )
    assert "image/png" in notebook.cells[2].outputs[0].data


FOR_EVER = "while True: time.sleep(0.1)"


def test_a_failing_cell_is_shown_and_ends_the_others(make_notebook, in_course, monkeypatch):
    folder = in_course / "notebooks"
    begun = "while not Path('../begun').exists(): time.sleep(0.1)"
    make_notebook(
        folder / "01_first.ipynb",
        f"import time\n{begun}\nprint('so far')",
        "sum_of = 1\nsum_of / 0",
        "print('after')",
    )
    # another runs already, and one waits
    make_notebook(
        folder / "02_second.ipynb", "import time\nprint(os.getpid())\nPath('../begun').touch()", FOR_EVER
    )
    make_notebook(folder / "03_third.ipynb", "open('ran', 'w')")
    monkeypatch.setattr(notebooks, "at_once", lambda env: 2)
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
    kernel = int(text(nbformat.read(here.out / "notebooks" / "02_second.ipynb", as_version=4)))
    assert not psutil.pid_exists(kernel)


def test_as_many_at_once_as_there_are_cores(monkeypatch):
    one = {"RLHF_SCALE": "tiny", "OMP_NUM_THREADS": "1"}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(3), raising=False)
    memory = SimpleNamespace(available=100 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert notebooks.at_once(one) == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on a Mac, and in Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert notebooks.at_once(one) == 5
    for available, expected in [(2.5 * GIB, 2), (0.1 * GIB, 1)]:
        memory.available = int(available)
        assert notebooks.at_once(one) == expected
    assert notebooks.at_once(one | {"RLHF_SCALE": "full"}) == 1
    assert notebooks.at_once(one | {"OMP_NUM_THREADS": "2"}) == notebooks.at_once({"RLHF_SCALE": "tiny"}) == 1


def test_several_at_once_wait_for_each_other_and_have_one_line(make_notebook, in_course, monkeypatch, capsys):
    """Each waits for what the other leaves: one after the other they would wait for ever."""
    folder = in_course / "notebooks"
    for name, other in [("01_a", "02_b"), ("02_b", "01_a")]:
        waiting = f"import time\nPath('{name}').touch()\nwhile not Path('{other}').exists(): time.sleep(0.1)"
        make_notebook(folder / f"{name}.ipynb", waiting, "print(os.environ.get('OMP_NUM_THREADS'))")
    monkeypatch.setattr(notebooks, "at_once", lambda env: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    copies = notebooks.run(course.start(), folder)
    assert [text(nbformat.read(copy, as_version=4)) for copy in copies] == ["1\n", "1\n"]
    said = capsys.readouterr().out
    assert (
        "2 notebooks: 6 cells\n" in said and "01_a: 3/3 cells, 00:" in said and "02_b: 3/3 cells, 00:" in said
    )


def test_ctrl_c_ends_all_kernels(make_notebook, in_course, tmp_path):
    folder = in_course / "notebooks"
    for name in ("01_a", "02_b"):
        make_notebook(
            folder / f"{name}.ipynb",
            f"import time\nPath('{name}.pid').write_text(str(os.getpid()))",
            FOR_EVER,
        )
    code = f"""
from pathlib import Path
from helpers import course, notebooks
notebooks.at_once = lambda env: 2
notebooks.run(course.start(), Path({str(folder)!r}))
"""
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pids = [folder / "01_a.pid", folder / "02_b.pid"]
    while not all(path.exists() and path.read_text() for path in pids):
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate()
    assert said.rstrip().endswith(b"KeyboardInterrupt") and b"Exception ignored" not in said
    assert not any(psutil.pid_exists(int(path.read_text())) for path in pids)


def test_a_kernel_that_does_not_start_leaves_nothing_to_fail_at_exit(make_notebook, in_course, tmp_path):
    """nbclient would say "Exception ignored in atexit callback"."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ipykernel_launcher.py").write_text("raise SystemExit('a broken installation')")
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", "1")
    code = f"""
import os, nbformat
from pathlib import Path
from helpers import notebooks
path = Path({str(path)!r})
notebooks.execute(nbformat.read(path, as_version=4), path, os.environ | {{"PYTHONPATH": {str(tmp_path / "broken")!r}}})
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "The kernel died" in run.stderr and "Exception ignored" not in run.stderr


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
    progress = notebooks.Progress({"01_small": 3})
    progress.begin("01_small", 1)
    progress.heard("01_small", "one\ntwo\n\rthree  \r\x1b[A")
    progress._show()
    progress.close()
    assert "01_small: 1/3 cells, 00:00 three\n" in capsys.readouterr().out


@contextlib.contextmanager
def on_a_terminal(monkeypatch):
    """Inside, stderr is a terminal; gives a list, in which what was drawn on it is afterwards, in pieces."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))  # Windows has none
    master, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    drawn = []

    def watch():
        with contextlib.suppress(OSError):  # the terminal is closed
            while data := os.read(master, 1024):
                drawn.append(data)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with open(screen, "w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        yield drawn
    watcher.join()
    os.close(master)


def test_progress_on_a_terminal(make_notebook, in_course, monkeypatch):
    with on_a_terminal(monkeypatch) as drawn:
        run_cells(make_notebook, in_course, "import time\nprint('round 1')\ntime.sleep(3)")
    text = b"".join(drawn).decode()
    assert re.search(r"\r01_small \|█+ +\| 1/2 cells, \d\d:\d\d, round 1", text)
    assert re.search(r"\r01_small \|█+\| 2/2 cells, \d\d:\d\d", text)


# What a terminal would obey

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"  # OSC 52
HOSTILE = f"A {CLIPBOARD} B \x1b[2J C \x9b2J D \x9d52;c;eA==\x9c E \x7f F \u202e G"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("héllo 👩‍🚀 日本", "héllo 👩‍🚀 日本"),
        ("line\r\nline", "line\nline"),
        ("over\rwritten", "over\\rwritten"),
        (CLIPBOARD, "\\x1b]52;c;cm0gLXJmIH4=\\x07"),
        ("\x9b2J\x85\x7f\x00\x08", "\\x9b2J\\x85\\x7f\\x00\\x08"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("half \ud83d of it", "half \\ud83d of it"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
    ],
)
def test_printable(text, shown):
    assert terminal.printable(text) == shown
    assert terminal.printable(shown) == shown
    shown.encode()


def test_no_character_is_left_that_a_terminal_would_obey():
    assert not OBEYED.search(terminal.printable("".join(map(chr, range(0x11000)))))


def test_colours_are_no_loss():
    assert terminal.plain("\x1b[1;31mred\x1b[0m\x1b[?25l \x1b]0;title\x07") == "red \\x1b]0;title\\x07"


def run_hostile(make_notebook, in_course, capfd):
    """What was written, and the error's sentence, when a notebook prints what a model wrote and fails with it too."""
    printing = f"import time\nprint({HOSTILE!r})\ntime.sleep(2)"
    failing = f"# {HOSTILE}\nraise ValueError({HOSTILE!r})"
    make_notebook(in_course / "notebooks" / "01_small.ipynb", printing, failing)
    here = course.start()
    capfd.readouterr()
    with pytest.raises(CourseError) as error:
        notebooks.run(here, in_course / "notebooks")
    return "".join(capfd.readouterr()), str(error.value)


def test_a_log_shows_nothing_that_a_terminal_would_obey(make_notebook, in_course, capfd, monkeypatch):
    monkeypatch.setattr(notebooks.Progress, "_tick", quick_tick)
    written, message = run_hostile(make_notebook, in_course, capfd)
    assert "]52;c;" in written and "ValueError" in message and "]52;c;" in message
    assert not OBEYED.search(written) and not OBEYED.search(message)


def test_nor_does_half_a_character_end_a_run(capfd):
    """A kernel does not send it on, as far as is known; the line could not be written with it."""
    progress = notebooks.Progress({"01_small": 1})
    progress.close()
    progress.heard("01_small", "half \ud83d of it")
    progress._show()
    assert "half \\ud83d of it" in capfd.readouterr().out


def quick_tick(progress):
    """As Progress._tick, with a line ten times a second."""
    while not progress.closed.wait(0.1):
        progress._show()


def test_nor_does_a_terminal(make_notebook, in_course, capfd, monkeypatch):
    with on_a_terminal(monkeypatch) as drawn:
        written, message = run_hostile(make_notebook, in_course, capfd)
    drawn = b"".join(drawn).decode().replace("\r", "").replace("\x1b[A", "")  # tqdm's own
    assert "]52;c;" in drawn
    assert not OBEYED.search(drawn) and not OBEYED.search(written) and not OBEYED.search(message)


def test_nor_do_a_kernels_last_words(make_notebook, in_course):
    last_words = CLIPBOARD.encode() + b"\xff\xc2\x9b2J"  # not UTF-8 either
    with pytest.raises(CourseError, match="The kernel died") as error:
        run_cells(
            make_notebook, in_course, f"import time\nos.write(2, {last_words!r})\ntime.sleep(1)\nos._exit(1)"
        )
    assert "]52;c;" in str(error.value) and not OBEYED.search(str(error.value))


def test_nor_do_paths_in_outputs(make_notebook, in_course):
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", f"print('/home/me{CLIPBOARD}')")
    with pytest.raises(CourseError, match="outputs name paths on this machine") as error:
        stored_outputs.store_outputs(folder=path.parent)
    assert "/home/me" in str(error.value) and not OBEYED.search(str(error.value))


# What is the reader's


@pytest.fixture
def ran(make_notebook, in_course, capsys):
    """A small course that has run once: its notebook, the executed copy, and a function that runs it again and says what
    was printed."""
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", "print('a')")
    here = course.start()
    (copy,) = notebooks.run(here, path.parent)

    def again():
        capsys.readouterr()
        assert notebooks.run(here, path.parent) == [copy]
        return capsys.readouterr().out

    return path, copy, again


def solve(path, cell=2):
    """An exercise solved by hand, and saved."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[cell].source = "print('my answer')"
    nbformat.write(notebook, path)
    return path.read_bytes()


def test_a_copy_that_a_reader_changed_is_kept(ran):
    path, copy, again = ran
    first = solve(copy)
    assert "01_small.ipynb had changes of yours: it is 01_small.yours.ipynb now." in again()
    second = solve(copy, cell=0)  # words count as well as code
    assert "it is 01_small.yours2.ipynb now." in again()
    assert copy.with_name("01_small.yours.ipynb").read_bytes() == first
    assert copy.with_name("01_small.yours2.ipynb").read_bytes() == second
    assert text(nbformat.read(copy, as_version=4)) == "a\n"
    again()
    assert len(list(copy.parent.iterdir())) == 3


def test_a_copy_that_nobody_changed_is_replaced(ran, capsys):
    path, copy, again = ran
    notebook = nbformat.read(copy, as_version=4)
    notebook.metadata["kernelspec"] = {"display_name": "Mine", "language": "python", "name": "mine"}
    notebook.cells[2].outputs = []
    nbformat.write(notebook, copy)  # only looked at and run, in Jupyter
    assert "yours" not in again()
    solve(path)  # the course's own notebook is another since
    assert "yours" not in again()
    notebook = nbformat.read(copy, as_version=4)
    del notebook.metadata["course"]  # as before copies remembered it
    nbformat.write(notebook, copy)
    assert "yours" not in again()
    assert [path.name for path in copy.parent.iterdir()] == ["01_small.ipynb"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"cells": []}'])
def test_a_copy_that_cannot_be_read_is_the_readers(ran, content):
    _, copy, again = ran
    copy.write_bytes(content)
    assert "01_small.yours.ipynb now." in again()
    assert copy.with_name("01_small.yours.ipynb").read_bytes() == content


def test_a_link_or_a_folder_at_its_place_is_the_readers(ran, tmp_path):
    _, copy, again = ran
    copy.rename(tmp_path / "mine.ipynb")
    mine = solve(tmp_path / "mine.ipynb")
    copy.symlink_to(tmp_path / "mine.ipynb")
    again()
    copy.unlink()
    copy.mkdir()
    again()
    assert (tmp_path / "mine.ipynb").read_bytes() == mine
    assert (
        copy.with_name("01_small.yours.ipynb").is_symlink()
        and copy.with_name("01_small.yours2.ipynb").is_dir()
    )


def test_a_copy_changed_while_the_notebook_runs_is_kept_too(make_notebook, in_course):
    here = course.start()
    copy = here.out / "notebooks" / "01_small.ipynb"
    make_notebook(
        in_course / "notebooks" / "01_small.ipynb",
        f"Path({str(copy)!r}).write_text('notes' if Path({str(copy)!r}).exists() else '')",
    )
    notebooks.run(here, in_course / "notebooks")
    notebooks.run(here, in_course / "notebooks")
    assert copy.with_name("01_small.yours2.ipynb").read_text() == "notes"


def test_a_file_where_the_copies_should_go(make_notebook, in_course):
    make_notebook(in_course / "notebooks" / "01_small.ipynb", "1")
    here = course.start()
    (here.out / "notebooks").write_text("mine")
    with pytest.raises(CourseError, match="should be a folder for the executed notebooks.*RLHF_OUT"):
        notebooks.run(here, in_course / "notebooks")
    assert (here.out / "notebooks").read_text() == "mine"


@pytest.mark.parametrize("change", ["path.write_text(path.read_text() + ' ')", "path.unlink()"])
def test_a_notebook_edited_while_it_runs_is_not_overwritten(make_notebook, in_course, change):
    path = make_notebook(
        in_course / "notebooks" / "01_small.ipynb", f"path = Path('01_small.ipynb')\n{change}"
    )
    before = path.read_bytes()
    with pytest.raises(CourseError, match="01_small.ipynb was changed while it ran.*`make notebooks` again"):
        stored_outputs.store_outputs(folder=path.parent)
    assert not path.exists() if "unlink" in change else path.read_bytes() == before + b" "


def test_only_the_courses_notebooks_are_run(make_notebook, in_course):
    folder = in_course / "notebooks"
    others = [
        "01_a-Copy1.ipynb",
        "01_a.yours.ipynb",
        "1_a.ipynb",
        "Untitled.ipynb",
        ".01_a.ipynb",
        "notes.ipynb",
    ]
    for name in ("01_a.ipynb", *others):
        make_notebook(folder / name, "print(1)")
    before = {name: (folder / name).read_bytes() for name in others}
    assert [path.name for path in notebooks.numbered(folder)] == ["01_a.ipynb"]
    stored_outputs.store_outputs(folder=folder)
    assert {name: (folder / name).read_bytes() for name in others} == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"[1, 2]", b"caf\xe9", b'{"cells": 5}', b'{"nbformat": 3}', b"null", b"[" * 10**5],
)
def test_a_file_that_is_no_notebook_is_named_before_any_runs(make_notebook, in_course, content):
    folder = in_course / "notebooks"
    make_notebook(folder / "01_a.ipynb", "Path('ran').touch()")
    (folder / "02_b.ipynb").write_bytes(content)
    with pytest.raises(CourseError, match="02_b.ipynb is not a whole notebook.*move it"):
        notebooks.run(course.start(), folder)
    assert not (folder / "ran").exists()
    with pytest.raises(CourseError, match="02_b.ipynb is not a whole notebook"):
        stored_outputs.store_outputs(["02_b.ipynb"], folder)
    assert (folder / "02_b.ipynb").read_bytes() == content


def test_a_folder_in_a_notebooks_place(in_course):
    (in_course / "notebooks" / "01_a.ipynb").mkdir(parents=True)
    with pytest.raises(CourseError, match="01_a.ipynb cannot be read .*: expected a notebook"):
        notebooks.run(course.start(), in_course / "notebooks")


def test_a_notebook_without_code_has_nothing_to_run(in_course):
    path = in_course / "notebooks" / "01_words.ipynb"
    path.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(), path)
    assert [copy.name for copy in notebooks.run(course.start(), path.parent)] == ["01_words.ipynb"]


# Storing outputs


def store(make_notebook, in_course, *sources):
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", *sources)
    assert stored_outputs.store_outputs(folder=path.parent) == [path]
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
    stored_outputs.store_outputs(folder=path.parent)
    stored = nbformat.read(path, as_version=4)
    assert stored.metadata.pop("course") == {"code_sha256": stored_outputs.code_hash(stored), "scale": "tiny"}
    assert stored.metadata == publish.metadata()
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
        stored_outputs.store_outputs(folder=path.parent)
    assert path.read_bytes() == before


FIGURE = """import matplotlib.pyplot as plt
from helpers.figures import show
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([0, 1, 2], [1, 2, {}], label="reward [P]")
show(figure)"""


NOISE = FIGURE.format(4).replace(
    "show(figure)",
    "figure.set_size_inches(9, 9)\nimport numpy\naxes.imshow(numpy.random.rand(400, 400))\nshow(figure)",
)


def test_the_first_cell_shows_the_figure_of_the_tagged_cell(make_notebook, in_course):
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", FIGURE.format(4))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata.tags = ["cover"]
    words = notebook.cells[0].source
    for last in (4, 9):  # the second time in place of the first
        notebook.cells[2].source = FIGURE.format(last)
        nbformat.write(notebook, path)
        stored_outputs.store_outputs(folder=path.parent)
        notebook = nbformat.read(path, as_version=4)
        alt = rf"reward \[P\] from 1 at 0 to {last} at 2."
        assert notebook.cells[0].source == f"{words}\n\n![{alt}](attachment:cover.png)"
        png = notebook.cells[2].outputs[0].data["image/png"]
        assert notebook.cells[0].attachments == {"cover.png": {"image/png": png}}
    nbformat.validate(notebook)


@pytest.mark.parametrize(
    "source, message",
    [
        (
            "print('no figure')",
            "01_small.ipynb: the cell tagged cover shows no figure with a text alternative",
        ),
        (
            NOISE,
            r"01_small.ipynb: the cover has [0-9,]+ bytes, and at most 60,000",
        ),
    ],
)
def test_a_cover_that_cannot_be_shown_is_not_stored(make_notebook, in_course, source, message):
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", source)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata.tags = ["cover"]
    nbformat.write(notebook, path)
    before = path.read_bytes()
    with pytest.raises(CourseError, match=message):
        stored_outputs.store_outputs(folder=path.parent)
    assert path.read_bytes() == before


def test_a_failing_notebook_is_not_stored(make_notebook, in_course):
    path = make_notebook(in_course / "notebooks" / "01_small.ipynb", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(CourseError, match="ZeroDivisionError"):
        stored_outputs.store_outputs(folder=path.parent)
    assert path.read_bytes() == before


def test_only_the_named_notebooks_are_stored(make_notebook, in_course):
    folder = in_course / "notebooks"
    for name in ("01_a.ipynb", "02_b.ipynb"):
        make_notebook(folder / name, "1")
    assert stored_outputs.store_outputs(["02_b.ipynb"], folder) == [folder / "02_b.ipynb"]
    with pytest.raises(
        CourseError, match="no notebook is called 03_c.ipynb: there are 01_a.ipynb, 02_b.ipynb"
    ):
        stored_outputs.store_outputs(["03_c.ipynb"], folder)


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
    assert stored_outputs.last_state(drawn) == left


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
    paths = stored_outputs.machine_paths(notebook)
    assert paths == found if found is not None else paths


def test_the_hash_covers_the_code_and_nothing_else(make_notebook, tmp_path):
    notebook = nbformat.read(make_notebook(tmp_path / "01_small.ipynb", "x = 1"), as_version=4)
    before = stored_outputs.code_hash(notebook)
    notebook.cells[0].source += "more words"
    notebook.cells[1].source = notebook.cells[1].source.replace(
        'REPOSITORY = ""', 'REPOSITORY = "owner/name"'
    )
    assert stored_outputs.code_hash(notebook) == before
    notebook.cells[2].source = "x = 2"
    assert stored_outputs.code_hash(notebook) != before
