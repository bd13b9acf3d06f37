"""How various the texts of a round are."""

from collections import Counter
from collections.abc import Iterable

WORDS = 3
"""Words of an opening and of an ending. Of the embedded model's samples 3 to 9% share the commonest of either before training."""


def distinct_share(outputs: list[str]) -> float:
    """The share of distinct texts among `outputs`, from 1 / len(outputs), where all are the same, to 1."""
    return len(set(outputs)) / len(outputs)


def variety(outputs: list[str]) -> dict[str, float]:
    """Shares from 0 to 1: distinct outputs; outputs with the commonest opening and ending, of `WORDS` words each; distinct_2.

    distinct_2 is the share of distinct ones among all pairs of neighbouring words (Li et al. 2016, arxiv.org/abs/1510.03055), and 1
    where there is no pair.
    """
    rows = [output.split() for output in outputs]
    pairs = [pair for words in rows for pair in zip(words, words[1:], strict=False)]
    return {
        "distinct": distinct_share(outputs),
        "opening": commonest(tuple(words[:WORDS]) for words in rows),
        "ending": commonest(tuple(words[-WORDS:]) for words in rows),
        "distinct_2": len(set(pairs)) / len(pairs) if pairs else 1.0,
    }


def commonest(things: Iterable) -> float:
    """The share of the commonest among one thing or more."""
    counts = Counter(things)
    return counts.most_common(1)[0][1] / counts.total()
