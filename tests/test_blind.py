"""Before and after, compared blind: pairs do not tell which text is which, and ratings made in the labeller give the win rate."""

import random
from dataclasses import replace

import pandas as pd
import pytest

from helpers.compare import win_rate
from helpers.feedback.blind import blind_pairs, blind_win_rate
from helpers.feedback.ratings import Ratings
from helpers.feedback.simulated import SimulatedRater
from helpers.widgets import labeller
from helpers.widgets.labeller import PreferenceLabeller

WORDS = ["a bore", "a joy", "long", "moving", "slow", "well acted", "badly lit", "short"]


def word_counts(texts):
    return [float(len(text.split())) for text in texts]


def before_after(prompts=60, samples=1, seed=0):
    """A table as `compare.before_after` gives: texts of words drawn at random, a reward for each word."""
    chance = random.Random(seed)
    texts = [
        [" ".join(chance.sample(WORDS, chance.randint(1, 5))) for _ in range(2)]
        for _ in range(prompts * samples)
    ]
    table = pd.DataFrame(texts, columns=["before", "after"])
    table.insert(0, "prompt", [f"Film {i} was " for i in range(prompts)] * samples)
    for name in ("before", "after"):
        table[f"reward_{name}"] = word_counts(table["prompt"] + table[name])
    return table.assign(gain=table["reward_after"] - table["reward_before"])


def swapped(table):
    return table.rename(columns={"before": "after", "after": "before"})


@pytest.fixture
def rate(tmp_path, monkeypatch):
    """Rate pairs in the labeller: `choose` gets the prompt and the texts at the left and at the right, and names a button."""
    monkeypatch.setattr(labeller, "MIN_SECONDS", 0)

    def rate(pairs, choose, rater="Ada"):
        lab = PreferenceLabeller(pairs, Ratings(tmp_path / "blind.jsonl"), rater)
        while lab.pair:
            left, right = (getattr(lab.pair, side) for side in (lab.side, labeller.OTHER[lab.side]))
            getattr(lab, choose(lab.pair.prompt, left, right)).click()
        return lab.ratings.standing(rater)

    return rate


def test_a_pair_does_not_tell_which_text_is_which():
    table = before_after()
    pairs = blind_pairs(table)
    assert pairs == blind_pairs(swapped(table)) and len(pairs) > 50
    assert {(pair.prompt, *sorted([pair.first, pair.second])) for pair in pairs} <= {
        (row.prompt, *sorted([row.before, row.after])) for row in table.itertuples()
    }


def test_a_rater_who_knows_wins_every_pair(rate):
    table = before_after()
    new = {(row.prompt, row.after) for row in table.itertuples()}
    pairs = blind_pairs(table)

    def after(prompt, left, right):
        return "left" if (prompt, left) in new else "right"

    ratings = rate(pairs, after)
    assert len(ratings) > len(pairs)  # some were shown twice
    found = blind_win_rate(table, ratings)
    assert found.mean == found.high == 1 and 0.9 < found.low < 1 and found.prompts == len(pairs)
    assert blind_win_rate(swapped(table), ratings).mean == 0


def test_a_rater_who_always_takes_the_left_one_finds_no_difference(rate):
    table = before_after(prompts=200)
    found = blind_win_rate(table, rate(blind_pairs(table), lambda prompt, left, right: "left"))
    assert found.low < 0.5 < found.high and 0.4 < found.mean < 0.6


def test_an_unerring_rater_gives_the_win_rate_of_the_rewards():
    table = before_after(samples=3)
    rater = SimulatedRater(word_counts, error_rate=0, tie_margin=1.5)
    found = blind_win_rate(table, rater.rate(blind_pairs(table)))
    shown = table[table["before"] != table["after"]]
    assert found == win_rate(shown, tie_margin=1.5)
    assert found.prompts == 60 and 0 < found.mean < 1


def test_ties_count_half_skips_and_second_thoughts_do_not_count(rate):
    table = before_after()
    pairs = blind_pairs(table)[:20]
    assert blind_win_rate(table, rate(pairs, lambda prompt, left, right: "tie")).mean == 0.5
    skipped = rate(pairs, lambda prompt, left, right: "skip", rater="Bob")
    assert blind_win_rate(table, skipped).mean is None
    first = SimulatedRater(word_counts, error_rate=0).rate(pairs)
    second = [replace(rating, id=f"again {rating.id}", choice="tie") for rating in first]
    assert blind_win_rate(table, first + second) == blind_win_rate(table, first)
    assert blind_win_rate(table, second + first).mean == 0.5


def test_other_pairs_do_not_count_and_too_few_have_no_interval():
    table, other = before_after(), before_after(seed=1)
    ratings = SimulatedRater(word_counts).rate(blind_pairs(table))
    assert blind_win_rate(table, ratings + SimulatedRater(word_counts).rate(blind_pairs(other))) == (
        blind_win_rate(table, ratings)
    )
    assert f"{blind_win_rate(other, ratings):.0%}" == "nothing to compare yet"
    assert "no interval: 12 of the 20 prompts" in f"{blind_win_rate(table, ratings[:12]):.0%}"


def test_texts_that_are_alike_are_not_shown_and_both_ways_is_half():
    rows = [
        ("A film", " is good.", " is  good. "),
        ("A film", " is good.", " is bad."),
        ("A film", " is bad.", " is good."),
    ]
    table = pd.DataFrame(rows, columns=["prompt", "before", "after"])
    (pair,) = blind_pairs(table)
    assert {pair.first, pair.second} == {" is good.", " is bad."}
    assert blind_win_rate(table, SimulatedRater(word_counts).rate([pair])).mean == 0.5
    likes_good = SimulatedRater(lambda texts: [float("good" in text) for text in texts], error_rate=0)
    assert blind_win_rate(table, likes_good.rate([pair])).mean == 0.5
