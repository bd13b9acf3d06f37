"""Prompts as token ids, dealt in shuffled passes."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from helpers.errors import CourseError
from helpers.ppo.values import shown

# texts, or dictionaries with "prompt" and extra keys for the reward function
Prompts = list[str | dict[str, Any]]
MOST = 10_000_000  # prompts: what gives more may never end
# what a reward function gets by these names in any case, trlX's batches have, or the calls on the way to it
TAKEN = ("samples", "prompts", "outputs", "tokenizer", "input_ids", "attention_mask")
TAKEN += ("function", "reward_fn", "metric_fn", "self")


def pad_rows(rows: list[list[int]], pad_id: int, side: str) -> tuple[Tensor, Tensor]:
    """Token ids (N, T), padded on that side ("left", "right") to the longest row, and their mask (N, T), 1 on tokens.

    If all rows are empty, the result has one column of padding, because nothing downstream takes a width of 0.
    """
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    ids = pad_sequence(tensors, batch_first=True, padding_value=pad_id, padding_side=side)
    ones = [torch.ones_like(row) for row in tensors]
    mask = pad_sequence(ones, batch_first=True, padding_side=side)
    return (ids, mask) if ids.shape[1] else (pad(ids, (0, 1), value=pad_id), pad(mask, (0, 1)))


def widen(tensor: Tensor, width: int, left: bool = False, value: float = 0) -> Tensor:
    """Pad (N, T, ...) with `value` to (N, width, ...), at the left or at the right."""
    missing = width - tensor.shape[1]
    rest = (0, 0) * (tensor.dim() - 2)
    return pad(tensor, (*rest, missing, 0) if left else (*rest, 0, missing), value=value)


def as_list(prompts: Any, name: str) -> list:
    """The prompts of a list, a column of a table, an array or whatever else gives one after the other, as a list.

    Raises:
        CourseError: these are no prompts in an order of their own, there is none, or more than can be meant.
    """
    instead = ""
    if isinstance(prompts, (str, bytes)):
        instead = f" One prompt is written {name}=[...]."
    elif isinstance(prompts, Mapping) or hasattr(prompts, "columns"):
        instead = " Take one column of a table, such as dataset['prompt'], or a dictionary for each prompt."
    elif isinstance(prompts, (set, frozenset)):
        instead = " A set has another order in each run: write sorted(...)."
    elif (one_by_one := iterator(prompts)) is not None:
        found = list(islice(one_by_one, MOST + 1))
        if 0 < len(found) <= MOST:
            return found
        instead = f" It gives more than {MOST:,}." if found else ""
    raise CourseError(f"{name} is {shown(prompts)}: expected a list with at least one prompt.{instead}")


def iterator(values: Any) -> Iterator | None:
    """What gives the values one after the other, or None where they are no several values."""
    try:
        return iter(values)
    except TypeError:
        return None


def check_text(text: Any, where: str) -> str:
    """The prompt `text`; `where` says which it is, such as "prompts[3]".

    Raises:
        CourseError: it is no text, says nothing, or cannot be written in UTF-8.
    """
    if not isinstance(text, str) or not text.strip():
        raise CourseError(f"{where} is {shown(text)}: expected a text with at least one word")
    refuse_half_characters(text, where)
    return str(text)


def refuse_half_characters(text: str, where: str) -> None:
    """Refuse a text with half of a character, which no tokenizer takes; `where` says which text it is.

    Raises:
        CourseError: names the place.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CourseError(
            f"{where} has half a character ({text[error.start]!a}) at place {error.start}, as of an emoji that was cut in two: "
            f"remove it. The text is {text!a:.60}."
        ) from None


def check_keys(metadata: list[dict], name: str) -> None:
    """Check the extra keys of all prompts: the reward function gets each by its name, with a value for every prompt.

    Raises:
        CourseError: a key is no text, has a name that is taken, or is not in every prompt.
    """
    keys = metadata[0].keys()
    for index, each in enumerate(metadata):
        for key in each.keys() ^ keys:
            has, lacks = (index, 0) if key in each else (0, index)
            raise CourseError(
                f"{name}[{has}] has the key {shown(key)}, and {name}[{lacks}] has not: expected the same keys in every prompt"
            )
    for key in keys:
        if not isinstance(key, str) or key in TAKEN:
            raise CourseError(
                f"{name}[0] has the key {shown(key)}: expected a text other than {', '.join(TAKEN)}, which the reward function "
                "or the engine has already. Give it another name."
            )


def entry_of(prompt: Any) -> Mapping:
    """A prompt with its extra keys, whichever of the two forms of Prompts it has."""
    return prompt if isinstance(prompt, Mapping) else {"prompt": prompt}


def prompt_ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The ids of each text as a model of this tokenizer expects a text to begin, without what would end it.

    Llama's tokenizers put their BOS before every text. A text that begins with it already, as chat templates write it, gets no
    second one.
    """
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    begin = tokenizer.bos_token_id
    if begin is None or tokenizer("a")["input_ids"][:1] != [begin]:
        return rows
    return [[begin, *row] if row and row[0] != begin else row for row in rows]


class PromptSet:
    """Tokenised prompts, dealt in shuffled passes. A prompt's extra keys stay with it.

    `name` says in an error which prompts these are.

    Raises:
        CourseError: there is no prompt, one is empty or has more than `max_tokens` tokens, or its extra keys do not fit.
    """

    def __init__(self, prompts: Prompts, tokenizer: PreTrainedTokenizerBase, max_tokens: int, name: str):
        entries = [entry_of(prompt) for prompt in as_list(prompts, name)]
        self.texts = [check_text(entry.get("prompt"), f"{name}[{i}]") for i, entry in enumerate(entries)]
        self.metadata = [{key: entry[key] for key in entry if key != "prompt"} for entry in entries]
        check_keys(self.metadata, name)
        self.tokens = prompt_ids(self.texts, tokenizer)
        for index, tokens in enumerate(self.tokens):
            if not tokens:
                raise CourseError(
                    f"{name}[{index}] is {self.texts[index]!r:.60}, of which the tokenizer makes no token: expected a word"
                )
            if len(tokens) > max_tokens:
                raise CourseError(
                    f"{name}[{index}] has {len(tokens)} tokens, but only {max_tokens} fit beside the continuation "
                    f"(context minus max_new_tokens). Shorten it: {self.texts[index][:60]!r}..."
                )
        self.pad_id = tokenizer.pad_token_id
        self.order: list[int] = []

    def __len__(self) -> int:
        return len(self.texts)

    def deal(self, count: int) -> list[int]:
        """The numbers of the next `count` prompts of a shuffled pass; a new pass begins where one ends."""
        while len(self.order) < count:
            self.order += torch.randperm(len(self)).tolist()
        dealt, self.order = self.order[:count], self.order[count:]
        return dealt

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor, dict]:
        """Ids (N, Q), padded on the left, their mask (N, Q), and the extra keys with a list of N values each."""
        ids, mask = pad_rows([self.tokens[i] for i in indices], self.pad_id, "left")
        keys = self.metadata[indices[0]].keys()
        return ids, mask, {key: [self.metadata[i][key] for i in indices] for key in keys}
