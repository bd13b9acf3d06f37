"""The runs that notebook 06's KL lab shows, recorded: `python -m helpers record`."""

import os
import tempfile
from pathlib import Path

import pandas as pd

from helpers import bench, course, reviews
from helpers.course import Course, atomic_write
from helpers.notebooks import NOTEBOOKS
from helpers.ppo.trainer import train
from helpers.train_cli import load_reward

BETAS = [0.0, 0.005, 0.02, 0.1, 0.5]
SAMPLES = 8
"""Samples kept of each run: those of the first held-out prompts, the same for every beta."""


def record_runs(here: Course) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Notebook 06's run once for each of `BETAS`, on the built-in engine, which is on every machine.

    Returns:
        The runs (beta, step, reward, kl: one row per evaluation on the held-out prompts, KL in nats a sample) and the samples
        of the last evaluation (beta, prompt, output, reward).
    """
    reward_fn = load_reward(here.reward_model, here.device)
    prompts, held_out = reviews.make_prompts(here)
    runs, samples = [], []
    for beta in BETAS:
        with tempfile.TemporaryDirectory() as folder:
            config = bench.notebook_config(here).evolve(
                method=dict(init_kl_coef=beta),
                train=dict(checkpoint_dir=folder, save_best=False, eval_interval=here.steps(16)),
            )
            trainer = train(reward_fn=reward_fn, prompts=prompts, eval_prompts=held_out, config=config)
        for row in trainer.history.evals:
            runs.append(dict(beta=beta, step=row["step"], reward=row["reward/mean"], kl=row["kl"]))
        samples += [dict(beta=beta, **row) for row in trainer.eval_samples[:SAMPLES]]
        print(f"beta {beta:g}: reward {runs[-1]['reward']:.2f}, KL {runs[-1]['kl']:.1f}", flush=True)
    return pd.DataFrame(runs), pd.DataFrame(samples)


def main(folder: Path = NOTEBOOKS / "data") -> None:
    """Write kl_lab_runs.csv and kl_lab_samples.csv into `folder`, each whole or not at all.

    Raises:
        CourseError: a file cannot be written.
    """
    os.environ["RLHF_SCALE"] = "tiny"  # the scale of all outputs that are stored with the course, and in full
    os.environ.pop("RLHF_BUDGET", None)
    here = course.start()
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in zip(["runs", "samples"], record_runs(here), strict=True):
        path = folder / f"kl_lab_{name}.csv"
        atomic_write(path, table.round(4).to_csv(index=False, lineterminator="\n"))
        print(f"recorded {here.show_path(path)}")
