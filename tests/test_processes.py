"""Several processes, two here on the CPU (gloo): the same run as one process with twice the batch, each thing done once."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from common import ROOT, TRLX_COMMAND
from ppo_run import PROMPTS, small_config
from transformers import AutoModelForCausalLM

from helpers.__main__ import main
from helpers.errors import CourseError
from helpers.ppo import checkpoint
from helpers.ppo.blocks import decoder_blocks
from helpers.ppo.parallel import processes, sharding
from helpers.real_trlx import install
from helpers.tiny import TINY

HERE = Path(__file__).parent
TOLERANCE = 1e-4
CONFIGS = ROOT / "configs"
TWO, ZERO2 = (
    ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / name)]
    for name in ("two_gpus.yaml", "zero2.yaml")
)


def command(folder, launcher, runs):
    """The command line and the environment of processes_run.py."""
    env = os.environ | dict(ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1")
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{HERE}"
    return [sys.executable, *launcher, str(HERE / "processes_run.py"), str(folder), json.dumps(runs)], env


def launch(folder, launcher, runs, engine="builtin") -> subprocess.CompletedProcess:
    """The runs, one after another, in as many processes as the launcher starts."""
    line, env = command(folder, launcher, runs)
    env["PPO_RUN_ENGINE"] = engine
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=600)


def left_by(folder) -> list[dict]:
    """What each process left of a run."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("process_*.json"))]


def must_finish(folder, launcher, runs, engine="builtin") -> dict[str, list[dict]]:
    """What each process left of each of the runs, which must end well."""
    done = launch(folder, launcher, runs, engine)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: left_by(folder / name) for name in runs}


def need_trlx():
    if not install.installed():
        pytest.skip(f"trlX is not installed here: {TRLX_COMMAND}")


def twice(changes: dict) -> dict:
    """The settings of one process that does what two do with `changes`."""
    sizes = dict(train=dict(batch_size=8), method=dict(num_rollouts=16, chunk_size=8))
    doubled = {section: dict(values) for section, values in changes.items()}
    for section, names in [
        ("train", ("batch_size", "minibatch_size")),
        ("method", ("num_rollouts", "chunk_size")),
    ]:
        values = sizes[section] | changes.get(section, {})
        doubled[section] = values | {name: 2 * values[name] for name in names if name in values}
    return doubled


def assert_close(found: dict, expected: dict) -> None:
    """Two histories with every number within 1e-4."""
    assert found.keys() == expected.keys()
    for kind in expected:
        assert len(found[kind]) == len(expected[kind]) > 0
        for ours, theirs in zip(found[kind], expected[kind], strict=True):
            assert ours == pytest.approx(theirs, abs=TOLERANCE), kind


GREEDY = dict(do_sample=False, min_new_tokens=8)
# gradient accumulation; chunks and batches that do not come out even; everything that has a memory
UNEVEN = dict(
    train=dict(batch_size=6, minibatch_size=2, total_steps=12, max_grad_norm=0.5),
    method=dict(num_rollouts=16, chunk_size=5, scale_reward="running", target=0.5, horizon=100),
    optimizer=dict(kwargs=dict(lr=2e-3)),
    scheduler=dict(kwargs=dict(T_max=24)),
)
# trlX permutes each process's rollouts by itself and whitens micro-batches: equal where a batch is the whole round
WHOLE_ROUNDS = dict(method=dict(num_rollouts=8, gen_kwargs=GREEDY))
RUNS = {
    "plain": ("builtin", "TWO", {}),
    "uneven": ("builtin", "TWO", UNEVEN),
    # foreach: as is torch's custom on a GPU
    "sharded": ("builtin", "ZERO2", dict(optimizer=dict(kwargs=dict(foreach=True)))),
    "sharded, uneven": ("builtin", "ZERO2", UNEVEN),
    # by steps in proportion to the gradients, which Adam's usual ones are not
    "sharded, everything learns": (
        "builtin",
        "ZERO2",
        dict(
            model=dict(num_layers_unfrozen=-1),
            optimizer=dict(kwargs=dict(lr=0.03, eps=0.1)),
            train=dict(max_grad_norm=1.0),
        ),
    ),
    "RLOO": ("builtin", "TWO", dict(method=dict(name="RLOOConfig", init_kl_coef=0.5, chunk_size=4))),
    "GRPO, sharded": (
        "builtin",
        "ZERO2",
        dict(method=dict(name="GRPOConfig", group_size=2, num_rollouts=12), train=dict(batch_size=6)),
    ),
    "whole rounds": ("trlx", "TWO", WHOLE_ROUNDS),
    "whole rounds, sharded": ("trlx", "ZERO2", WHOLE_ROUNDS),
}


