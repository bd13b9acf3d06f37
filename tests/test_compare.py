"""Before and after: the same seed gives the same texts, and changed weights are told from unchanged ones."""

import pytest
import torch
from ppo_run import MODEL, PROMPTS, count_the
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import compare


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


def test_the_same_seed_gives_the_same_texts(model, tokenizer):
    first = compare.continue_prompts(model, tokenizer, PROMPTS, seed=3)
    assert first == compare.continue_prompts(model, tokenizer, PROMPTS, seed=3)
    assert first != compare.continue_prompts(model, tokenizer, PROMPTS, seed=4)
    assert not any(output.startswith(prompt) for output, prompt in zip(first, PROMPTS))


def test_a_model_against_itself_gains_nothing(model, tokenizer):
    table = compare.before_after(model, model, tokenizer, PROMPTS, count_the, max_new_tokens=8)
    assert (table["gain"] == 0).all() and (table["before"] == table["after"]).all()
    assert table["reward_before"].tolist() == count_the((table["prompt"] + table["before"]).tolist())


def test_changed_weights_are_found_where_they_are(model):
    other = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    with torch.no_grad():
        other.transformer.h[1].mlp.c_fc.weight.mul_(1.01)
    changes = compare.weight_changes(model, other).set_index("part")["relative_change"]
    assert changes["block 1"] > 0
    assert (changes.drop("block 1") == 0).all()
