"""Answers to the exercises of notebook 09, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import math

import torch
from common import known
from torch.nn.functional import binary_cross_entropy_with_logits as right_loss
from torch.nn.functional import logsigmoid

from helpers import exercises

KNOWN = []


KNOWN += known(
    exercises.check_error_rate,
    [
        ((1 - math.sqrt(0.46)) / 2, "Correct"),
        (0.161, "Correct"),
        (torch.tensor(0.161), "Correct"),
        (0.839, "above one half"),
        (0.27, "disagree"),
        (0.135, "both can err"),
        (0.1456, "both are wrong"),
        (0.4, "not it"),
        ("16%", "expected a number"),
        (math.nan, "not it"),
        (None, "Not attempted yet"),
    ],
)


KNOWN += known(
    exercises.check_raw_beta,
    [
        (0.125, "Correct"),
        (0.05, "weigh 2.5 times"),
        (0.02, "other way round"),
        (0.15, "constant"),
        (0.3125, "square"),
        (7, "not it"),
        (..., "Not attempted yet"),
    ],
)


def best(y):
    return math.log(y / (1 - y))


def naive(margin, y):
    wins = torch.sigmoid(margin)
    return -(y * wins.log() + (1 - y) * (1 - wins).log()).mean()


def check_graded_loss(both):
    return exercises.check_graded_loss(*both)


KNOWN += known(
    check_graded_loss,
    [
        ((right_loss, best), "Correct"),
        ((lambda m, y: right_loss(m, y, reduction="sum"), best), "take the mean"),
        ((lambda m, y: -right_loss(m, y), best), "sign"),
        ((lambda m, y: right_loss(-m, y), best), "swapped"),
        ((lambda m, y: -(y * logsigmoid(m)).mean(), best), "half is missing"),
        ((lambda m, y: -logsigmoid(m).mean(), best), "plays no part"),
        ((lambda m, y: right_loss(m, (y > 0.5).float()), best), "rounded"),
        ((naive, best), "not finite"),
        ((lambda m, y: right_loss(m, y, reduction="none"), best), "one number"),
        ((lambda m, y: m.sum(), best), "for margins"),
        ((right_loss, lambda y: y), "not a margin"),
        ((right_loss, lambda y: 1.0), "elsewhere"),
        ((lambda m, y: 1 / 0, best), "ZeroDivisionError"),
        ((right_loss, lambda y: None), "Not attempted yet"),
        ((lambda m, y: None, lambda y: None), "Not attempted yet"),
        ((3, best), "should be a function"),
    ],
)
