"""One run of one engine for the bench, in this process: `python -m helpers.maintain.bench.run TASK`, which prints what it found.

TASK is JSON: engine (one of ENGINES), size (one of SIZES), model (a folder), and rounds.
"""

import functools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from helpers import course, reviews
from helpers.compare import continue_prompts
from helpers.course import GIB, Course
from helpers.ppo.blocks import freeze_below
from helpers.ppo.config import TRLConfig, default_ppo_config
from helpers.ppo.parallel import processes
from helpers.ppo.parallel.memory import peak_bytes
from helpers.ppo.run import Run
from helpers.ppo.train import train
from helpers.ppo.trainer import PPOTrainer
from helpers.rewards import RewardFn, load_reward

if TYPE_CHECKING:
    from trl import RLOOConfig

PHASES = ("sample", "score", "forward", "update")
COLUMNS = {"sample": "sample, s", "score": "score, s", "forward": "forward pass, s", "update": "update, s"}
RESPONSE = 40  # tokens

# What each engine is called in a table, as its trainer calls itself; that of trlX can be imported only where trlX is.
BUILT_IN, TRLX, RLOO = PPOTrainer.engine, "trlX", "TRL RLOO"
PLAIN = f"{BUILT_IN}, plain"

# The course's tiny model as it is, and GPT-2's published shapes, for which random weights will do.
SIZES = {
    "tiny": None,
    "small": dict(n_layer=12, n_embd=768, n_head=12),
    "medium": dict(n_layer=24, n_embd=1024, n_head=16),
    "large": dict(n_layer=36, n_embd=1280, n_head=20),
    "xl": dict(n_layer=48, n_embd=1600, n_head=25),
}


def run_here(task: dict) -> dict:
    """Train once in this process; the row of `measure`, without size, engine and repeat."""
    course.quiet()
    reward_fn, prompts, held_out = material(task["size"])
    model, watch, length = ENGINES[task["engine"]](task, reward_fn, prompts)
    peak = peak_bytes()
    gain = None
    if held_out:
        untrained = AutoModelForCausalLM.from_pretrained(task["model"])
        before, after = (mean_reward(m, task, reward_fn, held_out) for m in (untrained, model))
        gain = (after - before) / watch.total * 60
    seconds = {phase: spent / task["rounds"] for phase, spent in watch.seconds.items()}
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    return {
        "samples/s": recipe(task).method.num_rollouts * task["rounds"] / watch.total,
        **{COLUMNS[phase]: seconds[phase] for phase in PHASES},
        "peak GiB": peak / GIB,
        "reward/min": gain,
        "length": length,
        "prompt": statistics.mean(map(len, tokenizer(prompts)["input_ids"])),
    }


def material(size: str) -> tuple:
    """(reward function, prompts, held-out prompts): film reviews and their judge, or random words, a count and none."""
    if SIZES[size] is None:
        here = Course("tiny", PartialState().device.type, "", out=Path())
        return load_reward(here.reward_model, here.device), *reviews.make_prompts(here)
    draw = random.Random(0)
    prompts = [" ".join(f"w{draw.randrange(50_000)}" for _ in range(draw.randint(4, 9))) for _ in range(640)]
    return (lambda samples, **_: [sample.count("7") / 50 for sample in samples]), prompts, []


def mean_reward(model: PreTrainedModel, task: dict, reward_fn: RewardFn, prompts: list[str]) -> float:
    """The mean reward on held-out prompts, with the same seed for every model."""
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    length = dict(max_new_tokens=RESPONSE, min_new_tokens=RESPONSE)
    outputs = continue_prompts(model.to(PartialState().device), tokenizer, prompts, **length)
    return statistics.mean(reward_fn([a + b for a, b in zip(prompts, outputs, strict=True)]))


def recipe(task: dict) -> TRLConfig:
    """trlX's defaults; the tiny model learns at notebook 06's rate."""
    steps_per_round = 16  # four epochs of four batches
    config = default_ppo_config().evolve(
        model=dict(model_path=task["model"]),
        tokenizer=dict(tokenizer_path=task["model"]),
        train=dict(total_steps=steps_per_round * task["rounds"], seq_length=64, save_best=False),
        method=dict(gen_kwargs=dict(max_new_tokens=RESPONSE, min_new_tokens=RESPONSE)),
    )
    # no evaluation but the first and the last
    config = config.evolve(train=dict(eval_interval=config.train.total_steps))
    if SIZES[task["size"]] is None:
        rate = 25 / AutoConfig.from_pretrained(task["model"]).hidden_size ** 2
        config = config.evolve(
            optimizer=dict(kwargs=dict(lr=rate)), scheduler=dict(kwargs=dict(eta_min=rate))
        )
    return config


class Stopwatch:
    """Seconds of training, in all and by phase. What the phases do not name, such as the optimizer, counts as update."""

    def __init__(self):
        self.total = 0.0
        self.named = {"sample": 0.0, "score": 0.0, "forward": 0.0}
        self.went_on: float | None = None  # when it last began to run

    def go(self) -> None:
        """Begin to count, or go on."""
        self.went_on = now()

    def pause(self) -> None:
        """Rest, until `go` is called."""
        if self.went_on is not None:
            self.total += now() - self.went_on
        self.went_on = None

    @property
    def seconds(self) -> dict[str, float]:
        """{phase: seconds}, for each of PHASES; call it when the run is over."""
        return self.named | {"update": self.total - sum(self.named.values())}


