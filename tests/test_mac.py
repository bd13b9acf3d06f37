"""What a Mac's GPU (mps) cannot do, refused while runs go on: 64-bit numbers, and operations that torch has not for it.

The CPU stands in for the GPU. A 64-bit tensor that was made of Python's numbers, and of no tensor, is taken to lie on the CPU
there too: it is let be as long as it does not meet the others.
"""

import functools
import importlib.util
import re
from pathlib import Path

import pytest
import torch
import yaml
from ppo_run import MODEL, PROMPTS, small_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import course
from helpers.compare import continue_prompts
from helpers.ppo.fast.trainer import FastPPOTrainer
from helpers.ppo.train import train
from helpers.ppo.trainer import PPOTrainer
from helpers.real_trlx import install
from helpers.rewards import load_reward
from helpers.tiny import TINY

WIDE = {torch.float64, torch.complex128}
CPUS_OWN = "_scaled_dot_product_flash_attention_for_cpu"  # mps has its own instead


class NotOnAMac(Exception):
    """Not a TypeError, as a Mac's: of those Python's operators make others."""


class LikeAMac(TorchDispatchMode):
    """Raises where mps would."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        result = operation(*args, **kwargs)
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        wide = {t.dtype in WIDE for t in given}
        if wide == {True, False} or (wide != {True} and given and any(t.dtype in WIDE for t in made)):
            raise NotOnAMac(f"{operation}: mps has no float64")
        if True not in wide and not runs_on_mps(str(operation)):
            raise NotOnAMac(f"{operation} is not implemented for mps")
        return result


@functools.cache
def dispatch_keys() -> dict[str, str]:
    """For each of torch's operations, the devices that it says it has it for, as one text; of torch's own table."""
    folder = Path(importlib.util.find_spec("torchgen").origin).parent
    table = yaml.load(
        (folder / "packaged/ATen/native/native_functions.yaml").read_text(),
        getattr(yaml, "CSafeLoader", yaml.SafeLoader),
    )
    entries = {re.match(r"[\w.]+", entry["func"])[0]: entry for entry in table}
    real = {name: entries[entry.get("structured_delegate", name)] for name, entry in entries.items()}
    return {name: ", ".join(entry.get("dispatch", {"Composite": ""})) for name, entry in real.items()}


def runs_on_mps(operation: str) -> bool:
    """Whether torch says that it has this operation, such as aten.add.Tensor, for mps, or made of others."""
    name = operation.removeprefix("aten.").removesuffix(".default")
    devices = dispatch_keys().get(name, "Composite")  # not in the table: made by rule from another that is
    return bool(re.search(r"\bMPS\b|Composite", devices)) or name.startswith(CPUS_OWN)


@pytest.fixture
def judge():
    return load_reward(str(TINY / "distilbert-reviews"), "cpu")


def run(judge, folder, train=train, **kwargs):
    """A run of two rounds with everything that has a memory of 64 bits, and the tuned model saved."""
    config = small_config(folder, method=dict(scale_reward="running", cliprange_reward=5.0))
    with LikeAMac():
        trainer = train(
            reward_fn=judge,
            prompts=PROMPTS,
            eval_prompts=PROMPTS,
            config=config,
            stop_sequences=["."],
            **kwargs,
        )
        trainer.save_pretrained(folder / "tuned")
    assert trainer.step == 8


@pytest.mark.parametrize("kind", [FastPPOTrainer, PPOTrainer])
def test_a_run(judge, tmp_path, kind):
    run(judge, tmp_path, trainer_class=kind)


def test_a_run_of_the_real_trlx(judge, tmp_path):
    if not install.installed():
        pytest.skip("trlX is not installed here")
    from helpers.real_trlx.train import train as train_trlx

    run(judge, tmp_path, train_trlx)


def test_what_notebooks_do_besides():
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)
    with LikeAMac():
        continue_prompts(model, tokenizer, PROMPTS, max_new_tokens=4)


@pytest.mark.parametrize(
    "work, reason",
    [
        (lambda x: x.double(), "float64"),
        (lambda x: x + torch.tensor([1.0], dtype=torch.float64), "float64"),
        (lambda x: torch.linalg.eigvals(x), "linalg_eig.* is not implemented for mps"),
    ],
)
def test_what_a_mac_cannot_do_is_refused(work, reason):
    with LikeAMac(), pytest.raises(NotOnAMac, match=reason):
        work(torch.ones(2, 2))


def test_sums_of_pythons_numbers_are_let_be():
    with LikeAMac():
        assert torch.tensor([1.0, 2.0], dtype=torch.float64).mean().item() == 1.5
        assert (torch.ones(2) * 0.5).sum().item() == 1


def test_tiny_scale_stays_on_the_cpu_of_a_mac(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "")  # so that it is afterwards as it was
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    course.stay_on_the_cpu("tiny")
    monkeypatch.setattr(course.sys, "platform", "darwin")
    course.stay_on_the_cpu("full")
    assert "ACCELERATE_USE_CPU" not in course.os.environ
    course.stay_on_the_cpu("tiny")
    assert course.os.environ["ACCELERATE_USE_CPU"] == "true"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    course.stay_on_the_cpu("tiny")
    assert course.os.environ["ACCELERATE_USE_CPU"] == "false"
