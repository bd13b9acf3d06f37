"""Watching a run: a progress bar everywhere, a live figure in notebooks, a summary and a verdict in plain words.

The monitor reads the trainer's history, and its Stop button calls `trainer.stop()`; no trainer draws.
"""

import math
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from helpers import figures
from helpers.palette import BLUE, GREEN, ORANGE
from helpers.ppo import checkpoint
from helpers.ppo.run import History, Run
from helpers.verdict import column, signs, summary
from helpers.widgets.design import badges, continued, folded, static, table
from helpers.widgets.html import escape

REDRAW_SECONDS = 0.5
"""At most twice a second: nbval gives up on cells with thousands of messages."""
LARGEST = 1e100
"""Numbers beyond are gaps in the figure, as infinity and NaN are."""


class Monitor:
    """Listens to one run: `start`, `progress` after every step, `end`.

    Each of its parts stands alone. One that cannot show itself is left out with a warning; the others and the run go on.
    """

    def start(self, trainer: Run) -> None:
        self.parts: list = []
        self.session = Session(trainer)
        for kind in self.kinds():
            with self.alone(kind):
                self.parts.append(kind(self.session))

    def kinds(self) -> tuple:
        """What a reader sees of the run."""
        return (StopButton, Picture, Bar, Words) if in_notebook() else (Bar, Words)

    def progress(self, trainer: Run) -> None:
        self.session.begin()
        for part in self.parts:
            with self.alone(type(part)):
                part.progress()

    def end(self, trainer: Run) -> None:
        if not self.session.failed():
            self.session.begin()
        for part in self.parts:
            with self.alone(type(part)):
                part.end()

    @contextmanager
    def alone(self, kind: type) -> Iterator[None]:
        """An error inside is the end of that part and of nothing else."""
        try:
            yield
        except (
            Exception
        ) as error:  # closed pipes and comms, missing displays and libraries: anything may come
            self.parts = [part for part in self.parts if not isinstance(part, kind)]
            with suppress(Exception):  # standard error may be closed too, and some make warnings errors
                warnings.warn(
                    f"{kind.shows} failed ({type(error).__name__}: {error}). The run does without it.",
                    stacklevel=4,
                )


class Progress(Monitor):
    """For a run without rounds of rollouts, in which there is nothing to judge yet: the bar, and in a notebook the button."""

    def kinds(self) -> tuple:
        """What a reader sees of the run."""
        return (StopButton, Bar) if in_notebook() else (Bar,)


class Session:
    """What this call of `train` is given and adds; a resumed run has steps, a history and checkpoints from before."""

    def __init__(self, trainer: Run):
        self.trainer, self.began, self.first = trainer, time.perf_counter(), None
        self.verdict_shown = False  # in the picture's page, so that words need not say it again
        self.error = sys.exc_info()[1]  # one that the reader is about to handle, and no fault of this run
        self.found = None
        with suppress(OSError):
            self.found = checkpoints(Path(trainer.config.train.checkpoint_dir))

    def begin(self) -> None:
        """Keep the step at which the run takes up: known when it first tells of progress, after a checkpoint was read."""
        if self.first is None:
            self.first = self.trainer.step

    def failed(self) -> bool:
        """Whether the run is being ended by an error or an interrupt; then its trainer comes with that."""
        return sys.exc_info()[1] not in (None, self.error)

    def seconds(self) -> float:
        """Seconds since this call began."""
        return time.perf_counter() - self.began


class Bar:
    """The progress bar."""

    shows = "The progress bar"

    def __init__(self, session: Session):
        self.session, self.trainer = session, session.trainer
        self.bar = tqdm(total=self.trainer.total_steps, unit="step", file=sys.stdout, mininterval=0.5)

    def progress(self) -> None:
        if self.bar.n < self.session.first:  # steps from before took none of this run's time
            self.bar.initial = self.bar.n = self.bar.last_print_n = self.session.first
        if self.trainer.history.rounds:
            latest = self.trainer.history.rounds[-1]
            self.bar.set_postfix_str(f"reward {latest['reward']:.2f}, KL {latest['kl']:.1f}", refresh=False)
        self.bar.update(self.trainer.step - self.bar.n)

    def end(self) -> None:
        if self.session.first is not None and self.bar.n < self.trainer.step:
            self.progress()
        self.bar.close()


