"""Reward functions, and the contract every reward function is held to.

A reward function takes `samples`, a list of texts (prompt and continuation), and returns one number for each:
`reward_fn(samples) -> list[float]`. It may also ask for `prompts`, `outputs`, `tokenizer` and whatever else came with
the prompts, by naming them or with **kwargs, and it may return a list of numbers per sample, one for each token.
"""

import inspect
import math
import os
from collections.abc import Callable

from helpers.errors import CourseError

# called as reward_fn(samples, ...) with what it asks for by name; gives a float for each sample, or a list of floats
RewardFn = Callable[..., list]

HOW = "A reward function returns one finite number for each sample: reward_fn(samples) -> list[float]."


def get_positive_score(scores: list[dict]) -> float:
    """P(POSITIVE) from what `pipeline("sentiment-analysis", ..., top_k=2)` returns for one text.

    Raises:
        CourseError: when the judge has no class of that name.
    """
    by_label = {entry["label"]: entry["score"] for entry in scores}
    if "POSITIVE" not in by_label:
        raise CourseError(
            f"this judge has the classes {', '.join(map(repr, by_label)):.200}, not 'POSITIVE'. "
            "Use a model with that class, or write a reward function that reads the class you want."
        )
    return by_label["POSITIVE"]


def sentiment_reward(judge):
    """A reward function from a sentiment pipeline made with top_k=2: P(POSITIVE) of each sample.

    Raises:
        CourseError: the pipeline's model came from a folder that lacks some of its weights, so that they are random.
    """
    model = getattr(judge, "model", None)  # a plain function has none
    folder = getattr(model, "name_or_path", None)
    if isinstance(folder, str) and os.path.isdir(folder):
        from helpers import weights

        weights.refuse_wrong_weights(model, folder, "the judge")

    def reward_fn(samples, **kwargs):
        return [get_positive_score(scores) for scores in judge(list(samples))]

    return reward_fn


def load_reward(model: str, device: str) -> RewardFn:
    """A reward function from a classifier with the class POSITIVE: a folder or a hub id.

    Raises:
        CourseError: it cannot be loaded, or has no such class.
    """
    from transformers import AutoModelForSequenceClassification, pipeline

    from helpers import weights

    expected = "Expected a classifier's folder or its name on the hub."
    classifier = weights.load_model(AutoModelForSequenceClassification, model, "the judge", expected=expected)
    tokenizer = weights.load_tokenizer(model, "the judge", expected=expected)
    labels = [str(label) for label in classifier.config.id2label.values()]
    if "POSITIVE" not in labels:
        raise CourseError(
            f"the judge {model:.200} has the classes {', '.join(labels):.200}: expected one called POSITIVE"
        )
    judge = pipeline(
        "sentiment-analysis",
        classifier,
        tokenizer=tokenizer,
        top_k=None,  # all classes, however many: POSITIVE need not be among the likeliest two
        batch_size=64,
        device=device,
        trust_remote_code=False,
    )
    longest = judge.model.config.max_position_embeddings  # a tokenizer may not know it, and then cuts nothing
    judge.tokenizer.model_max_length = min(judge.tokenizer.model_max_length, longest)
    return sentiment_reward(lambda samples: judge(samples, truncation=True))


def score(reward_fn, samples, prompts, outputs, **context) -> list[float] | list[list[float]]:
    """Call `reward_fn` with what it asks for, and hold what it returns to the contract.

    Returns:
        One float per sample, or one list of floats per sample for a reward per token.
    Raises:
        CourseError: naming the first sample whose reward is not a finite number, or the wrong count.
    """
    rewards = call_with_accepted(reward_fn, samples=samples, prompts=prompts, outputs=outputs, **context)
    if hasattr(rewards, "tolist"):
        rewards = rewards.tolist()
    if not isinstance(rewards, (list, tuple)):
        raise CourseError(
            f"the reward function returned {describe(rewards)} for {len(samples)} samples. {HOW}"
        )
    if len(rewards) != len(samples):
        raise CourseError(
            f"the reward function returned {len(rewards)} rewards for {len(samples)} samples. {HOW}"
        )
    checked = [check_reward(reward, index, samples[index]) for index, reward in enumerate(rewards)]
    if len({type(reward) for reward in checked}) > 1:
        raise CourseError(
            f"the reward function returned numbers for some samples and lists for others. {HOW}"
        )
    return checked


def call_with_accepted(function, **arguments):
    """Call `function` with those of `arguments` it accepts: by name, but samples first where it calls them otherwise."""
    parameters = inspect.signature(function).parameters
    if takes_samples_first(parameters, arguments):
        positional = [arguments.pop("samples")]
    else:
        positional = []
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        arguments = {name: value for name, value in arguments.items() if name in parameters}
    return function(*positional, **arguments)


def takes_samples_first(parameters, arguments) -> bool:
    """Whether the first positional parameter is one we have no argument for, such as `texts`."""
    first = next(iter(parameters.values()), None)
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD) or "samples" in parameters:
        return False
    return first.kind is not first.POSITIONAL_OR_KEYWORD or first.name not in arguments


def check_reward(reward, index: int, sample: str) -> float | list[float]:
    if hasattr(reward, "tolist"):
        reward = reward.tolist()
    if isinstance(reward, (list, tuple)) and reward:
        return [check_number(value, index, sample) for value in reward]
    return check_number(reward, index, sample)


def check_number(reward, index: int, sample: str) -> float:
    if hasattr(reward, "tolist"):
        reward = reward.tolist()
    is_number = isinstance(reward, (int, float)) and not isinstance(reward, str)
    if not is_number or not math.isfinite(reward):
        raise CourseError(
            f"the reward of sample {index} is {describe(reward)}. {HOW} The sample: {sample[:80]!r}"
        )
    return float(reward)


def describe(value) -> str:
    if value is None:
        return "None (is a `return` missing?)"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} (a division by zero, or the logarithm of zero?)"
    return f"{value!r:.60}, of type {type(value).__name__}"
