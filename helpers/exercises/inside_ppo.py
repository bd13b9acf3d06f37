"""Notebook 07: k3, GAE for a padded batch, whitening over a mask, the clipped loss, RLOO's advantage."""

import math

from helpers.exercises.base import Answers, Right, attempted, call, check_shape, exercise

MASK = [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]


@exercise("a function that returns one number for each sample")
def check_k3(function) -> str:
    """k3 of each sample: the sum over its real tokens of exp(-d) - 1 + d, where d is log pi - log pi_ref."""
    import torch

    logprobs = torch.tensor([[-1.0, -2.0, -0.5, -9.0], [-0.3, -1.2, -7.0, -9.0]])
    reference = torch.tensor([[-1.5, -1.2, -1.5, -1.0], [-0.4, -1.0, -1.0, -1.0]])
    mask = torch.tensor(MASK)
    answer = call(function, logprobs.clone(), reference.clone(), mask.clone())
    check_shape(answer, (2,), "expected one number for each sample, a tensor of shape (2,).")
    d = logprobs - reference
    k3 = (-d).exp() - 1 + d
    return Answers(
        ((k3 * mask).sum(1), Right("Correct.")),
        (k3.sum(1), "padding is counted too: multiply by the mask before you sum."),
        ((k3 * mask).sum(1) / mask.sum(1), "this is the mean per token: take the sum over a sample's tokens."),
        (((d.exp() - 1 - d) * mask).sum(1),
         "the difference is the wrong way round: the ratio in k3 is pi_ref over pi, exp(log pi_ref - log pi)."),
        ((d * mask).sum(1), "this is k1, which can be negative."),
        ((d**2 / 2 * mask).sum(1), "this is k2."),
        ((((-d).exp() + d) * mask).sum(1), "where is the -1? Without it k3 is not 0 where the two agree."),
        ((((-d).exp() - 1) * mask).sum(1), "where is + d? Without it the estimate is 0 on average, whatever the KL."),
        ((((-d).exp() - 1 - d) * mask).sum(1), "the sign of the last term: + log pi - log pi_ref."),
        otherwise="these are not the numbers. Compute one token by hand and compare.",
    ).sentence(answer)  # fmt: skip


