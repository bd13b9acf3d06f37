"""RLHF without a notebook: `python -m helpers train --prompts PROMPTS --reward REWARD`."""

import os
import re
import shlex
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import config_cli, course, files
from helpers.ppo.config import TRLConfig
from helpers.prompt_files import Prompts

if TYPE_CHECKING:
    from pandas import DataFrame

    from helpers.course import Course
    from helpers.ppo.run import Run
    from helpers.project.rewards import Reward

SAMPLES = 4
"""Of each held-out prompt, for the report and the card."""


def main(
    config: str | None,
    prompts: str,
    reward: str | list[str],
    out: str | None = None,
    minutes: float | None = None,
    model: str | None = None,
    resume: bool = False,
    words: int | None = None,
) -> Path:
    """Fine-tune a model by the configuration's method, and save it with its card and a report.

    One round on trial comes first, but not where a run goes on from a checkpoint: what it says of prompts, rewards and time is of
    the model before training. Under `accelerate launch` each process trains on its GPU, and the main one writes and prints.

    Args:
        config: a file, a TRLConfig as YAML; if left out, `default_config`.
        prompts: as `helpers.project.prompts.prompts_from` takes it.
        reward: as `helpers.project.rewards.reward_from` takes it.
        out: the folder for the tuned model; one among the results, if left out.
        minutes: after so many minutes training ends, with a checkpoint to go on from.
        model: a folder or a hub id, in place of the configuration's.
        resume: go on from the newest checkpoint of the run that began last.
        words: the first so many words of each text are a prompt; all where left out.
    Returns:
        The folder of the tuned model.
    Raises:
        CourseError: one of these cannot be used, or training fails; what was learned until then is kept.
        KeyboardInterrupt: Ctrl-C; the folder has the model of the last whole round.
    """
    from helpers.ppo import checkpoint
    from helpers.ppo.parallel import processes
    from helpers.project.card import check_card, write_card
    from helpers.project.preflight import preflight
    from helpers.project.prompts import split_prompts
    from helpers.project.report import write_report
    from helpers.project.rewards import reward_from
    from helpers.seal import check_own

    processes.check_launch()
    os.environ.setdefault("ACCELERATE_USE_CPU", "false")  # a Mac's GPU too: this model may be a large one
    here = course.start()
    from helpers.engine import train

    if not processes.is_main():
        warnings.simplefilter("ignore")  # the main process gives them

    folder = files.expand(out) if out else here.out / "train" / "model"
    settings = settings_of(here, config, model, folder, resume)
    page = folder / "report.html"
    processes.on_main(lambda: checkpoint.check_model_folder(folder, settings.model.model_path))
    processes.on_main(lambda: (check_own(page), check_card(folder)))
    texts, held_out = split_prompts(prompts, words)
    judge = reward_from(reward, str(processes.device()), settings.model.model_path)
    if processes.is_main():
        print(f"{judge.__doc__} {len(texts)} prompts, {len(held_out)} more held out.")
    given = dict(reward_fn=judge, prompts=texts, eval_prompts=held_out)
    begun = processes.on_main(lambda: checkpoint_of(settings))
    if processes.is_main():
        print(f"No round on trial: this run goes on from {begun.name}." if begun else "One round on trial:")
    if not begun:
        tried = preflight(config=settings, **given)
        if processes.is_main():
            print(tried)
    try:
        trainer = train(config=settings, metric_fn=judge.metric_fn, minutes=minutes, **given)
    except (Exception, KeyboardInterrupt) as error:
        say_what_is_kept(here, error, folder)
        raise
    trainer.save_pretrained(folder)
    if processes.is_main():
        compared = compare(trainer, settings, held_out, judge)
        source = f"{len(texts)} of {prompts}, {len(held_out)} more held out"
        about = dict(reward=judge.__doc__, prompts=source, repeat=command_again(trainer))
        write_report(trainer, compared, page, **about)
        write_card(trainer, compared, folder, **about)
        print(
            f"The tuned model is in {here.show_path(folder)}, with its card, and the report in {here.show_path(page)}."
        )
    return folder


def checkpoint_of(settings: TRLConfig) -> Path | None:
    """The checkpoint that the run goes on from; None where it begins.

    Raises:
        CourseError: the folder named for it holds something else.
    """
    from helpers.ppo import checkpoint

    folder = settings.train.resume_from_checkpoint
    return checkpoint.newest(Path(folder)) if folder else None


def command_again(trainer: "Run") -> str:
    """The command that repeats the whole run, in however many calls it was made: without --resume, and a run that came to its end without --minutes."""
    words = shlex.join(word for word in sys.argv[1:] if word != "--resume")
    if trainer.step >= trainer.total_steps:
        words = re.sub(r" --minutes[ =]\S+", "", words)
    return f"python -m helpers {words}"


def compare(trainer: "Run", settings: TRLConfig, held_out: Prompts, judge: "Reward") -> "DataFrame":
    """What the model wrote before training and what it writes now: `SAMPLES` samples of each held-out prompt."""
    from helpers.compare import before_after
    from helpers.ppo.load import load_policy
    from helpers.ppo.prompts import entry_of
    from helpers.project.card import sampling

    base = load_policy(settings).base_model.to(trainer.model.device).eval()
    entries = [entry_of(prompt) for prompt in held_out]
    columns = {name: [entry[name] for entry in entries] * SAMPLES for name in entries[0]}
    texts = columns.pop("prompt")[: len(entries)]
    reward_fn = partial(judge, **columns)
    return before_after(
        base, trainer.model, trainer.tokenizer, texts, reward_fn, samples=SAMPLES, **sampling(trainer)
    )


def settings_of(
    here: "Course", config: str | None, model: str | None, folder: Path, resume: bool
) -> TRLConfig:
    """The configuration of a run, from the arguments of `main`; `folder` is that of the tuned model."""
    model = model and os.path.expanduser(model)
    if config:
        settings = TRLConfig.load_yaml(files.expand(config))
        if model:
            settings = settings.evolve(model=dict(model_path=model), tokenizer=dict(tokenizer_path=model))
    else:
        settings = default_config(here, model, folder)
    if resume:
        settings = settings.evolve(train=dict(resume_from_checkpoint=settings.train.checkpoint_dir))
    return settings


def default_config(here: "Course", model: str | None, folder: Path) -> TRLConfig:
    """The configuration of notebook 06 for a run without a file.

    RLHF_BUDGET shortens it. The checkpoints are beside the tuned model's folder, and a prompt may be as long as the model takes.
    A model of the reader's own learns at the rate of the course's model that is more like it.
    """
    settings = config_cli.notebook_config(here.scale, model=model)
    return settings.evolve(
        train=dict(
            total_steps=here.steps(settings.train.total_steps),
            checkpoint_dir=str(folder.with_name(f"{folder.name}-checkpoints")),
            seq_length=1024,
        )
    )


def say_what_is_kept(here: "Course", error: BaseException, folder: Path) -> None:
    """Say how a run that an error or Ctrl-C ended goes on; after Ctrl-C, save the model of its last whole round first."""
    from helpers.ppo.parallel import processes

    trainer = getattr(error, "trainer", None)
    if trainer is None or not processes.is_main() or trainer.kept is None:
        return
    if trainer.step and isinstance(error, KeyboardInterrupt):
        # not by `save_pretrained`, in which other processes would be waited for
        files.write_folder(folder, trainer.write_model)
        print(f"Stopped. The model as it was after step {trainer.step} is in {here.show_path(folder)}.")
    if trainer.step:
        print("The same command with --resume goes on from there.")
