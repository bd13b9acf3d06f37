"""The prompt browser: pages, filter, padding, sampling, and what it says when a reader's function is wrong."""

import re
import time

import ipywidgets as widgets
import pytest
from read_markup import active, all_html, behind_style, cells, columns, tree

from helpers.errors import CourseError
from helpers.rewards import score
from helpers.widgets.html import Static
from helpers.widgets.prompts import COLUMNS, PADDING, PromptBrowser

PROMPTS = [f"Film {number} was" + " very" * (number % 3) for number in range(20)]


def tokenize(prompts):
    return [re.findall(r" ?\S+", prompt) for prompt in prompts]


def continue_prompts(prompts, temperature, top_k, top_p):
    return [f" good at {temperature}/{top_k}/{top_p}" for _ in prompts]


def reward_fn(samples):
    return [len(sample) / 100 for sample in samples]


def browse(prompts=PROMPTS, tokenize=tokenize, continue_prompts=continue_prompts, reward_fn=reward_fn):
    return PromptBrowser(prompts, tokenize, continue_prompts, reward_fn)


PAD = "[pad]"  # what PADDING shows


def shown(browser):
    """The prompts of the batch, out of their tokens."""
    table = browser.batch.value
    tokens = [place for place, name in enumerate(columns(table)) if name.isdigit()]
    return [
        "".join(line[place] for place in tokens if line[place] != PAD).replace("·", " ")
        for line in cells(table)
    ]


def samples(browser):
    """What stands beside the tokens once they are sampled: continuation, reward, and whether it is the highest."""
    assert columns(browser.batch.value)[-3:] == ["continuation", "reward", ""]
    return [line[-3:] for line in cells(browser.batch.value)]


def no_markup_from_texts(browser):
    for text in all_html(browser.view):
        assert not active(text), text


# Pages and filter


def test_opens_25_000_prompts_within_a_second():
    prompts = [f"This is prompt {number}" for number in range(25_000)]
    asked = []
    started = time.perf_counter()
    browser = browse(prompts, tokenize=lambda page: asked.append(len(page)) or tokenize(page))
    assert time.perf_counter() - started < 1
    assert asked == [8] and "of 3,125." in browser.count.value


def test_next_previous_and_the_page_number():
    browser = browse()
    assert shown(browser) == PROMPTS[:8]
    assert browser.previous.disabled and not browser.next.disabled
    browser.next.click()
    assert shown(browser) == PROMPTS[8:16] and browser.page.value == 2
    assert not browser.previous.disabled
    browser.page.value = 3
    assert shown(browser) == PROMPTS[16:] and browser.next.disabled
    browser.next.click()
    assert browser.page.value == 3
    browser.previous.click()
    assert shown(browser) == PROMPTS[8:16] and not browser.next.disabled
    browser.page.value = 99
    assert browser.page.value == 3 and shown(browser) == PROMPTS[16:]


def test_only_the_shown_page_is_tokenised_and_once():
    asked = []
    browser = browse(tokenize=lambda page: asked.append(page) or tokenize(page))
    browser.page.value = 3
    browser.filter.value = "VERY"
    assert [len(page) for page in asked] == [8, 4, 8]


def test_filter_ignores_case_and_stays_when_the_page_changes():
    browser = browse()
    browser.page.value = 3
    browser.filter.value = "VERY"
    very = [prompt for prompt in PROMPTS if "very" in prompt]
    assert browser.page.value == 1 and browser.page.max == 2
    assert shown(browser) == very[:8] and "13 of 20 prompts" in browser.count.value
    browser.next.click()
    assert shown(browser) == very[8:] and browser.filter.value == "VERY"
    browser.filter.value = ""
    assert shown(browser) == PROMPTS[:8] and browser.page.max == 3


def test_filter_that_matches_nothing_says_so():
    browser = browse()
    browser.filter.value = "opera"
    assert "No prompt contains “<bdi" in browser.batch.value and "opera" in browser.batch.value
    assert browser.sample.disabled and browser.next.disabled and browser.previous.disabled
    browser.sample.click()
    assert "Nothing to sample" in browser.message.value and "continuation" not in browser.batch.value
    browser.filter.value = ""
    assert shown(browser) == PROMPTS[:8] and not browser.sample.disabled


def test_no_prompts():
    browser = browse([])
    assert "There are no prompts" in browser.batch.value and browser.sample.disabled
    assert "There are no prompts" in browser.static().markup


@pytest.mark.parametrize("prompts, says", [("one text", "one text"), ([{"prompt": "x"}], "prompt 0 is")])
def test_prompts_that_are_no_texts(prompts, says):
    with pytest.raises(CourseError, match=says):
        browse(prompts)


# The batch


