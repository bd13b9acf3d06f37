"""The reward inspector: what rewards say about a text, which words moved them, and challenges to fool them."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from helpers.errors import CourseError
from helpers.rewards import RewardFn, score
from helpers.widgets.controls import choice, folding, place_field, text_field
from helpers.widgets.design import (
    badges,
    bars,
    beside,
    cards,
    columns,
    folded,
    framed,
    in_a_row,
    sparkline,
    static,
    strip,
    table,
)
from helpers.widgets.html import Static, encodable, escape, paragraph, plain, sentence

MAX_WORDS = 200
"""Words left out one at a time; of a longer text, the first."""
SHOWN = 20
"""Texts of the history that the widget shows, the latest; `history` holds all."""


@dataclass
class Challenge:
    """Something to try in the inspector.

    Args:
        task: what to do, in a sentence.
        met: from a text and its rewards {name: reward}, whether the text does it.
    """

    task: str
    met: Callable[[str, dict[str, float]], bool]


class RewardInspector:
    """Rewards of a text, side by side. `view` is the widget, `static()` the same as a table, `history` what was tried.

    The text counts as sample and as output, and the prompt is empty. Rewards per token are summed. Every function is
    called once for each new text; `read_once` lets functions share a judge. `history` is a list of {"text": text, reward's
    name: reward}, every distinct text once, in the order of the first try; `pandas.DataFrame(inspector.history)` makes it
    a table.

    Args:
        reward_fns: {name: reward function}, one or more.
        class_scores: from one text, {label: score between 0 and 1}; shown as bars.
        parts: {reward function: weight} of a weighted sum; shown as what each contributes.
        texts: {kind: [text, ...]} to pick from, for instance {"review": reviews, "sample": samples}.
        challenges: what to try.
    Raises:
        CourseError: when there is no reward function, or one is called "text".
    """

    def __init__(
        self,
        reward_fns: dict[str, RewardFn],
        class_scores: Callable[[str], dict[str, float]] | None = None,
        parts: dict[RewardFn, float] | None = None,
        texts: dict[str, list[str]] | None = None,
        challenges: Sequence[Challenge] = (),
    ):
        if not reward_fns or "text" in reward_fns:
            raise CourseError(
                "the reward inspector needs reward functions by their names, {name: reward_fn}, and 'text' cannot be "
                "such a name: in the history it is the column of texts."
            )
        self.reward_fns, self.class_scores, self.parts = dict(reward_fns), class_scores, dict(parts or {})
        self.challenges = list(challenges)
        self.met_with = {}  # the first text that met a challenge, by the challenge's place
        self.history = []
        self.known = {}  # (id of a reward function, text): reward
        self._make_controls(texts or {})
        self._update()

    def _make_controls(self, texts: dict[str, list[str]]) -> None:
        self.groups = [
            ("your own text", []),
            *((kind, [encodable(text) for text in group]) for kind, group in texts.items() if group),
        ]
        kinds = [(plain(kind, 40), place) for place, (kind, _) in enumerate(self.groups)]
        self.pick, self.number = choice("Pick", kinds), place_field("Number")
        self.text = text_field(widgets.Textarea, "Text", rows=5, layout=widgets.Layout(width="98%"))
        self.explain = choice("Explain", [(plain(name, 40), name) for name in self.reward_fns])
        self.words = widgets.Button(description="Words that moved it")
        self.scores, self.moved, self.tasks, self.lines, self.tried = (widgets.HTML() for _ in range(5))
        self.pick.observe(self._on_pick, names="value")
        self.number.observe(self._on_pick, names="value")
        self.pick.value = min(1, len(self.groups) - 1)
        self.text.observe(self._on_text, names="value")
        self.explain.observe(lambda change: self._clear_words(), names="value")
        self.words.on_click(lambda button: self.show_words())
        hint = widgets.HTML(
            '<span class="rlhf-quiet">Scored when you leave the field: press Tab, or click elsewhere.</span>'
        )
        asking = widgets.VBox([in_a_row(self.pick, self.number), self.text, hint, self.tasks])
        explaining = in_a_row(self.explain, self.words)
        history = in_a_row(self.lines, *folding("Texts tried", self.tried))
        self.view = framed(columns(asking, self.scores), explaining, self.moved, history)

    def _on_pick(self, change=None) -> None:
        group = self.groups[self.pick.value][1]
        self.number.disabled, self.number.max = not group, max(1, len(group))
        if group:
            self.text.value = group[self.number.value - 1]

    def _on_text(self, change) -> None:
        group = self.groups[self.pick.value][1]
        if group and group[self.number.value - 1] != change["new"]:
            self.pick.value = 0  # your own text; the one it was can be picked again
        self._update()

    def _update(self) -> None:
        """Score the text, show what came of it, and keep it in the history."""
        text, problems = self.text.value, []
        self._clear_words()
        if text.strip():
            rewards = {
                name: attempt(problems, name, self.reward, reward_fn, text)
                for name, reward_fn in self.reward_fns.items()
            }
            shown = ["<b>Rewards of this text</b>", cards(rewards), *self._classes(text, problems)]
            shown += self._parts(text, problems)
            self.scores.value = tell(problems) + "".join(shown)
            self._remember(text, rewards)
        else:
            self.scores.value = sentence("Type a text, or pick one.")
        self._show_challenges(text)
        self.lines.value, self.tried.value = self._lines(), self._tried()

    def reward(self, reward_fn: RewardFn, text: str) -> float:
        """The reward of one text, computed once.

        Raises:
            CourseError: it is no finite number. What the function itself raises comes through.
        """
        if (id(reward_fn), text) not in self.known:
            self.known[id(reward_fn), text] = total_rewards(reward_fn, [text])[0]
        return self.known[id(reward_fn), text]

    def _parts(self, text: str, problems: list[str]) -> list[str]:
        if not self.parts:
            return []
        rows = []
        for part, weight in self.parts.items():
            name = getattr(part, "__name__", type(part).__name__)
            reward = attempt(problems, f"part {name}", self.reward, part, text)
            contributes = None if reward is None else weight * reward
            rows.append({"part": name, "weight": float(weight), "reward": reward, "contributes": contributes})
        values = [row["contributes"] for row in rows]
        rows.append({"part": "sum", "contributes": None if None in values else sum(values)})
        return [table(rows, "What each part contributes: its weight times its reward")]

    def _classes(self, text: str, problems: list[str]) -> list[str]:
        if self.class_scores is None:
            return []
        scores = attempt(problems, "class scores", checked_scores, self.class_scores, text)
        return [bars(scores, "Class scores")] if scores else []

    def _remember(self, text: str, rewards: dict[str, float | None]) -> None:
        if text not in [row["text"] for row in self.history]:
            self.history.append({"text": text, **rewards})

    def _show_challenges(self, text: str) -> None:
        rewards = {name: self.known.get((id(reward_fn), text)) for name, reward_fn in self.reward_fns.items()}
        lines, problems = [], []
        for place, challenge in enumerate(self.challenges):
            if None not in rewards.values() and place not in self.met_with:
                if attempt(problems, f"challenge {place + 1}", challenge.met, text, rewards):
                    self.met_with[place] = text
            lines.append(self._challenge(place, challenge))
        self.tasks.value = tell(problems) + (f"<b>Try to fool it</b>{badges(lines)}" if lines else "")

    def _challenge(self, place: int, challenge: Challenge) -> tuple[str, str]:
        """A badge's word and what stands beside it: the task, and the first text that met it."""
        task = f"{place + 1}. {escape(challenge.task)}"
        if place not in self.met_with:
            return "open", task
        return "met", f'{task}<br><span class="rlhf-quiet">with: {escape(self.met_with[place], 200)}</span>'

    def _lines(self) -> str:
        """The rewards of all texts tried, as a line for each reward."""
        lines = [
            f"<span>{escape(name, 40)}</span> {sparkline(name, [each[name] for each in self.history])}"
            for name in (self.reward_fns if self.history else ())
        ]
        return f'<div class="rlhf-row">{" ".join(lines)}</div>'

    def _tried(self) -> str:
        numbered = [{"no.": place, **row} for place, row in enumerate(self.history, start=1)]
        rows = [{**row, "text": plain(row["text"], 200)} for row in numbered[-SHOWN:]]
        latest = f"; the latest {SHOWN} of {len(numbered)}" if len(numbered) > SHOWN else ""
        return table(rows, f"Texts tried{latest}") if rows else ""

    def _clear_words(self) -> None:
        self.moved.value = ""

    def show_words(self) -> None:
        """Show by how much the chosen reward falls without each word: one call with all the shortened texts."""
        name, text, problems = self.explain.value, self.text.value, []
        if not text.strip():
            self.moved.value = sentence("There are no words yet: type a text, or pick one.")
            return
        moved = attempt(problems, name, self.leave_one_out, self.reward_fns[name], text)
        caption = f"By how much {plain(name)} falls without the word: above 0 it raised the reward, below 0 it lowered it"
        if len(text.split()) > MAX_WORDS:
            caption += f" (the first {MAX_WORDS} words)"
        rounded = [
            (word, round(change, 2) + 0.0) for word, change in moved or []
        ]  # + 0.0 turns -0.0 into 0.0
        self.moved.value = tell(problems) + (strip(rounded, (plain(name, 40),), caption) if moved else "")

    def leave_one_out(self, reward_fn: RewardFn, text: str) -> list[tuple[str, float]]:
        """Each of the first MAX_WORDS words, and the reward of the text minus that of the text without the word."""
        whole = self.reward(reward_fn, text)
        words = list(re.finditer(r"\S+\s*", text))[:MAX_WORDS]
        rewards = total_rewards(reward_fn, [text[: word.start()] + text[word.end() :] for word in words])
        return [(word.group().rstrip(), whole - reward) for word, reward in zip(words, rewards)]

    def static(self) -> Static:
        """What the widget shows, as tables, with the words that moved the chosen reward."""
        self.show_words()
        asked = paragraph(f"Text: {escape(self.text.value)}") + self.tasks.value
        tried = self.lines.value + folded("Texts tried", self.tried.value)
        return static(beside(asked, self.scores.value) + self.moved.value + tried)


