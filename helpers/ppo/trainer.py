"""The loop: sample, score, update, and write down what happened."""

import math
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from helpers.errors import CourseError
from helpers.ppo import checkpoint, loss
from helpers.ppo.config import REAL_TRLX, TRLConfig, check, default_ppo_config
from helpers.ppo.load import context_limit, load_policy, load_tokenizer, make_optimizer, make_scheduler
from helpers.ppo.rollout import PromptSet, Rollouts, Sampler, distinct_share, join
from helpers.rewards import call_with_accepted


@dataclass
class History:
    """What a run was like: flat rows, ready for pandas. KL is in nats per sample, rewards are the reward function's.

    rounds: one per batch of rollouts (step, reward, reward_std, kl, kl_coef, length, distinct, seconds_*)
    updates: one per optimizer step (step, loss, policy_loss, value_loss, ratio, clipfrac, approx_kl, entropy, lr)
    evals: one per evaluation on the held-out prompts (step, reward/mean, kl, length, distinct, metrics/*)
    """

    rounds: list[dict] = field(default_factory=list)
    updates: list[dict] = field(default_factory=list)
    evals: list[dict] = field(default_factory=list)


class PPOTrainer:
    """One PPO run. `train` below makes it and runs it; afterwards it generates, evaluates and saves."""

    def __init__(
        self, config, reward_fn, prompts, eval_prompts, metric_fn=None, stop_sequences=(), listeners=()
    ):
        check(config)
        self.config, self.reward_fn, self.metric_fn = config, reward_fn, metric_fn
        self.listeners = listeners
        self.history = History()
        self.step = 0
        self.kl_coef = float(config.method.init_kl_coef)
        self.score_moments = (0, 0.0, 0.0)  # count, mean, sum of squared deviations
        self.ref_std = config.method.ref_std
        self.eval_samples: list[dict] = []

        self.accelerator = Accelerator()
        if self.accelerator.num_processes > 1:
            raise CourseError("this engine runs in one process; start it without `accelerate launch`")
        self.tokenizer = load_tokenizer(config)
        policy = load_policy(config)
        limit = context_limit(config, policy)
        if prompts is None:
            prompts = [self.tokenizer.bos_token] * config.train.batch_size
        if eval_prompts is None:
            eval_prompts = prompts[: config.train.batch_size]
        self.prompts = PromptSet(prompts, self.tokenizer, limit, "prompts")
        self.eval_prompts = PromptSet(eval_prompts, self.tokenizer, limit, "eval_prompts")
        checkpoint.check_disk(config.train.checkpoint_dir, checkpoint_bytes(policy))

        optimizer = make_optimizer(config, policy.trainable().values())
        scheduler = make_scheduler(config, optimizer)
        self.policy, self.optimizer, self.scheduler = self.accelerator.prepare(policy, optimizer, scheduler)
        self.sampler = Sampler(
            self.policy,
            self.tokenizer,
            reward_fn,
            config,
            list(stop_sequences or []),
            self.accelerator.device,
        )
        method, train = config.method, config.train
        steps_per_round = method.ppo_epochs * math.ceil(method.num_rollouts / train.batch_size)
        self.total_steps = min(train.epochs * steps_per_round, train.total_steps)

    @property
    def model(self):
        """The policy as transformers knows it, without the value head."""
        return self.policy.base_model

    def learn(self) -> None:
        """Run to `total_steps`, from the start or from `resume_from_checkpoint`."""
        self.tell("start")
        try:
            self.resume_or_begin()
            while self.step < self.total_steps:
                self.update(self.collect())
                self.save_checkpoint_if_due()
        finally:
            self.tell("end")

    def resume_or_begin(self) -> None:
        folder = self.config.train.resume_from_checkpoint
        found = checkpoint.newest(Path(folder)) if folder else None
        if found:
            checkpoint.load(self, found)
            return
        if folder:
            warnings.warn(f"no checkpoint in {folder} yet: starting from the beginning", stacklevel=4)
        self.try_reward_fn()
        self.evaluate_and_record()

    def try_reward_fn(self) -> None:
        """Score two samples before the run, so that a wrong reward function is known at once."""
        with self.random_state_kept():
            self.sampler.rollouts(self.prompts, [0, len(self.prompts) - 1])

    def collect(self) -> Rollouts:
        """One round of rollouts, and its row in the history."""
        method = self.config.method
        self.sampler.seconds = dict.fromkeys(self.sampler.seconds, 0.0)
        parts, outputs = [], []
        while (have := sum(map(len, parts))) < method.num_rollouts:
            count = min(method.chunk_size, method.num_rollouts - have)
            part, texts = self.sampler.rollouts(self.prompts, self.prompts.deal(count))
            parts.append(part)
            outputs += texts["outputs"]
            self.tell("progress")
        rollouts = join(parts)
        rewards = rollouts.total_scores()
        self.history.rounds.append(
            {
                "step": self.step,
                "reward": rewards.mean().item(),
                "reward_std": rewards.std(unbiased=False).item(),
                "kl": rollouts.kl().sum(1).mean().item(),
                "kl_coef": self.kl_coef,
                "length": rollouts.mask.sum(1).mean().item(),
                "distinct": distinct_share(outputs),
                **{f"seconds_{phase}": seconds for phase, seconds in self.sampler.seconds.items()},
                "seconds_update": 0.0,
            }
        )
        self.tell("progress")
        return rollouts

    def update(self, rollouts: Rollouts) -> None:
        """`ppo_epochs` passes over the rollouts, one optimizer step per batch."""
        method, train = self.config.method, self.config.train
        rewards = loss.token_rewards(self.scale(rollouts.scores), rollouts.kl(), self.kl_coef, rollouts.mask)
        advantages, returns = loss.advantages_and_returns(
            rewards, rollouts.values, rollouts.mask, method.gamma, method.lam
        )
        for _ in range(method.ppo_epochs):
            order = torch.randperm(len(rollouts), device="cpu").to(rewards.device)
            for batch in order.split(train.batch_size):
                whitened = loss.masked_whiten(advantages[batch], rollouts.mask[batch])
                began = time.perf_counter()
                row = self.optimizer_step(rollouts.rows(batch), whitened, returns[batch])
                self.history.rounds[-1]["seconds_update"] += time.perf_counter() - began
                self.history.updates.append(row)
                if self.step % train.eval_interval == 0 or self.step >= self.total_steps:
                    self.evaluate_and_record()
                self.tell("progress")
                if self.step >= self.total_steps:
                    return
            kl = self.history.rounds[-1]["kl"]
            self.kl_coef = loss.next_kl_coef(
                self.kl_coef, kl, method.target, method.horizon, train.batch_size
            )

    def optimizer_step(self, batch: Rollouts, advantages, returns) -> dict:
        """One step on one batch, in micro-batches of `minibatch_size`; its row for the history."""
        tokens = batch.mask.sum()
        totals: dict[str, float] = {}
        for micro in torch.arange(len(batch)).split(self.config.train.minibatch_size or len(batch)):
            objective, sums = self.losses(batch.rows(micro), advantages[micro], returns[micro])
            self.accelerator.backward(objective / tokens)
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + value
        self.optimizer.step()
        self.optimizer.zero_grad()
        lr = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.step += 1
        return {
            "step": self.step,
            **{name: value / tokens.item() for name, value in totals.items()},
            "lr": lr,
        }

    def losses(self, batch: Rollouts, advantages, returns) -> tuple[torch.Tensor, dict[str, float]]:
        """The PPO loss of a micro-batch, summed over response tokens, and sums to report."""
        method = self.config.method
        ids = torch.cat([batch.query, batch.response], dim=1)
        attention = torch.cat([batch.query_mask, batch.mask.long()], dim=1)
        logits, values = self.policy(ids, attention, batch.response.shape[1])
        distribution = loss.log_distribution(logits, self.sampler.temperature)
        logprobs = loss.token_logprobs(distribution, batch.response)
        policy, ratio, clipped = loss.policy_loss(
            logprobs, batch.logprobs, advantages, batch.mask, method.cliprange
        )
        value = loss.value_loss(values.float(), batch.values, returns, batch.mask, method.cliprange_value)
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
                "entropy": (loss.entropy(distribution) * batch.mask).sum(),
            }
            return objective, {name: total.item() for name, total in sums.items()}

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

    def evaluate(self) -> dict:
        """Sample once for each held-out prompt; mean reward, KL, length and metrics.

        The same prompts and the same seed every time, and the run's own random state is left as it was.
        """
        rows: list[dict] = []
        parts = []
        metrics: dict[str, list[float]] = {}
        with self.random_state_kept():
            set_seed(self.config.train.seed)
            for start in range(0, len(self.eval_prompts), self.config.method.chunk_size):
                stop = min(start + self.config.method.chunk_size, len(self.eval_prompts))
                part, texts = self.sampler.rollouts(
                    self.eval_prompts, list(range(start, stop)), evaluation=True
                )
                parts.append(part)
                for prompt, output, reward in zip(
                    texts["prompts"], texts["outputs"], part.total_scores().tolist(), strict=True
                ):
                    rows.append({"prompt": prompt, "output": output, "reward": reward})
                if self.metric_fn:
                    for name, values in call_with_accepted(
                        self.metric_fn, **texts, tokenizer=self.tokenizer
                    ).items():
                        metrics.setdefault(name, []).extend(torch.as_tensor(values).reshape(-1).tolist())
        rollouts = join(parts)
        self.eval_samples = rows
        return {
            "reward/mean": sum(row["reward"] for row in rows) / len(rows),
            "kl": rollouts.kl().sum(1).mean().item(),
            "length": rollouts.mask.sum(1).mean().item(),
            "distinct": distinct_share([row["output"] for row in rows]),
            **{f"metrics/{name}": sum(values) / len(values) for name, values in metrics.items()},
        }

    def evaluate_and_record(self) -> None:
        rewards = [row["reward/mean"] for row in self.history.evals]
        row = {"step": self.step, **self.evaluate()}
        self.history.evals.append(row)
        if self.config.train.save_best and rewards and row["reward/mean"] > max(rewards):
            self.save_pretrained(Path(self.config.train.checkpoint_dir) / "best_checkpoint" / "hf_model")
        self.tell("progress")

    def generate(self, input_ids, attention_mask=None, **kwargs):
        """Token ids (B, prompt + response) sampled with the run's own settings, which `kwargs` override."""
        settings = {**self.sampler.eval_kwargs, **kwargs}
        device = self.accelerator.device
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        with torch.no_grad():
            return self.model.generate(
                input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), **settings
            )

    def save_pretrained(self, directory: str | Path | None = None) -> Path:
        """Write the policy and its tokenizer as `AutoModelForCausalLM.from_pretrained` reads them; the value head stays."""
        return checkpoint.write_folder(
            Path(directory or Path(self.config.train.checkpoint_dir) / "hf_model"), self.write_model
        )

    def write_model(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def save_checkpoint_if_due(self) -> None:
        """At the end of a round: every `checkpoint_interval` steps, and when the run is over."""
        interval = self.config.train.checkpoint_interval
        steps_this_round = self.step - self.history.rounds[-1]["step"]
        due = self.step // interval > (self.step - steps_this_round) // interval
        if due or self.step >= self.total_steps:
            name = f"checkpoint_{self.step:0{len(str(self.total_steps))}d}"
            checkpoint.save(self, Path(self.config.train.checkpoint_dir) / name)

    def progress(self) -> dict:
        """What a checkpoint remembers beside weights and random states."""
        return {
            "step": self.step,
            "kl_coef": self.kl_coef,
            "score_moments": self.score_moments,
            "ref_std": self.ref_std,
            "prompt_order": self.prompts.order,
            "prompt_count": len(self.prompts),
            "history": vars(self.history),
        }

    def restore(self, progress: dict) -> None:
        if progress["prompt_count"] != len(self.prompts):
            raise CourseError(
                f"the checkpoint was made with {progress['prompt_count']} prompts, this run has {len(self.prompts)}. "
                "Use the same prompts to go on, or start anew with resume_from_checkpoint=None."
            )
        self.step = progress["step"]
        self.kl_coef = progress["kl_coef"]
        self.score_moments = tuple(progress["score_moments"])
        self.ref_std = progress["ref_std"]
        self.prompts.order = progress["prompt_order"]
        self.history = History(**progress["history"])

    @contextmanager
    def random_state_kept(self):
        """Whatever is drawn inside, the run's own random states afterwards are what they were before."""
        python, tensors = checkpoint.python_random_states(), checkpoint.torch_random_states()
        try:
            yield
        finally:
            checkpoint.set_random_states(python, tensors)

    def tell(self, event: str) -> None:
        for listener in self.listeners:
            getattr(listener, event)(self)


def checkpoint_bytes(policy) -> int:
    """About what one checkpoint takes: the model, and three numbers per trained weight (itself and Adam's two)."""
    trained = sum(p.numel() for p in policy.trainable().values())
    return 4 * (sum(p.numel() for p in policy.base_model.parameters()) + 3 * trained)


def add_moments(moments: tuple, values: torch.Tensor) -> tuple:
    """(count, mean, sum of squared deviations) with `values` added (Chan et al. 1979)."""
    count, mean, squares = moments
    total = count + len(values)
    delta = values.mean().item() - mean
    mean_after = mean + delta * len(values) / total
    squares += values.var(unbiased=False).item() * len(values) + delta**2 * count * len(values) / total
    return total, mean_after, squares


def train(
    model_path: str | None = None,
    reward_fn=None,
    dataset=None,
    samples=None,
    rewards=None,
    prompts: list | None = None,
    eval_prompts: list | None = None,
    metric_fn=None,
    config: TRLConfig | None = None,
    stop_sequences: list[str] | None = None,
    listeners=(),
) -> PPOTrainer:
    """trlX's `train` for PPO: improve a causal model so that `reward_fn` likes what it writes.

    Args:
        model_path: folder or hub id; overrides `config.model.model_path`.
        reward_fn: `reward_fn(samples, ...) -> list[float]`; see helpers/rewards.py for the contract.
        prompts: texts, or dictionaries with "prompt" and extra keys, which reach `reward_fn`.
        eval_prompts: held-out prompts, scored before, during and after; the first prompts if left out.
        metric_fn: `metric_fn(samples, ...) -> dict[str, list[float]]`, reported with each evaluation.
        stop_sequences: a continuation ends where one of these begins.
        listeners: objects with start(trainer), progress(trainer) and end(trainer); not in trlX.
    Returns:
        The trainer: generate, evaluate, save_pretrained, model, tokenizer, history.
    Raises:
        CourseError: whatever is wrong with the input, before any training.
    """
    if dataset is not None or samples is not None or rewards is not None:
        raise CourseError(f"training on given samples and rewards (ILQL, SFT) is not here: {REAL_TRLX}")
    if not callable(reward_fn):
        raise CourseError(
            f"reward_fn is {reward_fn!r}: expected a function, reward_fn(samples) -> list[float]"
        )
    config = config or default_ppo_config()
    if model_path:
        config = config.evolve(model=dict(model_path=model_path))
    set_seed(config.train.seed)
    trainer = PPOTrainer(config, reward_fn, prompts, eval_prompts, metric_fn, stop_sequences, listeners)
    trainer.learn()
    return trainer