def test_padding_stands_on_the_left():
    browser = browse(["I saw it", "Well"])
    assert columns(browser.batch.value) == ["no.", "0", "1", "2"]
    assert cells(browser.batch.value) == [
        ["1", "I", "·saw", "·it"],
        ["2", PAD, PAD, "Well"],
    ]
    assert browser.batch.value.count(PADDING.markup) == 2
    assert "2 × 3 places, 2 of them padding" in browser.batch.value


def test_a_token_that_is_called_like_padding_is_marked_as_none():
    browser = browse(["[pad]", "I saw"])
    assert browser.batch.value.count(PADDING.markup) == 1 and browser.batch.value.count(">[pad]<") == 2


def test_wide_batches_show_the_last_columns():
    browser = browse(["long " * 99 + "end", "short"])
    first, second = cells(browser.batch.value)
    assert first[0] == "1" and len(first) == 1 + COLUMNS and first[-1] == "·end"
    assert second[0] == "2" and second[-2:] == [PAD, "short"]
    assert f"The last {COLUMNS} columns" in browser.batch.value
    assert columns(browser.batch.value)[1:] == [str(column) for column in range(100 - COLUMNS, 100)]
    assert "2 × 100 places, 99 of them padding" in browser.batch.value


def test_empty_prompts_have_no_columns():
    browser = browse(["", ""])
    assert cells(browser.batch.value) == [["1"], ["2"]]
    assert "2 × 0 places, 0 of them padding" in browser.batch.value


# Samples


def test_sample_with_rewards_beside():
    browser = browse()
    browser.sample.click()
    assert shown(browser) == PROMPTS[:8]
    texts = [prompt + " good at 1.0/0/1.0" for prompt in PROMPTS[:8]]
    longest = max(map(len, texts))
    assert samples(browser) == [
        [" good at 1.0/0/1.0", f"{reward:.2f}", "highest" * (len(text) == longest)]
        for text, reward in zip(texts, reward_fn(texts))
    ]
    assert "temperature 1, top-k off, top-p 1" in browser.message.value
    assert f"Mean reward {sum(reward_fn(texts)) / 8:.2f}." in browser.message.value


def test_sliders_reach_the_model_and_the_caption_keeps_them():
    browser = browse()
    browser.temperature.value, browser.top_k.value, browser.top_p.value = 0.1 + 0.2, 5, 0.85
    browser.sample.click()
    assert {line[0] for line in samples(browser)} == {" good at 0.3/5/0.85"}
    assert "temperature 0.3, top-k 5, top-p 0.85" in browser.message.value
    before = browser.batch.value, browser.message.value
    browser.temperature.value = 2.0
    assert (browser.batch.value, browser.message.value) == before
    browser.sample.click()
    assert {line[0] for line in samples(browser)} == {" good at 2.0/5/0.85"}
    assert "temperature 2," in browser.message.value


def test_samples_go_with_their_page():
    browser = browse()
    for leave in (
        lambda: setattr(browser.page, "value", 2),
        lambda: setattr(browser.filter, "value", "very"),
    ):
        browser.sample.click()
        assert "good at" in browser.batch.value and browser.message.value
        leave()
        assert "good at" not in browser.batch.value and not browser.message.value and not browser.sampled
    very = [prompt for prompt in PROMPTS if "very" in prompt]
    browser.page.value = 2
    browser.sample.click()
    assert shown(browser) == very[8:] and len(samples(browser)) == len(very) - 8


def test_slider_ranges():
    browser = browse()
    assert (browser.temperature.min, browser.temperature.max) == (0.1, 2.0)
    browser.top_k.value, browser.top_p.value = -1, 7
    assert (browser.top_k.value, browser.top_p.value) == (0, 1.0)


def test_button_is_off_and_says_so_while_sampling():
    seen = []

    def watch(prompts, temperature, top_k, top_p):
        seen.append(
            (browser.sample.disabled, browser.sample.description, "Sampling" in browser.message.value)
        )
        return continue_prompts(prompts, temperature, top_k, top_p)

    browser = browse(continue_prompts=watch)
    browser.sample.click()
    assert seen == [(True, "Sampling…", True)]
    assert not browser.sample.disabled and browser.sample.description == "Sample"


def test_a_reward_per_token_counts_as_its_sum():
    browser = browse(["x"], reward_fn=lambda samples: [[0.5, 0.25] for _ in samples])
    browser.sample.click()
    assert samples(browser) == [[" good at 1.0/0/1.0", "0.75", "highest"]]


@pytest.mark.parametrize(
    "rewards, highest",
    [
        ([1.0, 1.0], ["highest", "highest"]),
        ([-1.0, -2.0], ["highest", ""]),
        ([-1.7e308, 1.7e308], ["", "highest"]),
        ([[1.7e308, 1.7e308], [0.5]], ["highest", ""]),
        ([[-1.7e308, -1.7e308], [0.5]], ["", "highest"]),
    ],
)
def test_the_highest_of_rewards_of_every_size(rewards, highest):
    browser = browse(["x", "y"], reward_fn=lambda samples: rewards)
    browser.sample.click()
    assert [line[2] for line in samples(browser)] == highest


