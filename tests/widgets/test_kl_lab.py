"""The KL lab: a picture, numbers and samples for each recorded beta."""

import csv
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import ipywidgets
import pytest
from read_markup import active, all_html, behind_style, card_figures, cells, columns, tree

from helpers.errors import CourseError
from helpers.widgets.drawing import ticks
from helpers.widgets.html import number
from helpers.widgets.kl_lab import KLLab

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
    assert columns(lab.shown.value) == ["sample", "reward"]
    assert cells(lab.shown.value) == [[f"prompt {i} output {i} of 0", "0.25"] for i in range(2)]
    assert card_figures(lab.end.value) == {"reward at the end": "0.90", "KL, nats a sample": "10.00"}
    lab.beta.value = 0.5
    assert cells(lab.shown.value) == [[f"prompt {i} output {i} of 0.5", "0.75"] for i in range(2)]
    assert card_figures(lab.end.value) == {"reward at the end": "0.70", "KL, nats a sample": "0.40"}
    assert cells(lab.numbers.value)[-1] == ["100", "0.70", "0.40"]


def test_the_buttons_do_what_the_slider_does(lab):
    assert lab.smaller.disabled and not lab.larger.disabled
    lab.larger.click()
    assert lab.beta.value == 0.5 and lab.larger.disabled and not lab.smaller.disabled
    lab.larger.click()
    assert lab.beta.value == 0.5
    lab.smaller.click()
    assert lab.beta.value == 0.0


def test_the_numbers_are_in_the_order_of_the_steps(lab):
    assert columns(lab.numbers.value) == ["step", "reward", "KL, nats a sample"]
    assert cells(lab.numbers.value) == [
        ["0", "0.50", "0.00"],
        ["20", "0.58", "2.00"],
        ["100", "0.90", "10.00"],
    ]


def test_every_evaluation_is_folded_until_it_is_asked_for(lab):
    fold = next(part for part in tree(lab.view) if isinstance(part, ipywidgets.ToggleButton))
    assert fold.description == "Every evaluation" and lab.numbers.layout.display == "none"
    fold.value = True
    assert lab.numbers.layout.display is None
    fold.value = False
    assert lab.numbers.layout.display == "none"


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
    """The picture, the ends of all runs, and the samples of the chosen one."""
    shown = lab.static()._repr_html_()
    assert lab.picture.value in shown and lab.shown.value in shown
    ends = behind_style(shown)
    assert columns(ends)[:3] == ["beta", "reward", "KL, nats a sample"]
    assert cells(ends) == [["0", "0.90", "10.00"], ["0.5", "0.70", "0.40"]]


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
        shown = [*all_html(lab.view), behind_style(lab.static().markup)]
        assert any(lab.shown.value in text for text in shown)
        for text in shown:
            assert not active(text) and "\x00" not in text and len(text) < 40_000


def test_numbers_come_as_text_too(runs, samples):
    """As csv.DictReader gives them: still numbers in the picture, and never markup."""
    lab = KLLab(
        [{k: str(v) for k, v in row.items()} for row in runs],
        [{k: str(v) for k, v in s.items()} for s in samples],
    )
    assert cells(lab.shown.value)[1][0] == "prompt 1 output 1 of 0"
    assert [row["step"] for row in lab.runs[0.5]] == [0, 20, 100]


DIVERGED = [float("nan"), float("inf"), -float("inf"), "nan", "inf", "", 1e300, -1e308]


def unharmed(lab):
    """Every number in the picture is finite, and lies in it."""
    drawn = picture(lab)
    _, _, width, height = map(float, drawn.get("viewBox").split())
    for element in drawn.iter():
        said = " ".join(value for name, value in element.attrib.items() if name != "aria-label")
        assert not re.search(r"\b(nan|inf)\b", said), said
        for pair in (element.get("points") or "").split():
            a, b = map(float, pair.split(","))
            assert 0 <= a <= width and 0 <= b <= height
    assert len({text.text for text in drawn.findall(f"{SVG}text")}) > 3
    return True


