"""Reward functions, and the contract every reward function is held to.

A reward function takes `samples`, a list of texts (prompt and continuation), and returns one number for each:
`reward_fn(samples) -> list[float]`. It may also ask for `prompts`, `outputs`, `tokenizer` and the extra keys of the prompts,
by naming them or with **kwargs. It may return a list of numbers per sample, one for each token.
"""

import inspect
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any

from helpers.errors import CourseError

RewardFn = Callable[..., Sequence[float] | Sequence[Sequence[float]]]  # reward_fn(samples, ...), as above
MetricFn = Callable[
    ..., dict[str, Sequence[float]]
]  # metric_fn(samples, ...): a number per sample for each name

MOST = 100_000  # rewards for one sample; no model takes a longer text

HOW = "A reward function returns one finite number for each sample: reward_fn(samples) -> list[float]."
HOW_TO_MEASURE = "A metric function returns numbers by name: metric_fn(samples) -> dict[str, list[float]]."


def get_positive_score(scores: list[dict]) -> float:
    """P(POSITIVE) from the scores of all classes that `pipeline("sentiment-analysis", ..., top_k=None)` returns for one text.

    Raises:
        CourseError: the scores have no class of that name.
    """
    by_label = {entry["label"]: entry["score"] for entry in scores}
    if "POSITIVE" not in by_label:
        raise CourseError(
            f"this judge gave scores to {', '.join(map(repr, by_label)):.200}, not 'POSITIVE'. Use a model with that class and a "
            "pipeline with top_k=None, which gives all classes, or write a reward function that reads the class you want."
        )
    return by_label["POSITIVE"]


def sentiment_reward(judge: Callable[[list[str]], list[list[dict]]]) -> RewardFn:
    """A reward function from a sentiment pipeline: P(POSITIVE) of each sample, 0 to 1. Of a pipeline all classes are read.

    Raises:
        CourseError: the pipeline's model has no such class, or its folder lacks some of its weights, so that they are random.
    """
    model = getattr(judge, "model", None)  # a plain function has none
    folder = getattr(model, "name_or_path", None)
    if isinstance(folder, str) and os.path.isdir(folder):
        from helpers import weights

        weights.refuse_wrong_weights(model, folder, "the judge")
    everything = {}
    if hasattr(model, "config"):
        from helpers.judge import refuse_classes

        refuse_classes(model.config, f"the judge {folder!r:.200}")
        everything = {"top_k": None}

    def reward_fn(samples, **kwargs):
        return [get_positive_score(scores) for scores in judge(list(samples), **everything)]

    return reward_fn


def load_reward(model: str, device: str) -> RewardFn:
    """A reward function from a classifier with the class POSITIVE: a folder or a hub id.

    Samples longer than it takes, or than 2,048 tokens, lose their end.

    Raises:
        CourseError: it cannot be loaded, or has no such class.
    """
    from helpers.judge import load_judge

    return sentiment_reward(load_judge(os.path.expanduser(model), device))


def score(
    reward_fn: RewardFn, samples: list[str], prompts: list[str], outputs: list[str], **context: Any
) -> list[float] | list[list[float]]:
    """Call `reward_fn` with what it asks for, and hold what it returns to the contract.

    Returns:
        One float per sample, or one list of floats per sample for a reward per token.
    Raises:
        CourseError: a reward is no finite number, or their count is wrong; it names the first such sample.
    """
    returned = call_with_accepted(reward_fn, samples=samples, prompts=prompts, outputs=outputs, **context)
    rewards = as_list(returned, len(samples) + 1)
    if rewards is None:
        raise CourseError(
            f"the reward function returned {describe(returned)} for {len(samples)} samples. {HOW}"
        )
    if len(rewards) != len(samples):
        raise CourseError(
            f"the reward function returned {len(rewards)} rewards for {len(samples)} samples. {HOW}"
        )
    checked = [
        check_reward(reward, index, samples[index], outputs[index]) for index, reward in enumerate(rewards)
    ]
    if len({type(reward) for reward in checked}) > 1:
        raise CourseError(
            f"the reward function returned numbers for some samples and lists for others. {HOW}"
        )
    if all(isinstance(reward, list) and len(reward) == 1 for reward in checked):
        # a reward model's own output, (N, 1): one reward a sample, as trlX takes it, and none for the first token
        if isinstance(returned, (list, tuple)) and isinstance(returned[0], (list, tuple)):
            warnings.warn(
                "each sample's list of rewards holds one number: taken as the sample's reward", stacklevel=3
            )
        return [reward[0] for reward in checked]
    return checked


