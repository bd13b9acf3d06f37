"""A browser for prompts: their tokens, how a page of them is padded, and how a model continues them."""

from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets

from helpers.errors import CourseError
from helpers.rewards import RewardFn, score
from helpers.widgets.controls import back_and_on, place_field, rest_at_ends
from helpers.widgets.design import framed, in_a_row, static, table
from helpers.widgets.html import Static, escape, number, paragraph

PAGE = 8  # prompts on a page: one batch
COLUMNS = 16  # of a wider batch the last ones are shown, from which the model continues
SHORT = 200  # characters of a filter that are repeated
PADDING = Static('<span class="rlhf-pad">[pad]</span>')


class PromptBrowser:
    """Pages through prompts, filters them, shows them as a padded batch, and samples continuations with rewards.

    Args:
        prompts: texts, any number of them; only those of the shown page are tokenised.
        tokenize: (prompts) -> for each prompt the texts of its tokens, list[list[str]].
        continue_prompts: (prompts, temperature, top_k, top_p) -> a continuation for each prompt, list[str]; top_k 0 is off.
        reward_fn: (samples) -> a reward for each prompt with its continuation, list[float].

    An error in one of the three functions is shown as a sentence, and the browser goes on.

    Raises:
        CourseError: `prompts` are not a list of texts.
    """

    def __init__(
        self,
        prompts: list[str],
        tokenize: Callable[[list[str]], list[list[str]]],
        continue_prompts: Callable[[list[str], float, int, float], list[str]],
        reward_fn: RewardFn,
    ):
        self.prompts = checked_prompts(prompts)
        self.tokenize, self.continue_prompts, self.reward_fn = tokenize, continue_prompts, reward_fn
        self.folded = [prompt.casefold() for prompt in self.prompts]
        self.found = list(range(len(self.prompts)))  # places of the prompts that pass the filter

        self.filter = widgets.Text(description="Filter", placeholder="part of a prompt")
        self.page = place_field("Page")
        self.previous, self.next = back_and_on(self._turn)
        self.count = widgets.Label()
        # no sliders, as with `place_field`
        number_field = widgets.BoundedFloatText
        self.temperature = number_field(description="Temperature", value=1.0, min=0.1, max=2.0, step=0.1)
        self.top_k = widgets.BoundedIntText(description="Top-k (0 = off)", value=0, min=0, max=100)
        self.top_p = number_field(description="Top-p (1 = off)", value=1.0, min=0.05, max=1.0, step=0.05)
        self.sample = widgets.Button(description="Sample")
        self.message, self.batch = widgets.HTML(), widgets.HTML()

        self.filter.observe(self._on_filter, "value")
        self.page.observe(lambda _: self._show_page(), "value")
        self.sample.on_click(self._on_sample)
        paging = in_a_row(self.filter, self.previous, self.page, self.next, self.count)
        sampling = in_a_row(self.temperature, self.top_k, self.top_p, self.sample)
        self.view = framed(paging, sampling, self.message, self.batch)
        self._show_page()

    def static(self) -> Static:
        """The page and its samples as a table; where nothing was sampled yet, the page is sampled first."""
        if not self.sampled:
            self._on_sample()
        return static(self.message.value + self.batch.value)

    def _on_filter(self, _=None):
        part = self.filter.value.casefold()
        self.found = [place for place, prompt in enumerate(self.folded) if part in prompt]
        if self.page.value == 1:
            self._show_page()
        else:
            self.page.value = 1  # shows the page

    def _turn(self, pages: int):
        self.page.value += pages  # the field stops at either end

    @property
    def pages(self) -> int:
        """Pages that the prompts which pass the filter fill, at least one."""
        return max(1, -(-len(self.found) // PAGE))

    def _show_page(self):
        first = (self.page.value - 1) * PAGE
        self.places = self.found[first : first + PAGE]
        self.page.max = self.pages
        rest_at_ends((self.previous, self.next), self.page.value, 1, self.pages)
        self.sample.disabled = not self.found
        self.count.value = f"Page {self.page.value:,} of {self.pages:,}. {len(self.found):,} of {len(self.prompts):,} prompts pass the filter."
        self.sampled, self.message.value = [], ""
        self.tokens = self._tokens() if self.found else []
        self.batch.value = self._table() if self.found else paragraph(self._nothing())

    def _nothing(self) -> str:
        """Why there is no page, as HTML."""
        if not self.prompts:
            return "There are no prompts: the list is empty."
        return f"No prompt contains “{escape(self.filter.value, SHORT)}”. Shorten the filter, or clear it."

    def _tokens(self) -> list[list[str]]:
        """The tokens of the page's prompts; where there are none to be had, no list, and a sentence that says why."""
        prompts = [self.prompts[place] for place in self.places]
        try:
            return checked_tokens(ask("tokenize", self.tokenize, prompts), len(prompts))
        except CourseError as error:
            self.message.value = paragraph(f"The tokens cannot be shown: {escape(str(error))}")
            return []

    def _table(self) -> str:
        """The page, a line for each prompt, with its continuation and reward once they are sampled."""
        rows = [{"no.": place + 1} for place in self.places]
        if self.tokens:
            caption, prompts = self._batch()
        else:
            caption = "The prompts of this page. Their tokens cannot be shown."
            prompts = [{"prompt": self.prompts[place]} for place in self.places]
        for row, prompt in zip(rows, prompts, strict=True):
            row |= prompt
        best = max((reward for _, reward in self.sampled), default=0.0)
        for row, (output, reward) in zip(rows, self.sampled):
            row |= {"continuation": output, "reward": reward, "": "highest" * (reward == best)}
        return table(rows, caption, "rlhf-tokens")

    def _batch(self) -> tuple[str, list[dict]]:
        """The page's tokens as one batch: its size in words, and for each prompt {column: token or padding}."""
        width = max(map(len, self.tokens))
        padding = sum(width - len(texts) for texts in self.tokens)
        shown = range(max(0, width - COLUMNS), width)
        caption = (
            f"As one batch: {len(self.tokens)} × {width} places, {padding} of them padding. A dot is a space."
        )
        if shown.start:
            caption += f" The last {COLUMNS} columns."
        lines = []
        for texts in self.tokens:
            padded = [PADDING] * (width - len(texts)) + [visible_token(text) for text in texts]
            lines.append({str(column): padded[column] for column in shown})
        return caption, lines

    def _on_sample(self, _=None):
        if not self.found:
            self.message.value = paragraph(f"Nothing to sample. {self._nothing()}")
            return
        self.sample.disabled, self.sample.description = True, "Sampling…"
        self.message.value = paragraph("Sampling this page…")
        try:
            self.message.value = paragraph(self._sample())
            self.batch.value = self._table()
        except CourseError as error:
            self.message.value = paragraph(f"No new samples: {escape(str(error))}")
        finally:
            self.sample.disabled, self.sample.description = False, "Sample"

    def _sample(self) -> str:
        """Sample the page, and say how."""
        prompts = [self.prompts[place] for place in self.places]
        # a field's steps add up to numbers such as 0.7000000000000001
        temperature, top_p = round(self.temperature.value, 2), round(self.top_p.value, 2)
        top_k = self.top_k.value
        outputs = ask("continue_prompts", self.continue_prompts, prompts, temperature, top_k, top_p)
        outputs = checked_texts(outputs, len(prompts))
        samples = [prompt + output for prompt, output in zip(prompts, outputs, strict=True)]
        rewards = ask("the reward function", score, self.reward_fn, samples, prompts, outputs)
        rewards = [
            sum(reward) if isinstance(reward, list) else reward for reward in rewards
        ]  # per token: their sum
        self.sampled = list(zip(outputs, rewards, strict=True))
        return (
            f"Sampled at temperature {temperature:g}, top-k {top_k or 'off'}, top-p {top_p:g}. "
            f"Mean reward {number(sum(rewards) / len(rewards))}."
        )


def checked_prompts(prompts: Iterable[str]) -> list[str]:
    """`prompts` as a list of texts.

    Raises:
        CourseError: one text instead of a list, or the first entry that is not a text.
    """
    if isinstance(prompts, str):
        raise CourseError("prompts is one text: expected a list of texts, such as [text]")
    prompts = list(prompts)
    for place, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise CourseError(
                f"prompt {place} is {prompt!r:.60}: expected a text. Of a prompt with notes, give its text: prompt['prompt']"
            )
    return prompts


def checked_tokens(tokens: object, count: int) -> list[list[str]]:
    """What tokenize returned for `count` prompts.

    Raises:
        CourseError: it is not a list of texts for each.
    """
    is_right = isinstance(tokens, (list, tuple)) and len(tokens) == count
    is_right = is_right and all(isinstance(row, (list, tuple)) for row in tokens)
    if not is_right or not all(isinstance(text, str) for row in tokens for text in row):
        raise CourseError(
            f"tokenize returned {tokens!r:.60} for {count} prompts. It should return a list for each prompt, with the "
            "text of each token (not its number)."
        )
    return [list(row) for row in tokens]


def checked_texts(outputs: object, count: int) -> list[str]:
    """What continue_prompts returned for `count` prompts.

    Raises:
        CourseError: it is not a text for each.
    """
    if not isinstance(outputs, (list, tuple)) or not all(isinstance(output, str) for output in outputs):
        raise CourseError(
            f"continue_prompts returned {outputs!r:.60}. It should return a text for each prompt."
        )
    if len(outputs) != count:
        raise CourseError(
            f"continue_prompts returned {len(outputs)} texts for {count} prompts. It should return one for each."
        )
    return list(outputs)


def ask(name: str, function: Callable, *arguments: Any) -> Any:
    """The answer of a reader's function.

    Raises:
        CourseError: whatever the function raised, as a sentence.
    """
    try:
        return function(*arguments)
    except CourseError:
        raise
    except Exception as error:
        raise CourseError(
            f"{name} failed with {type(error).__name__}: {error}. Correct it, then run its cell and the browser's again."
        ) from error


def visible_token(text: str) -> str:
    """A token's text with its spaces and line ends to be seen."""
    return text.replace(" ", "·").replace("\n", "↵") or "(empty)"
