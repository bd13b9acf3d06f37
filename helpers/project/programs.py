"""Rewards that a program checks, in a few words: `words>=10`, `ends with .`. They are parsed here; nothing in them is run.

A program looks at the continuation alone, because the prompt is the same whatever the policy does.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

GRAMMAR = (
    "words, chars or sentences, then >=, <= or ==, then a whole number, as in words>=10; "
    "or contains, starts with or ends with, then a text, as in contains film"
)
WORDS = {">=": "at least", "<=": "at most", "==": "exactly"}
COMPARISONS = {">=": operator.ge, "<=": operator.le, "==": operator.eq}
COUNTED = re.compile(r"(words|chars|sentences)\s*(>=|<=|==)\s*(\d{1,9})")
TEXT = re.compile(r"(contains|starts with|ends with)\s+(.+)", re.DOTALL)
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?:\s+|$)")


@dataclass(frozen=True)
class Program:
    """A check of a continuation: `name` as one writes it, `words` for a sentence, and `holds(continuation)`."""

    name: str
    words: str
    holds: Callable[[str], bool]

    def __call__(self, outputs: list[str]) -> list[float]:
        """1.0 for each continuation for which the check holds, else 0.0."""
        return [float(self.holds(output)) for output in outputs]


def parse(spec: str) -> Program | None:
    """The program that a text describes; None where it describes none.

    What is counted: characters without the spaces around; words, which are what stands between spaces and has a letter or a digit;
    sentences, which end with . ! ? or …, and of which one that is cut off counts too. Letter case does not matter to a text, nor do
    spaces around the continuation.
    """
    if found := COUNTED.fullmatch(spec):
        what, sign, number = found[1], found[2], int(found[3])
        count, compare = COUNTS[what], COMPARISONS[sign]
        unit = {"chars": "character"}.get(what, what.removesuffix("s"))
        words = f"the continuation has {WORDS[sign]} {number} {unit}{'' if number == 1 else 's'}"
        return Program(f"{what}{sign}{number}", words, lambda text: compare(count(text), number))
    if found := TEXT.fullmatch(spec):
        wanted = unquoted(found[2])
        if not wanted.strip():
            return None
        holds, wanted_lower = CHECKS[found[1]], wanted.lower()
        return Program(
            f"{found[1]} {wanted}",
            f"the continuation {found[1]} {wanted!r}",
            lambda text: holds(text.strip().lower(), wanted_lower),
        )
    return None


def unquoted(text: str) -> str:
    """The text without the quotation marks around it, where there are two of a kind."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def count_words(text: str) -> int:
    """How many words; a lone dash is none."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def count_sentences(text: str) -> int:
    """How many sentences, the last of which may be cut off."""
    return sum(bool(part.strip()) for part in SENTENCE_END.split(text))


COUNTS = {"words": count_words, "chars": lambda text: len(text.strip()), "sentences": count_sentences}
CHECKS = {"contains": operator.contains, "starts with": str.startswith, "ends with": str.endswith}
