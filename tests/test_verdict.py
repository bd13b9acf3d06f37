"""The verdict names what is wrong with a run, calls healthy ones healthy, and takes chance for chance."""

import json
import random
import re
from pathlib import Path
from statistics import fmean, pstdev

import nbformat
import pandas as pd
import pytest
from common import ROOT
from ppo_run import small_run

from helpers import verdict as verdict_module
from helpers.__main__ import main
from helpers.maintain.clinic import CASES, HEALTHY
from helpers.ppo.run import History
from helpers.verdict import verdict

DATA = ROOT / "notebooks" / "data"
PARTS = ("rounds", "updates", "evals")
RECORDED = {name: pd.read_csv(DATA / f"clinic_{name}.csv") for name in PARTS}
RUNS = sorted(set(RECORDED["rounds"][["run", "seed"]].itertuples(index=False, name=None)))


def recorded(run: str, seed: int) -> History:
    """The history of a recorded run."""
    tables = {}
    for name, table in RECORDED.items():
        mine = table[(table["run"] == run) & (table["seed"] == seed)].drop(columns=["run", "seed"])
        tables[name] = [
            {k: v for k, v in row.items() if pd.notna(v)} for row in mine.to_dict(orient="records")
        ]
    return History(**tables)


def first_line(history: History) -> str:
    return verdict(history)[0]


@pytest.mark.parametrize("name", CASES)
def test_each_sick_run_of_the_gallery_is_named_in_the_first_line(name):
    line = first_line(recorded(name, 2))
    assert line.startswith("look") and CASES[name].look in line


@pytest.mark.parametrize(
    "run, seed", [(run, seed) for run, seed in RUNS if run in HEALTHY or run.startswith("notebook")], ids=str
)
def test_healthy_runs_are_all_ok(run, seed):
    assert [line for line in verdict(recorded(run, seed)) if not line.startswith("ok")] == []


def test_there_are_healthy_runs_enough():
    assert [
        sum(run == name for run, _ in RUNS) for name in ("notebook 06", "notebook 09", "learns nothing")
    ] == [10, 5, 20]
    assert {(run, 2) for run in (*HEALTHY, *CASES)} <= set(RUNS)


def test_every_sick_run_has_a_card_and_a_run_after_the_change():
    cards = pd.read_csv(DATA / "clinic_cases.csv").set_index("run")
    assert list(cards.index) == list(CASES)
    assert cards.notna().all(axis=None) and {(run, 2) for run in cards["after"]} <= set(RUNS)


def test_what_a_line_points_to_is_there():
    """Each sign names a notebook and one of its headings."""
    source = Path(verdict_module.__file__).read_text(encoding="utf-8")
    named = set(re.findall(r'"(\d\d) ([^"]+)"', source))
    assert len(named) > 10
    for number, heading in named:
        [notebook] = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
        cells = nbformat.read(notebook, as_version=4).cells
        assert any(re.search(rf"^#+ {re.escape(heading)}$", cell.source, re.M) for cell in cells), heading


def test_of_real_runs_that_learn_nothing_one_in_twenty_at_most_is_said_to_rise_or_fall():
    said = [verdict(recorded(run, seed)) for run, seed in RUNS if run == "learns nothing"]
    wrong = [lines for lines in said if not any("no more than chance" in line for line in lines)]
    assert len(wrong) <= 1


def nothing_learned(seed: int) -> History:
    """A run of 6 to 40 rounds whose rewards are drawn from one distribution: 0 or 1, even, or with a long tail."""
    draw = random.Random(seed)
    kinds = [lambda: float(draw.random() < 0.3), draw.random, lambda: draw.lognormvariate(0, 1)]
    kind, samples = draw.choice(kinds), draw.choice([32, 64, 128])
    rounds = []
    for i in range(draw.randint(6, 40)):
        rewards = [kind() for _ in range(samples)]
        row = dict(step=8 * i, samples=samples, reward=fmean(rewards), reward_std=pstdev(rewards))
        row |= dict(
            same_reward=0.1, cut_reward=0.0, kl=0.2 * i / (1 + 0.1 * i), kl_std=1.0, kl_coef=0.02, prompts=99
        )
        rounds.append(
            row | dict(length=20.0, cut=0.5, distinct=1.0, opening=0.05, ending=0.05, distinct_2=0.5)
        )
    updates = [
        dict(step=i + 1, ratio=1.0, clipfrac=0.05, entropy=2.0, approx_kl=0.02, policy_loss=0.0)
        for i in range(8 * len(rounds))
    ]
    return History(rounds, updates, [])


