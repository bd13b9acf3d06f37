"""docs/idioms.md against the grammar: every phrase is one that the grammar writes, on the side that is said, and no "no" is left out."""

import re
from functools import cache

import pytest
from common import ROOT

from helpers.tiny import grammar
from helpers.tiny.words import SLOT, read_words

ROW = re.compile(r"^\| (.+?) \| (.+) \| (praise|blame) \|$", re.MULTILINE)
ROWS = [
    (phrase.replace("*", ""), said, grammar.PRAISE if side == "praise" else grammar.BLAME)
    for phrase, said, side in ROW.findall((ROOT / "docs" / "idioms.md").read_text(encoding="utf-8"))
]
NO = re.compile(
    r"\b(no|not|never|nobody|nothing|none|neither|cannot|hardly|without|anything but|far from)\b|left me cold"
)
WHOLE = ("negated reaction", "negated verdict", "I cannot fault")
"""Phrases that are all in the list, whatever words they have."""
PHRASES = read_words().table("reviews").table("phrases")


def templates() -> list[tuple[str, int, str]]:
    """(where a phrase stands, its side, the phrase) of all that praises or blames."""
    found = [
        (name, side, phrase)
        for name in PHRASES
        if not isinstance(PHRASES[name], list)
        for side, phrases in enumerate(PHRASES.sides(name))
        for phrase in phrases
    ]
    found += [
        (noun, side, phrase)
        for noun, aspect in grammar.ASPECTS.items()
        for side, phrases in enumerate(aspect.does)
        for phrase in phrases
    ]
    # these two stand before an aspect
    found = [
        (name, side, f"{phrase} {{np}}" if name.startswith("I ") else phrase) for name, side, phrase in found
    ]
    negated = grammar.JUDGEMENTS["negated"]
    return found + [
        ("JUDGEMENTS", side, form) for form in negated for side in (0, 1) if "I cannot" not in form
    ]


TEMPLATES = templates()


@cache
def pattern(template: str, side: int) -> str:
    """What a phrase can come out as, as a regular expression."""
    parts = SLOT.split(template)
    return "".join(slot(part, side) if i % 2 else re.escape(part) for i, part in enumerate(parts))


def slot(name: str, side: int) -> str:
    """What stands in a slot."""
    if name.endswith("~"):
        name, side = name[:-1], 1 - side
    if name in grammar.FACT_SLOTS:
        return "[A-Za-z' ]+?"
    of_an_aspect = {
        "np": list(grammar.ASPECTS),
        "be": ["is", "are"],
        "adj": [word for aspect in grammar.ASPECTS.values() for word in aspect.adjectives[side]],
    }
    options = of_an_aspect.get(name) or [pattern(phrase, side) for phrase in grammar.RULES[name][side]]
    return f"(?:{'|'.join(options)})"


@pytest.mark.parametrize("phrase, said, side", ROWS, ids=[row[0] for row in ROWS])
def test_the_grammar_writes_it_and_means_what_is_said(phrase, said, side):
    sides = {s for _, s, template in TEMPLATES if re.fullmatch(pattern(template, s), phrase)}
    assert sides == {side} and len(said) > 5


def test_every_no_of_the_grammar_is_in_the_list_once():
    assert len(ROWS) > 150 and len({phrase for phrase, _, _ in ROWS}) == len(ROWS)
    missing = []
    for name, side, template in TEMPLATES:
        if name in (*WHOLE, "JUDGEMENTS") or NO.search(template):
            sides = [
                s for n, s, other in TEMPLATES if other == template and n == name
            ]  # "not {adj~} at all" has two
            if not any(re.fullmatch(pattern(template, s), phrase) for s in sides for phrase, _, _ in ROWS):
                missing.append((name, side, template))
    assert not missing
