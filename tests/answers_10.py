"""Answers to the exercises of notebook 10, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import torch
from common import known

from helpers import exercises

KNOWN = []


KNOWN += known(
    exercises.check_cautious_reward,
    [
        (lambda r, k: r.mean(dim=0) - k * r.std(dim=0), "Correct"),
        (lambda r, k: torch.stack([s.mean() - k * s.std() for s in r.T]), "Correct"),
        (lambda r, k: r.mean(0) + k * r.std(0), "pays MORE"),
        (lambda r, k: r.min(0).values, "this is the minimum"),
        (lambda r, k: r.mean(0), "the mean alone"),
        (lambda r, k: r.mean(0) - r.std(0), "where is k"),
        (lambda r, k: r.mean(0) - k * r.var(0), "this is the variance"),
        (lambda r, k: r.mean(0) - k * r.std(0, unbiased=False), "divides by n;"),
        (lambda r, k: r.mean(0) - k * r.std(), "of all numbers together"),
        (lambda r, k: r.mean(1) - k * r.std(1), "shape (samples,)"),
        (lambda r, k: r.mean() - k * r.std(), "shape (samples,)"),
        (lambda r, k: 7 * r.mean(0), "mean 2 and deviation 1"),
        (lambda r, k: None, "Not attempted yet"),
        (None, "Not attempted yet"),    ],
)  # fmt: skip


def rows(first, second, choices):
    return [(a, b, c) for a, b, c in zip(first, second, choices) if a != b and c != "tie"]


KNOWN += known(
    exercises.check_longer_chosen,
    [
        (lambda *x: sum((a > b) == (c == "first") for a, b, c in rows(*x)) / len(rows(*x)), "Correct"),
        (lambda *x: sum((a < b) == (c == "first") for a, b, c in rows(*x)) / len(rows(*x)), "the SHORTER"),
        (lambda *x: sum((a > b) == (c == "first") for a, b, c in rows(*x)) / len(x[0]), "leave out ties"),
        (lambda *x: sum((a > b) == (c == "first") for a, b, c in zip(*x)) / len(x[0]), "a tie chose neither"),
        (lambda *x: sum((a > b) == (c == "first") for a, b, c in zip(*x) if c != "tie") / 6, "leave both out"),
        (lambda *x: sum((a > b) == (c == "first") for a, b, c in rows(*x)), "divide by the pairs"),
        (lambda *x: 80, "per cent"),
        (lambda *x: 0.5, "Five of the seven"),
        (lambda *x: "much", "expected a number"),
        (lambda *x: None, "Not attempted yet"),
        (None, "Not attempted yet"),    ],
)  # fmt: skip
