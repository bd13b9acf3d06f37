"""The KL lab: a picture, numbers and samples for each recorded beta."""

import csv
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from helpers.errors import CourseError
from helpers.widgets.kl_lab import KLLab, ticks

SVG = "{http://www.w3.org/2000/svg}"
DATA = Path(__file__).resolve().parents[2] / "notebooks" / "data"


@pytest.fixture
def runs():
    """Two runs, the larger beta and later steps first: the lab has to put them in order."""
    return [
        {"beta": beta, "step": step, "reward": 0.5 + gain * step, "kl": nats * step}
        for beta, gain, nats in [(0.5, 0.002, 0.004), (0.0, 0.004, 0.1)]
        for step in (100, 20, 0)
    ]


@pytest.fixture
def samples():
    return [
        {"beta": beta, "prompt": f"prompt {i}", "output": f"output {i} of {beta:g}", "reward": 0.25 + beta}
        for beta in (0.5, 0.0)
        for i in range(2)
    ]


@pytest.fixture
def lab(runs, samples):
    return KLLab(runs, samples)


def picture(lab):
    return ET.fromstring(lab.picture.value.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_the_slider_has_every_beta_once_in_order(lab):
    assert list(lab.beta.options) == [("0", 0.0), ("0.5", 0.5)] and lab.beta.description == "beta"


def test_the_slider_chooses_numbers_and_samples(lab):
    assert "output 1 of 0<" in lab.shown.value and "of 0.5<" not in lab.shown.value
    assert ">10.00<" in lab.shown.value  # the KL after 100 steps
    lab.beta.value = 0.5
    assert "output 1 of 0.5<" in lab.shown.value and "of 0<" not in lab.shown.value
    assert ">0.70<" in lab.shown.value and ">0.40<" in lab.shown.value and ">0.75<" in lab.shown.value


def test_the_buttons_do_what_the_slider_does(lab):
    assert lab.smaller.disabled and not lab.larger.disabled
    lab.larger.click()
    assert lab.beta.value == 0.5 and lab.larger.disabled and not lab.smaller.disabled
    lab.larger.click()
    assert lab.beta.value == 0.5
    lab.smaller.click()
    assert lab.beta.value == 0.0


def test_the_numbers_are_in_the_order_of_the_steps(lab):
    numbers = lab.shown.value.split("</table>")[1]
    assert re.findall(r"<tr><td[^>]*><bdi[^>]*>(\d+)<", numbers) == ["0", "20", "100"]


def test_one_line_per_beta_from_first_to_last_evaluation(lab):
    lines = picture(lab).findall(f"{SVG}polyline")
    assert len(lines) == 2
    for line in lines:
        points = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        assert len(points) == 3
        assert points == sorted(points), "KL grows to the right"
        assert [y for _, y in points] == sorted((y for _, y in points), reverse=True), "reward grows upwards"


def test_the_chosen_line_differs_in_more_than_colour(lab):
    for beta in (0.0, 0.5):
        lab.beta.value = beta
        solid, dashed = sorted(
            picture(lab).findall(f"{SVG}polyline"), key=lambda line: "stroke-dasharray" in line.attrib
        )
        assert "stroke-dasharray" not in solid.attrib and "stroke-dasharray" in dashed.attrib
        assert solid.get("stroke-width") == "3" and dashed.get("stroke-width") is None
        bold = [text.text for text in picture(lab).findall(f"{SVG}text") if text.get("font-weight") == "bold"]
        assert bold == [f"beta {beta:g}"]
        radii = [circle.get("r") for circle in picture(lab).findall(f"{SVG}circle")]
        assert sorted(radii) == ["3", "4", "4", "4"], (
            "a ring at the end of the other run, a dot at each evaluation of this"
        )


def test_axes_have_names_and_numbers_and_everything_lies_inside(lab):
    drawn = picture(lab)
    texts = [text.text for text in drawn.findall(f"{SVG}text")]
    assert "KL, nats a sample" in texts and "held-out reward" in texts
    assert {"0", "2", "10", "0.5", "0.9"} <= set(texts)
    _, _, width, height = map(float, drawn.get("viewBox").split())
    for text in drawn.findall(f"{SVG}text"):
        assert 0 <= float(text.get("x")) <= width and 0 <= float(text.get("y")) <= height


def test_the_picture_says_in_words_what_it_shows(lab):
    lab.beta.value = 0.5
    said = picture(lab).get("aria-label")
    assert picture(lab).get("role") == "img" and picture(lab).find(f"{SVG}title").text == said
    assert "beta 0, 0.5" in said and "reward 0.70 and KL 0.40" in said


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.51, 0.98, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (-0.3, 4.3, [-1, 0, 1, 2, 3, 4, 5]),
        (0, 0, [0, 1]),
    ],
)
def test_ticks(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_static(lab):
    shown = lab.static()._repr_html_()
    cells = re.findall(r">([\d.]+)<", re.sub(r"</?bdi[^>]*>", "", shown))
    assert cells == ["0", "0.90", "10.00", "0.5", "0.70", "0.40"]


def test_one_run_of_one_evaluation():
    lab = KLLab([{"beta": 0.1, "step": 0, "reward": 0.5, "kl": 0.0}], [])
    assert len(picture(lab).findall(f"{SVG}polyline")) == 1 and "0.1" in lab.static().markup


def test_no_runs():
    lab = KLLab([], [])
    assert "python -m helpers record" in lab.shown.value and "no runs" in lab.static().markup


def test_rows_that_lack_something(runs, samples):
    with pytest.raises(CourseError, match=r"runs\[1\] lacks kl.*python -m helpers record"):
        KLLab([runs[0], {"beta": 0, "step": 1, "reward": 2}], samples)
    with pytest.raises(CourseError, match=r"samples\[0\] lacks prompt, output"):
        KLLab(runs, [{"beta": 0, "reward": 2}])


@pytest.mark.parametrize("place", ["prompt", "output"])
def test_hostile_text_stays_text(runs, samples, hostile, place):
    for row in samples:
        row[place] = hostile
    lab = KLLab(runs, samples)
    for _, beta in lab.beta.options:
        lab.beta.value = beta
        for text in (lab.shown.value, lab.picture.value.removeprefix("<svg "), lab.static().markup):
            assert not re.search(r"<(img|script|svg)", text) and "\x00" not in text and len(text) < 40_000


def test_numbers_come_as_text_too(runs, samples):
    """As csv.DictReader gives them: still numbers in the picture, and never markup."""
    lab = KLLab(
        [{k: str(v) for k, v in row.items()} for row in runs],
        [{k: str(v) for k, v in s.items()} for s in samples],
    )
    assert "output 1 of 0<" in lab.shown.value
    assert [row["step"] for row in lab.runs[0.5]] == [0, 20, 100]
    with pytest.raises(ValueError):
        KLLab([{**runs[0], "reward": "<script>"}], samples)


def test_the_recorded_runs():
    """What the course ships: every run begins at KL 0 and the same reward; a smaller beta lets the policy go further."""
    tables = {}
    for name in ("runs", "samples"):
        with open(DATA / f"kl_lab_{name}.csv", encoding="utf-8", newline="") as file:
            tables[name] = list(csv.DictReader(file))
    lab = KLLab(tables["runs"], tables["samples"])
    firsts, lasts = ([rows[at] for rows in lab.runs.values()] for at in (0, -1))
    assert len(lab.runs) == 5 and all(
        row["kl"] == 0 and row["reward"] == firsts[0]["reward"] for row in firsts
    )
    assert [row["kl"] for row in lasts] == sorted((row["kl"] for row in lasts), reverse=True)
    for _, beta in lab.beta.options:
        lab.beta.value = beta
        assert lab.shown.value.split("</table>")[0].count("<tr>") == 1 + 8
