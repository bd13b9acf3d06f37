"""Notebook 03: reading scores, calibration, batch sizes, padding."""

from helpers.exercises.base import call, close, not_attempted, report, unattempted


def check_positive(answer) -> bool:
    """Exercise 1: answer(scores) -> P(POSITIVE), from the list of {"label", "score"} that a pipeline gives for one text."""
    if unattempted(answer):
        return not_attempted()

    def judged(**scores):  # as a pipeline sorts them
        pairs = sorted(scores.items(), key=lambda pair: -pair[1])
        return [{"label": label, "score": score} for label, score in pairs]

    loved, hated = judged(POSITIVE=0.9, NEGATIVE=0.1), judged(POSITIVE=0.2, NEGATIVE=0.8)
    three = judged(POSITIVE=0.3, NEGATIVE=0.2, NEUTRAL=0.5)
    cases = [loved, hated, three]
    given = numbers(answer, [(case,) for case in cases])
    if isinstance(given, str):
        return report(given)

    def same(rule):
        return close(given, [rule(case) for case in cases])

    def named(case, label):
        return next(entry["score"] for entry in case if entry["label"] == label)

    if same(lambda case: named(case, "POSITIVE")):
        return report(None, "Correct: it reads the label and does not care where the entry stands.")
    if same(lambda case: case[0]["score"]):
        return report(
            "you took the first entry. The entries are sorted by score, so the first is the winner, whichever class that is: "
            "a review that the judge hates would earn 0.8."
        )
    if close(given[:2], [case[1]["score"] for case in cases[:2]]):
        return report(
            "you took the second or last entry. That is POSITIVE only where POSITIVE loses: a review that the judge loves "
            "would earn 0.1. Look for the label."
        )
    if same(lambda case: 1 - named(case, "NEGATIVE")):
        return report(
            "you took 1 - P(NEGATIVE). With two classes that is P(POSITIVE); with a third class, NEUTRAL, it is not."
        )
    if same(lambda case: named(case, "NEGATIVE")):
        return report("you read NEGATIVE: the reward would train the model to write bad reviews.")
    return report(f"for {hated} your function gave {given[1]:.2f}; expected 0.20.")


def check_calibration_error(answer) -> bool:
    """Exercise 2: answer(table) -> expected calibration error, from the columns count, predicted and observed."""
    if unattempted(answer):
        return not_attempted()
    import pandas as pd

    table = pd.DataFrame(
        {"count": [60, 10, 30], "predicted": [0.05, 0.5, 0.9], "observed": [0.10, 0.2, 0.95]},
        index=["0.0-0.1", "0.5-0.6", "0.9-1.0"],
    )
    given = numbers(answer, [(table.copy(),)])
    if isinstance(given, str):
        return report(given)
    weight, gap = table["count"] / table["count"].sum(), table["observed"] - table["predicted"]
    right = (weight * gap.abs()).sum()
    mistakes = [
        (gap.abs().mean(), "you averaged over bins, so a bin of 10 reviews weighs as much as one of 60. Weigh each gap by "
         "its bin's share of the reviews."),
        ((weight * gap).sum(), "you kept the signs, so gaps above and below the diagonal cancel. Take absolute values."),
        (abs((weight * gap).sum()), "you took the absolute value of the sum. Take it of each gap, before adding up: "
         "otherwise gaps above and below the diagonal cancel."),
        (gap.mean(), "you kept the signs, and averaged over bins without their counts."),
        ((table["count"] * gap.abs()).sum(), "you weighed by counts but did not divide by the number of reviews."),
        ((weight * gap**2).sum(), "you squared the gaps. This measure takes absolute values."),
        (gap.abs().max(), "you took the largest gap. That is the maximum calibration error, another measure."),
        (gap.abs().sum(), "you added the gaps without weights."),
    ]  # fmt: skip
    if close(given, [right]):
        return report(None, "Correct: a gap counts as much as the reviews that share it.")
    for value, mistake in mistakes:
        if close(given, [value]):
            return report(mistake)
    return report(
        f"for a table with the gaps 0.05, 0.30, 0.05 and the counts 60, 10, 30 you gave {given[0]:.3f}; expected {right:.3f}."
    )