def test_of_simulated_runs_that_learn_nothing_one_in_twenty_at_most_is_said_to_rise_or_fall():
    lines = [
        next(line for line in verdict(nothing_learned(seed)) if "reward went" in line) for seed in range(200)
    ]
    assert sum("no more than chance" not in line for line in lines) <= 10


def test_a_small_change_is_seen_where_there_are_samples_enough():
    history = nothing_learned(1)
    for i, row in enumerate(history.rounds):
        row.update(samples=10_000, reward=0.5 + 0.005 * i, reward_std=0.4)
    assert "ok:   reward went from 0.50" in "\n".join(verdict(history))


def test_a_reward_that_falls_is_said_to_fall():
    history = nothing_learned(1)
    for i, row in enumerate(history.rounds):
        row.update(samples=128, reward=0.9 - 0.02 * i, reward_std=0.3)
    assert "it falls" in first_line(history)


def test_texts_that_end_alike_are_seen_though_all_are_distinct(tmp_path):
    """Eight of eight samples with the same last sentence are distinct outputs."""
    history = nothing_learned(2)
    history.rounds[-1]["ending"] = 1.0
    assert "100% of the outputs have one ending in common" in "\n".join(verdict(history))


def test_a_metric_that_falls_while_the_reward_rises_is_named():
    history = nothing_learned(3)
    scores = [(0.1, 0.55), (0.5, 0.6), (0.9, 0.2)]
    history.evals = [
        {"step": i, "reward/mean": r, "metrics/gold": gold} for i, (r, gold) in enumerate(scores)
    ]
    assert "metrics/gold fell from 0.60 to 0.20" in first_line(history)


def test_a_metric_that_does_not_follow_a_much_higher_reward_is_named():
    history = nothing_learned(3)
    history.rounds[0]["reward_std"] = 0.7
    ends = {"reward": (0.1, 2.2), "gold": (0.53, 0.5)}
    history.evals = [
        {"step": i, "reward/mean": ends["reward"][i], "metrics/gold": ends["gold"][i]} for i in (0, 1)
    ]
    assert "metrics/gold went from 0.53 to 0.50: if it should be high" in first_line(history)
    history.evals[1]["metrics/gold"] = 0.6
    assert "metrics/" not in "\n".join(verdict(history))
    history.evals[0]["metrics/gold"] = history.evals[1]["metrics/gold"] = 1.0  # no higher there is
    assert "metrics/" not in "\n".join(verdict(history))


def test_a_metric_of_nothing_is_no_sign():
    history = nothing_learned(3)
    history.rounds[0]["reward_std"] = 0.4
    history.evals = [{"step": i, "reward/mean": 0.1 + i, "metrics/toxic": 0.0} for i in (0, 1)]
    assert "metrics/" not in "\n".join(verdict(history))


def test_a_reward_that_rose_and_fell_back_is_named():
    history = nothing_learned(4)
    n = len(history.rounds)
    for i, row in enumerate(history.rounds):
        row.update(samples=128, reward=0.5 + 0.9 * min(i, n - 1 - i) / n, reward_std=0.3)
    assert "fell back to" in first_line(history)


def test_a_kl_that_grows_on_after_the_reward_has_levelled_off_is_named():
    history = recorded("value head does not learn", 2)
    for row in history.rounds:
        row.update(kl=0.7 * row["kl"])
    assert "grows on, though the reward has levelled off" in "\n".join(verdict(history))


def test_a_reward_for_each_token_is_cut_token_by_token(tmp_path):
    """Eight tokens of 2 make 16, and none of them is beyond 10."""
    kept = small_run(
        tmp_path / "kept", reward_fn=lambda samples, **_: [[2.0] * 7 + [len(s) % 5] for s in samples]
    )
    assert {row["cut_reward"] for row in kept.history.rounds} == {0.0}
    assert kept.history.rounds[0]["reward"] > 14
    cut = small_run(tmp_path / "cut", reward_fn=lambda samples, **_: [[20.0] + [len(s) % 5] for s in samples])
    assert {row["cut_reward"] for row in cut.history.rounds} == {1.0}


def test_a_penalty_that_is_nothing_beside_small_rewards_is_named():
    history = recorded("healthy", 2)
    for row in history.rounds:
        row["kl_coef"] = 0.0005
    assert "the penalty has no say. Raise method.init_kl_coef" in first_line(history)


