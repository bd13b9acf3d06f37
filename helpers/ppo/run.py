"""What every run has, whichever engine learns: a history, evaluation, listeners, saving and exact resume."""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import set_seed
from torch import Tensor

from helpers import files
from helpers.errors import CourseError
from helpers.ppo import checkpoint
from helpers.ppo.config import NEEDS_TRLX, TRLConfig
from helpers.ppo.ending import refuse_special_stops
from helpers.ppo.identity import check_mark, identity_of, mark_newest
from helpers.ppo.load import check_fit, context_limit, make_optimizer
from helpers.ppo.lora import plain_weights
from helpers.ppo.parallel import processes, sharding
from helpers.ppo.policy import Policy
from helpers.ppo.prompts import Prompts, PromptSet, as_list
from helpers.ppo.rollout import Sampler, concatenate
from helpers.ppo.texts import distinct_share, variety
from helpers.ppo.trial import refuse_other_logprobs, try_saving
from helpers.ppo.values import Positive, fit
from helpers.rewards import MetricFn, RewardFn, measure


@dataclass
class History:
    """What a run was like: flat rows, ready for pandas.

    rounds: a row per round of rollouts (step, samples, reward, reward_std, same_reward, cut_reward, scaled_reward, kl, kl_std, kl_coef,
        length, cut, prompts, distinct, opening, ending, distinct_2, seconds_*; as its update begins, explained_variance; with trlX
        padding_whitened; with RLOO and GRPO, which have no explained_variance and no value_loss, group_size and same_group)
    updates: a row per optimizer step (step, loss, policy_loss, value_loss, ratio, clipfrac, approx_kl, logprob, entropy,
        grad_norm, lr)
    evals: a row per evaluation on the held-out prompts (step, reward/mean, kl, length, distinct, metrics/*)

    Units: `kl` is in nats a sample, `approx_kl`, `logprob` (of the sampled tokens, when they were sampled) and `entropy` in nats a
    token, `length` in tokens, rewards in those of the reward function. Shares from 0 to 1, of a round's samples: `same_reward` has
    the commonest reward, `same_group` is in a group whose rewards are all the same, `cut_reward` one beyond
    `cliprange_reward`, `cut` ends at `max_new_tokens`; those of texts are explained in texts.py. `prompts` is how many different
    prompts the run has. `clipfrac` is a share of tokens. `grad_norm` is the length of
    the gradient before `max_grad_norm` shortens it. `explained_variance` is that of the returns by the values, at most 1.
    """

    rounds: list[dict] = field(default_factory=list)
    updates: list[dict] = field(default_factory=list)
    evals: list[dict] = field(default_factory=list)


class Listener(Protocol):
    """Whoever watches a run. `Run.tell` calls these."""

    def start(self, trainer: "Run") -> None:
        """The run begins."""

    def progress(self, trainer: "Run") -> None:
        """A chunk of rollouts, an optimizer step or an evaluation is done."""

    def end(self, trainer: "Run") -> None:
        """The run is over, for whatever reason."""


class Stopped(Exception):
    """The run is to end, because someone asked for it or the time is up."""


