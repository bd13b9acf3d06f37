"""Human feedback: error rate from agreement, graded preferences, beta and the scale of the reward."""

import math
from typing import TYPE_CHECKING

from helpers.exercises.base import Answers, Right, Unusable, attempted, call, exercise, judge_number, number

if TYPE_CHECKING:
    from torch import Tensor

AGREEMENT = 0.73


@exercise("a number, the error rate")
def check_error_rate(answer: object) -> str:
    """The error rate at which two raters agree on 73% of preferences: (1 - e)^2 + e^2 = 0.73."""
    right = (1 - math.sqrt(2 * AGREEMENT - 1)) / 2
    return judge_number(
        answer,
        (right, Right("Correct.")),
        (1 - right,
         "that one solves the equation too, but it is above one half: such raters are wrong more often than "
         "right."),
        (1 - AGREEMENT,
         "that is the share on which they disagree. Each of the two may be the one who erred."),
        ((1 - AGREEMENT) / 2,
         "halving the disagreement is nearly it, but forgets that both can err at once, and then agree."),
        (1 - math.sqrt(AGREEMENT), "that is (1 - e)^2 = 0.73. They also agree where both are wrong."),
        tolerance=2e-3,
    )  # fmt: skip


@exercise("a number, the new beta")
def check_raw_beta(answer: object) -> str:
    """beta for rewards that are not normalised: 2.5 times that for normalised ones."""
    return judge_number(
        answer,
        (0.125, Right("Correct.")),
        (0.05, "rewards 2.5 times as large weigh 2.5 times as much against the same beta."),
        (0.05 / 2.5, "the other way round: larger rewards need a larger beta to be held by it."),
        (0.05 * 3,
         "the mean is a constant, and a constant changes no decision. Look at the standard deviation."),
        (0.05 * 2.5**2, "rewards scale by 2.5, not by its square."),
        tolerance=1e-4,
    )  # fmt: skip


@exercise("two functions, a loss and the margin at which it is least, which give one number each")
def check_graded_loss(loss: object, best_margin: object) -> str:
    """The Bradley-Terry loss for targets from 0 to 1, and the margin at which it is least."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as right_loss
    from torch.nn.functional import logsigmoid

    margin, y = torch.tensor([2.0, -1.0, 0.5, 2.5]), torch.tensor([1.0, 0.0, 0.5, 0.75])
    given, least = map(attempted, [call(loss, margin.clone(), y.clone()), call(best_margin, 0.75)])
    given = number(given, "the loss should be one number: take the mean over the batch.")
    least = number(least, f"best_margin(0.75) should be a number; yours is {type(least).__name__}.")
    wins = logsigmoid(margin)
    sentence = Answers(
        (right_loss(margin, y), Right("Correct.")),
        (right_loss(margin, y, reduction="sum"), "this is the sum over the batch: take the mean."),
        (-right_loss(margin, y), "the sign is the wrong way round: a loss falls as the model gets better."),
        (right_loss(-margin, y), "first and second are swapped: y is the share that goes to the first."),
        (-(y * wins).mean(), "half is missing: 1 - y of the preference goes to the second text."),
        (-wins.mean(), "y plays no part: this takes the first text for the winner every time."),
        (right_loss(margin, (y > 0.5).float()), "y is rounded to 0 or 1: a tie is 0.5, and stays so."),
        otherwise=f"for margins {margin.tolist()} and y {y.tolist()} it is {given:.3f}.",
    ).sentence(given)
    if not isinstance(sentence, Right):
        return sentence
    if not survives(loss, torch.tensor([-1000.0]), torch.tensor([1.0])):
        return "at a margin of -1000 it is not finite: sigmoid becomes 0 there, and its logarithm infinite."
    elsewhere = f"best_margin(0.75) is {least:g}, and the loss has its least value elsewhere."
    return Answers(
        (math.log(3), Right("Correct.")),
        (0.75, f"{elsewhere} That is a probability, not a margin."),
        otherwise=elsewhere,
        tolerance=1e-3,
    ).sentence(least)


def survives(loss: object, margin: "Tensor", y: "Tensor") -> bool:
    """Whether the loss is finite there."""
    try:
        return math.isfinite(number(call(loss, margin, y)))
    except Unusable:
        return False
