"""The same seed gives the same history, to the last digit, whatever is re-arranged in the code.

Processors and versions of torch round differently. So the runs are made in a process of their own, where torch and MKL take
instructions that all x86 processors since 2013 have and that add up alike on each. MKL's square root, which Adam takes, still
rounds otherwise on AMD's processors than on Intel's, so there may be a record for each. Where there is none, and with another torch, a
canary says so and the comparison is left out.
`python tests/test_histories.py` adds this machine's record, or makes it anew; do so only before a change that is meant to change nothing,
or after one that is meant to change numbers.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

RECORD = Path(__file__).with_name("histories.json")
KINDS, SEEDS = ("fast", "plain"), range(3)
ALIKE = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "avx2"}  # both are read at the first computation


def canary() -> str:
    """What this machine and this torch make of one forward pass, one backward pass, and a square root."""
    import torch
    from ppo_run import MODEL
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(MODEL)("I watched this film with my sister", return_tensors="pt")
    logits = model(**ids).logits
    logits.logsumexp(-1).sum().backward()
    gradient = next(model.parameters()).grad
    numbers = (
        torch.cat([part.detach().flatten() for part in (logits, gradient, gradient.abs().sqrt())])
        .numpy()
        .tobytes()
    )
    return f"torch {torch.__version__}, {hashlib.sha256(numbers).hexdigest()[:16]}"


def history(kind: str, seed: int) -> dict:
    """A run of four rounds."""
    from ppo_run import PROMPTS, count_the, small_config, without_times

    from helpers.ppo.fast.trainer import FastPPOTrainer
    from helpers.ppo.train import train
    from helpers.ppo.trainer import PPOTrainer

    with tempfile.TemporaryDirectory() as folder:
        trainer = train(
            reward_fn=count_the,
            prompts=PROMPTS,
            eval_prompts=PROMPTS,
            trainer_class={"fast": FastPPOTrainer, "plain": PPOTrainer}[kind],
            config=small_config(folder, train=dict(seed=seed, total_steps=16)),
        )
    return without_times(trainer.history)


def histories() -> dict:
    """The canary, and every run's history by its name, "fast-0"."""
    import torch

    torch.set_num_threads(1)
    return {"canary": canary()} | {f"{kind}-{seed}": history(kind, seed) for kind in KINDS for seed in SEEDS}


@pytest.fixture(scope="module")
def found() -> dict:
    """The histories as they are now."""
    code = "import json, test_histories; print(json.dumps(test_histories.histories()))"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    env = os.environ | ALIKE | {"PYTHONPATH": path}
    process = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_history_is_the_recorded_one(found, kind, seed):
    records = json.loads(RECORD.read_text())
    if found["canary"] not in records:
        pytest.skip(f"recorded with {' and '.join(records)}, here is {found['canary']}: they round otherwise")
    then, now = records[found["canary"]][f"{kind}-{seed}"], found[f"{kind}-{seed}"]
    assert {name: recorded_columns(rows, then[name]) for name, rows in now.items()} == then


def recorded_columns(rows: list[dict], record: list[dict]) -> list[dict]:
    """The rows without columns that came after the record was made."""
    return [{name: value for name, value in row.items() if name in record[0]} for row in rows]


if __name__ == "__main__":
    if not ALIKE.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALIKE)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    new = histories()
    records = json.loads(RECORD.read_text()) | {new.pop("canary"): new}
    RECORD.write_text(json.dumps(records) + "\n")
    sys.exit(f"recorded in {RECORD.name}")
