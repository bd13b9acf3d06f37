"""Before and after, compared by somebody who is not told which is which: pairs to rate, and the win rate that the ratings give."""

import pandas as pd

from helpers.compare import Estimate, share_of_wins
from helpers.feedback.agreement import judged
from helpers.feedback.pairs import Pair
from helpers.feedback.ratings import Rating


def blind_pair(prompt: str, before: str, after: str) -> Pair:
    """A pair that does not say which text is which: the alphabetically earlier one is its `first`."""
    return Pair(prompt, *sorted([before, after]))


def blind_pairs(table: pd.DataFrame) -> list[Pair]:
    """The rows of what `compare.before_after` gave as pairs to rate, in order, none twice.

    A row whose two texts differ in nothing but spaces gives no pair: nobody could prefer one.
    """
    rows = zip(table["prompt"], table["before"], table["after"], strict=True)
    return list(dict.fromkeys(blind_pair(*row) for row in rows if row[1].split() != row[2].split()))


def blind_win_rate(table: pd.DataFrame, ratings: list[Rating]) -> Estimate:
    """The share of rated rows in which the text after was preferred; a tie counts half.

    A skipped pair does not count, and of a pair that a rater rated twice the first rating does. Ratings of other pairs do not
    count. Where several raters rated a row, each counts.

    Args:
        table: what the pairs were made of.
        ratings: ratings of these pairs.
    """
    said: dict[str, list[str]] = {}
    for (_, pair_id), choices in judged(ratings).items():
        said.setdefault(pair_id, []).append(choices[0])
    outcomes, prompts = [], []
    for prompt, before, after in zip(table["prompt"], table["before"], table["after"], strict=True):
        pair = blind_pair(prompt, before, after)
        for choice in said.get(pair.id, []):
            outcomes.append(0.5 if choice == "tie" else float(getattr(pair, choice) == after))
            prompts.append(prompt)
    return share_of_wins(outcomes, prompts)
