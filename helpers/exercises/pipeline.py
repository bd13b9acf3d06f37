"""Notebook 03: reading scores by name, calibration, confident mistakes."""

from helpers.exercises.base import Answers, Right, call, exercise, number

FUNCTION = "a function that returns a number"


@exercise(FUNCTION)
def check_stars(answer: object) -> str:
    """Exercise 1: answer(scores) -> the expected number of stars, as 0 to 1, from the five labels and scores of one text."""

    def judged(*probabilities):  # of 1 to 5 stars, as a pipeline sorts them
        entries = [
            {"label": f"{stars} star{'s' if stars > 1 else ''}", "score": probability}
            for stars, probability in enumerate(probabilities, 1)
        ]
        return sorted(entries, key=lambda entry: -entry["score"])

    rows = [(0.04, 0.06, 0.2, 0.4, 0.3), (0.62, 0.2, 0.1, 0.05, 0.03), (0.05, 0.1, 0.15, 0.2, 0.5)]
    given = numbers(answer, [(judged(*row),) for row in rows])

    def each(rule):
        return [rule(row) for row in rows]

    def expected(row):
        return sum(stars * probability for stars, probability in enumerate(row, 1))

    def by_place(row):
        return (expected(sorted(row, reverse=True)) - 1) / 4

    place = (
        "you took the number of stars from the entry's place. The entries are sorted by score, so the first is "
        "the likeliest, however many stars it has. Read the number in the label."
    )
    return Answers(
        (each(lambda row: (expected(row) - 1) / 4),
         Right("Correct: it reads the labels, and uses all five probabilities.")),
        (each(max),
         "you took the first entry's score. That says how sure the judge is, not how many stars: the second "
         "text, which is damned, would earn 0.62."),
        (each(lambda row: row.index(max(row)) / 4),
         "you took the stars of the first entry alone. A text with 4 stars at 0.40 would earn as much as one "
         "at 0.90. Weigh each number of stars by its probability."),
        (each(by_place), place),
        (each(lambda row: 1 - by_place(row)), place),
        (each(expected), "that is the number of stars, 1 to 5. Scale it to 0 to 1."),
        (each(lambda row: expected(row) / 5), "you divided by 5, so 1 star earns 0.2. Subtract 1 first."),
        (each(lambda row: (expected(row) - 1) / 5), "5 stars earn 0.8: from 1 star to 5 it is 4 steps, not 5."),
        (each(lambda row: 1 - (expected(row) - 1) / 4), "the wrong way round: 5 stars earn 0, and 1 star earns 1."),
        (each(lambda row: row[4]), "that is the probability of 5 stars. A text with 4 would be worth as little as one with 1."),
        (each(lambda row: row[3] + row[4]),
         "that is the probability of 4 stars or 5. All numbers of stars should count, each with its weight."),
        otherwise=f"for the list in the exercise you gave {given[0]:.3f}; expected 0.715.",
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


@exercise("a function that returns what `wilson` returns")
def check_undeserved(answer: object) -> str:
    """Exercise 3: answer(p, labels) -> the share of negative texts among those with p above 0.9, as `wilson` returns it."""
    import numpy as np

    from helpers.feedback.agreement import Share

    p = np.array(
        [0.91, 0.93, 0.95, 0.97, 0.96, 0.99, 0.98, 0.94, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.07, 0.05, 0.03, 0.02]
    )
    labels = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0])
    given = call(answer, p.copy(), labels.copy())
    if not isinstance(given, Share):
        hint = " (is a `return` missing?)" if given is None else ""
        return f"your function should return what `wilson` returns; it returned {type(given).__name__}{hint}."
    paid, negative, wrong = p > 0.9, labels == 0, (p > 0.5) != (labels == 1)
    sure = np.maximum(p, 1 - p) > 0.9

    def of(hits, among):
        return [(hits & among).sum() / among.sum(), among.sum()]

    return Answers(
        (of(negative, paid), Right("Correct: of the texts that are paid, those that should not be.")),
        (of(~negative, paid), "that is the share of positive texts, which deserve it. Label 0 is negative."),
        (of(negative & paid, p >= 0),
         "you divided by the number of all texts. Asked for is the share of those with P(POSITIVE) above 0.9."),
        (of(paid, negative),
         "you asked how many of the negative texts are paid. Asked for is how many of the paid texts are "
         "negative: divide by the number of texts with P(POSITIVE) above 0.9."),
        (of(paid, wrong),
         "you asked how many of the mistakes are above 0.9. Asked for is how many of the texts above 0.9 are "
         "mistakes: divide by the number of these texts."),
        (of(wrong, sure),
         "you took every text of which the judge is sure, also those below 0.1. They earn nothing: leave them out."),
        (of(negative, p > 0.5), "you took every text above 0.5. Nearly the full reward is above 0.9."),
        otherwise=f"of {paid.sum()} texts above 0.9, {(negative & paid).sum()} are negative; you counted among {given.n}.",
    ).sentence([number(given.share), given.n])  # fmt: skip


def numbers(answer: object, cases: list[tuple]) -> list[float]:
    """What the reader's function gives for each case (a tuple of arguments), as numbers."""
    returned = [call(answer, *arguments) for arguments in cases]
    hints = [" (is a `return` missing?)" if value is None else "" for value in returned]
    what = "your function should return a number; it returned "
    return [number(value, f"{what}{type(value).__name__}{hint}.") for value, hint in zip(returned, hints)]
