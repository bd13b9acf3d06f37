"""Notebook 04: own prompts, a split, positions, top-p."""

from helpers.exercises.base import call, not_attempted, report, unattempted


def check_own_prompts(prompts, held_out) -> bool:
    """Whether `prompts` is a list of at least five prompts, fit for a prompt file, none of them in `held_out`."""
    if unattempted(prompts):
        return not_attempted()
    if not isinstance(prompts, (list, tuple)):
        return report(
            f'my_prompts is of type {type(prompts).__name__}: write a list of texts, ["...", "..."].'
        )
    praise = f"Correct: {len(prompts)} prompts of your own."
    return report(own_prompts_mistake(list(prompts), held_out), praise)


def own_prompts_mistake(prompts: list, held_out) -> str | None:
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            return f"{prompt!r} is no prompt: each one is a text with at least one word."
        if len(prompt.splitlines()) > 1:
            return (
                f"{prompt!r} has a line break: in a file with one prompt a line it would become two prompts."
            )
        if prompt != prompt.strip():
            return f"{prompt!r} begins or ends with a space: GPT-2's tokens carry the space before the next word."
        if prompt in held_out:
            return f"{prompt!r} is held out: trained on it, the evaluation would no longer show what is new."
    if len(set(prompts)) < len(prompts):
        return f"{len(prompts) - len(set(prompts))} of your prompts repeat another one."
    if len(prompts) < 5:
        return f"{len(prompts)} prompts so far: write at least five."
    return None


def check_split(split) -> bool:
    """Whether split(prompts, n_eval) gives (train, held_out) without repeats or leaks, and loses nothing."""
    prompts = "a b,c d,a b,e f,g h,c d,a b,i j,k l,m n,k l,o p,a b,e f".split(",")
    result, error = call_unless_unattempted(split, list(prompts), 3)
    if error:
        return report(error)
    if unattempted(split) or unattempted(result) or _all_none(result):
        return not_attempted()
    return report(split_mistake(prompts, 3, result), "Correct: no repeats, no leaks, nothing lost.")


def _all_none(result) -> bool:
    return isinstance(result, tuple) and all(part is None for part in result)


def split_mistake(prompts: list[str], n_eval: int, result) -> str | None:
    if not isinstance(result, tuple) or len(result) != 2:
        return f"expected two lists, (train, held_out); your function returned {result!r:.80}."
    if not all(isinstance(part, list) for part in result):
        kinds = " and ".join(type(part).__name__ for part in result)
        return f"expected two lists, got {kinds}. (A set has another order in every run; dict.fromkeys keeps it.)"
    train, held_out = result
    for prompt in train + held_out:
        if not isinstance(prompt, str):
            return f"{prompt!r:.60} is no text: both lists hold prompts."
    both = set(train) & set(held_out)
    if both:
        return (
            f"{sorted(both)[0]!r} is in both lists. Did you split before you removed the repeats? Then one copy of a "
            "prompt can land on either side, and removing repeats in each list afterwards does not help."
        )
    for name, part in [("train", train), ("held_out", held_out)]:
        if len(set(part)) < len(part):
            return f"{name} has repeats: {part}. Remove them from the whole list, before you split."
    if len(train) == n_eval != len(held_out):
        return "the two lists are the wrong way round: return (train, held_out)."
    if len(held_out) != n_eval:
        return f"held_out has {len(held_out)} prompts, n_eval asked for {n_eval}."
    lost = set(prompts) - set(train) - set(held_out)
    if lost and all(prompts.count(prompt) > 1 for prompt in lost):
        return f"{sorted(lost)[0]!r} is gone: of a repeated prompt one copy should stay."
    if lost:
        return f"{sorted(lost)[0]!r} is gone: what is not held out belongs into train."
    return None


def check_position_ids(position_ids) -> bool:
    """Whether position_ids(mask) counts each row's real tokens from 0; what stands under padding is free, but no -1."""
    import torch

    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    result, error = call_unless_unattempted(position_ids, mask.clone())
    if error:
        return report(error)
    if unattempted(position_ids) or unattempted(result):
        return not_attempted()
    return report(position_mistake(mask, result), "Correct: every prompt counts from its own first token.")


