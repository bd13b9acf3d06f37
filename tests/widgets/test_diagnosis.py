"""The diagnosis: a sick run without its name, four sicknesses and four cures, and why."""

import math
import xml.etree.ElementTree as ET

import pytest
from read_markup import active, all_html, bare, behind_style, cells, columns

from helpers.errors import CourseError
from helpers.widgets.diagnosis import CHOICES, Diagnosis

SVG = "{http://www.w3.org/2000/svg}"
RUNS = [f"sick {i}" for i in range(6)]


@pytest.fixture
def cases():
    return [
        dict(run=run, after="well", tell=f"curve {i}", what=f"What {i}.", sure=f"Sure {i}.", cure=f"do {i}")
        for i, run in enumerate(RUNS)
    ]


@pytest.fixture
def curves():
    """Of the sick runs one number is missing throughout, of the healthy one another is not a number."""
    return [
        {
            "run": run,
            "step": step,
            "reward": 0.5 + 0.01 * step,
            "gold": None,
            "KL": math.nan if run == "well" else 3.0,
        }
        for run in [*RUNS, "well"]
        for step in (0, 8, 16)
    ]


@pytest.fixture
def samples():
    return [{"run": run, "prompt": f"prompt of {run}", "output": " and on", "reward": 0.25} for run in RUNS]


@pytest.fixture
def shown(curves, samples, cases):
    return Diagnosis(curves, samples, cases)


