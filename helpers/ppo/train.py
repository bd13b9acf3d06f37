"""The call that starts a run."""

from collections.abc import Sequence
from typing import Any

from accelerate.utils import set_seed

from helpers.errors import CourseError
from helpers.ppo.config import TRLConfig, as_config
from helpers.ppo.ending import check_stop_sequences
from helpers.ppo.fast.groups import FastGRPO, FastRLOO
from helpers.ppo.fast.trainer import FastPPOTrainer
from helpers.ppo.fields import GRPOConfig, PPOConfig, RLOOConfig
from helpers.ppo.prompts import Prompts
from helpers.ppo.run import Listener, refuse_other_methods
from helpers.ppo.tracker import check_tracker, trackers
from helpers.ppo.trainer import PPOTrainer
from helpers.rewards import MetricFn, RewardFn

TRAINERS = {PPOConfig: FastPPOTrainer, RLOOConfig: FastRLOO, GRPOConfig: FastGRPO}


def train(
    model_path: str | None = None,
    reward_fn: RewardFn | None = None,
    dataset: Any = None,
    samples: Any = None,
    rewards: Any = None,
    prompts: Prompts | None = None,
    eval_prompts: Prompts | None = None,
    metric_fn: MetricFn | None = None,
    config: TRLConfig | None = None,
    stop_sequences: Sequence[str] | None = None,
    minutes: float | None = None,
    listeners: Sequence[Listener] = (),
    trainer_class: type[PPOTrainer] | None = None,
) -> PPOTrainer:
    """trlX's `train` for PPO, RLOO and GRPO: improve a causal model so that `reward_fn` likes what it writes.

    Args:
        model_path: folder or hub id; overrides `config.model.model_path`.
        reward_fn: `reward_fn(samples, ...) -> list[float]`; helpers/rewards.py has the contract. PPO needs one.
        dataset, samples, rewards: trlX's arguments for other methods, which are refused.
        prompts: texts, or dictionaries with "prompt" and extra keys, which reach `reward_fn`; if left out, the token that
            begins a text.
        eval_prompts: held-out prompts, scored before, during and after training; if left out, the first prompts.
        metric_fn: `metric_fn(samples, ...) -> dict[str, list[float]]`; each evaluation reports the means.
        config: see helpers/ppo/fields.py; if left out, `default_ppo_config()`.
        stop_sequences: a continuation ends where one of these begins. A single text is one.
        minutes: the run ends in this time, after a whole round, with a last evaluation and a checkpoint to go on from. The
            first round always runs. Not in trlX.
        listeners: objects that hear of start, progress and end. Not in trlX.
        trainer_class: `PPOTrainer`, `groups.RLOO` and `groups.GRPO` compute the same in the plain way; the fast one of the
            configuration's method if left out. Not in trlX.
    Returns:
        The trainer: generate, evaluate, save_pretrained, model, tokenizer, history.
    Raises:
        CourseError: something is wrong with the input; it comes before any training.
    """
    refuse_other_methods(reward_fn, dataset, samples, rewards)
    config = as_config(config)
    if model_path is not None:
        config = config.evolve(model=dict(model_path=model_path))
    check_tracker(config)
    set_seed(config.train.seed)
    stops = check_stop_sequences(stop_sequences)
    trainer_class = trainer_class or TRAINERS[type(config.method)]
    if trainer_class.method is not type(config.method):
        raise CourseError(
            f"trainer_class is {trainer_class.__name__}, which trains by a {trainer_class.method.__name__}, and method.name is "
            f"{config.method.name!r}: leave trainer_class out, and the method chooses"
        )
    trainer = trainer_class(config, reward_fn, prompts, eval_prompts, metric_fn, stops, listeners, minutes)
    trainer.listeners = [*listeners, *trackers(config)]
    trainer.learn()
    return trainer
