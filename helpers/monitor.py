"""Watching a run: a progress bar everywhere, a live figure in notebooks, a summary and a verdict in plain words.

The monitor reads the trainer's history, and its Stop button calls `trainer.stop()`; no trainer draws.
"""

import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
from tqdm import tqdm

from helpers import figures
from helpers.clicks import Clicks
from helpers.palette import BLUE, GREEN, ORANGE
from helpers.ppo import checkpoint
from helpers.verdict import column, summary, verdict
from helpers.widgets.html import escape, table

REDRAW_SECONDS = 0.5
"""At most twice a second: nbval gives up on cells with thousands of messages."""


class Monitor:
    """Listens to one run: `start`, `progress` after every step, `end`."""

    def start(self, trainer) -> None:
        self.began = time.perf_counter()
        self.live = Live(trainer) if in_notebook() else None
        self.bar = tqdm(total=trainer.total_steps, unit="step", file=sys.stdout, mininterval=0.5)

    def progress(self, trainer) -> None:
        if trainer.history.rounds:
            latest = trainer.history.rounds[-1]
            self.bar.set_postfix_str(f"reward {latest['reward']:.2f}, KL {latest['kl']:.1f}", refresh=False)
        self.bar.update(trainer.step - self.bar.n)
        if self.live:
            self.live.progress()

    def end(self, trainer) -> None:
        self.bar.close()
        if self.live:
            self.live.end()
        for line in summary(trainer.history, time.perf_counter() - self.began):
            print(line)
        if trainer.step < trainer.total_steps:
            print(how_to_go_on(trainer))


class Live:
    """What a notebook shows while a run goes on: a Stop button, one figure, and samples, all updated in place."""

    def __init__(self, trainer):
        from IPython.display import HTML, display
        from ipywidgets import Button

        self.trainer, self.began, self.redraw_at, self.html = trainer, time.perf_counter(), 0.0, HTML
        self.button = Button(description="Stop training")
        self.button.on_click(self.stop)
        display(self.button)
        self.figure, self.axes = plt.subplots(1, 4, figsize=(14, 3), layout="constrained")
        self.figure_shown = figures.show_live(self.figure)
        self.text_shown = display(HTML("Before the first round ..."), display_id=True)
        self.clicks = Clicks(self.button)

    def stop(self, button) -> None:
        button.disabled, button.description = True, "Stopping ..."
        self.trainer.stop()

    def progress(self) -> None:
        """Take clicks, and redraw: never more than a tenth of the run's time."""
        self.clicks.take()
        now = time.perf_counter()
        if now < self.redraw_at:
            return
        self.draw(self.time_left(now))
        self.redraw_at = now + max(REDRAW_SECONDS, 10 * (time.perf_counter() - now))

    def draw(self, heading: str) -> None:
        draw_history(self.trainer.history, self.axes)
        figures.update(self.figure_shown, self.figure)
        self.text_shown.update(self.html(page(heading, self.trainer)))

    def time_left(self, now: float) -> str:
        done, total = self.trainer.step, self.trainer.total_steps
        if not done:
            return f"step 0 of {total}"
        seconds = (now - self.began) / done * (total - done)
        return f"step {done} of {total}, about {seconds // 60:.0f}:{seconds % 60:02.0f} left"

    def end(self) -> None:
        self.clicks.close()
        self.button.disabled = True
        self.button.description = "Stopped" if self.trainer.step < self.trainer.total_steps else "Done"
        self.draw(f"step {self.trainer.step} of {self.trainer.total_steps}")


def page(heading: str, trainer) -> str:
    """HTML of where the run is, its health so far, and its latest held-out samples."""
    rows = [
        {"reward": row["reward"], "prompt": row["prompt"], "continuation": row["output"]}
        for row in trainer.eval_samples[:4]
    ]
    health = "<br>".join(escape(line) for line in verdict(trainer.history))
    evaluated = trainer.history.evals[-1]["step"] if trainer.history.evals else 0
    samples = table(rows, f"samples for held-out prompts, at step {evaluated}") if rows else ""
    return f"<p>{escape(heading)}</p><p>{health}</p>{samples}"


def how_to_go_on(trainer) -> str:
    """For a run that ended early: where it stands, and what to write so that it goes on."""
    folder = trainer.config.train.checkpoint_dir
    found = checkpoint.newest(Path(folder))
    ended = f"The run ended at step {trainer.step} of {trainer.total_steps}. "
    if not found:
        return ended + "It has no checkpoint yet, so it would begin anew; its model and history are here."
    return ended + (
        f"The same call goes on from {found.name} with config.evolve(train=dict(resume_from_checkpoint={folder!r}))."
    )


def in_notebook() -> bool:
    """True where a front end can show a figure: in a Jupyter or Colab kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


def draw_history(history, axes) -> None:
    """Reward, KL, losses and entropy against optimizer steps on four axes."""
    for axis in axes:
        axis.clear()
        axis.set_xlabel("optimizer step")
        axis.spines[["top", "right"]].set_visible(False)
    rounds, evals, updates = history.rounds, history.evals, history.updates
    reward, kl, losses, entropy = axes
    reward.set_title("mean reward")
    reward.plot(column(rounds, "step"), column(rounds, "reward"), color=BLUE, label="rollouts")
    reward.plot(
        column(evals, "step"), column(evals, "reward/mean"), "o--", color=ORANGE, label="held-out prompts"
    )
    kl.set_title("KL to the reference, nats a sample")
    kl.plot(column(rounds, "step"), column(rounds, "kl"), color=BLUE, label="rollouts")
    kl.plot(column(evals, "step"), column(evals, "kl"), "o--", color=ORANGE, label="held-out prompts")
    losses.set_title("losses")
    losses.plot(column(updates, "step"), column(updates, "policy_loss"), color=BLUE, label="policy")
    losses.plot(
        column(updates, "step"), column(updates, "value_loss"), color=GREEN, linestyle="--", label="value"
    )
    entropy.set_title("entropy, nats a token")
    entropy.plot(column(updates, "step"), column(updates, "entropy"), color=BLUE)
    for axis in (reward, kl, losses):
        axis.legend(frameon=False)


def plot_history(history):
    """A new figure of a finished run; see `draw_history`."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3), layout="constrained")
    draw_history(history, axes)
    plt.close(figure)
    return figure
