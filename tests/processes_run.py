"""Small runs in one process or in several, for tests: `processes_run.py FOLDER RUNS` under `accelerate launch` or alone.

RUNS is JSON: for each run, by its name, the settings that differ from `ppo_run.small_config`; and beside them, under "test",
what makes one of the processes misbehave (see below). The runs follow each other, because to start takes longer than to run.
Each process leaves in FOLDER/NAME, by its number, its history, the samples that its reward function was given, the folders
that it wrote, and how many numbers its optimizer remembers.
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
NEVER = 10**6  # no run comes to so many steps or samples
scored: list[str] = []
written: list[str] = []
test: dict = {}


def reward(samples, **kwargs):
    """How often "the" occurs.

    In process 1 it fails once it has had `fail_after` samples; where `noisy` is set, each process draws other random numbers.
    """
    scored.extend(samples)
    if test.get("noisy"):
        torch.rand(1 + NUMBER)
    if NUMBER == 1 and len(scored) > test.get("fail_after", NEVER):
        return [None] * len(samples)
    return [float(sample.lower().count("the")) for sample in samples]


def characters(samples, **kwargs):
    return {"characters": [float(len(sample)) for sample in samples]}


def run_out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


class Watch:
    """Asks for the end at step `stop_at`, in process 0 alone; kills process 1 at `kill_at`, or fills its memory at `full_at`."""

    def start(self, trainer): ...

    def progress(self, trainer):
        if NUMBER == 0 and trainer.step >= test.get("stop_at", NEVER):
            trainer.stop()
        if NUMBER == 1 and trainer.step >= test.get("kill_at", NEVER):
            os.kill(os.getpid(), signal.SIGKILL)
        if NUMBER == 1 and trainer.step >= test.get("full_at", NEVER):
            trainer.blocks[0].mlp.register_forward_pre_hook(run_out_of_memory)

    def end(self, trainer): ...


def count_writes(folder, write):
    written.append(folder.name)
    return write_folder(folder, write)


def run(folder: Path, changes: dict) -> None:
    """One run, and what it leaves in the folder."""
    test.clear()
    test.update(changes.pop("test", {}))
    for kept in (scored, written):
        kept.clear()
    folder.mkdir(parents=True, exist_ok=True)
    trainer = small_run(
        folder / "checkpoints",
        reward_fn=reward,
        metric_fn=characters,
        changes=changes,
        listeners=[Watch()],
        prompts=PROMPTS[:1] if test.get("one_prompt") else [*PROMPTS * 3, PROMPTS[0]],
    )
    trainer.save_pretrained(folder / "model")
    remembered = [t for state in trainer.optimizer.state_dict()["state"].values() for t in state.values()]
    numbers = sum(t.to_local().numel() if sharding.is_split(t) else t.numel() for t in remembered)
    left = dict(history=without_times(trainer.history), scored=scored, written=written, remembered=numbers)
    (folder / f"process_{NUMBER}.json").write_text(json.dumps(left))


if __name__ == "__main__":
    write_folder, files.write_folder = files.write_folder, count_writes
    for name, changes in json.loads(sys.argv[2]).items():
        run(Path(sys.argv[1], name), changes)
