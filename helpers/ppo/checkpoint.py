"""Checkpoints: a run goes on from one exactly, to the bit. Each is whole or not there, and nothing in it is unpickled.

A checkpoint holds what changes in a run: the trained weights, the optimizer, the order of the prompts, the random states
and the history. The run reads the frozen weights again from the model it started from. `state.safetensors` has the tensors,
`state.json` the rest; `hf_model/` is the policy as transformers loads it.
"""

import copy
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from helpers import files
from helpers.errors import CourseError
from helpers.ppo import identity
from helpers.ppo.parallel import processes, sharding

if TYPE_CHECKING:
    from helpers.ppo.run import Run

NAME = re.compile(r"checkpoint_(\d+)")
STATE_FILES = ("state.safetensors", "state.json")
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
PARTS = {
    "engine": str,
    "config": dict,
    "optimizer_groups": list,
    "scheduler": dict,
    "random": dict,
    "progress": dict,
}


def write_folder(folder: str | Path, write: Callable[[Path], None]) -> Path:
    """Write a folder by `files.write_folder`, in the main process alone.

    Raises:
        CourseError: the folder cannot be written; it is then as it was.
    """
    return processes.on_main(lambda: files.write_folder(folder, write))


def check_checkpoint_folder(folder: Path) -> None:
    """Check that a checkpoint can be written to a folder, and replaces nothing but another checkpoint.

    Raises:
        CourseError: it says what is in the way.
    """
    files.check_folder(folder, [*STATE_FILES, *(f"hf_model/{name}" for name in MODEL_FILES)])
    there = [name for name in STATE_FILES if (folder / name).exists()]
    if there and (len(there) == 1 or is_foreign(folder / "state.json")):
        raise CourseError(
            f"{folder / there[0]} would be replaced, and {folder} is no checkpoint: move the folder away, or choose another "
            "train.checkpoint_dir."
        )


def is_foreign(path: Path) -> bool:
    """Whether a state.json can be read and is no checkpoint's. A damaged one counts as a checkpoint's."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(state, dict) or not PARTS.keys() & state.keys()


def check_model_folder(folder: Path, started_from: str = "") -> None:
    """Check that a model can be saved to a folder, and replaces nothing but another model.

    It may not replace the model at `started_from`, which a resumed run reads again.

    Raises:
        CourseError: it says what is in the way.
    """
    files.check_folder(folder, MODEL_FILES)
    if not folder.is_dir():
        return
    if Path(started_from).is_dir() and folder.samefile(started_from):
        raise CourseError(
            f"{folder} is the model this run starts from, which a resumed run reads again: save to another folder."
        )
    there = [name for name in MODEL_FILES if (folder / name).exists()]
    if there and not is_model_config(folder / "config.json"):
        raise CourseError(
            f"{folder / there[0]} would be replaced, and {folder} holds no model: choose another folder, or move that file."
        )
    if (folder / "adapter_config.json").exists():
        raise CourseError(
            f"{folder} holds an adapter (adapter_config.json), which transformers would load on top of what is saved there: "
            "choose another folder."
        )


def is_model_config(path: Path) -> bool:
    """Whether this file is a model's configuration as transformers writes it."""
    return "model_type" in (identity.read_table(path) or {})


@dataclass
class State:
    """All that a run needs to go on, apart from the frozen weights: on the CPU, and no longer changed by the run."""

    tensors: dict[str, torch.Tensor]  # the weights that learn, the optimizer's memory, torch's random states
    rest: dict  # what JSON can hold: PARTS, and which run this is


def state_of(trainer: "Run") -> State:
    """The trainer's state as it is now. All processes call this, and the main one gets the optimizer's tensors."""
    tensors = {f"policy.{name}": p.detach().cpu().clone() for name, p in trainer.policy.trainable().items()}
    optimizer = trainer.optimizer.state_dict()
    for index, state in optimizer["state"].items():
        for key, value in state.items():
            if value is not None:
                value = sharding.whole(value)
                if processes.is_main():  # the others have no use for all of them
                    tensors[f"optimizer.{index}.{key}"] = value.cpu().clone()
    tensors |= {f"random.{name}": value for name, value in torch_random_states().items()}
    rest = {
        "engine": trainer.engine,
        "config": trainer.config.to_dict(),
        "run": trainer.identity,
        "optimizer_groups": copy.deepcopy(optimizer["param_groups"]),
        "scheduler": copy.deepcopy(trainer.scheduler.state_dict()),
        "random": python_random_states(),
        "progress": trainer.progress(),
    }
    return State(tensors, rest)


def save(trainer: "Run", folder: Path) -> Path:
    """Write the trainer's whole state to `folder`. All processes call this, and the main one writes.

    Raises:
        CourseError: the folder cannot take it, or the disk is full.
    """
    return write(trainer, state_of(trainer), folder)


