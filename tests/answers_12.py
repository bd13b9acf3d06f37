"""Answers to the exercises of notebook 12, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

from common import known

from helpers import exercises

KNOWN = []


KNOWN += known(
    exercises.check_memory,
    [
        (1.82, "Correct"),
        (4 * 0.355 + 16 * 0.0252, "Correct"),
        (1.724, "its own copy"),
        (1.698, "GiB"),
        (1.52, "training state"),
        (1.42, "weights alone"),
        (3.14, "shares what is frozen"),
        (7.1, "everything learning"),
        (1.62, "two blocks learn, not one"),
        (9, "not it"),
        ("1.82 GB", "expected a number"),
        (None, "Not attempted yet"),
    ],
)


KNOWN += known(
    exercises.check_cost,
    [
        (0.28, "Correct"),
        (0.3175, "machine B"),
        (16.667, "3,600 seconds"),
        (0.694, "Multiply by the price"),
        (0.198, "Multiply by the price"),
        (1_000, "you have seconds"),
        (2_500, "you have seconds"),
        (5, "not it"),
        (None, "Not attempted yet"),
    ],
)


KNOWN += known(
    exercises.check_accumulate,
    [
        (lambda sums, tokens: sum(sums) / sum(tokens), "Correct"),
        (
            lambda sums, tokens: sum(s / n for s, n in zip(sums, tokens)) / len(sums),
            "mean of the micro-batches",
        ),
        (lambda sums, tokens: sum(s / n for s, n in zip(sums, tokens)), "as trlX does"),
        (lambda sums, tokens: sum(sums), "divide by all the tokens"),
        (lambda sums, tokens: sum(sums) / len(sums), "not by that of micro-batches"),
        (lambda sums: 1, "TypeError"),
        (lambda sums, tokens: "a", "expected a number"),
        (3, "should be a function"),
        (None, "Not attempted yet"),
    ],
)