class Run:
    """The surroundings of a run. An engine adds `learn`, and keeps `step`, `kl_coef`, `optimizer`, `scheduler`.

    `engine` is its name, which a checkpoint remembers. `prepare` needs config, tokenizer, device, and the policy on it.
    """

    autocast = staticmethod(nullcontext)  # in half precision, Accelerate's
    blocks = ()  # the blocks that are split between processes (sharding.py)

    def setup_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that `config` names, for what learns, or for this process's shards of it. trlX calls this too."""
        with sharding.in_shards(self.blocks):
            optimizer = make_optimizer(self.config, self.policy.trainable().values())
        return sharding.one_by_one(optimizer) if self.blocks else optimizer

    def prepare(
        self,
        reward_fn: RewardFn,
        prompts: Prompts | None,
        eval_prompts: Prompts | None,
        metric_fn: MetricFn | None,
        stop_sequences: Sequence[str] | None,
        listeners: Sequence[Listener],
        minutes: float | None,
    ) -> None:
        """Check everything that the run was given, before any time is spent. The arguments are those of `train.train`.

        Raises:
            CourseError: a prompt is empty or too long, the minutes are no number above 0, or the result could not be saved.
        """
        train = self.config.train
        self.stopping = False
        self.minutes = fit("minutes", minutes, Positive | None)
        self.round_seconds = self.evaluation_seconds = 0.0
        self.metric_fn, self.listeners, self.save_best = metric_fn, listeners, train.save_best
        self.history = History()
        self.eval_samples: list[dict] = []
        limit = context_limit(self.config, self.policy)
        with self.autocast():
            check_fit(self.config, self.tokenizer, self.policy)
        if prompts is None:
            if self.tokenizer.bos_token is None:
                raise CourseError(
                    "there are no prompts, and the tokenizer has no token that begins a text, from which samples could start: give prompts"
                )
            prompts = [self.tokenizer.bos_token] * (train.batch_size * processes.count())
        prompts = as_list(prompts, "prompts")
        if eval_prompts is None:
            eval_prompts = prompts[: train.batch_size * processes.count()]
        refuse_special_stops(stop_sequences or [], self.tokenizer)
        self.prompts = PromptSet(prompts, self.tokenizer, limit, "prompts")
        self.eval_prompts = PromptSet(eval_prompts, self.tokenizer, limit, "eval_prompts")
        self.identity = identity_of(self.policy.digest, self.prompts, self.eval_prompts)
        self.kept: checkpoint.State | None = None  # what the run goes back to where it fails
        self.saved: int | None = None  # the step of the newest checkpoint
        self.total_steps = planned_steps(self.config)
        self.check_folders()
        self.sampler = self.make_sampler(reward_fn, list(stop_sequences or []))
        # what is saved ends its texts where they end here
        self.policy.reference.generation_config.eos_token_id = self.sampler.gen_kwargs["eos_token_id"]
        try_saving(self, Path(train.checkpoint_dir))

    def check_folders(self) -> None:
        """Check that the run can save to its folders, before any time is spent.

        Raises:
            CourseError: the disk is too full, or something that is not ours would be replaced.
        """
        train = self.config.train
        folder = Path(train.checkpoint_dir)
        needed = checkpoint_bytes(self.policy)
        processes.on_main(lambda: check_mark(folder))
        processes.on_main(
            lambda: files.check_space(folder, needed, "set train.checkpoint_dir to another disk")
        )
        processes.on_main(
            lambda: checkpoint.check_checkpoint_folder(self.checkpoint_folder(self.total_steps))
        )
        if train.save_best:
            processes.on_main(
                lambda: checkpoint.check_model_folder(self.best_folder, self.config.model.model_path)
            )

    def checkpoint_folder(self, step: int) -> Path:
        """The folder for the checkpoint of this step; as many digits as the last step has put the names in order."""
        return Path(self.config.train.checkpoint_dir) / f"checkpoint_{step:0{len(str(self.total_steps))}d}"

    @property
    def best_folder(self) -> Path:
        """The folder for the model with the highest held-out reward."""
        return Path(self.config.train.checkpoint_dir) / "best_checkpoint" / "hf_model"

    def make_sampler(self, reward_fn: RewardFn, stop_sequences: list[str]) -> Sampler:
        """The sampler for rollouts and for evaluation."""
        return Sampler(self.policy, self.tokenizer, reward_fn, self.config, stop_sequences, self.device)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tell the listeners of the start and the end of the loop inside. Where `stop` ends it, evaluate once more.

        Where an error or an interrupt ends it, the run goes back to the end of its last round and saves that. The error goes
        on, with the run as its `trainer`.
        """
        self.tell("start")
        self.began = self.round_began = time.monotonic()
        try:
            yield
        except Stopped:
            if not self.history.evals or self.history.evals[-1]["step"] < self.step:
                with suppress(Stopped):
                    self.record_evaluation(self.evaluate())
        except BaseException as error:
            error.trainer = self
            self.go_back()
            raise
        finally:
            self.tell("end")

    def keep_state(self) -> None:
        """Keep the state as it is now in memory, in the main process. Where weights are sharded it has not all of it, and keeps none."""
        if processes.is_main() and not self.blocks:
            self.kept = checkpoint.state_of(self)

    def go_back(self) -> None:
        """Take up the state that was kept, and write it as a checkpoint if it has learned anything that is not saved yet."""
        if self.kept is None:
            return
        checkpoint.put(self, self.kept)
        folder = self.checkpoint_folder(self.step)
        if self.step == 0 or self.saved == self.step:
            return
        try:
            checkpoint.write(self, self.kept, folder, alone=True)  # other processes may be elsewhere, or gone
        except CourseError as error:
            warnings.warn(f"the run could not be saved: {error}", stacklevel=4)

    def resume(self) -> bool:
        """Go on from the newest checkpoint in `resume_from_checkpoint`; if there is none, try the reward function on two samples.

        Returns:
            Whether there was one.
        Raises:
            CourseError: the checkpoint is damaged or of another run, or the reward function breaks its contract.
        """
        folder = self.config.train.resume_from_checkpoint
        found = checkpoint.newest(Path(folder)) if folder else None
        seen = processes.gather(lambda: found and found.name)
        if (
            len(set(seen)) > 1
        ):  # several machines; each would train on from another step, and wait for the others
            raise CourseError(
                f"the processes find different newest checkpoints in {folder} ({', '.join(map(str, seen)):.200}). Set "
                "train.resume_from_checkpoint to a folder that all machines share, or copy the checkpoint to each."
            )
        if found:
            others = checkpoint.of_other_runs(Path(folder))
            if others:
                warnings.warn(
                    f"{folder} also holds {', '.join(others)} of earlier runs: left alone", stacklevel=4
                )
            checkpoint.load(self, found)
            self.saved = self.step
        elif folder:
            warnings.warn(
                f"no checkpoint of this run in {folder} yet: starting from the beginning", stacklevel=4
            )
        if not found:
            with self.random_state_kept():
                tried, _ = self.sampler.rollouts(self.prompts, [0, len(self.prompts) - 1])
            refuse_other_logprobs(self, tried)
        processes.on_main(lambda: mark_newest(Path(self.config.train.checkpoint_dir), self.identity["id"]))
        return found is not None

    def evaluate(self) -> dict:
        """Sample once for each held-out prompt: mean reward, KL (nats a sample), length (tokens), distinct share and metrics.

        Every evaluation has the same prompts and the same seed. The run's own random state stays as it was.
        """
        began = time.monotonic()
        rows: list[dict] = []
        parts = []
        metrics: dict[str, list[float]] = {}
        with self.random_state_kept():
            set_seed(self.config.train.seed)
            chunk = self.config.method.chunk_size * processes.count()
            for start in range(0, len(self.eval_prompts), chunk):
                stop = min(start + chunk, len(self.eval_prompts))
                part, texts = self.sampler.rollouts(
                    self.eval_prompts, list(range(start, stop)), evaluation=True
                )
                parts.append(part)
                for prompt, output, reward in zip(
                    texts["prompts"], texts["outputs"], part.total_scores().tolist(), strict=True
                ):
                    rows.append({"prompt": prompt, "output": output, "reward": reward})
                for name, values in self.measure(texts):
                    metrics.setdefault(name, []).extend(values)
        rollouts = concatenate(parts)
        self.eval_samples = rows
        self.evaluation_seconds = time.monotonic() - began
        return {
            "reward/mean": sum(row["reward"] for row in rows) / len(rows),
            "kl": rollouts.kl().sum(1).mean().item(),
            "length": rollouts.mask.sum(1).mean().item(),
            "distinct": distinct_share([row["output"] for row in rows]),
            **{f"metrics/{name}": sum(values) / len(values) for name, values in metrics.items()},
        }

    def measure(self, texts: dict) -> list[tuple[str, list[float]]]:
        """The metrics of these texts, by name. Each process measures its share."""
        share = {name: rows[processes.shard(len(rows))] for name, rows in texts.items()}
        if not self.metric_fn:
            return []

        def measured() -> list[tuple[str, list[float]]]:
            if not share["samples"]:
                return []
            return list(measure(self.metric_fn, **share, tokenizer=self.tokenizer).items())

        return [row for part in processes.gather(measured) for row in part]

    def record_round(
        self, scores: Tensor, kl: Tensor, lengths: Tensor, outputs: list[str], seconds: dict[str, float]
    ) -> None:
        """Add a round to the history, from the reward, KL (nats) and length (tokens) of each sample: tensors (N,).

        `scores` may be (N, R), one for each token, 0 on padding. Warn where the rewards teach nothing.
        """
        limit = self.config.method.cliprange_reward
        per_token = scores.reshape(len(scores), -1)
        rewards, cut = per_token.sum(1), per_token.abs().amax(1) > (limit or math.inf)
        warn_of_scores(rewards, cut, limit)
        self.history.rounds.append({
            "step": self.step,
            "samples": len(rewards),
            "reward": rewards.mean().item(),
            "reward_std": rewards.std(unbiased=False).item(),
            "same_reward": rewards.unique(return_counts=True)[1].max().item() / len(rewards),
            "cut_reward": cut.float().mean().item(),
            "scaled_reward": self.config.method.scale_reward in ("ref", "running"),
            "kl": kl.mean().item(),
            "kl_std": kl.std(unbiased=False).item(),
            "kl_coef": self.kl_coef,
            "length": lengths.float().mean().item(),
            "cut": (lengths >= self.sampler.gen_kwargs["max_new_tokens"]).float().mean().item(),
            "prompts": len(set(self.prompts.texts)),
            **variety(outputs),
            **{f"seconds_{phase}": seconds[phase] for phase in ("sample", "score", "forward")},
            "seconds_update": 0.0,
        })  # fmt: skip

    def refuse_divergence(self, numbers: Tensor | float, what: str) -> None:
        """End a run whose numbers are no numbers any more.

        Raises:
            CourseError: one of these is infinite or NaN; it says what they are, and the likely cause.
        """
        if not torch.as_tensor(numbers).isfinite().all():
            raise CourseError(
                f"at step {self.step} {what} became infinite or no number at all: the run has diverged. Likely causes: steps that are "
                f"too large (the learning rate was {self.optimizer.param_groups[0]['lr']:g}; try a tenth), or rewards that are (the "
                f"largest mean of a round was {max((abs(row['reward']) for row in self.history.rounds), default=0):g}; bring them to about 1)."
            )

    def refuse_diverged_weights(self) -> None:
        """As `refuse_divergence`, of the weights after a step."""
        self.refuse_divergence(sharding.local_sum(self.policy.trainable().values()), "the weights")

    def record_evaluation(self, results: dict) -> None:
        """Add the results of `evaluate` to the history, and save the model if its reward is the highest so far."""
        rewards = [row["reward/mean"] for row in self.history.evals]
        self.history.evals.append({"step": self.step, **results})
        if self.save_best and rewards and results["reward/mean"] > max(rewards):
            self.save_pretrained(self.best_folder)
        self.tell("progress")

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Continue prompts (B, Q) as rollouts do: token ids (B, Q + R). `kwargs` override `method.gen_kwargs`."""
        settings = {**self.sampler.gen_kwargs, **kwargs}
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        with torch.no_grad(), self.autocast(), processes.own_random_numbers():
            return self.policy.base_model.generate(
                input_ids=input_ids.to(self.device), attention_mask=attention_mask.to(self.device), **settings
            )

    def save_pretrained(self, directory: str | Path | None = None) -> Path:
        """Write the policy and its tokenizer, without the value head, as `AutoModelForCausalLM.from_pretrained` reads them.

        A model in the folder is replaced; other files there stay.

        Raises:
            CourseError: the folder cannot take the model, or the disk is full. The folder is then as it was.
        """
        folder = files.expand(directory or Path(self.config.train.checkpoint_dir) / "hf_model")
        processes.on_main(lambda: checkpoint.check_model_folder(folder, self.config.model.model_path))
        return checkpoint.write_folder(folder, self.write_model)

    def write_model(self, folder: Path) -> None:
        """Write the policy's weights and the tokenizer into a folder that is there."""
        # by way of the reference, a model of the plain kind whatever was added to the policy
        self.policy.reference.save_pretrained(folder, state_dict=plain_weights(self.policy))
        self.tokenizer.save_pretrained(folder)

    def end_round(self) -> None:
        """Write a checkpoint if one is due, and end the run if its minutes have no room for another round.

        Raises:
            Stopped: the time is up, and a checkpoint is written.
        """
        now = time.monotonic()
        self.round_seconds = max(self.round_seconds, now - self.round_began)
        self.round_began = now
        needed = self.round_seconds + self.evaluation_seconds
        over = self.minutes is not None and now + needed > self.began + 60 * self.minutes
        over = processes.any_of(over)
        self.keep_state()
        self.save_checkpoint_if_due(over)
        if over and self.step < self.total_steps:
            raise Stopped

    def save_checkpoint_if_due(self, over: bool) -> None:
        """Write the state that was just kept, if this round passed a multiple of `checkpoint_interval`, or if the run is over."""
        interval = self.config.train.checkpoint_interval
        steps_this_round = self.step - self.history.rounds[-1]["step"]
        due = self.step // interval > (self.step - steps_this_round) // interval
        if due or over or self.step >= self.total_steps:
            state = self.kept or checkpoint.state_of(self)
            checkpoint.write(self, state, self.checkpoint_folder(self.step))
            self.saved = self.step

    def progress(self) -> dict:
        """The state that a checkpoint holds beside weights, optimizer and random states."""
        return {
            "step": self.step,
            "kl_coef": self.kl_coef,
            "prompt_order": list(self.prompts.order),
            "prompt_count": len(self.prompts),
            "processes": processes.count(),
            "history": {name: list(rows) for name, rows in vars(self.history).items()},
        }

    def restore(self, progress: dict) -> None:
        """Go on from what `progress` gave.

        Raises:
            CourseError: the number of prompts or of processes is another.
        """
        if progress["prompt_count"] != len(self.prompts):
            raise CourseError(
                f"the checkpoint was made with {progress['prompt_count']} prompts, this run has {len(self.prompts)}. "
                "Use the same prompts to go on, or start anew with resume_from_checkpoint=None."
            )
        if (before := progress.get("processes", 1)) != processes.count():
            raise CourseError(
                f"the checkpoint was made by {before} processes, and here are {processes.count()}: the batches would be "
                "others. Start as many to go on, or start anew with resume_from_checkpoint=None."
            )
        self.step = progress["step"]
        self.kl_coef = progress["kl_coef"]
        self.prompts.order = progress["prompt_order"]
        self.history = History(**{name: list(rows) for name, rows in progress["history"].items()})

    @contextmanager
    def random_state_kept(self) -> Iterator[None]:
        """Put the random states back afterwards, whatever is drawn inside."""
        python, tensors = checkpoint.python_random_states(), checkpoint.torch_random_states()
        try:
            yield
        finally:
            checkpoint.set_random_states(python, tensors)

    def stop(self) -> None:
        """End the run at its next progress, with a last evaluation."""
        self.stopping = True

    def tell(self, event: str) -> None:
        """Call `event` ("start", "progress" or "end") of each listener. One that fails hears no more, and the run goes on.

        Raises:
            Stopped: `stop` was called, here or in another process.
        """
        for listener in list(self.listeners):
            try:
                getattr(listener, event)(self)
            except Exception as error:
                self.listeners = [other for other in self.listeners if other is not listener]
                with suppress(UserWarning):  # raised where warnings are errors
                    warnings.warn(
                        f"{type(listener).__name__} failed ({type(error).__name__}: {files.reason(error)}) and hears no more of "
                        "this run, which goes on.",
                        stacklevel=3,
                    )
        if event == "progress" and processes.any_of(self.stopping):
            self.stopping = False
            raise Stopped


