"""Where a sampled response ends, and what it says."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.errors import CourseError
from helpers.ppo.prompts import refuse_half_characters


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a text: the tokenizer's EOS, and those that the model's generation_config.json adds to it."""
    more = model.generation_config.eos_token_id
    more = [more] if isinstance(more, int) else more or []
    return list(dict.fromkeys([tokenizer.eos_token_id, *more]))


def check_stop_sequences(stops: Any) -> list[str]:
    """Stop sequences as a list of texts; a single text counts as one.

    Raises:
        CourseError: one is empty, which would end every response at once, or no text that a response can have.
    """
    stops = [] if stops is None else [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, Iterable) or isinstance(stops, (bytes, dict)):
        raise CourseError(f"stop_sequences is {stops!r:.60}: expected a list of texts")
    stops = list(stops)
    for index, stop in enumerate(stops):
        if not isinstance(stop, str) or not stop:
            raise CourseError(f"stop_sequences[{index}] is {stop!r:.60}: expected a text that is not empty")
        refuse_half_characters(stop, f"stop_sequences[{index}]")
    return [str(stop) for stop in stops]


def refuse_special_stops(stops: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse stop sequences that hold a special token: responses are text without these, so none would ever be found.

    Raises:
        CourseError: names the token.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    for stop in stops:
        if found := [token for token in special if token in stop]:
            raise CourseError(
                f"stop_sequences has {stop!r:.60}, and {found[0]!r:.60} is a special token, which no response shows as text. To end "
                f"responses at it, name it as the end of a text: tokenizer_extra_configs=dict(eos_token={found[0]!r:.60})"
            )


def end_response(
    prompt: list[int],
    response: list[int],
    tokenizer: PreTrainedTokenizerBase,
    ends: Collection[int],
    stop_sequences: Sequence[str],
) -> tuple[list[int], str]:
    """End a response at an end token, which it keeps, or at a stop sequence: its ids, and its text without special tokens.

    The ids stay those that were sampled; trlX tokenises the text again, which can give others. Only a response that is cut
    at a stop sequence is tokenised again and gets an EOS, as in trlX.
    """
    end = next((place for place, token in enumerate(response) if token in ends), len(response))
    tokens = response[: end + 1]
    text = continuation(prompt, tokens, tokenizer)
    stops = [text.find(stop) for stop in stop_sequences if stop in text]
    if not stops:
        return tokens, text
    text = text[: min(stops)].rstrip()
    again = tokenizer(text, add_special_tokens=False)["input_ids"]
    if continuation(prompt, again, tokenizer) != text:  # some tokenizers need to see what comes before
        fits = (
            n
            for n in range(len(tokens), 0, -1)
            if text.startswith(continuation(prompt, tokens[:n], tokenizer))
        )
        again = tokens[: next(fits, 0)]
    return [*again, tokenizer.eos_token_id], text


def continuation(prompt: list[int], response: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """What the response adds to the text of the prompt.

    It is cut from the text of both: a tokenizer of Llama's kind drops the space before the first word of what it decodes.
    """
    begun, whole = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt, prompt + response))
    if whole.startswith(begun):
        return whole[len(begun) :]
    return tokenizer.decode(response, skip_special_tokens=True)
