"""How figures and tables look, and that `course.start` puts it on."""

import matplotlib as mpl
import pandas as pd
import pytest

from helpers import course, doctor, look, palette, settings
from helpers.errors import CourseError


@pytest.fixture
def undressed():
    """The settings that tests before have left, again afterwards."""
    before = {name: pd.get_option(name) for name in look.TABLES}
    with mpl.rc_context():
        mpl.rcdefaults()
        yield
    for name, value in before.items():
        pd.set_option(name, value)


def test_a_start_dresses(undressed):
    assert mpl.rcParams["axes.spines.top"]
    course.start()
    assert not mpl.rcParams["axes.spines.top"] and mpl.rcParams["axes.facecolor"] == "white"
    assert pd.get_option("display.max_colwidth") == 160


def contrast(colour):
    """With white, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


def test_the_colours_of_things_can_be_seen_on_white():
    """WCAG 2 asks 3 of graphics. Gold has less, so it never stands without markers."""
    for name in ("POLICY", "REFERENCE", "REWARD", "PROXY", "KL", "BEFORE"):
        assert contrast(getattr(palette, name)) >= 3, name
    things = [palette.POLICY, palette.REFERENCE, palette.REWARD, palette.GOLD, palette.KL, palette.BEFORE]
    assert len(set(things)) == len(things)


def rows(table):
    """(alignment, text) of each cell of each row."""
    import re

    markup = look.table_html(table)
    return [
        re.findall(r'<t[hd] style="text-align: (\w+)">(.*?)</t[hd]>', row)
        for row in re.findall(r"<tr.*?</tr>", markup, re.DOTALL)
    ]


def test_an_index_that_only_counts_is_left_out():
    table = pd.DataFrame({"text": ["<b>$5", "y"], "reward": [0.5, 1.0]})
    head, first, _ = rows(table)
    assert head == [("left", "text"), ("right", "reward")]
    assert first == [("left", "&lt;b&gt;$5"), ("right", "0.5")]
    assert rows(table.sample(2, random_state=1))[0] == head
    assert rows(table.head(0))[0] == head


def test_an_index_that_says_something_stays():
    table = pd.DataFrame({"reward": [0.5, 1.0]}, index=["before", "after"])
    assert rows(table)[1] == [("left", "before"), ("right", "0.5")]
    counted = pd.DataFrame({"reward": [0.5, 1.0]}, index=pd.Index([10, 30], name="ratings"))
    assert rows(counted)[2] == [("left", "10"), ("right", "0.5")]


def test_cells_that_span_others_are_as_pandas_writes_them():
    columns = pd.MultiIndex.from_product([["kl", "gold"], [0, 24]])
    assert "text-align: left" not in look.table_html(pd.DataFrame([[1, 2, 3, 4]], columns=columns))


def test_long_tables_show_their_ends():
    table = pd.DataFrame({"text": [f"row {i}" for i in range(100)], "n": range(100)})
    cells = [cell for row in rows(table)[1:] for cell in row]
    assert all(side == ("left" if "row" in text else "right") for side, text in cells if text != "...")


def test_for_a_projector_type_and_lines_are_larger_until_the_setting_goes(undressed, monkeypatch):
    monkeypatch.setenv("RLHF_FIGURES", "projector")
    course.start()
    large = dict(mpl.rcParams)
    assert large["font.size"] >= 1.4 * look.FIGURES["font.size"] and large["lines.linewidth"] > 3
    monkeypatch.delenv("RLHF_FIGURES")
    course.start()
    sizes = [name for name in look.PROJECTOR if name in look.FIGURES]
    assert [mpl.rcParams[name] for name in sizes] == [look.FIGURES[name] for name in sizes]
    assert mpl.rcParams["axes.linewidth"] == mpl.rcParamsDefault["axes.linewidth"]


def test_the_doctor_looks_at_every_setting():
    assert tuple(doctor.READERS) == settings.NAMES


def test_what_the_setting_may_be(monkeypatch):
    for given, found in {
        "": set(),
        "described": {"described"},
        "projector, described": {*settings.FIGURES},
    }.items():
        monkeypatch.setenv("RLHF_FIGURES", given)
        assert settings.read_figures() == found
    monkeypatch.setenv("RLHF_FIGURES", "large")
    with pytest.raises(CourseError, match="RLHF_FIGURES is 'large': expected projector"):
        course.start()
