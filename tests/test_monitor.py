"""The verdict names the sickness, and the live figure is drawn from a real run's history."""

import copy

import pytest
from ppo_run import small_run

from helpers import monitor
from helpers.ppo.run import History


def healthy() -> History:
    """A made-up run of ten rounds in which every sign is good."""
    rounds = [{"step": 16 * i, "reward": 0.5 + 0.04 * i, "kl": 0.3 * i, "distinct": 1.0} for i in range(10)]
    updates = [{"step": i + 1, "ratio": 1.0, "clipfrac": 0.05, "entropy": 3 - 0.005 * i} for i in range(160)]
    evals = [{"step": s, "reward/mean": 0.5 + s / 400, "kl": s / 60, "distinct": 1.0} for s in (0, 80, 160)]
    return History(rounds, updates, evals)


def lines_that_look(history) -> list[str]:
    return [line for line in monitor.verdict(history) if line.startswith("look")]


def test_a_healthy_run():
    assert lines_that_look(healthy()) == []
    assert len(monitor.verdict(healthy())) == 4


@pytest.mark.parametrize(
    "kind, row, name, value, words",
    [
        ("rounds", slice(None), "reward", 0.5, "has not moved"),
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
    assert "levelled off" in monitor.verdict(history)[0]


def test_too_short_to_judge():
    assert "too short" in monitor.verdict(History())[0]


def test_a_run_without_a_notebook_prints_a_bar_and_a_summary(tmp_path, capsys):
    small_run(tmp_path, listeners=[monitor.Monitor()])
    printed = capsys.readouterr().out
    assert "8/8" in printed and "8 steps in" in printed and "Held-out reward" in printed


def test_the_figure_shows_the_history(tmp_path):
    trainer = small_run(tmp_path)
    figure = monitor.plot_history(trainer.history)
    reward = figure.axes[0]
    assert reward.lines[0].get_ydata().tolist() == [row["reward"] for row in trainer.history.rounds]
    assert [text.get_text() for text in reward.get_legend().get_texts()] == ["rollouts", "held-out prompts"]
