"""The diagnosis: curves and samples of a sick run without its name. The reader says what is wrong and what mends it, and is told why."""

import math
import random

import ipywidgets as widgets

from helpers.palette import BLUE, ORANGE
from helpers.widgets.controls import (
    back_and_on,
    check_rows,
    choice,
    finite,
    number_of,
    place_field,
    rest_at_ends,
    text_of,
)
from helpers.widgets.design import badge, columns, folded, framed, in_a_row, samples_table, static
from helpers.widgets.drawing import Axis, drawable
from helpers.widgets.html import Static, label, number, paragraph, plain, sentence

ACROSS, WIDTH, HEIGHT = 5, 165, 100
"""Curves side by side, and the room of each in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 24, 8
"""Within that room: for the numbers at the axis, for the name over the curve, and for air."""
CHOICES, SAMPLES = 4, 4
"""Answers to choose from, and samples shown."""
RUN_KEYS, SAMPLE_KEYS = ("run", "step"), ("run", "prompt", "output", "reward")
CASE_KEYS = ("run", "after", "tell", "what", "sure", "cure")
SOURCE = "Notebook 08 makes these rows from the CSV files that `python -m helpers record` writes."


class Diagnosis:
    """Sick runs one after the other; for each four sicknesses and four cures to choose from.

    Args:
        curves: one dictionary per round of a run: run, step, and any further numbers, each of which is a curve. Where a run lacks one it is NaN
            or None; where it lacks it in all rounds, the curve is left out.
        samples: one dictionary per sample: run, prompt, output, reward.
        cases: one dictionary per sick run: run, which names its sickness; cure; after, the run in which it was cured; tell, the curve
            that shows it best; what it is, and how to be sure.

    Raises:
        CourseError: a row lacks one of these, a number is none, or a case's runs have no curves.
    """

    def __init__(self, curves: list[dict], samples: list[dict], cases: list[dict]):
        check_rows(curves, RUN_KEYS, "curves[{}]", SOURCE)
        check_rows(samples, SAMPLE_KEYS, "samples[{}]", SOURCE)
        check_rows(cases, CASE_KEYS, "cases[{}]", SOURCE)
        self.runs: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for index, given in enumerate(curves):
            add_points(self.runs.setdefault(given["run"], {}), given, f"curves[{index}]")
        for case in cases:
            check_rows([self.runs], (case["run"], case["after"]), "curves", SOURCE)
        self.samples = [
            {"run": each["run"], "prompt": text_of(each["prompt"]), "output": text_of(each["output"])}
            | {"reward": number_of(each, "reward", f"samples[{index}]", SOURCE)}
            for index, each in enumerate(samples)
        ]
        self.cases = cases
        self.solved: set[str] = set()
        self.patient = place_field("Patient", max(1, len(cases)))
        self.previous, self.next = back_and_on(self.go)
        self.sickness, self.cure = choice("Sickness", []), choice("Cure", [])
        self.tell = widgets.Button(description="Am I right?")
        self.tell.on_click(lambda button: self.answer())
        self.patient.observe(self.show, "value")
        self.picture, self.said, self.shown = widgets.HTML(), widgets.HTML(), widgets.HTML()
        asking = widgets.VBox([self.sickness, self.cure, self.tell, self.said])
        self.view = framed(
            in_a_row(self.patient, self.previous, self.next), self.picture, columns(asking, self.shown)
        )
        self.show()

    @property
    def case(self) -> dict:
        """The patient's own."""
        return self.cases[self.patient.value - 1]

    def go(self, places: int) -> None:
        """Show the patient so many places on; the field stops at either end."""
        self.patient.value += places

    def show(self, change: dict | None = None) -> None:
        """Draw the patient, and offer answers of which none is chosen yet."""
        if not self.cases:
            self.said.value = sentence("There are no runs to show.")
            return
        rest_at_ends((self.previous, self.next), self.patient.value, 1, len(self.cases))
        offered = self.offered()
        for control, name in ((self.sickness, "run"), (self.cure, "cure")):
            control.options = [
                (plain(answer, 60), answer) for answer in sorted(case[name] for case in offered)
            ]
            control.value = None
        own = [sample for sample in self.samples if sample["run"] == self.case["run"]]
        self.shown.value = samples_table(own[:SAMPLES], f"Patient {self.patient.value}: samples at the end")
        self.report("", self.case["run"] in self.solved)

    def offered(self) -> list[dict]:
        """The patient's case and three others, the same each time. No other is told by the same curve: nobody could say which it is."""
        own = self.case
        others = [case for case in self.cases if case["tell"] != own["tell"]]
        return [own, *random.Random(self.patient.value).sample(others, min(CHOICES - 1, len(others)))]

    def answer(self) -> None:
        """Say whether sickness and cure are the patient's, and if they are not, why."""
        if not self.cases:
            return
        own, sickness, cure = self.case, self.sickness.value, self.cure.value
        said = ""
        if sickness is None or cure is None:
            said = "Choose a sickness and a cure first."
        elif sickness != own["run"]:
            claimed = next(case for case in self.cases if case["run"] == sickness)
            said = f"It is not that: {sickness}. How to be sure of that one: {claimed['sure']} Here the curve that tells is “{own['tell']}”."
        elif cure != own["cure"]:
            said = f"The sickness is right: {sickness}. But another change than to {cure} mends it. {own['what']}"
        else:
            self.solved.add(sickness)
        self.report(said, right=not said)

    def explained(self) -> str:
        """What the patient has, what mends it, and how to be sure."""
        own = self.case
        return f"{own['run']}; {own['cure']}. {own['what']} How to be sure: {own['sure']}"

    def report(self, said: str, right: bool) -> None:
        """Show an answer and how many patients are solved; the run after the change joins the picture once the patient is."""
        if right:
            said = f"Right: {self.explained()} The dashed lines are the run after the change."
        sign = badge("right") if right else badge("look") if said else ""
        count = f"{sign} {len(self.solved)} of {len(self.cases)} patients solved."
        self.said.value = paragraph(count) + sentence(said)
        self.picture.value = self.svg()

    def svg(self) -> str:
        """The patient's curves over its steps, each with its lowest and highest number; dashed the run after the change, once it is solved."""
        own = self.case
        sick, after = self.runs[own["run"]], self.runs[own["after"]] if own["run"] in self.solved else {}
        names = [name for name, points in sick.items() if points]
        panels = [
            panel(name, sick[name], after.get(name, []), WIDTH * (i % ACROSS), HEIGHT * (i // ACROSS))
            for i, name in enumerate(names)
        ]
        width, height = ACROSS * WIDTH, HEIGHT * math.ceil(len(names) / ACROSS)
        about = label(f"Patient {self.patient.value}: " + "; ".join(span(name, sick[name]) for name in names))
        return (
            f'<svg role="img" aria-label="{about}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-size="12">'
            f"<title>{about}</title>{''.join(panels)}</svg>"
        )

    def static(self) -> Static:
        """The patient with its answers, and what it has, folded."""
        if not self.cases:
            return Static("There are no runs to show.")
        offered = self.offered()
        sicknesses, cures = (sorted(case[name] for case in offered) for name in ("run", "cure"))
        asked = f"Which is it: {'; '.join(sicknesses)}? And which change mends it: {'; '.join(cures)}?"
        answer = folded("Answer", sentence(self.explained()))
        return static(self.svg() + self.shown.value + sentence(asked) + answer)


def add_points(curves: dict[str, list[tuple[float, float]]], given: dict, where: str) -> None:
    """Add one round's numbers to the curves of its run.

    Raises:
        CourseError: something else stands where a number should.
    """
    step = finite(given, "step", where, SOURCE)
    for name in (name for name in given if name not in RUN_KEYS):
        points = curves.setdefault(name, [])
        if given[name] is not None and drawable(value := number_of(given, name, where, SOURCE)):
            points.append((step, value))


def panel(name: str, points: list[tuple], after: list[tuple], left: int, top: int) -> str:
    """One curve in its own axes; `after` is dashed."""
    both = points + after
    y = Axis([value for _, value in both], top + HEIGHT - BOTTOM, top + TOP)
    steps = [step for step, _ in both]
    first, last = min(steps), max(steps)

    def line(points: list[tuple], look: str) -> str:
        across = (WIDTH - LEFT - RIGHT) / ((last - first) or 1)
        path = " ".join(
            f"{left + LEFT + (step - first) * across:.1f},{y.place(value)}" for step, value in points
        )
        return f'<polyline points="{path}" fill="none" stroke-width="2" {look}/>' if points else ""

    ends = "".join(
        f'<text x="{left + LEFT - 4}" y="{y.place(value) + 4}" text-anchor="end" font-size="11">{value:g}</text>'
        for value in (y.ticks[0], y.ticks[-1])
    )
    return (
        f'<text x="{left + LEFT}" y="{top + 14}" font-weight="bold">{label(name)}</text>{ends}'
        f'<path d="M{left + LEFT} {y.end}V{y.start}H{left + WIDTH - RIGHT}" fill="none" stroke="currentColor" stroke-opacity="0.6"/>'
        + line(after, f'stroke="{BLUE}" stroke-dasharray="5 3"')
        + line(points, f'stroke="{ORANGE}"')
    )


def span(name: str, points: list[tuple]) -> str:
    """A curve in words: its first and last number."""
    return f"{name} from {number(points[0][1])} to {number(points[-1][1])}"
