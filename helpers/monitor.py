"""Watching a run: a progress bar everywhere, a live figure in notebooks, a summary and a verdict in plain words.

The monitor only reads the trainer's history; no trainer draws.
"""

import sys
import time

import matplotlib.pyplot as plt
from tqdm import tqdm

# Okabe and Ito's colour-blind-safe palette (jfly.uni-koeln.de/color)
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


class Monitor:
    """Listens to one run: `start`, `progress` after every step, `end`."""

    def start(self, trainer) -> None:
        self.began = time.perf_counter()
        self.figure, self.axes, self.handle = None, None, None
        self.draw_at = 0.0
        if in_notebook():
            from IPython.display import display

            self.figure, self.axes = plt.subplots(1, 3, figsize=(12, 3), layout="constrained")
            plt.close(self.figure)
            self.handle = display(self.figure, display_id=True)
        self.bar = tqdm(total=trainer.total_steps, unit="step", file=sys.stdout, mininterval=0.5)

    def progress(self, trainer) -> None:
        history = trainer.history
        if history.rounds:
            latest = history.rounds[-1]
            self.bar.set_postfix_str(f"reward {latest['reward']:.2f}, KL {latest['kl']:.1f}", refresh=False)
        self.bar.update(trainer.step - self.bar.n)
        if self.handle and time.perf_counter() > self.draw_at:
            self.draw(history)

    def draw(self, history) -> None:
        """Redraw in place: at most twice a second, and never more than a tenth of the run's time."""
        began = time.perf_counter()
        draw_history(history, self.axes)
        self.handle.update(self.figure)
        took = time.perf_counter() - began
        self.draw_at = began + max(0.5, 10 * took)

    def end(self, trainer) -> None:
        self.bar.close()
        if self.handle:
            self.draw(trainer.history)
        for line in summary(trainer.history, time.perf_counter() - self.began):
            print(line)


def in_notebook() -> bool:
    """True where a front end can show a figure: in a Jupyter or Colab kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


def draw_history(history, axes) -> None:
    """Reward, KL and losses against optimizer steps on three axes."""
    for axis in axes:
        axis.clear()
        axis.set_xlabel("optimizer step")
        axis.spines[["top", "right"]].set_visible(False)
    rounds, evals, updates = history.rounds, history.evals, history.updates
    reward, kl, losses = axes
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
    for axis in axes:
        axis.legend(frameon=False)


def plot_history(history):
    """A new figure of a finished run; see `draw_history`."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3), layout="constrained")
    draw_history(history, axes)
    plt.close(figure)
    return figure


def column(rows: list[dict], name: str) -> list:
    return [row[name] for row in rows]


def summary(history, seconds: float) -> list[str]:
    """What a run did, in a few lines; the verdict is the last of them."""
    lines = []
    if history.evals and history.updates:
        first, last = history.evals[0], history.evals[-1]
        lines.append(
            f"{history.updates[-1]['step']} steps in {seconds:.0f} s. Held-out reward {first['reward/mean']:.2f} -> "
            f"{last['reward/mean']:.2f}, KL {last['kl']:.1f} nats a sample, {last['distinct']:.0%} distinct outputs."
        )
    return lines + verdict(history)


def verdict(history) -> list[str]:
    """The run's health in plain words: one line per sign, each starting with "ok" or "look"."""
    if len(history.rounds) < 2:
        return ["look: too short a run to judge; let it make at least two rounds of rollouts"]
    return [
        ("ok:   " if fine else "look: ") + text
        for fine, text in [
            judge_reward(column(history.rounds, "reward")),
            judge_kl(column(history.rounds, "kl")),
            judge_ratio(column(history.updates, "ratio"), column(history.updates, "clipfrac")),
            judge_variety(column(history.rounds, "distinct"), column(history.updates, "entropy")),
        ]
    ]


def judge_reward(rewards: list[float]) -> tuple[bool, str]:
    quarter = max(1, len(rewards) // 4)
    start, middle, end = (
        mean(rewards[:2]),
        mean(rewards[-2 * quarter : -quarter]),
        mean(rewards[-quarter:]),
    )
    span = f"reward went from {start:.2f} to {end:.2f}"
    if end < start - 0.02:
        return False, f"{span}: it falls. Lower the learning rate, and print some samples with their rewards"
    if end - start < 0.02:
        return (
            False,
            f"{span}: it has not moved. More steps or a higher learning rate; is the reward ever high?",
        )
    if len(rewards) >= 8 and end - middle < 0.1 * (end - start):
        return True, f"{span} and has levelled off: more steps of the same will not add much"
    return True, f"{span}"


def judge_kl(kls: list[float]) -> tuple[bool, str]:
    last = mean(kls[-2:])
    if min(kls) < -0.5:
        return False, (
            f"KL fell to {min(kls):.1f} nats. A true KL is never negative: the samples do not come from the policy as it is "
            "scored. Set top_k=0 and top_p=1, and the same temperature everywhere"
        )
    if last > 10:
        return (
            False,
            f"KL is {last:.1f} nats a sample: the policy has left the language it started from. Raise beta",
        )
    return True, f"KL is {last:.1f} nats a sample: the policy still writes like the model it started from"


def judge_ratio(ratios: list[float], clipfracs: list[float]) -> tuple[bool, str]:
    if abs(ratios[0] - 1) > 1e-3:
        return (
            False,
            f"the first ratio is {ratios[0]:.4f}, not 1: rollout and update disagree about the same tokens",
        )
    clipped = mean(clipfracs[-16:])
    if clipped > 0.3:
        return (
            False,
            f"{clipped:.0%} of the tokens hit the clip range: steps are too large. Lower the learning rate",
        )
    return True, f"the ratio starts at 1 and {clipped:.0%} of the tokens hit the clip range"


def judge_variety(distinct: list[float], entropies: list[float]) -> tuple[bool, str]:
    if distinct[-1] < 0.8:
        return (
            False,
            f"only {distinct[-1]:.0%} of the outputs are distinct: the policy repeats itself. Raise beta",
        )
    kept = entropies[-1] / entropies[0]
    if kept < 0.4:
        return (
            False,
            f"entropy is down to {kept:.0%} of what it was: the policy is narrowing. Raise beta, or stop earlier",
        )
    return True, f"{distinct[-1]:.0%} of the outputs are distinct and entropy is {kept:.0%} of what it was"


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
