"""Notebook 06: KL, token rewards, diagnosis, adaptive beta."""

from helpers.exercises.base import (
    Answers,
    Right,
    attempted,
    call,
    check_shape,
    exercise,
    filled_in,
    number,
    plain,
    unlike,
)

KL_LOGPROBS = [[-1.0, -2.0, -0.5, -9.0], [-0.3, -1.2, -9.0, -9.0]]
KL_REF_LOGPROBS = [[-1.5, -2.5, -1.5, -1.0], [-0.4, -1.0, -1.0, -1.0]]
KL_MASK = [[1, 1, 1, 0], [1, 1, 0, 0]]


@exercise("two numbers, the KL of each sample")
def check_kl(answer: object) -> str:
    """KL of each sample: the sum over its real tokens of log pi - log pi_ref."""
    import torch

    logprobs, reference, mask = map(torch.tensor, (KL_LOGPROBS, KL_REF_LOGPROBS, KL_MASK))
    difference = logprobs - reference
    right = (difference * mask).sum(1)
    return Answers(
        (right, Right("Correct.")),
        (-right, "the sign is the wrong way round: KL is log pi minus log pi_ref."),
        (difference.sum(1), "padding is counted too: multiply by the mask before you sum."),
        (right / mask.sum(1), "this is the mean per token: the KL of a sample is the sum over its tokens."),
        (right / mask.shape[1], "this divides by the padded length: sum, do not average."),
        (difference * mask, "these are the terms of each token: the KL of a sample is their sum, `.sum(1)`."),
        (right.sum(), "this is one sum over both samples: each has a KL of its own, `.sum(1)`."),
        otherwise="expected 2 numbers, and not these. Print the steps in between.",
    ).sentence(plain(answer))


@exercise("a function that returns one reward for each token")
def check_token_rewards(function: object) -> str:
    """What each token earns: -beta * KL, and the score on the last real token."""
    import torch

    scores, beta = torch.tensor([1.0, 0.5]), 0.1
    kl = torch.tensor([[0.5, 0.2, -0.1, 7.0], [0.3, 0.4, 7.0, 7.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    answer = call(function, scores.clone(), kl.clone(), beta, mask.clone())
    check_shape(answer, kl.shape, f"expected a tensor of shape {tuple(kl.shape)}, one reward for each token.")
    penalty = -beta * kl * mask
    last = mask.sum(1).long() - 1

    def with_score(base, column):
        rewards = base.clone()
        rewards[torch.arange(2), column] += scores
        return rewards

    return Answers(
        (with_score(penalty, last), Right("Correct.")),
        (with_score(-kl * mask, last), "did you forget beta? The penalty is beta times the KL."),
        (with_score(-penalty, last), "the penalty has the wrong sign: moving away from the reference costs."),
        (with_score(penalty, -1),
         "the score sits on the last column, which is padding for short samples. Find the last real token."),
        (penalty + scores[:, None] * mask, "the score sits on every token. It is paid once, on the last."),
        (with_score(penalty, last + 1), "the score sits one token too late: indices start at 0."),
        (with_score(-beta * kl, last), "padding pays a KL penalty too: multiply by the mask."),
        (with_score(torch.zeros_like(kl), last), "where is the KL penalty?"),
        (penalty, "where is the score?"),
        otherwise=f"expected {kl.numel()} numbers, and not these. Print the steps in between.",
    ).sentence(answer)  # fmt: skip


@exercise("a dictionary with one diagnosis for each of the runs A to D")
def check_diagnosis(answer: dict) -> str:
    """Four runs by their numbers, four diagnoses."""
    wrong = list(Answers(
        (unlike("A", "one answer for every prompt"), "run A: only 9% of its outputs are distinct"),
        (unlike("B", "healthy"),
         "run B: no sign is off: every output is distinct, KL and clip fraction are small, and the reward "
         "rises"),
        (unlike("C", "step too large"), "run C: 61% of its tokens hit the clip range"),
        (unlike("D", "samples not from the policy"), "run D: its KL is negative, which a true KL never is"),
    ).sentences(filled_in(answer)))  # fmt: skip
    return "; ".join(wrong) + "." if wrong else Right("Correct.")


@exercise("a function that returns the next beta")
def check_next_beta(function) -> str:
    """Adaptive beta: 0.1 after a pass of 32 samples, with a KL a little above, far above and far below the target."""
    beta, target, horizon, n = 0.1, 6.0, 200, 32
    kls = [6.6, 30.0, 1.0]
    answer = [number(attempted(call(function, beta, kl, target, horizon, n))) for kl in kls]

    def with_(error, factor=lambda error: 1 + error * n / horizon):
        return [beta * factor(error(kl)) for kl in kls]

    def cut(kl):
        return max(-0.2, min(0.2, kl / target - 1))

    return Answers(
        (with_(cut), Right("Correct.")),
        (with_(lambda kl: kl / target - 1), "cut the error to -0.2 .. 0.2: one odd round must not throw beta."),
        (with_(lambda kl: -cut(kl)), "the wrong way round: a KL above the target makes beta, its price, rise."),
        (with_(lambda kl: max(-0.2, min(0.2, kl - target))), "the error is a share of the target: KL / target - 1."),
        (with_(lambda kl: max(-0.2, min(0.2, kl / target))), "the error is KL / target - 1: 0 on the target."),
        (with_(cut, lambda error: error * n / horizon), "this is the change's share alone: beta * (1 + ...)."),
        (with_(cut, lambda error: 1 + error), "where are n and horizon? The change is error * n / horizon."),
        (with_(cut, lambda error: 1 + error / horizon), "where is n? The change is error * n / horizon."),
        (with_(cut, lambda error: 1 + error * horizon / n), "n and horizon have changed places."),
        otherwise="not these numbers. Try a KL on the target: there beta stays as it is.",
        tolerance=1e-6,
    ).sentence(answer)  # fmt: skip
