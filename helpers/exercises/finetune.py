"""Notebook 02: perplexity, labels, learning rates."""

from helpers.exercises.base import not_attempted, report, unattempted


def check_perplexity(answer, token_losses, mask) -> bool:
    """Exercise 1: the perplexity of token_losses (rows, length), where mask is 0 for padding."""
    if unattempted(answer):
        return not_attempted()
    try:
        given = float(answer)
    except (TypeError, ValueError, RuntimeError):
        return report(f"a perplexity is one number; yours is a {type(answer).__name__}.")
    losses, mask = token_losses.double(), mask.double()
    real = losses * mask
    mean = real.sum() / mask.sum()
    means = real.sum(dim=1) / mask.sum(dim=1)
    if same(given, mean.exp()):
        return report(None, "Correct: e to the mean over the real tokens, each counted once.")
    mistakes = [
        (mean, "that is the mean loss. Perplexity is e to it."),
        (losses.mean().exp(), "did you average over the padding too? The mask says which losses are real."),
        (
            losses.mean(),
            "that is the mean loss, padding included. Leave the padding out, then take e to the mean.",
        ),
        (
            real.mean().exp(),
            "you added up the real tokens only, but divided by all places, padding included.",
        ),
        (
            means.exp().mean(),
            "that is the mean of the two reviews' perplexities. It gives the short review as much weight as the long one: "
            "average over tokens, and take e to the mean once, at the end.",
        ),
        (
            means.mean().exp(),
            "you took the mean of each review first. All tokens count the same, in whichever review they are.",
        ),
        (real.sum().exp(), "that is e to the sum of the losses. Divide by the number of tokens first."),
        (
            (losses.exp() * mask).sum() / mask.sum(),
            "you took e to each loss and averaged then. Average first.",
        ),
        (2**mean, "that is 2 to the mean loss. The losses are natural logarithms, so the base is e."),
        ((-mean).exp(), "the sign is wrong: a loss is already -log p."),
    ]
    for wrong, mistake in mistakes:
        if same(given, wrong):
            return report(mistake)
    if not given >= 1:
        return report(f"{given:.3g} is below 1, which no perplexity is.")
    return report(f"{given:.4g} is not it. Take the mean of the losses where mask is 1, then e to that.")


def check_labels(answer, input_ids, attention_mask, prompt_length: int) -> bool:
    """Exercise 2: labels that leave out left padding and the first prompt_length tokens of each row."""
    if unattempted(answer):
        return not_attempted()
    import torch

    try:
        given = torch.as_tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        return report(f"labels are a tensor of whole numbers; yours is a {type(answer).__name__}.")
    if given.shape != input_ids.shape:
        return report(
            f"the labels must have the shape {tuple(input_ids.shape)} of input_ids; yours is {tuple(given.shape)}."
        )
    place = attention_mask.cumsum(dim=1)
    padding, prompt = attention_mask == 0, (attention_mask == 1) & (place <= prompt_length)
    continuation = ~padding & ~prompt
    right = input_ids.masked_fill(~continuation, -100)
    if torch.equal(given, right):
        return report(None, "Correct: padding and prompt do not count, and the end of the text does.")
    if torch.equal(given, input_ids):
        return report("these are the input ids: nothing is left out, neither padding nor prompt.")
    if torch.equal(given, input_ids.masked_fill(continuation, -100)):
        return report("the wrong way round: you left out the continuation, and it is all that should count.")
    if torch.equal(given[:, :-1], right[:, 1:]) or torch.equal(given[:, 1:], right[:, :-1]):
        return report(
            "you shifted the labels. The model does that itself: they stand in the same places as the input ids."
        )
    if torch.equal(given, right.masked_fill(~continuation, 0)):
        return report(
            "you used 0 for what should not count. 0 is a token here, and would be learned: use -100."
        )
    counts = given != -100
    if not (counts & (input_ids == 0) & continuation).any():
        return report(
            "the end-of-text token at the end of each row is left out, so the model would never learn to stop. Padding has "
            "the same id: go by attention_mask."
        )
    if (counts & padding).any():
        return report("the padding is to be learned. Its labels must be -100.")
    if not (counts & prompt)[attention_mask.bool().all(dim=1)].any() and (counts & prompt).any():
        return report(
            f"you left out the first {prompt_length} columns. In a row padded on the left these are padding, and the prompt "
            "comes after it: count from the first token that attention_mask shows."
        )
    if (counts & prompt).any():
        return report("the prompt is to be learned. Only the continuation should count.")
    if (~counts & continuation).any():
        return report("some of the continuation is left out.")
    return report("the places are right, but some labels are not the ids that stand there.")


def check_learning_rates(prediction, final_losses: dict) -> bool:
    """Exercise 3: the names in final_losses, lowest loss first."""
    if unattempted(prediction):
        return not_attempted()
    order = sorted(final_losses, key=lambda name: final_losses[name])
    if not isinstance(prediction, (list, tuple)) or sorted(map(str, prediction)) != sorted(order):
        return report(
            f"expected the three names in your order: a list of {', '.join(map(repr, final_losses))}."
        )
    seen = ", ".join(f"{name} {final_losses[name]:.2f}" for name in order)
    guess = list(prediction)
    if guess == order:
        return report(None, f"Correct. Losses at the end: {seen}.")
    if guess[0] == "hundredfold":
        return report(
            f"larger steps are not faster for ever: they jump past what they aim at. Losses at the end: {seen}."
        )
    if guess[0] == "hundredth":
        return report(
            f"small steps are safe, but in a few of them the model hardly moves. Losses at the end: {seen}."
        )
    if guess[-1] == "hundredth":
        return report(
            "too small a rate leaves the model about where it was, too large a rate ruins what it had learned, which is worse "
            f"when it had learned much. Losses at the end: {seen}."
        )
    if order[0] == guess[0]:
        return report(
            "you have the best one. Steps that are too large do ruin what the model knew, but this one was sure of the wrong "
            f"words, and to know nothing is better than that. Losses at the end: {seen}."
        )
    return report(f"the losses at the end came out otherwise: {seen}.")


def same(given: float, expected) -> bool:
    expected = float(expected)
    return abs(given - expected) <= 0.01 * abs(expected)
