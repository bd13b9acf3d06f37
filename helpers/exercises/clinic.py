"""Notebook 08: a change in standard errors, and whether samples come from the policy."""

import math
from statistics import fmean, pstdev, stdev

from helpers.exercises.base import Answers, Right, attempted, call, exercise, number, plain

BEFORE = [0.1, 0.9, 0.4, 0.6, 0.2, 0.8]
AFTER = [0.7, 0.9, 1.0, 0.5, 0.8, 0.9, 0.6, 0.7, 1.0]


@exercise("a function that returns one number")
def check_standard_errors(function: object) -> str:
    """How many standard errors lie between the means of two lists of rewards."""
    answer = number(attempted(call(function, list(BEFORE), list(AFTER))))
    change = fmean(AFTER) - fmean(BEFORE)

    def table(deviation):
        before, after = (deviation(each) / math.sqrt(len(each)) for each in (BEFORE, AFTER))
        spread = math.hypot(deviation(BEFORE), deviation(AFTER))
        return [
            (change / math.hypot(before, after), Right("Correct.")),
            (-change / math.hypot(before, after), "the sign: it should be above 0 where the reward rose."),
            (change / (before + after), "errors of independent means do not add up: add their squares, and take the root."),
            (change / spread,
             "this is the change in standard deviations. A mean of n samples is surer than one sample: divide by the root of n."),
            (change / math.hypot(deviation(BEFORE) / len(BEFORE), deviation(AFTER) / len(AFTER)),
             "a mean's error shrinks with the root of n, not with n."),
            (change / before, "the mean after has an error too."),
            (change / after, "the mean before has an error too."),
            (change / (before**2 + after**2), "take the root of the summed squares."),
        ]  # fmt: skip

    return Answers(
        *table(pstdev),
        *table(stdev),
        (change, "this is the change of the mean. Divide it by its standard error."),
        otherwise="not this number. What are the two means, and the error of each?",
        tolerance=1e-3,
    ).sentence(answer)


@exercise("a function that returns one number")
def check_log_pi_plus_entropy(function: object) -> str:
    """The mean over real tokens of log pi of the sampled token, plus the entropy."""
    import torch

    logits = torch.tensor(
        [
            [[2.0, 1.0, 0.0], [0.5, 0.5, 3.0], [1.0, 0.0, 4.0]],
            [[0.0, 2.5, 1.0], [9.0, 0.0, -9.0], [-9.0, 0.0, 9.0]],
        ]
    )
    tokens, mask = torch.tensor([[1, 2, 0], [1, 2, 0]]), torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    answer = plain(attempted(call(function, logits.clone(), tokens.clone(), mask.clone())))
    logs = logits.log_softmax(-1)
    picked, entropy = logs.gather(-1, tokens[..., None])[..., 0], -(logs.exp() * logs).sum(-1)
    both, raw = picked + entropy, logits.gather(-1, tokens[..., None])[..., 0]

    def mean(values):
        return ((values * mask).sum() / mask.sum()).item()

    return Answers(
        (mean(both), Right("Correct.")),
        (both.mean().item(), "padding is counted: sum over real tokens, and divide by their number."),
        ((both * mask).mean().item(), "this divides by all places, padding among them: divide by mask.sum()."),
        ((both * mask).sum().item(), "this is the sum. The mean over the real tokens is asked for."),
        (mean(picked), "this is log pi alone. Where is the entropy?"),
        (mean(entropy), "this is the entropy alone. Where is log pi of the sampled token?"),
        (mean(picked - entropy), "the sign: for the policy's own samples the mean of log pi is MINUS the entropy, so they are added."),
        (mean(-both), "the wrong way round: above 0 should mean that the samples are likelier than the policy's own."),
        (mean(raw + entropy), "logits are not log-probabilities: take log_softmax over the vocabulary first."),
        (lambda a: isinstance(a, list), "expected one number, the mean over all real tokens."),
        otherwise="not this number. Print log pi and entropy of the first token: they are -1.41 and 0.83.",
    ).sentence(answer)  # fmt: skip
