"""Log-probabilities straight from hidden states: the logits of a whole vocabulary are never there at once.

The plain way, in loss.py, makes B x R x V logits, keeps them for the gradient and goes over them some ten times. For an
output layer that does not learn, none of that is needed. With h a hidden state, W the layer's rows, T the temperature and
p = softmax(W h / T),

    d log p(a) / d h = (W[a] - sum_v p(v) W[v]) / T,

a vector as wide as h: it is made while p is there, and kept in place of the logits. The vocabulary is taken in parts, with
the running maximum of "online softmax" (Milakov & Gimelshein 2018, arxiv.org/abs/1805.02867), as cut cross-entropy does
(Wijmans et al. 2024, arxiv.org/abs/2411.09009).
"""

import torch
from torch import Tensor, nn

# Logits at a time. On a CPU they stay in its cache, and below the 32 MiB from which glibc maps memory anew, page by page.
AT_ONCE = 5_000_000
ROWS = 4096  # of the output layer at a time, where few tokens meet all of it


def all_logits(hidden: Tensor, layer: nn.Module) -> Tensor:
    """(N, V) the output layer's logits of hidden states (N, hidden).

    On a CPU in parts: for 128 states and GPT-2's vocabulary one product took a third longer than thirteen.
    """
    if type(layer) is not nn.Linear or layer.bias is not None or hidden.device.type != "cpu":
        return layer(hidden)
    return torch.cat([hidden @ part.T for part in layer.weight.split(ROWS)], dim=-1)


@torch.no_grad()
def token_logprobs(hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """(N,) log pi(token) in nats and float32, without a gradient; the arguments are those of `learnable`."""
    logit, log_sum, _ = softmax_in_parts(hidden, weight, tokens, temperature, mean=False)
    return logit - log_sum


def learnable(
    hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log pi(token), whose gradient reaches `hidden`, and the entropy of pi, to watch: both (N,) in nats and float32.

    Args:
        hidden: (N, hidden) states that predict the tokens.
        weight: (V, hidden), the rows of the output layer, which do not learn.
        tokens: (N,) the tokens that were taken.
        temperature: that of sampling.
    """
    return TokenLogprobs.apply(hidden, weight, tokens, temperature)


class TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, tokens, temperature):
        logit, log_sum, mean_row = softmax_in_parts(hidden, weight, tokens, temperature, mean=True)
        ctx.save_for_backward((weight[tokens].float() - mean_row) / temperature)
        ctx.dtype = hidden.dtype
        # -sum p log p, where log p = logit - log_sum and the mean logit is that of the mean row
        entropy = log_sum - (mean_row * hidden.float()).sum(-1) / temperature
        ctx.mark_non_differentiable(entropy)
        return logit - log_sum, entropy

    @staticmethod
    def backward(ctx, gradient, _):
        (direction,) = ctx.saved_tensors
        return (gradient[:, None] * direction).to(ctx.dtype), None, None, None


def softmax_in_parts(
    hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float, mean: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tokens' logits (N,), log sum_v exp(logit_v) (N,), and for `mean` sum_v p(v) W[v] (N, hidden): in float32."""
    largest = hidden.new_full((len(hidden), 1), -torch.inf, dtype=torch.float32)
    total, logit = torch.zeros_like(largest), torch.zeros_like(largest)
    row = torch.zeros_like(hidden, dtype=torch.float32) if mean else None
    first = 0
    for part in weight.split(max(512, AT_ONCE // max(1, len(hidden)))):
        logits = (hidden @ part.T).float()
        if temperature != 1.0:
            logits /= temperature
        place = tokens[:, None] - first
        here = logits.gather(-1, place.clamp(0, len(part) - 1))
        logit = torch.where((place >= 0) & (place < len(part)), here, logit)
        before, largest = largest, torch.maximum(largest, logits.amax(-1, keepdim=True))
        shrink = (before - largest).exp_()
        weights = logits.sub_(largest).exp_()
        total = total * shrink + weights.sum(-1, keepdim=True)
        if mean:
            row *= shrink
            row += (weights.to(part.dtype) @ part).float()
        first += len(part)
    logit, log_sum = logit.squeeze(-1), (largest + total.log()).squeeze(-1)
    return logit, log_sum, row / total if mean else None
