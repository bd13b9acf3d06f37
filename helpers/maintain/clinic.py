"""The clinic's runs: notebook 06's, shorter, each with one thing wrong. `python -m helpers record` makes them."""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from unittest.mock import patch

from helpers import reviews
from helpers.course import Course
from helpers.maintain import details
from helpers.maintain.bench.seeds import notebook_config
from helpers.ppo import run as surroundings
from helpers.ppo.run import Run
from helpers.ppo.train import train
from helpers.ppo.trainer import PPOTrainer
from helpers.rewards import load_reward

STEPS = 96


@dataclass(frozen=True)
class Case:
    """A run with one thing wrong.

    sickness: what is wrong, by its name in `helpers.verdict`.
    changes: what `TRLConfig.evolve` is given; `optimizer` has the factor of the learning rate.
    reward: from the judge's P(POSITIVE) and the sample to the reward.
    prompts: how many of the training prompts it has.
    detail: what the plain engine lacks, by its name in details.py.
    """

    sickness: str
    changes: dict = field(default_factory=dict)
    faster: float = 1.0
    reward: Callable[[float, str], float] = lambda positive, sample: positive
    prompts: int | None = None
    detail: str = ""


LONG = dict(method=dict(gen_kwargs=dict(max_new_tokens=48)))
CASES = {
    "healthy": Case(""),
    "healthy, long": Case("", LONG),
    "beta 0": Case("no price", dict(method=dict(init_kl_coef=0.0))),
    "keyword": Case("repeats", reward=lambda positive, sample: float(sample.count("best"))),
    "learning rate too high": Case("steps too large", faster=30),
    "learning rate too low": Case("steps too small", faster=1 / 1000),
    "no whitening": Case("not whitened", detail="whitening"),
    "padding in the means": Case("not whitened", LONG, detail="whitening leaves padding out"),
    "top_k": Case("other samples", dict(method=dict(gen_kwargs=dict(top_k=5)))),
    "temperature": Case("other samples", detail="sampling and scoring at one temperature"),
    "reward times 100": Case(
        "scale", dict(method=dict(cliprange_reward=0)), reward=lambda positive, sample: 100 * positive
    ),
    "constant reward": Case("same reward", reward=lambda positive, sample: 1.0),
    "reward at the clip": Case("cut rewards", reward=lambda positive, sample: 100 * positive),
    "judge likes length": Case("longer", LONG, reward=lambda positive, sample: len(sample.split()) / 10),
    "judge likes silence": Case("shorter", LONG, reward=lambda positive, sample: -len(sample.split()) / 10),
    "rare reward": Case("rare reward", reward=lambda positive, sample: float("masterpiece of" in sample)),
    "dropout": Case("other numbers", detail="dropout is off"),
    "positions": Case("other numbers", detail="positions leave padding out"),
    "two prompts": Case("few prompts", prompts=2),
    "too short": Case("cut short", dict(method=dict(gen_kwargs=dict(max_new_tokens=4)))),
}


def run(here: Course, name: str, seed: int = 2) -> Run:
    """The trainer of one of `CASES`, after its run."""
    case = CASES[name]
    judge = load_reward(here.reward_model, here.device)
    prompts, held_out = reviews.make_prompts(here)

    def reward_fn(samples: list[str], **kwargs) -> list[float]:
        return [case.reward(*each) for each in zip(judge(samples), samples, strict=True)]

    config = notebook_config(here).evolve(**case.changes)
    lr = config.optimizer.kwargs["lr"] * case.faster
    config = config.evolve(
        optimizer=dict(kwargs=dict(lr=lr)),
        scheduler=dict(kwargs=dict(eta_min=lr)),
        train=dict(total_steps=here.steps(STEPS), eval_interval=here.steps(STEPS // 2), seed=seed),
    )
    given = dict(reward_fn=reward_fn, prompts=prompts[: case.prompts], eval_prompts=held_out)
    if case.detail:
        return details.run(case.detail, config, **given)
    with tempfile.TemporaryDirectory() as folder:
        return train(config=config.evolve(train=dict(checkpoint_dir=folder, save_best=False)), **given)
