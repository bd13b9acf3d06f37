"""Weights that do not fit, and files that are damaged: told, not filled up with random numbers."""

import errno
import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_trust import MODELS, load, refused
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from helpers import weights
from helpers.errors import CourseError
from helpers.rewards import get_positive_score, load_reward, sentiment_reward
from helpers.tiny import TINY

TEXTS = ["I loved this film.", "I regretted every minute of it."]


@pytest.fixture
def folder(tmp_path):
    """Copies one of the tiny models, with its weights changed by a function."""

    def make(kind: str, change=None):
        place = tmp_path / kind
        shutil.copytree(TINY / MODELS[kind], place)
        if change:
            path = place / "model.safetensors"
            save_file(change(load_file(path)), path, metadata={"format": "pt"})
        return place

    return make


def without(*parts):
    return lambda tensors: {name: t for name, t in tensors.items() if not any(part in name for part in parts)}


def with_prefix(prefix):
    return lambda tensors: {prefix + name: t for name, t in tensors.items()}


# ------------------------------------------------------------------------------------ weights that do not fit


@pytest.mark.parametrize(
    "kind, change, messages",
    [
        ("model", without("h.1.mlp.c_fc.weight"), ["transformer.h.1.mlp.c_fc.weight"]),
        ("model", without("wte"), ["wte.weight"]),
        ("model", without("h.1."), [" and 9 more"]),
        ("model", with_prefix("base_model."), ["'base_model.'", "trlX"]),
        ("model", with_prefix("module."), ["'module.'", "DDP"]),
        ("judge", without("classifier.weight"), ["classifier.weight"]),
        ("judge", with_prefix("module."), ["'module.'"]),
    ],
)
def test_missing_weights_are_named(folder, kind, change, messages):
    said = refused(kind, folder(kind, change))
    for message in ["lacks weights of a", *messages]:
        assert message in said


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1)])
def test_weights_of_another_shape_are_named(folder, shape):
    place = folder("judge", lambda tensors: tensors | {"classifier.bias": torch.zeros(shape)})
    assert f"classifier.bias ({shape} in place of (2,))" in refused("judge", place)


def test_a_single_number_is_not_spread_over_a_tensor(folder):
    name = "transformer.ln_f.bias"
    place = folder("model", lambda tensors: tensors | {name: torch.zeros(1)})
    assert f"{name} ((1,) in place of" in refused("model", place)


def test_settings_that_change_the_size():
    said = refused("model", TINY / "gpt2-reviews", n_inner=7)
    assert "weights of another shape" in said and "model_extra_configs" in said


def test_a_language_model_is_no_judge():
    said = refused("judge", TINY / "gpt2-reviews")
    assert "score.weight" in said and "GPT2ForSequenceClassification" in said


def test_weights_too_many_are_no_harm(folder):
    """Old checkpoints hold the causal mask, and trlX's hold the value head."""
    more = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4),
        "transformer.h.0.attn.masked_bias": torch.zeros(()),
        "v_head.0.weight": torch.ones(2, 2),
    }
    model = load("model", folder("model", lambda tensors: tensors | more)).base_model
    whole = AutoModelForCausalLM.from_pretrained(TINY / "gpt2-reviews", dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), whole.state_dict().values()))


def test_a_reward_model_saved_after_its_training_loads_whole(tmp_path):
    """Its head may be random at first, where a notebook makes it; saved, it is one of the weights."""
    fresh = AutoModelForSequenceClassification.from_pretrained(TINY / "gpt2-reviews", num_labels=1)
    fresh.save_pretrained(tmp_path)
    loaded = weights.load_model(AutoModelForSequenceClassification, tmp_path, "the reward model")
    assert torch.equal(loaded.score.weight, fresh.score.weight)


# ------------------------------------------------------------------------------------ judges


def pipeline_of(model, tokenizer=None):
    return pipeline("sentiment-analysis", model, tokenizer=tokenizer, top_k=2, device="cpu")


def test_a_pipeline_without_its_head_is_refused(folder):
    place = folder("judge", without("classifier"))
    with pytest.raises(CourseError, match="the judge .* lacks weights .* classifier.bias, classifier.weight"):
        sentiment_reward(pipeline_of(str(place)))


def test_a_whole_pipeline_one_trained_since_and_a_function_are_not(folder):
    whole = str(TINY / "distilbert-reviews")
    assert len(sentiment_reward(pipeline_of(whole))(TEXTS)) == 2
    place = folder("judge", without("classifier"))
    trained = AutoModelForSequenceClassification.from_pretrained(
        place, id2label={0: "NEGATIVE", 1: "POSITIVE"}
    )
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.01
    sentiment_reward(pipeline_of(trained, AutoTokenizer.from_pretrained(whole)))
    judge = pipeline_of(whole)
    assert sentiment_reward(lambda samples: judge(samples))(TEXTS) == sentiment_reward(judge)(TEXTS)


