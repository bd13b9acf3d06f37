"""Sampling one token at a time, and remembering what was computed on the way."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel, TopKLogitsWarper, TopPLogitsWarper
from transformers.cache_utils import DynamicLayer

from helpers.ppo import head
from helpers.ppo.policy import positions

# what `sample` understands; with any other setting transformers' own `generate` samples
SETTINGS = {"max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p"}
SETTINGS |= {"eos_token_id", "pad_token_id"}


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
        settings: some of SETTINGS, as transformers' `generate` names them.
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


def join(parts: list[Sampled], pad_id: int) -> Sampled:
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


def widen(tensor: Tensor, width: int, left: bool = False, value: float = 0) -> Tensor:
    """(N, T, ...) padded with `value` to `width` columns, at the left or at the right."""
    missing = width - tensor.shape[1]
    rest = (0, 0) * (tensor.dim() - 2)
    return pad(tensor, (*rest, missing, 0) if left else (*rest, 0, missing), value=value)


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


def choose(probabilities: Tensor, settings: dict, uniform: Tensor, t: int) -> Tensor:
    """(N,) the next token of each row, from probabilities (N, V) and numbers (N,) in [0, 1)."""
    weights = probabilities
    if t < (settings.get("min_new_tokens") or 0):
        weights = weights.clone()
        weights[:, settings["eos_token_id"]] = 0
    if not settings.get("do_sample", True):
        return weights.argmax(-1)
    if settings.get("top_k"):
        weights = TopKLogitsWarper(settings["top_k"], filter_value=0.0)(None, weights)
    if settings.get("top_p") not in (None, 1.0):
        weights = TopPLogitsWarper(settings["top_p"])(None, weights.log()).exp()
    return draw(weights, uniform)


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """(N,) indices drawn in proportion to `weights` (N, V): where the running sum first exceeds `uniform` of the whole.

    torch.multinomial asks for a random number per entry, which at GPT-2's vocabulary took twice as long on a CPU as the
    model itself.
    """
    sums = weights.cumsum(-1)
    whole = sums[:, -1:]
    # rounding must not take a draw to the very end, which may lie behind entries of weight 0
    below = torch.minimum(uniform[:, None] * whole, whole.nextafter(torch.zeros_like(whole)))
    return torch.searchsorted(sums, below, right=True).squeeze(-1)