def measure(metric_fn: MetricFn, samples: list[str], **context: Any) -> dict[str, list[float]]:
    """Call `metric_fn` with what it asks for, and hold what it returns to its contract.

    Returns:
        A list of one float per sample for each name.
    Raises:
        CourseError: it returns something else; it names the metric.
    """
    found = call_with_accepted(metric_fn, samples=samples, **context)
    if not isinstance(found, Mapping):
        raise CourseError(f"the metric function returned {describe(found)}. {HOW_TO_MEASURE}")
    return {str(name): check_metric(str(name), values, len(samples)) for name, values in found.items()}


def check_metric(name: str, values: Any, count: int) -> list[float]:
    """The values of a metric as `count` floats; one number that stands for all samples counts for each.

    Raises:
        CourseError: there are more or fewer, or one is no number.
    """
    numbers = as_list(values, count + 1)
    numbers = [values] * count if numbers is None else numbers
    numbers = [number[0] if isinstance(number, list) and len(number) == 1 else number for number in numbers]
    numbers = [number.item() if getattr(number, "size", None) == 1 else number for number in numbers]
    wrong = [n for n in numbers if not isinstance(n, (int, float))]
    if len(numbers) != count or wrong:
        what = f"{wrong[0]!r:.60}" if wrong else f"{len(numbers)} values for {count} samples"
        raise CourseError(f"the metric {name!r:.60} has {what}. {HOW_TO_MEASURE}")
    return [float(number) for number in numbers]


def as_list(values: Any, most: int) -> list | None:
    """The values of a list, tuple, array, tensor, pandas Series, Column of a data set or generator; None for anything else.

    Of a generator, which may never end, those up to the `most`th.
    """
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(values, (Iterator, Sequence)):
        return None
    return list(islice(values, most)) if isinstance(values, Iterator) else list(values)


def call_with_accepted(function: Callable, **arguments: Any) -> Any:
    """Call `function` with those of `arguments` that it accepts: by name, or samples first if it has another name for them."""
    parameters = inspect.signature(function).parameters
    if takes_samples_first(parameters, arguments):
        positional = [arguments.pop("samples")]
    else:
        positional = []
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        arguments = {name: value for name, value in arguments.items() if name in parameters}
    return function(*positional, **arguments)


def takes_samples_first(parameters: Mapping[str, inspect.Parameter], arguments: dict[str, Any]) -> bool:
    """Whether the first positional parameter has a name that is not among the arguments, such as `texts`."""
    first = next(iter(parameters.values()), None)
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD) or "samples" in parameters:
        return False
    return first.kind is not first.POSITIONAL_OR_KEYWORD or first.name not in arguments


def check_reward(reward: Any, index: int, sample: str, output: str) -> float | list[float]:
    """The reward of sample `index` as a float, or as a list of floats, one per token; none for an output that ended at once.

    Raises:
        CourseError: it is something else, or not finite.
    """
    values = as_list(reward, MOST)
    if values or (values == [] and not output):
        return [check_number(value, index, sample) for value in values]
    return check_number(reward, index, sample)


def check_number(reward: Any, index: int, sample: str) -> float:
    """A reward of sample `index` as a float.

    Raises:
        CourseError: it is no number, or not finite.
    """
    if hasattr(reward, "tolist"):
        reward = reward.tolist()
    is_number = isinstance(reward, (int, float)) and not isinstance(reward, str)
    if not is_number or not math.isfinite(reward):
        raise CourseError(
            f"the reward of sample {index} is {describe(reward)}. {HOW} The sample: {sample[:80]!r}"
        )
    return float(reward)


def describe(value: Any) -> str:
    """A value as an error shows it, with its likely cause."""
    if value is None:
        return "None (is a `return` missing?)"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} (a division by zero, or the logarithm of zero?)"
    return f"{value!r:.60}, of type {type(value).__name__}"
