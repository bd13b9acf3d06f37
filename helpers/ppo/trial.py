"""What is tried before the first step, because it would fail at the end: saving, and the engine's own ways round the model."""

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from helpers import weights
from helpers.errors import CourseError
from helpers.ppo import checkpoint, loss
from helpers.ppo.parallel import processes
from helpers.ppo.rollout import Rollouts
from helpers.ppo.sampling import temperature_of

if TYPE_CHECKING:
    from helpers.ppo.run import Run

TRIAL = ".checkpoint-on-trial"
MOST = 1e-3  # nats a token; fourteen architectures stayed within 1e-5
MOST_IN_HALF = 0.2  # where float32 begins at the output layer


def try_saving(run: "Run", folder: Path) -> None:
    """Write a real checkpoint into `folder`, read it and its model back, and remove it.

    A run that could not be saved is found out before any time is spent on it. A folder that was not there stays away.

    Raises:
        CourseError: something in the checkpoint cannot be written, or what was written cannot be read.
    """
    missing = [place for place in [folder, *folder.parents] if not place.exists()]
    trial = folder / TRIAL
    try:
        checkpoint.save(run, trial)
        processes.on_main(lambda: read_back(run, trial))
    finally:
        processes.on_main(lambda: remove_trial(trial, missing))


def remove_trial(trial: Path, made: list[Path]) -> None:
    """Remove the trial's checkpoint, and the folders that were made for it where nothing else is in them."""
    shutil.rmtree(trial, ignore_errors=True)
    with contextlib.suppress(OSError):
        for place in made:
            place.rmdir()


def read_back(run: "Run", folder: Path) -> None:
    """Read a checkpoint and its model as a later run would, without changing the run.

    Raises:
        CourseError: they cannot be read whole.
    """
    checkpoint.read(run, folder)
    model = folder / "hf_model"
    weights.refuse_unreadable(type(run.policy.reference), model, "the saved model")
    weights.load_tokenizer(model, "the saved tokenizer")


@torch.no_grad()
def refuse_other_logprobs(run: "Run", rollouts: Rollouts) -> None:
    """Check the log-probabilities of rollouts against those from the model's own forward pass, one text at a time.

    The engine calls blocks and output layer by itself, without padding's place and with a cache. Some models do more: they cap
    or scale their logits.

    Raises:
        CourseError: they differ; it names the settings of the model that may be why.
    """
    model, temperature = run.policy.base_model, temperature_of(run.sampler.gen_kwargs)
    farthest = 0.0
    for row in range(len(rollouts)):
        query = rollouts.query[row][rollouts.query_mask[row].bool()]
        response = rollouts.response[row][rollouts.mask[row].bool()]
        with run.autocast():
            logits = model(input_ids=torch.cat([query, response])[None]).logits[:, len(query) - 1 : -1]
        own = loss.token_logprobs(loss.log_distribution(logits, temperature), response[None])[0]
        farthest = max(farthest, (own - rollouts.logprobs[row, : len(own)]).abs().max().item())
    half = any(p.dtype != torch.float32 for p in run.policy.parameters()) or torch.is_autocast_enabled()
    if not farthest <= (MOST_IN_HALF if half else MOST):
        named = {key: value for key, value in model.config.to_dict().items() if "logit" in key and value}
        words = (
            f" Its configuration has {', '.join(f'{k}={v!r:.20}' for k, v in named.items())}."
            if named
            else ""
        )
        raise CourseError(
            f"the log-probabilities of a {type(model).__name__} are {farthest:.2g} nats a token from those that the model itself "
            f"gives, so PPO would learn another model than this one.{words} Use a model of the GPT-2 or Llama kind."
        )
