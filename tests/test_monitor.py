"""The verdict names the sickness, and the live figure is drawn from a real run's history."""

import copy
import io
import math
import shutil
import sys
import warnings
from types import SimpleNamespace

import pytest
from ppo_run import small_run

from helpers import figures, monitor
from helpers.ppo.run import History
from helpers.verdict import verdict
from helpers.widgets import controls


def healthy() -> History:
    """A made-up run of ten rounds in which every sign is good."""
    samples = dict(
        samples=128, reward_std=0.3, same_reward=0.01, cut_reward=0.0, kl_std=2.0, kl_coef=0.02, prompts=99
    )
    texts = dict(length=20.0, cut=0.5, distinct=1.0, opening=0.05, ending=0.05, distinct_2=0.5)
    rounds = [dict(step=16 * i, reward=0.5 + 0.04 * i, kl=0.3 * i, **samples, **texts) for i in range(10)]
    token = dict(ratio=1.0, clipfrac=0.05, approx_kl=0.02, policy_loss=0.0)
    updates = [dict(step=i + 1, entropy=3 - 0.005 * i, **token) for i in range(160)]
    evals = [{"step": s, "reward/mean": 0.5 + s / 400, "kl": s / 60, "distinct": 1.0} for s in (0, 80, 160)]
    return History(rounds, updates, evals)


def lines_that_look(history) -> list[str]:
    return [line for line in verdict(history) if line.startswith("look")]


def test_a_healthy_run():
    assert lines_that_look(healthy()) == []
    assert len(verdict(healthy())) == 4


@pytest.mark.parametrize(
    "kind, row, name, value, words",
    [
        ("rounds", slice(None), "reward", 0.5, "no more than chance"),
        ("rounds", slice(7, None), "reward", 0.3, "it falls"),
        ("rounds", slice(8, None), "kl", 14.0, "Raise beta"),
        ("rounds", slice(5, 6), "kl", -3.0, "never negative"),
        ("rounds", slice(9, None), "distinct", 0.1, "repeats itself"),
        ("updates", slice(0, 1), "ratio", 1.3, "disagree about the same tokens"),
        ("updates", slice(140, None), "clipfrac", 0.5, "steps are too large"),
        ("updates", slice(159, None), "entropy", 0.4, "narrowing"),
    ],
)
def test_each_sickness_is_named(kind, row, name, value, words):
    history = copy.deepcopy(healthy())
    for entry in getattr(history, kind)[row]:
        entry[name] = value
    looks = lines_that_look(history)
    assert len(looks) == 1 and words in looks[0]


def test_a_plateau_is_mentioned_but_is_no_sickness():
    history = healthy()
    for i, row in enumerate(history.rounds):
        row["reward"] = min(0.9, 0.5 + 0.1 * i)
    assert lines_that_look(history) == []
    assert "levelled off" in verdict(history)[0]


def test_too_short_to_judge():
    assert "too short" in verdict(History())[0]


def test_a_run_without_a_notebook_prints_a_bar_and_a_summary(tmp_path, capsys):
    small_run(tmp_path, listeners=[monitor.Monitor()])
    printed = capsys.readouterr().out
    assert "8/8" in printed and "8 steps in" in printed and "Held-out reward" in printed


def test_the_figure_shows_the_history(tmp_path):
    trainer = small_run(tmp_path)
    figure = monitor.plot_history(trainer.history)
    reward, losses = figure.axes[0], figure.axes[2]
    explained = trainer.history.rounds[-1]["explained_variance"]
    titles = [losses.get_title(loc=side) for side in ("left", "center")]  # left where the course has started
    assert f"losses; explained variance {explained:.2f}" in titles
    assert reward.lines[0].get_ydata().tolist() == [row["reward"] for row in trainer.history.rounds]
    assert [text.get_text() for text in reward.get_legend().get_texts()] == ["rollouts", "held-out prompts"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "kind, name",
    [("rounds", "reward"), ("rounds", "kl"), ("updates", "ratio"), ("updates", "entropy"), ("evals", "kl")],
)
def test_a_run_that_diverged_is_never_called_healthy(kind, name, value):
    history = healthy()
    rows = getattr(history, kind)
    for row in rows[len(rows) // 2 :]:
        row[name] = value
    (line,) = verdict(history)
    assert line.startswith(
        f"look: {name} is {value} at step {rows[len(rows) // 2]['step']}: the run has diverged"
    )


def test_a_metric_that_is_no_number_is_no_divergence():
    history = healthy()
    history.evals[1]["metrics/gold"] = float("nan")
    assert lines_that_look(history) == []


def test_a_gradient_too_large_for_float16_is_no_divergence():
    history = healthy()
    history.updates[0]["grad_norm"] = float("inf")
    assert lines_that_look(history) == []


def test_what_cannot_be_judged_is_said():
    history = healthy()
    history.updates.clear()
    assert "too short" in verdict(history)[0]
    history = healthy()
    history.updates[0]["entropy"] = 0.0
    assert "entropy was 0 at the start" in lines_that_look(history)[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e308, -1e308])
