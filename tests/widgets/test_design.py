"""The parts that widgets are drawn with: what they say in words, their numbers of every size, and hostile text in each."""

import re
import xml.etree.ElementTree as ET

import ipywidgets
import pytest
from read_markup import (
    active,
    bar_widths,
    bare,
    behind_style,
    card_figures,
    cells,
    columns,
    strengths,
    strip_pieces,
    tree,
)

from helpers import palette
from helpers.widgets import design
from helpers.widgets.html import Static, number

NAN, INFINITY = float("nan"), float("inf")
ODD = [NAN, INFINITY, -INFINITY, 1e308, -1e308]


# Frames


def test_the_style_sheet_has_the_palettes_colours_and_no_gaps():
    css = design.style_sheet()
    assert css.startswith("<style>") and css.endswith("</style>") and not re.search("%[A-Z]+%", css)
    assert all(colour in css for colour in (palette.BLUE, palette.ORANGE, palette.GREEN))
    assert css.count("{") == css.count("}") and not {"$", "\\"} & set(css)


def test_the_style_sheet_touches_nothing_outside_of_widgets():
    """Every rule begins with the class that only the course's widgets have."""
    css = re.sub(r"/\*.*?\*/", "", bare(design.style_sheet()), flags=re.DOTALL)
    for selectors in re.findall(r"([^{}]+){[^{}]*}", css):
        for selector in selectors.split(","):
            assert re.match(r"\.rlhf[ .]|\.rlhf$", selector.strip()), selector


def test_a_class_that_is_used_is_in_the_style_sheet():
    made = [
        design.table([{"a": 1}], "", "rlhf-tokens"),
        design.bars([("a", 1.0)], ""),
        design.cards({"a": 1.0}),
        design.text_cards([("a", "", "")]),
        design.badges([(word, "") for word in design.SIGNS]),
        design.strip([("a", 1.0)], ("b",), ""),
        design.ring(1, 2),
        design.beside("a", "b"),
        design.continued({"prompt": "a", "output": "b"}).markup,
    ]
    used = {
        name for markup in made for names in re.findall(r'class="(.*?)"', markup) for name in names.split()
    }
    sheet = set(re.findall(r"\.(rlhf[\w-]*)", design.style_sheet()))
    # what is well has the look of a badge itself
    assert len(used) > 15 and used - sheet == {"rlhf-ok"}


def test_a_widget_brings_the_style_sheet_along_and_no_part_has_it_twice():
    parts = [ipywidgets.HTML("one"), design.in_a_row(ipywidgets.HTML("two"))]
    whole = design.framed(*parts)
    assert whole.children[0].value == design.style_sheet() and list(whole.children[1:]) == parts
    assert "rlhf" in whole._dom_classes
    assert [part.value for part in tree(whole) if isinstance(part, ipywidgets.HTML)][1:] == ["one", "two"]


def test_a_static_double_brings_the_style_sheet_along():
    shown = design.static("<p>one</p>")
    assert (
        isinstance(shown, Static)
        and shown.markup == f'<div class="rlhf">{design.style_sheet()}<p>one</p></div>'
    )


def test_a_fold_is_closed():
    assert design.folded("Answer", "<p>one</p>").startswith("<details><summary>")
    assert bare(design.folded("Answer", "<p>one</p>")) == "Answerone"


# Tables


def test_a_table_has_the_columns_of_its_first_row():
    markup = design.table([{"text": "a", "n": 1}, {"n": 2.5, "more": 3}], "Caption")
    assert columns(markup) == ["text", "n"] and cells(markup) == [["a", "1"], ["", "2.50"]]
    assert bare(re.search("<caption>.*</caption>", markup)[0]) == "Caption"


@pytest.mark.parametrize(
    "values, right",
    [
        ([1, 2.5], True),
        ([1.0, None], True),
        ([None, None], True),
        ([NAN, INFINITY], True),
        (["1", 2], False),
        ([True, 1], False),
        ([Static("<b>1</b>"), 1], False),
    ],
)
def test_only_columns_of_numbers_stand_at_the_right(values, right):
    markup = design.table([{"name": "a", "value": value} for value in values], "")
    marked = re.findall(r"<(t[dh])[^>]* class=\"rlhf-n\"", markup)
    assert marked == (["th", "td", "td"] if right else [])


def test_a_table_without_rows():
    assert bare(design.table([], "Nothing yet")) == "Nothing yet"


