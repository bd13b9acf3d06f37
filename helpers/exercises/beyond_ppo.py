"""Notebook 11: advantages of a group, DPO's loss."""

from helpers.exercises.base import Answers, Right, attempted, call, exercise, filled_in, number, plain

GROUP = {
    "RLOO": Answers(
        ([1, -1 / 3, -1 / 3, -1 / 3], Right("right")),
        ([0.75, -0.25, -0.25, -0.25], "this is the reward less the mean of all four: leave the sample itself out of its mean"),
        ([1.5, -0.5, -0.5, -0.5], "this is divided by the deviation, which is GRPO's way"),
        ([0, 1 / 3, 1 / 3, 1 / 3], "these are the means of the others: take them from the rewards"),
        ([-1, 1 / 3, 1 / 3, 1 / 3], "the sign: what is better than the others gets more than 0"),
        otherwise="not these numbers. The others of the first sample are 0, 0 and 0",
        tolerance=6e-3,
    ),
    "GRPO": Answers(
        ([1.5, -0.5, -0.5, -0.5], Right("right")),
        ([0.75, -0.25, -0.25, -0.25], "where is the division by the standard deviation"),
        ([1.7321, -0.5774, -0.5774, -0.5774], "this standard deviation divides by n; torch's std divides by n - 1"),
        ([1, -1 / 3, -1 / 3, -1 / 3], "this is RLOO's: GRPO takes the mean of the whole group"),
        ([2, -2 / 3, -2 / 3, -2 / 3], "the mean of the whole group, not of the others"),
        ([-1.5, 0.5, 0.5, 0.5], "the sign: what is better than the others gets more than 0"),
        otherwise="not these numbers. The mean is 1/4 and the standard deviation 1/2",
        tolerance=6e-3,
    ),
}  # fmt: skip


@exercise("a dictionary with four numbers for each of RLOO and GRPO")
def check_group_advantages(answer: dict) -> str:
    """The advantages of a group with rewards 1, 0, 0 and 0."""
    given = filled_in(answer)
    if missing := [method for method in GROUP if method not in given]:
        return f"where is {missing[0]}?"
    found = {method: answers.sentence(plain(given[method])) for method, answers in GROUP.items()}
    wrong = [f"{method}: {sentence}" for method, sentence in found.items() if not isinstance(sentence, Right)]
    return "; ".join(wrong) + "." if wrong else Right("Correct.")


@exercise("a function that returns one number")
def check_dpo_loss(function: object) -> str:
    """DPO's loss: -log sigmoid of beta times the difference of the log-ratios, the mean over the batch."""
    import torch
    from torch.nn.functional import logsigmoid

    chosen, rejected = torch.tensor([-20.0, -31.0, -12.0]), torch.tensor([-22.0, -30.0, -18.0])
    ref_chosen, ref_rejected = torch.tensor([-21.0, -28.0, -13.0]), torch.tensor([-20.0, -29.0, -15.0])
    beta = 0.5
    answer = number(
        attempted(call(function, *(x.clone() for x in (chosen, rejected, ref_chosen, ref_rejected)), beta)),
        "expected one number, the mean over the batch.",
    )
    margins = (chosen - ref_chosen) - (rejected - ref_rejected)
    losses = -logsigmoid(beta * margins)
    return Answers(
        (losses.mean(), Right("Correct.")),
        (losses.sum(), "this is the sum over the batch: take the mean."),
        (-losses.mean(), "the sign: an optimizer lowers the loss, so it is MINUS log sigmoid."),
        (-logsigmoid(margins).mean(), "where is beta?"),
        (-logsigmoid(margins / beta).mean(), "beta multiplies, it does not divide."),
        (-logsigmoid(-beta * margins).mean(), "chosen and rejected have changed places."),
        (-logsigmoid(beta * (chosen - rejected)).mean(), "where is the reference? Each text counts against its own probability there."),
        (-(beta * margins).sigmoid().mean(), "where is the logarithm?"),
        (-logsigmoid(beta * margins.mean()), "the mean comes last: each preference has a loss of its own."),
        (-logsigmoid(beta * ((chosen + ref_chosen) - (rejected + ref_rejected))).mean(),
         "the sign of the reference: log pi MINUS log pi_ref."),
        (-(beta * margins).mean(), "where is log sigmoid?"),
        otherwise="not this number. Compute the first preference by hand: its margin is 3, and beta is 0.5.",
    ).sentence(answer)  # fmt: skip