@pytest.mark.parametrize("rows", [slice(None), slice(5, None)])
def test_a_diverged_run_is_drawn(value, rows):
    history = watched().history
    for row in [*history.rounds[rows], *history.updates[rows], *history.evals[rows]]:
        row.update({name: value for name in row if name != "step"})
    figure = monitor.plot_history(history)
    figure.savefig(io.BytesIO())
    figures.describe(figure)
    assert all(math.isfinite(end) for axes in figure.axes for end in (*axes.get_xlim(), *axes.get_ylim()))
    assert math.isfinite(value) or "has diverged" in monitor.page("step 5", watched(history=history))


def watched(folder="nowhere", step=0, **given):
    """What a monitor reads of a trainer."""
    history = healthy()
    for row in history.updates:
        row.update(policy_loss=0.1, value_loss=0.2)
    train = SimpleNamespace(checkpoint_dir=str(folder), resume_from_checkpoint=None)
    config = SimpleNamespace(train=train)
    trainer = SimpleNamespace(history=history, step=step, total_steps=8, eval_samples=[], config=config)
    vars(trainer).update(given)
    return trainer


def watch(trainer, steps=range(1, 9)):
    """A run as a monitor sees it."""
    listener = monitor.Monitor()
    listener.start(trainer)
    listener.progress(trainer)
    for trainer.step in steps:
        listener.progress(trainer)
    listener.end(trainer)
    return listener


def refuse(*args, **kwargs):
    raise OSError("gone")


class ClosedPipe(io.StringIO):
    write = flush = refuse


@pytest.mark.parametrize(
    "place, name, broken, says",
    [
        ("sys", "stdout", ClosedPipe(), "The progress bar failed (OSError: gone)"),
        ("helpers.monitor", "tqdm", refuse, "The progress bar failed"),
        ("helpers.monitor", "summary", refuse, "The run's summary failed"),
        ("helpers.monitor.plt", "subplots", refuse, "The live figure failed"),
        ("helpers.monitor", "draw_history", refuse, "The live figure failed"),
        ("helpers.monitor", "page", refuse, "The live figure failed"),
        ("IPython.display", "display", refuse, "The button that stops training failed"),
        ("ipywidgets", "Button", refuse, "The button that stops training failed"),
        ("helpers.widgets.controls.Clicks", "take", refuse, "The button that stops training failed"),
        ("helpers.widgets.controls.Clicks", "close", refuse, "The button that stops training failed"),
    ],
)
def test_a_part_that_fails_ends_nothing_else(monkeypatch, capsys, place, name, broken, says):
    monkeypatch.setattr(monitor, "in_notebook", lambda: True)
    monkeypatch.setattr(monitor, "REDRAW_SECONDS", 0)
    monkeypatch.setattr(controls.Clicks, "__init__", lambda self, button: setattr(self, "polling", None))
    monkeypatch.setattr(f"{place}.{name}", broken)
    with pytest.warns(UserWarning) as told:
        listener = watch(watched())
    assert any(says in str(warning.message) for warning in told)
    assert len({str(warning.message) for warning in told}) == len(told), "each is told once"
    if name == "stdout":
        return
    printed = capsys.readouterr().out
    assert (name == "tqdm") != ("8/8" in printed) and (name == "summary") != ("Held-out reward" in printed)
    shown = [part.button for part in listener.parts if isinstance(part, monitor.StopButton)]
    assert ("button" in says) != (len(shown) == 1 and shown[0].description == "Done")


def test_errors_of_the_monitor_stay_in_it_where_warnings_are_errors(monkeypatch):
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert watch(watched()).parts == []


def test_a_kernel_without_a_way_for_clicks(monkeypatch):
    """As where jupyter-ui-poll is missing: the button says what to do instead."""
    monkeypatch.setattr(controls, "Clicks", refuse)
    button = monitor.StopButton(monitor.Session(watched()))
    assert button.button.disabled and button.button.description == "To stop: interrupt the kernel"
    button.progress()
    button.end()


