"""Notebook 07's table of details: the plain PPO with one detail switched off at a time. `python -m helpers record` runs them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn

from helpers.errors import CourseError
from helpers.ppo import loss, policy
from helpers.ppo.config import TRLConfig
from helpers.ppo.rollout import Sampler
from helpers.ppo.train import train
from helpers.ppo.trainer import PPOTrainer

Change = Callable[[PPOTrainer], None]


def nothing(trainer: PPOTrainer) -> None:
    """Leaves everything as it should be."""


def no_whitening(values: Tensor, mask: Tensor) -> Tensor:
    """Advantages as they are."""
    return values * mask


def whiten_padding_too(values: Tensor, mask: Tensor) -> Tensor:
    """Whitening over padding as well, which is 0: trlX's way."""
    return (values - values.mean()) / (values.var() + 1e-8).sqrt() * mask


def positions_with_padding(attention_mask: Tensor) -> Tensor:
    """Places counted from the beginning of the row, padding included."""
    return torch.arange(attention_mask.shape[1], device=attention_mask.device).expand_as(attention_mask)


def without_end(finish: Callable) -> Callable:
    """`Sampler.finish`, but the end-of-text token of a response no longer counts as one of its tokens."""

    def finish_without_end(sampler: Sampler, response: Tensor) -> tuple:
        ids, mask, outputs = finish(sampler, response)
        ends = (ids == sampler.tokenizer.eos_token_id) & (mask.sum(1, keepdim=True) > 1)
        return ids, mask.masked_fill(ends, 0.0), outputs

    return finish_without_end


def dropout(trainer: PPOTrainer) -> None:
    """Switches dropout on, in rollouts and updates; the embedded models' own rate is 0."""
    for module in trainer.policy.base_model.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1


def colder(trainer: PPOTrainer) -> None:
    """Samples at temperature 0.7, while log-probabilities stay those of temperature 1."""
    sampler = trainer.sampler
    sampler.gen_kwargs["temperature"] = 0.7
    remember = sampler.remember
    sampler.remember = lambda *given: remember(*given[:-1], 1.0)
    sampler.temperature = 1.0


def value_head_off_by(bias: float) -> Change:
    """Starts the value head with a forecast that is wrong by `bias` everywhere."""

    def shift(trainer: PPOTrainer) -> None:
        with torch.no_grad():
            trainer.policy.v_head[-1].bias.add_(bias)

    return shift


@contextmanager
def switched_off(detail: str) -> Iterator[Change]:
    """A context in which runs lack `detail`. It gives what is still to be done to a trainer before it learns.

    Raises:
        CourseError: there is no such detail.
    """
    patches = {
        "whitening": patch.object(loss, "masked_whiten", no_whitening),
        "whitening leaves padding out": patch.object(loss, "masked_whiten", whiten_padding_too),
        "positions leave padding out": patch.object(policy, "positions", positions_with_padding),
        "the end of text counts": patch.object(Sampler, "finish", without_end(Sampler.finish)),
    }
    changes = {
        "dropout is off": dropout,
        "sampling and scoring at one temperature": colder,
        "value head starts near 0": value_head_off_by(5.0),
    }
    if detail in patches:
        with patches[detail]:
            yield nothing
    elif detail == "nothing" or detail in changes:
        yield changes.get(detail, nothing)
    else:
        raise CourseError(f"there is no detail {detail!r}; there are {', '.join(DETAILS)}")


DETAILS = [
    "nothing",
    "whitening",
    "whitening leaves padding out",
    "dropout is off",
    "positions leave padding out",
    "sampling and scoring at one temperature",
    "value head starts near 0",
    "the end of text counts",
]


class Changed(PPOTrainer):
    """A plain run to which `change` is done before it learns."""

    change: Change = staticmethod(nothing)

    def learn(self) -> None:
        self.change(self)
        super().learn()


def run(detail: str, config: TRLConfig, **given) -> PPOTrainer:
    """One run of the plain PPO without `detail`; `given` is what `train` takes."""
    with switched_off(detail) as change, tempfile.TemporaryDirectory() as folder:
        trainer_class = type("Changed", (Changed,), {"change": staticmethod(change)})
        config = config.evolve(train=dict(checkpoint_dir=folder, save_best=False))
        return train(config=config, trainer_class=trainer_class, **given)
