"""What every run has, whichever engine does the learning: a history, evaluation, listeners, saving and exact resume."""

import math
import time
import warnings
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.utils import set_seed

from helpers import files
from helpers.errors import CourseError
from helpers.ppo import checkpoint
from helpers.ppo.config import REAL_TRLX, TRLConfig
from helpers.ppo.load import context_limit, make_optimizer
from helpers.ppo.lora import plain_weights
from helpers.ppo.parallel import processes, sharding
from helpers.ppo.prompts import PromptSet
from helpers.ppo.rollout import Sampler, concatenate
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


class Stopped(Exception):
    """Someone asked for the run to end; raised where a run tells of its progress."""


class Run:
    """The surroundings of a PPO run. An engine adds `learn`, and keeps `step`, `kl_coef`, `optimizer`, `scheduler`.

    `engine` is its name, which a checkpoint remembers.

    Needs before `prepare`: config, tokenizer, accelerator, and policy (helpers.ppo.policy.Policy) on its device.
    """

    autocast = staticmethod(nullcontext)  # in half precision, Accelerate's
    blocks = ()  # those of which each process has its shard (sharding.py)

    def setup_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that `config` names, for what learns, or for this process's shards of it. trlX calls it by this name too."""
        with sharding.in_shards(self.blocks):
            optimizer = make_optimizer(self.config, self.policy.trainable().values())
        return sharding.one_by_one(optimizer) if self.blocks else optimizer

    def prepare(
        self, reward_fn, prompts, eval_prompts, metric_fn, stop_sequences, listeners, minutes
    ) -> None:
        """Look at everything the run was given, before any time is spent.

        Raises:
            CourseError: a prompt is empty or too long, the minutes are no number above 0, or the disk is too full to save
                the result.
        """
        train = self.config.train
        self.stopping = False
        if minutes is not None and not (isinstance(minutes, (int, float)) and minutes > 0):
            raise CourseError(f"minutes is {minutes!r}: expected a number above 0, or None for no limit")
        self.minutes = minutes
        self.round_seconds = self.evaluation_seconds = 0.0
        self.metric_fn, self.listeners, self.save_best = metric_fn, listeners, train.save_best
        self.history = History()
        self.eval_samples: list[dict] = []
        limit = context_limit(self.config, self.policy)
        if prompts is None:
            prompts = [self.tokenizer.bos_token] * (train.batch_size * processes.count())
        if eval_prompts is None:
            eval_prompts = prompts[: train.batch_size * processes.count()]
        self.prompts = PromptSet(prompts, self.tokenizer, limit, "prompts")
        self.eval_prompts = PromptSet(eval_prompts, self.tokenizer, limit, "eval_prompts")
        self.total_steps = planned_steps(self.config)
        self.check_folders()
        self.sampler = self.make_sampler(reward_fn, list(stop_sequences or []))

    def check_folders(self) -> None:
        """Refuse, before any time is spent, folders that the run could not save to."""
        train = self.config.train
        folder = Path(train.checkpoint_dir)
        needed = checkpoint_bytes(self.policy)
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
        return Path(self.config.train.checkpoint_dir) / f"checkpoint_{step:0{len(str(self.total_steps))}d}"

    @property
    def best_folder(self) -> Path:
        return Path(self.config.train.checkpoint_dir) / "best_checkpoint" / "hf_model"

    def make_sampler(self, reward_fn, stop_sequences: list[str]) -> Sampler:
        """What samples and scores, for rollouts and for evaluation."""
        return Sampler(self.policy, self.tokenizer, reward_fn, self.config, stop_sequences, self.device)

    @contextmanager
    def told(self):
        """Around an engine's loop: listeners hear of its start and end, and `stop` ends it with a last evaluation."""
        self.tell("start")
        self.began = self.round_began = time.monotonic()
        try:
            yield
        except Stopped:
            if not self.history.evals or self.history.evals[-1]["step"] < self.step:
                with suppress(Stopped):
                    self.record_evaluation(self.evaluate())
        finally:
            self.tell("end")

    def resume(self) -> bool:
        """Go on from `resume_from_checkpoint` where there is one; else try the reward function on two samples."""
        folder = self.config.train.resume_from_checkpoint
        found = checkpoint.newest(Path(folder)) if folder else None
        if found:
            checkpoint.load(self, found)
            return True
        if folder:
            warnings.warn(f"no checkpoint in {folder} yet: starting from the beginning", stacklevel=4)
        with self.random_state_kept():
            self.sampler.rollouts(self.prompts, [0, len(self.prompts) - 1])
        return False

    def evaluate(self) -> dict:
        """Sample once for each held-out prompt; mean reward, KL, length and metrics.

        The same prompts and the same seed every time, and the run's own random state is left as it was.
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
        """What `metric_fn` says of these texts, by name; each process asks it about its share."""
        share = {name: rows[processes.shard(len(rows))] for name, rows in texts.items()}
        if not self.metric_fn:
            return []

        def measured() -> list[tuple[str, list[float]]]:
            if not share["samples"]:
                return []
            found = call_with_accepted(self.metric_fn, **share, tokenizer=self.tokenizer)
            return [(name, torch.as_tensor(values).reshape(-1).tolist()) for name, values in found.items()]

        return [row for part in processes.gather(measured) for row in part]

    def record_evaluation(self, results: dict) -> None:
        """Add what `evaluate` found to the history, and keep the model if it is the best so far."""
        rewards = [row["reward/mean"] for row in self.history.evals]
        self.history.evals.append({"step": self.step, **results})
        if self.save_best and rewards and results["reward/mean"] > max(rewards):
            self.save_pretrained(self.best_folder)
        self.tell("progress")

    def generate(self, input_ids, attention_mask=None, **kwargs):
        """Token ids (B, prompt + response) sampled as rollouts are; `kwargs` override the settings."""
        settings = {**self.sampler.gen_kwargs, **kwargs}
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        with torch.no_grad(), self.autocast(), processes.own_random_numbers():
            return self.policy.base_model.generate(
                input_ids=input_ids.to(self.device), attention_mask=attention_mask.to(self.device), **settings
            )

    def save_pretrained(self, directory: str | Path | None = None) -> Path:
        """Write the policy and its tokenizer as `AutoModelForCausalLM.from_pretrained` reads them; the value head stays.

        In a folder that exists a model is replaced, and what else is there stays.

        Raises:
            CourseError: the folder cannot take the model, or the disk is full; what was there is there as it was.
        """
        folder = Path(directory or Path(self.config.train.checkpoint_dir) / "hf_model")
        processes.on_main(lambda: checkpoint.check_model_folder(folder, self.config.model.model_path))
        return checkpoint.write_folder(folder, self.write_model)

    def write_model(self, folder: Path) -> None:
        # by way of the reference, a model of the plain kind whatever was added to the policy
        self.policy.reference.save_pretrained(folder, state_dict=plain_weights(self.policy))
        self.tokenizer.save_pretrained(folder)

    def end_round(self) -> None:
        """Write a checkpoint where one is due, and end the run where its minutes have no room for another round.

        Raises:
            Stopped: the time is up. There is a checkpoint to go on from.
        """
        now = time.monotonic()
        self.round_seconds = max(self.round_seconds, now - self.round_began)
        self.round_began = now
        needed = self.round_seconds + self.evaluation_seconds
        over = self.minutes is not None and now + needed > self.began + 60 * self.minutes
        over = processes.any_of(over)
        self.save_checkpoint_if_due(over)
        if over and self.step < self.total_steps:
            raise Stopped

    def save_checkpoint_if_due(self, over: bool) -> None:
        """Every `checkpoint_interval` steps, and when the run is over."""
        interval = self.config.train.checkpoint_interval
        steps_this_round = self.step - self.history.rounds[-1]["step"]
        due = self.step // interval > (self.step - steps_this_round) // interval
        if due or over or self.step >= self.total_steps:
            checkpoint.save(self, self.checkpoint_folder(self.step))

    def progress(self) -> dict:
        """What a checkpoint remembers beside weights and random states."""
        return {
            "step": self.step,
            "kl_coef": self.kl_coef,
            "prompt_order": self.prompts.order,
            "prompt_count": len(self.prompts),
            "processes": processes.count(),
            "history": vars(self.history),
        }

    def restore(self, progress: dict) -> None:
        """Take up what `progress` gave."""
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
        self.history = History(**progress["history"])

    @contextmanager
    def random_state_kept(self):
        """Whatever is drawn inside, the run's own random states afterwards are what they were before."""
        python, tensors = checkpoint.python_random_states(), checkpoint.torch_random_states()
        try:
            yield
        finally:
            checkpoint.set_random_states(python, tensors)

    def stop(self) -> None:
        """End the run soon and cleanly: evaluated, its model and history as they are then."""
        self.stopping = True

    def tell(self, event: str) -> None:
        """Tell the listeners. One that fails is left out from then on: whoever watches a run cannot end it by an error."""
        for listener in list(self.listeners):
            try:
                getattr(listener, event)(self)
            except Exception as error:
                self.listeners = [other for other in self.listeners if other is not listener]
                warnings.warn(
                    f"{type(listener).__name__} failed ({type(error).__name__}: {files.reason(error)}) and hears no more of this "
                    "run, which goes on.",
                    stacklevel=3,
                )
        if event == "progress" and processes.any_of(self.stopping):
            self.stopping = False
            raise Stopped


