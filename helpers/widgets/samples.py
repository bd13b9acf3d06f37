"""The sample explorer: the same prompts before and after training, and where in a text the policy moved."""

import difflib
import math

import ipywidgets as widgets

from helpers.widgets.controls import back_and_on, check_rows, choice, place_field, rest_at_ends
from helpers.widgets.design import framed, in_a_row, static, strip, table, text_cards
from helpers.widgets.html import Static, escape, number, paragraph, plain

KEYS = ("prompt", "before", "after", "reward_before", "reward_after", "tokens")

SOURCE = "SampleExplorer takes what compare.token_view(trainer, table) returns: one dictionary per prompt."
NOTE = "struck out: only before; bold and underlined: only after"

# What each order is called, and what it puts first.
ORDERS = {
    "largest gain": lambda row: -gain(row),
    "largest loss": lambda row: gain(row),
    "highest reward after": lambda row: -row["reward_after"],
    "largest KL": lambda row: -kl(row),
}

STRIP = (
    "The tokens after training, each over its KL in nats (above 0 where training made it likelier) and its advantage (above 0 "
    "where the text turned out better than the value head expected)"
)


def gain(row: dict) -> float:
    """How much higher the reward is after training."""
    return row["reward_after"] - row["reward_before"]


def kl(row: dict) -> float:
    """KL of the sample after training, in nats: the sum over its tokens."""
    return float(sum(token[1] for token in row["tokens"]))


def marked(before: str, after: str) -> tuple[Static, Static]:
    """Both texts, with words that only one of them has struck out in the first and underlined in the second."""
    old, new = plain(before).split(), plain(after).split()
    shown = {"del": [], "ins": []}
    for kind, i, j, k, m in difflib.SequenceMatcher(None, old, new).get_opcodes():
        for tag, words in [("del", old[i:j]), ("ins", new[k:m])]:
            text = " ".join(words)
            if text:
                markup = escape(text, len(text))
                shown[tag].append(markup if kind == "equal" else f"<{tag}>{markup}</{tag}>")
    return Static(" ".join(shown["del"])), Static(" ".join(shown["ins"]))


def heat_strip(row: dict) -> str:
    """The tokens of the sample after training, each over its numbers."""
    # adding 0.0 takes the minus sign from a rounded -0.0
    pieces = [(text, *(round(value, 2) + 0.0 for value in numbers)) for text, *numbers in row["tokens"]]
    return strip(pieces, ("KL", "advantage"), STRIP) if pieces else ""


class SampleExplorer:
    """Samples before and after training, sorted, with their differences and the tokens over their KL and advantage.

    Args:
        rows: what `compare.token_view` returns, one dictionary per prompt: prompt, before, after, reward_before,
            reward_after, and tokens, a list of (text, KL in nats, advantage) for the sample after training.

    Raises:
        CourseError: a row lacks one of these.
    """

    def __init__(self, rows: list[dict]):
        check_rows(rows, KEYS, "row {}", SOURCE)
        self.rows = list(rows)
        self.sort = choice("Sort by", list(ORDERS))
        self.sample = place_field("Sample", max(1, len(rows)))
        self.previous, self.next = back_and_on(self.go)
        self.shown = widgets.HTML()
        for control in (self.sort, self.sample):
            control.observe(self.show, "value")
        self.view = framed(in_a_row(self.sort, in_a_row(self.sample, self.previous, self.next)), self.shown)
        self.show()

    def sorted_rows(self) -> list[dict]:
        """The rows in the chosen order; those for which it has no number come last."""

        def place(row: dict) -> tuple[bool, float]:
            value = ORDERS[self.sort.value](row)
            return (True, 0.0) if math.isnan(value) else (False, value)

        return sorted(self.rows, key=place)

    def go(self, places: int) -> None:
        """Show the sample so many places on; the field stops at either end."""
        self.sample.value += places

    def show(self, change: dict | None = None) -> None:
        """Draw the chosen sample; a new order begins with its first."""
        if change and change["owner"] is self.sort and self.sample.value != 1:
            self.sample.value = 1  # which comes back here
            return
        if not self.rows:
            self.shown.value = "There are no samples to show."
            return
        row = self.sorted_rows()[self.sample.value - 1]
        rest_at_ends((self.previous, self.next), self.sample.value, 1, len(self.rows))
        self.shown.value = self.pair(row) + heat_strip(row)

    def pair(self, row: dict) -> str:
        """The sample before and after beside each other, and what changed in numbers."""
        before, after = marked(row["before"], row["after"])
        caption = f"<b>Sample {self.sample.value} of {len(self.rows)}: gain {number(gain(row))}, KL {number(kl(row))} nats</b> ({NOTE})"
        texts = [
            ("before", f"reward {number(float(row['reward_before']))}", before.markup),
            ("after", f"reward {number(float(row['reward_after']))}", after.markup),
        ]
        return paragraph(caption) + paragraph(f"Prompt: {escape(row['prompt'])}") + text_cards(texts)

    def static(self, count: int = 5) -> Static:
        """The first `count` samples in the chosen order as a table, and the heat strip of the first."""
        rows = self.sorted_rows()[:count]
        if not rows:
            return Static("There are no samples to show.")
        lines = []
        for row in rows:
            before, after = marked(row["before"], row["after"])
            rewards = {
                "reward before": float(row["reward_before"]),
                "reward after": float(row["reward_after"]),
            }
            lines.append(
                {"prompt": row["prompt"], "before": before, "after": after, **rewards, "KL": kl(row)}
            )
        caption = f"{len(rows)} of {len(self.rows)} samples, {self.sort.value} first ({NOTE})"
        return static(table(lines, caption) + heat_strip(rows[0]))
