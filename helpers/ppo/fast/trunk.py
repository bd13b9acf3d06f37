"""The frozen blocks run once, while sampling; reference and update go on from what they gave."""

import copy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from helpers.ppo.policy import decoder_blocks, positions


def first_unfrozen(model: PreTrainedModel) -> int | None:
    """The number of the first block that learns; None where everything does, or nothing, or the output layer.

    None for other architectures too: Gemma, for one, scales what comes in at the bottom, which `Top` would do again.
    """
    if model.config.model_type not in ("gpt2", "llama"):
        return None
    if model.get_output_embeddings().weight.requires_grad:
        return None
    blocks, _ = decoder_blocks(model)
    learning = [n for n, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())]
    return learning[0] if learning else None


class Top:
    """A decoder from block `first` on, with the weights of `model`: from what the frozen blocks gave to final hidden states."""

    def __init__(self, model: PreTrainedModel, first: int):
        blocks, _ = decoder_blocks(model)
        self.decoder = copy.copy(model.base_model)
        self.decoder._modules = dict(self.decoder._modules)
        name = next(name for name, module in self.decoder.named_children() if module is blocks)
        self.decoder._modules[name] = blocks[first:]
        if hasattr(self.decoder, "wpe"):
            self.decoder._modules["wpe"] = NoPositions()
        self.head = model.get_output_embeddings().weight

    def hidden_states(self, trunk: Tensor, query_mask: Tensor, mask: Tensor) -> Tensor:
        """(n, hidden) final hidden states that predict the n response tokens of a batch, row after row.

        Args:
            trunk: (B, Q + R - 1, hidden) what the frozen blocks gave for prompts and responses, without the last token.
            query_mask, mask: (B, Q) and (B, R), 1 on tokens.
        """
        attention = torch.cat([query_mask, mask.long()], dim=1)[:, :-1]
        hidden = self.decoder(
            inputs_embeds=trunk,
            attention_mask=attention,
            position_ids=positions(attention),
            use_cache=False,
        ).last_hidden_state
        return hidden[:, query_mask.shape[1] - 1 :][mask.bool()]


class NoPositions(nn.Module):
    """In place of GPT-2's position embeddings, which the lowest blocks have had already."""

    def forward(self, position_ids: Tensor) -> Tensor:
        return torch.zeros((), device=position_ids.device)
