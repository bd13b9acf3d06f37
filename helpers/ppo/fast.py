"""PPO's arithmetic with each thing done once.

trainer.py and rollout.py say what is computed; this says how to get the same numbers for less. Held equal by
tests/test_fast.py. What they do more than once, and where it is saved:

- The frozen blocks give the same output for a token however often they run. Sampling has run them: what they gave is
  kept with the rollouts, and reference and update start from there (`Top`).
- Sampling has computed the log-probability and the hidden state of every token it took (`FastSampler.remember`).
- Logits are taken at response tokens only, never at prompts or padding, and not all at once (head.py).
- Micro-batches are made of rollouts of like length, and cut to the longest (`FastPPOTrainer.micro_batches`).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUTanh, NewGELUActivation

from helpers.ppo import head
from helpers.ppo.generate import Sampled, inputs_of, widen
from helpers.ppo.policy import Policy, decoder_blocks, hidden_states, positions
from helpers.ppo.rollout import Rollouts, Sampler
from helpers.ppo.trainer import PPOTrainer


@dataclass
class FastRollouts(Rollouts):
    """Rollouts, and what the frozen blocks gave for their tokens: the input of the first block that learns."""

    query_trunk: Tensor  # (N, Q, hidden)
    # (N, R, hidden); that of the last token is not needed, and 0 where it was not computed
    response_trunk: Tensor

    def trimmed(self) -> "FastRollouts":
        """Without the columns that hold padding only."""
        q, r = (int(mask.sum(1).max()) for mask in (self.query_mask, self.mask))
        cut = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, tensor in cut.items():
            if tensor.dim() > 1:
                cut[name] = tensor[:, -q:] if name.startswith("query") else tensor[:, :r]
        return FastRollouts(**cut)


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


class FastSampler(Sampler):
    """A sampler whose rollouts remember what sampling computed."""

    def __init__(self, policy: Policy, *args):
        super().__init__(policy, *args)
        first = first_unfrozen(policy.base_model)
        self.watched = decoder_blocks(policy.base_model)[0][first]
        self.top, self.reference_top = Top(policy.base_model, first), Top(policy.reference, first)

    def remember(self, query, query_mask, response, mask, scores, sampled: Sampled) -> FastRollouts:
        """As `Sampler.remember`. The network runs again only where a response is not what was sampled, or in half precision.

        In half precision a token comes out differently by itself and among others, and policy and reference must differ by
        learning alone: there the policy's top blocks run again just as the reference's do.
        """
        with self.autocast():
            return self.remember_at_this_precision(query, query_mask, response, mask, scores, sampled)

    def remember_at_this_precision(self, query, query_mask, response, mask, scores, sampled) -> FastRollouts:
        width = response.shape[1]
        as_sampled = (
            sampled.trunk is not None
            and width <= sampled.tokens.shape[1]
            and bool(((response == sampled.tokens[:, :width]) | (mask == 0)).all())
        )
        trunk = sampled.trunk if as_sampled else self.run_trunk(query, query_mask, response, mask)
        trunk = trunk[:, : query.shape[1] + width - 1]
        ref_logprobs, _ = self.look_up(self.reference_top, trunk, query_mask, response, mask)
        if as_sampled and trunk.dtype == torch.float32 and sampled.temperature == self.temperature:
            logprobs, hidden = sampled.logprobs[:, :width] * mask, sampled.hidden[:, :width][mask.bool()]
        else:
            logprobs, hidden = self.look_up(self.top, trunk, query_mask, response, mask)
        values = spread(self.policy.v_head(hidden).squeeze(-1).float(), mask)
        prompts, responses = trunk.tensor_split([query.shape[1]], dim=1)
        responses = widen(responses, width)
        return FastRollouts(
            query, query_mask, response, mask, logprobs, ref_logprobs, values, scores, prompts, responses
        )

    def run_trunk(self, query, query_mask, response, mask) -> Tensor:
        """(N, Q + R - 1, hidden) what goes into the first block that learns."""
        ids = torch.cat([query, response], dim=1)[:, :-1]
        attention = torch.cat([query_mask, mask.long()], dim=1)[:, :-1]
        with inputs_of(self.watched) as inputs:
            for rows in torch.arange(len(ids)).split(self.looking.rows):
                hidden_states(self.policy.base_model, ids[rows], attention[rows])
        return torch.cat(inputs)

    def look_up(self, top: Top, trunk, query_mask, response, mask) -> tuple[Tensor, Tensor]:
        """(N, R) log-probabilities of the responses, and the hidden states (n, hidden) that gave them."""
        logprobs, states = [], []
        for rows in torch.arange(len(trunk)).split(self.looking.rows):
            hidden = top.hidden_states(trunk[rows], query_mask[rows], mask[rows])
            tokens = response[rows][mask[rows].bool()]
            logprobs.append(head.token_logprobs(hidden, top.head, tokens, self.temperature))
            states.append(hidden)
        return spread(torch.cat(logprobs), mask), torch.cat(states)


class FastPPOTrainer(PPOTrainer):
    """`PPOTrainer` that starts from what its rollouts remember; where nothing is frozen, there is nothing to remember."""

    def prepare(self, *args) -> None:
        first = first_unfrozen(self.policy.base_model)
        self.sampler_class = Sampler if first is None else FastSampler
        use_fast_gelu(self.policy)
        super().prepare(*args)

    def look(self, batch: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
        """As `PPOTrainer.look`, through the blocks that learn."""
        if not isinstance(batch, FastRollouts):
            return super().look(batch)
        top, width = self.sampler.top, batch.mask.shape[1]
        batch = batch.trimmed()
        trunk = torch.cat([batch.query_trunk, batch.response_trunk], dim=1)[:, :-1]
        hidden = top.hidden_states(trunk, batch.query_mask, batch.mask)
        tokens = batch.response[batch.mask.bool()]
        logprobs, entropy = head.learnable(hidden, top.head, tokens, self.sampler.temperature)
        values = self.policy.v_head(hidden).squeeze(-1).float()
        return tuple(widen(spread(x, batch.mask), width) for x in (logprobs, values, entropy))

    def micro_batches(self, batch: Rollouts, rows: int) -> tuple[Tensor, ...]:
        """Rows of like length together, so that little padding is computed."""
        lengths = batch.query_mask.sum(1) + batch.mask.sum(1)
        return lengths.argsort(stable=True).split(rows)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """(B, R) with `values`, one for each response token, in their places, and 0 on padding."""
    return torch.zeros_like(mask).masked_scatter(mask.bool(), values)


def use_fast_gelu(policy: Policy) -> None:
    """GPT-2's activation as one operation of torch; transformers' `gelu_new` is the same formula in eight.

    A saved model says so in its configuration, and gives the same logits to the last bit when it is loaded.
    """
    for module in policy.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())
    for model in (policy.base_model, policy.reference):
        if getattr(model.config, "activation_function", None) == "gelu_new":
            model.config.activation_function = "gelu_pytorch_tanh"
