"""`python -m helpers train` killed at ten random moments, and resumed each time: it leaves what a run leaves that nobody killed.

Run as a script, this file forks one run after another from a process that has imported everything, because the imports take
longer than such a run. A run that is killed hands on what is on the disk and nothing else. So moments are counted in changes of
the disk, not in seconds: an unbroken run makes ten saves, and each of the ten kills comes in one of them, before or after a
random change. (A kill while something is computed leaves what a kill before the next save leaves. What safetensors writes, Python
does not see; it goes to a hidden folder, which is renamed when it is whole.)
"""

import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path

import pytest
import yaml
from ppo_run import PROMPTS, small_config, without_times
from test_kills import run_script

from helpers import compare, files, monitor, seal  # noqa: F401  (imported before the first fork)
from helpers.__main__ import main
from helpers.ppo.run import History
from helpers.project import card, preflight, prompts, report  # noqa: F401

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
TRIAL = "the round on trial"
CHECKPOINTS = [f"checkpoints/checkpoint_{step:02d}" for step in (4, 8, 12, 16)]
SAVES = [TRIAL, "checkpoints/.checkpoint-on-trial", "checkpoints/newest_run.json", *CHECKPOINTS]
SAVES += ["model", "model/report.html", "model/README.md"]
CHANGES = ("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod")
WRITING = os.O_WRONLY | os.O_RDWR


class Saves:
    """Counts the events of each save of this process: its begin, each change of the disk, and its end.

    Args:
        folder: that of the run; what is saved elsewhere is the round on trial's.
        kill: (place of a save in SAVES, how many of its events come before the process kills itself). Where that save is made
            no more, or has fewer events, the kill comes with the next one.
    """

    def __init__(self, folder: Path, kill: tuple[int, int]):
        self.folder, self.kill = folder, kill
        self.events: dict[str, int] = {}
        self.saving = ""
        for name in ("write_folder", "write_text"):
            setattr(files, name, self.counting(getattr(files, name)))
        sys.addaudithook(self.hear)

    def counting(self, write):
        def save(path, *arguments):
            inside = Path(path).is_relative_to(self.folder)
            self.saving = Path(path).relative_to(self.folder).as_posix() if inside else TRIAL
            self.count()
            result = write(path, *arguments)
            self.count()
            self.saving = ""
            return result

        return save

    def hear(self, event: str, arguments: tuple) -> None:
        """What Python tells before each change."""
        if self.saving and (event in CHANGES or (event == "open" and arguments[2] & WRITING)):
            self.count()

    def count(self) -> None:
        before = self.events.get(self.saving, 0)
        self.events[self.saving] = before + 1
        if (SAVES.index(self.saving), before) >= self.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, arguments: list[str], kill: tuple[int, int] = (len(SAVES), 0)) -> bool:
    """Whether a run ended by itself, which then leaves the events of its saves; `kill` as in `Saves`."""
    said = folder.with_name("said.txt")
    child = os.fork()
    if not child:
        status = 1
        try:
            with open(said, "w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.fsync = lambda handle: None  # it matters where the power fails
            sys.argv[1:] = arguments
            saves = Saves(folder, kill)
            status = main()
            folder.with_name("events.json").write_text(json.dumps(saves.events))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), said.read_text()
    return status == 0


def kill_and_resume(work: Path, seed: int = 0) -> dict[str, int]:
    """Train to the end once without a kill, into work/whole, and once with ten, into work/run; returns the moments of the kills."""
    folder = work / "run"
    arguments = prepare(work, folder)
    assert train(folder, arguments)
    events = json.loads((work / "events.json").read_text())
    assert list(events) == SAVES
    folder.rename(work / "whole")
    chance, going_on = random.Random(seed), ["--resume", "--minutes", "600"]
    moments = {name: chance.randrange(count) for name, count in events.items()}
    for place, name in enumerate(SAVES):
        resumed = going_on if place else []
        assert not train(folder, arguments + resumed, (place, moments[name])), f"not killed in {name}"
        for text in ("report.html", "README.md"):
            seal.check_own(folder / "model" / text)  # whole, or not there
    assert train(folder, arguments + going_on)
    return moments


def prepare(work: Path, folder: Path) -> list[str]:
    """Write what a run of four rounds needs; returns the arguments of the command."""
    config = small_config(folder / "checkpoints").evolve(train=dict(total_steps=16, eval_interval=6))
    (work / "ppo.yml").write_text(yaml.safe_dump(config.to_dict()))
    (work / "prompts.txt").write_text("\n".join(PROMPTS * 3))
    given = {"config": work / "ppo.yml", "prompts": work / "prompts.txt", "reward": "contains the"}
    given["out"] = folder / "model"
    return ["train", *(str(part) for name, value in given.items() for part in (f"--{name}", value))]


def left_by(folder: Path) -> dict:
    """All that a run left but what is not the same twice: times, the page's seal that covers them, and the run's own name."""
    left = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    left["report.html"] = left["report.html"].partition(b'<footer id="times">')[0]
    for name in CHECKPOINTS:
        state = json.loads((folder / name / "state.json").read_text())
        state["progress"]["history"] = without_times(History(**state["progress"]["history"]))
        del state["run"]["id"]
        # where a run was resumed from changes no number
        del state["config"]["train"]["resume_from_checkpoint"]
        left |= {f"{name}/state.json": state}
        left |= {f"{name}/state": (folder / name / "state.safetensors").read_bytes()}
    return left


def test_ten_kills_change_nothing_in_model_card_and_report(tmp_path):
    moments = run_script(__file__, tmp_path)
    assert len(moments) == 10
    torn, whole = left_by(tmp_path / "run"), left_by(tmp_path / "whole")
    assert torn.keys() == whole.keys() >= {"report.html", "README.md", "model.safetensors"}
    assert [name for name in whole if torn[name] != whole[name]] == []


if __name__ == "__main__":
    print(json.dumps(kill_and_resume(Path(sys.argv[1]))))
