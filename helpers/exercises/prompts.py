"""Notebook 04: own prompts, a split, positions, top-p."""

from typing import TYPE_CHECKING

from helpers.exercises.base import NOT_ATTEMPTED, Answers, Right, Unusable, attempted, call, exercise

if TYPE_CHECKING:
    import torch


@exercise("a list of texts")
def check_own_prompts(prompts: object, held_out: list[str]) -> str:
    """Whether `prompts` are at least five prompts, fit for a prompt file, none of them in `held_out`."""
    if not isinstance(prompts, (list, tuple)):
        return f'my_prompts is of type {type(prompts).__name__}: write a list of texts, ["...", "..."].'
    for prompt in prompts:
        sentence = Answers(
            (lambda prompt: not isinstance(prompt, str) or not prompt.strip(),
             "is no prompt: each one is a text with at least one word."),
            (lambda prompt: len(prompt.splitlines()) > 1,
             "has a line break: in a file with one prompt a line it would become two prompts."),
            (lambda prompt: prompt != prompt.strip(),
             "begins or ends with a space: GPT-2's tokens carry the space before the next word."),
            (lambda prompt: prompt in held_out,
             "is held out: trained on it, the evaluation would no longer show what is new."),
        ).sentence(prompt)  # fmt: skip
        if sentence:
            return f"{prompt!r} {sentence}"
    repeats = len(prompts) - len(set(prompts))
    return Answers(
        (lambda _: repeats, f"{repeats} of your prompts repeat another one."),
        (lambda _: len(prompts) < 5, f"{len(prompts)} prompts so far: write at least five."),
        otherwise=Right(f"Correct: {len(prompts)} prompts of your own."),
    ).sentence(prompts)


@exercise("a function that returns two lists of prompts, (train, held_out)")
def check_split(split: object) -> str:
    """Whether split(prompts, n_eval) gives (train, held_out) without repeats or leaks, and loses nothing."""
    prompts, n_eval = "a b,c d,a b,e f,g h,c d,a b,i j,k l,m n,k l,o p,a b,e f".split(","), 3
    result = attempted(call(split, list(prompts), n_eval))
    if isinstance(result, tuple) and all(part is None for part in result):
        return NOT_ATTEMPTED
    if not isinstance(result, tuple) or len(result) != 2:
        return f"expected two lists, (train, held_out); your function returned {result!r:.80}."
    if not all(isinstance(part, list) for part in result):
        kinds = " and ".join(type(part).__name__ for part in result)
        order = "(A set has another order in every run; dict.fromkeys keeps it.)"
        return f"expected two lists, got {kinds}. {order}"
    train, held_out = result
    for prompt in train + held_out:
        if not isinstance(prompt, str):
            return f"{prompt!r:.60} is no text: both lists hold prompts."
    both, lost = {*train} & {*held_out}, {*prompts} - {*train} - {*held_out}
    early = "Remove them from the whole list, before you split."
    gone = f"{min(lost, default='')!r} is gone:"
    return Answers(
        (lambda _: both,
         f"{min(both, default='')!r} is in both lists. Did you split before you removed the repeats? Then "
         "one copy of a prompt can land on either side, and removing repeats in each list afterwards does "
         "not help."),
        (lambda _: len({*train}) < len(train), f"train has repeats: {train}. {early}"),
        (lambda _: len({*held_out}) < len(held_out), f"held_out has repeats: {held_out}. {early}"),
        (lambda _: len(train) == n_eval != len(held_out),
         "the two lists are the wrong way round: return (train, held_out)."),
        (lambda _: len(held_out) != n_eval,
         f"held_out has {len(held_out)} prompts, n_eval asked for {n_eval}."),
        (lambda _: lost and all(prompts.count(prompt) > 1 for prompt in lost),
         f"{gone} of a repeated prompt one copy should stay."),
        (lambda _: lost, f"{gone} what is not held out belongs into train."),
        otherwise=Right("Correct: no repeats, no leaks, nothing lost."),
    ).sentence(result)  # fmt: skip


