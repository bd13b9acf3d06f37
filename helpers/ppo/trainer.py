"""The loop: sample, score, update, and write down what happened."""

import time

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration

from helpers.errors import CourseError
from helpers.ppo import loss, processes, sharding
from helpers.ppo.config import check
from helpers.ppo.load import load_policy, load_tokenizer, make_scheduler
from helpers.ppo.memory import Fitting
from helpers.ppo.rollout import Rollouts, join
from helpers.ppo.run import Run, round_row

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


class PPOTrainer(Run):
    """One PPO run. `train.train` makes it and runs it; afterwards it generates, evaluates and saves."""

    engine = "built-in PPO"

    def __init__(
        self,
        config,
        reward_fn,
        prompts,
        eval_prompts,
        metric_fn=None,
        stop_sequences=(),
        listeners=(),
        minutes=None,
    ):
        check(config)
        self.config = config
        self.step = 0
        self.kl_coef = float(config.method.init_kl_coef)
        self.score_moments = (0, 0.0, 0.0)  # count, mean, sum of squared deviations
        self.ref_std = config.method.ref_std
        processes.check_launch()
        AcceleratorState._reset_state()  # else the precision of this kernel's first run would be that of all
        # split_batches: the scheduler counts optimizer steps, however many processes take them
        self.accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(split_batches=True))
        processes.join(self.accelerator)
        self.tokenizer = load_tokenizer(config)
        policy = load_policy(config)
        if self.accelerator.mixed_precision == "fp16" and self.accelerator.device.type == "cpu":
            raise CourseError("mixed precision fp16 needs a GPU: use bf16 where the CPU has it, or no")
        if self.accelerator.mixed_precision in HALF:
            policy.store_frozen_in(HALF[self.accelerator.mixed_precision])
        # evaluation_mode: on its device and in its precision, but not wrapped (processes.py says why)
        self.policy = self.accelerator.prepare_model(policy, evaluation_mode=True)
        self.blocks = sharding.split(policy) if processes.sharded() else ()
        optimizer = self.setup_optimizer()
        scheduler = make_scheduler(config, optimizer)
        self.optimizer, self.scheduler = self.accelerator.prepare(optimizer, scheduler)
        train = config.train
        self.updating = Fitting(
            train.minibatch_size or train.batch_size,
            "an update",
            "train.minibatch_size",
            halves=not self.blocks,  # sharded, each micro-batch is one of all processes together
        )
        self.prepare(reward_fn, prompts, eval_prompts, metric_fn, stop_sequences, listeners, minutes)

    @property
    def model(self):
        """The policy as transformers knows it, without the value head. Sharded, only `save_pretrained` of the trainer saves it."""
        return self.policy.base_model

    def learn(self) -> None:
        """Run to `total_steps`, from the start or from `resume_from_checkpoint`."""
        try:
            with self.told():
                if not self.resume():
                    self.record_evaluation(self.evaluate())
                while self.step < self.total_steps:
                    self.update(self.collect())
                    self.end_round()
        finally:
            # `trainer.model` is a reader's to call, without autocast
            self.policy.store_frozen_in(torch.float32)

    def collect(self) -> Rollouts:
        """One round of rollouts, those of all processes, and its row in the history."""
        wanted, chunk = (
            number * processes.count()
            for number in (self.config.method.num_rollouts, self.config.method.chunk_size)
        )
        self.sampler.seconds = dict.fromkeys(self.sampler.seconds, 0.0)
        parts, outputs = [], []
        while (have := sum(map(len, parts))) < wanted:
            count = min(chunk, wanted - have)
            part, texts = self.sampler.rollouts(self.prompts, self.prompts.deal(count))
            parts.append(part)
            outputs += texts["outputs"]
            self.tell("progress")
        rollouts = join(parts)
        rewards, kl, lengths = rollouts.total_scores(), rollouts.kl().sum(1), rollouts.mask.sum(1)
        self.history.rounds.append(
            round_row(self.step, rewards, kl, self.kl_coef, lengths, outputs, self.sampler.seconds)
        )
        self.tell("progress")
        return rollouts

    def update(self, rollouts: Rollouts) -> None:
        """`ppo_epochs` passes over the rollouts, one optimizer step per batch."""
        method, train = self.config.method, self.config.train
        batch_size = train.batch_size * processes.count()
        rewards = loss.token_rewards(self.scale(rollouts.scores), rollouts.kl(), self.kl_coef, rollouts.mask)
        advantages, returns = loss.advantages_and_returns(
            rewards, rollouts.values, rollouts.mask, method.gamma, method.lam
        )
        for _ in range(method.ppo_epochs):
            order = torch.randperm(len(rollouts), device="cpu").to(rewards.device)
            for batch in order.split(batch_size):
                whitened = loss.masked_whiten(advantages[batch], rollouts.mask[batch])
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
            self.kl_coef = loss.next_kl_coef(self.kl_coef, kl, method.target, method.horizon, batch_size)

    def optimizer_step(self, batch: Rollouts, advantages, returns) -> dict:
        """One step on one batch; its row for the history.

        Each process learns from its share. Dividing by the tokens of the whole batch makes the sum of the gradients its mean.
        """
        tokens = batch.mask.sum()
        share = processes.shard(len(batch))
        own = (batch.rows(share), advantages[share], returns[share])
        totals = processes.total(self.updating.run(lambda rows: self.gradients(*own, tokens, rows)))
        with sharding.in_shards(self.blocks):
            learning = self.policy.trainable().values()
            processes.add_up([p.grad for p in learning if p.grad is not None and not sharding.is_split(p)])
            self.optimizer.step()
        lr = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.step += 1
        return {
            "step": self.step,
            **{name: value / tokens.item() for name, value in totals.items()},
            "lr": lr,
        }

    def gradients(self, batch: Rollouts, advantages, returns, tokens, rows: int) -> dict[str, float]:
        """The gradients of the loss divided by `tokens`, added up over micro-batches of `rows`; sums to report."""
        self.optimizer.zero_grad()
        totals: dict[str, float] = {}
        for micro in self.micro_batches(batch, rows):
            objective, sums = self.losses(batch.rows(micro), advantages[micro], returns[micro])
            self.accelerator.backward(objective / tokens)
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + value
        return totals

    def micro_batches(self, batch: Rollouts, rows: int) -> tuple[torch.Tensor, ...]:
        """The rows of each micro-batch."""
        return torch.arange(len(batch)).split(rows)

    def losses(self, batch: Rollouts, advantages, returns) -> tuple[torch.Tensor, dict[str, float]]:
        """The PPO loss of a micro-batch, summed over response tokens, and sums to report."""
        method = self.config.method
        with self.accelerator.autocast():
            logprobs, values, entropy = self.look(batch)
        policy, ratio, clipped = loss.policy_loss(
            logprobs, batch.logprobs, advantages, batch.mask, method.cliprange
        )
        value = loss.value_loss(values, batch.values, returns, batch.mask, method.cliprange_value)
        objective = (policy + method.vf_coef * value).sum()
        with torch.no_grad():
            log_ratio = (logprobs - batch.logprobs) * batch.mask
            sums = {
                "loss": objective,
                "policy_loss": policy.sum(),
                "value_loss": value.sum(),
                "ratio": (ratio * batch.mask).sum(),
                "clipfrac": clipped.sum(),
                "approx_kl": ((ratio - 1 - log_ratio) * batch.mask).sum(),
                "entropy": (entropy * batch.mask).sum(),
            }
            return objective, {name: total.item() for name, total in sums.items()}

    def look(self, batch: Rollouts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, R) log-probabilities and values under the policy as it is now, which learn, and the entropy."""
        ids = torch.cat([batch.query, batch.response], dim=1)
        attention = torch.cat([batch.query_mask, batch.mask.long()], dim=1)
        logits, values = self.policy(ids, attention, batch.response.shape[1])
        distribution = loss.log_distribution(logits, self.sampler.temperature)
        return (
            loss.token_logprobs(distribution, batch.response),
            values.float(),
            loss.entropy(distribution),
        )

    def scale(self, scores: torch.Tensor) -> torch.Tensor:
        """Clip scores to +-cliprange_reward and, where asked, divide by the first round's or the running deviation."""
        method = self.config.method
        if method.cliprange_reward:
            scores = scores.clamp(-method.cliprange_reward, method.cliprange_reward)
        totals = scores if scores.dim() == 1 else scores.sum(1)
        if self.ref_std is None:
            self.ref_std = totals.std().item()
        self.score_moments = add_moments(self.score_moments, totals.double())
        count, _, squares = self.score_moments
        running_std = (squares / max(count - 1, 1)) ** 0.5
        divisor = {"ref": self.ref_std, "running": running_std}.get(method.scale_reward, 1.0)
        return scores / (divisor or 1.0)

    def progress(self) -> dict:
        return super().progress() | {"score_moments": self.score_moments, "ref_std": self.ref_std}

    def restore(self, progress: dict) -> None:
        super().restore(progress)
        self.score_moments = tuple(progress["score_moments"])
        self.ref_std = progress["ref_std"]


def add_moments(moments: tuple, values: torch.Tensor) -> tuple:
    """(count, mean, sum of squared deviations) with `values` added (Chan et al. 1979)."""
    count, mean, squares = moments
    total = count + len(values)
    delta = values.mean().item() - mean
    mean_after = mean + delta * len(values) / total
    squares += values.var(unbiased=False).item() * len(values) + delta**2 * count * len(values) / total
    return total, mean_after, squares