def write(trainer: "Run", state: State, folder: Path, alone: bool = False) -> Path:
    """Write a state that the trainer is in to `folder`, with its model. As `save` otherwise; `alone`, only this process calls it."""

    def fill(place: Path) -> None:
        save_file({name: t.contiguous() for name, t in state.tensors.items()}, place / "state.safetensors")
        (place / "state.json").write_text(json.dumps(state.rest), encoding="utf-8")
        trainer.write_model(place / "hf_model")

    def check_and_write() -> Path:
        check_checkpoint_folder(folder)
        return files.write_folder(folder, fill)

    return check_and_write() if alone else processes.on_main(check_and_write)


def load(trainer: "Run", folder: Path) -> None:
    """Put the trainer into the state that `folder` holds.

    Raises:
        CourseError: the checkpoint is damaged, or another engine, configuration, model or prompts made it.
    """
    state = read(trainer, folder)
    try:
        put(trainer, state)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise damaged(folder, error) from error


def read(trainer: "Run", folder: Path) -> State:
    """The state that `folder` holds, which this trainer can go on from.

    Raises:
        CourseError: as `load`.
    """
    tensors, rest = read_state(folder)
    if rest["engine"] != trainer.engine:
        raise CourseError(
            f"{folder} was made by the engine {rest['engine']}, this run uses {trainer.engine}. Set RLHF_ENGINE to go on "
            "with the other, or start anew with another checkpoint_dir and resume_from_checkpoint=None."
        )
    refuse_other_config(rest["config"], trainer.config.to_dict(), folder)
    identity.refuse_other(rest.get("run"), trainer.identity, folder)
    refuse_other_tensors(tensors, trainer.policy.trainable(), folder)
    for part, now in [("scheduler", trainer.scheduler), ("optimizer_groups", trainer.optimizer)]:
        current = now.state_dict() if part == "scheduler" else now.state_dict()["param_groups"]
        if not alike(rest[part], current):
            raise damaged(folder, f"{part} in state.json is of another kind")
    return State(tensors, rest)


def put(trainer: "Run", state: State) -> None:
    """Put the trainer into this state, which fits it."""
    tensors, rest = state.tensors, state.rest
    with sharding.in_shards(trainer.blocks):
        learning = trainer.policy.trainable()
        for name, parameter in learning.items():
            parameter.data.copy_(sharding.like(tensors[f"policy.{name}"], parameter))
        parameters = list(learning.values())
        optimizer_state: dict = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                index = int(index)
                optimizer_state.setdefault(index, {})[key] = sharding.like(value, parameters[index])
        trainer.optimizer.load_state_dict(
            {"state": optimizer_state, "param_groups": rest["optimizer_groups"]}
        )
    trainer.scheduler.load_state_dict(rest["scheduler"])
    trainer.identity = rest.get("run") or trainer.identity
    trainer.restore(rest["progress"])
    set_random_states(rest["random"], {n[7:]: t for n, t in tensors.items() if n.startswith("random.")})


def read_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors of a checkpoint, and what its state.json holds.

    Raises:
        CourseError: it is damaged, or no checkpoint of ours.
    """
    files.settle(folder)
    try:
        tensors = load_file(folder / "state.safetensors")
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise damaged(folder, error) from error
    for part, kind in PARTS.items():
        if not isinstance(state, dict) or not isinstance(state.get(part), kind):
            raise damaged(folder, f"state.json lacks {part!r}")
    return tensors, state


def damaged(folder: Path, why: Exception | str) -> CourseError:
    """The error for a checkpoint that cannot be read."""
    why = files.reason(why) if isinstance(why, Exception) else why
    return CourseError(
        f"{folder} is damaged, or no checkpoint of this engine ({why}). Move it away to go on from the one before, "
        "or set train.resume_from_checkpoint to None to start anew."
    )


def alike(saved: Any, current: Any) -> bool:
    """Whether a value from JSON is of the same kind as torch's now. Versions of torch differ in keys: those of one alone pass."""
    if isinstance(current, dict):
        return isinstance(saved, dict) and all(alike(saved[k], v) for k, v in current.items() if k in saved)
    if isinstance(current, (list, tuple)):
        return isinstance(saved, list) and len(saved) == len(current) and all(map(alike, saved, current))
    if isinstance(current, (int, float)):
        return isinstance(saved, (int, float))
    if current is None:  # not set yet; sharding.py sets `foreach` at the first step
        return saved is None or isinstance(saved, (bool, int, float))
    return saved is None or type(saved) is type(current)


