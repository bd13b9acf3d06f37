"""The contract every reward function is held to, and what arrives at one."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

from helpers.errors import CourseError
from helpers.rewards import call_with_accepted, get_positive_score, score, sentiment_reward

PROMPTS = ["The plot", "The cast"]
OUTPUTS = [" is dull", " is great"]
SAMPLES = [prompt + output for prompt, output in zip(PROMPTS, OUTPUTS, strict=True)]


def judge(texts):
    """Shaped like a sentiment pipeline with top_k=2: sorted by score, so the order of the classes changes."""
    good = [0.9 if "great" in text else 0.2 for text in texts]
    both = [[{"label": "POSITIVE", "score": p}, {"label": "NEGATIVE", "score": 1 - p}] for p in good]
    return [sorted(scores, key=lambda entry: -entry["score"]) for scores in both]


def check(reward_fn, **context):
    return score(reward_fn, SAMPLES, PROMPTS, OUTPUTS, **context)


def refusal(reward_fn):
    with pytest.raises(CourseError) as caught:
        check(reward_fn)
    return str(caught.value)


def test_positive_score_is_found_wherever_it_stands():
    scores = [{"label": "NEGATIVE", "score": 0.75}, {"label": "POSITIVE", "score": 0.25}]
    assert get_positive_score(scores) == get_positive_score(scores[::-1]) == 0.25


def test_a_judge_without_the_class_is_refused_with_the_classes_it_has():
    with pytest.raises(CourseError, match="'Factual', 'Useful', not 'POSITIVE'"):
        get_positive_score([{"label": "Factual", "score": 0.5}, {"label": "Useful", "score": 0.5}])


def test_sentiment_reward_keeps_the_order_of_the_samples():
    assert check(sentiment_reward(judge)) == [0.2, 0.9]


@pytest.mark.parametrize(
    "given",
    [
        [1, 2],
        (1.0, 2.0),
        np.array([1, 2]),
        [np.float32(1), np.float32(2)],
        torch.tensor([1.0, 2.0], requires_grad=True),
        [torch.tensor(1.0), torch.tensor(2.0)],
    ],
)
def test_what_counts_as_a_list_of_numbers(given):
    rewards = check(lambda samples: given)
    assert rewards == [1.0, 2.0]
    assert all(type(reward) is float for reward in rewards)


@pytest.mark.parametrize("given", [[[1, 2], [3]], [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]])
def test_a_reward_per_token(given):
    assert check(lambda samples: given) == [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([1.0], "1 rewards for 2 samples"),
        ([1.0, 2.0, 3.0], "3 rewards for 2 samples"),
        ([], "0 rewards for 2 samples"),
        (None, "None (is a `return` missing?) for 2 samples"),
        (0.5, "0.5, of type float for 2 samples"),
        (torch.tensor(0.5), "of type Tensor for 2 samples"),
        ({"reward": [1, 2]}, "of type dict for 2 samples"),
        (itertools.repeat(1), "3 rewards for 2 samples"),
        ([0.1, None], "reward of sample 1 is None"),
        ([0.1, math.nan], "reward of sample 1 is nan (a division by zero"),
        ([-math.inf, 0.1], "reward of sample 0 is -inf (a division by zero"),
        (["0.5", 0.1], "reward of sample 0 is '0.5', of type str"),
        ([0.1, {"label": "POSITIVE"}], "reward of sample 1 is {'label': 'POSITIVE'}, of type dict"),
        ([0.1, []], "reward of sample 1 is [], of type list"),
        ([[0.1, math.nan], [0.2]], "reward of sample 0 is nan"),
        ([[[0.1]], [[0.2]]], "reward of sample 0 is [0.1], of type list"),
        ([0.1, [0.2]], "numbers for some samples and lists for others"),
    ],
)
def test_what_is_refused(given, says):
    message = refusal(lambda samples: given)
    assert says in message
    assert "reward_fn(samples) -> list[float]" in message  # what was expected


def test_a_refusal_shows_the_sample():
    assert "The sample: 'The cast is great'" in refusal(lambda samples: [0.1, math.nan])


def test_a_finite_number_is_not_called_a_division_by_zero():
    assert "division" not in refusal(lambda samples: 0.5)


@pytest.mark.parametrize(
    "reward_fn",
    [
        lambda samples: [len(s) for s in samples],
        lambda texts: [len(s) for s in texts],
        lambda texts, /: [len(s) for s in texts],
        lambda *texts: [len(s) for s in texts[0]],
        lambda samples, **kwargs: [len(s) for s in samples],
        lambda **kwargs: [len(s) for s in kwargs["samples"]],
        lambda prompts, samples: [len(s) for s in samples],
        lambda prompts, outputs: [len(p + o) for p, o in zip(prompts, outputs, strict=True)],
        lambda outputs, prompts, **kwargs: [len(p + o) for p, o in zip(prompts, outputs, strict=True)],
        lambda *, outputs, prompts: [len(p + o) for p, o in zip(prompts, outputs, strict=True)],
        functools.partial(lambda extra, samples: [len(s) + extra for s in samples], 0),
    ],
)
def test_a_reward_function_gets_what_it_names(reward_fn):
    assert check(reward_fn, tokenizer="the tokenizer", stars=[1, 5]) == [16.0, 17.0]


def test_metadata_and_tokenizer_arrive():
    seen = {}
    check(lambda samples, **kwargs: seen.update(kwargs) or [0, 0], tokenizer="the tokenizer", stars=[1, 5])
    assert seen == {"prompts": PROMPTS, "outputs": OUTPUTS, "tokenizer": "the tokenizer", "stars": [1, 5]}
    assert check(lambda samples, stars: stars, stars=[1, 5]) == [1.0, 5.0]


def test_an_error_inside_a_reward_function_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        check(lambda samples: [1 / 0])


def test_the_same_call_serves_metrics():
    assert call_with_accepted(lambda outputs: {"n": len(outputs)}, samples=SAMPLES, outputs=OUTPUTS) == {
        "n": 2
    }