# Errors


def broken(*arguments):
    raise ZeroDivisionError("<img src=x onerror=alert(1)>")


@pytest.mark.parametrize(
    "wrong, says",
    [
        (dict(continue_prompts=broken), "continue_prompts failed with ZeroDivisionError"),
        (dict(continue_prompts=lambda *_: ["one"]), "returned 1 texts for 8 prompts"),
        (dict(continue_prompts=lambda *_: None), "returned None"),
        (dict(continue_prompts=lambda *_: [None] * 8), "returned [None"),
        (dict(reward_fn=broken), "the reward function failed with ZeroDivisionError"),
        (dict(reward_fn=lambda samples: [1.0]), "returned 1 rewards for 8 samples"),
        (dict(reward_fn=lambda samples: [float("nan")] * 8), "the reward of sample 0 is nan"),
        (dict(reward_fn=7), "the reward function failed with TypeError"),
    ],
)
def test_errors_while_sampling_are_sentences(wrong, says):
    browser = browse()
    browser.sample.click()
    before = browser.batch.value
    browser.continue_prompts = wrong.get("continue_prompts", continue_prompts)
    browser.reward_fn = wrong.get("reward_fn", reward_fn)
    browser.sample.click()
    assert says in browser.message.value and browser.batch.value == before
    assert not browser.sample.disabled and browser.sample.description == "Sample"
    no_markup_from_texts(browser)
    browser.continue_prompts, browser.reward_fn = continue_prompts, reward_fn
    browser.sample.click()
    assert browser.message.value.startswith("<p>Sampled at")


@pytest.mark.parametrize(
    "wrong, says",
    [
        (broken, "tokenize failed with ZeroDivisionError"),
        (lambda prompts: [["one"]], "tokenize returned"),
        (lambda prompts: [[1, 2] for _ in prompts], "not its number"),
        (lambda prompts: None, "tokenize returned None"),
    ],
)
def test_errors_of_tokenize_are_sentences(wrong, says):
    browser = browse(tokenize=wrong)
    assert says in browser.message.value
    assert "Their tokens cannot be shown." in browser.batch.value and "batch" not in browser.batch.value
    assert columns(browser.batch.value) == ["no.", "prompt"]
    assert [line[1] for line in cells(browser.batch.value)] == PROMPTS[:8]
    no_markup_from_texts(browser)
    browser.sample.click()
    assert [line[1] for line in cells(browser.batch.value)] == PROMPTS[:8] and len(samples(browser)) == 8
    browser.tokenize = tokenize
    browser.page.value = 2
    assert shown(browser) == PROMPTS[8:16] and not browser.message.value


# What a reader sees


def test_hostile_texts_stay_texts(hostile):
    browser = browse(
        [hostile, "a"], continue_prompts=lambda prompts, *_: [hostile for _ in prompts], reward_fn=reward_fn
    )
    browser.sample.click()
    assert len(samples(browser)) == 2
    no_markup_from_texts(browser)
    assert not active(behind_style(browser.static().markup))
    browser.filter.value = hostile + "?"
    assert "No prompt contains" in browser.batch.value
    no_markup_from_texts(browser)


def test_hostile_errors_and_tokens_stay_texts(hostile):
    def fails(*_):
        raise ValueError(hostile)

    browser = browse(tokenize=lambda prompts: [[hostile, hostile] for _ in prompts], continue_prompts=fails)
    browser.sample.click()
    no_markup_from_texts(browser)
    browser = browse(tokenize=fails, reward_fn=fails)
    browser.sample.click()
    no_markup_from_texts(browser)


def test_static_holds_the_page_and_samples():
    browser = browse()
    static = browser.static()
    assert isinstance(static, Static) and static.markup.count("<table ") == 1
    assert PADDING.markup in static.markup and " good at 1.0/0/1.0" in static.markup
    assert browser.batch.value in static.markup and browser.message.value in static.markup
    assert "highest" in static.markup
    browser.continue_prompts = broken
    assert browser.static().markup == static.markup  # what was sampled is not sampled again


def test_controls_have_descriptions_and_no_reader_text_in_them():
    browser = browse(["<img src=x>"])
    controls = [
        widget
        for widget in tree(browser.view)
        if not isinstance(widget, (widgets.Box, widgets.HTML, widgets.Label))
    ]
    assert len(controls) == 8 and all(widget.description for widget in controls)


def test_the_same_contract_as_in_training():
    with pytest.raises(CourseError) as training:
        score(lambda samples: None, ["x"], ["x"], [""])
    browser = browse(["x"], reward_fn=lambda samples: None)
    browser.sample.click()
    assert str(training.value).split(" for ")[0].replace("'", "&#x27;") in browser.message.value
