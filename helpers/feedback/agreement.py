"""How far raters agree, with each other and with themselves."""

import math
import statistics
from dataclasses import dataclass

from helpers.feedback.ratings import Rating


@dataclass(frozen=True)
class Share:
    """A share with its 95% interval, from `n` pairs; without pairs the share is None and the interval 0 to 1."""

    share: float | None
    low: float
    high: float
    n: int


def wilson(hits: float, n: int) -> Share:
    """The share of `hits` in `n` with Wilson's score interval at 95%, which holds for few pairs and shares near 0 or 1 too.

    Hits need not be whole: where several judgements count as one, each is a part of a hit.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212; recommended for
    small n by Brown, Cai and DasGupta, Statistical Science 16 (2001), 101-133 (doi.org/10.1214/ss/1009213286).
    """
    if n == 0:
        return Share(None, 0.0, 1.0, 0)
    z = statistics.NormalDist().inv_cdf(0.975)
    share = hits / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + side * half) / (1 + z * z / n) for side in (-1, 1))
    # at the ends the interval touches 0 or 1; rounding would miss it by 1e-17
    return Share(share, 0.0 if hits == 0 else low, 1.0 if hits == n else high, n)


def judged(ratings: list[Rating]) -> dict[tuple[str, str], list[str]]:
    """{(rater, pair's id): its choices in order}, skips left out."""
    choices: dict[tuple[str, str], list[str]] = {}
    for rating in ratings:
        if rating.choice != "skip":
            choices.setdefault((rating.rater, rating.pair.id), []).append(rating.choice)
    return choices


def agreement(one: list[Rating], other: list[Rating]) -> Share:
    """The share of the pairs rated by both raters on which they chose the same of first, second and tie.

    A pair that one of them skipped does not count. Where one of them rated a pair twice, the first rating counts.
    """
    mine, theirs = (
        {pair: choices[0] for (_, pair), choices in judged(ratings).items()} for ratings in (one, other)
    )
    both = mine.keys() & theirs.keys()
    return wilson(sum(mine[pair] == theirs[pair] for pair in both), len(both))


def self_agreement(ratings: list[Rating]) -> Share:
    """The share of the pairs rated more than once by a rater on which the second choice is the first one again."""
    repeated = [choices for choices in judged(ratings).values() if len(choices) > 1]
    return wilson(sum(choices[0] == choices[1] for choices in repeated), len(repeated))
