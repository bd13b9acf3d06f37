"""A small run in one process or in several, for tests: `processes_run.py FOLDER CHANGES` under torchrun or by itself.

CHANGES is JSON: the settings that differ from `ppo_run.small_config`. Each process leaves in FOLDER, by its number, its
history and the samples that its reward function was given.
"""

import json
import os
import sys
from pathlib import Path

from ppo_run import PROMPTS, Announce, small_run, without_times

FOLDER, NUMBER = Path(sys.argv[1]), int(os.environ.get("RANK", 0))
scored: list[str] = []


def reward(samples, **kwargs):
    """How often "the" occurs; in process 1 it fails once it has had as many samples as FAIL_AFTER says."""
    scored.extend(samples)
    if NUMBER == 1 and len(scored) > int(os.environ.get("FAIL_AFTER", 10**6)):
        return [None] * len(samples)
    return [float(sample.lower().count("the")) for sample in samples]


def lengths(samples, **kwargs):
    return {"characters": [float(len(sample)) for sample in samples]}


class StopsAt:
    """A listener that asks for the end at one step, in the main process alone."""

    def start(self, trainer): ...

    def progress(self, trainer):
        if NUMBER == 0 and trainer.step >= int(os.environ["STOP_AT"]):
            trainer.stop()

    def end(self, trainer): ...


if __name__ == "__main__":
    listeners = [Announce()] if NUMBER == 0 else []
    if "STOP_AT" in os.environ:
        listeners.append(StopsAt())
    trainer = small_run(
        FOLDER / "checkpoints",
        reward_fn=reward,
        metric_fn=lengths,
        changes=json.loads(sys.argv[2]),
        listeners=listeners,
        prompts=[*PROMPTS * 3, PROMPTS[0]],
    )
    trainer.save_pretrained(FOLDER / "model")
    (FOLDER / f"history_{NUMBER}.json").write_text(json.dumps(without_times(trainer.history)))
    (FOLDER / f"scored_{NUMBER}.json").write_text(json.dumps(scored))
