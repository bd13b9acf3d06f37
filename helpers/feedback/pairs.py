"""Pairs of texts to compare, and which of them are worth a rater's time."""

import functools
import hashlib
import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import CourseError

SHARED = Path(__file__).parents[2] / "notebooks" / "data" / "shared_pairs.jsonl"
HELD_OUT = 5


@dataclass(frozen=True)
class Pair:
    """Two continuations of one prompt."""

    prompt: str
    first: str
    second: str

    @functools.cached_property
    def id(self) -> str:
        """12 hex digits that follow from the three texts: the same pair has the same id everywhere."""
        return fingerprint([self.prompt, self.first, self.second])[:12]


def fingerprint(values: list) -> str:
    """64 hex digits that follow from `values`."""
    return hashlib.sha256(json.dumps(values).encode("ascii")).hexdigest()


def shared_pairs_in_order() -> list[Pair]:
    """The sixty pairs of `shared_pairs`, in the order in which the labeller of notebook 09 shows them."""
    records = [json.loads(line) for line in SHARED.read_text(encoding="utf-8").splitlines()]
    return [Pair(record["prompt"], record["first"], record["second"]) for record in records]


def shared_pairs() -> dict[str, list[Pair]]:
    """Sixty pairs that are the same on every machine, so that the ratings of a class can be put together (`pool`).

    The course's small fine-tuned model wrote them, for prompts that notebook 09 does not use; no two are of one prompt.

    Returns:
        {"train": 48 pairs, "test": 12 pairs}: every fifth is held out, as the labeller of notebook 09 mixes them.
    """
    pairs = shared_pairs_in_order()
    test = pairs[HELD_OUT - 1 :: HELD_OUT]
    return {"train": [pair for pair in pairs if pair not in test], "test": test}


def choose_pairs(prompts: list[str], continuations: list[list[str]], count: int, seed: int = 0) -> list[Pair]:
    """Choose the pairs that a rating says most about: those of a prompt whose continuations share the fewest words.

    Two continuations that differ in one word leave the rater guessing, and a reward model learns only from what differs. So
    pairs are ordered by the share of their words that both have (Jaccard: words in both / words in either, letter case
    aside). First comes every prompt's most different pair, the prompts in random order, then every prompt's next, and so on:
    many prompts count for more than many pairs of one. Continuations that differ in nothing but spaces are never paired.
    With a reward model at hand one would choose pairs it is unsure of (Christiano et al. 2017, arxiv.org/abs/1706.03741,
    section 2.2.4); before the first rating there is none.

    Args:
        prompts: the prompts.
        continuations: for each prompt a list of continuations.
        count: how many pairs.
        seed: another seed takes the prompts in another order.
    Returns:
        The pairs in the order to be shown, none twice. The alphabetically earlier text of a pair is its `first`.
    Raises:
        CourseError: lists that do not fit each other, or fewer than `count` pairs, and how many there are.
    """
    if len(prompts) != len(continuations) or any(isinstance(texts, str) for texts in continuations):
        raise CourseError(
            f"there are {len(prompts)} prompts and {len(continuations)} entries of continuations: expected a list of "
            "continuations for each prompt."
        )
    chance = random.Random(seed)
    ranked = [
        (rank, chance.random(), pair)
        for prompt, texts in together(prompts, continuations).items()
        for rank, pair in enumerate(most_different(prompt, texts))
    ]
    if len(ranked) < count:
        raise CourseError(
            f"{count} pairs were asked for, but there are only {len(ranked)} pairs of different texts. Ask for at most "
            f"{len(ranked)}, or sample more continuations for each prompt."
        )
    ranked.sort(key=lambda entry: entry[:2])
    return [pair for _, _, pair in ranked[:count]]


def together(prompts: list[str], continuations: list[list[str]]) -> dict[str, list[str]]:
    """{prompt: its distinct continuations}; a prompt that comes more than once has those of all its entries."""
    found: dict[str, dict[str, str]] = {}
    for prompt, texts in zip(prompts, continuations, strict=True):
        known = found.setdefault(prompt, {})
        for text in texts:
            known.setdefault(" ".join(text.split()), text)
    return {prompt: list(known.values()) for prompt, known in found.items()}


def most_different(prompt: str, texts: list[str]) -> list[Pair]:
    """All pairs of a prompt's continuations, those with the fewest words in common first."""
    pairs = [Pair(prompt, *sorted(two)) for two in itertools.combinations(texts, 2)]
    return sorted(pairs, key=lambda pair: (shared_words(pair.first, pair.second), pair.id))


def shared_words(one: str, other: str) -> float:
    """Words in both / words in either, 0 to 1, letter case aside."""
    ours, theirs = set(one.lower().split()), set(other.lower().split())
    return len(ours & theirs) / (len(ours | theirs) or 1)
