"""From a configuration to the parts of a run: tokenizer, policy, optimizer, scheduler."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase

from helpers import weights
from helpers.errors import CourseError
from helpers.ppo.config import TRLConfig
from helpers.ppo.fields import OptimizerConfig, SchedulerConfig, nearest
from helpers.ppo.identity import digest_of_weights
from helpers.ppo.lora import lora_policy
from helpers.ppo.policy import Policy

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
SCHEDULERS = {
    "cosine_annealing": torch.optim.lr_scheduler.CosineAnnealingLR,
    "linear": torch.optim.lr_scheduler.LinearLR,
}


def load_tokenizer(config: TRLConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, which pads on the left: a continuation must follow the last token of its prompt.

    Raises:
        CourseError: the tokenizer cannot be loaded without running code that comes with it.
    """
    tokenizer = weights.load_tokenizer(
        config.tokenizer.tokenizer_path, "tokenizer.tokenizer_path", config.tokenizer.tokenizer_extra_configs
    )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        # GPT-2 has no padding token; masks tell padding from a real EOS
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(config: TRLConfig) -> Policy:
    """The policy in float32, whatever the file's precision, because small updates in float16 would round to nothing.

    Raises:
        CourseError: the model cannot be loaded whole and without running code that comes with it.
    """
    model = weights.load_model(
        AutoModelForCausalLM, config.model.model_path, "model.model_path", config.model.model_extra_configs
    )
    if config.model.peft_config:
        policy = lora_policy(model, config.model.peft_config)
    else:
        policy = Policy(model, config.model.num_layers_unfrozen)
    # a file's own defaults would rule `generate` alone: the run's settings say it all
    policy.base_model.generation_config = plain_generation(policy.reference.generation_config)
    policy.digest = digest_of_weights(policy.reference)
    return policy


def plain_generation(found: GenerationConfig) -> GenerationConfig:
    """Settings of sampling that change nothing, with the special tokens of those that came with a model."""
    return GenerationConfig(
        bos_token_id=found.bos_token_id, eos_token_id=found.eos_token_id, pad_token_id=found.pad_token_id
    )


def context_limit(config: TRLConfig, policy: Policy) -> int:
    """How many prompt tokens fit beside `max_new_tokens`, in `seq_length` and in the model's positions.

    Raises:
        CourseError: not one fits.
    """
    settings = [config.method.gen_kwargs, config.method.gen_experience_kwargs or {}]
    new_tokens = max(kwargs.get("max_new_tokens", 0) for kwargs in settings)
    context = min(config.train.seq_length, policy.base_model.config.max_position_embeddings)
    if new_tokens >= context:
        raise CourseError(
            f"max_new_tokens ({new_tokens}) leaves no room for a prompt: the context is {context} tokens, "
            "the smaller of train.seq_length and the model's positions"
        )
    return context - new_tokens


def make_optimizer(config: TRLConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that `config` names, for these parameters. Errors are those of `make`."""
    return make(OPTIMIZERS, "optimizer", config.optimizer, list(parameters))


def make_scheduler(config: TRLConfig, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule of the learning rate that `config` names. Errors are those of `make`."""
    return make(SCHEDULERS, "scheduler", config.scheduler, optimizer)


def make(kinds: dict[str, type], what: str, section: OptimizerConfig | SchedulerConfig, first: Any) -> Any:
    """The optimizer or scheduler that `section` names, called with `first` and the section's `kwargs`.

    Raises:
        CourseError: the name is not one of `kinds`, or torch refuses the arguments.
    """
    if section.name not in kinds:
        raise CourseError(f"{what}.name is {section.name!r}.{nearest(section.name, kinds)}")
    try:
        return kinds[section.name](first, **section.kwargs)
    except (TypeError, ValueError) as error:
        raise CourseError(f"{what}.kwargs do not fit {section.name}: {error}") from None
