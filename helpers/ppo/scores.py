"""From what a reward function gave to the scores that PPO learns from."""

from torch import Tensor, float64, tensor, zeros_like

from helpers.ppo.fields import MethodConfig


def scores_tensor(scores: list, mask: Tensor) -> Tensor:
    """Scores (N,) from one number per sample; (N, R) from one list per sample, whose excess goes to the last token."""
    if not isinstance(scores[0], list):
        return tensor(scores, device=mask.device)
    dense = zeros_like(mask)
    for row, values in enumerate(scores):
        last = int(mask[row].sum()) - 1
        for t, value in enumerate(values):
            dense[row, min(t, last)] += value
    return dense


class ScoreScale:
    """Clips scores, and divides them by what `scale_reward` says. It remembers the scores of earlier rounds."""

    def __init__(self, method: MethodConfig):
        self.method = method
        self.ref_std = method.ref_std
        self.moments = (0, 0.0, 0.0)  # count, mean, sum of squared deviations

    def __call__(self, scores: Tensor) -> Tensor:
        """The scores of a round, (N,) or (N, R), clipped to +-cliprange_reward, over nothing, `ref_std` or the running std."""
        limit = self.method.cliprange_reward
        if limit:
            scores = scores.clamp(-limit, limit)
        totals = scores if scores.dim() == 1 else scores.sum(1)
        if self.ref_std is None:
            self.ref_std = totals.std().item()
        # on the CPU, since Apple's GPUs have no 64-bit numbers
        self.moments = add_moments(self.moments, tensor(totals.tolist(), dtype=float64))
        count, _, squares = self.moments
        running_std = (squares / max(count - 1, 1)) ** 0.5
        divisor = {"ref": self.ref_std, "running": running_std}.get(self.method.scale_reward, 1.0)
        return scores / (divisor or 1.0)

    def state(self) -> dict:
        """What a checkpoint keeps of it."""
        return {"score_moments": self.moments, "ref_std": self.ref_std}

    def restore(self, state: dict) -> None:
        """Go on from what `state` gave."""
        self.moments, self.ref_std = tuple(state["score_moments"]), state["ref_std"]


def add_moments(moments: tuple, values: Tensor) -> tuple:
    """(count, mean, sum of squared deviations) after `values` (N,) are added (Chan et al. 1979)."""
    count, mean, squares = moments
    total = count + len(values)
    delta = values.mean().item() - mean
    mean_after = mean + delta * len(values) / total
    squares += values.var(unbiased=False).item() * len(values) + delta**2 * count * len(values) / total
    return total, mean_after, squares