def test_prompt_and_output_are_set_apart_by_a_space_and_a_colour():
    markup = design.continued({"prompt": "It was", "output": "good"}).markup
    assert bare(markup) == "It was good" and markup.index("rlhf-quiet") < markup.index("good")


# Bars, cards, badges, rings


@pytest.mark.parametrize(
    "value, low, high, width",
    [
        (0.0, 0, 1, "0"),
        (0.25, 0, 1, "25"),
        (1.0, 0, 1, "100"),
        (7.0, 0, 1, "100"),
        (-7.0, 0, 1, "0"),
        (5.0, 5.0, 5.0, "0"),
        (-0.5, -1, 1, "25"),
        (NAN, 0, 1, "0"),
        (INFINITY, 0, 1, "100"),
        (-INFINITY, 0, 1, "0"),
        (0.0, -1.7e308, 1.7e308, "50"),
        (1.7e308, -1.7e308, 1.7e308, "100"),
        (INFINITY, 0.0, INFINITY, "100"),
        (1.0, 0.0, INFINITY, "0"),
        (5e-324, 0.0, 1e-323, "0"),
    ],
)
def test_how_far_a_bar_is_filled(value, low, high, width):
    assert bar_widths(design.bar(value, low, high)) == [width]


@pytest.mark.parametrize("value", ODD)
def test_bars_say_their_numbers(value):
    markup = design.bars([("a", value), ("b", 0.5)], "Caption")
    assert number(value) in markup and bar_widths(markup)[1] == "50"
    assert bare(markup) == f"Captiona{number(value)}b0.50"


def test_cards_show_a_number_that_there_is_none_for_as_a_dash():
    shown = {"a": 0.0, "b": None, "c": NAN, "d": -INFINITY, "e": -0.5}
    assert card_figures(design.cards(shown)) == {
        "a": "0.00",
        "b": "–",
        "c": "not a number",
        "d": "minus infinity",
        "e": "\N{MINUS SIGN}0.50",
    }


def test_cards_of_texts_keep_their_names_apart():
    markup = design.text_cards([("before", "reward 1 < 2", "<del>a</del>"), ("after", "", "b")])
    assert "<del>a</del>" in markup
    assert bare(markup) == "before reward 1 &lt; 2aafter b"


def test_badges_differ_by_word_sign_and_shape():
    badges = {word: design.badge(word) for word in design.SIGNS}
    assert [bare(badge) for badge in badges.values()] == ["✓ ok", "✓ met", "✓ right", "▲ look", "○ open"]
    kinds = {word: re.search(r"rlhf-badge rlhf-(\w+)", badge)[1] for word, badge in badges.items()}
    assert kinds == {"ok": "ok", "met": "ok", "right": "ok", "look": "look", "open": "open"}


def test_a_list_of_badges():
    markup = design.badges([("met", "Do <b>this</b>"), ("open", "and that")])
    items = re.findall("<li>(.*?)</li>", markup)
    assert [bare(item) for item in items] == ["✓ met Do this", "○ open and that"] and "<b>this</b>" in items[
        0
    ]


@pytest.mark.parametrize(
    "done, of, share", [(0, 40, "0%"), (9, 40, "22%"), (40, 40, "100%"), (0, 0, "0%"), (1, 3, "33%")]
)
def test_a_ring(done, of, share):
    markup = design.ring(done, of)
    assert bare(markup) == str(done) and f"--rlhf-share:{share}" in markup


# Strips


def test_each_row_of_a_strip_has_its_own_scale():
    markup = design.strip([("a", 2.0, -0.01), ("b", -1.0, 0.02)], ("KL", "advantage"), "Caption")
    assert bare(markup).startswith("Caption")
    assert strip_pieces(markup) == [
        ("&nbsp;", "KL", "advantage"),
        ("a", "2.00", "\N{MINUS SIGN}0.01"),
        ("b", "\N{MINUS SIGN}1.00", "0.02"),
    ]
    blue, orange = palette.BLUE, palette.ORANGE
    assert strengths(markup) == [(blue, 150), (orange, 75), (orange, 75), (blue, 150)]


def test_strips_with_one_scale_can_be_compared():
    markup = design.strip([("a", 1.0, 1.0), ("b", 8.0, 0.5)], ("one", "two"), "", (4.0, 2.0))
    assert [strength for _, strength in strengths(markup)] == [38, 75, 150, 38]


