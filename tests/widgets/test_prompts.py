"""The prompt browser: pages, filter, padding, sampling, and what it says when a reader's function is wrong."""

import re
import time

import ipywidgets as widgets
import pytest

from helpers.errors import CourseError
from helpers.rewards import score
from helpers.widgets.html import Static
from helpers.widgets.prompts import COLUMNS, PAD, PromptBrowser

PROMPTS = [f"Film {number} was" + " very" * (number % 3) for number in range(20)]


def tokenize(prompts):
    return [re.findall(r" ?\S+", prompt) for prompt in prompts]


def continue_prompts(prompts, temperature, top_k, top_p):
    return [f" good at {temperature}/{top_k}/{top_p}" for _ in prompts]


def reward_fn(samples):
    return [len(sample) / 100 for sample in samples]


def browse(prompts=PROMPTS, tokenize=tokenize, continue_prompts=continue_prompts, reward_fn=reward_fn):
    return PromptBrowser(prompts, tokenize, continue_prompts, reward_fn)


def tree(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from tree(child)


def rows(markup):
    """The text of each cell of each row of a table's body."""
    body = re.search(r"<tbody>(.*)</tbody>", markup, re.DOTALL)[1]
    lines = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", line)] for line in lines]


def shown(browser):
    return [line[1] for line in rows(browser.batch.value)]


def no_markup_from_texts(browser):
    for widget in tree(browser.view):
        texts = [getattr(widget, "description", "")]
        if isinstance(widget, widgets.HTML):
            texts.append(widget.value)
        for text in texts:
            assert not re.search(r"<(img|script|svg)", text), widget


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
    assert "Nothing to sample" in browser.message.value and not browser.samples.value
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
    first, second = rows(browser.batch.value)
    assert first == ["1", "I saw it", "3", "0", "I", "·saw", "·it"]
    assert second == ["2", "Well", "1", "2", PAD, PAD, "Well"]
    assert "2 × 3 places, 2 of them padding" in browser.batch.value


def test_wide_batches_show_the_last_columns():
    browser = browse(["long " * 99 + "end", "short"])
    first, second = rows(browser.batch.value)
    assert first[2:4] == ["100", "0"] and len(first) == 4 + COLUMNS and first[-1] == "·end"
    assert second[2:4] == ["1", "99"] and second[-2:] == [PAD, "short"]
    assert f"the last {COLUMNS} columns" in browser.batch.value and "column 99" in browser.batch.value


def test_empty_prompts_have_no_columns():
    assert rows(browse(["", ""]).batch.value) == [["1", "", "0", "0"], ["2", "", "0", "0"]]


# Samples


def test_sample_with_rewards_beside():
    browser = browse()
    browser.sample.click()
    lines = rows(browser.samples.value)
    assert [line[1] for line in lines] == PROMPTS[:8]
    assert {line[2] for line in lines} == {" good at 1.0/0/1.0"}
    samples = [prompt + " good at 1.0/0/1.0" for prompt in PROMPTS[:8]]
    assert [line[3] for line in lines] == [f"{reward:.2f}" for reward in reward_fn(samples)]
    longest = max(map(len, samples))
    assert [line[4] for line in lines] == ["highest" * (len(sample) == longest) for sample in samples]
    assert "temperature 1, top-k off, top-p 1" in browser.samples.value and not browser.message.value


def test_sliders_reach_the_model_and_the_caption_keeps_them():
    browser = browse()
    browser.temperature.value, browser.top_k.value, browser.top_p.value = 0.1 + 0.2, 5, 0.85
    browser.sample.click()
    assert " good at 0.3/5/0.85" in browser.samples.value
    assert "temperature 0.3, top-k 5, top-p 0.85" in browser.samples.value
    before = browser.samples.value
    browser.temperature.value, browser.filter.value, browser.page.value = 2.0, "very", 2
    assert browser.samples.value == before
    browser.sample.click()
    very = [prompt for prompt in PROMPTS if "very" in prompt]
    assert [line[1] for line in rows(browser.samples.value)] == very[8:]
    assert "temperature 2," in browser.samples.value


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
    assert rows(browser.samples.value)[0][3] == "0.75"


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
    before = browser.samples.value
    browser.continue_prompts = wrong.get("continue_prompts", continue_prompts)
    browser.reward_fn = wrong.get("reward_fn", reward_fn)
    browser.sample.click()
    assert says in browser.message.value and browser.samples.value == before
    assert not browser.sample.disabled and browser.sample.description == "Sample"
    no_markup_from_texts(browser)
    browser.continue_prompts, browser.reward_fn = continue_prompts, reward_fn
    browser.sample.click()
    assert not browser.message.value


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
    assert says in browser.batch.value
    no_markup_from_texts(browser)
    browser.tokenize = tokenize
    browser.page.value = 2
    assert shown(browser) == PROMPTS[8:16]


# What a reader sees


def test_hostile_texts_stay_texts(hostile):
    browser = browse(
        [hostile, "a"], continue_prompts=lambda prompts, *_: [hostile for _ in prompts], reward_fn=reward_fn
    )
    browser.sample.click()
    assert len(rows(browser.batch.value)) == len(rows(browser.samples.value)) == 2
    no_markup_from_texts(browser)
    assert not re.search(r"<(img|script|svg)", browser.static().markup)
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
    assert isinstance(static, Static) and static.markup.count("<table>") == 2
    assert PAD in static.markup and " good at 1.0/0/1.0" in static.markup and "highest" in static.markup
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
