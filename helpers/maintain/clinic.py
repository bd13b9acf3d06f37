"""The clinic's runs: notebook 06's, shorter, each with one thing wrong. `python -m helpers record` makes them."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

from helpers import reviews
from helpers.course import Course
from helpers.maintain import details
from helpers.maintain.bench.seeds import notebook_config
from helpers.ppo.run import Run
from helpers.ppo.train import train
from helpers.rewards import load_reward

STEPS = 96


@dataclass(frozen=True)
class Case:
    """A run with one thing wrong.

    look: words of the verdict that name it; empty where nothing is wrong.
    changes: what `TRLConfig.evolve` is given.
    faster: the learning rate as a multiple of notebook 06's.
    reward: from the judge's P(POSITIVE) and the sample to the reward.
    prompts: how many of the training prompts it has; all where None.
    detail: what the plain engine lacks, by its name in details.py.
    """

    look: str
    changes: dict = field(default_factory=dict)
    faster: float = 1.0
    reward: Callable[[float, str], float] = lambda positive, sample: positive
    prompts: int | None = None
    detail: str = ""


def tokens(count: int) -> dict:
    """The change to responses of at most that many tokens."""
    return dict(method=dict(gen_kwargs=dict(max_new_tokens=count)))


CASES = {
    "healthy": Case(""),
    "healthy, 48 tokens": Case("", tokens(48)),
    "beta 0": Case("beta is 0", dict(method=dict(init_kl_coef=0.0))),
    "a word is rewarded": Case("repeats itself", reward=lambda positive, sample: float(sample.count("best"))),
    "steps 30 times as large": Case("steps are too large", faster=30),
    "steps a thousandth as large": Case("steps are too small", faster=1 / 1000),
    "no whitening": Case("not whitened", detail="whitening"),
    "padding in the means": Case("not whitened", tokens(48), detail="whitening leaves padding out"),
    "top_k 5": Case("do not come from the policy", dict(method=dict(gen_kwargs=dict(top_k=5)))),
    "sampled at 0.7, scored at 1": Case(
        "do not come from the policy", detail="sampling and scoring at one temperature"
    ),
    "reward times 100": Case(
        "the penalty has no say",
        dict(method=dict(cliprange_reward=None)),
        reward=lambda positive, sample: 100 * positive,
    ),
    "constant reward": Case("every sample has the same reward", reward=lambda positive, sample: 1.0),
    "reward at the clip": Case("cliprange_reward", reward=lambda positive, sample: 100 * positive),
    "rare reward": Case(
        "tells hardly any of them apart",
        reward=lambda positive, sample: float(crc32(sample.encode()) % 200 == 0),
    ),
    "length is rewarded": Case(
        "length pays", tokens(48), reward=lambda positive, sample: len(sample.split()) / 10
    ),
    "silence is rewarded": Case(
        "silence pays", tokens(48), reward=lambda positive, sample: -len(sample.split()) / 10
    ),
    "dropout": Case("disagree about the same tokens", detail="dropout is off"),
    "two prompts": Case("2 different prompts", prompts=2),
    "4 tokens": Case("end at max_new_tokens", tokens(4)),
}
"""The gallery: what was done to each run, and what the verdict's first line says of it."""
NOTHING = Case("no more than chance", reward=lambda positive, sample: crc32(sample.encode()) / 2**32)
"""A reward that has nothing to do with the text."""


def run(here: Course, name: str, seed: int, steps: int = STEPS) -> Run:
    """The trainer of one of `CASES`, or of "learns nothing", after its run."""
    case = {**CASES, "learns nothing": NOTHING}[name]
    judge = load_reward(here.reward_model, here.device)
    prompts, held_out = reviews.make_prompts(here)

    def reward_fn(samples: list[str], **kwargs) -> list[float]:
        return [case.reward(*each) for each in zip(judge(samples), samples, strict=True)]

    config = notebook_config(here).evolve(**case.changes)
    lr = config.optimizer.kwargs["lr"] * case.faster
    config = config.evolve(
        optimizer=dict(kwargs=dict(lr=lr)),
        scheduler=dict(kwargs=dict(eta_min=lr)),
        train=dict(total_steps=here.steps(steps), eval_interval=here.steps(steps // 2), seed=seed),
    )
    given = dict(reward_fn=reward_fn, prompts=prompts[: case.prompts], eval_prompts=held_out)
    if case.detail:
        return details.run(case.detail, config, **given)
    with tempfile.TemporaryDirectory() as folder:
        return train(config=config.evolve(train=dict(checkpoint_dir=folder, save_best=False)), **given)
