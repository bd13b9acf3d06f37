"""The history of a run in TensorBoard and in wandb: the same numbers, at the same steps."""

import json

import pytest
from ppo_run import PROMPTS, count_the, small_config, without_times
from test_processes import TWO, must_finish

from helpers import engine
from helpers.errors import CourseError
from helpers.ppo import tracker
from helpers.ppo.run import History


def run(folder, **train):
    """Two rounds of four steps, evaluated after each."""
    config = small_config(folder).evolve(train=train)
    return engine.train(reward_fn=count_the, prompts=PROMPTS, eval_prompts=PROMPTS, config=config)


def expected(history) -> dict[str, dict[int, float]]:
    """What a tracker should have: the value at each step, by name."""
    found = {}
    for table, rows in vars(history).items():
        for row in rows:
            for name, value in row.items():
                if name not in ("step", "seconds_update"):
                    found.setdefault(f"{table}/{name}", {})[row["step"]] = float(value)
    return found


def assert_same(found, history):
    wanted = expected(history)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, rel=1e-6, nan_ok=True), name  # TensorBoard keeps float32
    assert len(wanted["updates/loss"]) == len(history.updates) and "rounds/explained_variance" in wanted


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_package_that_is_not_here_is_named_before_anything_is_loaded(tmp_path, monkeypatch, name):
    monkeypatch.setitem(tracker.AVAILABLE, name, lambda: False)
    with pytest.raises(
        CourseError, match=f"package {name} is not here: python -m helpers install {name}, or set"
    ):
        run(tmp_path / "run", tracker=name)
    assert not (tmp_path / "run").exists()


def test_another_tracker_is_refused_when_it_is_set():
    with pytest.raises(CourseError, match="train.tracker is 'mlflow'"):
        engine.default_ppo_config().evolve(train=dict(tracker="mlflow"))


def scalars(folder):
    """What TensorBoard itself reads from a folder."""
    found = events(folder)
    return {
        name: {event.step: event.value for event in found.Scalars(name)} for name in found.Tags()["scalars"]
    }


def count(folder) -> int:
    found = events(folder)
    return sum(len(found.Scalars(name)) for name in found.Tags()["scalars"])


def events(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulator.EventAccumulator(str(folder), size_guidance={accumulator.SCALARS: 0}).Reload()


def test_tensorboard_has_the_history_and_the_run_is_the_same(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: python -m helpers install tensorboard")
    without = run(tmp_path / "without")
    trainer = run(tmp_path / "run", tracker="tensorboard")
    assert without_times(trainer.history) == without_times(without.history)
    folder = tmp_path / "run" / "tensorboard"
    assert_same(scalars(folder), trainer.history)
    assert count(folder) == sum(map(len, expected(trainer.history).values()))  # each number once
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_a_run_that_goes_on_has_one_curve_in_another_folder_too(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: python -m helpers install tensorboard")
    settings = dict(tracker="tensorboard", run_name="mine")
    run(tmp_path / "run", total_steps=4, logging_dir=str(tmp_path / "first"), **settings)
    settings |= dict(logging_dir=str(tmp_path / "second"), resume_from_checkpoint=str(tmp_path / "run"))
    trainer = run(tmp_path / "run", **settings)
    assert trainer.step == 8
    assert_same(scalars(tmp_path / "second" / "mine"), trainer.history)


def test_of_several_processes_one_sends(tmp_path, monkeypatch):
    """With wandb, which Accelerate would begin in each; TensorBoard it begins in one."""
    pytest.importorskip("wandb", reason="needs wandb: python -m helpers install wandb")
    changes = {"train": dict(tracker="wandb", logging_dir=str(tmp_path / "logs"))}
    monkeypatch.setenv("WANDB_MODE", "offline")
    first, second = must_finish(tmp_path, TWO, {"run": changes})["run"]
    assert first["history"] == second["history"]
    (file,) = (tmp_path / "logs" / "wandb").glob("offline-run-*/run-*.wandb")
    found = sent(file)
    assert_same({name: found[name] for name in found if "/seconds" not in name}, History(**first["history"]))


def test_a_tracker_that_does_not_begin_is_told_before_training(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: python -m helpers install tensorboard")
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(
        CourseError, match="train.tracker 'tensorboard' does not begin: .*set train.tracker to null"
    ):
        run(tmp_path / "run", tracker="tensorboard", logging_dir=str(tmp_path / "logs"))
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_wandb_offline_has_the_history_from_before_too(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb: python -m helpers install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(tmp_path / "run", total_steps=4)
    settings = dict(tracker="wandb", project_name="course", run_name="mine", tags=["small"])
    trainer = run(tmp_path / "run", resume_from_checkpoint=str(tmp_path / "run"), **settings)
    wandb.teardown()  # its own process writes the file, and is through with it when it has ended
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert_same(sent(file), trainer.history)
    runs = [record.run for record in records(file) if record.WhichOneof("record_type") == "run"]
    assert {(run.project, run.display_name, *run.tags) for run in runs} == {("course", "mine", "small")}


def sent(file) -> dict[str, dict[int, float]]:
    """The numbers in a file that wandb wrote."""
    found = {}
    for record in records(file):
        items = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
        }
        for name, value in items.items():
            if not name.startswith("_"):
                found.setdefault(name, {})[items["_step"]] = float(value)
    return found


def records(file):
    """The records in a file that wandb wrote: LevelDB's log, in blocks of 32 KiB, after seven bytes of wandb's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 < len(data):
        if (rest := -place % 32768) < 7:  # no room for a header: the next block
            place += rest
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield Record.FromString(whole)
            whole = b""
