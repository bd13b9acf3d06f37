"""The sample explorer: the same prompts before and after training, and where in a text the policy moved."""

import difflib
import math

import ipywidgets as widgets

from helpers.widgets.controls import WHOLE_NAME, back_and_on, check_rows, choice, place_field, rest_at_ends
from helpers.widgets.html import Static, escape, number, plain, shaded, table

KEYS = ("prompt", "before", "after", "reward_before", "reward_after", "tokens")

SOURCE = "SampleExplorer takes what compare.token_view(trainer, table) returns: one dictionary per prompt."
NOTE = "struck out: only before; underlined: only after"

# What each order is called, and what it puts first.
ORDERS = {
    "largest gain": lambda row: -gain(row),
    "largest loss": lambda row: gain(row),
    "highest reward after": lambda row: -row["reward_after"],
    "largest KL": lambda row: -kl(row),
}

# What a heat strip can show: its name, its place in a token's tuple, and how to read it.
STRIPS = {
    "KL": (1, "KL in nats: above 0 where training made the token likelier, below 0 where less likely"),
    "advantage": (2, "advantage: above 0 where the text turned out better than the value head expected"),
}


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


def heat_strip(row: dict, what: str) -> str:
    """The tokens of the sample after training, each over its number."""
    place, meaning = STRIPS[what]
    # adding 0.0 takes the minus sign from a rounded -0.0
    pieces = [(token[0], round(token[place], 2) + 0.0) for token in row["tokens"]]
    return shaded(pieces, f"The tokens after training, each over its {meaning}")


class SampleExplorer:
    """Samples before and after training, sorted, with their differences and a heat strip over the tokens.

    Args:
        rows: what `compare.token_view` returns, one dictionary per prompt: prompt, before, after, reward_before,
            reward_after, and tokens, a list of (text, KL in nats, advantage) for the sample after training.

    Raises:
        CourseError: a row lacks one of these.
    """

    def __init__(self, rows: list[dict]):
        check_rows(rows, KEYS, "row {}", SOURCE)
        self.rows = list(rows)
        self.sort = choice("Sort by", list(ORDERS), WHOLE_NAME)
        self.sample = place_field("Sample", max(1, len(rows)))
        self.previous, self.next = back_and_on(self.go)
        self.strip = choice("Heat strip shows", list(STRIPS), WHOLE_NAME)
        self.shown = widgets.HTML()
        for control in (self.sort, self.sample, self.strip):
            control.observe(self.show, "value")
        chooser = widgets.HBox([self.sample, self.previous, self.next])
        self.view = widgets.VBox([self.sort, chooser, self.strip, self.shown])
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
        self.shown.value = self.pair(row) + heat_strip(row, self.strip.value)

    def pair(self, row: dict) -> str:
        """The sample before and after as a table, and what changed in numbers."""
        before, after = marked(row["before"], row["after"])
        caption = (
            f"Sample {self.sample.value} of {len(self.rows)}: gain {number(gain(row))}, "
            f"KL {number(kl(row))} nats ({NOTE})"
        )
        lines = [
            {"": "prompt", "text": row["prompt"], "reward": None},
            {"": "before", "text": before, "reward": float(row["reward_before"])},
            {"": "after", "text": after, "reward": float(row["reward_after"])},
        ]
        return table(lines, caption)

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
        return Static(table(lines, caption) + heat_strip(rows[0], self.strip.value))
