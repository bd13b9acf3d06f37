"""The reward inspector, driven by its controls: what it shows, keeps, counts and says when something is wrong."""

import re
import subprocess
import sys
from html import unescape

import ipywidgets
import pytest
from read_markup import (
    active,
    all_html,
    bar_widths,
    bare,
    behind_style,
    card_figures,
    cells,
    columns,
    strip_pieces,
    tree,
)

from helpers.errors import CourseError
from helpers.widgets.inspector import MAX_WORDS, SHOWN, Challenge, RewardInspector, checked_scores, read_once


class Counting:
    """A reward function that remembers the lists it was called with."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, samples, **kwargs):
        self.calls.append(list(samples))
        return [self.function(sample) for sample in samples]


def length(samples, **kwargs):
    return [float(len(sample.split())) for sample in samples]


def greats(samples, **kwargs):
    return [float(sample.count("great")) for sample in samples]


def classes(text):
    return {"POSITIVE": 0.25, "NEGATIVE": 0.75}


def words_of(inspector):
    return unescape(inspector.moved.value)


@pytest.fixture
def inspector():
    tasks = [Challenge("Say great twice.", lambda text, rewards: rewards["greats"] >= 2)]
    texts = {"review": ["a great film", "a bad film"], "sample": ["a great great film"]}
    parts = {length: 0.5, greats: -2}
    return RewardInspector({"length": length, "greats": greats}, classes, parts, texts, tasks)


def test_starts_with_the_first_text(inspector):
    assert inspector.text.value == "a great film"
    assert inspector.history == [{"text": "a great film", "length": 3.0, "greats": 1.0}]


def test_pick(inspector):
    assert [label for label, _ in inspector.pick.options] == ["your own text", "review", "sample"]
    inspector.number.value = 2
    assert inspector.text.value == "a bad film" and inspector.pick.value == 1
    inspector.pick.value = 2  # one sample: the number falls to 1
    assert inspector.text.value == "a great great film" and inspector.number.value == 1
    inspector.text.value = "my own"
    assert inspector.pick.value == 0 and inspector.number.disabled and inspector.text.value == "my own"
    inspector.pick.value = 2
    assert inspector.text.value == "a great great film" and not inspector.number.disabled
    inspector.number.value = 99
    assert inspector.text.value == "a great great film" and inspector.number.value == 1


def test_rewards_side_by_side(inspector):
    inspector.text.value = "great great great four five"
    assert card_figures(inspector.scores.value) == {"length": "5.00", "greats": "3.00"}


def test_class_scores_as_bars_in_the_order_of_the_labels(inspector):
    shown = inspector.scores.value
    assert bar_widths(shown) == ["75", "25"]
    assert shown.index("NEGATIVE") < shown.index("POSITIVE")


def test_parts_add_up(inspector):
    inspector.text.value = "great great three four five"
    shown = inspector.scores.value[inspector.scores.value.index("What each part contributes") :]
    assert columns(shown) == ["part", "weight", "reward", "contributes"]
    assert cells(shown) == [
        ["length", "0.50", "5.00", "2.50"],
        ["greats", "\u22122.00", "2.00", "\u22124.00"],
        ["sum", "", "", "\u22121.50"],
    ]


def test_each_function_reads_a_text_once():
    counting = Counting(len)
    inspector = RewardInspector({"a": counting, "b": length}, parts={counting: 2.0, length: 1.0})
    inspector.text.value = "one text"
    inspector.text.value = "another"
    inspector.text.value = "one text"
    assert counting.calls == [["one text"], ["another"]]


def test_functions_that_share_a_judge_read_once():
    calls = []

    def judge(texts):
        calls.append(texts)
        return [{"POSITIVE": float(len(text))} for text in texts]

    judged = read_once(judge)
    inspector = RewardInspector(
        {name: lambda samples: [scores["POSITIVE"] for scores in judged(samples)] for name in "ab"},
        lambda text: judged([text])[0],
    )
    inspector.text.value = "go go"
    inspector.words.click()
    inspector.explain.value = "b"
    inspector.words.click()
    assert calls == [["go go"], ["go", "go "]]
    assert judged(["new", "go go", "new"]) == [{"POSITIVE": n} for n in (3.0, 5.0, 3.0)]
    assert calls[2:] == [["new"]]


def test_words_in_one_call():
    counting = Counting(lambda sample: float(sample.count("great")))
    inspector = RewardInspector({"a": counting})
    inspector.text.value = "A  great film,\nnot dull"
    assert inspector.moved.value == "" and len(counting.calls) == 1
    inspector.words.click()
    assert counting.calls[1:] == [
        [
            "great film,\nnot dull",
            "A  film,\nnot dull",
            "A  great not dull",
            "A  great film,\ndull",
            "A  great film,\nnot ",
        ]
    ]
    assert strip_pieces(inspector.moved.value) == [
        ("&nbsp;", "a"),
        *(("A", "0.00"), ("great", "1.00"), ("film,", "0.00"), ("not", "0.00"), ("dull", "0.00")),
    ]


def test_words_that_lower_are_below_zero():
    inspector = RewardInspector({"a": lambda samples: [-float("bad" in sample) for sample in samples]})
    assert inspector.leave_one_out(inspector.reward_fns["a"], "bad film") == [("bad", -1.0), ("film", 0.0)]


def test_a_word_that_hardly_lowers_is_zero_without_a_sign():
    inspector = RewardInspector({"a": lambda samples: [-0.001 * len(sample) for sample in samples]})
    inspector.text.value = "bad"
    inspector.words.click()
    assert ">0.00<" in words_of(inspector) and "\u2212" not in words_of(inspector)


def test_words_of_the_chosen_reward_and_gone_with_the_text(inspector):
    inspector.words.click()
    assert "By how much length falls" in words_of(inspector)
    inspector.explain.value = "greats"
    assert words_of(inspector) == ""
    inspector.words.click()
    assert "By how much greats falls" in words_of(inspector)
    inspector.text.value = "a new text"
    assert words_of(inspector) == ""


def test_words_of_a_long_text():
    counting = Counting(len)
    inspector = RewardInspector({"a": counting})
    inspector.text.value = "word " * 5000
    inspector.words.click()
    assert len(counting.calls[1]) == MAX_WORDS
    assert f"the first {MAX_WORDS} words" in words_of(inspector)


def test_no_text():
    counting = Counting(len)
    inspector = RewardInspector({"a": counting}, classes, parts={counting: 1.0})
    inspector.text.value = "  \n"
    inspector.words.click()
    assert "Type a text" in inspector.scores.value and "no words yet" in words_of(inspector)
    assert counting.calls == [] and inspector.history == []


def test_history_keeps_the_order_and_each_text_once(inspector):
    for text in ("b", "a", "b", " ", "a great film"):
        inspector.text.value = text
    assert [row["text"] for row in inspector.history] == ["a great film", "b", "a"]
    assert [list(row) for row in inspector.history] == [["text", "length", "greats"]] * 3


def test_history_shows_the_latest():
    inspector = RewardInspector({"a": length})
    for number in range(SHOWN + 5):
        inspector.text.value = f"text{number:03d}"
    assert len(inspector.history) == SHOWN + 5
    assert "text004" not in inspector.tried.value and "text005" in inspector.tried.value
    assert f"the latest {SHOWN} of {SHOWN + 5}" in inspector.tried.value


@pytest.mark.parametrize("count", [1, 2, 3, SHOWN + 5])
def test_history_is_a_line_for_each_reward(count):
    inspector = RewardInspector({"length": length, "greats": greats})
    for number in range(count):
        inspector.text.value = "word " * (number + 1)
    names = re.findall(r'aria-label="(.*?)"', inspector.lines.value)
    assert names == [
        f"length: {count} texts, lowest 1.00, highest {count}.00, last {count}.00",
        f"greats: {count} texts, lowest 0.00, highest 0.00, last 0.00",
    ]
    points = [points.count(",") for points in re.findall(r'points="(.*?)"', inspector.lines.value)]
    assert points == [count, count]


def test_history_has_no_lines_before_the_first_text():
    inspector = RewardInspector({"length": length})
    assert bare(inspector.lines.value) == inspector.tried.value == ""


def test_a_reward_that_failed_is_a_gap_in_its_line():
    inspector = RewardInspector({"a": lambda samples: [1.0] if "good" in samples[0] else None})
    for text in ("good", "bad", "good again", "worse"):
        inspector.text.value = text
    assert "a: 4 texts, lowest 1.00, highest 1.00, last none" in inspector.lines.value
    assert [row[2] for row in cells(inspector.tried.value)] == ["1.00", "", "1.00", ""]


def test_the_texts_tried_are_folded_until_they_are_asked_for(inspector):
    fold = next(
        part
        for part in tree(inspector.view)
        if isinstance(part, ipywidgets.ToggleButton) and part.description == "Texts tried"
    )
    assert inspector.tried.layout.display == "none" and inspector.lines.layout.display is None
    fold.value = True
    assert inspector.tried.layout.display is None
    inspector.text.value = "another"
    assert inspector.tried.layout.display is None and "another" in inspector.tried.value
    fold.value = False
    assert inspector.tried.layout.display == "none"


def badge_words(inspector):
    return re.findall(r'<span class="rlhf-badge rlhf-\w+">. (\w+)</span>', inspector.tasks.value)


def test_challenge_says_when_it_is_met(inspector):
    assert badge_words(inspector) == ["open"] and "with:" not in inspector.tasks.value
    inspector.text.value = "great great"
    assert badge_words(inspector) == ["met"] and "with: great great" in bare(inspector.tasks.value)
    inspector.text.value = "not any more"
    inspector.text.value = "great great great"
    assert list(inspector.met_with.values()) == ["great great"]
    assert badge_words(inspector) == ["met"] and bare(inspector.tasks.value).endswith("with: great great")


def test_challenges_are_met_one_by_one():
    tasks = [
        Challenge(f"Say great {count} times.", lambda text, rewards, count=count: rewards["a"] >= count)
        for count in (1, 2, 3)
    ]
    inspector = RewardInspector({"a": greats}, challenges=tasks)
    for text, words in [("great", "met open open"), ("great great great", "met met met")]:
        inspector.text.value = text
        assert badge_words(inspector) == words.split()
    assert [bare(inspector.tasks.value).count(f"{place}. Say great") for place in (1, 2, 3)] == [1, 1, 1]


def test_reward_per_token_is_summed():
    inspector = RewardInspector({"a": lambda samples: [[1.0, 2.5] for _ in samples]})
    inspector.text.value = "text"
    assert inspector.history[0]["a"] == 3.5


def test_any_of_the_contracts_arguments():
    inspector = RewardInspector({"a": lambda texts: [1.0] * len(texts), "b": lambda outputs, prompts: [2.0]})
    inspector.text.value = "text"
    assert inspector.history == [{"text": "text", "a": 1.0, "b": 2.0}]


@pytest.mark.parametrize(
    "broken, said",
    [
        (lambda samples: 1 / 0, "it raised ZeroDivisionError"),
        (lambda samples: None, "is a `return` missing"),
        (lambda samples: [], "0 rewards for 1 samples"),
        (lambda samples: ["0.5"], "of type str"),
        (lambda samples: [float("nan")], "nan"),
        (lambda samples, stars: [1.0], "missing 1 required positional argument: 'stars'"),
    ],
)
def test_a_broken_reward_is_named_and_the_other_still_shown(broken, said):
    never = Challenge("Anything.", lambda text, rewards: rewards["bad"] > 0)
    inspector = RewardInspector({"bad": broken, "good": length}, classes, {broken: 1.0}, challenges=[never])
    inspector.text.value = "two words"
    shown = unescape(inspector.scores.value)
    assert 'with <bdi dir="auto">bad: ' in shown and said in shown and "run its cell" in shown
    assert card_figures(inspector.scores.value) == {"bad": "–", "good": "2.00"} and "part " in shown
    assert inspector.history == [{"text": "two words", "bad": None, "good": 2.0}]
    assert badge_words(inspector) == ["open"] and "Problem" not in inspector.tasks.value
    inspector.words.click()
    assert said in words_of(inspector)
    inspector.explain.value = "good"
    inspector.words.click()
    assert "Problem" not in words_of(inspector)


def test_a_reward_that_fails_without_a_word_only():
    inspector = RewardInspector({"a": lambda samples: [1 / len(sample.split()) for sample in samples]})
    inspector.text.value = "word"
    inspector.words.click()
    assert "ZeroDivisionError" in words_of(inspector)


def test_a_failure_is_not_remembered():
    working = []
    inspector = RewardInspector({"a": lambda samples: length(samples) if working else None})
    inspector.text.value = "text"
    working.append(True)
    inspector.text.value = "other"
    inspector.text.value = "text"
    assert card_figures(inspector.scores.value) == {"a": "1.00"} and "Problem" not in inspector.scores.value


def test_a_broken_challenge_is_named():
    challenge = Challenge("Any.", lambda text, rewards: rewards["nobody"] > 0)
    inspector = RewardInspector({"a": length}, challenges=[challenge])
    inspector.text.value = "text"
    assert "challenge 1: it raised KeyError" in unescape(inspector.tasks.value)
    assert badge_words(inspector) == ["open"]


@pytest.mark.parametrize("scores", [None, {}, [0.5], {"A": float("nan")}, {"A": "high"}])
def test_broken_class_scores_are_named(scores):
    inspector = RewardInspector({"a": length}, lambda text: scores)
    inspector.text.value = "text"
    assert "class scores: " in inspector.scores.value and not bar_widths(inspector.scores.value)
    assert card_figures(inspector.scores.value) == {"a": "1.00"}


def test_parts_that_outgrow_the_numbers():
    """Finite rewards, and weights that make them infinite: shown as that, and no error."""
    inspector = RewardInspector({"a": length}, parts={length: 1e308, greats: -1e308})
    for text in ["great " * 20, "word " * 20]:
        inspector.text.value = text
        assert "infinity" in inspector.scores.value and "Problem" not in inspector.scores.value
    assert "not a number" in inspector.static().markup or "infinity" in inspector.static().markup


def test_words_that_move_it_infinitely():
    inspector = RewardInspector({"a": lambda samples: [1.7e308 * (-1) ** len(s.split()) for s in samples]})
    inspector.text.value = "two words"
    inspector.words.click()
    assert "infinity" in words_of(inspector) and "Problem" not in words_of(inspector)


def test_rewards_per_token_whose_sum_is_too_large_are_a_problem_with_a_name():
    inspector = RewardInspector({"a": lambda samples: [[1.7e308, 1.7e308] for _ in samples]})
    inspector.text.value = "word"
    assert "Problem" in inspector.scores.value


def test_class_scores_as_numbers():
    assert checked_scores(lambda text: {"B": 1, "A": 0}, "text") == [("A", 0.0), ("B", 1.0)]


@pytest.mark.parametrize("reward_fns", [{}, {"text": length}])
def test_names_of_rewards(reward_fns):
    with pytest.raises(CourseError, match="by their names"):
        RewardInspector(reward_fns)


def test_controls_have_names(inspector):
    controls = [inspector.pick, inspector.number, inspector.text, inspector.explain, inspector.words]
    assert all(control.description for control in controls)


def test_static_shows_all(inspector):
    inspector.explain.value = "greats"
    inspector.text.value = "great great"
    shown = inspector.static()._repr_html_()
    for part in (inspector.scores, inspector.moved, inspector.tasks, inspector.lines, inspector.tried):
        assert part.value and part.value in shown
    assert "Text: " in shown and "By how much greats falls" in shown


def test_static_without_a_text():
    assert "Type a text" in RewardInspector({"a": length}).static()._repr_html_()


def raising(text):
    def reward_fn(samples, **kwargs):
        raise ValueError(text)

    return reward_fn


def test_hostile_text_everywhere(hostile):
    met = Challenge(f"Do {hostile}", lambda text, rewards: True)
    failing = Challenge(f"Do {hostile}", lambda text, rewards: {}[hostile])
    part = raising(hostile)
    part.__name__ = hostile
    inspector = RewardInspector(
        {f"name {hostile}": length, "raises": part},
        lambda text: {hostile: 0.5},
        parts={part: 1.0, length: 1.0},
        texts={hostile: [hostile, f"x {hostile}"]},
        challenges=[met, failing],
    )
    inspector.text.value = f"typed {hostile}"
    good = RewardInspector({f"name {hostile}": length}, challenges=[met, failing])
    good.text.value = f"typed {hostile}"
    for shown in (inspector, good):
        for name in shown.reward_fns:
            shown.explain.value = name
            for markup in [*all_html(shown.view), behind_style(shown.static()._repr_html_())]:
                assert not active(markup) and "\x00" not in markup
    labels = [label for label, _ in (*inspector.pick.options, *inspector.explain.options)]
    assert not any("\x00" in label or len(label) > 4200 for label in labels)


def test_imports_no_torch():
    code = "import sys, helpers.widgets.inspector; assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
