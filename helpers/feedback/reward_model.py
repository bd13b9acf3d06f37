"""A reward model fitted to preferences: ratings to training data, the fit of notebook 09, texts to rewards.

A reward model is a sequence classifier with one label, as `AutoModelForSequenceClassification.from_pretrained(...,
num_labels=1)` makes it: its one logit is the reward of the whole text (Ziegler et al. 2019, arxiv.org/abs/1909.08593,
section 2; Stiennon et al. 2020, arxiv.org/abs/2009.01325, section 3.4).
"""

import math
import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from helpers import weights
from helpers.config_cli import NARROW
from helpers.errors import CourseError
from helpers.feedback.agreement import Share, wilson
from helpers.feedback.ratings import SIDES, Rating
from helpers.judge import longest_input
from helpers.ppo.blocks import freeze_below
from helpers.ppo.prompts import pad_rows
from helpers.rewards import RewardFn

TARGETS = {"first": 1.0, "tie": 0.5, "second": 0.0}
Comparison = tuple[
    str, str, float
]  # the first text, the second, and the share of the preference that goes to the first

# Preferences on different pairs. Thirty clicks in the labeller are 27 of them, since it shows every tenth time a pair again.
FEWEST, FEWEST_HELD_OUT = 25, 5
BATCH, FEWEST_STEPS = 16, 20
LEARNING_RATES = {
    True: 0.0009964923469387755,
    False: 2.1e-5,
}  # of a network that is NARROW, and of others: notebook 09's two
NORMALISED_OVER = 500  # texts, as in notebook 09


def training_data(ratings: list[Rating]) -> list[Comparison]:
    """(prompt + first, prompt + second, target) of each rating, in order; skipped pairs are left out.

    The target is the share of the preference that goes to the first text: 1, 0, or 0.5 for a tie.

    Raises:
        CourseError: nothing is left to learn from.
    """
    data = [
        (
            rating.pair.prompt + rating.pair.first,
            rating.pair.prompt + rating.pair.second,
            TARGETS[rating.choice],
        )
        for rating in ratings
        if rating.choice in TARGETS
    ]
    if not data:
        raise CourseError(
            f"there is nothing to learn from in {len(ratings)} ratings: expected at least one preference or tie"
        )
    return data


def closed(text: str) -> str:
    """The text with a full stop at its end, if it has none.

    A causal model's reward is read at the last token. Samples that were cut off end anywhere; the full stop gives nearly all
    of them the same last token, which learns to sum up. (Others append the end-of-text token and pad with another one.)
    """
    return text if text.endswith(".") else text + "."


def rewards_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    """The rewards (N,) of N texts in one batch, on the model's device, with gradients where they are on.

    Padding stands on the right: the reward is read at a text's last token, which then sees only what came before it.
    Texts are `closed` first. One longer than the model takes loses its end.

    Raises:
        CourseError: the model has more or fewer labels than one, or no padding token to find the last token by.
    """
    config = model.config
    if config.num_labels != 1:
        raise CourseError(
            f"a reward model has one label and this classifier has {config.num_labels}. "
            "Load it with from_pretrained(..., num_labels=1)."
        )
    if config.pad_token_id is None:
        raise CourseError(
            "the reward model has no padding token, and would read the reward off the padding. "
            "Set model.config.pad_token_id = tokenizer.eos_token_id before training it."
        )
    most = longest_input(model, tokenizer)
    rows = tokenizer([closed(text) for text in texts], truncation=True, max_length=most)["input_ids"]
    ids, mask = (tensor.to(model.device) for tensor in pad_rows(rows, config.pad_token_id, "right"))
    return model(input_ids=ids, attention_mask=mask).logits[:, 0]


@torch.no_grad()
def score_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], batch_size: int = 64
) -> Tensor:
    """The rewards (N,) of any number of texts, on the CPU and without gradients or dropout."""
    training = model.training
    model.eval()
    batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    rewards = [rewards_of(model, tokenizer, batch).float().cpu() for batch in batches]
    model.train(training)
    return torch.cat(rewards) if rewards else torch.zeros(0)


def learned_reward(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mean: float = 0.0, std: float = 1.0
) -> RewardFn:
    """A reward function from a reward model: (reward - mean) / std of each sample.

    Preferences say nothing about where a reward's zero lies. With mean and standard deviation over samples of the policy
    before training, the normalised reward starts at 0, and beta means the same for every reward model.

    Raises:
        CourseError: `std` is not above 0, as when all samples were given the same reward.
    """
    if not std > 0:
        raise CourseError(
            f"the standard deviation of the rewards is {std}: expected a number above 0. A reward model that gives every "
            "text the same reward has learned nothing; give it more ratings or train it longer."
        )

    def reward_fn(samples, **kwargs):
        return ((score_texts(model, tokenizer, samples) - mean) / std).tolist()

    return reward_fn


@dataclass(frozen=True)
class Fitted:
    """A reward model as a reward function, and how often it was right about preferences that it had not seen.

    Args:
        reward_fn: normalised over the rated texts.
        accuracy: on held-out preferences.
        preferences: that it was fitted to.
    """

    reward_fn: RewardFn
    accuracy: Share
    preferences: int


