"""Checkpoints: whole or not there at all, exact to the bit, and nothing in them is unpickled.

A checkpoint holds what changes in a run: the trained weights, the optimizer, the order of the prompts, the random states
and the history. The frozen weights are read again from the model the run started from. Tensors are in `state.safetensors`,
the rest in `state.json`; `hf_model/` is the policy as transformers loads it.
"""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from helpers.errors import CourseError
from helpers.ppo.parallel import processes, sharding


def write_folder(folder: Path, write) -> Path:
    """Make `folder` by `write(temporary folder)`: it appears whole or not at all. Of several processes the main one writes.

    Raises:
        CourseError: the disk is full or cannot be written; what was there before is still there.
    """
    return processes.on_main(lambda: write_whole(Path(folder), write))


def write_whole(folder: Path, write) -> Path:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        for path in temporary.rglob("*"):
            sync(path)
        if folder.exists():
            replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            os.replace(folder, replaced)
            os.replace(temporary, folder)
            shutil.rmtree(replaced)
        else:
            os.replace(temporary, folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        raise CourseError(
            f"could not write {folder}: {error}. Is the disk full? Free some space or choose another folder, "
            "then save again: the model is still in memory."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def sync(path: Path) -> None:
    """Have the disk keep what was written; Windows cannot do so for folders, and needs not."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_disk(folder: str, needed_bytes: int) -> None:
    """Refuse before training what could not be saved after it."""
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise CourseError(
            f"saving to {folder} needs about {needed_bytes / 1e6:.0f} MB and {free / 1e6:.0f} MB are free. "
            "Free some space, or set train.checkpoint_dir to another disk."
        )


def save(trainer, folder: Path) -> Path:
    """Write the trainer's whole state to `folder`."""

    tensors = {f"policy.{name}": p.detach() for name, p in trainer.policy.trainable().items()}
    optimizer = trainer.optimizer.state_dict()
    for index, state in optimizer["state"].items():
        for key, value in state.items():
            if value is not None:
                value = sharding.whole(value)
                if processes.is_main():  # the others have no use for all of them
                    tensors[f"optimizer.{index}.{key}"] = value.cpu()
    tensors |= {f"random.{name}": value for name, value in torch_random_states().items()}

    def write(place: Path) -> None:
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, place / "state.safetensors")
        state = {
            "engine": trainer.engine,
            "config": trainer.config.to_dict(),
            "optimizer_groups": optimizer["param_groups"],
            "scheduler": trainer.scheduler.state_dict(),
            "random": python_random_states(),
            "progress": trainer.progress(),
        }
        (place / "state.json").write_text(json.dumps(state))
        trainer.write_model(place / "hf_model")

    return write_folder(folder, write)


def load(trainer, folder: Path) -> None:
    """Put the trainer where `folder` left off.

    Raises:
        CourseError: the checkpoint is damaged, or was made with another configuration.
    """
    try:
        tensors = load_file(folder / "state.safetensors")
        state = json.loads((folder / "state.json").read_text())
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CourseError(
            f"{folder} is damaged, or no checkpoint of this engine ({error}). Remove it to go on from the one before, "
            "or set train.resume_from_checkpoint to None to start anew."
        ) from error
    if state["engine"] != trainer.engine:
        raise CourseError(
            f"{folder} was made by the engine {state['engine']}, this run uses {trainer.engine}. Set RLHF_ENGINE to go on "
            "with the other, or start anew with another checkpoint_dir and resume_from_checkpoint=None."
        )
    refuse_other_config(state["config"], trainer.config.to_dict(), folder)
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
            {"state": optimizer_state, "param_groups": state["optimizer_groups"]}
        )
    trainer.scheduler.load_state_dict(state["scheduler"])
    trainer.restore(state["progress"])
    set_random_states(state["random"], {n[7:]: t for n, t in tensors.items() if n.startswith("random.")})


def newest(folder: Path) -> Path | None:
    """`folder` where it is a checkpoint, else the one with the most steps inside it; None where there is none."""
    if (folder / "state.json").exists():
        return folder
    inside = [path for path in folder.glob("checkpoint_*") if (path / "state.json").exists()]
    return max(inside, key=lambda path: int(path.name.split("_")[1]), default=None)


MAY_DIFFER = {"total_steps", "epochs", "eval_interval", "checkpoint_interval", "checkpoint_dir", "save_best"}
MAY_DIFFER |= {
    "resume_from_checkpoint",
    "run_name",
    "tracker",
    "tags",
    "project_name",
    "group_name",
    "entity_name",
}


def refuse_other_config(saved: dict, current: dict, folder: Path) -> None:
    current = json.loads(json.dumps(current))
    differing = [
        f"{section}.{key} (was {saved[section].get(key)!r}, is {current[section][key]!r})"
        for section in current
        for key in current[section]
        if key not in MAY_DIFFER and saved[section].get(key) != current[section][key]
    ]
    if differing:
        raise CourseError(
            f"{folder} was made with another configuration: {'; '.join(differing)}. Use the same one to go on, "
            "or start anew with another checkpoint_dir and resume_from_checkpoint=None."
        )


def torch_random_states() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def python_random_states() -> dict:
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    numpy_state = [name, keys.tolist(), position, has_gauss, cached]
    return {"python": [version, list(words), gauss], "numpy": numpy_state}


def set_random_states(python: dict, tensors: dict[str, torch.Tensor]) -> None:
    version, words, gauss = python["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = python["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
