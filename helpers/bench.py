"""How fast a round of PPO is, and how reliably it learns: `python -m helpers bench [--seeds N]`.

Times depend on the machine and on what else it is doing: compare rows of one run, not runs.
"""

import tempfile
import time

import pandas as pd
import torch
from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from helpers import course, engine, reviews, trlx_install
from helpers.course import Course
from helpers.notebooks import NOTEBOOKS, run_tagged
from helpers.ppo.config import TRLConfig, default_ppo_config
from helpers.ppo.train import train
from helpers.train_cli import load_reward

PHASES = ["sample", "score", "forward", "update"]


def speed() -> pd.DataFrame:
    """Rollouts a second and seconds a round by phase: the tiny model, and GPT-2's real shape with random weights.

    trlX's defaults (40 tokens, 4 PPO epochs, 2 blocks unfrozen) on 64 rollouts a round; the second of two rounds.
    """
    here = course.start()
    reward_fn = load_reward(here.reward_model, here.device)
    prompts, _ = reviews.make_prompts(here)
    with tempfile.TemporaryDirectory() as folder:
        random_gpt2(here.finetuned_model, folder)
        rows = [
            {"model": name, **round_times(path, reward_fn, prompts[:640])}
            for name, path in [
                (f"{here.scale} GPT-2", here.finetuned_model),
                ("GPT-2 124M, random weights", folder),
            ]
        ]
    return pd.DataFrame(rows).set_index("model")


def random_gpt2(tokenizer: str, folder: str) -> None:
    """GPT-2 small as `GPT2Config()` has it, 124M weights, beside a tokenizer it can be tried with."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)


def round_times(model_path: str, reward_fn, prompts: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as checkpoints:
        config = default_ppo_config().evolve(
            model=dict(model_path=model_path),
            tokenizer=dict(tokenizer_path=model_path),
            train=dict(
                total_steps=16, seq_length=64, eval_interval=1000, checkpoint_dir=checkpoints, save_best=False
            ),
            method=dict(num_rollouts=64, chunk_size=64, gen_kwargs=dict(min_new_tokens=40)),
        )
        history = train(reward_fn=reward_fn, prompts=prompts, eval_prompts=prompts[:2], config=config).history
    seconds = {phase: history.rounds[-1][f"seconds_{phase}"] for phase in PHASES}
    return {"rollouts/s": 64 / sum(seconds.values()), **{f"{phase}, s": s for phase, s in seconds.items()}}


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


def engines() -> dict:
    """The engines that are here, and how each trains: the built-in PPO, and trlX where it is installed."""
    found = {"built-in": train}
    if trlx_install.installed():
        from helpers import trlx_bridge

        found["trlX"] = trlx_bridge.train
    return found


def outcome(history) -> dict:
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
    names = run_tagged(NOTEBOOKS / "06_train.ipynb", "config", here=here, AutoConfig=AutoConfig, trlx=engine)
    return names["config"]


def main(seed_count: int = 0) -> None:
    table = seeds(seed_count) if seed_count else speed()
    print(table.round(2).to_string())
