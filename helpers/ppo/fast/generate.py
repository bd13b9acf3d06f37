"""Sampling as in `helpers.ppo.sampling`, with memory that is taken once. What it computes on the way is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from helpers.ppo.fast import head
from helpers.ppo.policy import positions
from helpers.ppo.prompts import widen
from helpers.ppo.sampling import choose, temperature_of


@dataclass
class Sampled:
    """N responses of R tokens to prompts of Q, and what sampling them computed; padding after the end of a response."""

    tokens: Tensor  # (N, R) token ids
    logprobs: Tensor | None = None  # (N, R) at the sampling temperature, of the whole distribution, nats
    hidden: Tensor | None = None  # (N, R, hidden) the final hidden states that predicted the tokens
    # (N, Q + R - 1, hidden) the inputs of the watched block; the last token never went through it
    trunk: Tensor | None = None


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    query: Tensor,
    query_mask: Tensor,
    settings: dict,
    uniform: Tensor,
    watched: nn.Module | None = None,
) -> Sampled:
    """Continue each prompt until every response has ended, or has `max_new_tokens` tokens.

    All chance comes from `uniform`: the same numbers give the same texts, in one process or in several.

    Args:
        query, query_mask: prompts (N, Q), padded on the left, and 1 on their tokens.
        settings: some of `sampling.SETTINGS`, as transformers' `generate` names them.
        uniform: (N, max_new_tokens) numbers in [0, 1).
        watched: a block of the model; its inputs become `Sampled.trunk`.
    """
    temperature = temperature_of(settings)
    ends, pad_id = torch.as_tensor(settings["eos_token_id"], device=query.device), settings["pad_token_id"]
    steps = []
    weight = model.get_output_embeddings().weight.float()
    with inputs_of(watched) as inputs:
        # take the memory for all keys and values at once
        cache = roomy_cache(model, query.shape[1] + settings["max_new_tokens"])
        mask, ids, place = query_mask, query, positions(query_mask)
        ended = torch.zeros(len(query), dtype=torch.bool, device=query.device)
        for t in range(settings["max_new_tokens"]):
            # run the newest tokens through the network; at first these are the prompts
            hidden = model.base_model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=place,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            # choose each response's next token; one that has ended gets padding
            logits = head.all_logits(hidden, weight)
            logits = logits if temperature == 1.0 else logits / temperature
            probabilities = logits.softmax(-1)
            tokens = choose(probabilities, logits, settings, uniform[:, t], t).masked_fill(ended, pad_id)
            # keep the token's log-probability. Over 50,257 words torch's float32 softmax adds up to 1 only within 4e-6, which
            # every KL would contain: divide by the sum
            chosen = probabilities.gather(-1, tokens[:, None]).squeeze(-1) / probabilities.sum(-1)
            steps.append((tokens, chosen.log().masked_fill(ended, 0.0), hidden))
            # stop where all have ended; else the new tokens go in next
            ended = ended | torch.isin(tokens, ends)
            if ended.all():
                break
            ids, place = tokens[:, None], place[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    tokens, logprobs, hidden = (torch.stack(parts, dim=1) for parts in zip(*steps, strict=True))
    return Sampled(tokens, logprobs, hidden, torch.cat(inputs, dim=1) if inputs else None)


def concatenate(parts: list[Sampled], pad_id: int) -> Sampled:
    """Several parts of one padded batch as one, padded on the right to the longest."""
    if len(parts) == 1:
        return parts[0]
    joined = {}
    for name in ("tokens", "logprobs", "hidden", "trunk"):
        tensors = [getattr(part, name) for part in parts]
        if tensors[0] is not None:
            width = max(t.shape[1] for t in tensors)
            value = pad_id if name == "tokens" else 0
            joined[name] = torch.cat([widen(t, width, value=value) for t in tensors])
    return Sampled(**joined)


@contextmanager
def inputs_of(block: nn.Module | None) -> Iterator[list[Tensor]]:
    """A list that receives the input (B, T, hidden) of each call of `block`, inside the context; empty without a block."""
    inputs: list[Tensor] = []
    if block is None:
        yield inputs
        return
    hook = block.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    try:
        yield inputs
    finally:
        hook.remove()


def roomy_cache(model: PreTrainedModel, length: int) -> DynamicCache:
    """A cache of keys and values with room for `length` tokens from the start."""
    cache = DynamicCache(config=model.config)
    cache.layers = [Room(length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class Room(DynamicLayer):
    """One layer's keys and values, whose memory is taken once. transformers' own layer copies all of them for each new token."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add new keys and values (B, heads, new, width); returns all so far (B, heads, T, width). transformers calls this."""
        new = (key_states, value_states)
        # the first call knows the shapes: take the memory
        if not self.is_initialized:
            self.lazy_initialization(*new)
            self.rooms = [
                states.new_empty(*states.shape[:2], self.length, states.shape[-1]) for states in new
            ]
        # write the new ones behind those that are there, and show all without a copy
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for room, states in zip(self.rooms, new, strict=True):
            room[:, :, start:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self.rooms)
        return self.keys, self.values
