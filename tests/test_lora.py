"""LoRA with either engine: what learns, that it can be resumed, and that what is saved is a model of the plain kind."""

import os
import subprocess
import sys

import pytest
import torch
from common import ROOT, metadata_of
from ppo_run import MODEL, small_run, without_times
from transformers import AutoModelForCausalLM

from helpers.errors import CourseError

pytest.importorskip("peft", reason="LoRA needs peft: python -m pip install peft")

LORA = {"model": {"peft_config": dict(peft_type="LORA", r=4, lora_alpha=8)}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, engine):
    """A run's folder and its trainer; eight steps, two checkpoints."""
    folder = tmp_path_factory.mktemp("lora")
    return folder, small_run(folder, changes=LORA)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(5, 25)[None]).logits


def test_only_lora_and_the_value_head_learn(trained):
    _, trainer = trained
    names = trainer.policy.trainable()
    assert all(".lora_" in name or name.startswith("v_head") for name in names)
    assert any(".lora_B" in name and p.abs().max() > 0 for name, p in names.items())
    assert trainer.history.rounds[0]["kl"] == pytest.approx(0, abs=1e-4) != trainer.history.rounds[1]["kl"]


def test_the_reference_is_the_model_without_lora(trained):
    _, trainer = trained
    plain = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    assert torch.allclose(logits(trainer.policy.reference), logits(plain), atol=1e-4)
    assert not torch.allclose(logits(trainer.model), logits(plain), atol=1e-2)


def test_what_is_saved_is_a_plain_model_with_lora_added_in(trained, tmp_path):
    _, trainer = trained
    saved = AutoModelForCausalLM.from_pretrained(trainer.save_pretrained(tmp_path / "model")).eval()
    assert not [name for name, _ in saved.named_parameters() if "lora" in name]
    assert torch.allclose(logits(saved), logits(trainer.model), atol=1e-4)


def test_resumed_it_goes_on_as_if_nothing_had_happened(trained, tmp_path):
    folder, trainer = trained
    changes = LORA | {"train": {"total_steps": 12, "resume_from_checkpoint": str(folder / "checkpoint_8")}}
    resumed = small_run(tmp_path / "resumed", changes=changes)
    whole = small_run(tmp_path / "whole", changes=LORA | {"train": {"total_steps": 12}})
    assert without_times(resumed.history) == without_times(whole.history)


@pytest.mark.parametrize("config", [{"peft_type": "PREFIX_TUNING"}, "lora", dict(peft_type="LORA", rank=4)])
def test_what_is_no_lora_is_refused(tmp_path, config):
    with pytest.raises(CourseError, match="model.peft_config"):
        small_run(tmp_path, changes={"model": {"peft_config": config}})


def test_without_peft_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(CourseError, match="python -m helpers install peft"):
        small_run(tmp_path, changes=LORA)


def test_a_peft_that_cannot_be_imported_stops_neither_a_start_nor_training(tmp_path):
    """As where peft wants another transformers than the one that is there. LoRA says so in a sentence."""
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "__init__.py").write_text("raise ImportError('cannot import name HybridCache')")
    (tmp_path / "peft-0.22.0.dist-info").mkdir()
    (tmp_path / "peft-0.22.0.dist-info" / "METADATA").write_text(metadata_of("peft", "0.22.0"))
    code = f"""
from helpers import course
from helpers.errors import CourseError
from ppo_run import small_run

course.start()
small_run({str(tmp_path / "plain")!r})
try:
    small_run({str(tmp_path / "lora")!r}, changes={LORA!r})
except CourseError as error:
    print(error)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [tmp_path, ROOT, ROOT / "tests"]))}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "peft 0.22.0 cannot be used here: cannot import name HybridCache" in done.stdout