@pytest.mark.parametrize("value", DIVERGED, ids=repr)
@pytest.mark.parametrize("names", [("reward",), ("kl",), ("reward", "kl")])
def test_a_run_that_diverged(runs, samples, value, names):
    """Its later evaluations are in the table and not in the picture, and a sentence says so."""
    for row in runs:
        if row["beta"] == 0.0 and row["step"] >= 20:
            row.update(dict.fromkeys(names, value))
    samples[2]["reward"] = value
    lab = KLLab(runs, samples)
    shown = number(float("nan" if value == "" else value))
    for lab.beta.value in (0.0, 0.5):
        assert unharmed(lab)
        assert "With beta 0, the picture leaves out 2 of 3 evaluations" in lab.shown.value
        assert "With beta 0.5" not in lab.shown.value
    lab.beta.value = 0.0
    assert lab.numbers.value.count(f">{shown}<") == 2 * len(names)
    assert lab.shown.value.count(f">{shown}<") == 1
    assert list(card_figures(lab.end.value).values()).count(shown) == len(names)
    assert lab.static().markup.count(f">{shown}<") == len(names) + 1
    points = [line.get("points").count(",") for line in picture(lab).findall(f"{SVG}polyline")]
    assert sorted(points) == [1, 3]


def test_nothing_but_a_run_that_diverged(runs, samples):
    for row in runs:
        row["kl"] = float("nan")
    lab = KLLab(runs, samples)
    assert unharmed(lab) and not picture(lab).findall(f"{SVG}polyline")
    assert lab.shown.value.count("the picture leaves out 3 of 3 evaluations") == 2
    assert "KL not a number" in picture(lab).get("aria-label")


@pytest.mark.parametrize("value", [1.0882951853736334e-41, -5.752381881524212e24, 0.7, 1e99])
def test_neighbouring_numbers_have_a_place(runs, samples, value):
    """Numbers that differ by rounding alone: ticks between them would fall together."""
    for row in runs:
        row["kl"] = row["reward"] = value
    runs[0]["kl"] = runs[0]["reward"] = math.nextafter(value, math.inf)
    assert unharmed(KLLab(runs, samples))


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-12, 1.0, 1e12, 1e99])
@pytest.mark.parametrize("offset", [0.0, 1.0, -1e50])
def test_numbers_of_every_size_have_a_place(runs, samples, scale, offset):
    for row in runs:
        row["kl"], row["reward"] = offset + scale * row["kl"], offset - scale * row["reward"]
    lab = KLLab(runs, samples)
    assert unharmed(lab) and len(picture(lab).findall(f"{SVG}polyline")) == 2
    assert len(re.findall("<path", lab.picture.value)) < 50


@pytest.mark.parametrize(
    "name, value",
    [
        ("reward", "<script>"),
        ("kl", None),
        ("beta", "nan"),
        ("step", float("nan")),
        ("step", "inf"),
        ("beta", 10**400),
    ],
)
def test_what_is_no_number_is_named(runs, samples, name, value):
    runs[1][name] = value
    with pytest.raises(CourseError, match=rf"runs\[1\] has .* as its {name}: expected a (finite )?number"):
        KLLab(runs, samples)
    if name in samples[1]:
        samples[1][name] = value
        with pytest.raises(CourseError, match=rf"samples\[1\] has .* as its {name}"):
            KLLab([], samples)


def test_an_empty_text_is_empty_as_pandas_reads_it(runs, samples):
    samples[2]["output"] = float("nan")
    lab = KLLab(runs, samples)
    assert "not a number" not in lab.shown.value and "prompt 0" in lab.shown.value


def test_steps_of_a_column_with_gaps(runs):
    """As pandas reads integers in a column where one is missing elsewhere: as 100.0."""
    assert [
        row["step"] for row in KLLab([{**row, "step": f"{row['step']}.0"} for row in runs], []).runs[0.0]
    ] == [0, 20, 100]


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
        assert len(cells(lab.shown.value)) == 8
