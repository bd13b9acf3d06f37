"""The grammar of the embedded world writes short film reviews, and plain prose that is not about films.

A review follows a plan (plain, negated, contrast or mixed), and its label tells what it says overall. Both
labels share their words on purpose: "not boring at all" is praise, "nothing wonderful about the music" is
blame. So whoever counts words judges poorly, and a model has to read the sentence.

words.yaml holds the words; this file holds the rules and their weights. A template is a string with slots.
`{name}` takes one of the review's facts (its genre, its leading actor) or a phrase of that name. Where the
phrases of a name have two sides, it takes one of the side that is being written; `{name~}` takes one of the
other side.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from helpers.tiny.words import SLOT, Table, check_slots, damaged, read_words

BLAME, PRAISE = 0, 1
LENGTH = (15, 45)
"""Shortest and longest text, in words."""
TRAIN_SEED, TEST_SEED = 1, 2

# ----------------------------------------------------------------------------------------- weights, agreement


def weighted(weights: dict[str, int]) -> list[str]:
    """Repeat each template as its weight says: a draw takes every place in a list equally often."""
    return [template for template, weight in weights.items() for _ in range(weight)]


JUDGEMENTS = {
    "plain": weighted(
        {
            "{np} {vp}": 3,
            "{np} {be} {adj}": 2,
            "{np} {be} {really} {adj}": 2,
            "{np} {be} {adj} and {adj}": 1,
            "{np} {be} the {best} thing about it": 1,
            "{I loved} {np}": 1,
        }
    ),
    "soft": weighted(
        {"{np} {be} {a little} {adj}": 2, "{np} {be} {adj}": 1, "{np} {vp}": 1, "{I liked} {np}": 1}
    ),
    "negated": [
        "{np} {be} not {adj~} at all",
        "{np} {be} never {adj~}",
        "{np} {be} anything but {adj~}",
        "{np} {be} far from {adj~}",
        "there is nothing {adj~} about {np}",
        "nobody could call {np} {adj~}",
        "{np} {be} not {adj~} for a moment",
        "I would never call {np} {adj~}",
        "{np} {be} hardly {adj~}",
        "{np} {be} never once {adj~}",
        "{np} {be} {adj} and never {adj~}",
        "{I cannot fault} {np}",
        # a "no" that turns nothing round:
        "{np} {be} never less than {adj}",
        "{np} could not be more {adj}",
        "{np} {be} not only {adj} but {adj}",
        "there is no denying that {np} {be} {adj}",
        "{np} {be} nothing if not {adj}",
        "there is no doubt that {np} {be} {adj}",
        "{np} {be} not just {adj} but {adj}",
        "nobody could miss how {adj} {np} {be}",
    ],
}
"""Three manners of judging one aspect of a film. `Page.judge` fills {np} with the aspect, {be} with "is" or
"are", {adj} and {vp} with what is said of it."""

WEIGHTED = {
    "film": weighted(
        {
            "this film": 2,
            "this {genre}": 2,
            "{title}": 1,
            "this {genre} by {director}": 1,
            "the new {genre} by {director}": 1,
            "the latest film by {director}": 1,
            "a {genre} called {title}": 1,
        }
    ),
    "a film adj": weighted({"a {film adj}": 2, "a truly {film adj}": 1}),
}
"""Phrases that are not equally frequent. They join those of words.yaml."""

PLURAL = ("the cast", "the characters", "the jokes", "the sets and costumes")
"""Aspects that take "are"."""
PARTS = ("the plot", "the script", "the cast", "the ending", "the first half", "the second half")
"""Aspects that a film is said to have: "the plot of" it, but "the music in" it."""

# ------------------------------------------------------------------------------------------------------ words


class Aspect(NamedTuple):
    """What can be said of one aspect of a film: (in blame, in praise)."""

    adjectives: tuple[list[str], list[str]]
    does: tuple[list[str], list[str]]


def read_aspects(table: Table, strong: set[str]) -> dict[str, Aspect]:
    """Read the aspects by their noun phrases. Each side needs two adjectives that are not strong."""
    aspects = {}
    for noun in table:
        aspects[noun] = Aspect(table.table(noun).sides("adjectives"), table.table(noun).sides("does"))
        if any(len(set(adjectives) - strong) < 2 for adjectives in aspects[noun].adjectives):
            raise damaged((*table.place, noun, "adjectives"), "each side needs two that are not strong")
    return aspects


def read_rules(table: Table) -> Table:
    """Read the phrases by the names of their slots, each as (those of blame, those of praise)."""
    both = {name: (phrases, phrases) for name, phrases in WEIGHTED.items()}
    return Table(table.place, {name: table.sides(name) for name in table} | both)


WORDS = read_words()
FACTS = WORDS.table("reviews").table("facts").check_lists()
STRONG = set(WORDS.table("reviews").phrases("strong adjectives"))
ASPECTS = read_aspects(WORDS.table("reviews").table("aspects"), STRONG)
RULES = read_rules(WORDS.table("reviews").table("phrases"))
PROSE = WORDS.table("prose").table("words").check_lists()
TOPICS = WORDS.table("prose").table("topics").check_lists(least=4)

FACT_SLOTS = ("genre", "genres", "title", "actor", "she", "her", "director", "role")
check_slots(WORDS.table("reviews"), {*RULES, *FACT_SLOTS})
check_slots(WORDS.table("prose"), set(PROSE))

# ----------------------------------------------------------------------------------------------------- a text


def draw(rng: random.Random, options: Sequence):
    """Draw one of the options."""
    return options[int(rng.random() * len(options))]


def draw_facts(rng: random.Random) -> dict[str, str]:
    """Draw what a review keeps to: a genre, a title, a leading actor with a role, a director."""
    woman = rng.random() < 0.5
    genre = draw(rng, FACTS["genres"])
    title = f"The {draw(rng, FACTS['title first'])} {draw(rng, FACTS['title last'])}"
    first_names = FACTS["actresses" if woman else "actors"]
    return {
        "genre": genre,
        "genres": genre[:-1] + "ies" if genre.endswith("y") else genre + "s",
        "title": title,
        "actor": f"{draw(rng, first_names)} {draw(rng, FACTS['surnames'])}",
        "she": "she" if woman else "he",
        "her": "her" if woman else "him",
        "director": draw(rng, FACTS["directors"]),
        "role": draw(rng, FACTS["roles"]),
    }


class Page:
    """One review in the making: its facts, and what it has used already."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.facts = draw_facts(rng)
        self.aspects: list[str] = []  # those still to be judged
        self.used: set = set()

    def fill(self, template: str, side: int = PRAISE) -> str:
        """Fill every slot of a template, those with two sides from `side`."""
        return SLOT.sub(lambda slot: self.fill_slot(slot[1], side), template)

    def fill_slot(self, name: str, side: int) -> str:
        """Make what stands in the slot {name}: a fact, or a phrase whose own slots are filled."""
        if name.endswith("~"):
            name, side = name[:-1], 1 - side
        if name in self.facts:
            return self.facts[name]
        return self.fill(self.pick(RULES[name][side]), side)

    def pick(self, options: Sequence):
        """Draw one of the options; where there are many, rather one that this review has not used yet."""
        for _ in range(4 if len(options) > 4 else 1):
            choice = draw(self.rng, options)
            if choice not in self.used:
                break
        if choice != "{np} {vp}":  # it may come again, with another verb phrase
            self.used.add(choice)
        return choice

    def judge(self, side: int, manner: str | None = None, film: str = "") -> str:
        """Make a clause that judges one aspect: "the plot is never dull".

        Args:
            side: BLAME or PRAISE.
            manner: one of `JUDGEMENTS`; None takes plain or negated.
            film: what the clause names after the aspect: "the plot of this film is never dull".
        """
        if manner is None:
            manner = "negated" if self.rng.random() < 0.25 else "plain"
        noun = self.next_aspect()
        be = "are" if noun in PLURAL else "is"
        adjectives, does = ASPECTS[noun]
        form = self.pick([form for form in JUDGEMENTS[manner] if not film or form.startswith("{np}")])
        same = adjectives[side]
        if form.count("{adj}") == 2 or "{a little}" in form or "more" in form:
            same = [adjective for adjective in same if adjective not in STRONG]
        while "{adj}" in form:
            fresh = [adjective for adjective in same if adjective not in form]
            form = form.replace("{adj}", self.pick(fresh), 1)
        form = form.replace("{adj~}", self.pick(adjectives[1 - side])).replace("{vp}", self.pick(does[side]))
        if film:
            noun += f" {'of' if noun in PARTS else 'in'} {film}"
        return self.fill(form.replace("{np}", noun).replace("{be}", be), side)

    def next_aspect(self) -> str:
        """Take an aspect that this review has not judged yet; only in comedies does it judge the jokes."""
        if not self.aspects:
            comedy = self.facts["genre"] in FACTS["comedies"]
            self.aspects = [noun for noun in ASPECTS if comedy or noun != "the jokes"]
            self.rng.shuffle(self.aspects)
        return self.aspects.pop()