def fit_and_test(ratings: list[Rating], source: str, device: str, progress: bool = True) -> Fitted:
    """Fit a reward model to four fifths of the ratings and test it on the others; the two have no prompt in common.

    Of a pair that a rater rated twice the first rating counts. Mean and standard deviation for the normalised reward are those
    over the rated texts, or over the first 500 of them.

    Args:
        ratings: at least 25 preferences of different pairs among them.
        source: a causal model, folder or hub id, whose network the reward model begins as.
        progress: whether to show a bar.
    Raises:
        CourseError: there are too few preferences, or the model cannot be loaded or learns nothing.
    """
    first = {(rating.rater, rating.pair.id): rating for rating in reversed(ratings)}
    ratings = [rating for rating in ratings if first[rating.rater, rating.pair.id] is rating]
    fitted_to, held_out = split(ratings)
    model, tokenizer = fit(training_data(fitted_to), source, device, progress)
    texts = [
        rating.pair.prompt + text for rating in ratings for text in (rating.pair.first, rating.pair.second)
    ]
    rewards = score_texts(model, tokenizer, texts[:NORMALISED_OVER])
    reward_fn = learned_reward(model, tokenizer, rewards.mean().item(), rewards.std().item())
    return Fitted(
        reward_fn, accuracy(model, tokenizer, training_data(held_out)), count_preferences(fitted_to)
    )


def count_preferences(ratings: list[Rating]) -> int:
    """How many of the ratings prefer one of two texts; ties and skips do not."""
    return sum(rating.choice in SIDES for rating in ratings)


def split(ratings: list[Rating], seed: int = 0) -> tuple[list[Rating], list[Rating]]:
    """(ratings to fit to, ratings held out): of a fifth of the preferences and of 5 at least, all those of each prompt.

    Where there are fewer than ten prompts, pairs of texts are held out in place of prompts.

    Raises:
        CourseError: fewer than 25 preferences.
    """
    count = count_preferences(ratings)
    if count < FEWEST:
        raise CourseError(
            f"preferences: {count} (ties, skips and pairs that come again are none), and at least {FEWEST} are needed to fit a reward "
            f"model and to test it. Rate {FEWEST - count} pairs more; notebook 09 shows what more of them buy."
        )
    by_prompt = len({rating.pair.prompt for rating in ratings}) >= 10
    unit = {rating.id: rating.pair.prompt if by_prompt else rating.pair.id for rating in ratings}
    units = sorted(set(unit.values()))
    random.Random(seed).shuffle(units)
    held_out: set[str] = set()
    while count_preferences([r for r in ratings if unit[r.id] in held_out]) < max(FEWEST_HELD_OUT, count / 5):
        held_out.add(units.pop())
    parts = [[r for r in ratings if (unit[r.id] in held_out) is tested] for tested in (False, True)]
    return parts[0], parts[1]


def fit(
    data: list[Comparison], source: str, device: str, progress: bool = True, seed: int = 0
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Fit a Bradley-Terry reward model as notebook 09 does: two passes or more, Adam, a rate that falls to 0, dropout off.

    The network's top two blocks and the head learn. torch's random numbers are afterwards as they were.

    Args:
        data: what `training_data` returns.
        source, progress: as in `fit_and_test`.
        seed: of the head, which begins at random, and of the order.
    Raises:
        CourseError: the model cannot be loaded without running code that comes with it.
    """
    tokenizer = weights.load_tokenizer(source, "the reward model's network")
    weights.refuse_what_runs(source, "the reward model's network")
    settings = dict(num_labels=1, pad_token_id=tokenizer.eos_token_id, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the head is drawn at random
        with weights.errors_about("the reward model's network", source, weights.EXPECTED):
            model = AutoModelForSequenceClassification.from_pretrained(
                source, trust_remote_code=False, **settings
            )
    freeze_below(model, min(2, model.config.num_hidden_layers))
    model.score.requires_grad_(True)
    model.to(device).eval()
    steps = batches(data, seed)
    rate = LEARNING_RATES[model.config.hidden_size < NARROW]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, len(steps))
    for first, second, target in tqdm(steps, desc="reward model", disable=not progress):
        rewards = rewards_of(model, tokenizer, [*first, *second])
        loss = preference_loss(*rewards.chunk(2), torch.tensor(target, device=rewards.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model, tokenizer


def preference_loss(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """The Bradley-Terry loss of a batch: rewards of the first and of the second texts, and who is preferred, each (B,)."""
    return binary_cross_entropy_with_logits(first - second, target)


def batches(data: list[Comparison], seed: int) -> list[list[tuple]]:
    """Two shuffled passes over the data, or as many as make 20 batches: (first texts, second texts, targets) each."""
    passes = max(2, math.ceil(FEWEST_STEPS * BATCH / len(data)))
    shuffle = random.Random(seed)
    rows = [row for _ in range(passes) for row in shuffle.sample(data, len(data))]
    return [list(zip(*rows[start : start + BATCH], strict=True)) for start in range(0, len(rows), BATCH)]


def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: list[Comparison]) -> Share:
    """On which share of the preferences the preferred text has the higher reward, with its interval; ties are left out.

    Where several raters judged a pair, the interval is as wide as if one had: they are right or wrong together.
    """
    clear = [row for row in data if row[2] != 0.5]
    first, second = (score_texts(model, tokenizer, [row[side] for row in clear]) for side in (0, 1))
    right = [
        (margin > 0) == (row[2] == 1) for margin, row in zip((first - second).tolist(), clear, strict=True)
    ]
    pairs = len({row[:2] for row in clear})
    share = wilson(sum(right) * pairs / max(1, len(right)), pairs)
    return replace(share, n=len(right))