def check_batch_size(answer) -> bool:
    """Exercise 3: answer(rates) -> the smallest batch size within 10% of the best rate; rates: batch size -> texts per second."""
    if unattempted(answer):
        return not_attempted()
    cases = [
        {1: 100, 2: 290, 4: 530, 8: 570, 16: 600, 32: 590, 64: 620},
        {1: 100, 4: 300, 16: 500, 64: 320},  # too large a batch is slower
        {64: 410, 8: 400, 2: 150, 16: 420},  # in any order
    ]
    given = numbers(answer, [(dict(case),) for case in cases])
    if isinstance(given, str):
        return report(given)

    def same(rule):
        return close(given, [rule(case) for case in cases])

    def reaching(case, rate):
        return [size for size, found in case.items() if found >= 0.9 * rate]

    def the_best(case):
        return max(case, key=case.get)

    if same(lambda case: min(reaching(case, max(case.values())))):
        return report(None, "Correct: nearly the best rate, for the least memory.")
    if same(the_best):
        return report(
            "you took the fastest. A much smaller batch may be within 10% of it, and a larger one takes more memory. "
            "Near the top the order is noise, too."
        )
    if same(max):
        return report(
            "you took the largest batch. It is not always the fastest, and it takes the most memory."
        )
    if same(min):
        return report("you took the smallest batch. It must also reach 90% of the best rate.")
    if same(lambda case: min(reaching(case, case[max(case)]))):
        return report("you compared with the rate of the largest batch. Compare with the best rate of all.")
    if same(lambda case: reaching(case, max(case.values()))[0]):
        return report(
            "you took the first that is fast enough, in the order given. Sort the batch sizes first."
        )
    if same(lambda case: max(reaching(case, max(case.values())))):
        return report(
            "you took the largest batch that is fast enough. The smallest does the same work in less memory."
        )
    return report(
        f"for {cases[0]} you gave {given[0]:g}; expected 8, which reaches 570 of at most 620 texts a second."
    )


def check_padding_share(answer) -> bool:
    """Exercise 4: answer(lengths, batch_size) -> share of padding among all positions, batches taken in the order given."""
    if unattempted(answer):
        return not_attempted()
    cases = [([3, 10, 4, 8, 6], 2), ([2, 4, 6, 8, 10], 2)]
    given = numbers(answer, cases)
    if isinstance(given, str):
        return report(given)

    def batches(lengths, size):
        return [lengths[start : start + size] for start in range(0, len(lengths), size)]

    def share(lengths, size):
        total = sum(max(batch) * len(batch) for batch in batches(lengths, size))
        return 1 - sum(lengths) / total

    def whole_batches(lengths, size):
        return share(lengths[: len(lengths) // size * size], size)

    def full_last_batch(lengths, size):
        return 1 - sum(lengths) / sum(max(batch) * size for batch in batches(lengths, size))

    def same(rule):
        return close(given, [rule(*case) for case in cases])

    if same(share):
        return report(None, "Correct: each batch is padded to its own longest text.")
    if same(lambda lengths, size: 1 - sum(lengths) / (max(lengths) * len(lengths))):
        return report(
            "you padded all texts to the longest of all. Each batch is padded to the longest in that batch."
        )
    if same(lambda lengths, size: 1 - share(lengths, size)):
        return report("you returned the share of real tokens. Padding is the rest: 1 minus that.")
    if same(lambda lengths, size: 1 / (1 - share(lengths, size)) - 1):
        return report(
            "you divided the padding by the real tokens. Divide by all positions, real and padding."
        )
    if same(lambda lengths, size: share(sorted(lengths), size)) or same(
        lambda lengths, size: share(sorted(lengths, reverse=True), size)
    ):
        return report(
            "you sorted the lengths first. Take the batches in the order given; sorting is for the caller to try."
        )
    if same(whole_batches):
        return report("you left out the last batch, which is smaller.")
    if same(full_last_batch):
        return report("you counted the last batch as if it were full. It holds only the texts that are left.")
    return report(
        f"for the lengths {cases[0][0]} in batches of 2 you gave {given[0]:.3f}; expected {share(*cases[0]):.3f}."
    )


def numbers(function, cases) -> list[float] | str:
    """What an answer gives for each case (a tuple of arguments), as numbers; or, as a sentence, why that was not to be had."""
    given = []
    for arguments in cases:
        value, error = call(function, *arguments)
        if error:
            return error
        try:
            given.append(float(value))
        except (TypeError, ValueError):
            hint = " (is a `return` missing?)" if value is None else ""
            return f"your function should return a number; it returned {type(value).__name__}{hint}."
    return given
