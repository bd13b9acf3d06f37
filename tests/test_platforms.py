"""Windows and macOS, as far as another system can show: docs/maintaining.md lists what differs there."""

import os
import re
import signal
import subprocess
import sys
import types

import pytest
from common import ROOT
from ppo_run import small_run

from helpers import course, doctor, files, notebooks, packages  # noqa: F401  (what is imported is what is looked through)
from helpers.__main__ import main
from helpers.errors import CourseError
from helpers.feedback import ratings  # noqa: F401
from helpers.maintain.stored_outputs import MACHINE_PATH

POSIX = {
    os: ["fork", "getuid", "killpg", "mkfifo", "sched_getaffinity", "setsid", "statvfs"],
    signal: ["SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGXFSZ"],
}


@pytest.fixture
def like_windows(monkeypatch):
    """All of the course's modules that are imported find an os and a signal that lack what Windows lacks; libraries do not."""
    for module, names in POSIX.items():
        short = types.ModuleType(module.__name__)
        vars(short).update({name: value for name, value in vars(module).items() if name not in names})
        for name, user in list(sys.modules.items()):
            if name.startswith("helpers") and getattr(user, module.__name__, None) is module:
                monkeypatch.setattr(user, module.__name__, short)


def test_a_run_uses_nothing_that_windows_lacks(like_windows, tmp_path):
    """It is saved, goes on, and is saved again over what is there; then its results, by a start on the way."""
    small_run(tmp_path / "run")
    more = dict(train=dict(total_steps=12, resume_from_checkpoint=str(tmp_path / "run")))
    trainer = small_run(tmp_path / "run", changes=more)
    for _ in range(2):
        trainer.save_pretrained(tmp_path / "tuned")
    here = course.start()
    here.save_result(model_path=here.out / "tuned")
    assert trainer.step == 12 and here.load_result()


@pytest.mark.parametrize("command", [["doctor"], ["config"], ["install", "pytest"]], ids=" ".join)
def test_commands_use_nothing_that_windows_lacks(like_windows, command):
    assert main(command) == 0


def test_a_program_that_takes_too_long_is_ended_without_what_windows_lacks(like_windows, monkeypatch):
    assert not hasattr(packages.os, "killpg")
    started = []
    monkeypatch.setattr(
        packages, "end", lambda process, end=packages.end: [started.append(process), end(process)]
    )
    with pytest.raises(subprocess.TimeoutExpired):
        packages.run(sys.executable, "-c", "import time; time.sleep(30)", seconds=0.01)
    assert started[0].returncode


def in_use(monkeypatch):
    """Renaming fails as on Windows, where another program has the file open."""

    def refuse(*paths):
        raise PermissionError(
            13, "The process cannot access the file because it is being used by another process"
        )

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.parametrize("write", ["text", "folder", "aside", "damaged results"])
def test_a_file_in_use_is_a_sentence_and_stays(tmp_path, monkeypatch, write):
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / "result.json").write_text("[mine")
    here = course.Course("tiny", "cpu", "", out=folder)
    work = {
        "text": lambda: files.write_text(folder / "result.json", "new"),
        "folder": lambda: files.write_folder(folder, lambda new: (new / "result.json").write_text("new")),
        "aside": lambda: files.set_aside(folder / "result.json"),
        "damaged results": lambda: here.save_result(kl=1),
    }[write]
    with monkeypatch.context() as patch:
        in_use(patch)
        with pytest.raises(CourseError, match="used by another process") as raised:
            work()
    assert "\n" not in str(raised.value)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["result.json"]
    assert (folder / "result.json").read_text() == "[mine"


def test_a_windows_path_in_an_output_is_seen():
    for path in (r"C:\Users\ann\out\tuned", r"D:\course\out"):
        assert MACHINE_PATH.search(f"saved in {path}.")
    assert not MACHINE_PATH.search(r"reward: 0.5\n, ratio A: \alpha")


def test_what_only_some_systems_have_is_asked_for_first():
    """Each use in helpers/ has its condition on the same line or shortly before."""
    only_posix = re.compile(
        r"\bos\.(fork|getuid|killpg|sched_getaffinity|setsid)\(|signal\.SIG(KILL|HUP|ALRM)|import (fcntl|pwd|resource)"
    )
    asked = re.compile(r"hasattr|os\.name|sys\.platform|ImportError")
    for file in (ROOT / "helpers").rglob("*.py"):
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if only_posix.search(line):
                assert asked.search("\n".join(lines[max(0, number - 5) : number + 1])), f"{file}:{number + 1}"


def test_files_are_the_same_on_every_system():
    """Else git on Windows changes line ends, and hashes of the embedded models with them."""
    assert "* text=auto eol=lf" in (ROOT / ".gitattributes").read_text().splitlines()
