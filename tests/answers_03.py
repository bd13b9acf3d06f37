"""Answers to the exercises of notebook 03, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

from common import known

from helpers import exercises

# ------------------------------------------------------------------------------------------------------------ right answers


def positive(scores):
    return next(entry["score"] for entry in scores if entry["label"] == "POSITIVE")


def calibration_error(table):
    return (table["count"] * (table["observed"] - table["predicted"]).abs()).sum() / table["count"].sum()


def batch_size(rates):
    return min(size for size, rate in rates.items() if rate >= 0.9 * max(rates.values()))


def padding_share(lengths, size):
    batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
    return 1 - sum(lengths) / sum(max(batch) * len(batch) for batch in batches)


RIGHT = [
    (exercises.check_positive, positive),
    (exercises.check_calibration_error, calibration_error),
    (exercises.check_batch_size, batch_size),
    (exercises.check_padding_share, padding_share),
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


def negative(scores):
    return next(entry["score"] for entry in scores if entry["label"] == "NEGATIVE")


def first_in_order(rates):
    return next(size for size, rate in rates.items() if rate >= 0.9 * max(rates.values()))


def eighty_percent(rates):
    return min(size for size, rate in rates.items() if rate >= 0.8 * max(rates.values()))


def padding_whole_batches(lengths, size):
    return padding_share(lengths[: len(lengths) // size * size], size)


def padding_full_last(lengths, size):
    batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
    return 1 - sum(lengths) / sum(max(batch) * size for batch in batches)


WRONG = [
    (exercises.check_positive, lambda scores: scores[0]["score"], "first entry"),
    (exercises.check_positive, lambda scores: max(entry["score"] for entry in scores), "first entry"),
    (exercises.check_positive, lambda scores: scores[1]["score"], "second or last entry"),
    (exercises.check_positive, lambda scores: scores[-1]["score"], "second or last entry"),
    (exercises.check_positive, lambda scores: 1 - negative(scores), "1 - P(NEGATIVE)"),
    (exercises.check_positive, negative, "read NEGATIVE"),
    (exercises.check_positive, lambda scores: scores, "it returned list"),
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
    (exercises.check_batch_size, lambda rates: max(rates, key=rates.get), "took the fastest"),
    (exercises.check_batch_size, max, "took the largest batch."),
    (exercises.check_batch_size, min, "took the smallest batch"),
    (
        exercises.check_batch_size,
        lambda rates: min(size for size in rates if rates[size] >= 0.9 * rates[max(rates)]),
        "the rate of the largest batch",
    ),
    (exercises.check_batch_size, first_in_order, "in the order given"),
    (exercises.check_batch_size, eighty_percent, "you gave 4; expected 8"),
    (
        exercises.check_batch_size,
        lambda rates: max(size for size in rates if rates[size] >= 0.9 * max(rates.values())),
        "largest batch that is fast enough",
    ),
    (exercises.check_padding_share, lambda ls, n: 1 - sum(ls) / (max(ls) * len(ls)), "longest of all"),
    (exercises.check_padding_share, lambda ls, n: 1 - padding_share(ls, n), "share of real tokens"),
    (
        exercises.check_padding_share,
        lambda ls, n: 1 / (1 - padding_share(ls, n)) - 1,
        "divided the padding by the real tokens",
    ),
    (exercises.check_padding_share, lambda ls, n: padding_share(sorted(ls), n), "sorted the lengths"),
    (
        exercises.check_padding_share,
        lambda ls, n: padding_share(sorted(ls, reverse=True), n),
        "sorted the lengths",
    ),
    (exercises.check_padding_share, padding_whole_batches, "left out the last batch"),
    (exercises.check_padding_share, padding_full_last, "as if it were full"),
]


KNOWN = [
    *((check, answer, "Correct") for check, answer in RIGHT),
    *WRONG,
    *(entry for check, _ in RIGHT for entry in known(check, UNUSABLE)),
]
