"""Through the course's own doors: what a reader has in a folder stays, and what is damaged is told and kept."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from ppo_run import MODEL, PROMPTS, count_the, small_config, small_run
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from helpers.__main__ import main
from helpers.errors import CourseError
from helpers.files import NEW
from helpers.ppo import checkpoint
from helpers.ppo.load import load_policy
from helpers.ppo.lora import plain_weights
from helpers.tiny import TINY

FOREIGN = {"chapter1.tex": "mine", ".git/HEAD": "ref: refs/heads/main", "data/notes.txt": "mine"}


def put(folder: Path, files=FOREIGN) -> dict[str, str]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return files


def still_there(folder: Path, files=FOREIGN) -> bool:
    return all((folder / name).read_text() == text for name, text in files.items())


def weights(folder) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Counted:
    """A reward function that counts its calls, the first of which is the trial before the run."""

    def __init__(self):
        self.calls = 0

    def __call__(self, samples, **kwargs):
        self.calls += 1
        return count_the(samples)


@pytest.fixture(scope="module")
def trained(engine, tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("run"))


# Folders


def test_a_model_is_saved_beside_a_thesis(trained, tmp_path):
    folder = tmp_path / "thesis"
    put(folder)
    for _ in range(2):
        assert trained.save_pretrained(folder) == folder
        assert still_there(folder) and same(weights(folder), plain_weights(trained.policy))


def test_an_earlier_model_is_replaced_and_its_neighbours_stay(trained, tmp_path):
    shutil.copytree(MODEL, tmp_path / "model")
    put(tmp_path / "model")
    trained.save_pretrained(tmp_path / "model")
    assert still_there(tmp_path / "model")
    assert same(weights(tmp_path / "model"), plain_weights(trained.policy))


def test_a_file_of_the_same_name_that_is_no_models_stays(trained, tmp_path):
    """A reader's own config.json, a web project's for instance."""
    mine = put(tmp_path / "site", {"config.json": '{"port": 80}', "index.html": "mine"})
    with pytest.raises(CourseError, match="config.json would be replaced, and .* holds no model"):
        trained.save_pretrained(tmp_path / "site")
    assert still_there(tmp_path / "site", mine) and len(list((tmp_path / "site").iterdir())) == 2


def test_the_model_a_run_starts_from_is_not_replaced(engine, tmp_path):
    start = shutil.copytree(MODEL, tmp_path / "start")
    trainer = small_run(
        tmp_path / "run", changes={"model": {"model_path": str(start)}, "train": {"total_steps": 4}}
    )
    with pytest.raises(CourseError, match="is the model this run starts from"):
        trainer.save_pretrained(start)
    assert same(weights(start), weights(MODEL))


def test_the_best_models_folder_keeps_what_else_is_there(engine, tmp_path):
    folder = tmp_path / "best_checkpoint" / "hf_model"
    put(folder)
    trainer = small_run(tmp_path, changes={"train": {"save_best": True, "eval_interval": 1}})
    if max(row["reward/mean"] for row in trainer.history.evals[1:]) > trainer.history.evals[0]["reward/mean"]:
        assert (folder / "model.safetensors").exists()
    assert still_there(folder)


def folders_in_the_way(tmp_path: Path) -> list[tuple[Path, str]]:
    (tmp_path / "file").write_text("mine")
    put(tmp_path / "blocked" / "checkpoint_8" / "state.json", {"mine": "mine"})
    put(tmp_path / "other" / "checkpoint_8", {"state.json": '{"my": "game"}'})
    put(tmp_path / "site" / "best_checkpoint" / "hf_model", {"config.json": '{"port": 80}'})
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoint_8").symlink_to(tmp_path / "elsewhere")
    return [
        (tmp_path / "file", "is no folder"),
        (tmp_path / "blocked", "state.json is in the way"),
        (tmp_path / "other", "is no checkpoint"),
        (tmp_path / "site", "config.json would be replaced"),
        (tmp_path / "linked", "is a link to"),
    ]


@pytest.mark.parametrize("kind", range(5))
def test_a_checkpoint_dir_that_cannot_take_the_run_is_refused_before_it(engine, tmp_path, kind):
    folder, message = folders_in_the_way(tmp_path)[kind]
    reward = Counted()
    with pytest.raises(CourseError, match=message):
        small_run(folder, reward_fn=reward, changes={"train": {"save_best": True}})
    assert reward.calls == 0


def test_train_refuses_a_folder_before_it_trains(tmp_path, monkeypatch, capsys):
    """By the command's arguments: the first thing that is said is the folder, and nothing was trained."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # put back afterwards
    monkeypatch.chdir(tmp_path)
    config = small_config(tmp_path / "run").evolve(optimizer=dict(kwargs=dict(betas=[0.9, 0.95])))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    mine = put(tmp_path / "site", {"config.json": '{"port": 80}'})
    (tmp_path / "file").write_text("mine")
    train = ["train", "--config", "run.yaml", "--prompts", "prompts.txt"]
    train += ["--reward", str(TINY / "distilbert-reviews")]
    for out, message in [
        ("site", "config.json would be replaced"),
        ("file", "is no folder"),
        (".", "you are in"),
    ]:
        assert main([*train, "--out", out]) == 2
        said = capsys.readouterr()
        assert message in said.err and "step" not in said.out and not (tmp_path / "run").exists()
    assert still_there(tmp_path / "site", mine)
    put(tmp_path / "thesis")
    assert main([*train, "--out", "thesis"]) == 0 and still_there(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "model.safetensors").exists()


