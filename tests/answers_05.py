"""Answers to the exercises of notebook 05, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import re

from helpers import exercises

PRAISE = ("great", "wonderful", "brilliant", "excellent", "superb")
NEGATIONS = {"not", "never", "no", "nothing", "nobody", "hardly"}

# ------------------------------------------------------------------------------------------------------------ right answers

SUSPECTS = {"A": "fine", "B": "refused", "C": "useless", "D": "refused", "E": "useless"}


def length_penalty(outputs, **kwargs):
    return [-0.05 * max(0, len(output.split()) - 10) for output in outputs]


def robust_keywords(samples, **kwargs):
    rewards = []
    for sample in samples:
        words = re.findall(r"\w+", sample.lower())
        found = {
            word
            for i, word in enumerate(words)
            if word in PRAISE and not NEGATIONS & set(words[max(0, i - 3) : i])
        }
        rewards.append(min(len(found), 2) / 2)
    return rewards


RIGHT = [
    (exercises.check_suspects, SUSPECTS),
    (exercises.check_length_penalty, length_penalty),
    (exercises.check_robust_keywords, robust_keywords),
]


# Any scale will do, as long as the order holds.
RIGHT += [
    (exercises.check_robust_keywords, lambda samples: [10 * r - 3 for r in robust_keywords(samples)]),
]

# ------------------------------------------------------------------------------------------------------------ known mistakes


def words(text):
    return len(text.split())


def each(rule):
    """A reward function that looks at one sample at a time."""
    return lambda samples, **kwargs: [rule(re.findall(r"\w+", sample.lower()), sample) for sample in samples]


def unnegated(found, reach=3, negations=frozenset(NEGATIONS)):
    """The praise words without those that follow a negation within `reach` words."""
    return [
        w
        for i, w in enumerate(found)
        if w in PRAISE and not set(negations) & set(found[max(0, i - reach) : i])
    ]


def capped(praise):
    return min(len(set(praise)), 2)


WRONG = [
    (exercises.check_suspects, "A", "should be a dictionary"),
    (exercises.check_suspects, {"A": "fine"}, "should be a dictionary"),
    (exercises.check_suspects, SUSPECTS | {"B": "bad"}, "B is 'bad'"),
    (exercises.check_suspects, SUSPECTS | {"A": "refused"}, "4 of 5 are right. A: it stretches"),
    (exercises.check_suspects, SUSPECTS | {"B": "fine"}, "look at the brackets"),
    (exercises.check_suspects, SUSPECTS | {"C": "fine"}, "which sample gets which reward"),
    (exercises.check_suspects, SUSPECTS | {"D": "useless"}, "a set has no order"),
    (exercises.check_suspects, SUSPECTS | {"E": "fine"}, "is any sample better"),
    (exercises.check_length_penalty, lambda outputs: [0.05 * max(0, words(o) - 10) for o in outputs], "sign is wrong"),
    (exercises.check_length_penalty, lambda samples: length_penalty(samples), "prompt's words too"),
    (exercises.check_length_penalty, lambda outputs: [-0.05 * max(0, len(o) - 10) for o in outputs], "characters"),
    (exercises.check_length_penalty, lambda outputs: [-0.05 * words(o) for o in outputs], "first 10 are free"),
    (exercises.check_length_penalty, lambda outputs: [-0.05 * (words(o) - 10) for o in outputs], "earn a bonus"),
    (exercises.check_length_penalty, lambda outputs: [-0.05 * (words(o) > 10) for o in outputs], "once per text"),
    (exercises.check_length_penalty, lambda outputs: [-max(0, words(o) - 10) for o in outputs], "asked for is 0.05"),
    (exercises.check_length_penalty, lambda outputs: [-0.05 * max(0, len(o.split(" ")) - 10) for o in outputs], "10 words are free"),
    (exercises.check_length_penalty, lambda outputs: [-0.05 * max(0, words(o) - 9) for o in outputs], "10 words are free"),
    (exercises.check_length_penalty, lambda outputs: [-1.0 for o in outputs], "expected -0.2, 0, 0"),
    (exercises.check_length_penalty, lambda outputs: [-0.0 for o in outputs], "you gave 0, 0, 0;"),
    (exercises.check_length_penalty, lambda outputs: None, "is a `return` missing?"),
    (exercises.check_length_penalty, lambda outputs: -0.2, "of type float for 3 samples"),
    (exercises.check_length_penalty, lambda outputs: [[-0.2, 0.0], [0.0], [0.0]], "not one a token"),
    (exercises.check_length_penalty, lambda outputs: outputs.size, "raised AttributeError"),
    (exercises.check_length_penalty, [-0.2, 0, 0], "should be a function; yours is list"),
    (exercises.check_robust_keywords, each(lambda found, text: 0), "should still be paid"),
    (exercises.check_robust_keywords, lambda samples: [capped(w for w in s.lower().split() if w in PRAISE) for s in samples], "mind the full stop"),
    (
        exercises.check_robust_keywords,
        each(lambda found, text: len(unnegated(found)) if len(found) < 6 else 0),
        "'The story is brilliant and the cast are wonderful.' earns no more",
    ),
    (
        exercises.check_robust_keywords,
        lambda samples: [capped([w.strip(".") for w in s.split() if w.strip(".") in PRAISE]) for s in samples],
        "mind the capitals",
    ),
    (exercises.check_robust_keywords, each(lambda found, text: len(unnegated(found))), "count each word once"),
    (exercises.check_robust_keywords, each(lambda found, text: len(set(unnegated(found)))), "set a limit"),
    (
        exercises.check_robust_keywords,
        each(lambda found, text: capped(w for w in found if w in PRAISE)),
        "look at the word before",
    ),
    (exercises.check_robust_keywords, each(lambda found, text: capped(unnegated(found, 1))), "two words before"),
    (
        exercises.check_robust_keywords,
        each(lambda found, text: capped(unnegated(found, 3, {"not"}))),
        "not the only negation",
    ),
    (
        exercises.check_robust_keywords,
        each(
            lambda found, text: min(1, sum(w in text.lower() for w in PRAISE)) * (not NEGATIONS & set(found))
            + 0.1 * capped(unnegated(found))
        ),
        "whole words",
    ),
    (exercises.check_robust_keywords, lambda samples: [1 / len(s) for s in samples], "raised ZeroDivisionError"),
]  # fmt: skip


KNOWN = [*((check, answer, "Correct") for check, answer in RIGHT), *WRONG]
