"""`python -m helpers record`: one run for each beta, and two CSV files of them."""

import os

import pandas as pd
import pytest
from ppo_run import PROMPTS, count_the, small_config, without_times

from helpers import course
from helpers.errors import CourseError
from helpers.maintain import clinic as gallery
from helpers.maintain import details as one_detail_less
from helpers.maintain import record


def test_one_run_per_beta(monkeypatch):
    monkeypatch.setattr(record, "BETAS", [0.0, 0.1])
    monkeypatch.setenv("RLHF_BUDGET", "0.01")  # 2 optimizer steps
    runs, samples = record.kl_lab(course.start()).values()
    assert list(runs.columns) == ["beta", "step", "reward", "kl"]
    assert list(samples.columns) == ["beta", "prompt", "output", "reward"]
    at_first = runs[runs["step"] == 0].drop(columns="beta").drop_duplicates()["kl"]
    assert len(at_first) == 1 and abs(at_first.item()) < 1e-4  # the rounding of float32
    for table, rows in [(runs, 3), (samples, record.SAMPLES)]:
        assert table.groupby("beta").size().to_dict() == {0.0: rows, 0.1: rows}
    prompts = samples.groupby("beta")["prompt"].apply(list)
    assert prompts[0.0] == prompts[0.1] and samples["reward"].between(0, 1).all()


def test_one_run_per_reward_model(monkeypatch):
    monkeypatch.setattr(record, "RATINGS", [10, 1000])  # at this budget there are 40
    monkeypatch.setattr(record, "DRAWS", 2)
    monkeypatch.setenv("RLHF_BUDGET", "0.02")
    runs, samples = record.goodhart(course.start()).values()
    assert list(runs.columns) == ["ratings", "draw", "accuracy", "step", "kl", "proxy", "gold"]
    assert list(samples.columns) == ["ratings", "draw", "prompt", "output", "proxy", "gold"]
    assert runs.groupby(["ratings", "draw"])["step"].apply(list).to_dict() == {
        (10, 0): [0, 1, 2],
        (10, 1): [0, 1, 2],
    }
    assert samples.groupby(["ratings", "draw"]).size().tolist() == [record.SAMPLES] * 2
    assert runs[runs["step"] == 0]["kl"].abs().max() < 1e-4 and runs["gold"].between(0, 1).all()
    first, second = (runs[runs["draw"] == draw].drop(columns="draw") for draw in (0, 1))
    assert first["proxy"].tolist() != second["proxy"].tolist()


def test_the_clinic_has_histories_samples_and_cards(monkeypatch):
    cases = {run: gallery.CASES[run] for run in ("constant reward", "dropout is on")}
    monkeypatch.setattr(gallery, "CASES", cases)
    monkeypatch.setattr(gallery, "HEALTHY", {"healthy": gallery.HEALTHY["healthy"]})
    for name, seeds in {"HEALTHY": 1, "NOTHING": 1, "HEALTHY_FEEDBACK": 0}.items():
        monkeypatch.setattr(record, name, seeds)
    monkeypatch.setenv("RLHF_BUDGET", "0.01")
    rounds, updates, evals, samples, cards = record.clinic(course.start()).values()
    runs = ["healthy", "constant reward", "dropout is on", "notebook 06", "learns nothing"]
    for table in (rounds, updates, evals):
        assert table["run"].drop_duplicates().tolist() == runs
        assert not [name for name in table if name.startswith("seconds_")]
    assert samples.groupby("run").size().to_dict() == dict.fromkeys(runs[:3], record.SAMPLES)
    assert set(rounds[rounds["run"] == "constant reward"]["reward"]) == {1.0}
    assert cards["run"].tolist() == list(cases) and set(cards["after"]) == {"healthy"}


def test_one_run_per_ensemble_and_seed(monkeypatch):
    monkeypatch.setattr(record, "SEEDS", 1)
    monkeypatch.setenv("RLHF_BUDGET", "0.02")
    (runs,) = record.ensemble(course.start()).values()
    assert list(runs.columns) == ["reward", "seed", "step", "KL", "proxy", "gold"]
    ends = runs.groupby("reward", sort=False).last()
    assert ends.index.tolist() == ["draw 0", "draw 1", "draw 2", "minimum", "mean", "all thirty"]
    assert runs[runs["step"] == 0]["KL"].abs().max() < 1e-4 and ends["proxy"].nunique() == len(ends)


def test_one_second_round_per_situation_and_draw(monkeypatch):
    monkeypatch.setattr(record, "SEEDS", 1)
    monkeypatch.setattr(record, "SITUATIONS", {"few": (10, 12, 0.0, 96)})
    monkeypatch.setenv("RLHF_BUDGET", "0.02")
    (runs,) = record.second_round(course.start()).values()
    assert list(runs.columns) == "situation,draw,rated again,ties,step,KL,proxy,gold".split(",")
    again = ["nothing", "old", "new", "old and new"]
    ends = runs.groupby(["draw", "rated again"], sort=False).last()
    assert ends.index.tolist() == [(0, kind) for kind in again]
    assert ends["proxy"].nunique() == len(ends) and runs["ties"].between(0, 12).all()
    assert not runs[runs["rated again"] == "nothing"]["ties"].any()


