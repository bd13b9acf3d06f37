"""Notebook 04: plans for prompts, near repeats, top-p."""

from typing import TYPE_CHECKING

from helpers.exercises.base import Answers, Right, Unusable, attempted, call, exercise, filled_in, unlike

if TYPE_CHECKING:
    import torch


PROBLEMS = ("fine", "leak", "settled", "one prompt", "broken start")


@exercise("a dictionary with the keys A, B, C, D and E")
def check_prompt_plans(answer: object) -> str:
    """Exercise 1: what is wrong with each of five ways to make prompts, one of `PROBLEMS` for each."""
    plans = filled_in(answer)
    if plans.keys() != set("ABCDE"):
        return "the answer should be a dictionary with the keys A, B, C, D and E."
    for name, said in plans.items():
        if said not in PROBLEMS:
            return f"{name} is {said!r:.60}: expected one of {', '.join(map(repr, PROBLEMS))}."
    wrong = list(Answers(
        (unlike("A", "leak"), "A: its evaluation prompts come from the reviews it trains on."),
        (unlike("B", "settled"),
         "B: after forty words of a review, is there anything left for the model to decide?"),
        (unlike("C", "broken start"), "C: where does GPT-2 keep the space between two words?"),
        (unlike("D", "fine"),
         "D: no evaluation prompt is among the training prompts. It need not come from another split."),
        (unlike("E", "one prompt"), "E: how would the model do on other prompts? This plan cannot tell."),
    ).sentences(plans))  # fmt: skip
    if wrong:
        return f"{5 - len(wrong)} of 5 are right. {wrong[0]}"
    return Right("Correct: what a run shows depends on the prompts it is shown on.")


@exercise("a function that returns a list of prompts")
def check_near(near: object) -> str:
    """Exercise 2: near(train, held_out) -> the held-out prompts that differ from a training prompt in exactly one word."""
    # the first held-out prompt has two neighbours; each of those that have none stands for one mistake
    train = ["I saw this film", "I saw this play", "saw it again today"]
    train += ["The plot of this", "My brother loved it", "A quiet film about two"]
    right = ["I saw this movie", "Her brother loved it", "A quiet film about three"]
    two, shifted = "My sister loved her", "I saw it again"
    shorter, reordered = "The cast of", "film I saw yesterday"
    held_out = [right[0], two, shifted, right[1], shorter, reordered, right[2]]
    found = attempted(call(near, list(train), list(held_out)))
    if not isinstance(found, (list, tuple)):
        return f"expected a list of prompts; your function returned {found!r:.60}."
    found = list(found)
    if others := [entry for entry in found if not isinstance(entry, str)]:
        return f"expected a list of prompts, which are texts; yours holds {others[0]!r:.60}."
    return Answers(
        (lambda found: found == right, Right("Correct: the held-out prompts that are nearly known already.")),
        (lambda found: set(found) & set(train),
         "you returned training prompts: return the held-out prompts that have a neighbour."),
        (lambda found: len(set(found)) < len(found),
         f"{right[0]!r} has two neighbours, and stands in your list twice: once is enough."),
        (lambda found: two in found, f"{two!r} differs from {train[4]!r} in two words."),
        (lambda found: shorter in found,
         f"{shorter!r} is shorter than {train[3]!r}: neighbours have the same number of words. (zip stops at the shorter.)"),
        (lambda found: reordered in found,
         f"{reordered!r} has nearly the words of {train[0]!r}, in another order: compare them place by place."),
        (lambda found: shifted in found,
         f"{shifted!r} is no neighbour of {train[2]!r}: what remains is the same, but the gap is elsewhere."),
        (lambda found: sorted(found) == sorted(right), "the right prompts, in another order than held_out has them."),
        (lambda found: not found,
         "none found. A neighbour is not equal, it differs in one word; compare words (`prompt.split()`), not letters."),
        (lambda found: right[1] not in found,
         f"{right[1]!r} is missing: the word in which it differs from {train[4]!r} is the first. It may stand anywhere."),
        otherwise=f"expected {right}, got {found!r:.120}.",
    ).sentence(found)  # fmt: skip


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
    twice = "the probabilities are at the wrong places: `values[index]` sorts once more. Write `kept[index] = values`."
    unsorted = "you added up the tokens in the order of the vector: start with the likeliest."
    softmax = "you took a softmax of probabilities. To scale them to 1, divide by their sum."
    so_far = probs.cumsum(-1)
    expected, got = ([round(x, 3) for x in numbers.tolist()] for numbers in (scaled(keep), result))
    return Answers(
        (scaled(keep), Right("Correct: the fewest likeliest tokens that reach p, scaled to 1.")),
        (cut(keep),
         f"{case} the right tokens are kept, but they sum to {probs[keep].sum():.2f}: scale them to 1."),
        *((known, f"{case} {drop}") for known in (scaled(short), cut(short))),
        *((known, f"{case} {order}") for known in (scaled(keep)[index], cut(keep)[index])),
        *((known, f"{case} {twice}") for known in (scaled(keep)[index][index], cut(keep)[index][index])),
        *((known, f"{case} {unsorted}")
          for kept in (so_far - probs < p - 1e-6, so_far <= p + 1e-6, so_far < p - 1e-6)
          for known in (scaled(kept), cut(kept))),
        *((known, f"{case} {compare}") for known in (scaled(probs >= p), cut(probs >= p))),
        *((known, f"{case} {softmax}")
          for known in (scaled(keep).softmax(-1), cut(keep).softmax(-1), probs.where(keep, -torch.inf).softmax(-1))),
        otherwise=f"{case} expected {expected}, got {got}.",
    ).sentence(result)  # fmt: skip


def as_tensor(returned: object, expected: str, dtype: "torch.dtype | None" = None) -> "torch.Tensor":
    """What the reader's function returned, as a tensor. Where it cannot be one, the sentence says what was `expected`."""
    import torch

    try:
        return torch.as_tensor(returned, dtype=dtype)
    except Exception as error:
        raise Unusable(f"expected {expected}; your function returned {returned!r:.80}.") from error
