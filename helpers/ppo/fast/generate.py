"""Sampling as `helpers.ppo.sampling` has it, in memory taken once, and remembering what was computed on the way."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from helpers.ppo.fast import head
from helpers.ppo.policy import positions
from helpers.ppo.prompts import widen
from helpers.ppo.sampling import choose


@dataclass
class Sampled:
    """N responses of R tokens to prompts of Q, and what sampling them computed. Past a response's end all of it is padding."""

    tokens: Tensor  # (N, R) token ids
    logprobs: Tensor | None = None  # (N, R) at the sampling temperature, of the whole distribution, nats
    hidden: Tensor | None = None  # (N, R, hidden) the final hidden states that predicted the tokens
    temperature: float = 1.0  # at which they were sampled
    # (N, Q + R - 1, hidden) what went into the watched block; the last token was never fed
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

    Which tokens come out follows from `uniform` alone, numbers in [0, 1) of shape (N, max_new_tokens): the same numbers
    give the same texts in one process or in several.

    Args:
        query, query_mask: (N, Q) prompts padded on the left, and 1 on their tokens.
        settings: some of `sampling.SETTINGS`, as transformers' `generate` names them.
        watched: a block of the model whose input is kept.
    """
    temperature = settings.get("temperature") or 1.0
    eos, pad_id = settings["eos_token_id"], settings["pad_token_id"]
    steps = []
    with inputs_of(watched) as inputs:
        cache = roomy_cache(model, query.shape[1] + settings["max_new_tokens"])
        mask, ids, place = query_mask, query, positions(query_mask)
        ended = torch.zeros(len(query), dtype=torch.bool, device=query.device)
        for t in range(settings["max_new_tokens"]):
            hidden = model.base_model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=place,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            logits = head.all_logits(hidden, model.get_output_embeddings()).float()
            probabilities = (logits if temperature == 1.0 else logits / temperature).softmax(-1)
            tokens = choose(probabilities, settings, uniform[:, t], t).masked_fill(ended, pad_id)
            # over 50,257 words torch's float32 softmax adds up to 1 only within 4e-6, which would be in every KL
            chosen = probabilities.gather(-1, tokens[:, None]).squeeze(-1) / probabilities.sum(-1)
            steps.append((tokens, chosen.log().masked_fill(ended, 0.0), hidden))
            ended = ended | (tokens == eos)
            if ended.all():
                break
            ids, place = tokens[:, None], place[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    tokens, logprobs, hidden = (torch.stack(parts, dim=1) for parts in zip(*steps, strict=True))
    return Sampled(tokens, logprobs, hidden, temperature, torch.cat(inputs, dim=1) if inputs else None)


def concatenate(parts: list[Sampled], pad_id: int) -> Sampled:
    """What was sampled for several parts of one padded batch as one, padded on the right to the longest."""
    if len(parts) == 1:
        return parts[0]
    joined = {"temperature": parts[0].temperature}
    for name in ("tokens", "logprobs", "hidden", "trunk"):
        tensors = [getattr(part, name) for part in parts]
        if tensors[0] is not None:
            width = max(t.shape[1] for t in tensors)
            value = pad_id if name == "tokens" else 0
            joined[name] = torch.cat([widen(t, width, value=value) for t in tensors])
    return Sampled(**joined)


@contextmanager
def inputs_of(block: nn.Module | None):
    """A list of what goes into a block, (B, T, hidden) at each call, while the context is open; empty without a block."""
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
    """One layer's keys and values in memory taken once; transformers' own layer copies all of them for each new token."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, T, width) so far, the new ones among them."""
        new = (key_states, value_states)
        if not self.is_initialized:
            self.lazy_initialization(*new)
            self.rooms = [
                states.new_empty(*states.shape[:2], self.length, states.shape[-1]) for states in new
            ]
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for room, states in zip(self.rooms, new, strict=True):
            room[:, :, start:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self.rooms)
        return self.keys, self.values