def refuse_other_tensors(
    tensors: dict[str, torch.Tensor], learning: dict[str, torch.nn.Parameter], folder: Path
) -> None:
    """Check that a checkpoint holds each weight that learns, in its shape and type, which torch would change without a word.

    Raises:
        CourseError: it names the first weight that is missing, not known, or of another shape or type.
    """
    names = {f"policy.{name}": parameter for name, parameter in learning.items()}
    saved = {name for name in tensors if name.startswith("policy.")}
    wrong = [f"{name} is missing" for name in names if name not in saved]
    wrong += [f"{name} is not one of this model's" for name in sorted(saved) if name not in names]
    for name in names:
        if name in saved:
            found, wanted = tensors[name], names[name]
            if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
                wrong.append(
                    f"{name} is {tuple(found.shape)} of {found.dtype}, expected {tuple(wanted.shape)} of {wanted.dtype}"
                )
    for name in (name for name in tensors if name.startswith("optimizer.")):
        index = name.split(".")[1]
        fits = index.isdecimal() and int(index) < len(names)
        shape = list(names.values())[int(index)].shape if fits else None
        # Adam's count of steps is one number; its two memories have the weight's shape
        if not fits or (tensors[name].dim() > 0 and tensors[name].shape != shape):
            wrong.append(f"{name} fits none of this model's weights")
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise damaged(folder, f"{wrong[0]}{more}")


def newest(folder: Path) -> Path | None:
    """`folder` itself if it is a checkpoint, else the newest checkpoint in it of the run that began last; None without one.

    Raises:
        CourseError: it is a file, or holds a model and no checkpoint.
    """
    if folder.is_file():
        raise CourseError(
            f"{folder} is a file: expected a checkpoint's folder, or the folder that checkpoints are in"
        )
    if not folder.is_dir():
        return None
    files.settle(folder)
    if (folder / "state.json").exists():
        return folder
    inside = whole_in(folder)
    if not inside and any(is_model_config(place / "config.json") for place in (folder, folder / "hf_model")):
        raise CourseError(
            f"{folder} holds a model and no checkpoint, from which a run cannot go on. To train that model further, make it "
            "model.model_path and set train.resume_from_checkpoint to None."
        )
    return max(identity.of_newest_run(folder, inside), key=steps_of, default=None)


def whole_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whichever run they are of."""
    named = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
    for path in named:
        files.settle(path)
    return sorted((path for path in named if (path / "state.json").exists()), key=steps_of)


def of_other_runs(folder: Path) -> list[str]:
    """The names of the checkpoints in a folder that `newest` leaves alone, because they are of earlier runs."""
    inside = [] if (folder / "state.json").exists() else whole_in(folder)
    own = identity.of_newest_run(folder, inside)
    return [path.name for path in inside if path not in own]


def steps_of(path: Path) -> int:
    """The steps that the name of a checkpoint's folder tells."""
    return int(NAME.fullmatch(path.name)[1])


MAY_DIFFER = {"total_steps", "epochs", "eval_interval", "checkpoint_interval", "checkpoint_dir", "save_best"}
MAY_DIFFER |= {"resume_from_checkpoint", "run_name", "tracker", "tags", "project_name", "group_name"}
# minibatch_size is what to lower where memory has run out; chunk_size would change the random numbers
MAY_DIFFER |= {"entity_name", "logging_dir", "minibatch_size"}


def refuse_other_config(saved: dict, current: dict, folder: Path) -> None:
    """Check that a checkpoint's configuration is this run's, but for what MAY_DIFFER.

    Raises:
        CourseError: it names the fields that differ.
    """
    current = json.loads(json.dumps(current))
    if not all(isinstance(saved.get(section), dict) for section in current):
        raise damaged(folder, "state.json holds no whole configuration")
    differing = [
        f"{section}.{key} (was {saved[section].get(key)!r:.80}, is {current[section].get(key)!r:.80})"
        for section in current
        for key in saved[section] | current[section]
        if key not in MAY_DIFFER and saved[section].get(key) != current[section].get(key)
    ]
    if differing:
        raise CourseError(
            f"{folder} was made with another configuration: {'; '.join(differing)}. Use the same one to go on, "
            "or start anew with another checkpoint_dir and resume_from_checkpoint=None."
        )


def torch_random_states() -> dict[str, torch.Tensor]:
    """The states of torch's random numbers, on the CPU and on the GPU."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def python_random_states() -> dict:
    """The states of Python's and numpy's random numbers, as JSON can hold them."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    numpy_state = [name, keys.tolist(), position, has_gauss, cached]
    return {"python": [version, list(words), gauss], "numpy": numpy_state}


def set_random_states(python: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Set all random states to what `python_random_states` and `torch_random_states` gave."""
    version, words, gauss = python["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = python["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
