"""Log-probabilities from hidden states, without ever holding the logits of the whole vocabulary.

loss.py makes B x R x V logits, keeps them for the gradient and goes over them some ten times. An output layer that does not
learn needs none of that. With h a hidden state, W the layer's rows, T the temperature and p = softmax(W h / T),

    d log p(a) / d h = (W[a] - sum_v p(v) W[v]) / T,

which is a vector as wide as h. `TokenLogprobs` makes it while it has p, and keeps it in place of the logits.
`softmax_in_parts` takes the vocabulary in parts with the running maximum of "online softmax" (Milakov & Gimelshein 2018,
arxiv.org/abs/1805.02867), as cut cross-entropy does (Wijmans et al. 2024, arxiv.org/abs/2411.09009).

All of this is in float32, whatever the precision of the run: states and rows may come in half precision, logits never do.
"""

from typing import Any

import torch
from torch import Tensor

# Logits at a time. So many stay in a CPU's cache, and below the 32 MiB from which glibc maps memory anew, page by page.
AT_ONCE = 5_000_000
ROWS = 4096  # rows of the output layer at a time, for the few states of one step of sampling


def all_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """The logits (N, V) for hidden states (N, hidden), from the output layer's rows (V, hidden), which are in float32.

    A CPU takes the layer in parts: for 128 states and GPT-2's vocabulary one product took a third longer than thirteen.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        hidden = hidden.float()
        if hidden.device.type != "cpu":
            return hidden @ weight.T
        return torch.cat([hidden @ part.T for part in weight.split(ROWS)], dim=-1)


@torch.no_grad()
def token_logprobs(hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log pi(token) (N,) in nats and float32, without a gradient. The arguments are those of `learnable`."""
    logit, log_sum, _ = softmax_in_parts(hidden, weight, tokens, temperature, mean=False)
    return logit - log_sum


def learnable(
    hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log pi(token), with a gradient to `hidden`, and the entropy of pi, without: both (N,) in nats and float32.

    Args:
        hidden: states (N, hidden) that predict the tokens.
        weight: the rows (V, hidden) of the output layer, which do not learn.
        tokens: the token ids (N,) that were sampled.
        temperature: the temperature of sampling.
    """
    return TokenLogprobs.apply(hidden, weight, tokens, temperature)


class TokenLogprobs(torch.autograd.Function):
    """`learnable` as torch's autograd has it: a forward pass, and its gradient by hand."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropy; keeps d log p / d h (N, hidden) for `backward`."""
        logit, log_sum, mean_row = softmax_in_parts(hidden, weight, tokens, temperature, mean=True)
        # the formula at the top of this file: the token's row, less the mean row under p
        ctx.save_for_backward((weight[tokens].float() - mean_row) / temperature)
        ctx.dtype = hidden.dtype
        # entropy = -sum p log p = log_sum - sum p logit, and the mean logit is the mean row times h / T
        entropy = log_sum - (mean_row * hidden.float()).sum(-1) / temperature
        ctx.mark_non_differentiable(entropy)
        return logit - log_sum, entropy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of `hidden`, from that of the log-probabilities (N,); nothing else learns."""
        (direction,) = ctx.saved_tensors
        return (gradient[:, None] * direction).to(ctx.dtype), None, None, None


def softmax_in_parts(
    hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float, mean: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tokens' logits (N,), log sum_v exp(logit_v) (N,), and with `mean` sum_v p(v) W[v] (N, hidden), all in float32."""
    hidden = hidden.float()
    # over the parts so far: the largest logit, the sum of exp(logit - largest), and the rows' sum with these as weights
    largest = hidden.new_full((len(hidden), 1), -torch.inf)
    total, logit = torch.zeros_like(largest), torch.zeros_like(largest)
    row = torch.zeros_like(hidden) if mean else None
    first = 0
    with torch.autocast(hidden.device.type, enabled=False):
        for part in weight.split(max(512, AT_ONCE // max(1, len(hidden)))):
            part = part.float()
            # this part's logits, at the sampling temperature
            logits = hidden @ part.T
            if temperature != 1.0:
                logits /= temperature
            # the tokens that this part holds: keep their logits
            place = tokens[:, None] - first
            here = logits.gather(-1, place.clamp(0, len(part) - 1))
            logit = torch.where((place >= 0) & (place < len(part)), here, logit)
            # a new largest logit makes the sums so far smaller
            before, largest = largest, torch.maximum(largest, logits.amax(-1, keepdim=True))
            shrink = (before - largest).exp_()
            # add this part to the sums
            weights = logits.sub_(largest).exp_()
            total = total * shrink + weights.sum(-1, keepdim=True)
            if mean:
                row *= shrink
                row += weights @ part
            first += len(part)
    # back from sums of exp(logit - largest); the weights of the rows become probabilities
    logit, log_sum = logit.squeeze(-1), (largest + total.log()).squeeze(-1)
    return logit, log_sum, row / total if mean else None