@exercise("a function that returns a tensor of the mask's shape")
def check_position_ids(position_ids: object) -> str:
    """Whether position_ids(mask) counts each row's real tokens from 0. Padding may have any, but no -1."""
    import torch

    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    returned = attempted(call(position_ids, mask.clone()))
    result = as_tensor(returned, "a tensor of the mask's shape")
    columns, real, right = torch.arange(mask.shape[1]), mask.bool(), mask.cumsum(-1) - 1

    def where_real(known):
        return lambda result: torch.equal(result[real], known[real])

    return Answers(
        (lambda result: result.is_floating_point(),
         "position ids are whole numbers (they index a table), yours are floats."),
        (lambda result: result.shape != mask.shape and torch.equal(result.flatten(), columns),
         "one row for all prompts: padding moves each prompt by another distance, so each needs its own "
         "row."),
        (lambda result: result.shape != mask.shape,
         f"expected the mask's shape {tuple(mask.shape)}, got {tuple(result.shape)}."),
        (lambda result: where_real(right)(result) and (result < 0).any(),
         "a position of -1 under the padding does not exist: did you forget to clamp?"),
        (lambda result: where_real(right)(result) and (result >= mask.shape[1]).any(),
         "a position under the padding lies beyond the batch: the model may not have that many."),
        (where_real(right), Right("Correct: every prompt counts from its own first token.")),
        (where_real(columns.expand_as(mask)),
         "you numbered the columns: the first token of a padded prompt got the padding's positions as well."),
        (where_real(right + 1),
         "off by one: the first token of a prompt has position 0, and `cumsum` starts at 1."),
        (where_real(mask.cumsum(0) - 1),
         "you counted down the batch, from prompt to prompt: cumsum(-1) counts along the columns."),
        otherwise=f"for the mask {mask.tolist()} expected {right.clamp(min=0).tolist()}, got "
        f"{result.tolist()}.",
    ).sentence(result)  # fmt: skip


@exercise("a function that returns a vector of probabilities")
def check_top_p(top_p: object) -> str:
    """Whether top_p(probs, p) keeps the fewest likeliest tokens that reach p, and scales them to 1."""
    # Not sorted; the first p is crossed in the middle of a token, the second by the likeliest token alone.
    cases = [([0.12, 0.5, 0.08, 0.3], 0.7), ([0.2, 0.7, 0.1], 0.5), ([0.3, 0.25, 0.45], 1.0)]
    for probs, p in cases:
        sentence = judge_top_p(top_p, probs, p)
        if not isinstance(sentence, Right):
            break
    return sentence


def judge_top_p(top_p: object, values: list[float], p: float) -> str:
    """The sentence for one case."""
    import torch

    probs = torch.tensor(values)
    returned = attempted(call(top_p, probs.clone(), p))
    result = as_tensor(returned, f"a vector of {len(probs)} numbers", dtype=probs.dtype)
    if result.shape != probs.shape:
        return (
            f"expected {len(probs)} numbers, got the shape {tuple(result.shape)}: the tokens that are cut "
            "stay in the vector, with probability 0."
        )

    def cut(keep):
        return torch.where(keep, probs, torch.zeros_like(probs))

    def scaled(keep):
        return cut(keep) / probs[keep].sum()

    ordered, index = probs.sort(descending=True)
    back = index.argsort()
    keep = (ordered.cumsum(-1) - ordered < p - 1e-6)[back]
    short = (ordered.cumsum(-1) <= p + 1e-6)[back]  # without the token that crosses the line
    case = f"for probs={values}, p={p}"
    drop = "you dropped the token that crosses p. It stays: without it the rest sums to less than p."
    order = "the probabilities are in sorted order: put them back to the places of their tokens."
    compare = "you compared each probability with p. Top-p compares the running sum of the likeliest with p."
    expected, got = ([round(x, 3) for x in numbers.tolist()] for numbers in (scaled(keep), result))
    return Answers(
        (scaled(keep), Right("Correct: the fewest likeliest tokens that reach p, scaled to 1.")),
        (cut(keep),
         f"{case} the right tokens are kept, but they sum to {probs[keep].sum():.2f}: scale them to 1."),
        *((known, f"{case} {drop}") for known in (scaled(short), cut(short))),
        *((known, f"{case} {order}") for known in (scaled(keep)[index], cut(keep)[index])),
        (scaled(probs.cumsum(-1) - probs < p),
         f"{case} you added up the tokens in the order of the vector: start with the likeliest."),
        *((known, f"{case} {compare}") for known in (scaled(probs >= p), scaled(probs > p))),
        otherwise=f"{case} expected {expected}, got {got}.",
    ).sentence(result)  # fmt: skip


def as_tensor(returned: object, expected: str, dtype: "torch.dtype | None" = None) -> "torch.Tensor":
    """What the reader's function returned, as a tensor. Where it cannot be one, the sentence says what was `expected`."""
    import torch

    try:
        return torch.as_tensor(returned, dtype=dtype)
    except Exception as error:
        raise Unusable(f"expected {expected}; your function returned {returned!r:.80}.") from error
