"""From a configuration to the parts of a run: tokenizer, policy, optimizer, scheduler."""

import torch
from transformers import AutoModelForCausalLM

from helpers import weights
from helpers.errors import CourseError
from helpers.ppo.config import TRLConfig, nearest
from helpers.ppo.lora import lora_policy
from helpers.ppo.policy import Policy

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
SCHEDULERS = {
    "cosine_annealing": torch.optim.lr_scheduler.CosineAnnealingLR,
    "linear": torch.optim.lr_scheduler.LinearLR,
}


def load_tokenizer(config: TRLConfig):
    """The tokenizer, padding on the left: a continuation must follow its prompt's last token directly."""
    tokenizer = weights.load_tokenizer(
        config.tokenizer.tokenizer_path, "tokenizer.tokenizer_path", config.tokenizer.tokenizer_extra_configs
    )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = (
            tokenizer.eos_token
        )  # GPT-2 has no padding token; masks tell padding from a real EOS
    return tokenizer


def load_policy(config: TRLConfig) -> Policy:
    """The policy in float32, whatever the file's precision: small float16 updates would round to nothing.

    Raises:
        CourseError: the model cannot be loaded whole and without running code that comes with it.
    """
    model = weights.load_model(
        AutoModelForCausalLM, config.model.model_path, "model.model_path", config.model.model_extra_configs
    )
    if config.model.peft_config:
        return lora_policy(model, config.model.peft_config)
    return Policy(model, config.model.num_layers_unfrozen)


def context_limit(config: TRLConfig, policy: Policy) -> int:
    """How many prompt tokens fit beside `max_new_tokens`, in `seq_length` and in the model's positions."""
    settings = [config.method.gen_kwargs, config.method.gen_experience_kwargs or {}]
    new_tokens = max(kwargs.get("max_new_tokens", 0) for kwargs in settings)
    context = min(config.train.seq_length, policy.base_model.config.max_position_embeddings)
    if new_tokens >= context:
        raise CourseError(
            f"max_new_tokens ({new_tokens}) leaves no room for a prompt: the context is {context} tokens, "
            "the smaller of train.seq_length and the model's positions"
        )
    return context - new_tokens


def make_optimizer(config: TRLConfig, parameters) -> torch.optim.Optimizer:
    return make(OPTIMIZERS, "optimizer", config.optimizer, list(parameters))


def make_scheduler(config: TRLConfig, optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return make(SCHEDULERS, "scheduler", config.scheduler, optimizer)


def make(kinds: dict, what: str, section, first):
    """The optimizer or scheduler that `section` names, its arguments checked by torch."""
    if section.name not in kinds:
        raise CourseError(f"{what}.name is {section.name!r}.{nearest(section.name, kinds)}")
    try:
        return kinds[section.name](first, **section.kwargs)
    except (TypeError, ValueError) as error:
        raise CourseError(f"{what}.kwargs do not fit {section.name}: {error}") from None
