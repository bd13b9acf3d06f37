"""The preference labeller: two continuations side by side, and every choice on disk before the next pair shows."""

import random
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable

import ipywidgets as widgets

from helpers.errors import CourseError
from helpers.feedback.pairs import Pair
from helpers.feedback.ratings import Rating, Ratings, now
from helpers.widgets.controls import text_field
from helpers.widgets.design import framed, in_a_row, named, ring, static, table, text_cards
from helpers.widgets.html import Static, encodable, escape, paragraph, plain, sentence

# Seconds after a pair's appearing in which clicks do not count: the second half of a double click, or clicks that queued
# while the kernel was busy, would rate a pair that nobody has read.
MIN_SECONDS = 0.3
APART = 5  # a pair comes again only after so many showings, so that it is judged again and not remembered
LONGEST = 24 * 3600  # seconds that count for the pace; a file may hold any number
RECENT = 20  # ratings whose median is the pace; a median, since a rater goes for coffee
OTHER = {"first": "second", "second": "first"}
NAMES = ("Left is better (1)", "Tie (2)", "Right is better (3)", "Skip (4)", "Undo (5)")
"""The buttons, each with the key that does the same in the field for keys."""
ELSEWHERE = (
    "The file was changed in another window or program, so this click did not count. This comes next now."
)


