"""RLHF without a notebook: `python -m helpers train --config FILE --prompts FILE --reward MODEL`."""

import os
import warnings
from pathlib import Path

from helpers import course, files
from helpers.errors import CourseError
from helpers.prompt_files import Prompts, read_prompts
from helpers.rewards import load_reward


def main(
    config: str, prompts: str, reward: str, out: str | None = None, minutes: float | None = None
) -> Path:
    """Fine-tune a model by the configuration's method, and save it.

    Under `accelerate launch` each process trains on its GPU, and the main one writes and prints.

    Args:
        config: a file, a TRLConfig as YAML.
        prompts: a file of prompts, as `helpers.prompt_files.read_prompts` takes it.
        reward: a text classifier, a folder or a name on the hub; P(POSITIVE) of a sample is its reward.
        out: the folder for the tuned model; one among the results, if left out.
        minutes: after so many minutes training ends, with a checkpoint to go on from.
    Returns:
        The folder of the tuned model.
    Raises:
        CourseError: one of these cannot be used, or training fails.
    """
    from helpers.ppo import checkpoint
    from helpers.ppo.parallel import processes

    processes.check_launch()
    os.environ.setdefault("ACCELERATE_USE_CPU", "false")  # a Mac's GPU too: this model may be a large one
    here = course.start()
    from helpers.engine import TRLConfig, train

    if not processes.is_main():
        warnings.simplefilter("ignore")  # the main process gives them

    settings = TRLConfig.load_yaml(files.expand(config))
    folder = files.expand(out) if out else here.out / "train" / "model"
    processes.on_main(lambda: checkpoint.check_model_folder(folder, settings.model.model_path))
    texts, held_out = split_prompts(prompts)
    judge = load_reward(reward, processes.device())
    trainer = train(reward_fn=judge, prompts=texts, eval_prompts=held_out, config=settings, minutes=minutes)
    trainer.save_pretrained(folder)
    if processes.is_main():
        print(f"The tuned model is in {here.show_path(folder)}.")
    return folder


def split_prompts(path: str | Path) -> tuple[Prompts, Prompts]:
    """(prompts to train on, prompts held out) of a file; its last tenth is held out, 64 at most and one at least.

    Raises:
        CourseError: the file cannot be read, or has fewer than two prompts.
    """
    texts = read_prompts(path)
    held_out = min(64, max(1, len(texts) // 10))
    if len(texts) <= held_out:
        raise CourseError(
            f"{path} has {len(texts)} prompt: at least 2 are needed, one of them to evaluate on"
        )
    return texts[:-held_out], texts[-held_out:]
