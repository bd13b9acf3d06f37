"""What every text goes through on its way into a page."""

import re

import pytest

from helpers.widgets.html import LIMIT, cell, encodable, escape, number, plain


def test_hostile_text_is_text(hostile):
    markup = escape(hostile)
    assert re.fullmatch(r'<bdi dir="auto">([^<>$\\]|<wbr>|<span>[$\\]</span>)*</bdi>', markup)
    assert not set("\x00\x07\u202e") & set(markup)


def test_what_is_not_seen_is_made_visible():
    assert plain("a\x00b\x07c\nd") == "a\u2400b\u2407c d"
    assert plain("turned \u202e round, half a pair \ud83d") == "turned \ufffd round, half a pair \ufffd"
    assert plain("\u05e9\u05dc\u05d5\u05dd \U0001f3ac") == "\u05e9\u05dc\u05d5\u05dd \U0001f3ac"


def test_a_long_text_is_cut_and_counted():
    assert plain("a" * (LIMIT + 7)).endswith("a… (7 more characters)")


def test_a_long_word_may_break():
    assert escape("b" * 100) == f'<bdi dir="auto">{"b" * 40}<wbr>{"b" * 40}<wbr>{"b" * 20}</bdi>'
    assert "<wbr>" not in escape("b" * 40 + " " + "c" * 40)


def test_formulas_stay_text():
    """MathJax finds a formula only where its first and last sign stand in one element, "$" and a backslash among them."""
    text = r"costs $5 and $7, \(x\)"
    markup = escape(text)
    assert re.sub("<.*?>", "", markup) == text
    assert not any({"$", "\\"} & set(piece) for piece in re.split("<.*?>", markup) if len(piece) > 1)


def test_half_a_pair_is_replaced_and_all_else_stays():
    assert encodable("a\ud83c b\udfac \U0001f3ac\n\x00\u202e") == "a\ufffd b\ufffd \U0001f3ac\n\x00\u202e"


@pytest.mark.parametrize(
    "value, shown",
    [
        (float("nan"), "not a number"),
        (float("inf"), "infinity"),
        (-float("inf"), "minus infinity"),
        (1e300, "1.00e+300"),
        (-1e9, "\u22121.00e+09"),
        (-999_999_999.0, "\u2212999999999.00"),
        (None, ""),
    ],
)
def test_numbers_of_every_size(value, shown):
    assert number(value) == shown and shown in cell(value)
