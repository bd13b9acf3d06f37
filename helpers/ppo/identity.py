"""Which run a checkpoint belongs to: a run goes on from its own checkpoints, whatever else lies in the folder."""

import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from helpers import files
from helpers.errors import CourseError

NEWEST = "newest_run.json"  # beside the checkpoints: the run that began last
DAMAGED = "damaged"

WHAT = {
    "start": "the model it started from has other weights than model.model_path has now",
    "prompts": "the prompts are others",
    "eval_prompts": "the eval_prompts are others",
}


def identity_of(start: str, prompts: Any, eval_prompts: Any) -> dict[str, str]:
    """What tells a new run from others: a name of its own, and digests of its first weights and of its `PromptSet`s."""
    return {
        "id": secrets.token_hex(8),
        "start": start,
        "prompts": digest_of_prompts(prompts),
        "eval_prompts": digest_of_prompts(eval_prompts),
    }


def digest_of_weights(model: PreTrainedModel) -> str:
    """A digest of a model's weights, which are the same for it on every machine."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def digest_of_prompts(prompts: Any) -> str:
    """A digest of a `PromptSet`'s texts and of their extra keys."""
    whole = [prompts.texts, prompts.metadata]
    text = json.dumps(whole, sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def refuse_other(saved: dict | None, current: dict, folder: Path) -> None:
    """Check that a checkpoint began with this run's weights and prompts. One that does not say so is let through.

    Raises:
        CourseError: it names what differs.
    """
    differing = [words for key, words in WHAT.items() if saved and saved.get(key) != current[key]]
    if differing:
        raise CourseError(
            f"{folder} is of another run: {', and '.join(differing)}. Give the same to go on, or start anew with another "
            "checkpoint_dir and resume_from_checkpoint=None."
        )


def mark_newest(folder: Path, run: str) -> None:
    """Write into the folder of checkpoints which run began last.

    Raises:
        CourseError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / NEWEST, json.dumps({"run": run}))


def check_mark(folder: Path) -> None:
    """Check that `mark_newest` replaces nothing but its own file.

    Raises:
        CourseError: a file of that name is something else.
    """
    path = folder / NEWEST
    if path.exists() and "run" not in (read_table(path) or {}):
        raise CourseError(
            f"{path} would be replaced, and the course did not write it: choose another train.checkpoint_dir."
        )


def of_newest_run(folder: Path, checkpoints: list[Path]) -> list[Path]:
    """Those of the checkpoints in `folder` that are of the run that began last, as far as one can tell.

    A damaged one is among them: whoever reads it says so.
    """
    runs = {path: run_of(path / "state.json") for path in checkpoints}
    marked = (read_table(folder / NEWEST) or {}).get("run")
    if marked is None:  # copied without the mark, or from before there was one
        latest = max(checkpoints, key=lambda path: (path / "state.json").stat().st_mtime_ns, default=None)
        marked = runs.get(latest)
    return [path for path, run in runs.items() if run in (marked, DAMAGED)]


def run_of(path: Path) -> str | None:
    """The id of the run whose state this is; None for one from before there were ids, DAMAGED for no state at all."""
    state = read_table(path) or {}
    if "progress" not in state:
        return DAMAGED
    run = state.get("run")
    return run.get("id") if isinstance(run, dict) else None


def read_table(path: Path) -> dict | None:
    """The table in a file of JSON; None where there is none."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None