def round_row(step: int, rewards, kl, kl_coef: float, lengths, outputs: list[str], seconds: dict) -> dict:
    """A round's row in the history; `rewards`, `kl` (nats) and `lengths` (tokens) are tensors (N,), one per sample."""
    return {
        "step": step,
        "reward": rewards.mean().item(),
        "reward_std": rewards.std(unbiased=False).item(),
        "kl": kl.mean().item(),
        "kl_coef": kl_coef,
        "length": lengths.float().mean().item(),
        "distinct": distinct_share(outputs),
        **{f"seconds_{phase}": seconds[phase] for phase in ("sample", "score", "forward")},
        "seconds_update": 0.0,
    }


def distinct_share(outputs: list[str]) -> float:
    """Share of distinct texts among `outputs`, from 1/len (all the same) to 1."""
    return len(set(outputs)) / len(outputs)


def planned_steps(config: TRLConfig) -> int:
    """Optimizer steps until the run is over: `total_steps`, or what `epochs` rounds make if that is less."""
    method, train = config.method, config.train
    steps_per_round = method.ppo_epochs * math.ceil(method.num_rollouts / train.batch_size)
    return min(train.epochs * steps_per_round, train.total_steps)


def checkpoint_bytes(policy) -> int:
    """About what one checkpoint takes: the model, and three numbers per trained weight (itself and Adam's two)."""
    trained = sum(p.numel() for p in policy.trainable().values())
    return 4 * (sum(p.numel() for p in policy.base_model.parameters()) + 3 * trained)


def refuse_other_methods(reward_fn, dataset, samples, rewards) -> None:
    """Of what trlX's `train` takes, only a reward function is PPO's."""
    if dataset is not None or samples is not None or rewards is not None:
        raise CourseError(f"training on given samples and rewards (ILQL, SFT) is not here: {REAL_TRLX}")
    if not callable(reward_fn):
        raise CourseError(
            f"reward_fn is {reward_fn!r}: expected a function, reward_fn(samples) -> list[float]"
        )
