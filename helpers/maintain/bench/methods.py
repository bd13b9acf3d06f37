"""What each method of notebook 11 takes in memory and time, at equal batch: `python -m helpers.maintain.bench.methods`.

All are the course's own, written plainly: `PPOTrainer`, `RLOO` and `GRPO` without fast/, `feedback.dpo`, and rejection sampling as
notebook 11 has it, on the same trainer. Each makes one round in a process of its own: it takes its samples, and one pass of steps
over them. DPO has given texts in place of samples, two for each preference. Times are those of the processor, on one thread, so
that other programs hardly disturb them. Memory is the process's, on Linux.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import course
from helpers.errors import CourseError
from helpers.feedback import dpo
from helpers.feedback.pairs import Pair
from helpers.feedback.ratings import Rating
from helpers.maintain.bench.compare import model_folder, why
from helpers.maintain.bench.run import peak_bytes
from helpers.ppo.blocks import freeze_below
from helpers.ppo.config import TRLConfig, default_grpo_config, default_ppo_config, default_rloo_config
from helpers.ppo.groups import GRPO, RLOO
from helpers.ppo.rollout import Rollouts, Sampler
from helpers.ppo.trainer import PPOTrainer

MB = 10**6
SIZES = {"tiny": (4, 24, 32, 16, (2,)), "small": (16, 112, 8, 2, (2, -1))}
"""Words of a prompt, tokens of a response, texts in a step, steps, and how many blocks learn."""


class BlindSampler(Sampler):
    """A sampler that computes no log-probabilities and no values: fine-tuning needs none."""

    def forward_pass(self, query: Tensor, query_mask: Tensor, response: Tensor, mask: Tensor, *rest) -> tuple:
        """Zeros, three times (N, R)."""
        return torch.zeros_like(mask), torch.zeros_like(mask), torch.zeros_like(mask)


class BestOfGroup(RLOO):
    """Rejection sampling: fine-tuning on the best of each group. It has no reference."""

    def make_parts(self, config: TRLConfig) -> None:
        """As `PPOTrainer.make_parts`, without the reference's copy."""
        super().make_parts(config)
        self.policy.reference = self.policy.base_model

    def make_sampler(self, reward_fn, stop_sequences: list[str]) -> Sampler:
        """As `Run.make_sampler`."""
        return BlindSampler(self.policy, self.tokenizer, reward_fn, self.config, stop_sequences, self.device)

    def compare(self, rollouts: Rollouts, scores: Tensor) -> Tensor:
        """1 for the best of each group, 0 for the others."""
        groups = scores.view(-1, self.config.method.group_size)
        return (groups == groups.max(1, keepdim=True).values).float().view(-1)

    def losses(self, batch: Rollouts, advantages: Tensor, returns: Tensor) -> tuple[Tensor, dict[str, float]]:
        """-log pi of the best."""
        logprobs, _, _ = self.forward_pass(batch)
        objective = -(logprobs * advantages * batch.mask).sum()
        return objective, {"loss": objective.item()}


TRAINERS = {
    "rejection sampling": (BestOfGroup, default_rloo_config),
    "RLOO": (RLOO, default_rloo_config),
    "GRPO": (GRPO, default_grpo_config),
    "PPO": (PPOTrainer, default_ppo_config),
}
METHODS = (*TRAINERS, "DPO")


def run_here(task: dict) -> dict:
    """One round of a method in this process; the row of `measure`."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = (preferences if task["method"] == "DPO" else rounds)(task, folder)
    model, reference, value_head, optimizer_bytes = found.pop("parts")
    learns = sum(p.numel() for p in [*model.parameters(), *value_head.parameters()] if p.requires_grad)
    own = {p.data_ptr() for p in model.parameters()}
    copied = sum(p.numel() for p in reference.parameters() if p.data_ptr() not in own)
    value = sum(p.numel() for p in value_head.parameters())
    texts = task["texts"]
    return {
        "weights": sum(p.numel() for p in model.parameters()),
        "learns": learns,
        "value head": value,
        "reference, MB": 4 * copied / MB,
        "gradient, MB": 4 * learns / MB,
        "optimizer, MB": optimizer_bytes / MB,
        "peak beyond weights, MB": found["peak"] / MB + 4 * (copied + value) / MB,
        "before the update, s/1000": found["before"] / texts * 1000,
        "update, s/1000": found["update"] / texts * 1000,
    }


def resident_bytes() -> int:
    """The memory of this process now.

    Raises:
        CourseError: this is not Linux.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        raise CourseError("memory is measured on Linux alone: /proc/self/status cannot be read") from None
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def forget_peak(model: nn.Module) -> int:
    """Let the peak memory of this process begin anew, since loading a model takes more than its weights; returns what it has now."""
    for parameter in model.parameters():
        parameter.sum()  # weights are read from the file when they are first used
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes()


