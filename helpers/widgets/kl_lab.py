"""The KL lab: what a nat of KL buys, over recorded runs that differ in beta alone."""

import ipywidgets as widgets

from helpers.palette import BLUE
from helpers.widgets.controls import (
    back_and_on,
    check_rows,
    finite,
    folding,
    number_of,
    rest_at_ends,
    text_of,
)
from helpers.widgets.design import beside, cards, columns, framed, in_a_row, samples_table, static, table
from helpers.widgets.drawing import Axis, drawable
from helpers.widgets.html import Static, number, sentence

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 30, 40, 48
"""The picture's size and margins in pixels."""
APART = 64
"""Pixels between the middles of two names that stand beside each other."""

RUN_KEYS, SAMPLE_KEYS = ("beta", "step", "reward", "kl"), ("beta", "prompt", "output", "reward")
SOURCE = "Read runs and samples from the CSV files that `python -m helpers record` writes: pandas.read_csv(file).to_dict('records')."
QUIET = 'stroke="currentColor" stroke-opacity="0.6"'
"""The lines that are not chosen: thin, dashed, and strong enough to see on a light and on a dark page."""


class KLLab:
    """Reward against KL for recorded runs; a slider chooses beta and shows that run's numbers and samples.

    Args:
        runs: one dictionary per evaluation: beta, step, reward, kl (nats a sample). Of a run that diverged reward and kl may
            be infinite or NaN: the tables have them, the picture leaves them out and a sentence says so.
        samples: one dictionary per sample of a run's last evaluation: beta, prompt, output, reward.

    Raises:
        CourseError: a row lacks one of these, or something else stands where a number should.
    """

    def __init__(self, runs: list[dict], samples: list[dict]):
        check_rows(runs, RUN_KEYS, "runs[{}]", SOURCE)
        check_rows(samples, SAMPLE_KEYS, "samples[{}]", SOURCE)
        self.samples = [
            {
                "prompt": text_of(row["prompt"]),
                "output": text_of(row["output"]),
                "reward": number_of(row, "reward", f"samples[{index}]", SOURCE),
                "beta": finite(row, "beta", f"samples[{index}]", SOURCE),
            }
            for index, row in enumerate(samples)
        ]
        evaluations = [
            {name: finite(row, name, f"runs[{index}]", SOURCE) for name in ("beta", "step")}
            | {name: number_of(row, name, f"runs[{index}]", SOURCE) for name in ("reward", "kl")}
            for index, row in enumerate(runs)
        ]
        self.runs: dict[float, list[dict]] = {}
        for row in sorted(evaluations, key=lambda row: (row["beta"], row["step"])):
            self.runs.setdefault(row.pop("beta"), []).append(row | {"step": int(row["step"])})
        options = [(f"{beta:g}", beta) for beta in self.runs] or [("no runs", 0.0)]
        self.beta = widgets.SelectionSlider(options=options, index=0, description="beta")
        # the same by buttons: the core slider's handle has no name that a screen reader could say
        self.smaller, self.larger = back_and_on(self.go, "Smaller beta", "Larger beta")
        self.picture, self.end, self.shown, self.numbers = (widgets.HTML() for _ in range(4))
        self.beta.observe(self.show, "value")
        chooser = in_a_row(self.beta, self.smaller, self.larger)
        left = widgets.VBox([self.picture, self.end, *folding("Every evaluation", self.numbers)])
        self.view = framed(chooser, columns(left, self.shown))
        self.show()

    def go(self, places: int) -> None:
        """Choose the run so many places on, and stay where there is none."""
        self.beta.index = min(max(0, self.beta.index + places), len(self.beta.options) - 1)

    def show(self, change: dict | None = None) -> None:
        """Draw the picture, the numbers and the samples of the chosen beta."""
        rest_at_ends((self.smaller, self.larger), self.beta.index, 0, len(self.beta.options) - 1)
        if not self.runs:
            self.shown.value = (
                "There are no runs to show. Record some with <code>python -m helpers record</code>."
            )
            return
        beta = self.beta.value
        self.picture.value = self.svg(beta)
        last = self.runs[beta][-1]
        self.end.value = cards({"reward at the end": last["reward"], "KL, nats a sample": last["kl"]})
        own = [sample for sample in self.samples if sample["beta"] == beta]
        self.shown.value = self.left_out() + samples_table(own, f"beta {beta:g}: samples at the end")
        numbers = [
            {"step": each["step"], "reward": each["reward"], "KL, nats a sample": each["kl"]}
            for each in self.runs[beta]
        ]
        self.numbers.value = table(numbers, f"beta {beta:g}: each evaluation on the held-out prompts")

    def left_out(self) -> str:
        """What the picture does not show, as a sentence for each run."""
        counts = {beta: sum(not has_place(row) for row in rows) for beta, rows in self.runs.items()}
        return "".join(
            sentence(
                f"With beta {beta:g}, the picture leaves out {count} of {len(self.runs[beta])} evaluations: reward or KL is "
                "infinite, not a number or too large to draw. A run that diverges has such numbers."
            )
            for beta, count in counts.items()
            if count
        )

    def svg(self, chosen: float) -> str:
        """Reward against KL, one line per beta; the chosen one is solid, thick, dotted at each evaluation and in bold."""
        drawn = {beta: [row for row in rows if has_place(row)] for beta, rows in self.runs.items()}
        points = [row for rows in drawn.values() for row in rows] or [{"kl": 0.0, "reward": 0.0}]
        x = Axis([row["kl"] for row in points], LEFT, WIDTH - RIGHT)
        y = Axis([row["reward"] for row in points], HEIGHT - BOTTOM, TOP)
        on_top = sorted(
            (beta for beta, rows in drawn.items() if rows), key=lambda beta: beta == chosen
        )  # what is drawn last lies above the others
        lines = [line(drawn[beta], x, y, beta == chosen) for beta in on_top]
        places = label_places({beta: drawn[beta][-1] for beta in on_top}, x, y)
        names = [label(beta, *places[beta], beta == chosen) for beta in on_top]
        last = self.runs[chosen][-1]
        about = (
            f"Held-out reward against KL for beta {', '.join(f'{beta:g}' for beta in self.runs)}. With beta {chosen:g} the "
            f"run ends at reward {number(last['reward'])} and KL {number(last['kl'])} nats a sample."
        )
        return (
            f'<svg role="img" aria-label="{about}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'font-size="13">'
            f"<title>{about}</title>{axes(x, y)}{''.join(lines)}{''.join(names)}</svg>"
        )

    def static(self) -> Static:
        """The last reward and KL of every run, as a table."""
        if not self.runs:
            return Static("There are no runs to show.")
        rows = [
            {"beta": f"{beta:g}", "reward": rows[-1]["reward"], "KL, nats a sample": rows[-1]["kl"]}
            for beta, rows in self.runs.items()
        ]
        chosen = self.beta.value
        ends = table(rows, "Held-out reward and KL at the end of each run")
        return static(beside(self.svg(chosen), ends + self.shown.value))