def test_a_save_that_was_killed_is_finished_by_whoever_loads_the_model(tmp_path):
    """As a kill between two renames leaves it: the new files wait inside the folder, of a model or of its checkpoint."""
    trained = small_run(tmp_path / "run", changes={"train": {"total_steps": 4}})
    for folder, waiting in [("model", "model"), ("checkpoint_9/hf_model", "checkpoint_9")]:
        shutil.copytree(MODEL, tmp_path / folder)
        inside = Path(folder).relative_to(waiting)
        trained.save_pretrained(tmp_path / "fresh")
        shutil.copytree(tmp_path / "fresh", tmp_path / waiting / NEW / inside)
        policy = load_policy(small_config(tmp_path, model=dict(model_path=str(tmp_path / folder))))
        assert (
            same(plain_weights(policy), plain_weights(trained.policy))
            and not (tmp_path / waiting / NEW).exists()
        )


# Damaged checkpoints


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    small_run(folder, changes={"train": {"total_steps": 4}})
    return folder


DAMAGE = {
    "an empty object": ("state.json", b"{}"),
    "a list": ("state.json", b"[1]"),
    "null": ("state.json", b"null"),
    "nothing": ("state.json", b""),
    "Latin-1": ("state.json", '{"engine": "é"}'.encode("latin-1")),
    "too deep": ("state.json", b"[" * 100_000),
    "tensors cut short": ("state.safetensors", 1000),
    "no tensors": ("state.safetensors", b""),
    "other bytes": ("state.safetensors", b"\x80\x04]." * 1000),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_told_in_a_sentence(run_folder, tmp_path, name):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    file, damage = DAMAGE[name]
    path = folder / "checkpoint_4" / file
    path.write_bytes(path.read_bytes()[:damage] if isinstance(damage, int) else damage)
    before = path.read_bytes()
    with pytest.raises(
        CourseError, match="checkpoint_4 is damaged, or no checkpoint of this engine"
    ) as error:
        small_run(tmp_path / "new", changes={"train": {"resume_from_checkpoint": str(folder)}})
    assert len(str(error.value)) < 600 and path.read_bytes() == before


@pytest.mark.parametrize(
    "part, value",
    [
        ("config", {}),
        ("config", {"method": 1}),
        ("random", {}),
        ("scheduler", {"last_epoch": "x", "_step_count": None}),
        ("progress", {"step": "four"}),
        ("optimizer_groups", [1]),
    ],
)
def test_a_checkpoint_with_a_part_that_is_none(run_folder, tmp_path, part, value):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    path = folder / "checkpoint_4" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: value}))
    with pytest.raises(CourseError, match="checkpoint_4 is damaged"):
        small_run(tmp_path / "new", changes={"train": {"resume_from_checkpoint": str(folder)}})


def other_tensors(tensors: dict) -> dict[str, tuple[dict, str]]:
    """Tensors that are not this model's, and what the message says of them."""
    bias = next(name for name in tensors if name.startswith("policy.") and name.endswith("bias"))
    without = {name: value for name, value in tensors.items() if name != bias}
    state = next(name for name in tensors if name.startswith("optimizer.") and tensors[name].dim() == 1)
    return {
        "missing": (without, f"{bias} is missing"),
        "of one number, to be spread": (tensors | {bias: torch.ones(1)}, f"{bias} is \\(1,\\)"),
        "of another type": (tensors | {bias: tensors[bias].to(torch.float64)}, "float64"),
        "too many": (tensors | {"policy.more": torch.ones(1)}, "policy.more is not one of this model's"),
        "Adam's of another shape": (tensors | {state: torch.ones(3)}, f"{state} fits none"),
        "Adam's of no weight": (tensors | {"optimizer.999.exp_avg": torch.ones(3)}, "optimizer.999"),
    }


@pytest.mark.parametrize("kind", range(6))
def test_a_checkpoint_with_other_tensors(run_folder, tmp_path, kind):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    path = folder / "checkpoint_4" / "state.safetensors"
    tensors, message = list(other_tensors(load_file(path)).values())[kind]
    save_file(tensors, path)
    with pytest.raises(CourseError, match=message):
        small_run(tmp_path / "new", changes={"train": {"resume_from_checkpoint": str(folder)}})


def test_folders_that_only_look_like_checkpoints_are_passed_over(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    for name in ("checkpoint_4 - Copy", "checkpoint_old", "checkpoint_99x"):
        shutil.copytree(folder / "checkpoint_4", folder / name)
    assert checkpoint.newest(folder).name == "checkpoint_4"
    assert checkpoint.newest(folder / "checkpoint_4").name == "checkpoint_4"
    assert checkpoint.newest(tmp_path / "none") is None


# Listeners


class Failing:
    """Fails at one of the three events."""

    def __init__(self, event):
        for name in ("start", "progress", "end"):
            setattr(self, name, self.fail if name == event else lambda trainer: None)

    def fail(self, trainer):
        raise OSError("the pipe is closed")


@pytest.mark.parametrize("event", ["start", "progress", "end"])
def test_a_listener_that_fails_does_not_end_a_run(engine, tmp_path, event):
    heard = []

    class Listening:
        def start(self, trainer): ...

        def progress(self, trainer):
            heard.append(trainer.step)

        def end(self, trainer): ...

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer = small_run(
            tmp_path, listeners=[Failing(event), Listening()], changes={"train": {"total_steps": 4}}
        )
    assert trainer.step == 4 and heard[-1] == 4 and (tmp_path / "checkpoint_4").is_dir()
    assert (
        sum("Failing failed (OSError: the pipe is closed)" in str(warning.message) for warning in said) == 1
    )
