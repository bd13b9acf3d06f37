"""Notebook 09: error rate from agreement, graded preferences, beta and the scale of the reward."""

import math

from helpers.exercises.base import call, not_attempted, number_mistake, report, unattempted

AGREEMENT = 0.73


def check_error_rate(answer) -> bool:
    """The error rate at which two raters agree on 73% of preferences: (1 - e)^2 + e^2 = 0.73."""
    if unattempted(answer):
        return not_attempted()
    right = (1 - math.sqrt(2 * AGREEMENT - 1)) / 2
    mistakes = {
        1
        - right: "that one solves the equation too, but it is above one half: such raters are wrong more often than right.",
        1 - AGREEMENT: "that is the share on which they disagree. Each of the two may be the one who erred.",
        (1 - AGREEMENT)
        / 2: "halving the disagreement is nearly it, but forgets that both can err at once, and then agree.",
        1 - math.sqrt(AGREEMENT): "that is (1 - e)^2 = 0.73. They also agree where both are wrong.",
    }
    return report(number_mistake(answer, right, mistakes, 2e-3))


def check_raw_beta(answer) -> bool:
    """beta for rewards that are not normalised: 2.5 times that for normalised ones."""
    if unattempted(answer):
        return not_attempted()
    mistakes = {
        0.05: "rewards 2.5 times as large weigh 2.5 times as much against the same beta.",
        0.05 / 2.5: "the other way round: larger rewards need a larger beta to be held by it.",
        0.05
        * 3: "the mean is a constant, and a constant changes no decision. Look at the standard deviation.",
        0.05 * 2.5**2: "rewards scale by 2.5, not by its square.",
    }
    return report(number_mistake(answer, 0.125, mistakes, 1e-4))


def check_graded_loss(loss, best_margin) -> bool:
    """The Bradley-Terry loss for targets from 0 to 1, and the margin at which it is least."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as right_loss
    from torch.nn.functional import logsigmoid

    margin, y = torch.tensor([2.0, -1.0, 0.5, 2.5]), torch.tensor([1.0, 0.0, 0.5, 0.75])
    given, error = call(loss, margin.clone(), y.clone())
    least, other_error = call(best_margin, 0.75)
    if error or other_error:
        return report(error or other_error)
    if unattempted(given) or unattempted(least):
        return not_attempted()
    if getattr(given, "numel", lambda: 1)() != 1:
        return report("the loss should be one number: take the mean over the batch.")
    wins = logsigmoid(margin)
    mistakes = {
        right_loss(margin, y, reduction="sum"): "this is the sum over the batch: take the mean.",
        -right_loss(margin, y): "the sign is the wrong way round: a loss falls as the model gets better.",
        right_loss(-margin, y): "first and second are swapped: y is the share that goes to the first.",
        -(y * wins).mean(): "half is missing: 1 - y of the preference goes to the second text.",
        -wins.mean(): "y plays no part: this takes the first text for the winner every time.",
        right_loss(margin, (y > 0.5).float()): "y is rounded to 0 or 1: a tie is 0.5, and stays so.",
    }
    if abs(float(given) - right_loss(margin, y).item()) > 1e-4:
        named = (message for wrong, message in mistakes.items() if abs(float(given) - wrong.item()) <= 1e-4)
        return report(
            next(named, f"for margins {margin.tolist()} and y {y.tolist()} it is {float(given):.3f}.")
        )
    extreme, error = call(loss, torch.tensor([-1000.0]), torch.tensor([1.0]))
    if error or not math.isfinite(float(extreme)):
        return report(
            "at a margin of -1000 it is not finite: sigmoid becomes 0 there, and its logarithm infinite."
        )
    if abs(float(least) - math.log(3)) > 1e-3:
        hint = " That is a probability, not a margin." if abs(float(least) - 0.75) <= 1e-3 else ""
        return report(
            f"best_margin(0.75) is {float(least):g}, and the loss has its least value elsewhere.{hint}"
        )
    return report(None)
