"""Notebook 11: memory of a run, its cost, and gradients added up over micro-batches."""

from helpers.exercises.base import call, not_attempted, number_mistake, report, unattempted

WEIGHTS, BLOCK = 0.355, 0.0126  # GPT-2 medium, in thousand millions


def check_memory(answer) -> bool:
    """GB for weights, reference and training state of GPT-2 medium with two blocks unfrozen, in float32."""
    if unattempted(answer):
        return not_attempted()
    learn = 2 * BLOCK
    mistakes = {
        4 * WEIGHTS
        + 12
        * learn: "for each weight that learns the reference has its own copy, 4 bytes, beside gradient and averages, 12.",
        4 * WEIGHTS + 4 * learn: "that leaves out the training state: a gradient and Adam's two averages.",
        (4 * WEIGHTS + 16 * learn) * 1e9 / 2**30: "those are GiB, of 2^30 bytes; a GB here is 10^9.",
        4 * WEIGHTS: "those are the weights alone.",
        8 * WEIGHTS
        + 12 * learn: "the reference shares what is frozen. It needs a copy of the two blocks only.",
        20 * WEIGHTS: "that is everything learning. Here two blocks do.",
        4 * WEIGHTS + 16 * BLOCK: "two blocks learn, not one.",
    }
    return report(number_mistake(answer, 4 * WEIGHTS + 16 * learn, mistakes, 0.01))


def check_cost(answer) -> bool:
    """The cheaper of 50,000 rollouts at 20 a second and 0.40 an hour, or at 70 a second and 1.60 an hour."""
    if unattempted(answer):
        return not_attempted()
    (a_hours, a), (b_hours, b) = (
        (50_000 / rate / 3600, 50_000 / rate / 3600 * price) for rate, price in [(20, 0.40), (70, 1.60)]
    )
    hours, seconds = (
        "those are hours. Multiply by the price of one.",
        "divide by 3,600: the price is that of an hour, and you have seconds.",
    )
    mistakes = {
        b: "that is machine B, the faster one. Compare it with A.",
        a * 60: "an hour has 3,600 seconds, not 60.",
        **dict.fromkeys([a_hours, b_hours], hours),
        **dict.fromkeys([a * 3600, a_hours * 3600], seconds),
    }
    return report(number_mistake(answer, a, mistakes, 0.005))


def check_accumulate(accumulate) -> bool:
    """The mean over tokens from sums and counts of micro-batches."""
    if unattempted(accumulate):
        return not_attempted()
    sums, tokens = [6.0, 1.0, 2.5], [12, 4, 2]
    given, error = call(accumulate, list(sums), list(tokens))
    return report(error or accumulate_mistake(given, sums, tokens))


def accumulate_mistake(given, sums, tokens) -> str | None:
    """What is wrong with a batch's loss, or None where it is right."""
    means = [s / n for s, n in zip(sums, tokens, strict=True)]
    mistakes = {
        sum(means)
        / len(means): "that is the mean of the micro-batches' means: short micro-batches count too much.",
        sum(
            means
        ): "that adds the micro-batches' means, as trlX does: more micro-batches make a larger loss.",
        sum(sums): "that is the sum over tokens. The loss is a mean: divide by all the tokens.",
        sum(sums) / len(sums): "divide by the number of tokens, not by that of micro-batches.",
    }
    return number_mistake(given, sum(sums) / sum(tokens), mistakes, 1e-6)
