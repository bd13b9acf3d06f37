"""RLHF without a notebook, and the measurements."""

import pytest
import yaml
from ppo_run import PROMPTS, small_config
from transformers import AutoModelForCausalLM

from helpers.tiny import TINY

JUDGE = TINY / "distilbert-reviews"


@pytest.fixture
def files(tmp_path):
    config, prompts = tmp_path / "ppo.yml", tmp_path / "prompts.txt"
    config.write_text(yaml.safe_dump(small_config(tmp_path / "ckpts").to_dict()))
    prompts.write_text("\n".join(PROMPTS * 3) + "\n\n")
    return config, prompts


def test_train_saves_a_model_that_loads(cli, files, tmp_path):
    config, prompts = files
    done = cli(
        "train", "--config", config, "--prompts", prompts, "--reward", JUDGE, "--out", tmp_path / "tuned"
    )
    assert done.returncode == 0, done.stderr
    assert "8 steps in" in done.stdout and "tuned" in done.stdout.splitlines()[-1]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").config.model_type == "gpt2"


def test_what_is_wrong_is_said_in_one_message(cli, files, tmp_path):
    config, prompts = files
    (tmp_path / "empty.txt").write_text("\n")
    bad = tmp_path / "bad.yml"
    bad.write_text(config.read_text().replace("gamma:", "gama:"))
    for arguments, message in [
        ({"--prompts": tmp_path / "empty.txt"}, "has no prompts"),
        ({"--prompts": tmp_path / "none.txt"}, "No such file"),
        ({"--config": bad}, "Did you mean 'gamma'?"),
        ({"--config": tmp_path / "none.yml"}, "none.yml"),
        ({"--reward": TINY / "grammar.py"}, "Expected a classifier's folder"),
    ]:
        given = {"--config": config, "--prompts": prompts, "--reward": JUDGE} | arguments
        done = cli("train", *[part for pair in given.items() for part in pair])
        assert done.returncode == 2, done.stdout
        assert message in done.stderr and "Traceback" not in done.stderr