class PreferenceLabeller:
    """Asks which continuation is better, pair after pair, and goes on where this rater stopped.

    What shows next follows from the pairs, the rater's name and the file alone: the first pair this rater has not rated,
    or, at every `repeat_every`-th showing, one rated earlier with its sides swapped, which tells how far the rater agrees
    with themself (`agreement.self_agreement`). The sides are shuffled by name and pair.

    Args:
        pairs: what to rate, in order (`pairs.choose_pairs`).
        ratings: the file; several raters may share it, in several kernels.
        rater: the rater's name; may be typed in the widget.
        repeat_every: 2 or more.
    Raises:
        CourseError: `pairs` are not pairs, or repeat_every is too small.
    """

    def __init__(self, pairs: list[Pair], ratings: Ratings, rater: str = "", repeat_every: int = 10):
        for place, pair in enumerate(pairs):
            if not isinstance(pair, Pair):
                raise CourseError(f"pair {place} is {pair!r:.60}: expected a Pair(prompt, first, second)")
        if repeat_every < 2:
            raise CourseError(
                f"repeat_every is {repeat_every}: expected 2 or more, or nothing new would show"
            )
        self.pairs = {pair.id: pair for pair in pairs}
        self.ratings, self.repeat_every = ratings, repeat_every
        self._make_controls(rater)
        self.show(note=ratings.repaired)

    def _make_controls(self, rater: str) -> None:
        self.rater = text_field(widgets.Text, "Rater", value=encodable(rater), placeholder="your name")
        self.reason = text_field(widgets.Text, "Reason (optional)")
        self.left, self.tie, self.right, self.skip, self.undo = self.buttons = [
            widgets.Button(description=name) for name in NAMES
        ]
        # core widgets know no keys but those typed into a field
        self.keys = widgets.Text(description="Keys", placeholder="type 1 to 5")
        self.progress, self.shown, self.message, self.people = (widgets.HTML() for _ in range(4))
        self.pace, self.last = widgets.Label(), widgets.Label()
        self.rater.observe(lambda change: self.show(), "value")
        self.keys.observe(self.press, "value")
        self.left.on_click(lambda _: self.rate(self.side))
        self.right.on_click(lambda _: self.rate(OTHER[self.side]))
        self.tie.on_click(lambda _: self.rate("tie"))
        self.skip.on_click(lambda _: self.rate("skip"))
        self.undo.on_click(lambda _: self.take_back())
        # the buttons stand above the texts: below they would move with each text's length
        choices = named("rlhf-large", in_a_row(*self.buttons, self.keys))
        self.view = framed(
            in_a_row(self.rater, self.progress, self.pace),
            choices,
            self.last,
            self.message,
            self.shown,
            self.reason,
            self.people,
        )

    def press(self, change: dict) -> None:
        """Do what the button does whose number was typed, and empty the field for the next key."""
        key = change["new"][-1:]
        self.keys.value = ""
        for name, button in zip(NAMES, self.buttons):
            if name.endswith(f"({key})") and not button.disabled:
                button.click()

    def mine(self) -> list[Rating]:
        """This rater's ratings of these pairs, in order."""
        standing = self.ratings.standing(self.name) if self.name else []
        return [rating for rating in standing if rating.pair.id in self.pairs]

    def show(self, note: str = "", last: str = "") -> None:
        """Show the pair that comes next, or say why there is none; with a note, and what the last click did."""
        simulated = {rating.rater for rating in self.ratings.standing() if rating.simulated}
        typed = encodable(self.rater.value.strip())
        self.name = "" if typed in simulated else typed
        mine = self.mine()
        self.pair = self.next_pair(mine)
        self.side = self.side_of(self.pair, mine) if self.pair else ""
        for control in (self.reason, *self.buttons):
            control.disabled = not self.name or not self.pair
        # a pair of another list could not come back, so its rating is not taken back either
        latest = self.ratings.standing(self.name)[-1:] if self.name else []
        self.undo.disabled = not latest or latest[0].pair.id not in self.pairs
        self.progress.value = ring(len({rating.pair.id for rating in mine}), len(self.pairs))
        self.pace.value, self.last.value = self.pace_in_words(mine), last
        if typed in simulated:
            self.shown.value = sentence(
                "Ratings under this name are simulated. Type another name to rate yourself."
            )
        elif self.pair and not self.name:
            self.shown.value = sentence(
                "Type your name in the field “Rater” and press Enter. Then the first pair shows."
            )
        else:
            self.shown.value = beside(self.pair, self.side) if self.pair else self.nothing_left(mine)
        self.message.value, self.people.value = sentence(note), self.people_in_words(simulated)
        self.appeared = time.monotonic()

    def next_pair(self, mine: list[Rating]) -> Pair | None:
        """The first pair not rated yet; at every `repeat_every`-th showing one rated once, not lately, and not skipped."""
        counts = Counter(rating.pair.id for rating in mine)
        new = next((pair for key, pair in self.pairs.items() if not counts[key]), None)
        if new and (len(mine) + 1) % self.repeat_every == 0:
            earlier = [r.pair for r in mine[: 1 - APART] if counts[r.pair.id] == 1 and r.choice != "skip"]
            if earlier:
                return random.Random(f"{self.name} {len(mine)}").choice(earlier)
        return new

    def side_of(self, pair: Pair, mine: list[Rating]) -> str:
        """Which text of the pair stands at the left: by chance the first time, then the other one."""
        before = [rating.shown for rating in mine if rating.pair.id == pair.id]
        return OTHER[before[-1]] if before else random.Random(f"{self.name} {pair.id}").choice(list(OTHER))

    def rate(self, choice: str) -> None:
        """Write the choice to the disk, then show the next pair; where writing fails, say so and keep the pair."""
        seconds = time.monotonic() - self.appeared
        if seconds < MIN_SECONDS or not self.pair or not self.name or not self.is_current(self.mine):
            return
        rating = Rating(
            id=uuid.uuid4().hex,
            time=now(),
            rater=self.name,
            simulated=False,
            pair=self.pair,
            choice=choice,
            shown=self.side,
            seconds=round(seconds, 2),
            reason=self.reason.value,
        )
        if self.done(self.ratings.add, rating):
            self.reason.value = ""
            side = {
                self.side: "left is better",
                OTHER[self.side]: "right is better",
                "tie": "a tie",
                "skip": "skipped",
            }
            self.show(self.note, f"On disk: {side[choice]}. Undo takes it back.")

    def take_back(self) -> None:
        """Take back this rater's last rating and show its pair again, with the reason given."""
        soon = time.monotonic() - self.appeared < MIN_SECONDS
        if not soon and not self.undo.disabled and self.is_current(lambda: self.ratings.standing(self.name)):
            reason = self.ratings.standing(self.name)[-1].reason
            if self.done(self.ratings.undo, self.name):
                self.reason.value = encodable(reason)
                self.show(self.note, "The last rating is taken back.")

    def is_current(self, ratings: Callable[[], list[Rating]]) -> bool:
        """Whether `ratings` gives what it gave before other windows' ratings are read; if not, show what comes next now.

        Else a pair that was rated there would be rated again, or an undo would take back what does not show here.
        """
        before = ratings()
        if not self.done(self.ratings.refresh):
            return False
        self.note = self.ratings.repaired
        if ratings() == before:
            return True
        self.show(f"{self.note} {ELSEWHERE}".strip())
        return False

    def done(self, act: Callable, *what: object) -> bool:
        """Whether something with the file went well; if not, a sentence says why not."""
        try:
            act(*what)
        except CourseError as error:
            self.message.value, self.last.value = sentence(str(error)), ""
            return False
        return True

    def pace_in_words(self, mine: list[Rating]) -> str:
        """How many pairs are rated, the seconds a pair takes, and the minutes left."""
        rated = len({rating.pair.id for rating in mine})
        words = f"{rated} of {len(self.pairs)} rated"
        times = [rating.seconds for rating in mine[-RECENT:] if 0 < rating.seconds < LONGEST]
        if not times or rated == len(self.pairs):
            return words
        pace = statistics.median(times)
        minutes = max(1, round(pace * (len(self.pairs) - rated) / 60))
        return f"{words}, {pace:.0f} s a pair, about {minutes} minute{'s' * (minutes > 1)} left"

    def nothing_left(self, mine: list[Rating]) -> str:
        """That everything is rated, with counts."""
        if not self.pairs:
            return sentence("There are no pairs to rate.")
        counts = Counter(rating.choice for rating in mine)
        return sentence(
            f"All {len(self.pairs)} pairs are rated, in {len(mine)} showings: one was better {counts['first'] + counts['second']} "
            f"times, {counts['tie']} ties, {counts['skip']} skipped. To go on, make more pairs and run this cell again."
        )

    def people_in_words(self, simulated: set[str]) -> str:
        """Who has how many ratings in the file, and who of them is a program."""
        counts = Counter(rating.rater for rating in self.ratings.standing())
        people = [
            f"{plain(name, 60)} {n}{' (simulated)' * (name in simulated)}" for name, n in counts.items()
        ]
        return sentence(f"Ratings in this file: {', '.join(people)}." if people else "")

    def static(self, count: int = 5) -> Static:
        """The next `count` pairs as a table, and how many are rated."""
        mine = self.mine()
        rated = {rating.pair.id for rating in mine}
        new = [pair for key, pair in self.pairs.items() if key not in rated]
        pairs = list(dict.fromkeys([self.next_pair(mine), *new]))[:count] if new else []
        sides = [self.side_of(pair, mine) for pair in pairs]
        rows = [
            {"prompt": pair.prompt, "left": getattr(pair, left), "right": getattr(pair, OTHER[left])}
            for pair, left in zip(pairs, sides)
        ]
        shown = table(rows, "The pairs that come next") if rows else self.nothing_left(mine)
        return static(shown + sentence(self.pace_in_words(mine)) + self.people.value)


def beside(pair: Pair, left: str) -> str:
    """The prompt, and its continuations next to each other, or below each other where the page is narrow."""
    texts = [
        (side, "", escape(text or "(nothing)"))
        for side, text in (("Left", getattr(pair, left)), ("Right", getattr(pair, OTHER[left])))
    ]
    return paragraph(f"<b>Prompt</b> {escape(pair.prompt)}") + text_cards(texts)
