"""PPO, plainly: one process, float32, each number computed where it is needed. Read it from `learn` down.

A round has two parts: `collect` samples rollouts (stages 1 to 3, in rollout.py), `update` learns from them (stages 4 and 5).
loss.py has the formulas, policy.py the network. fast/ and parallel/, which run by default, compute the same.
"""

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from helpers.ppo import loss
from helpers.ppo.config import TRLConfig, check
from helpers.ppo.fields import PPOConfig
from helpers.ppo.load import load_policy, load_tokenizer, make_optimizer, make_scheduler
from helpers.ppo.prompts import Prompts
from helpers.ppo.rollout import Rollouts, concatenate
from helpers.ppo.run import Listener, Run
from helpers.ppo.scores import ScoreScale
from helpers.rewards import MetricFn, RewardFn


class PPOTrainer(Run):
    """One PPO run. `train.train` makes it, explains its arguments, and runs it; then it generates, evaluates and saves."""

    engine = "built-in PPO"
    method = PPOConfig  # what `config.method` is

    def __init__(
        self,
        config: TRLConfig,
        reward_fn: RewardFn,
        prompts: Prompts | None,
        eval_prompts: Prompts | None,
        metric_fn: MetricFn | None = None,
        stop_sequences: Sequence[str] | None = (),
        listeners: Sequence[Listener] = (),
        minutes: float | None = None,
    ):
        check(config)
        self.begin(config)
        self.make_parts(config)
        self.prepare(reward_fn, prompts, eval_prompts, metric_fn, stop_sequences, listeners, minutes)

    def make_parts(self, config: TRLConfig) -> None:
        """Load tokenizer and policy, and make the optimizer and its scheduler."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = load_tokenizer(config)
        self.policy = load_policy(config).to(self.device)
        self.optimizer = make_optimizer(config, self.policy.trainable().values())
        self.scheduler = make_scheduler(config, self.optimizer)

    def begin(self, config: TRLConfig) -> None:
        """Set the run's counters to their beginning, and how many rollouts it takes at once."""
        self.config = config
        self.step = 0
        self.kl_coef = float(config.method.init_kl_coef)  # beta
        self.score_scale = ScoreScale(config.method)
        self.num_rollouts, self.chunk_size = config.method.num_rollouts, config.method.chunk_size
        self.batch_size = config.train.batch_size

    @property
    def model(self):
        """The policy as transformers knows it, without the value head."""
        return self.policy.base_model

    def learn(self) -> None:
        """Train to `total_steps`, from the start or from `resume_from_checkpoint`."""
        with self.told():
            if not self.resume():
                self.record_evaluation(self.evaluate())
            self.keep_state()
            while self.step < self.total_steps:
                self.update(self.collect())
                self.end_round()

    def collect(self) -> Rollouts:
        """Sample one round of rollouts, and add its row to the history."""
        self.sampler.seconds = dict.fromkeys(self.sampler.seconds, 0.0)
        parts, outputs = [], []
        while (have := sum(map(len, parts))) < self.num_rollouts:
            count = min(self.chunk_size, self.num_rollouts - have)
            part, texts = self.sampler.rollouts(self.prompts, self.deal(count))
            parts.append(part)
            outputs += texts["outputs"]
            self.tell("progress")
        rollouts = concatenate(parts)
        kl, lengths = rollouts.kl().sum(1), rollouts.mask.sum(1)
        self.record_round(rollouts.scores, kl, lengths, outputs, self.sampler.seconds)
        self.refuse_divergence(torch.cat([kl, rollouts.values.sum(1)]), "log-probabilities or values")
        self.tell("progress")
        return rollouts

    def deal(self, count: int) -> list[int]:
        """The numbers of the prompts of the next `count` rollouts."""
        return self.prompts.deal(count)

    def update(self, rollouts: Rollouts) -> None:
        """Learn from the rollouts: `ppo_epochs` passes over them, one optimizer step per batch."""
        method, train = self.config.method, self.config.train

        # Stage 4: what each token earned, and how much better that is than expected
        advantages, returns = self.credit(rollouts)

        # Stage 5: move policy and value head
        for _ in range(method.ppo_epochs):
            order = torch.randperm(len(rollouts)).to(advantages.device)
            for batch in order.split(self.batch_size):
                whitened = self.whiten(advantages[batch], rollouts.mask[batch])
                began = time.perf_counter()
                row = self.optimizer_step(rollouts.rows(batch), whitened, returns[batch])
                self.history.rounds[-1]["seconds_update"] += time.perf_counter() - began
                self.history.updates.append(row)
                if self.step % train.eval_interval == 0 or self.step >= self.total_steps:
                    self.record_evaluation(self.evaluate())
                self.tell("progress")
                if self.step >= self.total_steps:
                    return
            kl = self.history.rounds[-1]["kl"]
            self.kl_coef = loss.next_kl_coef(self.kl_coef, kl, method.target, method.horizon, self.batch_size)

    def credit(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Advantages over what the value head expected, and returns: each (N, R)."""
        method = self.config.method
        scores = self.score_scale(rollouts.scores)
        rewards = loss.token_rewards(scores, rollouts.kl(), self.kl_coef, rollouts.mask)
        advantages, returns = loss.advantages_and_returns(
            rewards, rollouts.values, rollouts.mask, method.gamma, method.lam
        )
        explained = loss.explained_variance(rollouts.values, returns, rollouts.mask)
        self.history.rounds[-1]["explained_variance"] = explained
        return advantages, returns

    def whiten(self, advantages: Tensor, mask: Tensor) -> Tensor:
        """The advantages (B, R) of a batch as its loss takes them."""
        return loss.masked_whiten(advantages, mask)

    def optimizer_step(self, batch: Rollouts, advantages: Tensor, returns: Tensor) -> dict:
        """Take one step on one batch, with its advantages and returns (B, R); returns its row for the history."""
        train, tokens = self.config.train, batch.mask.sum()
        totals: dict[str, float] = {}
        self.optimizer.zero_grad()
        for micro in torch.arange(len(batch)).split(train.minibatch_size or self.batch_size):
            objective, sums = self.losses(batch.rows(micro), advantages[micro], returns[micro])
            # gradients add up over micro-batches; divided by the tokens of the whole batch, their sum is its mean
            (objective / tokens).backward()
            totals = {name: totals.get(name, 0.0) + value for name, value in sums.items()}
        norm = clip_grad_norm_(self.policy.trainable().values(), train.max_grad_norm or math.inf).item()
        self.optimizer.step()
        return self.step_done(totals, tokens, norm)

    def step_done(self, totals: dict[str, float], tokens: Tensor, norm: float) -> dict:
        """Count the step; returns its row for the history, in which sums over tokens become means."""
        lr = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.step += 1
        means = {name: value / tokens.item() for name, value in totals.items()}
        self.refuse_divergence(means["loss"], "the loss")
        self.refuse_diverged_weights()
        return {"step": self.step, **means, "grad_norm": norm, "lr": lr}

    def losses(self, batch: Rollouts, advantages: Tensor, returns: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The PPO loss of a micro-batch, summed over response tokens, and the sums for the history."""
        method = self.config.method
        logprobs, values, entropy = self.forward_pass(batch)
        policy, ratio, clipped = loss.policy_loss(
            logprobs, batch.logprobs, advantages, batch.mask, method.cliprange
        )
        value = loss.value_loss(values, batch.values, returns, batch.mask, method.cliprange_value)
        objective = (policy + method.vf_coef * value).sum()
        losses = {"loss": objective, "policy_loss": policy.sum(), "value_loss": value.sum()}
        return objective, self.sums(losses, batch, logprobs, ratio, clipped, entropy)

    @torch.no_grad()
    def sums(
        self,
        losses: dict[str, Tensor],
        batch: Rollouts,
        logprobs: Tensor,
        ratio: Tensor,
        clipped: Tensor,
        entropy: Tensor,
    ) -> dict[str, float]:
        """The sums of a micro-batch for the history: its losses, and how far the policy is from the one that sampled."""
        log_ratio = (logprobs - batch.logprobs) * batch.mask
        sums = losses | {
            "ratio": (ratio * batch.mask).sum(),
            "clipfrac": clipped.sum(),
            "approx_kl": ((ratio - 1 - log_ratio) * batch.mask).sum(),
            "logprob": (batch.logprobs * batch.mask).sum(),
            "entropy": (entropy * batch.mask).sum(),
        }
        return {name: total.item() for name, total in sums.items()}

    def forward_pass(self, batch: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities and values under the policy as it is now, with gradients, and the entropy: each (B, R)."""
        ids = torch.cat([batch.query, batch.response], dim=1)
        attention = torch.cat([batch.query_mask, batch.mask.long()], dim=1)
        logits, values = self.policy(ids, attention, batch.response.shape[1])
        distribution = loss.log_distribution(logits, self.sampler.temperature)
        logprobs = loss.token_logprobs(distribution, batch.response)
        return logprobs, values.float(), loss.entropy(distribution)

    def progress(self) -> dict:
        return super().progress() | self.score_scale.state()

    def restore(self, progress: dict) -> None:
        super().restore(progress)
        self.score_scale.restore(progress)
