"""Rollouts that remember what sampling computed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers.ppo.blocks import decoder_blocks
from helpers.ppo.fast import generate, head
from helpers.ppo.fast.generate import Sampled, inputs_of
from helpers.ppo.fast.trunk import Top, first_unfrozen
from helpers.ppo.parallel.rollout import ParallelSampler
from helpers.ppo.policy import Policy, hidden_states
from helpers.ppo.prompts import widen
from helpers.ppo.rollout import Rollouts


@dataclass
class FastRollouts(Rollouts):
    """Rollouts, and what the frozen blocks gave for their tokens: the input of the first block that learns."""

    query_trunk: Tensor  # (N, Q, hidden)
    response_trunk: Tensor  # (N, R, hidden); nothing needs that of the last token, which may be 0

    def trimmed(self) -> "FastRollouts":
        """The rollouts without the columns that hold only padding."""
        q, r = (int(mask.sum(1).max()) for mask in (self.query_mask, self.mask))
        cut = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, tensor in cut.items():
            if tensor.dim() > 1:
                cut[name] = tensor[:, -q:] if name.startswith("query") else tensor[:, :r]
        return FastRollouts(**cut)


class FastSampler(ParallelSampler):
    """A sampler whose rollouts remember what sampling computed."""

    def __init__(self, policy: Policy, *args: Any):
        super().__init__(policy, *args)
        first = first_unfrozen(policy.base_model)
        self.sampled: Sampled | None = None  # of the latest responses
        self.watched = decoder_blocks(policy.base_model)[0][first]
        self.top, self.reference_top = Top(policy.base_model, first), Top(policy.reference, first)

    def sample_in_parts(
        self, query: Tensor, query_mask: Tensor, settings: dict, uniform: Tensor, count: int
    ) -> Tensor:
        """As `ParallelSampler.sample_in_parts`, and keep what sampling computed for `remember`."""
        self.sampled = None
        if not self.samples_by_itself(settings):
            return super().sample_in_parts(query, query_mask, settings, uniform, count)
        model = self.policy.base_model
        parts = [
            generate.sample(model, query[rows], query_mask[rows], settings, uniform[rows], self.watched)
            for rows in torch.arange(len(query)).split(count)
        ]
        self.sampled = generate.concatenate(parts, self.tokenizer.pad_token_id)
        return self.sampled.tokens

    def remember_once(
        self,
        query: Tensor,
        query_mask: Tensor,
        response: Tensor,
        mask: Tensor,
        scores: Tensor,
        temperature: float,
    ) -> FastRollouts:
        """As `Sampler.remember`. The network runs again only for responses that differ from the sampled ones, or in half precision.

        In half precision a token comes out differently by itself and among others, but policy and reference must differ by
        learning alone: there the policy's top blocks run again just as the reference's do.
        """
        # do the kept tensors belong to these responses? A stop sequence cuts and tokenises anew, and transformers keeps none
        width, sampled = response.shape[1], self.sampled
        as_sampled = (
            sampled is not None
            and width <= sampled.tokens.shape[1]
            and bool(((response == sampled.tokens[:, :width]) | (mask == 0)).all())
        )
        # what the frozen blocks give, for policy and reference alike
        trunk = sampled.trunk if as_sampled else self.run_trunk(query, query_mask, response, mask)
        trunk = trunk[:, : query.shape[1] + width - 1]
        # the reference's log-probabilities need its top blocks; the policy's are known from sampling
        rest = (trunk, query_mask, response, mask, temperature)
        ref_logprobs, _ = self.top_forward_pass(self.reference_top, *rest)
        if as_sampled and trunk.dtype == torch.float32:
            logprobs, hidden = sampled.logprobs[:, :width] * mask, sampled.hidden[:, :width][mask.bool()]
        else:
            logprobs, hidden = self.top_forward_pass(self.top, *rest)
        # values from the final hidden states, and the trunk cut into prompt and response
        values = spread(self.policy.v_head(hidden).squeeze(-1).float(), mask)
        prompts, responses = trunk.tensor_split([query.shape[1]], dim=1)
        responses = widen(responses, width)
        return FastRollouts(
            query, query_mask, response, mask, logprobs, ref_logprobs, values, scores, prompts, responses
        )

    def run_trunk(self, query: Tensor, query_mask: Tensor, response: Tensor, mask: Tensor) -> Tensor:
        """The input (N, Q + R - 1, hidden) of the first block that learns, from the whole network."""
        ids = torch.cat([query, response], dim=1)[:, :-1]
        attention = torch.cat([query_mask, mask.long()], dim=1)[:, :-1]
        with inputs_of(self.watched) as inputs:
            for rows in torch.arange(len(ids)).split(self.rows_at_once):
                hidden_states(self.policy.base_model, ids[rows], attention[rows])
        return torch.cat(inputs)

    def top_forward_pass(
        self, top: Top, trunk: Tensor, query_mask: Tensor, response: Tensor, mask: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities (N, R) of the responses, and the hidden states (n, hidden) of the n response tokens."""
        logprobs, states = [], []
        for rows in torch.arange(len(trunk)).split(self.rows_at_once):
            # only response tokens come out, row after row, so that no logits are computed for padding
            hidden = top.hidden_states(trunk[rows], query_mask[rows], mask[rows])
            tokens = response[rows][mask[rows].bool()]
            logprobs.append(head.token_logprobs(hidden, top.head, tokens, temperature))
            states.append(hidden)
        return spread(torch.cat(logprobs), mask), torch.cat(states)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put `values` (n,), one for each response token, into their places (B, R), with 0 on padding."""
    return torch.zeros_like(mask).masked_scatter(mask.bool(), values)
