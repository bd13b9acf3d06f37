"""Answers to the exercises of notebook 03, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import numpy as np
from common import known

from helpers import exercises
from helpers.feedback.agreement import wilson

# ------------------------------------------------------------------------------------------------------------ right answers


def stars(scores):
    return sum(int(entry["label"][0]) * entry["score"] for entry in scores)


def star_reward(scores):
    return (stars(scores) - 1) / 4


def calibration_error(table):
    return (table["count"] * (table["observed"] - table["predicted"]).abs()).sum() / table["count"].sum()


def undeserved(p, labels):
    return wilson(int((labels[p > 0.9] == 0).sum()), int((p > 0.9).sum()))


RIGHT = [
    (exercises.check_stars, star_reward),
    (exercises.check_calibration_error, calibration_error),
    (exercises.check_undeserved, undeserved),
]


UNUSABLE = [
    (0.5, "should be a function"),
    (lambda *_: None, "is a `return` missing?"),
    (lambda *_: "0.5 or so", "it returned str"),
    (lambda *_: 1 / 0, "raised ZeroDivisionError"),
    (lambda: 0, "raised TypeError"),
    (lambda *_: 0.123, "expected"),
    (lambda *_: float("nan"), "expected"),
]

# ---------------------------------------------------------------------------------------------------------- known mistakes


def gaps(table):
    return table["observed"] - table["predicted"]


def by_place(scores):
    return sum(place * entry["score"] for place, entry in enumerate(scores)) / 4


def chance(scores, *labels):
    return sum(entry["score"] for entry in scores if entry["label"] in labels)


def among(hits, texts):
    return wilson(int((hits & texts).sum()), int(texts.sum()))


WRONG = [
    (exercises.check_stars, lambda scores: scores[0]["score"], "the first entry's score"),
    (
        exercises.check_stars,
        lambda scores: max(entry["score"] for entry in scores),
        "the first entry's score",
    ),
    (
        exercises.check_stars,
        lambda scores: (int(scores[0]["label"][0]) - 1) / 4,
        "stars of the first entry alone",
    ),
    (exercises.check_stars, by_place, "from the entry's place"),
    (exercises.check_stars, lambda scores: 1 - by_place(scores), "from the entry's place"),
    (exercises.check_stars, stars, "1 to 5. Scale it"),
    (exercises.check_stars, lambda scores: stars(scores) / 5, "divided by 5"),
    (exercises.check_stars, lambda scores: (stars(scores) - 1) / 5, "4 steps, not 5"),
    (exercises.check_stars, lambda scores: 1 - star_reward(scores), "wrong way round"),
    (exercises.check_stars, lambda scores: chance(scores, "5 stars"), "the probability of 5 stars"),
    (exercises.check_stars, lambda scores: chance(scores, "4 stars", "5 stars"), "4 stars or 5"),
    (exercises.check_stars, lambda scores: scores, "it returned list"),
    (exercises.check_calibration_error, lambda t: gaps(t).abs().mean(), "averaged over bins, so"),
    (
        exercises.check_calibration_error,
        lambda t: (t["count"] * gaps(t)).sum() / t["count"].sum(),
        "kept the signs, so",
    ),
    (
        exercises.check_calibration_error,
        lambda t: abs((t["count"] * (t["predicted"] - t["observed"])).sum() / t["count"].sum()),
        "cancel",
    ),
    (exercises.check_calibration_error, lambda t: gaps(t).mean(), "without their counts"),
    (
        exercises.check_calibration_error,
        lambda t: (t["count"] * gaps(t).abs()).sum(),
        "did not divide by the number of reviews",
    ),
    (
        exercises.check_calibration_error,
        lambda t: (t["count"] * gaps(t) ** 2).sum() / t["count"].sum(),
        "squared",
    ),
    (exercises.check_calibration_error, lambda t: gaps(t).abs().max(), "largest gap"),
    (exercises.check_calibration_error, lambda t: gaps(t).abs().sum(), "without weights"),
    (exercises.check_undeserved, lambda p, y: among(y == 1, p > 0.9), "share of positive texts"),
    (exercises.check_undeserved, lambda p, y: among((y == 0) & (p > 0.9), p >= 0), "number of all texts"),
    (exercises.check_undeserved, lambda p, y: among(p > 0.9, y == 0), "how many of the negative texts"),
    (
        exercises.check_undeserved,
        lambda p, y: among(p > 0.9, (p > 0.5) != (y == 1)),
        "how many of the mistakes",
    ),
    (
        exercises.check_undeserved,
        lambda p, y: among((p > 0.5) != (y == 1), np.maximum(p, 1 - p) > 0.9),
        "also those below 0.1",
    ),
    (exercises.check_undeserved, lambda p, y: among(y == 0, p > 0.5), "every text above 0.5"),
    (exercises.check_undeserved, lambda p, y: among(y == 0, p > 0.95), "you counted among 4"),
    (exercises.check_undeserved, lambda p, y: undeserved(p, y).share, "it returned float"),
    (exercises.check_undeserved, lambda p, y: None, "is a `return` missing?"),
    (exercises.check_undeserved, lambda p, y: wilson(0, 0), "expected a number"),
    (exercises.check_undeserved, 0.25, "should be a function"),
    (exercises.check_undeserved, lambda p: p, "raised TypeError"),
]


KNOWN = [
    *((check, answer, "Correct") for check, answer in RIGHT),
    *WRONG,
    *(entry for check, _ in RIGHT[:2] for entry in known(check, UNUSABLE)),
]