def rounds(task: dict, folder: str) -> dict:
    """One round of a method that samples: processor seconds before and in the update, bytes at its peak more than before, and its parts."""
    kind, default = TRAINERS[task["method"]]
    prompt, response, batch, *_ = SIZES[task["size"]]
    config = default().evolve(
        model=dict(model_path=task["model"], num_layers_unfrozen=task["unfrozen"]),
        tokenizer=dict(tokenizer_path=task["model"]),
        train=dict(
            batch_size=batch,
            total_steps=100,
            eval_interval=100,
            seq_length=prompt + response + 32,
            save_best=False,
        )
        | dict(checkpoint_dir=folder),
        method=dict(num_rollouts=task["texts"], chunk_size=task["texts"], ppo_epochs=1)
        | dict(gen_kwargs=dict(max_new_tokens=response, min_new_tokens=response)),
    )
    prompts = texts_of(task["size"], task["texts"], prompt)
    with patch("helpers.ppo.run.try_saving"):  # which would write the model and read it back
        trainer = kind(
            config, lambda samples, **_: [len(text) / 1000 for text in samples], prompts, prompts[:1]
        )
    resident = forget_peak(trainer.policy)
    began = time.process_time()
    rollouts = trainer.collect()
    sampled = time.process_time()
    trainer.update(rollouts)
    ended = time.process_time()
    policy = trainer.policy
    parts = (policy.base_model, policy.reference, policy.v_head, bytes_of(trainer.optimizer))
    return dict(before=sampled - began, update=ended - sampled, peak=peak_bytes() - resident, parts=parts)


def preferences(task: dict, folder: str) -> dict:
    """One pass of DPO over as many texts, two for each preference: as `rounds`."""
    prompt, response, batch, *_ = SIZES[task["size"]]
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    freeze_below(model, task["unfrozen"])
    words = [text.split() for text in texts_of(task["size"], task["texts"], prompt + response)]
    ratings = [
        Rating("", "", "", True, Pair(*(" ".join(part) for part in parts)), "first", "first", 0.0, "")
        for parts in (
            (one[:prompt], ["", *one[prompt:]], ["", *other[prompt:]])
            for one, other in zip(words[::2], words[1::2], strict=True)
        )
    ]
    made, spent = [], []

    class Watched(torch.optim.AdamW):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            made.append(self)
            spent.append(time.process_time())  # what the reference says of each text is known by now

    resident = forget_peak(model)
    began = time.process_time()
    with patch.object(torch.optim, "AdamW", Watched):
        dpo.fit(model, tokenizer, ratings, lr=1e-5, batch_size=batch // 2)
    ended = time.process_time()
    parts = (model, nn.Module(), nn.Module(), bytes_of(made[0]))
    return dict(before=spent[0] - began, update=ended - spent[0], peak=peak_bytes() - resident, parts=parts)


def texts_of(size: str, count: int, length: int) -> list[str]:
    """Texts of so many words, each of them one token."""
    draw = random.Random(0)
    words = [f"w{i}" for i in range(50_000)] if size == "small" else "the film was a good story and I".split()
    return [" ".join(draw.choices(words, k=length)) for _ in range(count)]


def bytes_of(optimizer: torch.optim.Optimizer) -> int:
    """The bytes of what the optimizer remembers of each weight."""
    tensors = [x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    return sum(x.numel() * x.element_size() for x in tensors)


def measure() -> pd.DataFrame:
    """Each method at each size, each run in a process of its own; the row of `run_here`, and size, unfrozen and method."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size, (_, _, batch, steps, learning) in SIZES.items():
            model = model_folder(size, Path(folder))
            for unfrozen in learning:
                for method in METHODS:
                    task = dict(
                        size=size, model=str(model), unfrozen=unfrozen, method=method, texts=steps * batch
                    )
                    rows.append(dict(size=size, unfrozen=unfrozen, method=method) | run_apart(task))
                    print(json.dumps(rows[-1]), flush=True)
    return pd.DataFrame(rows)


def run_apart(task: dict) -> dict:
    """What `run_here` finds, in a fresh process.

    Raises:
        CourseError: the process failed; with its last line.
    """
    command = [sys.executable, "-m", "helpers.maintain.bench.methods", json.dumps(task)]
    result = subprocess.run(command, cwd=course.ROOT, capture_output=True, encoding="utf-8", errors="replace")
    if result.returncode:
        raise CourseError(f"{task['method']}, {task['size']}: {why(result.stderr)}")
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(run_here(json.loads(sys.argv[1]))))
    else:
        print(measure().round(1).to_string(index=False))
