"""The checks of notebook 09 name the mistake that was made, and accept what is right."""

import math

import pytest
import torch
from common import said
from torch.nn.functional import binary_cross_entropy_with_logits as right_loss
from torch.nn.functional import logsigmoid

from helpers import exercises


@pytest.mark.parametrize(
    "answer, message",
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
def test_error_rate(capsys, answer, message):
    assert message in said(capsys, exercises.check_error_rate(answer), message)


@pytest.mark.parametrize(
    "answer, message",
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
def test_raw_beta(capsys, answer, message):
    assert message in said(capsys, exercises.check_raw_beta(answer), message)


def best(y):
    return math.log(y / (1 - y))


def naive(margin, y):
    wins = torch.sigmoid(margin)
    return -(y * wins.log() + (1 - y) * (1 - wins).log()).mean()


@pytest.mark.parametrize(
    "loss, margin_of, message",
    [
        (right_loss, best, "Correct"),
        (lambda m, y: right_loss(m, y, reduction="sum"), best, "take the mean"),
        (lambda m, y: -right_loss(m, y), best, "sign"),
        (lambda m, y: right_loss(-m, y), best, "swapped"),
        (lambda m, y: -(y * logsigmoid(m)).mean(), best, "half is missing"),
        (lambda m, y: -logsigmoid(m).mean(), best, "plays no part"),
        (lambda m, y: right_loss(m, (y > 0.5).float()), best, "rounded"),
        (naive, best, "not finite"),
        (lambda m, y: right_loss(m, y, reduction="none"), best, "one number"),
        (lambda m, y: m.sum(), best, "for margins"),
        (right_loss, lambda y: y, "not a margin"),
        (right_loss, lambda y: 1.0, "elsewhere"),
        (lambda m, y: 1 / 0, best, "ZeroDivisionError"),
        (right_loss, lambda y: None, "Not attempted yet"),
        (lambda m, y: None, lambda y: None, "Not attempted yet"),
        (3, best, "should be a function"),
    ],
)
def test_graded_loss(capsys, loss, margin_of, message):
    assert message in said(capsys, exercises.check_graded_loss(loss, margin_of), message)
