"""RLHF without a notebook: `python -m helpers train`, and what is left where it ends early."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from common import ROOT
from ppo_run import PROMPTS, small_config, without_times
from test_processes import TWO
from transformers import AutoModelForCausalLM

from helpers.__main__ import main, with_negative_weights
from helpers.config_cli import LEARNING_RATES, notebook_config, scale_of
from helpers.ppo.run import History
from helpers.tiny import TINY

JUDGE = TINY / "distilbert-reviews"
FAILING = f"{Path(__file__).with_name('hang_reward.py')}:reward"
THIRD_ROUND = 9  # its calls: two trials, the first evaluation, two chunks in each round
PREFLIGHT = {
    1: 19,
    2: 11,
}  # and before them, by processes: a trial, two chunks, and two evaluations of 64 samples


@pytest.fixture
def files(tmp_path):
    config, prompts = tmp_path / "ppo.yml", tmp_path / "prompts.txt"
    changes = dict(train=dict(total_steps=16, checkpoint_interval=1000, eval_interval=1000))
    config.write_text(yaml.safe_dump(small_config(tmp_path / "ckpts", **changes).to_dict()))
    prompts.write_text("\n".join(PROMPTS * 3) + "\n\n")
    return config, prompts


@pytest.fixture
def train(files, tmp_path, monkeypatch):
    """`python -m helpers train` in this process, on a small run with the reward of hang_reward.py."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # put back afterwards

    def call(*arguments, **given):
        config, prompts = files
        given = {"config": config, "prompts": prompts, "reward": FAILING, "out": tmp_path / "tuned"} | given
        return main(["train", *arguments_of(given), *arguments])

    return call


def arguments_of(given):
    return [str(part) for name, value in given.items() for part in (f"--{name}", value)]


def history_of(folder):
    """The history in the newest of the checkpoints in a folder, without times, and its step."""
    state = json.loads((max(folder.glob("checkpoint_*")) / "state.json").read_text())
    return without_times(History(**state["progress"]["history"])), state["progress"]["step"]


def weights_of(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.fixture
def unbroken(train, tmp_path, files):
    """The history of the run that nothing interrupts."""
    config, _ = files
    elsewhere = tmp_path / "unbroken.yml"
    elsewhere.write_text(config.read_text().replace("ckpts", "unbroken"))
    assert train(config=elsewhere) == 0
    history, step = history_of(tmp_path / "unbroken")
    assert step == 16 and len(history["rounds"]) == 4
    return history


def test_train_saves_a_model_that_loads(cli, files, tmp_path):
    config, prompts = files
    done = cli(
        "train", "--config", config, "--prompts", prompts, "--reward", JUDGE, "--out", tmp_path / "tuned"
    )
    assert done.returncode == 0, done.stderr
    assert (
        "It pays P(POSITIVE) of the text by the classifier distilbert-reviews. 14 prompts, 1 more"
        in done.stdout
    )
    assert "16 steps in" in done.stdout and "tuned" in done.stdout.splitlines()[-1]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").config.model_type == "gpt2"


def test_what_is_wrong_is_said_in_one_message(train, tmp_path, capsys, files):
    (tmp_path / "empty.txt").write_text("\n")
    bad = tmp_path / "bad.yml"
    bad.write_text(files[0].read_text().replace("gamma:", "gama:"))
    for given, message in [
        ({"prompts": tmp_path / "empty.txt"}, "has no prompts"),
        ({"prompts": tmp_path / "none.txt"}, "No such file"),
        ({"config": bad}, "Did you mean 'gamma'?"),
        ({"config": tmp_path / "none.yml"}, "none.yml"),
        ({"reward": TINY / "grammar.py"}, "names no function"),
        ({"reward": "-0.2*word>=3"}, "Did you mean words?"),
        ({"model": tmp_path / "nothing"}, "nothing' cannot be loaded"),
        ({"out": TINY / "gpt2-reviews"}, "is the model this run starts from"),
    ]:
        assert train(**given) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "ckpts").exists()


