"""What is wrong is said before any training: what it was, what was expected, what to do."""

import subprocess
import sys
from pathlib import Path

import pytest
from ppo_run import PROMPTS, count_the, engine_train, small_config, small_run

from helpers import engine as door
from helpers import files
from helpers.errors import CourseError

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("engine")


def refused(tmp_path, **changes) -> str:
    """The message of a run that is refused; nothing may have been trained or written."""
    with pytest.raises(CourseError) as error:
        small_run(tmp_path / "ckpts", **changes)
    assert not list(tmp_path.rglob("checkpoint_*"))
    return str(error.value)


@pytest.mark.parametrize(
    "returned, message",
    [
        (lambda n: [1.0] * (n + 1), "3 rewards for 2 samples"),
        (lambda n: None, "None (is a `return` missing?)"),
        (lambda n: [None] * n, "the reward of sample 0 is None"),
        (lambda n: [float("nan")] * n, "division by zero"),
        (lambda n: [float("inf")] * n, "the reward of sample 0 is inf"),
        (lambda n: ["good"] * n, "'good', of type str"),
        (lambda n: 1.0, "of type float"),
    ],
)
def test_a_reward_function_that_breaks_the_contract(tmp_path, returned, message):
    text = refused(tmp_path, reward_fn=lambda samples: returned(len(samples)))
    assert message in text or message.replace("3 rewards", "3 rewards") in text
    assert "reward_fn(samples) -> list[float]" in text or "one finite number" in text


def test_no_reward_function_at_all(tmp_path):
    with pytest.raises(CourseError, match="expected a function"):
        engine_train()(prompts=PROMPTS, config=small_config(tmp_path))


@pytest.mark.parametrize(
    "prompts, message",
    [
        ([], "at least one prompt"),
        ("a text", "expected a list"),
        (["fine", ""], "prompts[1] is ''"),
        (["fine", "  "], "prompts[1] is ' "),
        ([None], "prompts[0] is None"),
        ([{"text": "x"}], "prompts[0] is None"),
        (["word " * 200], "tokens, but only 56 fit"),
    ],
)
def test_prompts_that_cannot_be_continued(tmp_path, prompts, message):
    assert message in refused(tmp_path, prompts=prompts, eval_prompts=PROMPTS)


def test_evaluation_prompts_are_checked_too(tmp_path):
    assert "eval_prompts[0] is ''" in refused(tmp_path, eval_prompts=[""])


def test_a_context_without_room_for_a_prompt(tmp_path):
    assert "leaves no room" in refused(tmp_path, changes={"train": {"seq_length": 8}})


def test_a_model_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text = refused(tmp_path, changes={"model": {"model_path": "no/such-model"}})
    assert "model.model_path 'no/such-model' cannot be loaded" in text and "folder" in text
    text = refused(tmp_path, changes={"tokenizer": {"tokenizer_path": str(tmp_path)}})
    assert "tokenizer.tokenizer_path" in text


def test_layers_that_are_not_there(tmp_path):
    assert "expected -1 (all) or 0 to" in refused(tmp_path, changes={"model": {"num_layers_unfrozen": 99}})


def test_an_unknown_optimizer_or_argument(tmp_path):
    assert "Did you mean 'adamw'?" in refused(tmp_path, changes={"optimizer": {"name": "adamw2"}})
    assert "optimizer.kwargs" in refused(tmp_path, changes={"optimizer": {"kwargs": {"learning": 1}}})


@pytest.mark.parametrize(
    "given, message",
    [
        ({"samples": ["a"]}, "expected samples and rewards together"),
        ({"rewards": [1.0]}, "expected samples and rewards together"),
        ({"dataset": (["a"], [1.0])}, "dataset is trlX's old name for both"),
        (
            {"samples": ["a"], "rewards": [1.0]},
            "learned by ILQL, (which needs the real trlX|and config is not)",
        ),
    ],
)
def test_training_on_given_samples_is_ilql_s(tmp_path, given, message):
    with pytest.raises(CourseError, match=message):
        engine_train()(**given, config=small_config(tmp_path))


def test_ilql_needs_the_real_trlx(monkeypatch):
    monkeypatch.setenv("RLHF_ENGINE", "builtin")
    for call in (door.default_ilql_config, lambda: door.train(samples=["a"], rewards=[1.0])):
        with pytest.raises(
            CourseError, match="needs the real trlX: install it with `python -m helpers trlx`"
        ):
            call()


def test_a_disk_too_small_is_known_before_training(tmp_path):
    with pytest.raises(CourseError, match="MB are free"):
        files.check_space(tmp_path / "not" / "yet", 10**18, "set train.checkpoint_dir to another disk")


def test_a_write_that_fails_leaves_nothing_half_written(tmp_path):
    """A file-size limit stands in for a full disk: the same failing write."""
    script = (
        "import resource, sys; from ppo_run import *; from helpers.errors import CourseError\n"
        "trainer = small_run(sys.argv[1], changes={'train': {'total_steps': 1}})\n"
        "trainer.save_pretrained(sys.argv[1] + '/tuned')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: trainer.save_pretrained(sys.argv[1] + '/tuned')\n"
        "except CourseError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        capture_output=True,
        text=True,
        env={**__import__("os").environ, "PYTHONPATH": f"{HERE.parent}:{HERE}"},
    )
    assert "Is the disk full?" in run.stdout, run.stderr
    assert (
        tmp_path / "tuned" / "model.safetensors"
    ).stat().st_size > 10_000  # the earlier save is still whole
    assert not list(tmp_path.glob(".*"))


def test_a_reward_function_is_tried_on_two_samples_first(tmp_path):
    counts = []

    def reward_fn(samples, **kwargs):
        counts.append(len(samples))
        return count_the(samples)

    small_run(tmp_path, reward_fn=reward_fn, changes={"train": {"total_steps": 1}})
    assert counts[0] == 2
