"""A run's health in plain words, read off its history."""

import math

from helpers.ppo.run import History


def summary(history: History, seconds: float, before: int = 0) -> list[str]:
    """What a run did, in a few lines; the verdict is the last of them. `before` steps were made by earlier calls."""
    lines = []
    if history.evals and history.updates:
        first, last = history.evals[0], history.evals[-1]
        earlier = f", after {before} of an earlier call" if before else ""
        lines.append(
            f"{history.updates[-1]['step'] - before} steps in {seconds:.0f} s{earlier}. Held-out reward {first['reward/mean']:.2f} -> "
            f"{last['reward/mean']:.2f}, KL {last['kl']:.1f} nats a sample, {last['distinct']:.0%} distinct outputs."
        )
    return lines + verdict(history)


def verdict(history: History) -> list[str]:
    """The run's health in plain words: one line per sign, each starting with "ok" or "look"."""
    if not_finite := first_not_finite(history):
        step, name, value = not_finite
        return [
            f"look: {name} is {value} at step {step}: the run has diverged, and says nothing from there on. Start anew with a lower "
            "learning rate"
        ]
    if len(history.rounds) < 2 or not history.updates:
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


def first_not_finite(history: History) -> tuple[int, str, float] | None:
    """The step, name and value of the first number that is infinite or NaN. Two may be: metrics, which are the reader's, and
    `grad_norm`, since in float16 a gradient may be too large, and its step is then left out."""
    rows = sorted(history.rounds + history.updates + history.evals, key=lambda row: row["step"])
    found = (
        (row["step"], name, value)
        for row in rows
        for name, value in row.items()
        if isinstance(value, float)
        and not math.isfinite(value)
        and not name.startswith(("metrics/", "grad_norm"))
    )
    return next(found, None)


def judge_reward(rewards: list[float]) -> tuple[bool, str]:
    """Whether the rewards of the rounds rise, and how they went."""
    quarter = max(1, len(rewards) // 4)
    start, end = mean(rewards[:2]), mean(rewards[-quarter:])
    middle = mean(rewards[-2 * quarter : -quarter])
    span = f"reward went from {start:.2f} to {end:.2f}"
    if end < start - 0.02:
        return False, f"{span}: it falls. Lower the learning rate, and print some samples with their rewards"
    if end - start < 0.02:
        return False, (
            f"{span}: it has not moved. More steps or a higher learning rate; is the reward ever high?"
        )
    if len(rewards) >= 8 and end - middle < 0.1 * (end - start):
        return True, f"{span} and has levelled off: more steps of the same will not add much"
    return True, f"{span}"


def judge_kl(kls: list[float]) -> tuple[bool, str]:
    """Whether the KL, in nats a sample, of the rounds is small and no round has a negative one."""
    last = mean(kls[-2:])
    if min(kls) < -0.5:
        return False, (
            f"KL fell to {min(kls):.1f} nats. A true KL is never negative: the samples do not come from the policy as it is "
            "scored. Set top_k=0 and top_p=1, and the same temperature everywhere"
        )
    if last > 10:
        return False, (
            f"KL is {last:.1f} nats a sample: the policy has left the language it started from. Raise beta"
        )
    return True, f"KL is {last:.1f} nats a sample: the policy still writes like the model it started from"


def judge_ratio(ratios: list[float], clipfracs: list[float]) -> tuple[bool, str]:
    """Whether the ratio starts at 1, and few tokens of the updates hit the clip range."""
    if abs(ratios[0] - 1) > 1e-3:
        return False, (
            f"the first ratio is {ratios[0]:.4f}, not 1: rollout and update disagree about the same tokens"
        )
    clipped = mean(clipfracs[-16:])
    if clipped > 0.3:
        return False, (
            f"{clipped:.0%} of the tokens hit the clip range: steps are too large. Lower the learning rate"
        )
    return True, f"the ratio starts at 1 and {clipped:.0%} of the tokens hit the clip range"


def judge_variety(distinct: list[float], entropies: list[float]) -> tuple[bool, str]:
    """Whether the outputs stay distinct and the entropy, in nats a token, stays high."""
    if distinct[-1] < 0.8:
        return False, (
            f"only {distinct[-1]:.0%} of the outputs are distinct: the policy repeats itself. Raise beta"
        )
    if not entropies[0]:
        return False, (
            "entropy was 0 at the start: the model is sure of every token, and there is nothing for PPO to choose from"
        )
    kept = entropies[-1] / entropies[0]
    if kept < 0.4:
        return False, (
            f"entropy is down to {kept:.0%} of what it was: the policy is narrowing. Raise beta, or stop earlier"
        )
    return True, f"{distinct[-1]:.0%} of the outputs are distinct and entropy is {kept:.0%} of what it was"


def mean(values: list[float]) -> float:
    """The mean of one number or more."""
    return sum(values) / len(values)


def column(rows: list[dict], name: str) -> list:
    """One column of the rows of a history."""
    return [row[name] for row in rows]
