"""RLOO and GRPO: what differs from PPO (trainer.py), and nothing else.

Both draw several samples of each prompt, a group, and ask how much better each is than the others of its group. So they need no
value head. Every token of a sample has the same advantage, and no batch is whitened.

Shapes: N rollouts, the samples of a prompt one after the other, G samples a group, R response tokens.
"""

from torch import Tensor

from helpers.ppo import loss
from helpers.ppo.fields import GRPOConfig, RLOOConfig
from helpers.ppo.rollout import Rollouts
from helpers.ppo.trainer import PPOTrainer


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """Each reward less the mean of the others of its group: (N,) -> (N,).

    RLOO: Ahmadian et al. 2024 (arxiv.org/abs/2402.14740), sec. 3.3; Kool et al. 2019 (openreview.net/forum?id=r1lgTGL5DE).
    """
    groups = rewards.view(-1, group_size)
    others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).view(-1)


def above_group(scores: Tensor, group_size: int, scale_by_deviation: bool) -> Tensor:
    """Each score less the mean of its group, and over the group's standard deviation if asked for: (N,) -> (N,).

    GRPO: Shao et al. 2024 (arxiv.org/abs/2402.03300), sec. 4.1.2. Without the deviation: Liu et al. 2025 (arxiv.org/abs/2503.20783).
    1e-4, which TRL adds too, keeps the division from 0.
    """
    groups = scores.view(-1, group_size)
    advantages = groups - groups.mean(1, keepdim=True)
    if scale_by_deviation:
        advantages = advantages / (groups.std(1, keepdim=True) + 1e-4)
    return advantages.view(-1)


def k3(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """pi_ref / pi - 1 - log(pi_ref / pi) at each token (N, R), in nats: never negative, and the KL in the mean over samples of pi.

    Shao et al. 2024 (arxiv.org/abs/2402.03300), eq. 4; the estimator k3 of joschu.net/blog/kl-approx.html.
    """
    log_ratio = (ref_logprobs - logprobs) * mask
    return log_ratio.exp() - 1 - log_ratio


class Groups(PPOTrainer):
    """What RLOO and GRPO share. A subclass says what a sample's advantage is (`compare`)."""

    def compare(self, rollouts: Rollouts, scores: Tensor) -> Tensor:
        """The advantage of each sample (N,), from its score (N,)."""
        raise NotImplementedError

    def deal(self, count: int) -> list[int]:
        """As `PPOTrainer.deal`: each prompt comes `group_size` times in a row."""
        size = self.config.method.group_size
        return [number for number in super().deal(count // size) for _ in range(size)]

    def record_round(self, rewards: Tensor, *rest) -> None:
        """As `Run.record_round`, with the size of the groups, and the share of those whose samples all have one reward."""
        super().record_round(rewards, *rest)
        groups = rewards.view(-1, self.config.method.group_size)
        alike = (groups == groups[:, :1]).all(1).float().mean().item()
        self.history.rounds[-1] |= {"group_size": groups.shape[1], "same_group": alike}

    def credit(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """The advantage of a sample at each of its tokens, twice: without a value head the return is the same. Each (N, R)."""
        scores = self.score_scale(rollouts.scores)
        if scores.dim() == 2:  # one for each token: their sum is the sample's
            scores = (scores * rollouts.mask).sum(1)
        advantages = self.compare(rollouts, scores)[:, None] * rollouts.mask
        return advantages, advantages

    def whiten(self, advantages: Tensor, mask: Tensor) -> Tensor:
        """The advantages as they are: the group's mean is off already."""
        return advantages

    def losses(self, batch: Rollouts, advantages: Tensor, returns: Tensor) -> tuple[Tensor, dict[str, float]]:
        """As `PPOTrainer.losses`, without the value loss, and with the loss of `penalty`."""
        logprobs, _, entropy = self.forward_pass(batch)
        policy, ratio, clipped = loss.policy_loss(
            logprobs, batch.logprobs, advantages, batch.mask, self.config.method.cliprange
        )
        objective = policy.sum() + self.penalty(batch, logprobs)
        losses = {"loss": objective, "policy_loss": policy.sum()}
        return objective, self.sums(losses, batch, logprobs, ratio, clipped, entropy)

    def penalty(self, batch: Rollouts, logprobs: Tensor) -> Tensor | float:
        """What the loss of a micro-batch has beside the policy loss, summed over tokens."""
        return 0.0


class RLOO(Groups):
    """REINFORCE leave-one-out. The KL penalty is in the reward, as in PPO."""

    method = RLOOConfig

    def compare(self, rollouts: Rollouts, scores: Tensor) -> Tensor:
        rewards = scores - self.kl_coef * rollouts.kl().sum(1)
        return leave_one_out(rewards, self.config.method.group_size)


class GRPO(Groups):
    """Group relative policy optimisation. The KL penalty is in the loss."""

    method = GRPOConfig

    def compare(self, rollouts: Rollouts, scores: Tensor) -> Tensor:
        method = self.config.method
        return above_group(scores, method.group_size, method.scale_by_deviation)

    def penalty(self, batch: Rollouts, logprobs: Tensor) -> Tensor:
        return self.kl_coef * k3(logprobs, batch.ref_logprobs, batch.mask).sum()
