"""LoRA: small matrices learn beside frozen ones, and are added into them when the model is saved."""

import warnings
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from helpers.errors import CourseError
from helpers.ppo.policy import Policy, make_value_head


def add_lora(model: PreTrainedModel, peft_config: Any) -> None:
    """Add LoRA's trainable matrices to a frozen model. At first they change nothing.

    Hu et al. 2021 (arxiv.org/abs/2106.09685), sec. 4.1. `peft_config` is a dictionary as peft takes it.

    Raises:
        CourseError: peft is not installed, or it refuses the configuration.
    """
    try:
        from peft import get_peft_config
    except ImportError as error:
        raise CourseError("model.peft_config needs peft: python -m pip install peft") from error
    if not isinstance(peft_config, dict) or str(peft_config.get("peft_type")).upper() != "LORA":
        raise CourseError(
            f"model.peft_config is {peft_config!r}: expected LoRA as a dictionary, such as "
            'dict(peft_type="LORA", r=8, lora_alpha=16)'
        )
    try:
        with warnings.catch_warnings():
            # peft finds out by itself which way round GPT-2 stores its weights
            warnings.simplefilter("ignore")
            model.add_adapter(get_peft_config(peft_config))
    except (TypeError, ValueError) as error:
        raise CourseError(f"model.peft_config: {error}") from error
    model.eval()


def lora_policy(model: PreTrainedModel, peft_config: Any) -> Policy:
    """A policy whose LoRA matrices and value head learn; the reference has no such matrices.

    LoRA draws its random numbers before the value head does, so that a seed means the same run as it always has.

    Raises:
        CourseError: as `add_lora`.
    """
    drawn = torch.get_rng_state()
    policy = Policy(model, num_layers_unfrozen=0)
    torch.set_rng_state(drawn)
    add_lora(model, peft_config)
    policy.v_head = make_value_head(model.config.hidden_size)
    return policy


@torch.no_grad()
def plain_weights(policy: Policy) -> dict[str, Tensor]:
    """The policy's weights in float32, with LoRA's share added in, under the names that the loaded model had."""
    own = {
        name.replace(".base_layer.", "."): p
        for name, p in policy.base_model.named_parameters(remove_duplicate=False)
    }
    # not the policy's own state_dict, which would take sharded blocks apart
    names = policy.reference.state_dict()
    weights = {name: own.get(name, tensor).float() for name, tensor in names.items()}
    for name, module in policy.base_model.named_modules():
        if hasattr(module, "get_delta_weight"):
            key = f"{name}.weight"
            weights[key] = weights[key] + module.get_delta_weight(module.active_adapters[0]).float()
    return weights
