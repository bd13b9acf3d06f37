"""Text classifiers as judges: which class is the reward, how long a text they take, and whether they take several at once."""

import bisect
import copy
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    Pipeline,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    pipeline,
)

from helpers import weights
from helpers.errors import CourseError

LONGEST = 2048  # tokens that are tried at most, twice what GPT-2 reads and writes
EXPECTED = "Expected a classifier's folder or its name on the hub."
found_longest: WeakKeyDictionary[PreTrainedModel, int] = WeakKeyDictionary()


def load_judge(source: str, device: str) -> Pipeline:
    """A pipeline that gives the probabilities of all classes, from a classifier with the class POSITIVE: a folder or a hub id.

    Texts longer than it takes lose their end.

    Raises:
        CourseError: it cannot be loaded, has no such class, or takes no text.
    """
    model, tokenizer = load_classifier(source)
    refuse_classes(model.config, f"the judge {source!r:.200}")
    return pipeline_of(model, tokenizer, device)


def load_classifier(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A classifier of texts and its tokenizer, on the CPU, from a folder or a hub id; raises CourseError where it cannot be loaded."""
    model = weights.load_model(AutoModelForSequenceClassification, source, "the judge", expected=EXPECTED)
    return model, weights.load_tokenizer(source, "the judge", expected=EXPECTED)


def pipeline_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str) -> Pipeline:
    """A pipeline that gives what a classifier says of all its classes. Texts longer than it takes lose their end.

    Raises:
        CourseError: it takes no text.
    """
    most = longest_input(model, tokenizer)
    pad_alike(model, tokenizer)
    settings = dict(tokenizer=tokenizer, truncation=True, max_length=most, trust_remote_code=False)
    settings |= dict(top_k=None)  # all classes, however many: POSITIVE need not be among the likeliest two
    trial = pipeline("text-classification", model, device="cpu", **settings)
    together = takes_several(trial)
    if (
        not together
    ):  # GPT-2 and others count positions from the left, where a saved tokenizer may put padding
        tokenizer.padding_side = "right"
        together = takes_several(trial)
    return pipeline("text-classification", model, device=device, batch_size=64 if together else 1, **settings)


def refuse_classes(config: PretrainedConfig, what: str) -> None:
    """Refuse a classifier that does not give a probability to exactly one class POSITIVE; `what` begins the message.

    Raises:
        CourseError: lists the classes.
    """
    labels = [str(label) for label in config.id2label.values()]
    listed = f"{', '.join(map(repr, labels)):.300}"
    if config.problem_type == "regression":
        raise CourseError(
            f"{what} gives numbers (its problem_type is 'regression'), not the probability of a class. "
            "Expected a classifier with a class called 'POSITIVE', or write a reward function that reads its numbers."
        )
    if labels.count("POSITIVE") == 1:
        return
    if len(labels) == 1:
        raise CourseError(
            f"{what} has one output, {listed}, as reward models have: expected a classifier with a class called 'POSITIVE'. "
            "Of a reward model, helpers.feedback.reward_model.learned_reward makes a reward function."
        )
    raise CourseError(
        f"{what} has the classes {listed}: expected exactly one called 'POSITIVE', in these letters. Rename the class that "
        "you mean in id2label of the model's config.json, or write a reward function that reads it."
    )


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens a model takes, special ones included: found by trying, since what files say of it is often wrong.

    RoBERTa's max_position_embeddings is two more than it takes, some tokenizers name another model's limit, and many name
    none. The limits that they do name are not exceeded, and neither is LONGEST.

    Raises:
        CourseError: it takes no text at all, as where the tokenizer is another model's.
    """
    if model not in found_longest:
        named = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None), LONGEST]
        most = min(int(limit) for limit in named if limit and limit > 0)
        row = tokenizer("film " * most, truncation=True, max_length=most, return_tensors="pt")
        # on a copy on the CPU: an index out of range leaves a GPU unusable
        tried = model if model.device.type == "cpu" else copy.deepcopy(model).cpu()
        length = row["input_ids"].shape[1]

        def refused(n: int) -> bool:
            return not takes(tried, {name: ids[:, :n] for name, ids in row.items()})

        found_longest[model] = bisect.bisect_left(range(1, length + 1), True, key=refused)
    if not found_longest[model]:
        raise CourseError(
            f"the model in {model.config.name_or_path!r:.200} takes not even one token of its tokenizer. Expected the tokenizer "
            f"that it was trained with; this one has {len(tokenizer)} tokens, and the model {model.config.vocab_size}."
        )
    return found_longest[model]


class Taken(Exception):
    """A model's first layer has taken its input."""


@torch.no_grad()
def takes(model: PreTrainedModel, row: dict[str, torch.Tensor]) -> bool:
    """Whether a model takes these tokens (1, T). It is left after its first layer: what is too long fails before that."""

    def stop(*_):
        raise Taken

    training = model.training
    layers = [layer for part in model.modules() if isinstance(part, nn.ModuleList) for layer in part]
    hooks = [layer.register_forward_hook(stop) for layer in layers]
    try:
        model.eval()(**row)
    except Taken:
        pass
    except (IndexError, RuntimeError, ValueError, AssertionError) as error:
        if weights.lacks_memory(error):
            raise
        return False
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return True


def pad_alike(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let model and tokenizer pad with one token. Where neither has one it is the end of text, on the right, as for GPT-2."""
    if tokenizer.pad_token is None:
        known = model.config.pad_token_id
        named = None if known is None or known < 0 else tokenizer.convert_ids_to_tokens(known)
        tokenizer.pad_token = named or tokenizer.eos_token
        tokenizer.padding_side = "right"
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def takes_several(judge: Pipeline) -> bool:
    """Whether a short text gets the same scores beside a longer one, which pads it, as it gets alone."""
    texts = ["A film.", "A film that we watched to the end, and that we would watch again."]
    try:
        alone, beside = judge(texts, batch_size=1)[0], judge(texts, batch_size=2)[0]
    except (ValueError, IndexError, RuntimeError):  # no padding token that it knows
        return False
    given = {entry["label"]: entry["score"] for entry in beside}
    return all(abs(given[entry["label"]] - entry["score"]) < 1e-4 for entry in alone)
