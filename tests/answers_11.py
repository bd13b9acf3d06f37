"""Answers to the exercises of notebook 11, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import torch
from common import known
from torch.nn.functional import logsigmoid

from helpers import exercises

RLOO, GRPO = [1, -1 / 3, -1 / 3, -1 / 3], [1.5, -0.5, -0.5, -0.5]


KNOWN = []


KNOWN += known(
    exercises.check_group_advantages,
    [
        ({"RLOO": RLOO, "GRPO": GRPO}, "Correct"),
        ({"RLOO": [1, -0.33, -0.33, -0.33], "GRPO": torch.tensor(GRPO)}, "Correct"),
        ({"RLOO": [0.75, -0.25, -0.25, -0.25], "GRPO": GRPO}, "RLOO: this is the reward less the mean of all"),
        ({"RLOO": GRPO, "GRPO": GRPO}, "RLOO: this is divided"),
        ({"RLOO": [0, 1 / 3, 1 / 3, 1 / 3], "GRPO": GRPO}, "the means of the others"),
        ({"RLOO": [-x for x in RLOO], "GRPO": GRPO}, "RLOO: the sign"),
        ({"RLOO": [1, 2, 3, 4], "GRPO": GRPO}, "RLOO: not these"),
        ({"RLOO": RLOO, "GRPO": [0.75, -0.25, -0.25, -0.25]}, "GRPO: where is the division"),
        ({"RLOO": RLOO, "GRPO": [3**0.5, *[-(3**-0.5)] * 3]}, "divides by n"),
        ({"RLOO": RLOO, "GRPO": RLOO}, "GRPO: this is RLOO's"),
        ({"RLOO": RLOO, "GRPO": [2 * x for x in RLOO]}, "not of the others"),
        ({"RLOO": RLOO, "GRPO": [-x for x in GRPO]}, "GRPO: the sign"),
        ({"RLOO": RLOO, "GRPO": [1]}, "GRPO: not these"),
        ({"RLOO": RLOO}, "where is GRPO?"),
        ({"RLOO": None, "GRPO": None}, "Not attempted yet"),
        ([RLOO, GRPO], "should be a dictionary"),
        (None, "Not attempted yet"),    ],
)  # fmt: skip


def margins(c, r, rc, rr):
    return (c - rc) - (r - rr)


KNOWN += known(
    exercises.check_dpo_loss,
    [
        (lambda *x: -logsigmoid(x[4] * margins(*x[:4])).mean(), "Correct"),
        (lambda *x: (1 + (-x[4] * margins(*x[:4])).exp()).log().mean().item(), "Correct"),
        (lambda *x: -logsigmoid(x[4] * margins(*x[:4])).sum(), "this is the sum"),
        (lambda *x: logsigmoid(x[4] * margins(*x[:4])).mean(), "MINUS log sigmoid"),
        (lambda *x: -logsigmoid(margins(*x[:4])).mean(), "where is beta?"),
        (lambda *x: -logsigmoid(margins(*x[:4]) / x[4]).mean(), "does not divide"),
        (lambda *x: -logsigmoid(-x[4] * margins(*x[:4])).mean(), "changed places"),
        (lambda *x: -logsigmoid(x[4] * (x[0] - x[1])).mean(), "where is the reference?"),
        (lambda *x: -(x[4] * margins(*x[:4])).sigmoid().mean(), "where is the logarithm?"),
        (lambda *x: -logsigmoid(x[4] * margins(*x[:4]).mean()), "the mean comes last"),
        (lambda *x: -logsigmoid(x[4] * margins(x[0], x[1], -x[2], -x[3])).mean(), "the sign of the reference"),
        (lambda *x: -(x[4] * margins(*x[:4])).mean(), "where is log sigmoid?"),
        (lambda *x: -logsigmoid(x[4] * margins(*x[:4])), "expected one number"),
        (lambda *x: 7.0, "its margin is 3"),
        (lambda *x: None, "Not attempted yet"),
        (None, "Not attempted yet"),    ],
)  # fmt: skip
