"""kill -9 in the middle, resume, and the history continues as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ppo_run import PROMPTS, small_run, without_times

from helpers.errors import CourseError
from helpers.ppo import checkpoint

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("engine")


def start_run(folder: Path, steps: int) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    return subprocess.Popen(
        [sys.executable, HERE / "ppo_run.py", folder, str(steps)], stdout=subprocess.PIPE, text=True, env=env
    )


@pytest.mark.parametrize("killed_at", [5, 10])  # before the second checkpoint, and after it
def test_killed_and_resumed_the_history_is_the_same(tmp_path, killed_at):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for folder in (whole, torn):
        folder.mkdir()
    reference = start_run(whole, 16)
    victim = start_run(torn, 16)
    for line in victim.stdout:
        if line.strip() == f"step {killed_at}":
            victim.send_signal(signal.SIGKILL)
            break
    victim.wait()
    assert victim.returncode == -signal.SIGKILL
    assert not (torn / "history.json").exists()
    assert sorted(path.name for path in torn.glob("checkpoint_*")) == [
        f"checkpoint_{step:02d}" for step in range(4, killed_at, 4)
    ]
    resumed = start_run(torn, 16)
    first = next(line for line in resumed.stdout if line.startswith("step"))
    assert (
        first.strip() == f"step {killed_at // 4 * 4}"
    )  # it went on from the checkpoint and did not start anew
    assert [process.communicate() and process.returncode for process in (reference, resumed)] == [0, 0]
    expected, found = (json.loads((folder / "history.json").read_text()) for folder in (whole, torn))
    assert found == expected


def test_an_unfinished_checkpoint_is_not_taken_for_one(tmp_path):
    small_run(tmp_path)
    (tmp_path / "checkpoint_9").mkdir()
    assert checkpoint.newest(tmp_path).name == "checkpoint_8"


def test_resuming_with_another_configuration_is_refused(tmp_path):
    small_run(tmp_path)
    resume = {"resume_from_checkpoint": str(tmp_path)}
    with pytest.raises(CourseError, match="method.gamma .was 1, is 0.5."):
        small_run(tmp_path, changes={"method": {"gamma": 0.5}, "train": resume})
    with pytest.raises(CourseError, match="train.max_grad_norm .was None, is 2"):
        small_run(tmp_path, changes={"train": resume | {"max_grad_norm": 2}})
    with pytest.raises(CourseError, match="the prompts are others"):
        small_run(tmp_path, prompts=PROMPTS[:4], changes={"train": resume})


def test_resuming_without_a_limit_that_was_set_is_refused(tmp_path):
    """A field that only some configurations have counts as the others do."""
    small_run(tmp_path, changes={"train": {"max_grad_norm": 2}})
    with pytest.raises(CourseError, match="train.max_grad_norm .was 2, is None"):
        small_run(tmp_path, changes={"train": {"resume_from_checkpoint": str(tmp_path)}})


def test_minutes_that_are_up_end_the_run_after_a_round(tmp_path):
    """With a checkpoint and a last evaluation; resumed, the run comes to what one without a limit comes to."""
    whole = small_run(tmp_path / "whole", changes={"train": {"total_steps": 12}})
    folder = tmp_path / "short"
    never_due = {"total_steps": 12, "checkpoint_interval": 1000}
    short = small_run(folder, minutes=1e-9, changes={"train": never_due})
    assert short.step == 4 and short.history.evals[-1]["step"] == 4
    assert checkpoint.newest(folder).name == "checkpoint_04"
    going_on = never_due | {"resume_from_checkpoint": str(folder)}
    resumed = small_run(folder, minutes=10, changes={"train": going_on})
    assert without_times(resumed.history) == without_times(whole.history)


def test_resuming_with_another_number_of_processes_is_refused(tmp_path):
    small_run(tmp_path)
    state = tmp_path / "checkpoint_8" / "state.json"
    saved = json.loads(state.read_text())
    saved["progress"]["processes"] = 2
    state.write_text(json.dumps(saved))
    with pytest.raises(CourseError, match="made by 2 processes, and here are 1"):
        small_run(tmp_path, changes={"train": {"resume_from_checkpoint": str(tmp_path)}})


def test_a_finished_run_can_be_extended(tmp_path):
    """To the same history as at once; scaled rewards need the moments of all that came before."""
    scaled = {"scale_reward": "running"}
    small_run(tmp_path, changes={"method": scaled})
    further = {"total_steps": 12, "resume_from_checkpoint": str(tmp_path)}
    longer = small_run(tmp_path, changes={"method": scaled, "train": further})
    at_once = small_run(tmp_path / "at once", changes={"method": scaled, "train": {"total_steps": 12}})
    assert without_times(longer.history) == without_times(at_once.history)


@pytest.mark.parametrize("before, after", [(None, 2), (2, 8)])
def test_a_run_goes_on_with_smaller_or_larger_micro_batches(tmp_path, engine, before, after):
    """As the message of a full memory says. Only rounding differs; trlX weighs micro-batches otherwise, and goes on too."""
    small_run(tmp_path, changes={"train": {"minibatch_size": before}})
    further = {"total_steps": 12, "resume_from_checkpoint": str(tmp_path), "minibatch_size": after}
    longer = small_run(tmp_path, changes={"train": further})
    whole = {"total_steps": 12, "minibatch_size": before}
    at_once = small_run(tmp_path / "at once", changes={"train": whole})
    found, expected = (without_times(trainer.history) for trainer in (longer, at_once))
    assert found["updates"][:8] == expected["updates"][:8]
    assert [row["step"] for row in found["updates"]] == list(range(1, 13))
    if engine == "builtin":
        for kind, rows in expected.items():
            for ours, theirs in zip(found[kind], rows, strict=True):
                assert ours == pytest.approx(theirs, abs=1e-4), kind


def test_a_damaged_checkpoint_is_named(tmp_path):
    small_run(tmp_path)
    (tmp_path / "checkpoint_8" / "state.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CourseError, match="checkpoint_8 is damaged"):
        small_run(tmp_path, changes={"train": {"resume_from_checkpoint": str(tmp_path)}})


def test_a_checkpoint_that_does_not_exist_yet_means_a_new_run(tmp_path):
    with pytest.warns(UserWarning, match="starting from the beginning"):
        trainer = small_run(
            tmp_path, changes={"train": {"resume_from_checkpoint": str(tmp_path / "none"), "total_steps": 1}}
        )
    assert trainer.step == 1


def test_a_checkpoint_holds_no_pickle(tmp_path):
    small_run(tmp_path)
    names = {path.name for path in (tmp_path / "checkpoint_8").rglob("*") if path.is_file()}
    assert {"state.safetensors", "state.json", "model.safetensors"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