class Words:
    """The summary and the verdict when a run is over, and how to go on with one that ended early."""

    shows = "The run's summary"

    def __init__(self, session: Session):
        self.session, self.trainer = session, session.trainer

    def progress(self) -> None: ...

    def end(self) -> None:
        session, trainer = self.session, self.trainer
        if session.first is None:  # it failed before it began: the error says it all
            return
        lines = summary(trainer.history, session.seconds(), session.first)
        for line in lines[:1] if session.verdict_shown else lines:
            say(line)
        if trainer.step < trainer.total_steps:
            say(how_to_go_on(trainer, session.found, session.failed()))


class StopButton:
    """A button that ends the run soon and cleanly."""

    shows = "The button that stops training"

    def __init__(self, session: Session):
        from IPython.display import display
        from ipywidgets import Button

        from helpers.widgets.controls import Clicks

        self.trainer, self.clicks = session.trainer, None
        self.button = Button(description="Stop training")
        self.button.on_click(lambda button: self.stop())
        display(self.button)
        try:
            self.clicks = Clicks(self.button)
        except Exception:  # kernels differ in how they can be asked for clicks
            self.button.disabled, self.button.description = True, "To stop: interrupt the kernel"

    def stop(self) -> None:
        """End the run after the step that it is at."""
        self.button.disabled, self.button.description = True, "Stopping ..."
        self.trainer.stop()

    def progress(self) -> None:
        if self.clicks:
            self.clicks.take()

    def end(self) -> None:
        self.button.disabled = True
        self.button.description = "Stopped" if self.trainer.step < self.trainer.total_steps else "Done"
        if self.clicks:
            self.clicks.close()


class Picture:
    """One figure, the run's health and samples, all updated in place."""

    shows = "The live figure"

    def __init__(self, session: Session):
        from IPython.display import HTML, display

        self.session, self.trainer, self.redraw_at, self.html = session, session.trainer, 0.0, HTML
        self.figure, self.axes = plt.subplots(1, 4, figsize=(14, 3), layout="constrained")
        self.figure_shown = figures.show_live(self.figure)
        self.text_shown = display(HTML("Before the first round ..."), display_id=True)

    def progress(self) -> None:
        """Redraw: never more than a tenth of the run's time."""
        now = time.perf_counter()
        if now < self.redraw_at:
            return
        self.draw(self.time_left())
        self.redraw_at = now + max(REDRAW_SECONDS, 10 * (time.perf_counter() - now))

    def draw(self, heading: str) -> None:
        """Draw figure, health and samples anew."""
        draw_history(self.trainer.history, self.axes)
        figures.update(self.figure_shown, self.figure)
        self.text_shown.update(self.html(page(heading, self.trainer)))

    def time_left(self) -> str:
        """The step, and minutes and seconds to go at the pace so far."""
        step, total = self.trainer.step, self.trainer.total_steps
        done = step - self.session.first
        if not done:
            return f"step {step} of {total}"
        seconds = self.session.seconds() / done * (total - step)
        return f"step {step} of {total}, about {seconds // 60:.0f}:{seconds % 60:02.0f} left"

    def end(self) -> None:
        self.draw(f"step {self.trainer.step} of {self.trainer.total_steps}")
        figures.tell(figures.describe(self.figure))
        self.session.verdict_shown = len(self.trainer.history.rounds) > 1


def say(line: str) -> None:
    """Print a line; what the terminal's encoding does not have, as escapes."""
    try:
        print(line)
    except UnicodeEncodeError as error:
        print(line.encode(error.encoding, "backslashreplace").decode(error.encoding))


def page(heading: str, trainer: Run) -> str:
    """HTML of where the run is, its health so far, and its latest held-out samples, folded once the run is over."""
    # until there are two rounds there is nothing to judge, which is no sign of anything
    found = signs(trainer.history) if len(trainer.history.rounds) > 1 else []
    health = [("ok" if sign.fine else "look", escape(sign.said)) for sign in found]
    samples = [{"reward": row["reward"], "sample": continued(row)} for row in trainer.eval_samples[:4]]
    evaluated = trainer.history.evals[-1]["step"] if trainer.history.evals else 0
    caption = f"Samples for held-out prompts, at step {evaluated}"
    shown = table(samples, caption) if samples else ""
    if shown and trainer.step == trainer.total_steps:
        shown = folded(caption, shown)
    return static(f"<p>{escape(heading)}</p>{badges(health)}{shown}").markup


