"""From a configuration to the parts of a run: tokenizer, policy, optimizer, scheduler."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase

from helpers import weights
from helpers.errors import CourseError
from helpers.ppo.config import TRLConfig
from helpers.ppo.fields import GroupConfig, OptimizerConfig, SchedulerConfig
from helpers.ppo.identity import digest_of_weights
from helpers.ppo.lora import lora_policy
from helpers.ppo.policy import Policy, most_tokens
from helpers.ppo.sampling import SETTINGS

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
SCHEDULERS = {
    "cosine_annealing": torch.optim.lr_scheduler.CosineAnnealingLR,
    "linear": torch.optim.lr_scheduler.LinearLR,
}


def load_tokenizer(config: TRLConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, which pads on the left: a continuation must follow the last token of its prompt.

    Raises:
        CourseError: the tokenizer cannot be loaded without running code that comes with it, or has no token that ends a text.
    """
    tokenizer = weights.load_tokenizer(
        config.tokenizer.tokenizer_path, "tokenizer.tokenizer_path", config.tokenizer.tokenizer_extra_configs
    )
    if tokenizer.eos_token_id is None:
        raise CourseError(
            f"the tokenizer in tokenizer.tokenizer_path {config.tokenizer.tokenizer_path!r:.200} has no token that ends a text: name "
            "one of its tokens, such as tokenizer_extra_configs=dict(eos_token='</s>')"
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
    if isinstance(config.method, GroupConfig):
        policy.v_head = NoValueHead()
    # a file's own defaults would rule `generate` alone: the run's settings say it all
    policy.base_model.generation_config = plain_generation(policy.reference.generation_config)
    policy.digest = digest_of_weights(policy.reference)
    return policy


class NoValueHead(nn.Module):
    """Stands in for the value head where the method has none: it has no weights, and expects nothing."""

    def forward(self, hidden: Tensor) -> Tensor:
        """0 for each state: (..., hidden) -> (..., 1)."""
        return torch.zeros_like(hidden[..., :1])


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
    context = min(config.train.seq_length, most_tokens(policy.base_model))
    if new_tokens >= context:
        raise CourseError(
            f"max_new_tokens ({new_tokens}) leaves no room for a prompt: the context is {context} tokens, "
            "the smaller of train.seq_length and the model's positions"
        )
    return context - new_tokens


def check_fit(config: TRLConfig, tokenizer: PreTrainedTokenizerBase, policy: Policy) -> None:
    """Check that the model knows every token of the tokenizer and of the settings, and that it samples with these settings.

    Raises:
        CourseError: a token has no row in the model's embeddings, or transformers refuses a setting.
    """
    rows = policy.base_model.get_input_embeddings().weight.shape[0]
    ids = [len(tokenizer) - 1, *tokenizer.added_tokens_decoder]
    if max(ids) >= rows:
        beyond = [token for token, id in tokenizer.get_vocab().items() if id >= rows]
        if tokenizer.pad_token in beyond:
            beyond, instead = (
                [tokenizer.pad_token],
                f" Another padding token will do, such as {tokenizer.eos_token!r}.",
            )
        else:
            instead = " Use the tokenizer that the model was trained with."
        raise CourseError(
            f"the tokenizer has the token {beyond[0]!r:.60} (id {tokenizer.convert_tokens_to_ids(beyond[0])}), and the model knows "
            f"the ids 0 to {rows - 1} alone.{instead}"
        )
    for name in ("gen_kwargs", "gen_experience_kwargs"):
        settings = getattr(config.method, name) or {}
        for key in ("eos_token_id", "pad_token_id", "bos_token_id", "suppress_tokens"):
            ids = settings.get(key, [])
            if max(ids if isinstance(ids, list) else [ids], default=0) >= rows:
                raise CourseError(
                    f"method.{name}.{key} is {ids!r:.60}: expected ids of tokens, which are 0 to {rows - 1}"
                )
        if not set(settings) <= SETTINGS:
            try_settings(settings, f"method.{name}", tokenizer, policy)


def try_settings(settings: dict, where: str, tokenizer: PreTrainedTokenizerBase, policy: Policy) -> None:
    """Let transformers sample from two prompts of one token with these settings, since it says late what it does not take.

    Raises:
        CourseError: it refuses them, or gives something other than one row of ids for each prompt.
    """
    fixed = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True)
    ids = torch.full((2, 1), tokenizer.eos_token_id, device=policy.base_model.device)
    settings = fixed | settings | {"max_new_tokens": 1}
    settings.pop("min_new_tokens", None)
    try:
        with torch.random.fork_rng(), torch.no_grad():
            given = policy.base_model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    except Exception as error:  # of many kinds, according to the setting
        raise CourseError(
            f"{where} does not work with transformers' generate: {weights.first_line(error)} Leave out what it names."
        ) from error
    if not isinstance(given, torch.Tensor) or given.shape[0] != 2:
        raise CourseError(
            f"{where} makes generate return something other than one row of ids for each prompt"
        )


def make_optimizer(config: TRLConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that `config` names, for these parameters. Errors are those of `make`."""
    return make(OPTIMIZERS, "optimizer", config.optimizer, list(parameters))


def make_scheduler(config: TRLConfig, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule of the learning rate that `config` names. Errors are those of `make`."""
    return make(SCHEDULERS, "scheduler", config.scheduler, optimizer)


def make(kinds: dict[str, type], what: str, section: OptimizerConfig | SchedulerConfig, first: Any) -> Any:
    """The optimizer or scheduler that `section` names, called with `first` and the section's `kwargs`.

    Raises:
        CourseError: torch refuses the arguments.
    """
    try:
        return kinds[section.name](first, **section.kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CourseError(f"{what}.kwargs do not fit {section.name}: {error}") from None
