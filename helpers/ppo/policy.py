"""The policy, its value head and the frozen reference it is held to."""

import copy
import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from helpers.ppo.blocks import freeze_below


class Policy(nn.Module):
    """A causal language model with a value head, and the frozen model it started as: the reference.

    The top `num_layers_unfrozen` blocks and the final norm learn (-1: everything; 0: the value head alone). The reference
    shares every frozen weight with the policy and has a copy of the others. trlX lets GPT-2's position embeddings learn
    below frozen blocks, which moves the reference; here they are frozen too.
    """

    def __init__(self, model: PreTrainedModel, num_layers_unfrozen: int):
        super().__init__()
        self.base_model = model.eval()  # no dropout: rollout and update must agree about the same tokens
        freeze_below(model, num_layers_unfrozen)
        # deepcopy takes what its memo holds for copied already: the frozen weights are shared
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.reference = copy.deepcopy(model, memo=shared).requires_grad_(False)
        self.v_head = make_value_head(hidden_width(model))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, response_length: int
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, R, V) for the last R tokens of texts (B, T), and the values (B, R) of the states before them."""
        hidden = hidden_states(self.base_model, input_ids, attention_mask)[:, -response_length - 1 : -1]
        return self.base_model.get_output_embeddings()(hidden), self.v_head(hidden).squeeze(-1)

    @torch.no_grad()
    def reference_logits(self, input_ids: Tensor, attention_mask: Tensor, response_length: int) -> Tensor:
        """The reference's logits (B, R, V) for the last R tokens of texts (B, T)."""
        hidden = hidden_states(self.reference, input_ids, attention_mask)[:, -response_length - 1 : -1]
        return self.reference.get_output_embeddings()(hidden)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def hidden_states(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Final hidden states (B, T, hidden); the one at a position predicts the token after it."""
    place = positions(attention_mask)
    outputs = model.base_model(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=place, use_cache=False
    )
    return outputs.last_hidden_state


def positions(attention_mask: Tensor) -> Tensor:
    """The place of each token in its text (B, T), from 0; padding on the left does not count."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def most_tokens(model: PreTrainedModel) -> float:
    """How many tokens a text for this model has at most: infinity where positions have no end, as Bloom's."""
    return getattr(model.config, "max_position_embeddings", None) or math.inf


def hidden_width(model: PreTrainedModel) -> int:
    """The width of the final hidden state, as the output layer takes it: OPT-350m's config.hidden_size is another."""
    return model.get_output_embeddings().weight.shape[1]


def make_value_head(hidden_size: int) -> nn.Sequential:
    """trlX's value head: two layers on the final hidden state."""
    return nn.Sequential(nn.Linear(hidden_size, 2 * hidden_size), nn.ReLU(), nn.Linear(2 * hidden_size, 1))
