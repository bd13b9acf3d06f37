"""The sample explorer: its orders, its marks, its strip, and hostile text in every place."""

import re

import pytest
from read_markup import active, all_html, bare, behind_style, cells, columns, strip_pieces

from helpers.errors import CourseError
from helpers.widgets.html import number
from helpers.widgets.samples import SampleExplorer, marked

# name: reward before, reward after, KL of the two tokens
NUMBERS = {"up": (0.1, 0.9, 0.5), "down": (0.8, 0.3, 0.2), "best": (0.9, 0.95, 0.1), "far": (0.5, 0.6, 3.0)}


def make_row(name, before, after, nats):
    return {
        "prompt": f"prompt {name}",
        "before": " it was a bad film",
        "after": " it was a good film indeed",
        "reward_before": before,
        "reward_after": after,
        "tokens": [(" it", nats, -0.25), (" was", nats / 2, 0.75)],
    }


@pytest.fixture
def rows():
    return [make_row(name, *numbers) for name, numbers in NUMBERS.items()]


@pytest.fixture
def explorer(rows):
    return SampleExplorer(rows)


def prompt_shown(explorer):
    return re.search(r"prompt (\w+)<", explorer.shown.value)[1]


def text_cards(explorer):
    """The text of each card."""
    return [
        bare(card) for card in re.findall(r'<div class="rlhf-name">.*?</div>.*?</div>', explorer.shown.value)
    ]


@pytest.mark.parametrize(
    "order, names",
    {
        "largest gain": ["up", "far", "best", "down"],
        "largest loss": ["down", "best", "far", "up"],
        "highest reward after": ["best", "up", "far", "down"],
        "largest KL": ["far", "up", "down", "best"],
    }.items(),
)
def test_orders(explorer, order, names):
    explorer.sort.value = order
    seen = []
    for place in range(1, 5):
        explorer.sample.value = place
        seen.append(prompt_shown(explorer))
    assert seen == names


def test_another_order_begins_with_its_first_sample(explorer):
    for place in (1, 3):
        explorer.sort.value = "largest gain"
        assert prompt_shown(explorer) == "up"
        explorer.sample.value = place
        explorer.sort.value = "largest loss"
        assert explorer.sample.value == 1 and prompt_shown(explorer) == "down"


def test_previous_and_next_stop_at_the_ends(explorer):
    assert explorer.previous.disabled and not explorer.next.disabled
    explorer.previous.click()
    assert explorer.sample.value == 1
    for place in (2, 3, 4, 4):
        explorer.next.click()
        assert explorer.sample.value == place
    assert prompt_shown(explorer) == "down" and explorer.next.disabled
    explorer.previous.click()
    assert explorer.sample.value == 3 and not explorer.previous.disabled and not explorer.next.disabled


def test_rewards_gain_and_kl_are_said_in_numbers(explorer):
    for text in ("Sample 1 of 4", "gain 0.80", "KL 0.75 nats"):
        assert text in explorer.shown.value
    before, after = text_cards(explorer)
    assert before.startswith("before reward 0.10it was") and after.startswith("after reward 0.90it was")
    explorer.sample.value = 4
    assert "gain \N{MINUS SIGN}0.50" in explorer.shown.value


def test_the_strip_shows_kl_and_advantage(explorer):
    assert strip_pieces(explorer.shown.value) == [
        ("&nbsp;", "KL", "advantage"),
        (" it", "0.50", "\N{MINUS SIGN}0.25"),
        (" was", "0.25", "0.75"),
    ]
    assert "its KL in nats" in explorer.shown.value and "its advantage" in explorer.shown.value


def test_a_number_that_rounds_to_zero_has_no_sign(rows):
    rows[0]["tokens"] = [(" it", -0.001, -0.004)]
    assert strip_pieces(SampleExplorer(rows).shown.value)[1:] == [(" it", "0.00", "0.00")]


def without_bdi(static):
    return re.sub(r"</?bdi[^>]*>", "", static.markup)


def test_differences_are_marked_without_colour():
    before, after = marked(" it was a bad film", " it was a good film indeed")
    assert without_bdi(before) == "it was a <del>bad</del> film"
    assert without_bdi(after) == "it was a <ins>good</ins> film <ins>indeed</ins>"


