"""Files and folders written whole or not at all: foreign files stay, and kills, full disks and odd drives lose nothing.

Kills come by count, not after a time: a child process kills itself at its k-th call that touches the disk, or when a file
has grown to so many bytes, which also stops what libraries write outside Python.
"""

import errno
import json
import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
from common import fork

from helpers import files
from helpers.errors import CourseError

CALLS = ("mkdir", "rename", "replace", "link", "unlink", "rmdir", "fsync", "open")


def writer(text: str, names=("config.json", "model.safetensors", "sub/tokenizer.json")):
    """A save that writes the same text to each file; the weights are the longest."""

    def write(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text * (2000 if name.startswith("model") else 1))

    return write


def contents(folder: Path) -> dict[str, str]:
    """Every file in the folder by its path, but what is not whole yet."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and ".course-" not in str(path.relative_to(folder))
    }


def saved(text: str) -> dict[str, str]:
    return {"config.json": text, "model.safetensors": text * 2000, "sub/tokenizer.json": text}


def in_child(work) -> int:
    """Run `work()` in a fork of this process; returns how it ended, as waitpid has it."""
    child = fork()
    if not child:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(number: int, work):
    """`work`, in which this process kills itself at its `number`-th call that touches the disk; half of them after the call."""

    def run():
        left = [number]
        for name in CALLS:
            setattr(os, name, counting(getattr(os, name), left))
        work()

    return run


def counting(function, left):
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if left[0] == 1 and function.__name__ in ("rename", "replace"):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


# What is foreign stays


def test_a_thesis_survives_a_save(tmp_path):
    folder = tmp_path / "thesis"
    (folder / ".git/objects").mkdir(parents=True)
    mine = {"chapter1.tex": "mine", ".git/HEAD": "ref", ".git/objects/ab": "blob", "old/model.bin": "mine"}
    for name, text in mine.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for text in ("a", "b"):
        assert files.write_folder(folder, writer(text)) == folder
        assert contents(folder) == mine | saved(text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis"]
    assert not list(folder.glob(".course*"))


def test_a_file_that_did_not_change_is_not_replaced(tmp_path):
    files.write_folder(tmp_path / "model", writer("a"))
    before = (tmp_path / "model/config.json").stat().st_ino
    files.write_folder(tmp_path / "model", writer("a"))
    assert (tmp_path / "model/config.json").stat().st_ino == before


# What cannot take a save is refused before


def in_the_way(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Folders that cannot be written to, by what is wrong with them; and what the message says."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "taken/config.json").mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/config.json").symlink_to(tmp_path / "file")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/sub").write_text("mine")
    return {
        "a file": (tmp_path / "file", "is no folder"),
        "below a file": (tmp_path / "file/model", "is no folder"),
        "a link": (tmp_path / "link", "is a link to"),
        "a broken link": (tmp_path / "broken", "is a link to"),
        "where one is": (Path("."), "the folder you are in"),
        "above where one is": (Path(".."), "the folder you are in"),
        "the top": (Path("/"), "the folder you are in"),
        "a folder in a file's place": (tmp_path / "taken", "config.json is in the way"),
        "a link in a file's place": (tmp_path / "linked", "config.json is in the way"),
        "a file in a folder's place": (tmp_path / "flat", "sub is in the way"),
    }


@pytest.mark.parametrize("kind", range(10))
def test_a_folder_that_cannot_take_it_is_refused_before(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    folder, message = list(in_the_way(tmp_path).values())[kind]
    before = contents(tmp_path)
    with pytest.raises(CourseError, match=message):
        files.check_folder(folder, ["config.json", "model.safetensors", "sub/tokenizer.json"])
    with pytest.raises(CourseError, match=message):
        files.write_folder(folder, writer("a"))
    assert contents(tmp_path) == before and not list(tmp_path.rglob("*.part"))


def test_a_folder_without_permission_is_refused_before(tmp_path, monkeypatch):
    """Whoever runs the tests may be allowed everything, so the system's answer is put in."""

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(CourseError, match="cannot be written to: Permission denied. Choose another folder"):
        files.check_folder(tmp_path / "model")


# Errors half-way


