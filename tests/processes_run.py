"""A small run in one process or in several, for tests: `processes_run.py FOLDER CHANGES` under `accelerate launch` or alone.

CHANGES is JSON: the settings that differ from `ppo_run.small_config`. Each process leaves in FOLDER, by its number, its
history, the samples that its reward function was given, the folders that it wrote, and how many numbers its optimizer
remembers. The environment can make one of them misbehave; see below.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from ppo_run import PROMPTS, small_run, without_times

from helpers import files
from helpers.ppo.parallel import sharding

NUMBER = int(os.environ.get("RANK", 0))
scored: list[str] = []
written: list[str] = []


def setting(name: str) -> int:
    """A number from the environment; without it one that no run reaches."""
    return int(os.environ.get(name, 10**6))


def reward(samples, **kwargs):
    """How often "the" occurs.

    In process 1 it fails once it has had FAIL_AFTER samples; where NOISY is set, each process draws other random numbers.
    """
    scored.extend(samples)
    if "NOISY" in os.environ:
        torch.rand(1 + NUMBER)
    if NUMBER == 1 and len(scored) > setting("FAIL_AFTER"):
        return [None] * len(samples)
    return [float(sample.lower().count("the")) for sample in samples]


def characters(samples, **kwargs):
    return {"characters": [float(len(sample)) for sample in samples]}


def run_out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


class Watch:
    """Asks for the end at step STOP_AT, in process 0 alone; kills process 1 at step KILL_AT, or fills its memory at FULL_AT."""

    def start(self, trainer): ...

    def progress(self, trainer):
        if NUMBER == 0 and trainer.step >= setting("STOP_AT"):
            trainer.stop()
        if NUMBER == 1 and trainer.step >= setting("KILL_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        if NUMBER == 1 and trainer.step >= setting("FULL_AT"):
            trainer.blocks[0].mlp.register_forward_pre_hook(run_out_of_memory)

    def end(self, trainer): ...


def count_writes(folder, write):
    written.append(folder.name)
    return write_folder(folder, write)


if __name__ == "__main__":
    write_folder, files.write_folder = files.write_folder, count_writes
    folder = Path(sys.argv[1])
    trainer = small_run(
        folder / "checkpoints",
        reward_fn=reward,
        metric_fn=characters,
        changes=json.loads(sys.argv[2]),
        listeners=[Watch()],
        prompts=PROMPTS[:1] if "ONE_PROMPT" in os.environ else [*PROMPTS * 3, PROMPTS[0]],
    )
    trainer.save_pretrained(folder / "model")
    remembered = [t for state in trainer.optimizer.state_dict()["state"].values() for t in state.values()]
    numbers = sum(t.to_local().numel() if sharding.is_split(t) else t.numel() for t in remembered)
    left = dict(history=without_times(trainer.history), scored=scored, written=written, remembered=numbers)
    (folder / f"process_{NUMBER}.json").write_text(json.dumps(left))