def warn_of_scores(rewards: Tensor, cut: Tensor, cliprange_reward: float | None) -> None:
    """Warn where the rewards (N,) of a round tell its samples apart no longer: all are the same, or most are `cut` (N,)."""
    if len(rewards) > 1 and rewards.min() == rewards.max():
        warnings.warn(
            f"Every sample of this round has the same reward, {rewards[0].item():g}. Nothing can be learned from that.",
            stacklevel=4,
        )
    elif (share := cut.float().mean().item()) > 0.5:
        warnings.warn(
            f"{share:.0%} of this round's rewards lie beyond method.cliprange_reward ({cliprange_reward:g}) and are cut to it, so "
            "PPO cannot tell them apart. Divide the reward by a number that brings it to about 1.",
            stacklevel=4,
        )


def planned_steps(config: TRLConfig) -> int:
    """Optimizer steps until the run is over: `total_steps`, or those of `epochs` rounds if they are fewer."""
    method, train = config.method, config.train
    steps_per_round = method.ppo_epochs * math.ceil(method.num_rollouts / train.batch_size)
    return min(train.epochs * steps_per_round, train.total_steps)


def checkpoint_bytes(policy: Policy) -> int:
    """About how many bytes a checkpoint takes: the model, and three numbers per trained weight (itself and Adam's two)."""
    trained = sum(p.numel() for p in policy.trainable().values())
    return 4 * (sum(p.numel() for p in policy.base_model.parameters()) + 3 * trained)


def refuse_other_methods(reward_fn: RewardFn | None, dataset: Any, samples: Any, rewards: Any) -> None:
    """Refuse what trlX's `train` takes for methods that do not sample.

    Raises:
        CourseError: one of these is given, or there is no reward function.
    """
    if samples is not None and rewards is not None:
        raise CourseError(NEEDS_TRLX)
    if dataset is not None or samples is not None or rewards is not None:
        raise CourseError(
            "expected samples and rewards together, for ILQL (dataset is trlX's old name for both), or reward_fn, for PPO. Samples "
            "without rewards are trlX's SFT, which is not here: notebook 02 fine-tunes."
        )
    if not callable(reward_fn):
        raise CourseError(
            f"reward_fn is {reward_fn!r}: expected a function, reward_fn(samples) -> list[float]"
        )