# what else is looked at in runs that nothing happens to, by launcher
LONGER = dict(train=dict(total_steps=12))
ONE_PROMPT = dict(
    # by transformers' own sampling, which takes its random numbers from torch
    method=dict(gen_kwargs=dict(repetition_penalty=1.01)),
    train=dict(total_steps=1),
    test=dict(one_prompt=True),
)
ALSO = {
    "TWO": {"longer": LONGER, "one prompt": ONE_PROMPT, "stopped": dict(test=dict(stop_at=6, noisy=True))},
    "ZERO2": {"longer": LONGER},
}
# launched too: trlX whitens by another variance where it finds no group of processes
LAUNCHERS = {"ONE": ["-m", "torch.distributed.run", "--nproc_per_node=1"], "TWO": TWO, "ZERO2": ZERO2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What the processes left of a run, by engine, launcher ("ONE", "TWO" or "ZERO2") and name; and its folder.

    All runs of an engine by a launcher are made in one launch, when the first of them is asked for.
    """
    made = {}

    def find(engine, launcher, name):
        if (engine, launcher) not in made:
            folder = tmp_path_factory.mktemp(f"{engine}-{launcher}")
            runs = {
                key: twice(changes) if launcher == "ONE" else changes
                for key, (by, with_two, changes) in RUNS.items()
                if by == engine and launcher in ("ONE", with_two)
            }
            runs |= ALSO.get(launcher, {})
            made[engine, launcher] = must_finish(folder, LAUNCHERS[launcher], runs, engine), folder
        left, folder = made[engine, launcher]
        return left[name], folder / name

    return find


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one_with_twice_the_batch(finished, tmp_path, name):
    engine, launcher, changes = RUNS[name]
    if engine == "trlx":
        need_trlx()
    (first, second), folder = finished(engine, launcher, name)
    (alone,), _ = finished(engine, "ONE", name)
    assert_close(first["history"], alone["history"])
    assert first["history"] == second["history"]
    assert len(first["history"]["updates"]) >= 8
    assert first["history"]["rounds"][-1]["kl"] > 0.1  # it has learned something
    # each sample is scored once, in one of the processes
    assert Counter(first["scored"] + second["scored"]) == Counter(alone["scored"])
    assert first["scored"] and second["scored"]
    if launcher == "ZERO2":
        # two numbers for each weight of a block; those of half of the weights are in the other process
        blocks = decoder_blocks(
            AutoModelForCausalLM.from_pretrained(small_config(tmp_path).model.model_path)
        )[0]
        learning = blocks if changes.get("model") else blocks[-2:]
        weights = sum(p.numel() for p in learning.parameters())
        assert first["remembered"] == second["remembered"] == alone["remembered"] - weights
    # the main process writes, and what it writes is whole
    assert first["written"] == alone["written"] and first["written"][-1] == "model"
    assert second["written"] == []
    assert AutoModelForCausalLM.from_pretrained(folder / "model").config.model_type == "gpt2"


def on_two_machines(folders, runs) -> list[tuple[int, str]]:
    """Exit status and stderr of a process on each of two machines, played by two launches on this one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    meet = (
        f"--num_machines 2 --num_processes 2 --main_process_ip 127.0.0.1 --main_process_port {port}".split()
    )
    machines = []
    for rank, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        line, env = command(folder, [*TWO, *meet, "--machine_rank", str(rank)], runs)
        machines.append(subprocess.Popen(line, cwd=folder, env=env, stderr=subprocess.PIPE, text=True))
    said = [machine.communicate()[1] for machine in machines]
    return [(machine.returncode, text) for machine, text in zip(machines, said, strict=True)]


def test_two_machines_are_one_process_with_twice_the_batch(finished, tmp_path):
    """As two processes of one machine are. Each machine has a disk of its own, and only the first writes on its."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for status, said in on_two_machines(folders, {"uneven": UNEVEN}):
        assert status == 0, said[-3000:]
    (first,), (second,) = (left_by(folder / "uneven") for folder in folders)
    (alone,), _ = finished("builtin", "ONE", "uneven")
    assert_close(first["history"], alone["history"])
    assert first["history"] == second["history"]
    assert Counter(first["scored"] + second["scored"]) == Counter(alone["scored"])
    assert first["written"] == alone["written"] and second["written"] == []
    # on the second machine there is no checkpoint to go on from
    goes_on = UNEVEN | dict(train=UNEVEN["train"] | dict(resume_from_checkpoint="uneven/checkpoints"))
    for status, said in on_two_machines(folders, {"goes on": goes_on}):
        assert status != 0 and "find different newest checkpoints" in said, said[-3000:]


@pytest.mark.parametrize("launcher", ["TWO", "ZERO2"])
@pytest.mark.parametrize("engine", ["builtin", "trlx"])
def test_killed_and_resumed_the_history_is_the_same(finished, tmp_path, engine, launcher):
    """A killed process takes the others with it; together they go on from the checkpoint."""
    if engine == "trlx":
        need_trlx()
    whole, _ = finished(engine, launcher, "longer")
    killed = {"torn": LONGER | dict(test=dict(kill_at=6))}
    assert launch(tmp_path, LAUNCHERS[launcher], killed, engine).returncode != 0
    checkpoints = tmp_path / "torn" / "checkpoints"
    assert [path.name for path in checkpoints.glob("checkpoint_*")] == ["checkpoint_04"]
    goes_on = dict(train=LONGER["train"] | dict(resume_from_checkpoint=str(checkpoints)))
    resumed = must_finish(tmp_path, LAUNCHERS[launcher], {"resumed": goes_on}, engine)["resumed"]
    assert [left["history"] for left in resumed] == [left["history"] for left in whole]
    assert resumed[0]["history"] == resumed[1]["history"]
    assert len(resumed[0]["scored"]) < len(whole[0]["scored"])  # it did not start anew


def test_the_settings_of_a_sharded_optimizer_that_has_stepped_load_into_a_fresh_one():
    """The first step sets `foreach`, which a fresh optimizer has not set."""
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    stepped, fresh = (sharding.one_by_one(torch.optim.AdamW([weight])) for _ in range(2))
    stepped.step()
    saved = json.loads(json.dumps(stepped.state_dict()["param_groups"]))
    assert saved[0]["foreach"] is False and fresh.param_groups[0]["foreach"] is None
    assert checkpoint.alike(saved, fresh.state_dict()["param_groups"])
    assert not checkpoint.alike([saved[0] | {"foreach": "x"}], fresh.state_dict()["param_groups"])


def test_an_error_in_one_process_ends_all(tmp_path):
    done = launch(tmp_path, TWO, {"fails": dict(test=dict(fail_after=20))})
    assert done.returncode != 0
    assert "process 1: the reward of sample" in done.stderr  # the main process says so
    assert not left_by(tmp_path / "fails")


def test_stopping_in_one_process_stops_all(finished):
    """Also where a reward function draws random numbers, more in one process than in the other."""
    (first, second), _ = finished("builtin", "TWO", "stopped")
    assert first["history"] == second["history"]
    assert [row["step"] for row in first["history"]["updates"]] == [1, 2, 3, 4, 5, 6]
    assert first["history"]["evals"][-1]["step"] == 6
    # both deal from one pack: two rounds of 32 from 16 prompts, three evaluations, two samples to try the reward function
    counts = [sum(x.startswith(p) for x in first["scored"] + second["scored"]) for p in PROMPTS]
    assert counts == [4 * 4 + 3 + 2, *[4 * 3 + 3] * 4]


@pytest.mark.parametrize("engine", ["builtin", "trlx"])
def test_processes_draw_different_samples(finished, engine):
    """From one prompt."""
    if engine == "trlx":
        need_trlx()
    (first, second), _ = finished(engine, "TWO", "one prompt")
    assert first["history"] == second["history"]
    assert first["history"]["rounds"][0]["distinct"] > 0.6


def test_shares_are_all_rows_once(monkeypatch):
    for count, rows in [(1, 5), (2, 5), (3, 2), (4, 16)]:
        shares = []
        for number in range(count):
            state = SimpleNamespace(process_index=number, num_processes=count)
            monkeypatch.setattr(processes, "state", lambda state=state: state)
            shares += list(range(rows))[processes.shard(rows)]
        assert shares == list(range(rows))


@pytest.fixture
def arguments(tmp_path):
    """The command line's, on a small run."""
    config, prompts = tmp_path / "ppo.yml", tmp_path / "prompts.txt"
    config.write_text(yaml.safe_dump(small_config(tmp_path / "ckpts").to_dict()))
    prompts.write_text("\n".join(PROMPTS * 3))
    given = ["--config", config, "--prompts", prompts, "--reward", TINY / "distilbert-reviews"]
    return ["train", *given, "--out", tmp_path / "tuned"]


@pytest.mark.parametrize("engine", ["builtin", "trlx"])
def test_the_command_line_trains_in_two_processes(cli, arguments, tmp_path, engine):
    if engine == "trlx":
        need_trlx()
    done = cli(*arguments, python=[sys.executable, *TWO], RLHF_ENGINE=engine)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes" in done.stdout
    for said_once in ("Scale tiny", "8 steps in", "The tuned model is in"):
        assert done.stdout.count(said_once) == 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").config.model_type == "gpt2"


def test_an_error_is_said_once(cli, arguments):
    arguments[arguments.index("--prompts") + 1] = "none.txt"
    done = cli(*arguments, python=[sys.executable, *TWO])
    assert done.returncode != 0
    assert done.stderr.count("the prompts in none.txt") == 1


@pytest.mark.parametrize("name, kind", [("two_gpus", "MULTI_GPU"), ("zero2", "FSDP")])
def test_the_configurations_load(name, kind):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (config.distributed_type, config.num_processes) == (kind, 2)


@pytest.mark.parametrize(
    "told, reason",
    [
        (dict(DEEPSPEED="true"), "told to use DEEPSPEED"),
        (dict(MEGATRON_LM="true"), "told to use MEGATRON_LM"),
        (dict(FSDP="true", FSDP_VERSION="1"), "knows version 2"),
        (dict(FSDP="true", FSDP_VERSION="2", FSDP_OFFLOAD_PARAMS="true"), "without offloading"),
        (
            dict(FSDP="true", FSDP_VERSION="2", FSDP_RESHARD_AFTER_FORWARD="true"),
            "fsdp_reshard_after_forward: true would",
        ),
    ],
)
def test_other_ways_to_shard_are_refused(arguments, monkeypatch, capsys, told, reason):
    for name, value in told.items():  # as `accelerate launch` sets it
        monkeypatch.setenv(name if name.startswith("FSDP_") else f"ACCELERATE_USE_{name}", value)
    assert main([*map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert reason in said and "configs/zero2.yaml" in said


def test_accelerate_does_not_see_that_it_was_told_to_shard(monkeypatch):
    told = dict(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2", FSDP_RESHARD_AFTER_FORWARD="false")
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_told_to_shard", False)  # and so it is afterwards
    processes.check_launch()
    assert processes.told_to_shard() and "ACCELERATE_USE_FSDP" not in os.environ


def test_sharded_memory_that_runs_out_ends_the_run_and_says_what_to_set(tmp_path):
    done = launch(tmp_path, ZERO2, {"full": dict(test=dict(full_at=2))})
    assert done.returncode != 0
    assert "CourseError: out of memory with 8 rollouts at a time: set train.minibatch_size=4" in done.stderr


def test_what_takes_all_tensors_at_once_is_refused(tmp_path, monkeypatch):
    done = launch(tmp_path, ZERO2, {"fused": dict(optimizer=dict(kwargs=dict(fused=True)))})
    assert done.returncode != 0 and "has fused=True" in done.stderr
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "precision", lambda: "fp16")
    with pytest.raises(CourseError, match="use bf16, or no"):
        sharding.split(None)


def test_sharding_needs_a_block_that_learns(cli, arguments, tmp_path):
    config = tmp_path / "ppo.yml"
    settings = yaml.safe_load(config.read_text())
    settings["model"]["num_layers_unfrozen"] = 0
    config.write_text(yaml.safe_dump(settings))
    done = cli(*arguments, python=[sys.executable, *ZERO2])
    assert done.returncode != 0
    assert done.stderr.count("there is nothing to split") == 1


def test_what_would_not_train_as_asked_is_refused(cli, arguments, monkeypatch, capsys):
    # what `accelerate launch --cpu --num_processes 2` gives its one process
    done = cli(*arguments, ACCELERATE_USE_CPU="True", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    assert done.returncode == 2
    assert "starts one process" in done.stderr
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # put back afterwards
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert main([*map(str, arguments)]) == 2
    assert "set train.minibatch_size instead" in capsys.readouterr().err
