"""DPO: a policy from preferences alone, without a reward model and without sampling while it learns.

Rafailov et al. 2023 (arxiv.org/abs/2305.18290). The best policy for a reward r under a KL penalty beta is known:
pi(y | x) ~ pi_ref(y | x) exp(r(x, y) / beta). Read the other way, every policy has an implicit reward,
beta * (log pi(y | x) - log pi_ref(y | x)), and that is fitted to the preferences as a reward model's would be.

Shapes: B preferences. Log-probabilities are those of whole continuations, in nats.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.errors import CourseError
from helpers.feedback.ratings import SIDES, Rating
from helpers.ppo import loss, values
from helpers.ppo.policy import hidden_states, most_tokens
from helpers.ppo.prompts import pad_rows, prompt_ids
from helpers.ppo.values import Count, Positive

Tokens = tuple[list[int], list[int]]  # the ids of a prompt, and those of its continuation


def implicit_rewards(logprobs: Tensor, ref_logprobs: Tensor, beta: float) -> Tensor:
    """beta * (log pi - log pi_ref) of each continuation (B,). Only differences between continuations of one prompt mean anything."""
    return beta * (logprobs - ref_logprobs)


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """-log sigmoid(implicit reward of the chosen - that of the rejected) of each preference (B,).

    Rafailov et al. 2023 (arxiv.org/abs/2305.18290), eq. 7. All but `beta` are log-probabilities (B,), under the policy and the reference.
    """
    return -logsigmoid(
        implicit_rewards(chosen, ref_chosen, beta) - implicit_rewards(rejected, ref_rejected, beta)
    )


def preferences(ratings: list[Rating]) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) of each rating, in order; ties, skipped pairs and pairs of identical texts are left out.

    Raises:
        CourseError: nothing is left to learn from.
    """
    found = []
    for rating in ratings:
        texts = {"first": rating.pair.first, "second": rating.pair.second}
        if rating.choice in SIDES and len(set(texts.values())) == 2:
            chosen = texts.pop(rating.choice)
            found.append((rating.pair.prompt, chosen, *texts.values()))
    if not found:
        raise CourseError(
            f"there is nothing to learn from in {len(ratings)} ratings: expected at least one preference between two texts"
        )
    return found


def tokens_of(tokenizer: PreTrainedTokenizerBase, prompt: str, continuation: str) -> Tokens:
    """The ids of prompt and continuation, tokenised as one text.

    No end-of-text token is added: a text does not say whether it ended by itself or was cut off. (TRL adds one.)
    """
    alone, ids = prompt_ids([prompt, prompt + continuation], tokenizer)
    length = len(alone)
    return ids[:length], ids[length:]


def logprobs_of(model: PreTrainedModel, texts: list[Tokens]) -> Tensor:
    """log pi of each continuation after its prompt (N,), in nats, with gradients where they are on."""
    query, query_mask = pad_rows([prompt for prompt, _ in texts], 0, "left")
    response, mask = pad_rows([continuation for _, continuation in texts], 0, "right")
    ids, attention = (
        torch.cat(parts, dim=1).to(model.device) for parts in ((query, response), (query_mask, mask))
    )
    hidden = hidden_states(model, ids, attention)[:, query.shape[1] - 1 : -1]
    distribution = loss.log_distribution(model.get_output_embeddings()(hidden))
    return (loss.token_logprobs(distribution, response.to(model.device)) * mask.to(model.device)).sum(1)


