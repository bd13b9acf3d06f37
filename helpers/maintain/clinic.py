"""The clinic's runs: notebook 06's, shorter, each with one thing wrong, and the same after the change. `python -m helpers record`
makes them, and writes what notebook 08 says of each."""

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from zlib import crc32

from transformers import PreTrainedModel

from helpers import reviews
from helpers.course import Course
from helpers.feedback.reward_model import training_data
from helpers.maintain import details
from helpers.maintain.bench.seeds import notebook_config
from helpers.maintain.stored_outputs import run_tagged
from helpers.notebooks import NOTEBOOKS
from helpers.ppo.run import Run
from helpers.ppo.train import train
from helpers.rewards import load_reward

STEPS = 96


@dataclass(frozen=True)
class Case:
    """A run, with one thing wrong or with nothing.

    changes: what `TRLConfig.evolve` is given.
    faster: the learning rate as a multiple of notebook 06's.
    reward: from the judge's P(POSITIVE) and the sample to the reward.
    prompts: how many of the training prompts it has; all where None.
    detail: what the plain engine lacks, by its name in details.py.
    ratings: where not None, the run is notebook 09's instead, on a reward model of so many ratings.
    look: words of the verdict that name what is wrong; empty where nothing is.
    what, sure: what the sickness is, and how to be sure of it.
    cure, after: what was changed then, and the run in which it was.
    tell: the column of notebook 08's curves that shows it best.
    """

    changes: dict = field(default_factory=dict)
    faster: float = 1.0
    reward: Callable[[float, str], float] = lambda positive, sample: positive
    prompts: int | None = None
    detail: str = ""
    ratings: int | None = None
    look: str = ""
    what: str = ""
    sure: str = ""
    cure: str = ""
    after: str = "healthy"
    tell: str = ""


def method(**settings) -> dict:
    """A change to the method's settings."""
    return dict(method=settings)


def tokens(count: int) -> dict:
    """The change to responses of at most that many tokens."""
    return method(gen_kwargs=dict(max_new_tokens=count))


def words(sample: str) -> int:
    """How many words a sample has."""
    return len(sample.split())


HEALTHY = {
    "healthy": Case(),
    "healthy, 48 tokens": Case(tokens(48)),
    "scaled by its spread": Case(
        method(cliprange_reward=None, scale_reward="running"), reward=lambda positive, sample: 100 * positive
    ),
    "near 12 words": Case(reward=lambda positive, sample: -abs(words(sample) - 12) / 10),
    "length up to 15 words": Case(
        tokens(48), reward=lambda positive, sample: positive + min(words(sample), 15) / 10
    ),
    "free up to 25 words": Case(
        tokens(48), reward=lambda positive, sample: positive - max(words(sample) - 25, 0) / 10
    ),
}
"""Runs with nothing wrong: those in which a sickness was cured."""

