"""Around a reward model fitted to preferences: ratings to training data, texts to rewards. Notebook 09 does the fitting.

A reward model is a sequence classifier with one label, as `AutoModelForSequenceClassification.from_pretrained(...,
num_labels=1)` makes it: its one logit is the reward of the whole text (Ziegler et al. 2019, arxiv.org/abs/1909.08593,
section 2; Stiennon et al. 2020, arxiv.org/abs/2009.01325, section 3.4).
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.errors import CourseError
from helpers.feedback.ratings import Rating
from helpers.judge import longest_input
from helpers.ppo.prompts import pad_rows
from helpers.rewards import RewardFn

TARGETS = {"first": 1.0, "tie": 0.5, "second": 0.0}


def training_data(ratings: list[Rating]) -> list[tuple[str, str, float]]:
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
