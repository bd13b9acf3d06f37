"""The same seed gives the same history, to the last digit, whatever is re-arranged in the code.

tests/histories.json was recorded before the engine was taken apart into plain, fast and parallel. Other processors and other
versions of torch round otherwise: where they do, a canary says so and the comparison is left out.
`python tests/test_histories.py` records anew; do so only for a change that is meant to change numbers.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from ppo_run import MODEL, PROMPTS, count_the, small_config, without_times
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.ppo.fast.trainer import FastPPOTrainer
from helpers.ppo.train import train
from helpers.ppo.trainer import PPOTrainer

RECORD = Path(__file__).with_name("histories.json")
KINDS = {"fast": FastPPOTrainer, "plain": PPOTrainer}


def canary() -> str:
    """What this machine and this torch make of one forward and one backward pass."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(MODEL)("I watched this film with my sister", return_tensors="pt")
    logits = model(**ids).logits
    logits.logsumexp(-1).sum().backward()
    gradient = next(model.parameters()).grad
    numbers = torch.cat([logits.detach().flatten(), gradient.flatten()]).numpy().tobytes()
    return f"torch {torch.__version__}, {hashlib.sha256(numbers).hexdigest()[:16]}"


def history(kind: str, seed: int, folder: str) -> dict:
    """A run of four rounds on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = train(
            reward_fn=count_the,
            prompts=PROMPTS,
            eval_prompts=PROMPTS,
            trainer_class=KINDS[kind],
            config=small_config(folder, train=dict(seed=seed, total_steps=16)),
        )
    finally:
        torch.set_num_threads(threads)
    return without_times(trainer.history)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_history_is_the_recorded_one(tmp_path, kind, seed):
    record = json.loads(RECORD.read_text())
    if canary() != record["canary"]:
        pytest.skip(f"recorded with {record['canary']}, here is {canary()}: they round otherwise")
    assert recorded_columns(history(kind, seed, tmp_path)) == record[f"{kind}-{seed}"]


def recorded_columns(found: dict) -> dict:
    """A history without the columns that came later."""
    later = ("grad_norm", "explained_variance")
    return {
        kind: [{name: value for name, value in row.items() if name not in later} for row in rows]
        for kind, rows in found.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = {
        f"{kind}-{seed}": history(kind, seed, tempfile.mkdtemp()) for kind in KINDS for seed in range(3)
    }
    RECORD.write_text(json.dumps({"canary": canary()} | record) + "\n")
    sys.exit(f"recorded in {RECORD.name}")
