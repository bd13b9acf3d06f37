"""How reliably notebook 06's run learns: `python -m helpers bench --seeds N`."""

import time
from collections.abc import Callable

import pandas as pd

from helpers import course, engine, reviews
from helpers.course import Course
from helpers.maintain.bench.run import BUILT_IN, TRLX
from helpers.maintain.stored_outputs import run_tagged
from helpers.notebooks import NOTEBOOKS
from helpers.ppo.config import TRLConfig
from helpers.ppo.run import History
from helpers.ppo.train import train
from helpers.real_trlx import install
from helpers.rewards import load_reward


def seeds(count: int) -> pd.DataFrame:
    """Notebook 06's run with `count` seeds on each engine here: reward before and after, KL, distinct, seconds."""
    here = course.start()
    reward_fn = load_reward(here.reward_model, here.device)
    prompts, held_out = reviews.make_prompts(here)
    rows = []
    for engine_name, run in engines().items():
        for seed in range(count):
            folder = here.out / "bench" / engine_name / f"seed{seed}"
            config = notebook_config(here).evolve(train=dict(seed=seed, checkpoint_dir=str(folder)))
            began = time.perf_counter()
            history = run(reward_fn=reward_fn, prompts=prompts, eval_prompts=held_out, config=config).history
            row = {"engine": engine_name, "seed": seed, **outcome(history)}
            rows.append({**row, "seconds": time.perf_counter() - began})
            print(f"{engine_name}, seed {seed}: {row['before']:.2f} -> {row['after']:.2f}", flush=True)
    return pd.DataFrame(rows).set_index(["engine", "seed"])


def engines() -> dict[str, Callable]:
    """The engines that are here, and how each trains: the built-in PPO, and trlX where it is installed."""
    found = {BUILT_IN: train}
    if install.installed():
        from helpers.real_trlx.train import train as train_with_trlx

        found[TRLX] = train_with_trlx
    return found


def outcome(history: History) -> dict:
    """What a run came to, in the numbers that two runs are compared by."""
    first, last = history.evals[0], history.evals[-1]
    return {
        "before": first["reward/mean"],
        "after": last["reward/mean"],
        "KL": last["kl"],
        "largest KL": max(row["kl"] for row in history.rounds),
        "distinct": last["distinct"],
    }


def notebook_config(here: Course) -> TRLConfig:
    """What notebook 06 calls `config`: its cell tagged so is run, so that there is one recipe and not two."""
    names = run_tagged(NOTEBOOKS / "06_train.ipynb", "config", here=here, trlx=engine)
    return names["config"]


def main(count: int) -> None:
    """Print the table of `seeds`."""
    print(seeds(count).round(2).to_string())
