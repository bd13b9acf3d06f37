"""The call that starts a run."""

from accelerate.utils import set_seed

from helpers.ppo.config import TRLConfig, default_ppo_config
from helpers.ppo.fast.trainer import FastPPOTrainer
from helpers.ppo.run import refuse_other_methods
from helpers.ppo.trainer import PPOTrainer


def train(
    model_path: str | None = None,
    reward_fn=None,
    dataset=None,
    samples=None,
    rewards=None,
    prompts: list | None = None,
    eval_prompts: list | None = None,
    metric_fn=None,
    config: TRLConfig | None = None,
    stop_sequences: list[str] | None = None,
    minutes: float | None = None,
    listeners=(),
    trainer_class=FastPPOTrainer,
) -> PPOTrainer:
    """trlX's `train` for PPO: improve a causal model so that `reward_fn` likes what it writes.

    Args:
        model_path: folder or hub id; overrides `config.model.model_path`.
        reward_fn: `reward_fn(samples, ...) -> list[float]`; see helpers/rewards.py for the contract.
        prompts: texts, or dictionaries with "prompt" and extra keys, which reach `reward_fn`.
        eval_prompts: held-out prompts, scored before, during and after; the first prompts if left out.
        metric_fn: `metric_fn(samples, ...) -> dict[str, list[float]]`, reported with each evaluation.
        stop_sequences: a continuation ends where one of these begins.
        minutes: end the run in time, after a whole round, with a checkpoint to go on from; the first round is always run
            and a last evaluation belongs to the time. Not in trlX.
        listeners: objects with start(trainer), progress(trainer) and end(trainer); not in trlX.
        trainer_class: `PPOTrainer` computes the same in the plain way; not in trlX.
    Returns:
        The trainer: generate, evaluate, save_pretrained, model, tokenizer, history.
    Raises:
        CourseError: whatever is wrong with the input, before any training.
    """
    refuse_other_methods(reward_fn, dataset, samples, rewards)
    config = config or default_ppo_config()
    if model_path:
        config = config.evolve(model=dict(model_path=model_path))
    set_seed(config.train.seed)
    trainer = trainer_class(
        config, reward_fn, prompts, eval_prompts, metric_fn, stop_sequences, listeners, minutes
    )
    trainer.learn()
    return trainer
