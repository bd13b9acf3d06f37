"""What holds for every widget and every static double, whatever the text: it can be sent to a page, and no formula is in it."""

import json
import re

import pytest
from read_markup import active, all_html, behind_style

from helpers.feedback.pairs import Pair
from helpers.feedback.ratings import Rating, Ratings
from helpers.widgets import design
from helpers.widgets.diagnosis import Diagnosis
from helpers.widgets.inspector import Challenge, RewardInspector
from helpers.widgets.kl_lab import KLLab
from helpers.widgets.labeller import PreferenceLabeller
from helpers.widgets.prompts import PromptBrowser
from helpers.widgets.samples import SampleExplorer


def inspector(text, path):
    def reward_fn(samples, **kwargs):
        return [float(len(sample)) for sample in samples]

    def raises(samples, **kwargs):
        raise ValueError(text)

    reward_fn.__name__ = text
    met = Challenge(text, lambda text, rewards: True)
    fails = Challenge(text, lambda text, rewards: raises(text))
    shown = RewardInspector(
        {f"reward {text}": reward_fn, "raises": raises},
        lambda typed: {text: 0.5},
        {reward_fn: 1.0},
        {text: [text], "more": [f"{text} and more"]},
        [met, fails],
    )
    shown.pick.value = 2
    shown.words.click()
    return shown


def browser(text, path):
    shown = PromptBrowser(
        [text, f"{text} and more"],
        lambda prompts: [[text] * 3 for _ in prompts],
        lambda prompts, *settings: [text for _ in prompts],
        lambda samples: [1.0 for _ in samples],
    )
    shown.sample.click()
    return shown


def failing_browser(text, path):
    def fail(*arguments):
        raise ValueError(text)

    shown = PromptBrowser([text], fail, fail, fail)
    shown.sample.click()
    return shown


def explorer(text, path):
    rewards = {"reward_before": 0.0, "reward_after": 1.0}
    return SampleExplorer(
        [{"prompt": text, "before": text, "after": f"{text} x", "tokens": [(text, 1.0, 1.0)], **rewards}]
    )


def lab(text, path):
    run = {"beta": 0.1, "step": 0, "reward": 0.0, "kl": 0.0}
    return KLLab([run], [{"beta": 0.1, "prompt": text, "output": text, "reward": 0.5}])


def diagnosis(text, path):
    words = dict(what=text, sure=text, tell=text)
    cases = [
        dict(run=f"{name} {text}", after="well", cure=f"{name} {text}", **words) for name in ("sick", "ill")
    ]
    curves = [
        {"run": run, "step": step, "reward": step, f"curve {text}": 1.0}
        for run in ("well", *(case["run"] for case in cases))
        for step in (0, 8)
    ]
    shown = Diagnosis(
        curves, [{"run": cases[0]["run"], "prompt": text, "output": text, "reward": 0.5}], cases
    )
    shown.sickness.value, shown.cure.value = cases[0]["run"], cases[0]["cure"]
    shown.tell.click()
    return shown


def labeller(text, path):
    ratings = Ratings(path / "ratings.jsonl")
    pairs = [Pair(text, f"{text} 1", f"{text} 2"), Pair("prompt", text, "second")]
    name = f"name {text}"
    ratings.add(
        Rating("0" * 32, "2026-01-01T00:00:00+00:00", name, False, pairs[0], "tie", "first", 1.0, text)
    )
    ratings.add(
        Rating("1" * 32, "2026-01-01T00:00:00+00:00", f"{name} 2", True, pairs[0], "tie", "first", 1.0, text)
    )
    return PreferenceLabeller(pairs, ratings, name)


def undone_labeller(text, path):
    """The reason of a rating that was taken back stands in its field again."""
    ratings = Ratings(path / "ratings.jsonl")
    pair = Pair("prompt", "first", "second")
    ratings.add(Rating("0" * 32, "2026-01-01T00:00:00+00:00", "Ada", False, pair, "tie", "first", 1.0, text))
    shown = PreferenceLabeller([pair], ratings, "Ada")
    shown.appeared -= 10  # a click at once would not count
    shown.take_back()
    assert shown.reason.value or not text
    return shown


WIDGETS = [inspector, browser, failing_browser, explorer, lab, diagnosis, labeller, undone_labeller]


def states(widget):
    """What is sent of a widget and of all in it."""
    yield type(widget).__name__, widget.get_state()
    for child in getattr(widget, "children", ()):
        yield from states(child)


@pytest.mark.parametrize("make", WIDGETS)
def test_every_state_can_be_sent(make, hostile, tmp_path):
    shown = make(hostile, tmp_path)
    for name, state in states(shown.view):
        text = json.dumps(state, ensure_ascii=False, allow_nan=False, default=str)
        assert text.encode("utf-8"), name  # as jupyter_client does it
    assert shown.static().markup.encode("utf-8")


@pytest.mark.parametrize("make", WIDGETS)
def test_no_formula_is_in_what_a_page_typesets(make, hostile, tmp_path):
    shown = make(hostile, tmp_path)
    markups = [shown.static().markup]
    for name, state in states(shown.view):
        # front ends typeset these too, and they have no elements that could keep the signs apart
        assert not {"$", "\\"} & set(state.get("description", ""))
        if name == "Label":
            assert not {"$", "\\"} & set(state["value"])
        if name == "HTML":
            markups.append(state["value"])
    for markup in markups:
        assert not re.search(r"[$\\]", re.sub(r"<span>[$\\]</span>", "", markup))


@pytest.mark.parametrize("make", WIDGETS)
def test_every_widget_and_double_has_the_one_style_sheet(make, tmp_path):
    shown = make("text", tmp_path)
    assert shown.view.children[0].value == design.style_sheet()
    for markup in (
        shown.static().markup,
        "".join(state.get("value") or "" for state in html_states(shown.view)),
    ):
        assert markup.count("<style>") == 1


def html_states(widget):
    return [state for name, state in states(widget) if name == "HTML"]


@pytest.mark.parametrize("make", WIDGETS)
def test_nothing_active_comes_from_a_text(make, hostile, tmp_path):
    shown = make(hostile, tmp_path)
    for markup in [*all_html(shown.view), behind_style(shown.static().markup)]:
        assert not active(markup) and "\x00" not in markup
