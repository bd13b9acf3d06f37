"""Notebook 10: an ensemble's cautious reward, how often the longer text was chosen."""

from helpers.exercises.base import Answers, Right, attempted, call, check_shape, exercise, number


@exercise("a function that returns one reward for each sample")
def check_cautious_reward(function: object) -> str:
    """Mean less k standard deviations over the members of an ensemble."""
    import torch

    rewards = torch.tensor([[1.0, 0.0, 2.0, -1.0], [3.0, 0.5, 2.0, 1.0], [2.0, -2.0, 2.0, 0.0]])
    k = 0.5
    answer = attempted(call(function, rewards.clone(), k))
    check_shape(
        answer, (4,), "return a tensor of shape (samples,): take mean and deviation over dim 0, the members."
    )
    mean, std = rewards.mean(0), rewards.std(0)
    return Answers(
        (mean - k * std, Right("Correct.")),
        (mean + k * std, "this pays MORE where the members disagree: subtract."),
        (rewards.min(0).values, "this is the minimum, which the exercise leaves behind."),
        (mean, "this is the mean alone: where are the deviations?"),
        (mean - std, "where is k?"),
        (mean - k * rewards.var(0), "this is the variance: take its square root, or std."),
        (mean - k * rewards.std(0, unbiased=False), "this deviation divides by n; torch's std divides by n - 1."),
        (mean - k * rewards.std(), "this deviation is of all numbers together: one for each sample, over dim 0."),
        otherwise="not these numbers. The first sample has mean 2 and deviation 1, so with k = 0.5 its reward is 1.5.",
    ).sentence(answer)  # fmt: skip


@exercise("a function that returns a number from 0 to 1")
def check_longer_chosen(function: object) -> str:
    """The share of choices that fell on the longer text, without ties and pairs of equal length."""
    first = [10, 12, 20, 15, 9, 30, 8]
    second = [12, 10, 11, 15, 14, 12, 16]
    choices = ["second", "first", "second", "first", "tie", "first", "second"]
    answer = number(attempted(call(function, list(first), list(second), list(choices))))
    return Answers(
        (4 / 5, Right("Correct.")),
        (1 / 5, "this is the share in which the SHORTER was chosen."),
        (4 / 6, "ties, or pairs of equal length, are still among the pairs that you divide by: leave both out."),
        (4 / 7, "divide by the pairs that say something about length: leave out ties and pairs of equal length."),
        (5 / 6, "a tie chose neither text, and a pair of equal length has no longer one: leave both out."),
        (5 / 7, "a tie chose neither text, and a pair of equal length has no longer one: leave both out."),
        (4, "this is a count: divide by the pairs counted."),
        (80, "this is per cent: a share goes from 0 to 1."),
        otherwise="not this number. Five of the seven pairs count.",
    ).sentence(answer)  # fmt: skip