def write_sentences(parts: list[str]) -> str:
    """Write clauses as sentences, with capitals, full stops, and "an" before a vowel."""
    text = " ".join(part[0].upper() + part[1:] + ("" if part[-1] in "?!" else ".") for part in parts)
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)


# ------------------------------------------------------------------------------------------- parts of reviews


def opening(page: Page, side: int, whole: bool, manner: str | None = None) -> str:
    """Make the first sentence: neutral words first, then a clause on one side.

    Args:
        side: BLAME or PRAISE.
        whole: whether the clause may judge the whole film. Otherwise it judges one aspect, so that a later
            sentence can disagree.
        manner: as in `Page.judge`.
    """
    kind = page.rng.random()
    if kind < 0.36:  # "I saw The Last Road on Monday, and the plot is clever"
        joint = page.pick((" and ", ", and "))
        return page.fill("{viewing}") + joint + clause(page, side, whole, manner)
    if kind < 0.50:  # "Anna Vance plays a taxi driver in this drama, and she carries every scene"
        start = page.fill("{casting}")
        return f"{start}, and {page.judge(side, manner) if manner else page.fill('{performance}', side)}"
    if kind < 0.68:  # "this western is about a taxi driver who inherits a farm, and it made my week"
        return page.fill("{premise}") + ", and " + clause(page, side, whole, manner)
    if kind < 0.76 and whole and not manner:  # "ten minutes into this film, I was looking at my watch"
        when = page.pick(("moment", "moment", "afterwards"))
        return page.fill(f"{{{when}}}, {{{when} reaction}}", side)
    if kind < 0.80 and manner != "negated":  # "the director of this film trusts the audience"
        return page.fill("{of the director}", side)
    if kind < 0.86 and whole:  # "I have seen every film by Novak, and this is the best of them"
        return page.fill("{among others}", side)
    return page.judge(side, manner, page.fill("{short film}"))


