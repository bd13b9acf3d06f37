"""Answers to the exercises of notebook 04, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

import random

import torch

from helpers import exercises

HELD_OUT = ["The story is a", "I saw this film"]

# -------------------------------------------------------------------------------------------------------- right answers


def split(prompts, n_eval):
    distinct = list(dict.fromkeys(prompts))
    random.Random(0).shuffle(distinct)
    return distinct[n_eval:], distinct[:n_eval]


def position_ids(mask):
    return (mask.cumsum(-1) - 1).clamp(min=0)


def position_ids_as_transformers(mask):
    return (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)


def top_p(probs, p):
    ordered, index = probs.sort(descending=True)
    kept = torch.zeros_like(probs)
    kept[index] = torch.where(ordered.cumsum(-1) - ordered < p, ordered, torch.zeros_like(ordered))
    return kept / kept.sum()


def top_p_of_transformers(probs, p):
    from transformers import TopPLogitsWarper

    return TopPLogitsWarper(p)(None, probs.log()[None])[0].softmax(-1)


def check_own_prompts(prompts):
    return exercises.check_own_prompts(prompts, HELD_OUT)


FIVE = [
    "What I remember of",
    "Before the film began",
    "Her last film was",
    "Half of the audience",
    "At first",
]
RIGHT = [
    (check_own_prompts, FIVE),
    (check_own_prompts, (*FIVE, "A sixth")),
    (exercises.check_split, split),
    (exercises.check_position_ids, position_ids),
    (exercises.check_position_ids, position_ids_as_transformers),
    (exercises.check_position_ids, lambda mask: position_ids(mask).tolist()),
    (exercises.check_top_p, top_p),
    (exercises.check_top_p, top_p_of_transformers),
    (exercises.check_top_p, lambda probs, p: top_p(probs, p).tolist()),
]


def in_place(mask):
    """A function that changes its argument must not change what it is checked against."""
    return mask.cumsum_(-1).sub_(1).clamp_(min=0)


OPEN = [
    (exercises.check_split, lambda prompts, n_eval: (None, None)),
    (exercises.check_split, lambda prompts, n_eval: None),
    (exercises.check_position_ids, lambda mask: None),
    (exercises.check_top_p, lambda probs, p: None),
]

# -------------------------------------------------------------------------------------------------------- wrong answers


def split_first(prompts, n_eval):
    return prompts[n_eval:], prompts[:n_eval]


def split_first_then_deduplicate(prompts, n_eval):
    return list(dict.fromkeys(prompts[n_eval:])), list(dict.fromkeys(prompts[:n_eval]))


def split_first_then_remove_held_out(prompts, n_eval):
    """No leak, but the training list still has repeats."""
    held_out = list(dict.fromkeys(prompts))[:n_eval]
    return [prompt for prompt in prompts if prompt not in held_out], held_out


def drop_all_that_repeat(prompts, n_eval):
    once = [prompt for prompt in prompts if prompts.count(prompt) == 1]
    return once[n_eval:], once[:n_eval]


def hold_out_too_many(prompts, n_eval):
    distinct = list(dict.fromkeys(prompts))
    return distinct[n_eval + 1 :], distinct[: n_eval + 1]


def lose_one(prompts, n_eval):
    train, held_out = split([prompt for prompt in prompts if prompt != "o p"], n_eval)
    return train, held_out


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


def only_the_kept(probs, p):
    kept = top_p(probs, p)
    return kept[kept > 0]


def raises(*arguments):
    raise IndexError("out of range")


WRONG = [
    (check_own_prompts, "one text", "of type str"),
    (check_own_prompts, FIVE[:4], "4 prompts so far"),
    (check_own_prompts, [*FIVE, FIVE[0]], "1 of your prompts repeat"),
    (check_own_prompts, [*FIVE, HELD_OUT[0]], "is held out"),
    (check_own_prompts, [*FIVE, "I liked "], "begins or ends with a space"),
    (check_own_prompts, [*FIVE, "One\ntwo"], "has a line break"),
    (check_own_prompts, [*FIVE, "  "], "is no prompt"),
    (check_own_prompts, [*FIVE, 5], "is no prompt"),
    (exercises.check_split, split_first, "Did you split before you removed the repeats?"),
    (exercises.check_split, split_first_then_deduplicate, "Did you split before you removed the repeats?"),
    (exercises.check_split, split_first_then_remove_held_out, "train has repeats"),
    (exercises.check_split, drop_all_that_repeat, "of a repeated prompt one copy should stay"),
    (exercises.check_split, hold_out_too_many, "held_out has 4 prompts, n_eval asked for 3"),
    (exercises.check_split, lambda *a: split(*a)[::-1], "wrong way round"),
    (exercises.check_split, lambda *a: tuple(map(set, split(*a))), "set and set"),
    (exercises.check_split, lose_one, "'o p' is gone: what is not held out"),
    (exercises.check_split, lambda *a: split(*a)[0], "expected two lists"),
    (exercises.check_split, lambda *a: ([["a"]], [["b"]]), "['a'] is no text"),
    (exercises.check_split, [1, 2], "should be a function"),
    (exercises.check_split, raises, "raised IndexError: out of range"),
    (exercises.check_position_ids, lambda mask: torch.arange(mask.shape[1]), "one row for all prompts"),
    (
        exercises.check_position_ids,
        lambda mask: torch.arange(mask.shape[1]).expand_as(mask),
        "you numbered the columns",
    ),
    (exercises.check_position_ids, lambda mask: mask.cumsum(-1) - 1, "did you forget to clamp?"),
    (exercises.check_position_ids, lambda mask: mask.cumsum(-1), "off by one"),
    (exercises.check_position_ids, lambda mask: (mask.cumsum(0) - 1).clamp(min=0), "down the batch"),
    (exercises.check_position_ids, lambda mask: position_ids(mask).float(), "whole numbers"),
    (exercises.check_position_ids, lambda mask: position_ids(mask)[:2], "expected the mask's shape (3, 5)"),
    (exercises.check_position_ids, lambda mask: position_ids(mask).masked_fill(mask == 0, 99), "beyond"),
    (exercises.check_position_ids, lambda mask: mask * 7, "for the mask [[0, 0, 1, 1, 1]"),
    (exercises.check_position_ids, lambda mask: "positions", "expected a tensor"),
    (exercises.check_position_ids, raises, "raised IndexError"),
    (exercises.check_top_p, no_renormalising, "they sum to 0.80: scale them to 1"),
    (exercises.check_top_p, drop_the_crossing_token, "you dropped the token that crosses p"),
    (exercises.check_top_p, in_sorted_order, "in sorted order"),
    (exercises.check_top_p, not_sorted_at_all, "start with the likeliest"),
    (exercises.check_top_p, each_against_p, "running sum"),
    (exercises.check_top_p, only_the_kept, "got the shape (2,)"),
    (exercises.check_top_p, lambda probs, p: probs, "expected [0.0, 0.625, 0.0, 0.375]"),
    (exercises.check_top_p, lambda probs, p: "nothing", "expected a vector of 4 numbers"),
    (exercises.check_top_p, raises, "raised IndexError"),
]


KNOWN = [
    *((check, answer, "Correct") for check, answer in RIGHT),
    (exercises.check_position_ids, in_place, "Correct"),
    *((check, answer, "Not attempted yet") for check, answer in OPEN),
    *WRONG,
]
