"""Notebook 03: reading scores, calibration, batch sizes, padding."""

from helpers.exercises.base import Answers, Right, call, close, exercise, number

FUNCTION = "a function that returns a number"


@exercise(FUNCTION)
def check_positive(answer: object) -> str:
    """Exercise 1: answer(scores) -> P(POSITIVE), from the list of labels and scores of one text."""

    def judged(**scores):  # as a pipeline sorts them
        pairs = sorted(scores.items(), key=lambda pair: -pair[1])
        return [{"label": label, "score": score} for label, score in pairs]

    hated = judged(POSITIVE=0.2, NEGATIVE=0.8)
    cases = [judged(POSITIVE=0.9, NEGATIVE=0.1), hated, judged(POSITIVE=0.3, NEGATIVE=0.2, NEUTRAL=0.5)]
    given = numbers(answer, [([dict(entry) for entry in case],) for case in cases])

    def each(rule):
        return [rule(case) for case in cases]

    def named(label):
        return each(lambda case: next(entry["score"] for entry in case if entry["label"] == label))

    return Answers(
        (named("POSITIVE"), Right("Correct: it reads the label and does not care where the entry stands.")),
        (each(lambda case: case[0]["score"]),
         "you took the first entry. The entries are sorted by score, so the first is the winner, whichever "
         "class that is: a review that the judge hates would earn 0.8."),
        (lambda given: close(given[:2], each(lambda case: case[1]["score"])[:2]),
         "you took the second or last entry. That is POSITIVE only where POSITIVE loses: a review that the "
         "judge loves would earn 0.1. Look for the label."),
        ([1 - score for score in named("NEGATIVE")],
         "you took 1 - P(NEGATIVE). With two classes that is P(POSITIVE); with a third class, NEUTRAL, it is "
         "not."),
        (named("NEGATIVE"), "you read NEGATIVE: the reward would train the model to write bad reviews."),
        otherwise=f"for {hated} your function gave {given[1]:.2f}; expected 0.20.",
    ).sentence(given)  # fmt: skip


@exercise(FUNCTION)
def check_calibration_error(answer: object) -> str:
    """Exercise 2: answer(table) -> expected calibration error, from the counts and shares of each bin."""
    import pandas as pd

    table = pd.DataFrame(
        {"count": [60, 10, 30], "predicted": [0.05, 0.5, 0.9], "observed": [0.10, 0.2, 0.95]},
        index=["0.0-0.1", "0.5-0.6", "0.9-1.0"],
    )
    (given,) = numbers(answer, [(table.copy(),)])
    weight, gap = table["count"] / table["count"].sum(), table["observed"] - table["predicted"]
    right = (weight * gap.abs()).sum()
    return Answers(
        (right, Right("Correct: a gap counts as much as the reviews that share it.")),
        (gap.abs().mean(),
         "you averaged over bins, so a bin of 10 reviews weighs as much as one of 60. Weigh each gap by its "
         "bin's share of the reviews."),
        ((weight * gap).sum(),
         "you kept the signs, so gaps above and below the diagonal cancel. Take absolute values."),
        (abs((weight * gap).sum()),
         "you took the absolute value of the sum. Take it of each gap, before adding up: otherwise gaps "
         "above and below the diagonal cancel."),
        (gap.mean(), "you kept the signs, and averaged over bins without their counts."),
        ((table["count"] * gap.abs()).sum(),
         "you weighed by counts but did not divide by the number of reviews."),
        ((weight * gap**2).sum(), "you squared the gaps. This measure takes absolute values."),
        (gap.abs().max(),
         "you took the largest gap. That is the maximum calibration error, another measure."),
        (gap.abs().sum(), "you added the gaps without weights."),
        otherwise="for a table with the gaps 0.05, 0.30, 0.05 and the counts 60, 10, 30 you gave "
        f"{given:.3f}; expected {right:.3f}.",
    ).sentence(given)  # fmt: skip