def clause(page: Page, side: int, whole: bool, manner: str | None) -> str:
    """Make the opening's clause on one side: on the whole film, where it may be, else on one aspect."""
    if whole and page.rng.random() < 0.6:
        return page.fill("{negated reaction}" if manner == "negated" else "{reaction}", side)
    return page.judge(side, manner)


def body(page: Page, side: int, manner: str | None = None) -> str:
    """Make a sentence on one side for the middle of a review: on one aspect, on two, or on the whole film."""
    kind = page.rng.random()
    if kind < 0.35:
        return page.judge(side, manner) + ", and " + page.judge(side, manner)
    if kind < 0.55:
        return page.judge(side, manner)
    if kind < 0.7:
        return page.fill("{hedge} ") + page.judge(side, manner)
    if kind < 0.8:
        return page.fill("{surprise}", side)
    if kind < 0.86:
        return page.fill("{company}", side)
    return page.fill("{negated reaction}" if manner == "negated" else "{overall}", side)


# ------------------------------------------------------------------------------------------------------ plans


def simple(page: Page, side: int) -> list[str]:
    """Make praise in words of praise, or blame in words of blame."""
    parts = [opening(page, side, whole=True, manner="plain")]
    for _ in range(page.pick((1, 2))):
        aspect = page.rng.random() < 0.6
        parts.append(page.judge(side, "plain") if aspect else page.fill("{reaction}", side))
    return [*parts, page.fill("{verdict}", side)]


def plain(page: Page, side: int) -> list[str]:
    """Make a review of one opinion, in which some clauses are negated and most are not."""
    parts = [opening(page, side, whole=True)]
    if page.rng.random() < 0.06:  # a few begin with the verdict, as people do
        parts.insert(0, page.fill("{verdict}", side))
    if page.rng.random() < 0.12:
        parts.append(page.fill("{aside}"))
    parts += [body(page, side) for _ in range(page.pick((0, 1, 1, 2)))]
    if page.rng.random() < 0.8:
        parts.append(page.fill(page.pick(("{verdict}", "{verdict}", "{negated verdict}")), side))
    return parts


def negated(page: Page, side: int) -> list[str]:
    """Make a review of one opinion, in which every judgement of an aspect has a "no" in it."""
    parts = [opening(page, side, whole=True, manner="negated")]
    parts += [body(page, side, "negated") for _ in range(page.pick((0, 1, 1, 2)))]
    if page.rng.random() < 0.7:
        parts.append(page.fill("{negated verdict}", side))
    return parts


def contrast(page: Page, side: int) -> list[str]:
    """Make a review that grants the other side one aspect, and judges the film by `side`."""
    kind = page.rng.random()
    if kind < 0.35:
        start = page.fill("{viewing}")
        granted = page.judge(1 - side, "soft")
        parts = [f"{start}, and although {granted}, {page.fill('{overall}', side)}"]
    elif kind < 0.6:
        granted = opening(page, 1 - side, whole=False, manner="soft")
        parts = [granted + page.fill(", {but} {overall}", side)]
    else:
        granted = opening(page, 1 - side, whole=False, manner="soft")
        parts = [granted, page.fill("{turn} {overall}", side)]
    if page.rng.random() < 0.5:
        parts.append(body(page, side))
    return [*parts, page.fill(page.pick(("{verdict}", "{negated verdict}")), side)]