@torch.no_grad()
def reference_logprobs(model: PreTrainedModel, texts: list[Tokens], batch_size: int) -> Tensor:
    """`logprobs_of` any number of texts (N,), without gradients, `batch_size` at a time."""
    batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    return torch.cat([logprobs_of(model, batch) for batch in batches])


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ratings: list[Rating],
    lr: float,
    beta: float = 0.1,
    epochs: int = 1,
    batch_size: int = 32,
    seed: int = 0,
) -> tuple[PreTrainedModel, list[dict]]:
    """Fit a causal language model to preferences by DPO, with Adam.

    The reference is the model as it comes. Its log-probabilities are computed once, before the first step, so that no second
    model is in memory. Dropout is off. What learns is what `requires_grad`: `freeze_below` decides.

    Args:
        lr: the learning rate of AdamW.
        beta: the price of a nat of KL in the reward that the preferences are taken to speak of; 0.1 is the paper's and TRL's.
        epochs: passes over the preferences.
        batch_size: preferences that a step learns from.
        seed: another seed takes them in another order.
    Returns:
        The same model, and a history: a row per step, of means over its batch before the step. `step`, `loss`; `accuracy`, the
        share of preferences whose chosen text has the higher implicit reward (at the first step it says nothing: all
        are 0 but for rounding); `chosen` and `rejected`, the log-probabilities of these texts in nats; `chosen_reward` and
        `rejected_reward`, their implicit rewards.
    Raises:
        CourseError: a number is out of range, there is nothing to learn from, nothing learns, a text is too long for the model,
            or the run has diverged.
    """
    check(model, lr, beta, epochs, batch_size)
    pairs = preferences(ratings)
    chosen, rejected = ([tokens_of(tokenizer, texts[0], texts[side]) for texts in pairs] for side in (1, 2))
    refuse_long(model, pairs, [*chosen, *rejected])
    model.eval()
    ref_chosen, ref_rejected = (reference_logprobs(model, texts, batch_size) for texts in (chosen, rejected))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    chance = torch.Generator().manual_seed(seed)
    history: list[dict] = []
    for _ in range(epochs):
        for batch in torch.randperm(len(pairs), generator=chance).split(batch_size):
            both = [texts[i] for texts in (chosen, rejected) for i in batch.tolist()]
            logprobs = logprobs_of(model, both).chunk(2)
            refs = ref_chosen[batch], ref_rejected[batch]
            losses = dpo_loss(*logprobs, *refs, beta)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            history.append(row(len(history) + 1, losses, logprobs, refs, beta))
    return model, history


@torch.no_grad()
def row(
    step: int,
    losses: Tensor,
    logprobs: tuple[Tensor, Tensor],
    refs: tuple[Tensor, Tensor],
    beta: float,
) -> dict:
    """A step's row for the history; each pair of tensors (B,) is of the chosen and of the rejected texts.

    Raises:
        CourseError: the loss is no number.
    """
    rewards = [implicit_rewards(ours, ref, beta) for ours, ref in zip(logprobs, refs, strict=True)]
    means = {
        "loss": losses,
        "accuracy": (rewards[0] > rewards[1]).float(),
        "chosen": logprobs[0],
        "rejected": logprobs[1],
        "chosen_reward": rewards[0],
        "rejected_reward": rewards[1],
    }
    if not losses.isfinite().all():
        raise CourseError(
            f"at step {step} the loss became infinite or no number at all: the run has diverged. Try a tenth of the learning rate."
        )
    return {"step": step} | {name: each.mean().item() for name, each in means.items()}


def check(model: PreTrainedModel, lr: float, beta: float, epochs: int, batch_size: int) -> None:
    """Refuse what cannot be fitted with, before any work.

    Raises:
        CourseError: a number is out of range, or no weight of the model learns.
    """
    numbers = [("lr", lr, Positive), ("beta", beta, Positive)]
    numbers += [("epochs", epochs, Count), ("batch_size", batch_size, Count)]
    for name, value, kind in numbers:
        values.fit(name, value, kind)
    if not any(p.requires_grad for p in model.parameters()):
        raise CourseError(
            "no weight of the model learns: freeze fewer blocks, such as freeze_below(model, 2)"
        )


def refuse_long(model: PreTrainedModel, pairs: list[tuple[str, str, str]], texts: list[Tokens]) -> None:
    """Refuse texts that the model has no positions for; `texts` are the chosen ones of all pairs, then the rejected ones.

    Raises:
        CourseError: it shows the first one.
    """
    most = most_tokens(model)
    for number, (prompt, continuation) in enumerate(texts):
        if len(prompt) + len(continuation) > most:
            shown = pairs[number % len(pairs)][0]
            raise CourseError(
                f"a text has {len(prompt) + len(continuation)} tokens, and the model takes {most}: shorten it or leave it out. Its "
                f"prompt is {shown!r:.60}."
            )
        if not prompt:
            raise CourseError("a prompt has no token: a continuation must follow at least one")