def has_place(row: dict) -> bool:
    """Whether an evaluation has a place in the picture."""
    return drawable(row["reward"]) and drawable(row["kl"])


def axes(x: Axis, y: Axis) -> str:
    """Both axes with their numbers and names."""
    floor, side, middle = y.start, x.start, (y.start + y.end) / 2
    parts = [
        f'<path d="M{side} {y.end}V{floor}H{x.end}" fill="none" stroke="currentColor"/>',
        f'<text x="{(x.start + x.end) / 2}" y="{HEIGHT - 8}" text-anchor="middle">KL, nats a sample</text>',
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">held-out reward</text>',
    ]
    for value in x.ticks:
        at = x.place(value)
        parts.append(f'<path d="M{at} {floor}v5" stroke="currentColor"/>')
        parts.append(f'<text x="{at}" y="{floor + 19}" text-anchor="middle">{value:g}</text>')
    for value in y.ticks:
        at = y.place(value)
        parts.append(f'<path d="M{side} {at}h-5" stroke="currentColor"/>')
        parts.append(f'<text x="{side - 8}" y="{at + 4}" text-anchor="end">{value:g}</text>')
    return "".join(parts)


def line(rows: list[dict], x: Axis, y: Axis, chosen: bool) -> str:
    """One run from its first evaluation to its last; the chosen run has a dot at each, another run a ring at the last."""
    points = [(x.place(row["kl"]), y.place(row["reward"])) for row in rows]
    look = f'stroke="{BLUE}" stroke-width="3"' if chosen else f'{QUIET} stroke-dasharray="4 3"'
    path = " ".join(f"{a},{b}" for a, b in points)
    dot = f'r="4" fill="{BLUE}"' if chosen else f'r="3" fill="var(--rlhf-paper, white)" {QUIET}'
    dots = "".join(f'<circle cx="{a}" cy="{b}" {dot}/>' for a, b in (points if chosen else points[-1:]))
    return f'<polyline points="{path}" fill="none" {look}/>{dots}'


def label_places(ends: dict[float, dict], x: Axis, y: Axis) -> dict[float, tuple[float, float]]:
    """Where each run's name stands: over its last evaluation, and higher or lower where another name stands already."""
    taken: list[tuple[float, float]] = []
    for row in ends.values():
        a, b = x.place(row["kl"]), y.place(row["reward"])
        tries = [b + step for step in (-9, -23, 18, -37, 32, -51, 46) if 10 < b + step < y.start]
        free = [c for c in tries if all(abs(a - d) > APART or abs(c - e) > 12 for d, e in taken)]
        taken.append((a, (free or tries)[0]))
    return dict(zip(ends, taken))


def label(beta: float, x: float, y: float, chosen: bool) -> str:
    """The run's beta, with an edge in the page's colour where lines run behind it."""
    look = 'font-weight="bold"' if chosen else 'opacity="0.8"'
    edge = 'stroke="var(--rlhf-paper, white)" stroke-width="4" paint-order="stroke"'
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle" {look} {edge}>beta {beta:g}</text>'