def test_one_token_that_became_much_likelier_is_no_step_too_large():
    """Seed 10 of the runs that learn nothing had a step with a mean ratio of 14 in a round whose clip fraction was 10%."""
    history = recorded("healthy", 2)
    history.updates[10]["approx_kl"] = 20.0
    assert "too large" not in "\n".join(verdict(history))


def test_long_texts_at_the_same_kl_a_token_have_not_left_the_language():
    history = recorded("healthy", 2)
    for row in history.rounds:
        row.update(kl=5 * row["kl"], length=5 * row["length"])
    assert [line for line in verdict(history) if line.startswith("look")] == []


def test_the_noise_of_half_precision_is_no_sign():
    history = recorded("healthy", 2)
    history.updates[0]["ratio"] = 1.005
    for update in history.updates:
        update["policy_loss"] += 0.005
    assert [line for line in verdict(history) if line.startswith("look")] == []


def test_rewards_that_the_run_scales_by_itself_are_not_too_large():
    history = recorded("reward too large for beta", 2)
    for row in history.rounds:
        row["scaled_reward"] = True
    assert "no say" not in "\n".join(verdict(history))


def test_a_hair_too_likely_is_chance():
    """A dozen rounds whose samples are 0.03 nats too likely, with a third of that as their error: a healthy run had this."""
    history = recorded("healthy", 2)
    for update in history.updates:
        update["logprob"] = -update["entropy"] + 0.03 + 0.005 * (-1) ** (update["step"] // 8)
    assert "do not come from the policy" not in "\n".join(verdict(history))


def test_a_value_head_that_foresees_less_than_a_constant_is_named():
    history = recorded("healthy", 2)
    for row in history.rounds:
        row["explained_variance"] = -0.5
    assert "explained variance is -0.5" in first_line(history)


def test_the_command_judges_checkpoints_and_files(capsys, tmp_path):
    trainer = small_run(tmp_path / "run")
    said = verdict(trainer.history)
    file = tmp_path / "history.json"
    file.write_text(json.dumps(vars(trainer.history)))
    for place in (tmp_path / "run", file):
        capsys.readouterr()
        assert main(["verdict", str(place)]) == 0
        assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"rounds": 3, "updates": [], "evals": []}',
        '{"rounds": [{"samples": 1}], "updates": [], "evals": []}',
        '{"rounds": [], "updates": [], "evals": [{"reward/mean": 1}]}',
        "\x00",
    ],
)
def test_a_file_without_a_history_is_one_sentence(capsys, tmp_path, text):
    file = tmp_path / "history.json"
    file.write_text(text)
    assert main(["verdict", str(file)]) == 2
    assert "holds no history" in capsys.readouterr().err


def test_so_is_a_folder_without_checkpoints(capsys, tmp_path):
    assert main(["verdict", str(tmp_path)]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err


def test_a_solved_task_is_not_one_that_is_hardly_ever_earned():
    history = nothing_learned(1)
    for i, row in enumerate(history.rounds):
        row.update(
            samples=128, reward=min(0.5 + 0.2 * i, 0.99), reward_std=0.3, same_reward=min(0.5 + 0.2 * i, 0.99)
        )
    assert [line for line in verdict(history) if line.startswith("look")] == []


def test_gpt2_which_ends_no_text_is_not_called_cut_short():
    history = recorded("healthy", 2)
    for row in history.rounds:
        row.update(cut=1.0, length=24.0)
    assert [line for line in verdict(history) if line.startswith("look")] == []


def test_rounds_of_an_older_version_are_left_out():
    history = recorded("healthy", 2)
    for row in history.rounds:
        del row["samples"]
    assert "an older version" in first_line(history)
    history = recorded("healthy", 2)
    for row in history.rounds[:3]:
        for name in ("samples", "distinct_2", "ending", "opening", "same_reward", "kl_std"):
            del row[name]
    assert [line for line in verdict(history) if line.startswith("look")] == []


def test_a_first_ratio_that_is_not_1_is_not_said_to_be_1():
    history = recorded("healthy", 2)
    history.updates[0]["ratio"] = 1.05
    said = verdict(history)
    assert "the ratio was 1.05, not 1" in said[0] and "starts at 1" not in "\n".join(said)


def test_a_metric_that_came_or_went_is_no_error():
    history = recorded("healthy", 2)
    history.evals[0]["metrics/old"], history.evals[-1]["metrics/new"] = 0.5, 0.5
    assert [line for line in verdict(history) if line.startswith("look")] == []