def position_mistake(mask, result) -> str | None:
    import torch

    try:
        result = torch.as_tensor(result)
    except (TypeError, ValueError, RuntimeError):
        return f"expected a tensor of the mask's shape; your function returned {result!r:.80}."
    if result.is_floating_point():
        return "position ids are whole numbers (they index a table), yours are floats."
    columns = torch.arange(mask.shape[1])
    if result.shape != mask.shape and torch.equal(result.flatten(), columns):
        return "one row for all prompts: padding moves each prompt by another distance, so each needs its own row."
    if result.shape != mask.shape:
        return f"expected the mask's shape {tuple(mask.shape)}, got {tuple(result.shape)}."
    real = mask.bool()
    right = mask.cumsum(-1) - 1
    if torch.equal(result[real], right[real]):
        if (result < 0).any():
            return "a position of -1 under the padding does not exist: did you forget to clamp?"
        if (result >= mask.shape[1]).any():
            return "a position under the padding lies beyond the batch: the model may not have that many."
        return None
    if torch.equal(result[real], columns.expand_as(mask)[real]):
        return "you numbered the columns: the first token of a padded prompt got the padding's positions as well."
    if torch.equal(result[real], right[real] + 1):
        return "off by one: the first token of a prompt has position 0, and `cumsum` starts at 1."
    if torch.equal(result[real], (mask.cumsum(0) - 1)[real]):
        return "you counted down the batch, from prompt to prompt: cumsum(-1) counts along the columns."
    return f"for the mask {mask.tolist()} expected {right.clamp(min=0).tolist()}, got {result.tolist()}."


def check_top_p(top_p) -> bool:
    """Whether top_p(probs, p) keeps the fewest likeliest tokens that reach p, zeroes the rest and scales to 1."""
    import torch

    # Not sorted; the first p is crossed in the middle of a token, the second by the likeliest token alone.
    cases = [([0.12, 0.5, 0.08, 0.3], 0.7), ([0.2, 0.7, 0.1], 0.5), ([0.3, 0.25, 0.45], 1.0)]
    for number, (probs, p) in enumerate(cases):
        probs = torch.tensor(probs)
        result, error = call_unless_unattempted(top_p, probs.clone(), p)
        if error:
            return report(error)
        if number == 0 and (unattempted(top_p) or unattempted(result)):
            return not_attempted()
        mistake = top_p_mistake(probs, p, result)
        if mistake:
            return report(mistake)
    return report(None, "Correct: the fewest likeliest tokens that reach p, scaled to 1.")


def top_p_mistake(probs, p: float, result) -> str | None:
    import torch

    try:
        result = torch.as_tensor(result, dtype=probs.dtype)
    except (TypeError, ValueError, RuntimeError):
        return f"expected a vector of {len(probs)} numbers; your function returned {result!r:.80}."
    if result.shape != probs.shape:
        return (
            f"expected {len(probs)} numbers, got the shape {tuple(result.shape)}: the tokens that are cut stay in the "
            "vector, with probability 0."
        )

    def scaled(keep):
        return torch.where(keep, probs, torch.zeros_like(probs)) / probs[keep].sum()

    def same(other):
        return torch.allclose(result, other, atol=1e-4, equal_nan=True)

    ordered, index = probs.sort(descending=True)
    back = index.argsort()
    keep = (ordered.cumsum(-1) - ordered < p - 1e-6)[back]
    if same(scaled(keep)):
        return None
    case = f"for probs={[round(x, 2) for x in probs.tolist()]}, p={p}"
    if same(torch.where(keep, probs, torch.zeros_like(probs))):
        return f"{case} the right tokens are kept, but they sum to {probs[keep].sum():.2f}: scale them to 1."
    short = (ordered.cumsum(-1) <= p + 1e-6)[back]  # without the token that crosses the line
    if not torch.equal(short, keep) and (same(scaled(short)) or same(torch.where(short, probs, 0 * probs))):
        return (
            f"{case} you dropped the token that crosses p. It stays: without it the rest sums to less than p."
        )
    if same(scaled(keep)[index]) or same(torch.where(keep, probs, 0 * probs)[index]):
        return f"{case} the probabilities are in sorted order: put them back to the places of their tokens."
    unsorted = probs.cumsum(-1) - probs < p
    if not torch.equal(unsorted, keep) and same(scaled(unsorted)):
        return f"{case} you added up the tokens in the order of the vector: start with the likeliest."
    if same(scaled(probs >= p)) or same(scaled(probs > p)):
        return f"{case} you compared each probability with p. Top-p compares the running sum of the likeliest with p."
    numbers = [round(x, 3) for x in result.tolist()]
    return f"{case} expected {[round(x, 3) for x in scaled(keep).tolist()]}, got {numbers}."


def call_unless_unattempted(function, *arguments):
    """As `call`, but an answer left as it was is no mistake: (None, None)."""
    return (None, None) if unattempted(function) else call(function, *arguments)
