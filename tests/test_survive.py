"""What Colab does to a run: memory that runs out, a session that ends, and what is left then."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from ppo_run import small_run

from helpers import course
from helpers.errors import CourseError
from helpers.ppo.fast.trainer import FastPPOTrainer
from helpers.ppo.parallel.memory import Fitting
from helpers.ppo.parallel.trainer import ParallelPPOTrainer

HERE = Path(__file__).parent


def test_the_reader_is_told_how_to_go_on(tmp_path, capsys):
    from helpers.monitor import Monitor

    small_run(tmp_path, minutes=1e-9, listeners=[Monitor()])
    told = capsys.readouterr().out
    assert "ended at step 4 of 8" in told and f"resume_from_checkpoint={str(tmp_path)!r}" in told
    small_run(tmp_path, listeners=[Monitor()])
    assert "ended at step" not in capsys.readouterr().out


@pytest.mark.parametrize("minutes", [0, -1, "10"])
def test_minutes_must_be_a_number_above_0(tmp_path, minutes):
    with pytest.raises(CourseError, match="minutes is .*expected a number above 0"):
        small_run(tmp_path, minutes=minutes)


@pytest.mark.parametrize("kind", [ParallelPPOTrainer, FastPPOTrainer])
def test_an_update_that_runs_out_of_memory_is_made_in_smaller_parts(tmp_path, monkeypatch, kind):
    """The steps stay what they were. The error is one that torch raises for a GPU, of which there need be none here."""
    roomy = small_run(tmp_path / "roomy", trainer_class=kind)
    losses, tried = kind.losses, []

    def losses_of_at_most_2(self, batch, *args):
        tried.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return losses(self, batch, *args)

    monkeypatch.setattr(kind, "losses", losses_of_at_most_2)
    with pytest.warns(UserWarning, match="train.minibatch_size=") as told:
        tight = small_run(tmp_path / "tight", trainer_class=kind)
    assert len([warning for warning in told if "out of memory" in str(warning.message)]) == 2
    assert tried[:3] == [8, 4, 2] and set(tried[3:]) == {2}  # once found, the size is kept
    for ours, theirs in zip(tight.history.updates, roomy.history.updates, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_where_processes_must_do_the_same_none_takes_smaller_parts_by_itself():
    def work(rows):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    with pytest.raises(CourseError, match="with 8 rollouts at a time: set train.minibatch_size=4"):
        Fitting(8, "an update", "train.minibatch_size", halves=False).run(work)


def test_sampling_that_runs_out_of_memory_goes_on_in_parts_to_the_same_samples(tmp_path, monkeypatch):
    from helpers.ppo.fast import generate

    roomy = small_run(tmp_path / "roomy")
    sample = generate.sample

    def sample_at_most_3(model, query, *args):
        if len(query) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return sample(model, query, *args)

    monkeypatch.setattr(generate, "sample", sample_at_most_3)
    with pytest.warns(UserWarning, match="method.chunk_size="):
        tight = small_run(tmp_path / "tight")
    assert tight.eval_samples == roomy.eval_samples
    for ours, theirs in zip(tight.history.rounds, roomy.history.rounds, strict=True):
        assert ours["reward"] == theirs["reward"] and ours["kl"] == pytest.approx(theirs["kl"], abs=1e-4)


def test_where_not_even_one_fits_the_message_says_what_to_change(tmp_path, monkeypatch):
    def none(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(FastPPOTrainer, "losses", none)
    with (
        warnings.catch_warnings(),
        pytest.raises(CourseError, match="not even one rollout fits .*smaller model"),
    ):
        warnings.simplefilter("ignore")
        small_run(tmp_path)


def test_other_errors_are_not_taken_for_memory(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("mat1 and mat2 must have the same dtype")

    monkeypatch.setattr(FastPPOTrainer, "losses", broken)
    with pytest.raises(RuntimeError, match="same dtype"):
        small_run(tmp_path)


LIMITED = """
import resource, sys, warnings
from ppo_run import small_run
big = dict(method=dict(num_rollouts=512, chunk_size=512, ppo_epochs=1, gen_kwargs=dict(max_new_tokens=32, min_new_tokens=32)))
big["train"] = dict(batch_size=512, total_steps=2, epochs=2)
small_run(sys.argv[1] + "/warm")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 250 * 2**20, resource.RLIM_INFINITY))
warnings.simplefilter("always")
print(len(small_run(sys.argv[1] + "/big", changes=big).history.updates), "updates")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_that_really_runs_out(tmp_path):
    env = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], env=env, capture_output=True, text=True, timeout=600
    )
    assert "2 updates" in done.stdout, done.stderr[-2000:]
    assert "out of memory with" in done.stderr


@pytest.mark.parametrize("mounted", [True, False])
def test_on_colab_results_go_to_drive_where_it_is_mounted(tmp_path, monkeypatch, mounted):
    monkeypatch.setattr(course, "DRIVE", tmp_path / "MyDrive")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.delenv("RLHF_OUT", raising=False)
    if mounted:
        (tmp_path / "MyDrive").mkdir()
    assert course.results() == (tmp_path / "MyDrive/rlhf-course" if mounted else course.ROOT / "out")
    monkeypatch.setenv("RLHF_OUT", str(tmp_path / "elsewhere"))
    assert course.results() == tmp_path / "elsewhere"


def test_a_drive_that_is_there_and_takes_nothing_is_one_line(tmp_path, monkeypatch, capsys):
    """As one whose connection is gone; here a file stands in its place. The course goes on without it."""
    (tmp_path / "MyDrive").write_text("")
    monkeypatch.setattr(course, "DRIVE", tmp_path / "MyDrive")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.delenv("RLHF_OUT")
    assert course.results() == course.ROOT / "out"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "Your Drive is mounted and cannot be written to (Not a directory): results go to out/, which ends with the session."
    )
