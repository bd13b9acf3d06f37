"""Scale: memory of a run, its cost, and gradients added up over micro-batches."""

from helpers.exercises.base import Right, call, exercise, judge_number

WEIGHTS, BLOCK = 0.355, 0.0126  # GPT-2 medium, in thousand millions


@exercise("a number of GB")
def check_memory(answer: object) -> str:
    """GB for weights, reference and training state of GPT-2 medium with two blocks unfrozen, in float32."""
    learn = 2 * BLOCK
    right = 4 * WEIGHTS + 16 * learn
    return judge_number(
        answer,
        (right, Right("Correct.")),
        (4 * WEIGHTS + 12 * learn,
         "for each weight that learns the reference has its own copy, 4 bytes, beside gradient and averages, "
         "12."),
        (4 * WEIGHTS + 4 * learn, "that leaves out the training state: a gradient and Adam's two averages."),
        (right * 1e9 / 2**30, "those are GiB, of 2^30 bytes; a GB here is 10^9."),
        (4 * WEIGHTS, "those are the weights alone."),
        (8 * WEIGHTS + 12 * learn,
         "the reference shares what is frozen. It needs a copy of the two blocks only."),
        (20 * WEIGHTS, "that is everything learning. Here two blocks do."),
        (4 * WEIGHTS + 16 * BLOCK, "two blocks learn, not one."),
        tolerance=0.01,
    )  # fmt: skip


@exercise("a number, the cost")
def check_cost(answer: object) -> str:
    """The cheaper of 50,000 rollouts at 20 a second and 0.40 an hour, or at 70 a second and 1.60 an hour."""
    a_hours, b_hours = 50_000 / 20 / 3600, 50_000 / 70 / 3600
    a, b = a_hours * 0.40, b_hours * 1.60
    hours = "those are hours. Multiply by the price of one."
    seconds = "divide by 3,600: the price is that of an hour, and you have seconds."
    return judge_number(
        answer,
        (a, Right("Correct.")),
        (b, "that is machine B, the faster one. Compare it with A."),
        (a * 60, "an hour has 3,600 seconds, not 60."),
        *((wrong, hours) for wrong in (a_hours, b_hours)),
        *((wrong, seconds) for wrong in (a * 3600, a_hours * 3600)),
        tolerance=0.005,
    )


@exercise("a function that returns a number")
def check_accumulate(accumulate: object) -> str:
    """The mean over tokens from sums and counts of micro-batches."""
    sums, tokens = [6.0, 1.0, 2.5], [12, 4, 2]
    means = [s / n for s, n in zip(sums, tokens)]
    return judge_number(
        call(accumulate, list(sums), list(tokens)),
        (sum(sums) / sum(tokens), Right("Correct.")),
        (sum(means) / len(means),
         "that is the mean of the micro-batches' means: short micro-batches count too much."),
        (sum(means),
         "that adds the micro-batches' means, as trlX does: more micro-batches make a larger loss."),
        (sum(sums), "that is the sum over tokens. The loss is a mean: divide by all the tokens."),
        (sum(sums) / len(sums), "divide by the number of tokens, not by that of micro-batches."),
        tolerance=1e-6,
    )  # fmt: skip