def test_one_run_per_method_and_seed(monkeypatch):
    monkeypatch.setattr(record, "SEEDS", 2)
    monkeypatch.setenv("RLHF_BUDGET", "0.02")
    (runs,) = record.methods(course.start()).values()
    assert list(runs.columns) == ["method", "seed", "look", "KL", "gold"]
    methods = [*record.SAMPLED, "PPO", "DPO"]
    ends = runs.groupby(["method", "seed"], sort=False).last()
    assert ends.index.tolist() == [(method, seed) for seed in range(2) for method in methods]
    assert runs[runs["look"] == 0]["KL"].abs().max() < 1e-4 and runs["gold"].between(0, 1).all()
    assert ends["KL"].nunique() == len(ends)  # no two of them made the same steps


def test_the_files_are_those_of_a_whole_run_at_tiny_scale(monkeypatch, tmp_path):
    runs = pd.DataFrame([dict(beta=0.02, step=0, reward=1 / 3, kl=0.0)])
    samples = pd.DataFrame([dict(beta=0.02, prompt="A, b", output=' "c"\nd', reward=0.5)])
    for name, value in {"RLHF_SCALE": "full", "RLHF_BUDGET": "0.1"}.items():
        monkeypatch.setenv(name, value)
    seen = []

    names = "kl_lab goodhart ladder details clinic ensemble second_round methods mismatch".split()
    for name in names:

        def recording(here):
            seen.append(here)
            return {"runs": runs, "samples": samples}

        recording.__name__ = name
        monkeypatch.setattr(record, name, recording)
    record.main(tmp_path / "data")
    assert [(here.scale, here.budget) for here in seen] == [("tiny", 1.0)] * 9
    written = sorted(os.listdir(tmp_path / "data"))
    assert written == [f"{name}_{part}.csv" for name in sorted(names) for part in ("runs", "samples")]
    assert (tmp_path / "data" / "goodhart_runs.csv").read_text() == "beta,step,reward,kl\n0.02,0,0.3333,0.0\n"
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "data" / "goodhart_samples.csv"), samples)


def test_the_command_is_known(cli):
    shown = cli("record", "--help")
    assert shown.returncode == 0 and "KL lab" in shown.stdout


@pytest.mark.parametrize("name", ["runs", "samples"])
def test_what_the_course_ships_has_the_columns_that_are_recorded(name):
    table = pd.read_csv(record.NOTEBOOKS / "data" / f"kl_lab_{name}.csv")
    assert sorted(table["beta"].unique()) == record.BETAS
    last = {"runs": "kl", "samples": "reward"}[name]
    assert table.columns[0] == "beta" and table.columns[-1] == last and not table.isna().any().any()
    table = pd.read_csv(record.NOTEBOOKS / "data" / f"goodhart_{name}.csv")
    assert sorted(table["ratings"].unique()) == record.RATINGS
    assert sorted(table["draw"].unique()) == list(range(record.DRAWS)) and not table.isna().any().any()


def test_the_runs_of_notebook_07_are_recorded_too():
    ladder, details = (
        pd.read_csv(record.NOTEBOOKS / "data" / f"{name}_runs.csv") for name in ("ladder", "details")
    )
    assert ladder.groupby("run", sort=False).size().to_dict() == dict.fromkeys(record.LADDER, record.SEEDS)
    assert details.groupby("detail", sort=False).size().to_dict() == dict.fromkeys(
        one_detail_less.DETAILS, record.DRAWS
    )
    assert not ladder.isna().any().any() and not details.isna().any().any()


def history_without(detail, folder):
    """Two updates of a small run whose samples are long enough to end, with one detail switched off."""
    gen_kwargs = dict(max_new_tokens=48)
    config = small_config(
        folder, train=dict(total_steps=2, eval_interval=2), method=dict(gen_kwargs=gen_kwargs)
    )
    trainer = one_detail_less.run(detail, config, reward_fn=count_the, prompts=PROMPTS, eval_prompts=PROMPTS)
    return without_times(trainer.history)


def test_each_detail_makes_a_difference_and_leaves_none_behind(tmp_path):
    whole = history_without("nothing", tmp_path)
    for detail in list(one_detail_less.DETAILS)[1:]:
        assert history_without(detail, tmp_path) != whole, detail
    assert history_without("nothing", tmp_path) == whole


def test_a_detail_that_is_not_there(tmp_path):
    with pytest.raises(CourseError, match="there is no detail 'sleep'; there are nothing, whitening"):
        history_without("sleep", tmp_path)
