"""The exercises of notebook 02: right answers pass, and each known mistake is named."""

import pytest
import torch

from helpers import exercises

LOSSES = torch.tensor([[2.0, 3.0, 1.0, 2.0, 3.0, 1.0], [6.0, 4.0, 9.0, 9.0, 9.0, 9.0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])
IDS = torch.tensor([[0, 0, 0, 11, 12, 13, 14, 15, 0], [21, 22, 23, 24, 25, 26, 27, 28, 0]])
ATTENTION = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
LABELS = torch.tensor([[-100] * 6 + [14, 15, 0], [-100] * 3 + [24, 25, 26, 27, 28, 0]])
FINAL = {"hundredth": 9.0, "as above": 4.0, "hundredfold": 12.0}


def perplexity(answer):
    return exercises.check_perplexity(answer, LOSSES, MASK)


def labels(answer):
    return exercises.check_labels(answer, IDS, ATTENTION, prompt_length=3)


def rates(prediction):
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
    (perplexity, (REAL.sum() / MASK.sum()).exp()),
    (perplexity, 15.64),
    (labels, LABELS),
    (labels, LABELS.tolist()),
    (labels, masked(PADDING, PROMPT)),
    (rates, ["as above", "hundredth", "hundredfold"]),
]


@pytest.mark.parametrize("check, answer", RIGHT)
def test_right_answer(check, answer, capsys):
    assert check(answer) is True
    assert capsys.readouterr().out.startswith("Correct")


WRONG = [
    (perplexity, REAL.sum() / MASK.sum(), "that is the mean loss. Perplexity is e to it"),
    (perplexity, LOSSES.mean().exp(), "average over the padding too"),
    (perplexity, LOSSES.mean(), "padding included. Leave the padding out"),
    (perplexity, REAL.mean().exp(), "divided by all places"),
    (perplexity, (REAL.sum(1) / MASK.sum(1)).exp().mean(), "mean of the two reviews' perplexities"),
    (perplexity, (REAL.sum(1) / MASK.sum(1)).mean().exp(), "mean of each review first"),
    (perplexity, REAL.sum().exp(), "e to the sum"),
    (perplexity, (LOSSES.exp() * MASK).sum() / MASK.sum(), "e to each loss"),
    (perplexity, 2 ** (REAL.sum() / MASK.sum()), "2 to the mean loss"),
    (perplexity, (-REAL.sum() / MASK.sum()).exp(), "the sign is wrong"),
    (perplexity, 0.5, "below 1"),
    (perplexity, float("nan"), "below 1"),
    (perplexity, 1000.0, "is not it"),
    (perplexity, "15.6!", "one number"),
    (perplexity, REAL.exp(), "one number"),
    (labels, IDS, "nothing is left out"),
    (labels, masked(~(PADDING | PROMPT)), "the wrong way round"),
    (labels, masked(PADDING), "the prompt is to be learned"),
    (labels, masked(PROMPT), "the padding is to be learned"),
    (labels, masked(IDS == 0, PROMPT), "never learn to stop"),
    (labels, masked(PADDING, FIRST_COLUMNS), "left out the first 3 columns"),
    (labels, masked(PADDING, ATTENTION.cumsum(1) <= 4), "some of the continuation is left out"),
    (labels, LABELS.roll(-1, dims=1), "you shifted"),
    (labels, LABELS.masked_fill(LABELS == -100, 0), "you used 0"),
    (labels, LABELS.masked_fill(LABELS == 14, 13), "not the ids that stand there"),
    (labels, LABELS[:, :4], "must have the shape"),
    (labels, "labels", "a tensor of whole numbers"),
    (rates, ["hundredfold", "as above", "hundredth"], "not faster for ever"),
    (rates, ["hundredth", "as above", "hundredfold"], "hardly moves"),
    (rates, ["as above", "hundredfold", "hundredth"], "ruins what it had learned"),
    (rates, ["as above"], "the three names"),
    (rates, "as above", "the three names"),
    (rates, 3, "the three names"),
]


@pytest.mark.parametrize("check, answer, mistake", WRONG)
def test_wrong_answer(check, answer, mistake, capsys):
    assert check(answer) is False
    printed = capsys.readouterr().out
    assert printed.startswith("Not yet: ") and mistake in printed


@pytest.mark.parametrize("check", [perplexity, labels, rates])
@pytest.mark.parametrize("answer", [None, ...])
def test_not_attempted(check, answer, capsys):
    assert check(answer) is False
    assert capsys.readouterr().out == "Not attempted yet.\n"


def test_hundredfold_is_not_last_where_there_was_nothing_to_lose(capsys):
    final = {"hundredth": 9.0, "as above": 4.0, "hundredfold": 7.0}
    assert exercises.check_learning_rates(["as above", "hundredfold", "hundredth"], final) is True
    assert exercises.check_learning_rates(["as above", "hundredth", "hundredfold"], final) is False
    assert "to know nothing is better" in capsys.readouterr().out


def test_a_surprising_order_is_told_as_it_came_out(capsys):
    final = {"hundredth": 9.0, "as above": 12.0, "hundredfold": 4.0}
    assert exercises.check_learning_rates(["as above", "hundredth", "hundredfold"], final) is False
    assert "came out otherwise: hundredfold 4.00" in capsys.readouterr().out
