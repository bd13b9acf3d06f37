"""The call that starts a run of the real trlX. To import this file is to import trlX: helpers/engine.py does so once trlX is chosen."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from helpers.errors import CourseError
from helpers.ppo.config import TRLConfig, as_config, check, refuse_what_trlx_lacks
from helpers.ppo.ending import check_stop_sequences
from helpers.ppo.parallel import processes
from helpers.ppo.run import refuse_other_methods
from helpers.real_trlx import ilql
from helpers.real_trlx.patches import import_trlx
from helpers.real_trlx.trainer import CourseTrainer

trlx = import_trlx()

from trlx.data.configs import TRLConfig as TrlxConfig  # noqa: E402


def train(
    model_path: str | None = None,
    reward_fn: Callable | None = None,
    dataset: tuple | None = None,
    samples: list | None = None,
    rewards: list[float] | None = None,
    prompts: list | None = None,
    eval_prompts: list | None = None,
    metric_fn: Callable | None = None,
    config: TRLConfig | TrlxConfig | None = None,
    stop_sequences: Sequence[str] | None = None,
    minutes: float | None = None,
    listeners: Sequence = (),
) -> CourseTrainer | ilql.ILQLTrainer:
    """`trlx.train`, the real one; arguments, result and errors are those of `helpers.ppo.train.train`, or with samples of `ilql.train`.

    Args:
        config: ours or trlX's own `TRLConfig`; it stays as it was.
    Returns:
        The trainer: generate, evaluate, save_pretrained, model, tokenizer, history.
    Raises:
        CourseError: something is wrong with the input, before any training; or the memory runs out.
    """
    if samples is not None and rewards is not None:
        refuse_what_ilql_ignores(
            model_path=model_path, reward_fn=reward_fn, dataset=dataset, prompts=prompts, minutes=minutes
        )
        return ilql.train(samples, rewards, eval_prompts, metric_fn, config, stop_sequences, listeners)
    refuse_other_methods(reward_fn, dataset, samples, rewards)
    config = as_config(config).evolve()
    if model_path is not None:
        config = config.evolve(model=dict(model_path=model_path))
    refuse_what_trlx_lacks(config)
    if config.train.tracker:
        warnings.warn(
            f"train.tracker={config.train.tracker!r} is ignored with trlX: the numbers are in trainer.history",
            stacklevel=2,
        )
    check(config)
    processes.check_launch()
    settings = settings_for_trlx(config)
    settings["train"]["trainer_kwargs"] = dict(
        prompts=prompts,
        eval_prompts=eval_prompts,
        listeners=listeners,
        minutes=minutes,
        max_grad_norm=config.train.max_grad_norm,
    )
    # the prompts go to our trainer alone: trlX's pipeline would take "prompt" out of the reader's own dictionaries
    return trlx.train(
        prompts=["-"],
        reward_fn=reward_fn,
        metric_fn=metric_fn,
        config=TrlxConfig.from_dict(settings),
        stop_sequences=check_stop_sequences(stop_sequences),
    )


def refuse_what_ilql_ignores(**arguments: Any) -> None:
    """Refuse arguments of `train` that mean nothing where samples and rewards are given.

    Raises:
        CourseError: one is given; it names the argument.
    """
    for name, value in arguments.items():
        if value is not None:
            raise CourseError(
                f"{name} is given beside samples and rewards, from which ILQL learns: leave it out. (metric_fn scores the evaluations, "
                "config.model.model_path says which model learns.)"
            )


def settings_for_trlx(config: TRLConfig) -> dict:
    """The configuration as trlX takes it: with our trainer, without a login, and without the field that trlX has not.

    Until, for the login: trlX's default for `train.tracker` asks for none.
    """
    settings = config.to_dict()
    settings["train"].pop("max_grad_norm", None)
    settings["train"] |= dict(trainer="CourseTrainer", tracker=None)
    return settings
