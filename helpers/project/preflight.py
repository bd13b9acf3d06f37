"""Before a run: one round on trial, and what it says of prompts, rewards, memory, time, and what will probably go wrong."""

import math
import tempfile
import warnings
from collections import Counter
from itertools import cycle, islice
from typing import NamedTuple

import pandas as pd
import psutil
import torch

from helpers.ppo.config import TRLConfig
from helpers.ppo.parallel import processes
from helpers.ppo.parallel.memory import peak_bytes
from helpers.ppo.policy import most_tokens
from helpers.ppo.prompts import Prompts, entry_of
from helpers.ppo.run import Run, planned_steps
from helpers.ppo.train import train
from helpers.rewards import RewardFn
from helpers.verdict import Sign, causes

TRIED = 64  # samples of the trial round, and held-out prompts of its evaluation: standard error 0.06 of a share of one half
GB = 10**9


class Preflight(NamedTuple):
    """What was found: `table`, with the columns "what" and "found", and `signs`, what will probably go wrong."""

    table: pd.DataFrame
    signs: list[Sign]

    def __str__(self) -> str:
        width = max(map(len, self.table["what"]))
        lines = [f"{what:{width}}  {found}" for what, found in self.table.itertuples(index=False)]
        return "\n".join([*lines, *map(str, self.signs)])


def preflight(reward_fn: RewardFn, prompts: Prompts, eval_prompts: Prompts, config: TRLConfig) -> Preflight:
    """Make one round of `TRIED` samples, or of fewer where the run's have fewer, with the course's own engine, and forget it.

    Memory and time are those of this round, on this machine, scaled to the whole run; its first calls are slower than later ones.
    Of several processes all call this and share the samples; memory is then the calling process's own.

    Args:
        reward_fn, prompts, eval_prompts, config: as for `helpers.engine.train`.
    Raises:
        CourseError: what `train` would refuse.
    """
    first = FirstLook()
    trial = one_round(reward_fn, prompts, eval_prompts, config, first)
    rows = [*of_prompts(trial, prompts, eval_prompts), *of_rewards(first.rewards)]
    rows += [("memory", memory(trial.device)), ("time", in_words(seconds(trial, config, len(eval_prompts))))]
    signs = [*leaks(prompts, eval_prompts), *causes(trial.history), *nothing_to_gain(first.rewards)]
    signs = signs or [Sign(True, "nothing in this round says that the run will go wrong")]
    return Preflight(pd.DataFrame(rows, columns=["what", "found"]), signs)


class FirstLook:
    """Listens to the trial, and keeps the rewards of its held-out samples from before anything was learned."""

    def __init__(self):
        self.rewards: list[float] = []

    def start(self, trainer: Run) -> None:
        """Count the GPU's memory from here."""
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def progress(self, trainer: Run) -> None:
        """Keep the first evaluation's rewards."""
        self.rewards = self.rewards or [row["reward"] for row in trainer.eval_samples]

    def end(self, trainer: Run) -> None:
        """Nothing more to see."""


