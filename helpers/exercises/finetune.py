"""Notebook 02: perplexity, labels, learning rates."""

from typing import TYPE_CHECKING

from helpers.exercises.base import Answers, Right, exercise, number

if TYPE_CHECKING:
    from torch import Tensor


@exercise("one number, the perplexity")
def check_perplexity(answer: object, token_losses: "Tensor", mask: "Tensor") -> str:
    """Exercise 1: the perplexity of token_losses (rows, length), where mask is 0 for padding."""
    given = number(answer, f"a perplexity is one number; yours is a {type(answer).__name__}.")
    losses, mask = token_losses.cpu().double(), mask.cpu().double()
    real = losses * mask
    mean = real.sum() / mask.sum()
    means = real.sum(dim=1) / mask.sum(dim=1)
    return Answers(
        (mean.exp(), Right("Correct: e to the mean over the real tokens, each counted once.")),
        (mean, "that is the mean loss. Perplexity is e to it."),
        (losses.mean().exp(), "did you average over the padding too? The mask says which losses are real."),
        (losses.mean(),
         "that is the mean loss, padding included. Leave the padding out, then take e to the mean."),
        (real.mean().exp(),
         "you added up the real tokens only, but divided by all places, padding included."),
        (means.exp().mean(),
         "that is the mean of the two reviews' perplexities. It gives the short review as much weight as the "
         "long one: average over tokens, and take e to the mean once, at the end."),
        (means.mean().exp(),
         "you took the mean of each review first. All tokens count the same, in whichever review they are."),
        (real.sum().exp(), "that is e to the sum of the losses. Divide by the number of tokens first."),
        ((losses.exp() * mask).sum() / mask.sum(),
         "you took e to each loss and averaged then. Average first."),
        (2**mean, "that is 2 to the mean loss. The losses are natural logarithms, so the base is e."),
        ((-mean).exp(), "the sign is wrong: a loss is already -log p."),
        (lambda given: not given >= 1, f"{given:.3g} is below 1, which no perplexity is."),
        otherwise=f"{given:.4g} is not it. Take the mean of the losses where mask is 1, then e to that.",
        tolerance=0.0,
        relative=0.01,
    ).sentence(given)  # fmt: skip


@exercise("a tensor of whole numbers, shaped like input_ids")
def check_labels(answer: object, input_ids: "Tensor", attention_mask: "Tensor", prompt_length: int) -> str:
    """Exercise 2: labels that leave out left padding and the first prompt_length tokens of each row."""
    import torch

    try:
        given = torch.as_tensor(answer)
    except Exception:
        return f"labels are a tensor of whole numbers; yours is a {type(answer).__name__}."
    if given.shape != input_ids.shape:
        shapes = f"{tuple(input_ids.shape)} of input_ids; yours is {tuple(given.shape)}"
        return f"the labels must have the shape {shapes}."
    place = attention_mask.cumsum(dim=1)
    padding, prompt = attention_mask == 0, (attention_mask == 1) & (place <= prompt_length)
    continuation = ~padding & ~prompt
    right = input_ids.masked_fill(~continuation, -100)
    counts = given != -100
    unpadded = attention_mask.bool().all(dim=1)
    return Answers(
        (right, Right("Correct: padding and prompt do not count, and the end of the text does.")),
        (input_ids, "these are the input ids: nothing is left out, neither padding nor prompt."),
        (input_ids.masked_fill(continuation, -100),
         "the wrong way round: you left out the continuation, and it is all that should count."),
        (lambda given: torch.equal(given[:, :-1], right[:, 1:]) or torch.equal(given[:, 1:], right[:, :-1]),
         "you shifted the labels. The model does that itself: they stand in the same places as the input "
         "ids."),
        (right.masked_fill(~continuation, 0),
         "you used 0 for what should not count. 0 is a token here, and would be learned: use -100."),
        (lambda _: not (counts & (input_ids == 0) & continuation).any(),
         "the end-of-text token at the end of each row is left out, so the model would never learn to stop. "
         "Padding has the same id: go by attention_mask."),
        (lambda _: (counts & padding).any(), "the padding is to be learned. Its labels must be -100."),
        (lambda _: (counts & prompt).any() and not (counts & prompt)[unpadded].any(),
         f"you left out the first {prompt_length} columns. In a row padded on the left these are padding, "
         "and the prompt comes after it: count from the first token that attention_mask shows."),
        (lambda _: (counts & prompt).any(),
         "the prompt is to be learned. Only the continuation should count."),
        (lambda _: (~counts & continuation).any(), "some of the continuation is left out."),
        otherwise="the places are right, but some labels are not the ids that stand there.",
        tolerance=0.0,
    ).sentence(given)  # fmt: skip


@exercise("a list of the three names in your order")
def check_learning_rates(prediction: object, final_losses: dict) -> str:
    """Exercise 3: the names in final_losses, lowest loss first."""
    order = sorted(final_losses, key=lambda name: final_losses[name])
    if not isinstance(prediction, (list, tuple)) or sorted(map(str, prediction)) != sorted(order):
        return f"expected the three names in your order: a list of {', '.join(map(repr, final_losses))}."
    seen = ", ".join(f"{name} {final_losses[name]:.2f}" for name in order)
    return Answers(
        (lambda guess: guess == order, Right(f"Correct. Losses at the end: {seen}.")),
        (lambda guess: guess[0] == "hundredfold",
         "larger steps are not faster for ever: they jump past what they aim at. Losses at the end: "
         f"{seen}."),
        (lambda guess: guess[0] == "hundredth",
         f"small steps are safe, but in a few of them the model hardly moves. Losses at the end: {seen}."),
        (lambda guess: guess[-1] == "hundredth",
         "too small a rate leaves the model about where it was, too large a rate ruins what it had learned, "
         f"which is worse when it had learned much. Losses at the end: {seen}."),
        (lambda guess: guess[0] == order[0],
         "you have the best one. Steps that are too large do ruin what the model knew, but this one was "
         f"sure of the wrong words, and to know nothing is better than that. Losses at the end: {seen}."),
        otherwise=f"the losses at the end came out otherwise: {seen}.",
    ).sentence([*map(str, prediction)])  # fmt: skip
