"""The policy, its value head and the frozen reference it is held to."""

import copy
import warnings

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers import weights
from helpers.errors import CourseError


class Policy(nn.Module):
    """A causal language model that also predicts a value per token, beside the frozen model it started as.

    Only the top `num_layers_unfrozen` blocks and the final norm learn (-1: everything; 0: the value head alone); with a
    `peft_config`, LoRA's matrices instead. The reference shares every frozen weight with the policy and keeps its own copy of the others, so it costs no more
    memory than those. trlX leaves GPT-2's position embeddings to learn under a shared trunk, which moves the
    reference; here they are frozen with the rest.

    The network stays in evaluation mode: dropout would make rollout and update disagree about the same tokens.
    """

    def __init__(self, model: PreTrainedModel, num_layers_unfrozen: int, peft_config: dict | None = None):
        super().__init__()
        self.base_model = model.eval()
        freeze_below(model, 0 if peft_config else num_layers_unfrozen)
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.reference = copy.deepcopy(model, memo=shared).requires_grad_(False)
        if peft_config:
            add_lora(model, peft_config)
        self.v_head = make_value_head(model.config.hidden_size)

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        num_layers_unfrozen: int,
        peft_config: dict | None = None,
        settings: dict | None = None,
    ) -> "Policy":
        """Load in float32 whatever the file's precision: small float16 updates would round to nothing.

        Raises:
            CourseError: the model cannot be loaded whole and without running code that comes with it.
        """
        model = weights.load_model(AutoModelForCausalLM, path, "model.model_path", settings)
        return cls(model, num_layers_unfrozen, peft_config)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, response_length: int
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, R, V) that predict each of the last R tokens, and values (B, R) of the states before them."""
        hidden = hidden_states(self.base_model, input_ids, attention_mask)[:, -response_length - 1 : -1]
        return self.base_model.get_output_embeddings()(hidden), self.v_head(hidden).squeeze(-1)

    @torch.no_grad()
    def reference_logits(self, input_ids: Tensor, attention_mask: Tensor, response_length: int) -> Tensor:
        """The reference's logits (B, R, V) for the last R tokens."""
        hidden = hidden_states(self.reference, input_ids, attention_mask)[:, -response_length - 1 : -1]
        return self.reference.get_output_embeddings()(hidden)

    def store_frozen_in(self, dtype: torch.dtype) -> None:
        """Keep what policy and reference share in half precision; what learns, and what it started as, stay in float32."""
        for parameter in self.base_model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)

    @torch.no_grad()
    def plain_weights(self) -> dict[str, Tensor]:
        """The policy's weights in float32 under the names of the model it was loaded as, with LoRA's share added in."""
        own = {
            name.replace(".base_layer.", "."): p
            for name, p in self.base_model.named_parameters(remove_duplicate=False)
        }
        # not the policy's own state_dict, which would take sharded blocks apart
        names = self.reference.state_dict()
        weights = {name: own.get(name, tensor).float() for name, tensor in names.items()}
        for name, module in self.base_model.named_modules():
            if hasattr(module, "get_delta_weight"):
                key = f"{name}.weight"
                weights[key] = weights[key] + module.get_delta_weight(module.active_adapters[0]).float()
        return weights

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def hidden_states(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Final hidden states (B, T, hidden); the one at a position predicts the token after it."""
    outputs = model.base_model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=positions(attention_mask),
        use_cache=False,
    )
    return outputs.last_hidden_state


def positions(attention_mask: Tensor) -> Tensor:
    """(B, T) the place of each token in its text; prompts are padded on the left."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def freeze_below(model: PreTrainedModel, num_layers_unfrozen: int) -> None:
    """Freeze all but the top blocks, the final norm and, where it is not tied to the embeddings, the output layer."""
    if num_layers_unfrozen == -1:
        return
    depth = model.config.num_hidden_layers
    if not 0 <= num_layers_unfrozen <= depth:
        raise CourseError(
            f"model.num_layers_unfrozen is {num_layers_unfrozen}: expected -1 (all) or 0 to {depth}"
        )
    model.requires_grad_(False)
    if num_layers_unfrozen == 0:
        return
    blocks, final_norm = decoder_blocks(model)
    learn = [*blocks[depth - num_layers_unfrozen :], final_norm]
    if not model.config.tie_word_embeddings:
        learn.append(model.get_output_embeddings())
    for module in learn:
        module.requires_grad_(True)


def add_lora(model: PreTrainedModel, peft_config: dict) -> None:
    """Add LoRA's trainable matrices to a frozen model (Hu et al. 2021, arxiv.org/abs/2106.09685); at first they add nothing.

    Raises:
        CourseError: peft is not installed, or does not know the configuration.
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
            warnings.simplefilter(
                "ignore"
            )  # peft finds out by itself which way round GPT-2 stores its weights
            model.add_adapter(get_peft_config(peft_config))
    except (TypeError, ValueError) as error:
        raise CourseError(f"model.peft_config: {error}") from error
    model.eval()


def decoder_blocks(model: PreTrainedModel) -> tuple[nn.ModuleList, nn.Module]:
    """A decoder's blocks and final norm, under the names GPT-2 and Llama use."""
    decoder = model.base_model
    for blocks, norm in [("h", "ln_f"), ("layers", "norm")]:
        if hasattr(decoder, blocks) and hasattr(decoder, norm):
            return getattr(decoder, blocks), getattr(decoder, norm)
    raise CourseError(
        f"{type(model).__name__} names its blocks in a way this engine does not know. "
        "Set model.num_layers_unfrozen to -1 to train all of it, or use a GPT-2 or Llama model."
    )


def make_value_head(hidden_size: int) -> nn.Sequential:
    """trlX's value head: two layers on the final hidden state."""
    return nn.Sequential(nn.Linear(hidden_size, 2 * hidden_size), nn.ReLU(), nn.Linear(2 * hidden_size, 1))
