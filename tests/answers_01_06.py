"""Answers to the exercises of notebook 01 and 06, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import torch
from common import known

from helpers import exercises
from helpers.exercises import train
from helpers.ppo import loss

LOGPROBS, REF, MASK = (
    torch.tensor(rows) for rows in (train.KL_LOGPROBS, train.KL_REF_LOGPROBS, train.KL_MASK)
)


KNOWN = []

KNOWN += known(
    exercises.check_kl,
    [
        (((LOGPROBS - REF) * MASK).sum(1), "Correct"),
        (((LOGPROBS - REF) * MASK).sum(1).tolist(), "Correct"),
        (((REF - LOGPROBS) * MASK).sum(1), "sign"),
        ((LOGPROBS - REF).sum(1), "padding"),
        (((LOGPROBS - REF) * MASK).sum(1) / MASK.sum(1), "mean per token"),
        (((LOGPROBS - REF) * MASK).mean(1), "padded length"),
        ([1.0, 2.0], "not these"),
        (None, "Not attempted yet"),
    ],
)


def right_rewards(scores, kl, beta, mask):
    rewards = -beta * kl * mask
    rewards[torch.arange(len(kl)), mask.sum(1).long() - 1] += scores
    return rewards


def last_column(scores, kl, beta, mask):
    rewards = -beta * kl * mask
    rewards[:, -1] += scores
    return rewards


KNOWN += known(
    exercises.check_token_rewards,
    [
        (right_rewards, "Correct"),
        (lambda s, kl, beta, mask: right_rewards(s, kl, 1.0, mask), "forget beta"),
        (lambda s, kl, beta, mask: right_rewards(s, kl, -beta, mask), "wrong sign"),
        (last_column, "last column"),
        (lambda s, kl, beta, mask: -beta * kl * mask + s[:, None] * mask, "every token"),
        (lambda s, kl, beta, mask: right_rewards(s, kl, 0.0, mask), "where is the KL penalty"),
        (lambda s, kl, beta, mask: -beta * kl * mask, "where is the score"),
        (lambda s, kl, beta, mask: s, "shape"),
        (lambda s, kl, beta, mask: 1 / 0, "ZeroDivisionError"),
        (lambda s, kl, beta, mask: None, "Not attempted yet"),
    ],
)


def unmasked(scores, kl, beta, mask):
    rewards = -beta * kl
    rewards[torch.arange(2), mask.sum(1).long() - 1] += scores
    return rewards


KNOWN += known(exercises.check_token_rewards, [(unmasked, "multiply by the mask")])

RUNS = {
    "A": "one answer for every prompt",
    "B": "healthy",
    "C": "step too large",
    "D": "samples not from the policy",
}
SWAPPED = RUNS | {"B": "step too large", "C": "healthy"}
KNOWN += known(
    exercises.check_diagnosis,
    [
        (RUNS, "Correct"),
        (SWAPPED, "run B"),
        (SWAPPED, "run C: 61%"),
        (dict.fromkeys("ABCD"), "Not attempted yet"),
        (list(RUNS.values()), "should be a dictionary"),
    ],
)

PARTS = {1: "policy", 2: "reference", 3: "reward", 4: "prompt"}
KNOWN += known(
    exercises.check_parts,
    [
        (PARTS, "Correct"),
        (PARTS | {1: "reference", 2: "policy"}, "swapped"),
        (PARTS | {3: "prompt"}, "sentence 3"),
        (dict.fromkeys(PARTS), "Not attempted yet"),
        (list(PARTS.values()), "should be a dictionary"),
    ],
)

KNOWN += known(
    exercises.check_reward_function,
    [
        (lambda samples: [1 - len(s) / 200 for s in samples], "A reward function"),
        (lambda samples: [float("music" in s) for s in samples], "A reward function"),
        (lambda samples: [10.0 * (len(s) > 20) for s in samples], "A reward function"),
        (lambda samples, **kwargs: [1.0] * len(samples), "all three samples get 1.0"),
        (lambda samples: [-len(s) for s in samples], "all three count as -10"),
        (lambda samples: [len(s) for s in samples], "all three count as 10"),
        (lambda samples: [-len(s) / 4 for s in samples], "beyond it are all alike"),
        (lambda samples: [1.0], "1 rewards for 3 samples"),
        (lambda samples: ["good"] * 3, "type str"),
        (lambda samples: 1 / 0, "ZeroDivisionError"),
        (lambda samples: None, "Not attempted yet"),
    ],
)


def cut(kl, target):
    return max(-0.2, min(0.2, kl / target - 1))


KNOWN += known(
    exercises.check_next_beta,
    [
        (lambda beta, kl, target, horizon, n: beta * (1 + cut(kl, target) * n / horizon), "Correct"),
        (loss.next_kl_coef, "Correct"),
        (lambda beta, kl, target, horizon, n: beta * (1 + (kl / target - 1) * n / horizon), "cut the error"),
        (lambda beta, kl, target, horizon, n: beta * (1 - cut(kl, target) * n / horizon), "wrong way round"),
        (lambda beta, kl, target, horizon, n: beta * (1 + cut(kl, 1) * n / horizon), "not these numbers"),
        (
            lambda beta, kl, target, horizon, n: beta * (1 + max(-0.2, min(0.2, kl - target)) * n / horizon),
            "a share of the target",
        ),
        (
            lambda beta, kl, target, horizon, n: beta * (1 + max(-0.2, min(0.2, kl / target)) * n / horizon),
            "0 on the target",
        ),
        (lambda beta, kl, target, horizon, n: beta * cut(kl, target) * n / horizon, "share alone"),
        (lambda beta, kl, target, horizon, n: beta * (1 + cut(kl, target)), "where are n and horizon"),
        (lambda beta, kl, target, horizon, n: beta * (1 + cut(kl, target) / horizon), "where is n?"),
        (lambda beta, kl, target, horizon, n: beta * (1 + cut(kl, target) * horizon / n), "changed places"),
        (lambda beta, kl, target, horizon, n: "much", "expected a number"),
        (lambda beta, kl, target, horizon, n: 1 / 0, "ZeroDivisionError"),
        (lambda beta, kl, target, horizon, n: None, "Not attempted yet"),
        (None, "Not attempted yet"),
        (..., "Not attempted yet"),
        (3, "should be a function"),
    ],
)
