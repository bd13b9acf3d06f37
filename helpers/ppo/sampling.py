"""Sampling from a causal model, one token at a time."""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, TopKLogitsWarper, TopPLogitsWarper

from helpers.ppo.policy import positions

# what `sample` understands; with any other setting transformers' own `generate` samples
SETTINGS = {"max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p"}
SETTINGS |= {"eos_token_id", "pad_token_id"}


@torch.no_grad()
def sample(
    model: PreTrainedModel, query: Tensor, query_mask: Tensor, settings: dict, uniform: Tensor
) -> Tensor:
    """Continue each prompt until every response has ended, or has `max_new_tokens` tokens.

    All chance comes from `uniform`: the same numbers give the same texts.

    Args:
        query, query_mask: prompts (N, Q), padded on the left, and 1 on their tokens.
        settings: some of SETTINGS, as transformers' `generate` names them.
        uniform: (N, max_new_tokens) numbers in [0, 1).
    Returns:
        Token ids (N, R), with padding after the end of a response.
    """
    ends, pad_id = torch.as_tensor(settings["eos_token_id"], device=query.device), settings["pad_token_id"]
    temperature = temperature_of(settings)
    cache, mask, ids, place = DynamicCache(config=model.config), query_mask, query, positions(query_mask)
    ended = torch.zeros(len(query), dtype=torch.bool, device=query.device)
    response = []  # one tensor (N,) for each place
    for t in range(settings["max_new_tokens"]):
        # the keys and values of earlier tokens are in the cache, so only new tokens go through the network
        hidden = model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        logits = model.get_output_embeddings()(hidden).float()
        logits = logits if temperature == 1.0 else logits / temperature
        tokens = choose(logits.softmax(-1), logits, settings, uniform[:, t], t).masked_fill(ended, pad_id)
        response.append(tokens)
        ended = ended | torch.isin(tokens, ends)
        if ended.all():
            break
        ids, place = tokens[:, None], place[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    return torch.stack(response, dim=1)


def temperature_of(settings: dict) -> float:
    """The temperature in settings of sampling; 1 where they have none."""
    return settings.get("temperature") or 1.0


def choose(probabilities: Tensor, logits: Tensor, settings: dict, uniform: Tensor, t: int) -> Tensor:
    """The token (N,) at place `t` of each response, from probabilities and their logits (N, V) and numbers (N,) in [0, 1)."""
    weights = probabilities
    if t < (settings.get("min_new_tokens") or 0):
        # from the logits, because where the EOS has probability 1 all others may have 0
        weights = logits.clone()
        weights[:, settings["eos_token_id"]] = -torch.inf
        weights = weights.softmax(-1)
    if not settings.get("do_sample", True):
        return weights.argmax(-1)
    if settings.get("top_k"):
        weights = TopKLogitsWarper(settings["top_k"], filter_value=0.0)(None, weights)
    if settings.get("top_p") not in (None, 1.0):
        weights = TopPLogitsWarper(settings["top_p"])(None, weights.log()).exp()
    return draw(weights, uniform)


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """Draw an index (N,) in proportion to `weights` (N, V): where the running sum first exceeds `uniform` of the whole.

    torch.multinomial draws a random number per entry. At GPT-2's vocabulary that took twice as long on a CPU as the model
    itself. Where a run has diverged and the weights are NaN, it is the last index.
    """
    sums = weights.cumsum(-1)
    whole = sums[:, -1:].contiguous()
    index = torch.searchsorted(sums, uniform[:, None] * whole, right=True)
    # rounding must not take a draw behind the last entry with weight, which is the first at which the sum is whole
    index = torch.minimum(index, torch.searchsorted(sums, whole))
    return index.clamp(max=weights.shape[-1] - 1).squeeze(-1)
