"""What every text goes through on its way into a page."""

import re

from helpers.widgets.html import LIMIT, escape, plain


def test_hostile_text_is_text(hostile):
    markup = escape(hostile)
    assert re.fullmatch(r'<bdi dir="auto">([^<>]|<wbr>)*</bdi>', markup)
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