@pytest.mark.parametrize("number", range(1, 4))
def test_a_rename_that_fails_is_rolled_back(tmp_path, monkeypatch, number):
    folder = tmp_path / "model"
    files.write_folder(folder, writer("a"))
    (folder / "notes.txt").write_text("mine")
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == number:
            raise PermissionError(errno.EACCES, "open in another program")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(CourseError, match="Its files are as they were. Does another program hold one open"):
        files.write_folder(folder, writer("b"))
    assert contents(folder) == saved("a") | {"notes.txt": "mine"} and not list(folder.glob(".course*"))
    monkeypatch.undo()
    files.write_folder(folder, writer("b"))
    assert contents(folder) == saved("b") | {"notes.txt": "mine"}


def test_new_files_go_again_where_the_save_fails(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    replace = os.replace

    def failing(source, target):
        if str(target).endswith("tokenizer.json"):
            raise OSError(errno.EIO, "broken disk")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(CourseError, match="broken disk"):
        files.write_folder(tmp_path / "model", writer("b"))
    assert contents(tmp_path / "model") == {}


class Rust(Exception):
    """As the libraries that are not Python raise what goes wrong: no OSError."""


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), Rust("IO error"), MemoryError()]
)
@pytest.mark.parametrize("existed", [True, False])
def test_a_save_that_fails_leaves_what_was_there(tmp_path, error, existed):
    folder = tmp_path / "model"
    if existed:
        files.write_folder(folder, writer("a"))

    def write(place):
        writer("b", ["config.json"])(place)
        raise error

    with pytest.raises(CourseError, match="could not be written: .*What was there is as it was"):
        files.write_folder(folder, write)
    assert contents(tmp_path) == (
        {f"model/{name}": text for name, text in saved("a").items()} if existed else {}
    )
    assert not list(tmp_path.rglob("*.part"))


def test_a_drive_without_fsync_second_names_or_locks(tmp_path, monkeypatch):
    """As Drive's mount and network drives answer: EINVAL, ENOTSUP, ENOLCK."""
    import filelock

    def unable(number):
        def call(*args, **kwargs):
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr(os, "fsync", unable(errno.EINVAL))
    monkeypatch.setattr(os, "link", unable(errno.ENOTSUP))
    monkeypatch.setattr(filelock.FileLock, "acquire", unable(errno.ENOLCK))
    for text in ("a", "b"):
        files.write_folder(tmp_path / "model", writer(text))
        files.write_text(tmp_path / "result.json", text)
        assert contents(tmp_path / "model") == saved(text) and (tmp_path / "result.json").read_text() == text


