"""Notebook 07's table of details: the plain PPO with one detail switched off at a time. `python -m helpers record` runs them."""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import torch
from torch import Tensor, nn

from helpers.errors import CourseError
from helpers.ppo import loss, policy
from helpers.ppo import run as surroundings
from helpers.ppo.config import TRLConfig
from helpers.ppo.rollout import Sampler
from helpers.ppo.train import train
from helpers.ppo.trainer import PPOTrainer


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

    def finish_without_end(sampler: Sampler, *given) -> tuple:
        ids, mask, outputs = finish(sampler, *given)
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


def five_too_high(trainer: PPOTrainer) -> None:
    """Starts the value head with a forecast that is 5 too high everywhere."""
    with torch.no_grad():
        trainer.policy.v_head[-1].bias.add_(5.0)


def before_learning(change: Callable[[PPOTrainer], None]) -> AbstractContextManager:
    """A context in which `change` is done to every plain trainer before it learns."""
    learn = PPOTrainer.learn

    def changed(trainer: PPOTrainer) -> None:
        change(trainer)
        learn(trainer)

    return patch.object(PPOTrainer, "learn", changed)


# what a run is to lack, and the context in which it does; each may be entered again
DETAILS: dict[str, AbstractContextManager] = {
    "nothing": nullcontext(),
    "whitening": patch.object(loss, "masked_whiten", no_whitening),
    "whitening leaves padding out": patch.object(loss, "masked_whiten", whiten_padding_too),
    "dropout is off": before_learning(dropout),
    "positions leave padding out": patch.object(policy, "positions", positions_with_padding),
    "sampling and scoring at one temperature": before_learning(colder),
    "value head starts near 0": before_learning(five_too_high),
    "the end of text counts": patch.object(Sampler, "finish", without_end(Sampler.finish)),
}


def run(detail: str, config: TRLConfig, **given) -> PPOTrainer:
    """One run of the plain PPO without `detail`; `given` is what `train` takes.

    Raises:
        CourseError: there is no such detail.
    """
    if detail not in DETAILS:
        raise CourseError(f"there is no detail {detail!r}; there are {', '.join(DETAILS)}")
    # a run refuses what is done to it here before its first step
    unchecked = patch.object(surroundings, "refuse_other_logprobs", lambda *given: None)
    with DETAILS[detail], unchecked, tempfile.TemporaryDirectory() as folder:
        config = config.evolve(train=dict(checkpoint_dir=folder, save_best=False))
        return train(config=config, trainer_class=PPOTrainer, **given)