def test_a_terminal_of_another_encoding(monkeypatch, tmp_path):
    """As a Japanese Windows has it, with a folder's name that it cannot show."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp932"))
    watch(watched(checkpoint_in(tmp_path / "d\xe9j\xe0 vu \U0001f3ac", 4)), range(1, 6))
    sys.stdout.flush()
    printed = written.getvalue().decode("cp932")
    assert "5/8" in printed and r"d\xe9j\xe0 vu \U0001f3ac" in printed


def checkpoint_in(folder, *steps):
    for step in steps:
        (folder / f"checkpoint_{step}").mkdir(parents=True, exist_ok=True)
        (folder / f"checkpoint_{step}" / "state.json").write_text(f"{step}")
    return folder


def test_time_left_and_steps_of_a_resumed_run_are_those_of_this_call(monkeypatch):
    monkeypatch.setattr(monitor.Session, "seconds", lambda session: 10.0)
    trainer = watched(step=6)
    session = monitor.Session(trainer)
    session.begin()
    picture = monitor.Picture.__new__(monitor.Picture)
    picture.session, picture.trainer = session, trainer
    assert picture.time_left() == "step 6 of 8"
    trainer.step = 7
    assert picture.time_left() == "step 7 of 8, about 0:10 left"
    bar = monitor.Bar(session)
    bar.progress()
    bar.end()
    assert (bar.bar.initial, bar.bar.n) == (6, 7)
    trainer.history.updates[-1]["step"] = 8
    assert monitor.summary(trainer.history, 3.0, 6)[0].startswith(
        "2 steps in 3 s, after 6 of an earlier call."
    )


def end_of(folder, capsys, step=6, resume=None, found=(), written=(), error=None):
    """What is printed at the end of a run that found some checkpoints and wrote others."""
    checkpoint_in(folder, *found)
    trainer = watched(folder, step=0)
    trainer.config.train.resume_from_checkpoint = resume and str(resume)
    listener = monitor.Monitor()
    listener.start(trainer)
    try:
        listener.progress(trainer)
        trainer.step = step
        for number in written:
            shutil.rmtree(folder / f"checkpoint_{number}", ignore_errors=True)
            checkpoint_in(folder, number)
        if error:
            raise error
    except type(error or OSError()):
        listener.end(trainer)
    else:
        listener.end(trainer)
    return capsys.readouterr().out.splitlines()[-1]


def test_how_to_go_on_with_a_checkpoint(tmp_path, capsys):
    for error in (None, KeyboardInterrupt()):
        said = end_of(tmp_path, capsys, written=[4], error=error)
        assert said.startswith(
            "The run ended at step 6 of 8. The same call goes on from checkpoint_4 with config.evolve("
        )
        assert f"resume_from_checkpoint={str(tmp_path)!r}" in said


def test_how_to_go_on_without_a_checkpoint(tmp_path, capsys):
    said = end_of(tmp_path, capsys)
    assert "no checkpoint, so the same call begins anew. The trainer has its model and history." in said


def test_a_run_that_failed_says_where_its_trainer_is(tmp_path, capsys):
    for error in (MemoryError(), KeyboardInterrupt()):
        said = end_of(tmp_path, capsys, error=error)
        assert "begins anew" in said and "it is sys.last_value.trainer" in said


def test_an_error_outside_is_not_the_runs(tmp_path, capsys):
    """A reader may train while handling an error."""
    try:
        raise KeyError
    except KeyError:
        assert "The trainer has its model" in end_of(tmp_path, capsys)


def test_checkpoints_of_another_run_are_not_this_ones(tmp_path, capsys):
    said = end_of(tmp_path, capsys, found=[8])
    assert "begins anew" in said and "are another run's" in said and "goes on" not in said
    said = end_of(tmp_path, capsys, found=[4, 8], written=[4])
    assert "goes on from checkpoint_4" in said and repr(str(tmp_path / "checkpoint_4")) in said


def test_a_run_resumed_from_elsewhere_goes_on_from_there(tmp_path, capsys):
    source = checkpoint_in(tmp_path / "source", 4)
    said = end_of(tmp_path / "new", capsys, resume=source)
    assert "goes on from checkpoint_4" in said and repr(str(source)) in said
    said = end_of(tmp_path / "new", capsys, resume=source, written=[5])
    assert "goes on from checkpoint_5" in said and repr(str(tmp_path / "new")) in said


def test_a_run_that_failed_before_it_began_says_nothing_of_going_on(tmp_path, capsys):
    """As where its checkpoint is of another configuration: to say that it goes on from there would be false."""
    trainer = watched(checkpoint_in(tmp_path, 4))
    trainer.config.train.resume_from_checkpoint = str(tmp_path)
    listener = monitor.Monitor()
    listener.start(trainer)
    try:
        raise ValueError("the checkpoint was made with 5 prompts")
    except ValueError:
        listener.end(trainer)
    assert "goes on" not in capsys.readouterr().out


def test_a_run_that_was_over_already(tmp_path, capsys):
    trainer = watched(tmp_path, step=8)
    trainer.history.updates[:] = trainer.history.updates[:8]
    listener = monitor.Monitor()
    listener.start(trainer)
    listener.end(trainer)
    printed = capsys.readouterr().out
    assert "8/8" in printed and "0 steps in 0 s, after 8 of an earlier call." in printed
