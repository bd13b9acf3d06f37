"""Answers to the exercises of notebook 02, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import torch

from helpers import exercises

LOSSES = torch.tensor([[2.0, 3.0, 1.0, 2.0, 3.0, 1.0], [6.0, 4.0, 9.0, 9.0, 9.0, 9.0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])
IDS = torch.tensor([[0, 0, 0, 11, 12, 13, 14, 15, 0], [21, 22, 23, 24, 25, 26, 27, 28, 0]])
ATTENTION = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
LABELS = torch.tensor([[-100] * 6 + [14, 15, 0], [-100] * 3 + [24, 25, 26, 27, 28, 0]])
FINAL = {"hundredth": 9.0, "as above": 4.0, "hundredfold": 12.0}


def check_perplexity(answer):
    return exercises.check_perplexity(answer, LOSSES, MASK)


def check_labels(answer):
    return exercises.check_labels(answer, IDS, ATTENTION, prompt_length=3)


def check_learning_rates(prediction):
    return exercises.check_learning_rates(prediction, FINAL)


def masked(*places):
    """The input ids with -100 at the places of each condition."""
    left_out = torch.zeros_like(IDS, dtype=torch.bool)
    for place in places:
        left_out |= place
    return IDS.masked_fill(left_out, -100)


PADDING = ATTENTION == 0
PROMPT = (ATTENTION == 1) & (ATTENTION.cumsum(1) <= 3)
FIRST_COLUMNS = (torch.arange(9) < 3).expand(2, 9)
REAL = LOSSES * MASK

RIGHT = [
    (check_perplexity, (REAL.sum() / MASK.sum()).exp()),
    (check_perplexity, 15.64),
    (check_labels, LABELS),
    (check_labels, LABELS.tolist()),
    (check_labels, masked(PADDING, PROMPT)),
    (check_learning_rates, ["as above", "hundredth", "hundredfold"]),
]


WRONG = [
    (check_perplexity, REAL.sum() / MASK.sum(), "that is the mean loss. Perplexity is e to it"),
    (check_perplexity, LOSSES.mean().exp(), "average over the padding too"),
    (check_perplexity, LOSSES.mean(), "padding included. Leave the padding out"),
    (check_perplexity, REAL.mean().exp(), "divided by all places"),
    (check_perplexity, (REAL.sum(1) / MASK.sum(1)).exp().mean(), "mean of the two reviews' perplexities"),
    (check_perplexity, (REAL.sum(1) / MASK.sum(1)).mean().exp(), "mean of each review first"),
    (check_perplexity, REAL.sum().exp(), "e to the sum"),
    (check_perplexity, (LOSSES.exp() * MASK).sum() / MASK.sum(), "e to each loss"),
    (check_perplexity, 2 ** (REAL.sum() / MASK.sum()), "2 to the mean loss"),
    (check_perplexity, (-REAL.sum() / MASK.sum()).exp(), "the sign is wrong"),
    (check_perplexity, 0.5, "below 1"),
    (check_perplexity, float("nan"), "below 1"),
    (check_perplexity, 1000.0, "is not it"),
    (check_perplexity, "15.6!", "one number"),
    (check_perplexity, REAL.exp(), "one number"),
    (check_labels, IDS, "nothing is left out"),
    (check_labels, masked(~(PADDING | PROMPT)), "the wrong way round"),
    (check_labels, masked(PADDING), "the prompt is to be learned"),
    (check_labels, masked(PROMPT), "the padding is to be learned"),
    (check_labels, masked(IDS == 0, PROMPT), "never learn to stop"),
    (check_labels, masked(PADDING, FIRST_COLUMNS), "left out the first 3 columns"),
    (check_labels, masked(PADDING, ATTENTION.cumsum(1) <= 4), "some of the continuation is left out"),
    (check_labels, LABELS.roll(-1, dims=1), "you shifted"),
    (check_labels, LABELS.masked_fill(LABELS == -100, 0), "you used 0"),
    (check_labels, LABELS.masked_fill(LABELS == 14, 13), "not the ids that stand there"),
    (check_labels, LABELS[:, :4], "must have the shape"),
    (check_labels, "labels", "a tensor of whole numbers"),
    (check_learning_rates, ["hundredfold", "as above", "hundredth"], "not faster for ever"),
    (check_learning_rates, ["hundredth", "as above", "hundredfold"], "hardly moves"),
    (check_learning_rates, ["as above", "hundredfold", "hundredth"], "ruins what it had learned"),
    (check_learning_rates, ["as above"], "the three names"),
    (check_learning_rates, "as above", "the three names"),
    (check_learning_rates, 3, "the three names"),
]


def check_learning_rates_of_a_base_that_knows_nothing(prediction):
    """Where there was nothing to lose, hundredfold is not last."""
    return exercises.check_learning_rates(prediction, FINAL | {"hundredfold": 7.0})


def check_learning_rates_of_a_surprise(prediction):
    final = {"hundredth": 9.0, "as above": 12.0, "hundredfold": 4.0}
    return exercises.check_learning_rates(prediction, final)


KNOWN = [
    *((check, answer, "Correct") for check, answer in RIGHT),
    *WRONG,
    (check_learning_rates_of_a_base_that_knows_nothing, ["as above", "hundredfold", "hundredth"], "Correct"),
    (
        check_learning_rates_of_a_base_that_knows_nothing,
        ["as above", "hundredth", "hundredfold"],
        "to know nothing is better",
    ),
    (
        check_learning_rates_of_a_surprise,
        ["as above", "hundredth", "hundredfold"],
        "came out otherwise: hundredfold 4.00",
    ),
]