def test_the_reward_is_that_of_the_pipeline():
    judge = pipeline_of(str(TINY / "distilbert-reviews"))
    expected = [get_positive_score(scores) for scores in judge(TEXTS)]
    assert load_reward(str(TINY / "distilbert-reviews"), "cpu")(TEXTS) == pytest.approx(expected, abs=1e-6)


def test_a_judge_with_three_classes(folder):
    """POSITIVE is never among the likeliest two here."""
    place = folder(
        "judge",
        lambda tensors: (
            tensors
            | {
                "classifier.weight": torch.zeros(3, tensors["classifier.weight"].shape[1]),
                "classifier.bias": torch.tensor([2.0, 1.0, 0.0]),
            }
        ),
    )
    config = json.loads((place / "config.json").read_text())
    labels = dict(enumerate(["NEGATIVE", "NEUTRAL", "POSITIVE"]))
    config |= {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
    (place / "config.json").write_text(json.dumps(config))
    wanted = torch.tensor([2.0, 1.0, 0.0]).softmax(0)[2].item()
    assert load_reward(str(place), "cpu")(TEXTS) == pytest.approx([wanted] * 2, abs=1e-5)


def test_a_judge_without_the_class_positive(folder):
    place = folder("judge")
    config = json.loads((place / "config.json").read_text()) | {"id2label": {0: "x" * 10_000, 1: "good"}}
    (place / "config.json").write_text(json.dumps(config))
    assert "expected exactly one called 'POSITIVE'" in refused("judge", place)


# ------------------------------------------------------------------------------------ damaged files

DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) * 2 // 3],
    "garbage": lambda data: bytes(range(256)) * 8,
    "list": lambda data: b"[1, 2]",
    "latin": lambda data: b'{"model_type": "\xe9"}',
    "table": lambda data: b"{}",
    "nested": lambda data: b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
    "unknown": lambda data: data.replace(b'"gpt2"', b'"nemo"').replace(b'"distilbert"', b'"nemo"'),
    "wrong": lambda data: data.replace(b'"n_layer": 2', b'"n_layer": "two"'),
}


@pytest.mark.parametrize(
    "kind, file, damages",
    [
        ("model", "model.safetensors", ["empty", "cut", "garbage", "list"]),
        ("model", "config.json", ["empty", "cut", "garbage", "list", "latin", "table", "nested", "unknown"]),
        ("tokenizer", "tokenizer.json", ["empty", "cut", "garbage", "list", "table", "nested"]),
        ("tokenizer", "tokenizer_config.json", ["empty", "cut", "garbage", "list", "latin", "nested"]),
        ("tokenizer", "config.json", ["empty", "cut", "garbage", "list", "latin", "nested"]),
        ("judge", "model.safetensors", ["empty", "cut", "garbage", "list"]),
        ("judge", "config.json", ["empty", "cut", "garbage", "list", "latin", "table", "nested", "unknown"]),
        ("judge", "tokenizer.json", ["empty", "cut", "garbage", "list", "table", "nested"]),
        ("judge", "tokenizer_config.json", ["empty", "cut", "garbage", "list", "latin", "nested"]),
    ],
)
def test_a_damaged_file_is_told_in_a_sentence(folder, kind, file, damages):
    whole = (TINY / MODELS[kind] / file).read_bytes()
    place = folder(kind)
    for damage in damages:
        (place / file).write_bytes(DAMAGE[damage](whole))
        said = refused(kind, place)
        assert str(place) in said, damage


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["model", "judge"])
@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_that_is_more_than_tensors_is_not_opened(folder, tmp_path, kind, legacy):
    place = folder(kind)
    (place / "model.safetensors").unlink()
    evil = {"weight": Evil(tmp_path / "ran")}
    if legacy:
        (place / "pytorch_model.bin").write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, place / "pytorch_model.bin")
    said = refused(kind, place)
    assert "a pickle that holds more than tensors" in said and "weights_only" not in said
    assert not (tmp_path / "ran").exists()


def test_weights_in_a_pickle_of_tensors_load(folder):
    place = folder("model")
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    load("model", place)


@pytest.mark.parametrize(
    "error, message",
    [
        (ImportError("it requires sentencepiece"), "needs a Python package that is not here: it requires"),
        (MemoryError(), "does not fit into memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "does not fit into memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "does not fit into memory",
        ),
    ],
)
def test_what_is_no_damage_is_not_called_so(monkeypatch, error, message):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    for kind in ("model", "tokenizer"):
        said = refused(kind, TINY / "gpt2-reviews")
        assert message in said and "cannot be loaded" not in said