def one_round(
    reward_fn: RewardFn, prompts: Prompts, eval_prompts: Prompts, config: TRLConfig, first: FirstLook
) -> Run:
    """The trainer after one round of `TRIED` samples; what it wrote is gone."""
    method, group = config.method, getattr(config.method, "group_size", 1)
    share = -(-TRIED // processes.count())  # num_rollouts counts per process
    samples = min(method.num_rollouts, -(-share // group) * group)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rewards that are all the same: the signs say it
        trial = config.evolve(
            method=dict(num_rollouts=samples, chunk_size=min(method.chunk_size, samples)),
            train=dict(
                checkpoint_dir=folder, save_best=False, resume_from_checkpoint=None, epochs=1, tracker=None,
                total_steps=config.train.total_steps, eval_interval=10**6,
            ),
        )  # fmt: skip
        return train(
            reward_fn=reward_fn,
            prompts=prompts,
            eval_prompts=list(islice(cycle(eval_prompts), TRIED)),
            config=trial,
            listeners=[first],
        )


def of_prompts(trial: Run, prompts: Prompts, eval_prompts: Prompts) -> list[tuple[str, str]]:
    """Rows about the prompts: how many, how many twice, how long beside what the model takes."""
    texts, lengths = trial.prompts.texts, [len(ids) for ids in trial.prompts.tokens]
    most = most_tokens(trial.policy.base_model)
    room = "as many as one likes" if math.isinf(most) else f"the {most}"
    new = trial.config.method.gen_kwargs["max_new_tokens"]
    return [
        (
            "prompts",
            f"{len(texts)}, {len(texts) - len(set(texts))} of them repeats; {len(eval_prompts)} more held out",
        ),
        (
            "length of a prompt",
            f"{sorted(lengths)[len(lengths) // 2]} tokens, the longest {max(lengths)}; with {new} new ones {max(lengths) + new} of "
            f"{room} that the model takes",
        ),
    ]


def of_rewards(rewards: list[float]) -> list[tuple[str, str]]:
    """Rows about the rewards of the held-out samples before training."""
    values = pd.Series(rewards)
    low, high = values.min(), values.max()
    return [
        (
            f"reward of {len(values)} samples",
            f"mean {values.mean():.3g}, standard deviation {values.std(ddof=0):.3g}, on held-out prompts",
        ),
        (
            "lowest and highest",
            f"{low:.3g} ({(values == low).mean():.0%} of the samples) and {high:.3g} ({(values == high).mean():.0%})",
        ),
    ]


def seconds(trial: Run, config: TRLConfig, held_out: int) -> float:
    """How long the run will take, from the phases of the trial's round and from its evaluation."""
    row = trial.history.rounds[0]
    a_sample = sum(value for name, value in row.items() if name.startswith("seconds_")) / row["samples"]
    steps = planned_steps(config)
    a_round = config.method.ppo_epochs * -(-config.method.num_rollouts // config.train.batch_size)
    evaluations = 2 + (steps - 1) // config.train.eval_interval
    one = trial.evaluation_seconds * held_out / len(trial.eval_prompts)
    samples = config.method.num_rollouts * processes.count()
    return steps / a_round * samples * a_sample + evaluations * one


def memory(device: torch.device) -> str:
    """The most memory that was taken, and what there is."""
    if device.type == "cuda":
        return f"{peak_bytes() / GB:.1f} GB of the GPU's {torch.cuda.get_device_properties(device).total_memory / GB:.0f}"
    program = "this program in all" if processes.count() == 1 else f"each of {processes.count()} processes"
    return f"{peak_bytes() / GB:.1f} GB of {psutil.virtual_memory().total / GB:.0f}, by {program}"


def in_words(duration: float) -> str:
    """Seconds as a person says them."""
    if duration < 100:
        return f"about {duration:.0f} seconds"
    return (
        f"about {duration / 60:.0f} minutes" if duration < 100 * 60 else f"about {duration / 3600:.1f} hours"
    )


def leaks(prompts: Prompts, eval_prompts: Prompts) -> list[Sign]:
    """Whether prompts are held out that are trained on as well."""
    trained, held_out = ({entry_of(prompt)["prompt"] for prompt in each} for each in (prompts, eval_prompts))
    both = len(trained & held_out)
    if not both:
        return []
    what = f"{both} of the held-out prompts are among those to train on: the evaluation says less than it seems to"
    return [Sign(False, what, "Take them out of one of the two", "04 Repeats and leaks")]


def nothing_to_gain(rewards: list[float]) -> list[Sign]:
    """Whether half of the samples have the highest reward before any training."""
    value, count = Counter(rewards).most_common(1)[0]
    if value < max(rewards) or count == len(rewards) or count < len(rewards) / 2:
        return []
    what = (
        f"{count / len(rewards):.0%} of the {len(rewards)} samples on held-out prompts have the highest reward already, {value:.3g}: "
        "little is left to learn"
    )
    return [
        Sign(
            False, what, "Ask for more, or start from prompts that fail more often", "05 Before any training"
        )
    ]