CASES = {
    "dropout is on": Case(
        detail="dropout is off",
        look="disagree about the same tokens",
        what="Dropout stays on while samples are drawn and scored, so the same token gets another probability each time.",
        sure="Score one batch twice, without a step in between: the ratio should be 1, and the KL to the reference 0.",
        cure="switch dropout off",
        tell="first ratio",
    ),
    "sampled from the top 5": Case(
        method(gen_kwargs=dict(top_k=5)),
        look="do not come from the policy",
        what="Samples come from the five likeliest tokens, and are scored as if they came from all.",
        sure="The mean of log pi plus entropy over the samples should be 0; the policy's own samples are no likelier than it says.",
        cure="set top_k to 0",
        tell="log pi + entropy",
    ),
    "sampled colder than scored": Case(
        detail="sampling and scoring at one temperature",
        look="do not come from the policy",
        what="Samples are drawn at temperature 0.7 and scored at 1.",
        sure="The mean of log pi plus entropy over the samples should be 0. Then look which temperature each of the two has.",
        cure="use one temperature",
        tell="log pi + entropy",
    ),
    "no whitening": Case(
        detail="whitening",
        look="not whitened",
        what="The advantages are used as they come, not shifted and scaled to mean 0 and deviation 1.",
        sure="Before a round's first step the policy loss is minus the mean advantage: 0 where they are whitened.",
        cure="whiten the advantages",
        tell="first policy loss",
    ),
    "padding in the means": Case(
        tokens(48),
        detail="whitening leaves padding out",
        look="not whitened",
        what="The zeros on padding count in the mean and deviation by which advantages are whitened.",
        sure="The policy loss before a round's first step is not 0, except by chance.",
        cure="leave padding out of the means",
        after="healthy, 48 tokens",
        tell="first policy loss",
    ),
    "constant reward": Case(
        reward=lambda positive, sample: 1.0,
        look="every sample has the same reward",
        what="The reward function gives every text the same number.",
        sure="Call the function on one good and one bad text.",
        cure="make the reward depend on the text",
        tell="commonest reward",
    ),
    "rare reward": Case(
        reward=lambda positive, sample: float(words(sample) == 12),
        look="tells hardly any of them apart",
        what="Only a text of exactly 12 words earns anything, and such texts hardly ever come up.",
        sure="Score 200 samples before training: how many get the highest reward, and how many all the same?",
        cure="reward a part of the way",
        after="near 12 words",
        tell="commonest reward",
    ),
    "reward beyond the clip": Case(
        reward=lambda positive, sample: 100 * positive,
        look="cliprange_reward",
        what="The reward goes to 100, and cliprange_reward cuts it at 10, so all texts from a score of 0.1 up count as equal.",
        sure="Compare the rewards that your function returns with cliprange_reward.",
        cure="divide the reward by 100",
        tell="rewards cut",
    ),
    "reward too large for beta": Case(
        method(cliprange_reward=None),
        reward=lambda positive, sample: 100 * positive,
        look="the penalty has no say",
        what="The reward goes to 100 and nothing cuts it. The KL penalty is nothing beside it; and the value loss, which grows with the "
        "square of the reward, bends the blocks that it shares with the policy.",
        sure="Compare beta times 10 nats with the spread of the rewards, and the value loss with the policy loss.",
        cure="divide rewards by their spread",
        after="scaled by its spread",
        tell="KL",
    ),
    "steps too large": Case(
        faster=30,
        look="steps are too large",
        what="The learning rate is 30 times as high: the first round already destroys the model.",
        sure="Look at clip fraction and KL within a round. Run the first rounds again at a tenth of the rate.",
        cure="lower the learning rate",
        tell="clip fraction",
    ),
    "steps too small": Case(
        faster=1 / 1000,
        look="steps are too small",
        what="The learning rate is a thousandth: the policy stays where it was.",
        sure="The KL stays at 0 although the rewards differ. With equal rewards it might stay there too.",
        cure="raise the learning rate",
        tell="KL",
    ),
    "value head does not learn": Case(
        method(vf_coef=0.0),
        look="the value head forecasts worse than a constant",
        what="vf_coef is 0, so nothing trains the head that forecasts rewards.",
        sure="Explained variance stays below 0 after many rounds. Near 0 is common, and no sickness.",
        cure="set vf_coef to 1",
        tell="explained variance",
    ),
    "beta is 0": Case(
        method(init_kl_coef=0.0),
        look="beta is 0",
        what="Nothing holds the policy to the language that it started from.",
        sure="Look up init_kl_coef. The KL goes on growing after the reward has levelled off.",
        cure="set init_kl_coef to 0.02",
        tell="KL",
    ),
    "one word is rewarded": Case(
        reward=lambda positive, sample: float(sample.count("best")),
        look="repeats itself",
        what="The reward counts the word \"best\", and the policy has learned to say it.",
        sure="Print samples: what do they all share? Then score a text of that alone.",
        cure="reward the whole text's sense",
        tell="distinct pairs",
    ),
    "length is rewarded": Case(
        tokens(48),
        reward=lambda positive, sample: positive + words(sample) / 10,
        look="responses grew",
        what="Each word earns a tenth beside the judge's score, so the policy never stops.",
        sure="Plot reward against length. Score one text and the same text twice over.",
        cure="cap what length earns",
        after="length up to 15 words",
        tell="length",
    ),
    "silence is rewarded": Case(
        tokens(48),
        reward=lambda positive, sample: positive - words(sample) / 10,
        look="responses shrank",
        what="Each word costs a tenth. A text of 20 words costs 2, and praise earns at most 1, so the policy says one short praise.",
        sure="Plot reward against length. Score the prompt alone.",
        cure="let the first 25 words be free",
        after="free up to 25 words",
        tell="length",
    ),
    "judge of ten ratings": Case(
        ratings=10,
        look="the reward is being gamed",
        what="The reward model was fitted to ten comparisons. What it likes is chance, and the policy finds it.",
        sure="Have people, or another judge, rate new samples. Its own reward cannot say.",
        cure="collect more ratings",
        after="notebook 09",
        tell="a second judge",
    ),
    "two prompts": Case(
        prompts=2,
        look="2 different prompts",
        what="The run practises on two prompts, over and over.",
        sure="Count the different prompts. Compare the rewards of training with those on held-out prompts.",
        cure="give it hundreds of prompts",
        tell="different prompts",
    ),
    "texts cut short": Case(
        tokens(4),
        look="end at max_new_tokens",
        what="max_new_tokens is 4, so the judge reads beginnings only.",
        sure="Print samples: do they stop in the middle of a sentence?",
        cure="raise max_new_tokens",
        tell="ends at the limit",
    ),
}  # fmt: skip
"""The gallery: what was done to each run, what the verdict's first line says of it, and the rest of its card."""

NOTHING = Case(reward=lambda positive, sample: crc32(sample.encode()) / 2**32)
"""A reward that has nothing to do with the text."""


def run(here: Course, name: str, seed: int = 2, steps: int = STEPS) -> Run:
    """The trainer of one of `HEALTHY` or `CASES`, or of "learns nothing", after its run."""
    case = {**HEALTHY, **CASES, "learns nothing": NOTHING}[name]
    if case.ratings is not None:
        return feedback_run(case.ratings, seed)
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


@cache
def feedback() -> dict:
    """What notebook 09 defines up to its run."""
    return run_tagged(NOTEBOOKS / "09_human_feedback.ipynb", "recipe")


@cache
def reward_model(ratings: int | None, seed: int) -> PreTrainedModel:
    """One fitted to `ratings` of notebook 09's ratings, drawn by `seed`, or to all of them where None."""
    names = feedback()
    data = training_data(names["rated"]["train"])
    return names["fit"](data if ratings is None else random.Random(seed).sample(data, ratings), seed=seed)


def feedback_run(ratings: int | None, seed: int) -> Run:
    """The trainer of notebook 09's run after it, on a reward model of `ratings` ratings, drawn by `seed`, or of all where None."""
    names = feedback()
    model = reward_model(ratings, seed if ratings is not None else 0)
    given = {name: names[name] for name in ("prompts", "eval_prompts", "metric_fn")}
    with tempfile.TemporaryDirectory() as folder:
        config = names["config"].evolve(train=dict(seed=seed, checkpoint_dir=folder))
        return train(reward_fn=names["normalised"](model), config=config, **given)