def mixed(page: Page, side: int) -> list[str]:
    """Make a review that praises and blames; only its last sentence takes `side`."""
    first = opening(page, page.pick((side, 1 - side)), whole=False, manner="soft")
    good, bad = page.judge(PRAISE, "soft"), page.judge(BLAME, "soft")
    joined = (
        f"{good}, but {bad}",
        f"{bad}, but {good}",
        f"although {bad}, {good}",
        f"although {good}, {bad}",
    )
    return [first, page.pick(joined), page.fill("{mixed verdict}", side)]


PLANS = {"simple": simple, "plain": plain, "negated": negated, "contrast": contrast, "mixed": mixed}
SIMPLE = ("simple",)
"""A model's first lessons. Not part of the usual reviews."""
USUAL = ("plain",) * 10 + ("negated",) * 4 + ("contrast",) * 4 + ("mixed",) * 2
HARD = ("negated", "contrast")

# ---------------------------------------------------------------------------------------------------- reviews


def write_planned(count: int, seed: int, plans: Sequence[str]) -> list[tuple[str, int, str]]:
    """Write distinct reviews as (text, label, plan), half of them praise, in random order.

    plans: names in `PLANS`; one that stands there twice is taken twice as often.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    reviews = []
    while len(reviews) < count:
        label = len(reviews) % 2
        plan = draw(rng, plans)
        while True:  # too long, too short or seen before: the same plan again, so that no plan is favoured
            text = write_sentences(PLANS[plan](Page(rng), label))
            if fits(text) and text not in seen:
                break
        seen.add(text)
        reviews.append((text, label, plan))
    rng.shuffle(reviews)
    return reviews


def fits(text: str) -> bool:
    """Tell whether a text is as long as it should be."""
    return LENGTH[0] <= text.count(" ") + 1 <= LENGTH[1]


def without_plans(reviews: list[tuple[str, int, str]]) -> list[dict]:
    """Give reviews the form that the course uses: {"text": str, "label": int}."""
    return [{"text": text, "label": label} for text, label, _ in reviews]


def write_reviews(count: int, seed: int) -> list[dict]:
    """Write film reviews as {"text": str, "label": int}: 1 praise, 0 blame, half each, all distinct."""
    return without_plans(write_planned(count, seed, USUAL))


def write_hard_reviews(count: int, seed: int) -> list[dict]:
    """Write reviews, as `write_reviews`, in which negation or contrast decides the label."""
    return without_plans(write_planned(count, seed, HARD))


@lru_cache(maxsize=1)
def planned_splits() -> tuple[list[tuple[str, int, str]], list[tuple[str, int, str]]]:
    """Write the reviews of `review_splits` once."""
    test = write_planned(2_000, TEST_SEED, USUAL)
    held_out = {text for text, _, _ in test}
    train = [review for review in write_planned(20_100, TRAIN_SEED, USUAL) if review[0] not in held_out]
    halves = [[review for review in train if review[1] == label][:10_000] for label in (BLAME, PRAISE)]
    train = halves[0] + halves[1]
    random.Random(TRAIN_SEED).shuffle(train)
    return train, test


def review_splits() -> tuple[list[dict], list[dict]]:
    """Give the course's reviews, always the same: 20,000 to train on and 2,000 to test on.

    Half of each are praise, and no text is in both.
    """
    train, test = planned_splits()
    return without_plans(train), without_plans(test)


# ------------------------------------------------------------------------------------------------------ prose


def write_prose(count: int, seed: int) -> list[str]:
    """Write distinct texts that are not about films, each on one of `TOPICS`."""
    rng = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        text = write_sentences(prose_sentences(rng))
        if fits(text):
            texts[text] = None
    return list(texts)


def prose_sentences(rng: random.Random) -> list[str]:
    """Make two to four sentences of one topic, with one town, thing, dish, pan and name throughout."""
    facts = {slot: rng.choice(PROSE[slot]) for slot in ("town", "thing", "dish", "pan", "name")}

    def fill(template: str) -> str:
        return SLOT.sub(lambda slot: facts.get(slot[1]) or fill(rng.choice(PROSE[slot[1]])), template)

    topic = TOPICS[rng.choice(list(TOPICS))]
    return [fill(template) for template in rng.sample(topic, rng.choice((2, 3, 3, 4)))]


def fingerprint() -> str:
    """Hash what the grammar writes. The build notes the hash, so that a test can ask for a rebuild."""
    texts = [review["text"] for split in review_splits() for review in split]
    texts += [review["text"] for review in write_hard_reviews(1_000, 0)] + write_prose(1_000, 0)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
