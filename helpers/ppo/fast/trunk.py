"""The frozen blocks run once, while sampling. Reference and update go on from what they gave: the trunk."""

import copy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from helpers.ppo.blocks import decoder_blocks
from helpers.ppo.policy import positions


def first_unfrozen(model: PreTrainedModel) -> int | None:
    """The number of the first block that learns, counted from 0 at the bottom. None if no block or the output layer learns.

    It is None for other architectures too (Gemma, for one, scales its input at the bottom, which `Top` would do again), and
    where the output layer is more than rows of weights.
    """
    if model.config.model_type not in ("gpt2", "llama"):
        return None
    layer = model.get_output_embeddings()
    if type(layer) is not nn.Linear or layer.bias is not None or layer.weight.requires_grad:
        return None
    blocks, _ = decoder_blocks(model)
    learning = [n for n, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())]
    return learning[0] if learning else None


class Top:
    """The blocks of a decoder from number `first` on, with the final norm; they share the weights of `model`."""

    def __init__(self, model: PreTrainedModel, first: int):
        blocks, _ = decoder_blocks(model)
        # a second decoder with a table of modules of its own; the modules in it are the same
        self.decoder = copy.copy(model.base_model)
        self.decoder._modules = dict(self.decoder._modules)
        # its list of blocks begins at `first`, whatever the architecture calls the list
        name = next(name for name, module in self.decoder.named_children() if module is blocks)
        self.decoder._modules[name] = blocks[first:]
        # GPT-2 adds its position embeddings at the bottom, so they are in the trunk already; Llama's turn inside each block
        if hasattr(self.decoder, "wpe"):
            self.decoder._modules["wpe"] = NoPositions()
        self.head = model.get_output_embeddings().weight

    def hidden_states(self, trunk: Tensor, query_mask: Tensor, mask: Tensor) -> Tensor:
        """The final hidden states (n, hidden) that predict the n response tokens of a batch, row after row.

        Args:
            trunk: (B, Q + R - 1, hidden) what the frozen blocks gave for prompts and responses, without the last token.
            query_mask, mask: (B, Q) and (B, R), 1 on tokens.
        """
        # the last token predicts nothing that was sampled, so it does not go in
        attention = torch.cat([query_mask, mask.long()], dim=1)[:, :-1]
        hidden = self.decoder(
            inputs_embeds=trunk,
            attention_mask=attention,
            position_ids=positions(attention),
            use_cache=False,
        ).last_hidden_state
        # the last prompt token predicts the first response token, and so on; padding is left out
        return hidden[:, query_mask.shape[1] - 1 :][mask.bool()]


class NoPositions(nn.Module):
    """Stands in for GPT-2's position embeddings, which the trunk contains already."""

    def forward(self, position_ids: Tensor) -> Tensor:
        """0, whatever the positions."""
        return torch.zeros((), device=position_ids.device)