def checkpoints(folder: Path) -> dict[Path, tuple[int, int]]:
    """The checkpoints in a folder, each with what tells whether it was written anew since."""
    states = {path.parent: path.stat() for path in folder.glob("checkpoint_*/state.json")}
    return {
        path: (state.st_ino, state.st_mtime_ns)
        for path, state in states.items()
        if re.fullmatch(r"checkpoint_\d+", path.name)
    }


def how_to_go_on(trainer: Run, found: dict | None, failed: bool = False) -> str:
    """For a run that ended early: where it stands, and what to write so that it goes on.

    Args:
        found: `checkpoints` of its folder before it began: they may be another run's.
        failed: whether an error or an interrupt ends it, which then carries the trainer.
    """
    train = trainer.config.train
    folder, source = train.checkpoint_dir, train.resume_from_checkpoint
    ended = f"The run ended at step {trainer.step} of {trainer.total_steps}. "
    there = checkpoints(Path(folder))
    written = [path for path, state in there.items() if found is None or found.get(path) != state]
    latest = max(written, key=lambda path: int(path.name.split("_")[1]), default=None)
    # a folder stands for its checkpoint with the most steps, which may be another run's
    if latest and checkpoint.newest(Path(folder)) != latest:
        folder = str(latest)
    if not latest and source:
        folder, latest = source, checkpoint.newest(Path(source))
    kept = " The trainer has its model and history."
    if failed:
        kept = " The error carries the trainer, with model and history: in a notebook it is sys.last_value.trainer."
    if latest:
        return ended + (
            f"The same call goes on from {latest.name} with config.evolve(train=dict(resume_from_checkpoint={folder!r})), "
            f"in a configuration file with train.resume_from_checkpoint.{kept if failed else ''}"
        )
    others = f" The checkpoints in {folder} are another run's." if there else ""
    return f"{ended}It has written no checkpoint, so the same call begins anew.{others}{kept}"


def in_notebook() -> bool:
    """True where a front end can show a figure: in a Jupyter or Colab kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


def drawn(rows: list[dict], name: str) -> list[float]:
    """A column for the figure, with gaps for what has no place in it."""
    return [value if abs(value) < LARGEST else math.nan for value in column(rows, name)]


def draw_history(history: History, axes: Sequence[Axes]) -> None:
    """Reward, KL, losses and entropy against optimizer steps on four axes; infinite values and NaN are gaps."""
    for axis in axes:
        axis.clear()
        axis.set_xlabel("optimizer step")
        axis.spines[["top", "right"]].set_visible(False)
    rounds, evals, updates = history.rounds, history.evals, history.updates
    reward, kl, losses, entropy = axes
    reward.set_title("mean reward")
    reward.plot(column(rounds, "step"), drawn(rounds, "reward"), color=BLUE, label="rollouts")
    reward.plot(
        column(evals, "step"), drawn(evals, "reward/mean"), "o--", color=ORANGE, label="held-out prompts"
    )
    kl.set_title("KL, nats a sample")
    kl.plot(column(rounds, "step"), drawn(rounds, "kl"), color=BLUE, label="rollouts")
    kl.plot(column(evals, "step"), drawn(evals, "kl"), "o--", color=ORANGE, label="held-out prompts")
    explained = [row["explained_variance"] for row in rounds if "explained_variance" in row]
    losses.set_title(f"losses; explained variance {explained[-1]:.2f}" if explained else "losses")
    losses.plot(column(updates, "step"), drawn(updates, "policy_loss"), color=BLUE, label="policy")
    valued = [row for row in updates if "value_loss" in row]  # RLOO and GRPO have no value head
    if valued:
        losses.plot(
            column(valued, "step"), drawn(valued, "value_loss"), color=GREEN, linestyle="--", label="value"
        )
    entropy.set_title("entropy, nats a token")
    entropy.plot(column(updates, "step"), drawn(updates, "entropy"), color=BLUE)
    for axis in (reward, kl, losses):
        axis.legend(frameon=False)


def plot_history(history: History) -> Figure:
    """A new figure of a finished run; see `draw_history`."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3), layout="constrained")
    draw_history(history, axes)
    figures.fit(figure)
    plt.close(figure)
    return figure
