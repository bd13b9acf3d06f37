"""Answers to the exercises of notebook 04, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import torch

from helpers import exercises

PLANS = {"A": "leak", "B": "settled", "C": "broken start", "D": "fine", "E": "one prompt"}

# -------------------------------------------------------------------------------------------------------- right answers


def gaps(prompt):
    words = prompt.split()
    return {(i, *words[:i], *words[i + 1 :]) for i in range(len(words))}


def near(train, held_out):
    seen = {gap for prompt in train for gap in gaps(prompt)}
    return [prompt for prompt in held_out if gaps(prompt) & seen]


def neighbours(first, second):
    first, second = first.split(), second.split()
    return len(first) == len(second) and sum(a != b for a, b in zip(first, second)) == 1


def near_by_comparing_all(train, held_out):
    return [prompt for prompt in held_out if any(neighbours(prompt, other) for other in train)]


def top_p(probs, p):
    ordered, index = probs.sort(descending=True)
    kept = torch.zeros_like(probs)
    kept[index] = torch.where(ordered.cumsum(-1) - ordered < p, ordered, torch.zeros_like(ordered))
    return kept / kept.sum()


def top_p_of_transformers(probs, p):
    from transformers import TopPLogitsWarper

    return TopPLogitsWarper(p)(None, probs.log()[None])[0].softmax(-1)


RIGHT = [
    (exercises.check_prompt_plans, PLANS),
    (exercises.check_near, near),
    (exercises.check_near, near_by_comparing_all),
    (exercises.check_near, lambda train, held_out: tuple(near(train, held_out))),
    (exercises.check_top_p, top_p),
    (exercises.check_top_p, top_p_of_transformers),
    (exercises.check_top_p, lambda probs, p: top_p(probs, p).tolist()),
]


def in_place(train, held_out):
    """A function that changes its arguments must not change what it is checked against."""
    found = near(train, held_out)
    held_out[:] = found
    train.clear()
    return held_out


OPEN = [
    (exercises.check_prompt_plans, PLANS | {"B": None}),
    (exercises.check_near, lambda train, held_out: None),
    (exercises.check_top_p, lambda probs, p: None),
]

# -------------------------------------------------------------------------------------------------------- wrong answers


def with_two_words_more(train, held_out):
    def near(first, second):
        first, second = first.split(), second.split()
        return len(first) == len(second) and sum(a != b for a, b in zip(first, second)) <= 2

    return [prompt for prompt in held_out if any(near(prompt, other) for other in train)]


def where_the_gap_is_forgotten(train, held_out):
    seen = {gap[1:] for prompt in train for gap in gaps(prompt)}
    return [prompt for prompt in held_out if {gap[1:] for gap in gaps(prompt)} & seen]


def as_long_as_the_shorter(train, held_out):
    def near(first, second):
        return sum(a != b for a, b in zip(first.split(), second.split())) == 1

    return [prompt for prompt in held_out if any(near(prompt, other) for other in train)]


def by_sets_of_words(train, held_out):
    def near(first, second):
        first, second = first.split(), second.split()
        return len(first) == len(second) and len({*first} - {*second}) == 1

    return [prompt for prompt in held_out if any(near(prompt, other) for other in train)]


def by_letters(train, held_out):
    def near(first, second):
        return sum(a != b for a, b in zip(first, second)) == 1

    return [prompt for prompt in held_out if any(near(prompt, other) for other in train)]


def where_only_the_last_word_may_differ(train, held_out):
    beginnings = [other.split()[:-1] for other in train]
    return [prompt for prompt in held_out if prompt.split()[:-1] in beginnings]


def once_for_each_neighbour(train, held_out):
    return [prompt for prompt in held_out for other in train if neighbours(prompt, other)]


def no_renormalising(probs, p):
    kept = top_p(probs, p) > 0
    return torch.where(kept, probs, 0 * probs)


def drop_the_crossing_token(probs, p):
    ordered, index = probs.sort(descending=True)
    kept = torch.zeros_like(probs)
    kept[index] = torch.where(ordered.cumsum(-1) <= p, ordered, torch.zeros_like(ordered))
    return kept / kept.sum()


def in_sorted_order(probs, p):
    return top_p(probs.sort(descending=True).values, p)


def not_sorted_at_all(probs, p):
    kept = torch.where(probs.cumsum(-1) - probs < p, probs, 0 * probs)
    return kept / kept.sum()


def each_against_p(probs, p):
    kept = torch.where(probs >= p, probs, 0 * probs)
    return kept / kept.sum()


def each_against_p_unscaled(probs, p):
    return torch.where(probs >= p, probs, 0 * probs)


def not_sorted_and_short(probs, p):
    return torch.where(probs.cumsum(-1) <= p, probs, 0 * probs)


def sorted_twice(probs, p):
    index = probs.sort(descending=True).indices
    return in_sorted_order(probs, p)[index]


def scaled_by_softmax(probs, p):
    return top_p(probs, p).softmax(-1)


def only_the_kept(probs, p):
    kept = top_p(probs, p)
    return kept[kept > 0]


def raises(*arguments):
    raise IndexError("out of range")


WRONG = [
    (exercises.check_prompt_plans, PLANS | {"A": "fine"}, "4 of 5 are right. A:"),
    (exercises.check_prompt_plans, PLANS | {"B": "fine"}, "after forty words"),
    (exercises.check_prompt_plans, PLANS | {"C": "fine"}, "the space between two words"),
    (exercises.check_prompt_plans, PLANS | {"D": "leak"}, "need not come from another split"),
    (exercises.check_prompt_plans, PLANS | {"D": "leak", "E": "fine"}, "3 of 5 are right. D:"),
    (exercises.check_prompt_plans, PLANS | {"E": "fine"}, "on other prompts"),
    (exercises.check_prompt_plans, PLANS | {"E": "bad"}, "E is 'bad': expected one of"),
    (exercises.check_prompt_plans, PLANS | {"F": "fine"}, "the keys A, B, C, D and E"),
    (exercises.check_prompt_plans, ["leak"], "yours is list"),
    (
        exercises.check_near,
        lambda *given: len(near(*given)),
        "expected a list of prompts; your function returned 3",
    ),
    (exercises.check_near, lambda train, held_out: near(held_out, train), "you returned training prompts"),
    (exercises.check_near, once_for_each_neighbour, "stands in your list twice"),
    (exercises.check_near, with_two_words_more, "in two words"),
    (exercises.check_near, as_long_as_the_shorter, "neighbours have the same number of words"),
    (exercises.check_near, where_the_gap_is_forgotten, "the gap is elsewhere"),
    (exercises.check_near, by_sets_of_words, "in another order: compare them place by place"),
    (exercises.check_near, lambda *given: near(*given)[::-1], "in another order than held_out has them"),
    (exercises.check_near, lambda train, held_out: [p for p in held_out if p in train], "none found"),
    (exercises.check_near, lambda *given: near(*given)[:2], "expected ['I saw this movie'"),
    (exercises.check_near, by_letters, "compare words (`prompt.split()`), not letters"),
    (exercises.check_near, where_only_the_last_word_may_differ, "'Her brother loved it' is missing"),
    (exercises.check_near, lambda train, held_out: [["a"]], "yours holds ['a']"),
    (
        exercises.check_near,
        lambda train, held_out: [prompt in train for prompt in held_out],
        "yours holds False",
    ),
    (exercises.check_near, [1, 2], "should be a function"),
    (exercises.check_near, raises, "raised IndexError"),
    (exercises.check_top_p, no_renormalising, "they sum to 0.80: scale them to 1"),
    (exercises.check_top_p, drop_the_crossing_token, "you dropped the token that crosses p"),
    (exercises.check_top_p, in_sorted_order, "in sorted order"),
    (exercises.check_top_p, not_sorted_at_all, "start with the likeliest"),
    (exercises.check_top_p, not_sorted_and_short, "start with the likeliest"),
    (exercises.check_top_p, sorted_twice, "sorts once more"),
    (exercises.check_top_p, scaled_by_softmax, "divide by their sum"),
    (exercises.check_top_p, each_against_p, "running sum"),
    (exercises.check_top_p, each_against_p_unscaled, "running sum"),
    (exercises.check_top_p, only_the_kept, "got the shape (2,)"),
    (exercises.check_top_p, lambda probs, p: probs, "expected [0.0, 0.625, 0.0, 0.375]"),
    (exercises.check_top_p, lambda probs, p: "nothing", "expected a vector of 4 numbers"),
    (exercises.check_top_p, raises, "raised IndexError"),
]


KNOWN = [
    *((check, answer, "Correct") for check, answer in RIGHT),
    (exercises.check_near, in_place, "Correct"),
    *((check, answer, "Not attempted yet") for check, answer in OPEN),
    *WRONG,
]
