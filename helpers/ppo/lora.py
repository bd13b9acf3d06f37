"""LoRA: small matrices learn beside frozen ones, and are added into them when the model is saved."""

import sys
import warnings
from importlib.metadata import version
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import PreTrainedModel

from helpers.errors import CourseError
from helpers.files import reason
from helpers.ppo.policy import Policy, hidden_width, make_value_head


def add_lora(model: PreTrainedModel, peft_config: Any) -> None:
    """Add LoRA's trainable matrices to a frozen model. At first they change nothing.

    Hu et al. 2021 (arxiv.org/abs/2106.09685), sec. 4.1. `peft_config` is a dictionary as peft takes it.

    Raises:
        CourseError: peft is not installed or cannot be used, or it refuses the configuration.
    """
    try:
        from peft import get_peft_config, inject_adapter_in_model

        overlook_old_torchao()
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise peft_unusable(error) from error
        raise CourseError("model.peft_config needs peft: python -m helpers install peft") from error
    except Exception as error:  # beside packages that it does not go with, peft raises what it likes
        raise peft_unusable(error) from error
    if not isinstance(peft_config, dict) or str(peft_config.get("peft_type")).upper() != "LORA":
        raise CourseError(
            f"model.peft_config is {peft_config!r}: expected LoRA as a dictionary, such as "
            'dict(peft_type="LORA", r=8, lora_alpha=16)'
        )
    try:
        with warnings.catch_warnings():
            # peft finds out by itself which way round GPT-2 stores its weights
            warnings.simplefilter("ignore")
            # peft's own call: transformers' add_adapter does the same, and refuses a peft older than the newest
            inject_adapter_in_model(get_peft_config(peft_config), model)
    except (TypeError, ValueError) as error:
        raise CourseError(f"model.peft_config: {error}") from error
    except (ImportError, AttributeError, RuntimeError) as error:
        raise peft_unusable(error) from error
    model.eval()


def overlook_old_torchao() -> None:
    """Have peft do without a torchao that is too old for it, which Colab ships, where it would raise an ImportError.

    The course's weights are plain tensors and none of torchao's. peft remembers the answer that it gets here.
    """
    from peft import import_utils

    try:
        import_utils.is_torchao_available()
    except ImportError:
        with patch.dict(sys.modules, {"torchao": None}):
            import_utils.is_torchao_available()
    except AttributeError:  # a peft that asks elsewhere
        pass


def peft_unusable(error: Exception) -> CourseError:
    """The error of a peft that is installed and does not go with what else is here."""
    return CourseError(
        f"model.peft_config needs peft, and peft {version('peft')} cannot be used here: {reason(error)}. "
        "Leave model.peft_config out to train without LoRA."
    )


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
    policy.v_head = make_value_head(hidden_width(model))
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
