"""PPO's arithmetic: pure functions on tensors, each with its source.

Shapes: B rollouts, R response tokens (padded on the right), V tokens in the vocabulary. `mask` is (B, R), 1 on
response tokens and 0 on padding; every mean, whitening and KL leaves padding out. Log-probabilities and KL are in nats.
"""

import torch
from torch import Tensor


def log_distribution(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log pi over the vocabulary at the sampling temperature, in float32: (B, R, V) -> (B, R, V)."""
    logits = logits.float()
    return (logits if temperature == 1.0 else logits / temperature).log_softmax(dim=-1)


def token_logprobs(distribution: Tensor, tokens: Tensor) -> Tensor:
    """log pi(token): (B, R, V) log-probabilities and (B, R) tokens -> (B, R)."""
    return distribution.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def entropy(distribution: Tensor) -> Tensor:
    """Entropy of each next-token distribution in nats, without a gradient: (B, R, V) -> (B, R)."""
    return -(distribution.exp() * distribution).sum(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over response tokens, a scalar."""
    return (values * mask).sum() / mask.sum()


def masked_whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over response tokens; 0 on padding.

    trlX whitens padding too, which pulls the mean towards 0 and shrinks the variance; the original implementation
    whitens whole responses (github.com/openai/lm-human-preferences, utils/core.py).
    """
    count = mask.sum()
    centred = (values - masked_mean(values, mask)) * mask
    variance = (centred**2).sum() / (count - 1).clamp(min=1)
    return centred * torch.rsqrt(variance + 1e-8)


def kl_per_token(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """log pi - log pi_ref at each sampled token (B, R). The sum of a row estimates that rollout's KL without bias, but is
    negative for some samples: the estimator k1 of joschu.net/blog/kl-approx.html."""
    return (logprobs - ref_logprobs) * mask


def token_rewards(scores: Tensor, kl: Tensor, beta: float, mask: Tensor) -> Tensor:
    """What each token earns (B, R): -beta * KL, and the last response token the score as well.

    Ziegler et al. 2019 (arxiv.org/abs/1909.08593), sec. 2, eq. 2. `scores` has one number per sample (B,) or token (B, R).
    """
    if scores.dim() == 2:
        return -beta * kl + scores * mask
    rewards = -beta * kl
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(last), device=last.device), last] += scores
    return rewards


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: advantages A and returns A + V, both (B, R) in units of the reward, 0 on padding.

    Schulman et al. 2015 (arxiv.org/abs/1506.02438), eq. 16. The value after the last response token is 0.
    """
    values = values * mask
    rewards = rewards * mask
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        # how much better than expected this token went, and a share of the same for all later tokens
        next_value = values[:, t + 1] if t + 1 < values.shape[1] else 0.0
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        running = delta + gamma * lam * running
        advantages[:, t] = running
    return advantages, advantages + values


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """How well values foresaw returns, over response tokens: 1 is perfectly, 0 no better than a constant, below 0 worse.

    1 - Var(returns - values) / Var(returns), both (B, R) (github.com/openai/baselines, common/math_util.py).
    """
    returns, errors = returns[mask.bool()], (returns - values)[mask.bool()]
    return 1 - (errors.var(unbiased=False) / returns.var(unbiased=False).clamp(min=1e-8)).item()


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, cliprange: float
) -> tuple[Tensor, Tensor, Tensor]:
    """PPO's clipped loss per token, the ratio rho = pi / pi_old, and 1 where clipping took the gradient away: each (B, R).

    Schulman et al. 2017 (arxiv.org/abs/1707.06347), eq. 7, negated because optimizers minimise. A token has no gradient while
    its ratio is beyond the range on the side to which its advantage pushes. The ratio itself may still go any distance.
    """
    ratio = ((logprobs - old_logprobs) * mask).exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return torch.maximum(plain, clipped) * mask, ratio, (clipped > plain) * mask


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, cliprange: float) -> Tensor:
    """Half the squared error to the returns per token (B, R); `cliprange` from the old value towards them the gradient ends.
    The clipping comes from OpenAI's code (github.com/openai/baselines, ppo2/model.py), not from the paper."""
    clipped = torch.maximum(torch.minimum(values, old_values + cliprange), old_values - cliprange)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2) * mask


def next_kl_coef(beta: float, kl: float, target: float | None, horizon: int, n_steps: int) -> float:
    """Beta for the next updates: higher if `kl` (nats per sample) is above `target`, lower if below, the same without a target.

    Ziegler et al. 2019 (arxiv.org/abs/1909.08593), sec. 2.2. `n_steps` and `horizon` count samples.
    """
    if target is None:
        return beta
    error = max(-0.2, min(0.2, kl / target - 1))
    return beta * (1 + error * n_steps / horizon)