@exercise("a function that returns one advantage for each token")
def check_gae(function) -> str:
    """GAE for a padded batch: what stands on padding is not to be read, and the result there is 0."""
    import torch

    rewards = torch.tensor([[0.1, -0.2, 0.3, 1.0], [-0.1, 0.5, 3.0, 3.0]])
    values = torch.tensor([[0.5, 0.6, 0.8, 0.7], [0.3, 0.4, 9.0, 9.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])  # one row without padding
    gamma, lam = 0.9, 0.8
    answer = call(function, rewards.clone(), values.clone(), mask.clone(), gamma, lam)
    check_shape(answer, (2, 4), "expected one advantage for each token, a tensor of shape (2, 4).")

    def gae(rewards, values, factor, ahead=gamma):
        out, later = torch.zeros_like(rewards), torch.zeros(2)
        for t in (3, 2, 1, 0):
            following = values[:, t + 1] if t < 3 else 0.0
            later = rewards[:, t] + ahead * following - values[:, t] + factor * later
            out[:, t] = later
        return out

    r, v = rewards * mask, values * mask
    right = gae(r, v, gamma * lam)
    return Answers(
        (right, Right("Correct.")),
        (lambda a: bool(torch.allclose(a * mask, right, atol=1e-4)), "right on the tokens; padding should get 0."),
        (gae(rewards, values, gamma * lam) * mask,
         "rewards and values on padding are counted: set them to 0 first, with the mask."),
        (gae(rewards, values, gamma * lam),
         "rewards and values on padding are counted: set them to 0 first, with the mask."),
        (gae(r, values, gamma * lam) * mask,
         "the value on padding counts as a forecast for what follows the last token: it should be 0."),
        (right + v, "these are the returns, A + V. The advantages are asked for."),
        (gae(r, v, 0.0), "these are the deltas: each token also gets gamma lambda times the advantage of the next."),
        (gae(r, v, lam), "the sum of later deltas shrinks by gamma times lambda a step, not by lambda."),
        (gae(r, v, gamma), "where is lambda? The advantage of the next token counts gamma times lambda."),
        (gae(r, v, 1.0), "the advantage of the next token counts gamma times lambda, not in full."),
        (lambda a: bool((a[0, 3] - right[0, 3]).abs() > 1e-4 and not a[0, 3]),
         "the last column gets 0. A row without padding has its last token there."),
        (lambda a: abs(a[0, 3].item() - (1.0 + gamma * 0.7 - 0.7)) < 1e-4,
         "after the last column comes nothing: the forecast there is 0, not the last value again."),
        (gae(r, v, gamma * lam, ahead=1.0), "where is gamma in delta? It is r + gamma V of the next token - V."),
        (gae(r, v, gamma * lam, ahead=0.0), "where is the forecast of the next token in delta?"),
        (-right, "the sign is the wrong way round."),
        otherwise="these are not the numbers. Try the three tokens from above as a batch of one.",
    ).sentence(answer)  # fmt: skip


@exercise("a function that returns the whitened values")
def check_whiten(function) -> str:
    """Mean 0 and standard deviation 1 over real tokens, 0 on padding. Dividing by n or by n - 1 is right."""
    import torch

    values = torch.tensor([[1.0, 2.0, 4.0, 50.0], [3.0, -1.0, 50.0, 50.0]])
    mask = torch.tensor(MASK)
    answer = call(function, values.clone(), mask.clone())
    check_shape(answer, (2, 4), "expected as many numbers as there are values, a tensor of shape (2, 4).")
    real = values[mask.bool()]
    centred = (values - real.mean()) * mask
    whole = values - values.mean()
    zeros = values * mask
    return Answers(
        *((centred / real.std(unbiased=each), Right("Correct.")) for each in (True, False)),
        *(((values - real.mean()) / real.std(unbiased=each), "right on the tokens; padding should get 0.")
          for each in (True, False)),
        *((whole / values.std(unbiased=each) * mask, "padding is in the mean: count real tokens only.")
          for each in (True, False)),
        *((whole / values.std(unbiased=each), "padding is in the mean: count real tokens only.")
          for each in (True, False)),
        *(((zeros - zeros.mean()) / zeros.std(unbiased=each) * mask,
           "padding counts as 0 in the mean: divide by the number of real tokens, mask.sum().")
          for each in (True, False)),
        *((centred / real.var(unbiased=each), "this divides by the variance: take its square root.")
          for each in (True, False)),
        *((zeros / real.std(unbiased=each), "the mean is still there: subtract it first.")
          for each in (True, False)),
        (centred, "the standard deviation is still there: divide by it."),
        otherwise="these are not the numbers. Check mean and standard deviation over the real tokens.",
        tolerance=1e-3,
    ).sentence(answer)  # fmt: skip


@exercise("a function that returns one number, the loss")
def check_clipped_loss(function) -> str:
    """PPO's clipped loss, a mean over real tokens, for an optimizer that minimises."""
    import torch

    logprobs = torch.tensor([[-1.0, -2.0, -0.5, -9.0], [-0.3, -1.9, -9.0, -9.0]])
    old = torch.tensor([[-1.5, -1.2, -0.6, -200.0], [-1.4, -1.0, -1.0, -1.0]])
    advantages = torch.tensor([[1.0, 0.5, -1.0, -4.0], [-2.0, -1.5, 4.0, 4.0]])
    mask, eps = torch.tensor(MASK), 0.2
    answer = call(function, logprobs.clone(), old.clone(), advantages.clone(), mask.clone(), eps)
    check_shape(torch.as_tensor(attempted(answer)), (), "expected one number, a tensor of shape ().")

    def loss(rho, pick=torch.maximum, mean=lambda per_token: (per_token * mask).sum() / mask.sum()):
        inside = rho.clamp(1 - eps, 1 + eps)
        return mean(pick(-advantages * rho, -advantages * inside))

    rho = ((logprobs - old) * mask).exp()
    return Answers(

        (lambda a: not math.isfinite(float(a)),
         "this is not finite: on padding the ratio may be infinite, and infinity times 0 is not a number. Multiply by the mask "
         "inside the exponent too."),
        (loss(rho), Right("Correct.")),
        (-loss(rho), "the sign: an optimizer lowers the loss, and PPO raises its objective."),
        (loss(rho, torch.minimum),
         "of the two losses take the larger: `torch.maximum`. (Of two objectives it is the smaller.)"),
        (-loss(rho, torch.minimum), "the pessimistic one of the two is asked for, and its negative."),
        (loss(rho, lambda plain, clipped: plain), "where is the clip?"),
        (loss(rho, lambda plain, clipped: clipped),
         "only the clipped one is left: a token that moved the wrong way must keep its gradient. Take the larger of both."),
        (loss(rho, mean=lambda x: x.mean()), "padding is counted: take the mean over real tokens."),
        (loss(rho, mean=lambda x: (x * mask).mean()), "this divides by all places: divide by mask.sum()."),
        (loss(rho, mean=lambda x: (x * mask).sum()), "this is the sum: divide by the number of real tokens."),
        (loss(rho, mean=lambda x: ((x * mask).sum(1) / mask.sum(1)).mean()),
         "this is a mean of the samples' means: each token counts the same here."),
        (loss(1 / rho), "the ratio is upside down: the new policy is on top."),
        (loss((logprobs - old) * mask), "the ratio is exp(log pi - log pi_old)."),
        otherwise="this is not the number. Print ratio, both losses and the mask.",
    ).sentence(answer)  # fmt: skip


@exercise("a function that returns one advantage for each sample")
def check_rloo(function) -> str:
    """RLOO: each sample's score minus the mean of the other samples of its prompt."""
    import torch

    scores, k = torch.tensor([0.1, 0.9, 0.5, 0.4, 0.6, 0.2]), 3
    answer = call(function, scores.clone(), k)
    check_shape(answer, (6,), "expected one advantage for each sample, a tensor of shape (6,).")
    groups = scores.view(-1, k)
    others = (groups.sum(1, keepdim=True) - groups) / (k - 1)
    centred = groups - groups.mean(1, keepdim=True)
    strided = scores.view(k, -1)
    return Answers(
        ((groups - others).flatten(), Right("Correct.")),
        (centred.flatten(),
         "this subtracts the mean of all k, the sample itself among them: leave it out."),
        *(((centred / groups.std(1, keepdim=True, unbiased=each)).flatten(),
           "this is GRPO's advantage: nothing is divided by here, and a sample leaves itself out of the mean.")
          for each in (True, False)),
        (scores - scores.mean(), "each prompt has a mean of its own: make groups of k first, `scores.view(-1, k)`."),
        ((strided - (strided.sum(0) - strided) / (k - 1)).flatten(),
         "the k samples of a prompt stand next to each other: `scores.view(-1, k)`, one row a prompt."),
        ((others - groups).flatten(), "the sign is the wrong way round."),
        (others.flatten(), "this is the baseline: subtract it from the scores."),
        ((groups - (groups.sum(1, keepdim=True) - groups) / k).flatten(),
         "the others are k - 1: divide their sum by that."),
        otherwise="these are not the numbers. Take one prompt and do it by hand.",
    ).sentence(answer)  # fmt: skip
