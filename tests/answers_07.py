"""Answers to the exercises of notebook 07, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import torch
from common import known

from helpers import exercises

KNOWN = []


def k3(d, mask):
    return (((-d).exp() - 1 + d) * mask).sum(1)


KNOWN += known(
    exercises.check_k3,
    [
        (lambda p, r, m: k3(p - r, m), "Correct"),
        (lambda p, r, m: torch.stack([k3((p - r)[i : i + 1], m[i : i + 1])[0] for i in (0, 1)]), "Correct"),
        (lambda p, r, m: k3(p - r, torch.ones_like(m)), "padding is counted"),
        (lambda p, r, m: k3(p - r, m) / m.sum(1), "mean per token"),
        (lambda p, r, m: k3(r - p, m), "the wrong way round"),
        (lambda p, r, m: ((p - r) * m).sum(1), "this is k1"),
        (lambda p, r, m: ((p - r) ** 2 / 2 * m).sum(1), "this is k2"),
        (lambda p, r, m: (((r - p).exp() + p - r) * m).sum(1), "where is the -1"),
        (lambda p, r, m: (((r - p).exp() - 1) * m).sum(1), "where is + d"),
        (lambda p, r, m: (((r - p).exp() - 1 + r - p) * m).sum(1), "the sign of the last term"),
        (lambda p, r, m: p - r, "one number for each sample"),
        (lambda p, r, m: torch.zeros(2), "not the numbers"),
        (lambda p, r, m: None, "Not attempted yet"),
        (None, "Not attempted yet"),
    ],
)


def gae(rewards, values, mask, gamma, lam, masked=True, ahead=None, factor=None, end=0.0):
    ahead, factor = gamma if ahead is None else ahead, gamma * lam if factor is None else factor
    if masked:
        rewards, values = rewards * mask, values * mask
    out, later = torch.zeros_like(rewards), 0.0
    for t in reversed(range(rewards.shape[1])):
        after = values[:, t + 1] if t + 1 < rewards.shape[1] else end
        later = rewards[:, t] + ahead * after - values[:, t] + factor * later
        out[:, t] = later
    return out


KNOWN += known(
    exercises.check_gae,
    [
        (gae, "Correct"),
        (lambda *a: gae(*a, masked=False), "rewards and values on padding"),
        (lambda *a: gae(*a, masked=False) * a[2], "rewards and values on padding"),
        (lambda r, v, m, g, x: gae(r * m, v, m, g, x, masked=False) * m, "counts as a forecast"),
        (lambda r, v, m, g, x: gae(r, v, m, g, x) + (1 - m), "padding should get 0"),
        (lambda r, v, m, g, x: gae(r, v, m, g, x) + v * m, "these are the returns"),
        (lambda *a: gae(*a, factor=0.0), "these are the deltas"),
        (lambda *a: gae(*a, factor=a[4]), "not by lambda"),
        (lambda *a: gae(*a, factor=a[3]), "where is lambda"),
        (lambda *a: gae(*a, factor=1.0), "not in full"),
        (lambda *a: gae(*a, ahead=1.0), "where is gamma in delta"),
        (lambda *a: gae(*a, ahead=0.0), "where is the forecast"),
        (lambda *a: -gae(*a), "the sign"),
        (lambda *a: gae(*a, end=(a[1] * a[2])[:, -1]), "not the last value again"),
        (
            lambda *a: torch.cat([gae(*(x[:, :-1] for x in a[:3]), *a[3:]), torch.zeros(2, 1)], 1),
            "the last column gets 0",
        ),
        (lambda *a: gae(*a)[0], "one advantage for each token"),
        (lambda *a: torch.ones(2, 4), "not the numbers"),
        (None, "Not attempted yet"),
    ],
)


def real(values, mask):
    return values[mask.bool()]


KNOWN += known(
    exercises.check_whiten,
    [
        (lambda v, m: (v - real(v, m).mean()) * m / real(v, m).std(), "Correct"),
        (lambda v, m: (v - real(v, m).mean()) * m / real(v, m).std(unbiased=False), "Correct"),
        (lambda v, m: (v - real(v, m).mean()) / real(v, m).std(), "padding should get 0"),
        (lambda v, m: (v - v.mean()) / v.std(), "padding is in the mean"),
        (lambda v, m: (v - v.mean()) / v.std() * m, "padding is in the mean"),
        (lambda v, m: (v * m - (v * m).mean()) / (v * m).std() * m, "padding counts as 0"),
        (lambda v, m: (v - real(v, m).mean()) * m / real(v, m).var(), "divides by the variance"),
        (lambda v, m: v * m / real(v, m).std(), "the mean is still there"),
        (lambda v, m: (v - real(v, m).mean()) * m, "the standard deviation is still there"),
        (lambda v, m: v.mean(), "as many numbers"),
        (lambda v, m: v * 7, "not the numbers"),
        (None, "Not attempted yet"),
    ],
)


def clipped(p, o, a, m, eps, pick=torch.maximum):
    rho = ((p - o) * m).exp()
    return (pick(-a * rho, -a * rho.clamp(1 - eps, 1 + eps)) * m).sum() / m.sum()


KNOWN += known(
    exercises.check_clipped_loss,
    [
        (clipped, "Correct"),
        (lambda *a: clipped(*a).item(), "Correct"),
        (lambda *a: -clipped(*a), "the sign"),
        (lambda *a: clipped(*a, pick=torch.minimum), "take the larger"),
        (lambda *a: -clipped(*a, pick=torch.minimum), "and its negative"),
        (lambda *a: clipped(*a, pick=lambda x, y: x), "where is the clip"),
        (lambda *a: clipped(*a, pick=lambda x, y: y), "only the clipped one"),
        (lambda *a: clipped(*a) * 5, "this is the sum"),
        (lambda *a: clipped(*a) * 5 / 8, "divides by all places"),
        (lambda p, o, a, m, e: clipped(p, o, a, torch.ones_like(m), e), "inside the exponent"),
        (lambda p, o, a, m, e: clipped(p * m, o * m, a, torch.ones_like(m), e), "padding is counted"),
        (lambda p, o, a, m, e: sum(clipped(*(x[i : i + 1] for x in (p, o, a, m)), e) for i in (0, 1)) / 2, "samples' means"),
        (lambda p, o, a, m, e: clipped(o, p, a, m, e), "upside down"),
        (lambda *a: torch.zeros(2), "one number"),
        (lambda p, o, a, m, e: (torch.maximum(-a * (p - o).exp(), -a * (p - o).exp().clamp(1 - e, 1 + e)) * m).sum() / m.sum(), "inside the exponent"),
        (lambda *a: 7.0, "not the number"),
        (None, "Not attempted yet"),    ],
)  # fmt: skip


def centred(scores, k):
    groups = scores.view(-1, k)
    return groups - groups.mean(1, keepdim=True)


KNOWN += known(
    exercises.check_rloo,
    [
        (lambda s, k: (centred(s, k) * k / (k - 1)).flatten(), "Correct"),
        (lambda s, k: centred(s, k).flatten(), "leave it out"),
        (lambda s, k: (centred(s, k) / s.view(-1, k).std(1, keepdim=True)).flatten(), "GRPO"),
        (lambda s, k: s - s.mean(), "a mean of its own"),
        (lambda s, k: ((s.view(k, -1) - s.view(k, -1).mean(0)) * k / (k - 1)).flatten(), "one row a prompt"),
        (lambda s, k: -(centred(s, k) * k / (k - 1)).flatten(), "the sign"),
        (lambda s, k: s - (centred(s, k) * k / (k - 1)).flatten(), "this is the baseline"),
        (lambda s, k: s - ((s.view(-1, k).sum(1, keepdim=True) - s.view(-1, k)) / k).flatten(), "k - 1"),
        (lambda s, k: s.view(-1, k), "one advantage for each sample"),
        (lambda s, k: s * 0, "not the numbers"),
        (None, "Not attempted yet"),
    ],
)
