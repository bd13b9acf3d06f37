"""Answers to the exercises of notebook 08, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import math
from statistics import fmean, pstdev, stdev

from common import known

from helpers import exercises

KNOWN = []


def errors(before, after, deviation=pstdev, root=math.sqrt):
    return [deviation(each) / root(len(each)) for each in (before, after)]


def change(before, after):
    return fmean(after) - fmean(before)


KNOWN += known(
    exercises.check_standard_errors,
    [
        (lambda b, a: change(b, a) / math.hypot(*errors(b, a)), "Correct"),
        (lambda b, a: change(b, a) / math.hypot(*errors(b, a, stdev)), "Correct"),
        (lambda b, a: change(a, b) / math.hypot(*errors(b, a)), "the sign"),
        (lambda b, a: change(b, a) / sum(errors(b, a)), "add their squares"),
        (lambda b, a: change(b, a) / math.hypot(pstdev(b), pstdev(a)), "standard deviations"),
        (lambda b, a: change(b, a) / math.hypot(*errors(b, a, root=float)), "not with n"),
        (lambda b, a: change(b, a) / errors(b, a)[0], "the mean after has an error too"),
        (lambda b, a: change(b, a) / errors(b, a, stdev)[1], "the mean before has an error too"),
        (lambda b, a: change(b, a) / math.hypot(*errors(b, a)) ** 2, "take the root"),
        (change, "the change of the mean"),
        (lambda b, a: 7.0, "not this number"),
        (lambda b, a: "seven", "expected a number"),
        (lambda b, a: None, "Not attempted yet"),
        (None, "Not attempted yet"),
    ],
)


def parts(logits, tokens):
    logs = logits.log_softmax(-1)
    return logs.gather(-1, tokens[..., None])[..., 0], -(logs.exp() * logs).sum(-1)


def mean(values, mask):
    return (values * mask).sum() / mask.sum()


KNOWN += known(
    exercises.check_log_pi_plus_entropy,
    [
        (lambda x, t, m: mean(sum(parts(x, t)), m), "Correct"),
        (lambda x, t, m: mean(sum(parts(x, t)), m).item(), "Correct"),
        (lambda x, t, m: sum(parts(x, t))[m.bool()].mean(), "Correct"),
        (lambda x, t, m: sum(parts(x, t)).mean(), "padding is counted"),
        (lambda x, t, m: (sum(parts(x, t)) * m).mean(), "divide by mask.sum()"),
        (lambda x, t, m: (sum(parts(x, t)) * m).sum(), "this is the sum"),
        (lambda x, t, m: mean(parts(x, t)[0], m), "log pi alone"),
        (lambda x, t, m: mean(parts(x, t)[1], m), "the entropy alone"),
        (lambda x, t, m: mean(parts(x, t)[0] - parts(x, t)[1], m), "the sign"),
        (lambda x, t, m: -mean(sum(parts(x, t)), m), "the wrong way round"),
        (lambda x, t, m: mean(x.gather(-1, t[..., None])[..., 0] + parts(x, t)[1], m), "log_softmax"),
        (lambda x, t, m: sum(parts(x, t)).sum(1), "expected one number"),
        (lambda x, t, m: 7.0, "-1.41 and 0.83"),
        (lambda x, t, m: None, "Not attempted yet"),
        (None, "Not attempted yet"),
    ],
)