def test_without_a_configuration_file_it_is_notebook_06s_run(tmp_path, monkeypatch, files):
    """Shortened by RLHF_BUDGET, with the checkpoints beside the model; --model is fine-tuned in place of the course's."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("RLHF_BUDGET", "0.01")
    given = {"prompts": files[1], "reward": "words>=3", "model": TINY / "gpt2", "out": tmp_path / "mine"}
    assert main(["train", *arguments_of(given), "--reward", "-.5*chars>=60"]) == 0
    (folder,) = (tmp_path / "mine-checkpoints").glob("checkpoint_*")
    state = json.loads((folder / "state.json").read_text())
    config, evaluation = state["config"], state["progress"]["history"]["evals"][-1]
    assert config["model"]["model_path"] == config["tokenizer"]["tokenizer_path"] == str(TINY / "gpt2")
    assert config["train"]["total_steps"] == 2 and config["method"]["init_kl_coef"] == 0.02
    assert config["optimizer"]["kwargs"]["lr"] == LEARNING_RATES["tiny"]
    parts = evaluation["metrics/words>=3"] + evaluation["metrics/-0.5*chars>=60"]
    assert parts == pytest.approx(evaluation["reward/mean"])
    assert len(weights_of(tmp_path / "mine")) > 10


def test_a_wide_model_learns_at_gpt2s_rate(tmp_path):
    assert scale_of(str(TINY / "gpt2")) == "tiny"
    for model, scale in [(None, "full"), (str(TINY / "gpt2"), "tiny")]:
        assert notebook_config("full", model=model).optimizer.kwargs["lr"] == LEARNING_RATES[scale]
    config = json.loads((TINY / "gpt2" / "config.json").read_text()) | {"n_embd": 768}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert scale_of(str(tmp_path)) == "full"


def test_a_reward_with_a_negative_weight_is_no_option():
    given = ["--reward", "-0.2*words>=3", "--out", "-x", "--reward", "a", "-1"]
    assert with_negative_weights(given) == ["--reward=-0.2*words>=3", "--out", "-x", "--reward", "a", "-1"]


def test_a_reward_that_raises_in_the_third_round_loses_nothing(
    train, unbroken, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("FAIL_AT", str(PREFLIGHT[1] + THIRD_ROUND))
    assert train(out=tmp_path / "second") == 2
    said = capsys.readouterr()
    assert re.search(r"hang_reward.py, line \d+: the function reward failed: KeyError: 'lost'\.", said.err)
    assert "The same command with --resume goes on from there." in said.out
    assert history_of(tmp_path / "ckpts")[1] == 8 and not (tmp_path / "second").exists()
    monkeypatch.delenv("FAIL_AT")
    assert train("--resume", out=tmp_path / "second") == 0
    resumed = capsys.readouterr().out
    assert "\n8 steps in" in resumed and "reward of 64 samples" not in resumed
    assert "No round on trial: this run goes on from checkpoint_08.\n" in resumed
    assert history_of(tmp_path / "ckpts") == (unbroken, 16)
    ours, theirs = weights_of(tmp_path / "second"), weights_of(tmp_path / "tuned")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_resume_with_nothing_to_go_on_from_begins_with_a_round_on_trial(train, capsys):
    with pytest.warns(UserWarning, match="no checkpoint of this run in .* yet"):
        assert train("--resume") == 0
    said = capsys.readouterr().out
    assert "One round on trial:\n" in said and "reward of 64 samples" in said


def interrupted(arguments, tmp_path, python=(sys.executable,)):
    """What `train` says that gets Ctrl-C while its reward hangs, and its exit status."""
    sign = tmp_path / "hanging"
    before = PREFLIGHT[1 if python == (sys.executable,) else 2]
    env = os.environ | {"FAIL_AT": str(before + THIRD_ROUND), "HANGING": str(sign)}
    command = [*python, "-m", "helpers", "train", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        while not sign.exists() and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        try:
            out, err = run.communicate(timeout=300)
        finally:
            run.kill()  # one that was started to ignore Ctrl-C would hang on
    return run.returncode, out, err


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C otherwise")
def test_ctrl_c_while_a_reward_hangs_leaves_the_last_whole_round(train, unbroken, tmp_path, files):
    given = dict(config=files[0], prompts=files[1], reward=FAILING, out=tmp_path / "second")
    status, out, err = interrupted(arguments_of(given), tmp_path)
    assert status == 130, err
    assert "Stopped. The model as it was after step 8 is in" in out and "--resume goes on" in out
    assert "Traceback" not in err and err.endswith("\nStopped.\n")
    assert history_of(tmp_path / "ckpts")[1] == 8
    ours, theirs = (
        weights_of(tmp_path / "second"),
        weights_of(tmp_path / "ckpts" / "checkpoint_08" / "hf_model"),
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert train("--resume", out=tmp_path / "second") == 0
    assert history_of(tmp_path / "ckpts") == (unbroken, 16)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C otherwise")
def test_ctrl_c_in_two_processes_leaves_the_last_whole_round_too(cli, tmp_path, files):
    """The reward hangs in the second process, and the first waits for it."""
    launch = [sys.executable, *TWO]
    given = arguments_of(dict(config=files[0], prompts=files[1], reward=FAILING, out=tmp_path / "tuned"))
    _, out, err = interrupted(given, tmp_path, launch)
    assert (
        out.count("reward of 64 samples") == 1 and "each of 2 processes" in out
    )  # both make the trial, one tells
    assert out.count("Stopped. The model as it was after step 8 is in") == 1, err
    assert weights_of(tmp_path / "tuned") and history_of(tmp_path / "ckpts")[1] == 8
    done = cli("train", *given, "--resume", python=launch)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("No round on trial: this run goes on from checkpoint_08.") == 1
    assert "2 processes" in (tmp_path / "tuned" / "report.html").read_text()
    history, step = history_of(tmp_path / "ckpts")
    assert step == 16 and [row["step"] for row in history["rounds"]] == [0, 4, 8, 12]