@exercise(FUNCTION)
def check_batch_size(answer: object) -> str:
    """Exercise 3: answer(rates) -> the smallest size within 10% of the best rate; rates: size -> speed."""
    cases = [
        {1: 100, 2: 290, 4: 530, 8: 570, 16: 600, 32: 590, 64: 620},
        {1: 100, 4: 300, 16: 500, 64: 320},  # too large a batch is slower
        {64: 410, 8: 400, 2: 150, 16: 420},  # in any order
    ]
    given = numbers(answer, [(dict(case),) for case in cases])

    def each(rule):
        return [rule(case) for case in cases]

    def enough(case, best=None):
        return [size for size, rate in case.items() if rate >= 0.9 * (best or max(case.values()))]

    return Answers(
        (each(lambda case: min(enough(case))), Right("Correct: nearly the best rate, for the least memory.")),
        (each(lambda case: max(case, key=case.get)),
         "you took the fastest. A much smaller batch may be within 10% of it, and a larger one takes more "
         "memory. Near the top the order is noise, too."),
        (each(max),
         "you took the largest batch. It is not always the fastest, and it takes the most memory."),
        (each(min), "you took the smallest batch. It must also reach 90% of the best rate."),
        (each(lambda case: min(enough(case, case[max(case)]))),
         "you compared with the rate of the largest batch. Compare with the best rate of all."),
        (each(lambda case: enough(case)[0]),
         "you took the first that is fast enough, in the order given. Sort the batch sizes first."),
        (each(lambda case: max(enough(case))),
         "you took the largest batch that is fast enough. The smallest does the same work in less memory."),
        otherwise=f"for {cases[0]} you gave {given[0]:g}; expected 8, which reaches 570 of at most 620 texts "
        "a second.",
    ).sentence(given)  # fmt: skip


@exercise(FUNCTION)
def check_padding_share(answer: object) -> str:
    """Exercise 4: answer(lengths, batch_size) -> share of padding among all positions, in the order given."""
    cases = [([3, 10, 4, 8, 6], 2), ([2, 4, 6, 8, 10], 2)]
    given = numbers(answer, [(list(lengths), size) for lengths, size in cases])

    def each(rule):
        return [rule(*case) for case in cases]

    def share(lengths, size, full=False):
        batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
        return 1 - sum(lengths) / sum(max(batch) * (size if full else len(batch)) for batch in batches)

    def whole_batches(lengths, size):
        return share(lengths[: len(lengths) // size * size], size)

    sort = (
        "you sorted the lengths first. Take the batches in the order given; sorting is for the caller to try."
    )
    return Answers(
        (each(share), Right("Correct: each batch is padded to its own longest text.")),
        (each(lambda lengths, size: share(lengths, len(lengths))),
         "you padded all texts to the longest of all. Each batch is padded to the longest in that batch."),
        (each(lambda *case: 1 - share(*case)),
         "you returned the share of real tokens. Padding is the rest: 1 minus that."),
        (each(lambda *case: 1 / (1 - share(*case)) - 1),
         "you divided the padding by the real tokens. Divide by all positions, real and padding."),
        (each(lambda lengths, size: share(sorted(lengths), size)), sort),
        (each(lambda lengths, size: share(sorted(lengths, reverse=True), size)), sort),
        (each(whole_batches), "you left out the last batch, which is smaller."),
        (each(lambda *case: share(*case, full=True)),
         "you counted the last batch as if it were full. It holds only the texts that are left."),
        otherwise=f"for the lengths {cases[0][0]} in batches of 2 you gave {given[0]:.3f}; expected "
        f"{share(*cases[0]):.3f}.",
    ).sentence(given)  # fmt: skip


def numbers(answer: object, cases: list[tuple]) -> list[float]:
    """What the reader's function gives for each case (a tuple of arguments), as numbers."""
    returned = [call(answer, *arguments) for arguments in cases]
    hints = [" (is a `return` missing?)" if value is None else "" for value in returned]
    what = "your function should return a number; it returned "
    return [number(value, f"{what}{type(value).__name__}{hint}.") for value, hint in zip(returned, hints)]