def now() -> float:
    """Seconds, when the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Listener(Stopwatch):
    """A stopwatch for PPO: it rests while a run evaluates or tries its reward function, and nothing is saved."""

    def start(self, trainer: Run) -> None:
        trainer.evaluate = self.not_counted(trainer.evaluate)
        trainer.resume = self.not_counted(trainer.resume)
        trainer.save_checkpoint_if_due = lambda over: None
        self.go()

    def not_counted(self, method: Callable) -> Callable:
        """The same method, during which the stopwatch rests."""

        @functools.wraps(method)
        def wrapper(*args, **kwargs):
            self.pause()
            try:
                return method(*args, **kwargs)
            finally:
                self.go()

        return wrapper

    def progress(self, trainer: Run) -> None: ...

    def end(self, trainer: Run) -> None:
        self.pause()
        for row in trainer.history.rounds:
            for phase in self.named:
                self.named[phase] += row[f"seconds_{phase}"]


def ppo(run: Callable[..., Run], task: dict, reward_fn: RewardFn, prompts: list[str], **options) -> tuple:
    """(model, stopwatch, mean length of a response) of a run of PPO with trlX's interface."""
    watch = Listener()
    with tempfile.TemporaryDirectory() as folder:
        config = recipe(task).evolve(train=dict(checkpoint_dir=folder))
        trainer = run(
            reward_fn=reward_fn,
            prompts=prompts,
            eval_prompts=prompts[:2],
            config=config,
            listeners=[watch],
            **options,
        )
    return trainer.model, watch, statistics.mean(row["length"] for row in trainer.history.rounds)


def plain(task: dict, *args) -> tuple:
    """`ppo` of the built-in engine as helpers/ppo/trainer.py has it."""
    return ppo(train, task, *args, trainer_class=PPOTrainer)


def built_in(task: dict, *args) -> tuple:
    """`ppo` of the built-in engine as `trlx.train` runs it."""
    return ppo(train, task, *args)


def real_trlx(task: dict, *args) -> tuple:
    """`ppo` of the real trlX."""
    from helpers.real_trlx.train import train as train_with_trlx

    return ppo(train_with_trlx, task, *args)


class RlooStopwatch(Stopwatch):
    """A stopwatch for RLOO: `sample` and `score` stand in for its sampling and its reward, and what lies between is the forward pass."""

    def __init__(self, model: PreTrainedModel, reward_fn: RewardFn):
        super().__init__()
        self.generate, self.reward_fn = model.generate, reward_fn
        self.sampled_at = 0.0
        self.lengths: list[int] = []  # of the responses, in tokens

    def sample(self, *args, **kwargs) -> torch.Tensor:
        """The model's own `generate`."""
        began = now()
        try:
            return self.generate(*args, **kwargs)
        finally:
            self.sampled_at = now()
            self.named["sample"] += self.sampled_at - began

    def score(self, prompts: list[str], completions: list[str], completion_ids: list, **_) -> list[float]:
        """The reward of each prompt with its completion."""
        began = now()
        self.named["forward"] += began - self.sampled_at
        self.lengths.extend(map(len, completion_ids))
        rewards = self.reward_fn([a + b for a, b in zip(prompts, completions, strict=True)])
        self.named["score"] += now() - began
        return rewards


def rloo(task: dict, reward_fn: RewardFn, prompts: list[str]) -> tuple:
    """(model, stopwatch, mean length of a response) of TRL's RLOO, as near to `recipe` as it can be set."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import RLOOTrainer

    config = recipe(task)
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    freeze_below(model, config.model.num_layers_unfrozen)
    tokenizer = AutoTokenizer.from_pretrained(task["model"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    watch = RlooStopwatch(model, reward_fn)

    class Watched(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            watch.go()

        def on_train_end(self, *args, **kwargs):
            watch.pause()

    with tempfile.TemporaryDirectory() as folder:
        trainer = RLOOTrainer(
            model,
            watch.score,
            args=rloo_settings(config, folder),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            callbacks=[Watched()],
        )
        model.generate = watch.sample
        trainer.train()
    del model.generate
    return model.eval(), watch, statistics.mean(watch.lengths)


def rloo_settings(config: TRLConfig, folder: str) -> "RLOOConfig":
    """Our configuration as TRL's RLOO takes it; it writes to `folder`."""
    from trl import RLOOConfig

    method, adam = config.method, config.optimizer.kwargs
    return RLOOConfig(
        output_dir=folder,
        per_device_train_batch_size=config.train.batch_size,
        generation_batch_size=method.num_rollouts,
        num_generations=2,
        num_iterations=method.ppo_epochs,
        max_steps=config.train.total_steps,
        max_completion_length=RESPONSE,
        generation_kwargs=dict(min_new_tokens=RESPONSE),
        beta=method.init_kl_coef,
        epsilon=method.cliprange,
        learning_rate=adam["lr"],
        lr_scheduler_type="constant",
        adam_beta1=adam["betas"][0],
        adam_beta2=adam["betas"][1],
        weight_decay=adam["weight_decay"],
        disable_dropout=True,
        gradient_checkpointing=False,  # it would save memory and cost time; trlX does without
        bf16=processes.precision() == "bf16",
        fp16=processes.precision() == "fp16",
        use_cpu=PartialState().device.type == "cpu",
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )


ENGINES = {BUILT_IN: built_in, PLAIN: plain, TRLX: real_trlx, RLOO: rloo}


if __name__ == "__main__":
    print(json.dumps(run_here(json.loads(sys.argv[1]))))
