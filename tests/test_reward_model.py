"""The reward model: ratings become comparisons, and padding, batches, saving and normalising change no reward."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from helpers.errors import CourseError
from helpers.feedback import reward_model
from helpers.feedback.pairs import Pair
from helpers.feedback.simulated import SimulatedRater
from helpers.ppo.blocks import freeze_below
from helpers.rewards import score
from helpers.tiny import TINY

TEXTS = [
    "I loved it.",
    "The director of this film wasted a fine cast and two hours of my life.",
    "So",
    "It was dull.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY / "gpt2-reviews")


@pytest.fixture
def model(tokenizer):
    return load(TINY / "gpt2-reviews", tokenizer)


def load(folder, tokenizer, **kwargs):
    torch.manual_seed(0)
    settings = dict(num_labels=1, pad_token_id=tokenizer.eos_token_id, dtype=torch.float32) | kwargs
    return AutoModelForSequenceClassification.from_pretrained(folder, **settings)


def ratings():
    """One rating of each kind of choice."""
    pairs = [
        Pair("The film", " is bad", " is good"),
        Pair("So", " good", " very good"),
        Pair("It", " good", " is bad"),
    ]
    rater = SimulatedRater(lambda texts: [float("good" in text) for text in texts], error_rate=0)
    second, tie, first = rater.rate(pairs)
    return [first, second, tie, replace(first, choice="skip")]


def test_ratings_become_comparisons():
    assert reward_model.training_data(ratings()) == [
        ("It good", "It is bad", 1.0),
        ("The film is bad", "The film is good", 0.0),
        ("So good", "So very good", 0.5),
    ]


def test_only_skips_are_nothing_to_learn_from():
    with pytest.raises(CourseError, match="nothing to learn from in 1 ratings"):
        reward_model.training_data(ratings()[3:])


def test_the_reward_of_a_text_does_not_depend_on_its_batch(model, tokenizer):
    alone = torch.cat([reward_model.score_texts(model, tokenizer, [text]) for text in TEXTS])
    assert torch.allclose(reward_model.score_texts(model, tokenizer, TEXTS), alone, atol=1e-5)
    assert torch.allclose(reward_model.score_texts(model, tokenizer, TEXTS, batch_size=3), alone, atol=1e-5)
    assert alone.std() > 0.01


def test_scoring_leaves_dropout_out_and_the_mode_as_it_was(tokenizer):
    model = load(TINY / "gpt2-reviews", tokenizer, resid_pdrop=0.5).train()
    once, again = (reward_model.score_texts(model, tokenizer, TEXTS) for _ in range(2))
    assert torch.equal(once, again) and model.training and not once.requires_grad
    assert reward_model.rewards_of(model, tokenizer, TEXTS).requires_grad


@pytest.mark.parametrize("tied", [True, False])
def test_a_classifier_s_top_blocks_learn_alone(tokenizer, tied):
    """It has no output layer, whatever its configuration says of one."""
    model = load(TINY / "gpt2-reviews", tokenizer, tie_word_embeddings=tied)
    freeze_below(model, 2)
    learning = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert "transformer.ln_f" in learning and "transformer.h.2.ln_1" in learning
    assert not learning & {"transformer.h.1.ln_1", "transformer.wte", "transformer.wpe", "score"}


def test_no_texts_have_no_rewards(model, tokenizer):
    assert reward_model.score_texts(model, tokenizer, []).tolist() == []


def test_a_text_is_closed_by_one_full_stop(model, tokenizer):
    open_ended, closed = reward_model.score_texts(model, tokenizer, ["It was dull", "It was dull."])
    assert open_ended == closed
    assert reward_model.closed("It was dull.") == "It was dull."


def test_a_long_text_loses_its_end(model, tokenizer):
    words = "film " * model.config.max_position_embeddings
    assert reward_model.score_texts(model, tokenizer, [words, words + "more"]).diff().item() == 0


def test_saved_and_loaded_it_gives_the_same_rewards(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    before = reward_model.score_texts(model, tokenizer, TEXTS)
    after = reward_model.score_texts(loaded, AutoTokenizer.from_pretrained(tmp_path), TEXTS)
    assert torch.equal(before, after)


def test_the_learned_reward_keeps_the_contract(model, tokenizer):
    rewards = reward_model.score_texts(model, tokenizer, TEXTS)
    reward_fn = reward_model.learned_reward(model, tokenizer, rewards.mean().item(), rewards.std().item())
    given = score(reward_fn, TEXTS, TEXTS, TEXTS, tokenizer=tokenizer)
    assert sum(given) == pytest.approx(0, abs=1e-4)
    assert torch.tensor(given).std().item() == pytest.approx(1, abs=1e-4)
    assert sorted(range(4), key=given.__getitem__) == rewards.argsort().tolist()


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan])
def test_rewards_that_are_all_the_same_are_refused(model, tokenizer, std):
    with pytest.raises(CourseError, match="standard deviation"):
        reward_model.learned_reward(model, tokenizer, 0.0, std)


def test_a_classifier_with_two_labels_is_refused(tokenizer):
    with pytest.raises(CourseError, match="one label and this classifier has 2"):
        reward_model.score_texts(load(TINY / "gpt2-reviews", tokenizer, num_labels=2), tokenizer, TEXTS)


def test_a_model_without_padding_token_is_refused(tokenizer):
    with pytest.raises(CourseError, match="no padding token"):
        reward_model.score_texts(load(TINY / "gpt2-reviews", tokenizer, pad_token_id=None), tokenizer, TEXTS)