def test_a_disk_that_breaks_at_fsync_is_told(tmp_path, monkeypatch):
    def broken(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(CourseError, match="Input/output error"):
        files.write_folder(tmp_path / "model", writer("a"))
    assert not (tmp_path / "model").exists()


# Kills


def test_200_kills_while_writing_and_replacing(tmp_path):
    """Whatever call a save dies at, the folder afterwards is the old one or the new one, and foreign files are there."""
    folder, foreign = tmp_path / "model", {"notes.txt": "mine", ".git/HEAD": "ref"}
    (folder / ".git").mkdir(parents=True)
    for name, text in foreign.items():
        (folder / name).write_text(text)
    files.write_folder(folder, writer("0"))
    ends, state = {"old": 0, "new": 0, "to settle": 0}, "0"
    for kill in range(1, 201):
        # the text is new each time, and the calls go round: every place is hit several times
        status = in_child(killed_at(1 + kill % 67, partial(files.write_folder, folder, writer(str(kill)))))
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        mixed = contents(folder) not in (saved(state) | foreign, saved(str(kill)) | foreign)
        assert not mixed or (folder / files.NEW).is_dir()
        files.settle(folder)
        after = contents(folder)
        assert after in (saved(state) | foreign, saved(str(kill)) | foreign), f"kill {kill}: {list(after)}"
        ends["new" if after["config.json"] == str(kill) else "old"] += 1
        ends["to settle"] += mixed
        state = after["config.json"]
    print(ends)
    assert min(ends.values()) > 10  # the kills were where it matters
    files.write_folder(folder, writer("end"))
    assert contents(folder) == saved("end") | foreign and not list(
        folder.glob(".course*")
    )  # nothing is left lying


def test_kills_while_a_new_folder_is_written(tmp_path):
    counts = {True: 0, False: 0}
    for kill in range(1, 60):
        folder = tmp_path / str(kill)
        in_child(killed_at(kill, partial(files.write_folder, folder, writer("a"))))
        assert not folder.exists() or contents(folder) == saved("a")
        counts[folder.exists()] += 1
    assert min(counts.values()) > 5, counts


@pytest.mark.parametrize("size", [0, 1, 999, 1999])
def test_a_kill_in_the_middle_of_a_file(tmp_path, size):
    """The system ends the process when a file grows beyond a limit, in the middle of a write."""
    folder = tmp_path / "model"
    files.write_folder(folder, writer("a"))

    def work():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        files.write_folder(folder, writer("b"))

    assert os.WIFSIGNALED(in_child(work))
    files.settle(folder)
    assert contents(folder) == saved("a")


def test_kills_while_a_text_is_written(tmp_path):
    path = tmp_path / "result.json"
    files.write_text(path, "old")
    seen = set()
    for kill in range(1, 12):
        in_child(killed_at(kill, lambda: files.write_text(path, "new" * 100)))
        seen.add(path.read_text())
        assert path.read_text() in ("old", "new" * 100)
        files.write_text(path, "old")
    assert len(seen) == 2 and list(tmp_path.iterdir()) == [path]


def test_what_others_left_does_not_matter(tmp_path):
    """Leftovers of earlier versions and of a process with this one's number, as containers give them out again."""
    for name in (f".model.{os.getpid()}.part", f".model.{os.getpid()}.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("foreign")
    for text in ("a", "b"):
        files.write_folder(tmp_path / "model", writer(text))
        assert contents(tmp_path / "model") == saved(text)
    assert (tmp_path / f".model.{os.getpid()}.old/config.json").read_text() == "foreign"


# Links, names, neighbours


def test_a_link_to_a_file_stays_a_link(tmp_path):
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive/result.json").write_text("old")
    (tmp_path / "result.json").symlink_to(tmp_path / "drive/result.json")
    files.write_text(tmp_path / "result.json", "new")
    assert (tmp_path / "result.json").is_symlink() and (tmp_path / "drive/result.json").read_text() == "new"


def test_a_text_keeps_its_mode_and_takes_half_a_surrogate_pair(tmp_path):
    path = tmp_path / "text"
    path.write_text("old")
    path.chmod(0o640)
    files.write_text(path, "cut \ud83c")
    assert path.read_text() == "cut \\ud83c" and path.stat().st_mode & 0o777 == 0o640


def test_set_aside_never_takes_a_name_that_is_there(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / "gpt2").mkdir()
        assert files.set_aside(tmp_path / "gpt2", "damaged").name == f"gpt2.damaged-{number}"
    assert len(list(tmp_path.iterdir())) == 3


def test_two_that_save_to_one_folder_at_once(tmp_path):
    """Threads and processes: what is there in the end is one of the saves, whole."""
    folder = tmp_path / "model"

    def many(name: str):
        for _ in range(10):
            files.write_folder(folder, writer(name))

    child = fork()
    if not child:
        try:
            many("c")
        finally:
            os._exit(0)
    threads = [threading.Thread(target=many, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert contents(folder) in [saved(name) for name in "abc"] and not list(folder.glob(".course*"))


def test_two_notebooks_that_save_results_at_once_lose_none(tmp_path):
    from helpers.course import Course

    here = Course("tiny", "cpu", "", out=tmp_path)
    children = []
    for first in (0, 100):
        child = fork()
        if not child:
            for number in range(first, first + 50):
                here.save_result(**{f"n{number}": number})
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(here.load_result()) == 100


@pytest.mark.parametrize("damage", [b'{"kl": 4.', b"[1, 2]", b"\xff\xfe{", b"[" * 100_000, b""])
def test_a_damaged_result_file_is_kept_beside(tmp_path, capsys, damage):
    from helpers.course import Course

    here = Course("tiny", "cpu", "", out=tmp_path)
    (tmp_path / "result.json").write_bytes(damage)
    with pytest.raises(CourseError, match="result.json .*rename it"):
        here.load_result()
    here.save_result(kl=1)
    assert here.load_result() == {"kl": 1} and "result.json.damaged-1" in capsys.readouterr().out
    assert (tmp_path / "result.json.damaged-1").read_bytes() == damage
    assert json.loads((tmp_path / "result.json").read_text()) == {"kl": 1}