@pytest.mark.parametrize(
    "before, after, old, new",
    [
        ("same", "same", "same", "same"),
        ("", "all new", "", "<ins>all new</ins>"),
        ("all old", "", "<del>all old</del>", ""),
        ("", "", "", ""),
    ],
)
def test_marks_at_the_edges(before, after, old, new):
    assert [without_bdi(text) for text in marked(before, after)] == [old, new]


def test_texts_of_many_words_are_cut_and_quick():
    before, after = marked("word " * 20000, "other " * 20000)
    assert len(before.markup) < 3000 and "more characters" in before.markup
    assert len(after.markup) < 3000


def test_static(explorer):
    shown = behind_style(explorer.static(count=3)._repr_html_())
    assert "3 of 4 samples, largest gain first" in shown
    assert columns(shown) == ["prompt", "before", "after", "reward before", "reward after", "KL"]
    assert [row[0] for row in cells(shown)] == ["prompt up", "prompt far", "prompt best"]
    assert cells(shown)[0][1:] == [
        *("it was a bad film", "it was a good film indeed"),
        *("0.10", "0.90", "0.75"),
    ]
    assert "<del>" in shown and "<ins>" in shown
    assert strip_pieces(shown)[1:] == strip_pieces(explorer.shown.value)[1:] != []
    explorer.sort.value = "largest loss"
    assert "largest loss first" in explorer.static().markup


def test_every_control_has_a_label(explorer):
    controls = [explorer.sort, explorer.sample, explorer.previous, explorer.next]
    assert all(control.description for control in controls)
    assert len({control.description for control in controls}) == len(controls)


def test_no_samples():
    explorer = SampleExplorer([])
    explorer.sort.value = "largest KL"
    explorer.next.click()
    explorer.previous.click()
    assert explorer.shown.value == explorer.static().markup == "There are no samples to show."


def test_a_sample_without_tokens(rows):
    rows[0]["tokens"], rows[0]["after"] = [], ""
    explorer = SampleExplorer(rows)
    assert "KL 0.00 nats" in explorer.shown.value and not strip_pieces(explorer.static().markup)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e308])
@pytest.mark.parametrize("place", ["reward_before", "reward_after", "tokens"])
def test_numbers_of_a_policy_that_diverged(rows, place, value):
    rows[0][place] = [(" it", value, value), (" was", 0.5, 0.5)] if place == "tokens" else value
    explorer = SampleExplorer(rows)
    for order in explorer.sort.options:
        explorer.sort.value = order
        names = []
        for explorer.sample.value in range(1, 5):
            names.append(prompt_shown(explorer))
            assert not re.search(r"\b(nan|inf)\b", explorer.shown.value)
            assert names[-1] != "up" or number(value) in explorer.shown.value
        assert sorted(names) == sorted(NUMBERS)
        assert number(value) in behind_style(explorer.static().markup)


@pytest.mark.parametrize(
    "order, place",
    [("largest gain", "reward_before"), ("largest loss", "reward_after"), ("largest KL", "tokens")],
)
def test_samples_without_a_number_come_last(rows, order, place):
    nan = float("nan")
    for row in rows[:2]:
        row[place] = [(" it", nan, nan)] if place == "tokens" else nan
    explorer = SampleExplorer(rows)
    explorer.sort.value = order
    assert [row["prompt"] for row in explorer.sorted_rows()][2:] == ["prompt up", "prompt down"]


def test_a_row_that_lacks_something(rows):
    del rows[2]["tokens"]
    with pytest.raises(CourseError, match="row 2 lacks tokens.*compare.token_view"):
        SampleExplorer(rows)


@pytest.mark.parametrize("place", ["prompt", "before", "after", "tokens"])
def test_hostile_text_stays_text(rows, hostile, place):
    rows[0][place] = [(hostile, 9.0, 1.0)] if place == "tokens" else hostile
    explorer = SampleExplorer(rows)
    shown = []
    for order in explorer.sort.options:
        explorer.sort.value = order
        for explorer.sample.value in range(1, 5):
            shown += all_html(explorer.view)
        shown.append(behind_style(explorer.static().markup))
    for text in shown:
        assert not active(text) and not set("\x00\u202e") & set(text) and len(text) < 40_000