def read_once(judge: Callable[[list[str]], list]) -> Callable[[list[str]], list]:
    """`judge`, from a list of texts to a list of results, but asked only for texts it has not read yet.

    Reward, composite reward and class scores that share a judge then cost one reading of each text.
    """
    known = {}

    def judged(texts):
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, judge(new), strict=True))
        return [known[text] for text in texts]

    return judged


def total_rewards(reward_fn: RewardFn, texts: list[str]) -> list[float]:
    """One number per text, from one call.

    Raises:
        CourseError: the function breaks the contract. What it raises itself comes through.
    """
    rewards = score(reward_fn, samples=texts, prompts=[""] * len(texts), outputs=list(texts))
    return [math.fsum(reward) if isinstance(reward, list) else reward for reward in rewards]


def checked_scores(class_scores: Callable[[str], dict[str, float]], text: str) -> list[tuple[str, float]]:
    """The scores by label, in the labels' order: a bar that jumps to another place is hard to follow.

    Raises:
        CourseError: they are not {label: finite number}.
    """
    scores = class_scores(text)
    if not isinstance(scores, dict) or not scores:
        raise CourseError(f"class_scores returned {scores!r:.60}, and should return {{label: score}}.")
    pairs = sorted((str(label), float(value)) for label, value in scores.items())
    if not all(math.isfinite(value) for _, value in pairs):
        raise CourseError(f"class_scores returned {scores!r:.60}, where a score is not a finite number.")
    return pairs


def attempt(problems: list[str], what: str, function: Callable, *arguments: Any) -> Any:
    """What `function(*arguments)` returns. Where it raises, None, and `problems` gets a sentence about it."""
    try:
        return function(*arguments)
    except CourseError as error:
        problem = str(error)
    except Exception as error:  # the function is the reader's: anything may come
        problem = f"it raised {type(error).__name__}: {error}."
    problems.append(f"{what}: {problem} Put the function right and run its cell and this one again.")
    return None


def tell(problems: list[str]) -> str:
    """A paragraph for each problem."""
    return "".join(paragraph(f"<b>Problem</b> with {escape(problem)}") for problem in problems)