def test_a_strip_can_be_read_without_the_style_sheet():
    text = bare(design.strip([("it", 0.5, -0.25), ("was", 0.0, 0.75)], ("KL", "advantage"), ""))
    assert text.split() == ["&nbsp;", "KL", "advantage", "it", "0.50", "\u22120.25", "was", "0.00", "0.75"]


def test_a_strip_of_zeros_has_no_colour():
    assert {strength for _, strength in strengths(design.strip([("a", 0.0), ("b", 0.0)], ("n",), ""))} == {0}


def test_a_strip_without_pieces():
    assert strip_pieces(design.strip([], ("n",), "Caption")) == [("&nbsp;", "n")]


@pytest.mark.parametrize("piece", [("a", 1.0), ("a", 1.0, 2.0, 3.0)])
def test_a_piece_has_a_number_for_each_name(piece):
    with pytest.raises((ValueError, IndexError)):
        design.strip([piece], ("KL", "advantage"), "")


@pytest.mark.parametrize("value", ODD)
def test_numbers_that_have_no_place_hide_no_others(value):
    markup = design.strip([("a", value, 1.0), ("b", 1.0, 4.0), ("c", -0.5, 2.0)], ("one", "two"), "caption")
    first, second = ([strength for _, strength in strengths(markup)][row::2] for row in (0, 1))
    assert second == [38, 150, 75]
    assert first == {1e308: [150, 0, 0]}.get(abs(value), [0 if value != value else 150, 150, 75])
    assert number(value) in markup and not re.search(r"\b(nan|inf)\b", markup)


# Sparklines


def drawn(markup):
    """The points of the line, the dot, and the words; every point lies in the picture."""
    picture = ET.fromstring(markup)
    _, _, width, height = map(float, picture.get("viewBox").split())
    points = [tuple(map(float, pair.split(","))) for pair in picture.find("polyline").get("points").split()]
    dot = picture.find("circle")
    assert all(0 < x < width and 0 < y < height for x, y in points)
    assert picture.get("role") == "img" and picture.find("title").text == picture.get("aria-label")
    return points, (float(dot.get("cx")), float(dot.get("cy"))), picture.get("aria-label")


def test_a_sparkline_rises_with_its_numbers_and_ends_in_a_dot():
    points, dot, words = drawn(design.sparkline("length", [1.0, 3.0, 2.0]))
    assert [x for x, _ in points] == [4.0, 79.0, 154.0] and dot == points[-1]
    assert points[1][1] < points[2][1] < points[0][1]  # pixels are counted from the top
    assert words == "length: 3 texts, lowest 1.00, highest 3.00, last 2.00"


@pytest.mark.parametrize("odd, said", [(None, "none"), *((value, number(value)) for value in ODD)])
def test_what_has_no_place_is_a_gap_in_the_sparkline(odd, said):
    points, dot, words = drawn(design.sparkline("a", [1.0, odd, 2.0]))
    assert [x for x, _ in points] == [4.0, 154.0] and words.endswith("lowest 1.00, highest 2.00, last 2.00")
    points, dot, words = drawn(design.sparkline("a", [1.0, 2.0, odd]))
    assert [x for x, _ in points] == [4.0, 79.0] and words.endswith(f"highest 2.00, last {said}")
    assert design.sparkline("a", [odd, odd]) == "" == design.sparkline("a", [])


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [-9e99, 9e99], [5e-324, 1e-323]])
def test_sparklines_of_numbers_of_every_size(values):
    points, dot, _ = drawn(design.sparkline("a", values))
    assert len(points) == len(values) and len({x for x, _ in points}) == len(values)


# Hostile text


def test_hostile_text_stays_text_in_every_part(hostile):
    made = {
        "table": design.table([{hostile: hostile, "b": 1}], hostile),
        "bars": design.bars([(hostile, 0.5)], hostile),
        "cards": design.cards({hostile: 0.5}),
        "text_cards": design.text_cards([(hostile, hostile, "")]),
        "strip": design.strip([(hostile, 0.5)], (hostile,), hostile),
        "sparkline": design.sparkline(hostile, [1.0, 2.0]),
        "folded": design.folded(hostile, ""),
        "continued": design.continued({"prompt": hostile, "output": hostile}).markup,
    }
    for name, markup in made.items():
        assert not active(behind_style(markup)) and not set("\x00\x07\u202e") & set(markup), name
        assert not re.search(r"[$\\]", re.sub(r"<span>[$\\]</span>", "", markup)), name
        markup.encode("utf-8")
    drawn(made["sparkline"])