def picture(shown):
    return ET.fromstring(shown.picture.value.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def lines(shown, dashed):
    found = picture(shown).iter(f"{SVG}polyline")
    return [line for line in found if ("stroke-dasharray" in line.attrib) is dashed]


def offered(control):
    return [answer for _, answer in control.options]


def said(shown):
    """What is said of the answer, with the badge before it."""
    return bare(shown.said.value)


def choose(shown, sickness, cure):
    shown.sickness.value, shown.cure.value = sickness, cure
    shown.tell.click()


def test_the_name_is_not_given_away(shown):
    """Neither by the pictures nor by the samples, nor by the order of the answers."""
    assert "sick" not in shown.picture.value + shown.said.value
    for place in range(1, len(RUNS) + 1):
        shown.patient.value = place
        assert offered(shown.sickness) == sorted(offered(shown.sickness))
        assert offered(shown.cure) == sorted(offered(shown.cure))


def test_there_is_a_curve_for_each_number_that_the_run_has(shown):
    names = [text.text for text in picture(shown).iter(f"{SVG}text") if text.get("font-weight") == "bold"]
    assert names == ["reward", "KL"] and len(lines(shown, False)) == 2 and not lines(shown, True)
    assert "reward from 0.50 to 0.66; KL from 3.00 to 3.00" in picture(shown).get("aria-label")


def test_one_sickness_and_one_cure_are_right_among_the_four(shown):
    for place, run in enumerate(RUNS):
        shown.patient.value = place + 1
        assert len(shown.sickness.options) == len(shown.cure.options) == CHOICES
        assert run in offered(shown.sickness) and f"do {place}" in offered(shown.cure)
        assert shown.sickness.value is None and shown.cure.value is None


def test_the_samples_are_the_patients_own(shown, samples, cases, curves):
    for place, run in enumerate(RUNS, start=1):
        shown.patient.value = place
        assert f"Patient {place}: samples at the end" in shown.shown.value
        assert columns(shown.shown.value) == ["sample", "reward"]
        assert cells(shown.shown.value) == [[f"prompt of {run}  and on", "0.25"]]


def test_no_answer_is_offered_that_the_same_curve_tells(curves, samples, cases):
    for case in cases[:3]:
        case["tell"] = "one curve"
    shown = Diagnosis(curves, samples, cases)
    assert [run for run in RUNS[:3] if run in offered(shown.sickness)] == ["sick 0"]


def test_nothing_chosen(shown):
    assert said(shown) == " 0 of 6 patients solved."
    shown.tell.click()
    assert said(shown) == "▲ look 0 of 6 patients solved.Choose a sickness and a cure first."
    shown.sickness.value = "sick 0"
    shown.tell.click()
    assert said(shown) == "▲ look 0 of 6 patients solved.Choose a sickness and a cure first."


def test_a_wrong_sickness_is_told_how_to_be_sure_of_it(shown):
    wrong = next(run for run in offered(shown.sickness) if run != "sick 0")
    choose(shown, wrong, "do 0")
    assert said(shown).startswith("▲ look 0 of 6") and "✓" not in said(shown)
    assert f"It is not that: {wrong}." in shown.said.value and f"Sure {wrong[-1]}." in shown.said.value
    assert "curve 0" in shown.said.value and "0 of 6" in shown.said.value and not lines(shown, True)


def test_a_wrong_cure_is_told_what_the_sickness_is(shown):
    wrong = next(cure for cure in offered(shown.cure) if cure != "do 0")
    choose(shown, "sick 0", wrong)
    assert said(shown).startswith("▲ look 0 of 6") and "✓" not in said(shown)
    assert (
        f"But another change than to {wrong} mends it. What 0." in shown.said.value
        and "0 of 6" in shown.said.value
    )


def test_right_answers_count_once_and_show_the_run_after_the_change(shown):
    for _ in range(2):
        choose(shown, "sick 0", "do 0")
        assert "Right: sick 0; do 0. What 0. How to be sure: Sure 0." in shown.said.value
        assert said(shown).startswith("✓ right 1 of 6 patients solved.Right: ")
        assert len(lines(shown, True)) == 1  # of the two curves the healthy run has one
    shown.next.click()
    assert shown.patient.value == 2 and not lines(shown, True)
    assert said(shown) == " 1 of 6 patients solved."
    shown.previous.click()
    assert said(shown).startswith("✓ right 1 of 6") and "Right: sick 0" in shown.said.value
    assert len(lines(shown, True)) == 1


def test_a_wrong_answer_about_a_solved_patient_is_wrong(shown):
    choose(shown, "sick 0", "do 0")
    wrong = next(run for run in offered(shown.sickness) if run != "sick 0")
    choose(shown, wrong, "do 0")
    assert said(shown).startswith("▲ look 1 of 6 patients solved.It is not that")


def test_the_buttons_rest_at_the_ends(shown):
    assert shown.previous.disabled and not shown.next.disabled
    shown.patient.value = 6
    assert shown.next.disabled and not shown.previous.disabled


def test_every_curve_stays_in_its_room(shown, curves, samples, cases):
    for row in curves:
        row["KL"] = {0: -1e99, 8: 5e-324, 16: 1e99}[row["step"]]
    shown = Diagnosis(curves, samples, cases)
    _, _, width, height = map(float, picture(shown).get("viewBox").split())
    for line in lines(shown, False):
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width and 0 <= y <= height


def test_the_static_double_asks_and_folds_the_answer(shown):
    open_part, folded = behind_style(shown.static().markup).split("<details>")
    assert shown.picture.value in open_part and shown.shown.value in open_part
    assert "Which is it: " in open_part and "How to be sure" not in open_part
    assert "What 0. How to be sure: Sure 0." in folded


def test_no_patients():
    shown = Diagnosis([], [], [])
    shown.tell.click()
    assert "no runs" in shown.said.value and "no runs" in shown.static().markup


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda curves, samples, cases: curves[0].pop("step"), r"curves\[0\] lacks step"),
        (lambda curves, samples, cases: curves[1].update(step=math.inf), r"curves\[1\] has inf as its step"),
        (lambda curves, samples, cases: curves[1].update(KL="high"), r"curves\[1\] has 'high' as its KL"),
        (lambda curves, samples, cases: samples[0].pop("reward"), r"samples\[0\] lacks reward"),
        (lambda curves, samples, cases: cases[2].pop("cure"), r"cases\[2\] lacks cure"),
        (lambda curves, samples, cases: cases[2].update(after="better"), "curves lacks better"),
    ],
)
def test_rows_that_are_not_what_they_should_be(curves, samples, cases, spoil, message):
    spoil(curves, samples, cases)
    with pytest.raises(CourseError, match=message):
        Diagnosis(curves, samples, cases)


@pytest.mark.parametrize("place", ["prompt", "output", "run", "cure", "what", "sure", "tell", "curve"])
def test_hostile_text_stays_text(curves, samples, cases, hostile, place):
    if place == "curve":
        curves = [row | {f"curve {hostile}": 1.0} for row in curves]
    for row in samples:
        row.update({place: hostile} if place in ("prompt", "output") else {})
    for case in cases:
        case.update({place: f"{case[place]} {hostile}"} if place in case else {})
    if place == "run":
        for row in [*curves, *samples]:
            row["run"] = f"{row['run']} {hostile}" if row["run"] != "well" else "well"
    shown = Diagnosis(curves, samples, cases)
    markups = [*all_html(shown.view), behind_style(shown.static().markup)]
    for sickness in offered(shown.sickness):
        choose(shown, sickness, cases[0]["cure"])
        markups += all_html(shown.view)
    assert shown.solved == {cases[0]["run"]} and picture(shown) is not None
    for markup in markups:
        assert not active(markup) and not set("\x00\u202e") & set(markup)
