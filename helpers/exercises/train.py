"""Notebook 06: KL, token rewards, diagnosis."""

from helpers.exercises.base import call, close, not_attempted, report, unattempted

KL_LOGPROBS = [[-1.0, -2.0, -0.5, -9.0], [-0.3, -1.2, -9.0, -9.0]]
KL_REF_LOGPROBS = [[-1.5, -2.5, -1.5, -1.0], [-0.4, -1.0, -1.0, -1.0]]
KL_MASK = [[1, 1, 1, 0], [1, 1, 0, 0]]


def check_kl(answer) -> bool:
    """KL of each sample: the sum over its real tokens of log pi - log pi_ref."""
    if unattempted(answer):
        return not_attempted()
    answer = [float(value) for value in (answer.tolist() if hasattr(answer, "tolist") else answer)]
    rows = list(zip(KL_LOGPROBS, KL_REF_LOGPROBS, KL_MASK, strict=True))
    right = [sum((p - q) * m for p, q, m in zip(*row, strict=True)) for row in rows]
    mistakes = {
        "the sign is the wrong way round: KL is log pi minus log pi_ref.": [-value for value in right],
        "padding is counted too: multiply by the mask before you sum.": [
            sum(p - q for p, q in zip(ps, qs, strict=True)) for ps, qs, _ in rows
        ],
        "this is the mean per token: the KL of a sample is the sum over its tokens.": [
            value / sum(mask) for value, mask in zip(right, KL_MASK, strict=True)
        ],
        "this divides by the padded length: sum, do not average.": [
            value / len(KL_MASK[0]) for value in right
        ],
    }
    return compare_numbers(answer, right, mistakes)


def check_token_rewards(function) -> bool:
    """What each token earns: -beta * KL, and the score on the last real token."""
    import torch

    scores, beta = torch.tensor([1.0, 0.5]), 0.1
    kl = torch.tensor([[0.5, 0.2, -0.1, 7.0], [0.3, 0.4, 7.0, 7.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    answer, error = call(function, scores.clone(), kl.clone(), beta, mask.clone())
    if error:
        return report(error)
    if unattempted(answer):
        return not_attempted()
    if getattr(answer, "shape", None) != kl.shape:
        return report(f"expected a tensor of shape {tuple(kl.shape)}, one reward for each token.")
    penalty = -beta * kl * mask
    rows, last = torch.arange(2), mask.sum(1).long() - 1

    def with_score(base, column):
        rewards = base.clone()
        rewards[rows, column] += scores
        return rewards.flatten().tolist()

    mistakes = {
        "did you forget beta? The penalty is beta times the KL.": with_score(-kl * mask, last),
        "the penalty has the wrong sign: moving away from the reference costs.": with_score(-penalty, last),
        "the score sits on the last column, which is padding for short samples. Find the last real token.": with_score(
            penalty, -1
        ),
        "the score sits on every token. It is paid once, on the last.": (penalty + scores[:, None] * mask)
        .flatten()
        .tolist(),
        "the score sits one token too late: indices start at 0.": with_score(penalty, last + 1),
        "padding pays a KL penalty too: multiply by the mask.": with_score(-beta * kl, last),
        "where is the KL penalty?": with_score(torch.zeros_like(kl), last),
        "where is the score?": penalty.flatten().tolist(),
    }
    return compare_numbers(answer.flatten().tolist(), with_score(penalty, last), mistakes)


def check_diagnosis(answer: dict) -> bool:
    """Four runs by their numbers, four diagnoses."""
    if any(unattempted(value) for value in answer.values()):
        return not_attempted()
    right = {
        "A": "one answer for every prompt",
        "B": "healthy",
        "C": "step too large",
        "D": "samples not from the policy",
    }
    hints = {
        "A": "only 9% of its outputs are distinct",
        "B": "no sign is off: every output is distinct, KL and clip fraction are small, and the reward rises",
        "C": "61% of its tokens hit the clip range",
        "D": "its KL is negative, which a true KL never is",
    }
    wrong = [run for run in right if answer.get(run) != right[run]]
    return report("; ".join(f"run {run}: {hints[run]}" for run in wrong) + "." if wrong else None)


def compare_numbers(answer: list[float], right: list[float], mistakes: dict[str, list[float]]) -> bool:
    """Report the first mistake whose numbers these are, or that they are not right."""
    if close(answer, right):
        return report(None)
    named = next((mistake for mistake, numbers in mistakes.items() if close(answer, numbers)), None)
    return report(named or f"expected {len(right)} numbers, and not these. Print the steps in between.")
