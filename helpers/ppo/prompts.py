"""Prompts as token ids, dealt in shuffled passes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from helpers.errors import CourseError

# texts, or dictionaries with "prompt" and extra keys for the reward function
Prompts = list[str | dict[str, Any]]


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


class PromptSet:
    """Tokenised prompts, dealt in shuffled passes. A prompt's extra keys stay with it.

    `name` says in an error which prompts these are.

    Raises:
        CourseError: there is no prompt, one is empty, or one has more than `max_tokens` tokens.
    """

    def __init__(self, prompts: Prompts, tokenizer: PreTrainedTokenizerBase, max_tokens: int, name: str):
        if not isinstance(prompts, (list, tuple)) or not prompts:
            raise CourseError(f"{name} is {prompts!r:.60}: expected a list with at least one prompt")
        entries = [prompt if isinstance(prompt, dict) else {"prompt": prompt} for prompt in prompts]
        self.texts = [entry.get("prompt") for entry in entries]
        self.metadata = [{key: entry[key] for key in entry if key != "prompt"} for entry in entries]
        for index, text in enumerate(self.texts):
            if not isinstance(text, str) or not text.strip():
                raise CourseError(f"{name}[{index}] is {text!r}: expected a text with at least one word")
        self.tokens = tokenizer(self.texts, add_special_tokens=False)["input_ids"]
        for index, tokens in enumerate(self.tokens):
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
        return ids, mask, {key: [self.metadata[i].get(key) for i in indices] for key in keys}
