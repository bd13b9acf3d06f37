"""The built-in engine from inside: its reference, padding, micro-batches and stop sequences."""

import pytest
import torch
from ppo_run import MODEL, PROMPTS, count_the, small_config, small_run
from transformers import AutoModelForCausalLM

from helpers.ppo import loss
from helpers.ppo.blocks import freeze_below
from helpers.ppo.policy import Policy
from helpers.ppo.rollout import concatenate
from helpers.ppo.trainer import PPOTrainer


def policy_of(unfrozen: int) -> Policy:
    return Policy(AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32), unfrozen)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The trainer of a finished run."""
    return small_run(tmp_path_factory.mktemp("run"))


def some_tokens(policy) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(5, 25).reshape(2, 10) % policy.base_model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return ids, mask


@pytest.mark.parametrize("unfrozen", [-1, 0, 1, 2])
def test_kl_is_0_before_the_first_update(tmp_path, unfrozen):
    config = small_config(tmp_path, model=dict(num_layers_unfrozen=unfrozen))
    trainer = PPOTrainer(config, count_the, PROMPTS, PROMPTS)
    rollouts = trainer.collect()
    assert rollouts.kl().abs().max() == 0
    assert trainer.history.rounds[0]["kl"] == 0


@pytest.mark.parametrize("unfrozen", [-1, 0, 2])
def test_the_reference_is_the_model_as_transformers_runs_it(unfrozen):
    plain = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    policy = policy_of(unfrozen)
    ids, _ = some_tokens(policy)
    with torch.no_grad():
        expected = plain(ids).logits[:, 3:9]
    assert torch.allclose(policy.reference_logits(ids, torch.ones_like(ids), 6), expected, atol=1e-5)


def test_left_padding_does_not_change_what_the_policy_says():
    policy = policy_of(2)
    ids = torch.arange(5, 15)[None]
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], 1)
    mask = (torch.arange(14) >= 4).long()[None]
    with torch.no_grad():
        plain, _ = policy(ids, torch.ones_like(ids), 5)
        shifted, _ = policy(padded, mask, 5)
    assert torch.allclose(plain, shifted, atol=1e-4)


def test_the_reference_shares_the_frozen_weights():
    policy = policy_of(1)
    own = {p.data_ptr() for p in policy.reference.parameters()} - {
        p.data_ptr() for p in policy.base_model.parameters()
    }
    blocks, norm = policy.base_model.transformer.h, policy.base_model.transformer.ln_f
    assert len(own) == len(list(blocks[-1].parameters())) + len(list(norm.parameters()))


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_layer_learns_where_it_has_weights_of_its_own(tied):
    """The weights decide, since not every configuration has the word for it."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, tie_word_embeddings=tied)
    del model.config.tie_word_embeddings
    freeze_below(model, 1)
    assert model.lm_head.weight.requires_grad is not tied
    assert not model.transformer.wte.weight.requires_grad


def test_micro_batches_give_the_same_steps(finished, tmp_path):
    sliced = small_run(tmp_path, changes={"train": {"minibatch_size": 2}})
    for whole, parts in zip(finished.history.updates, sliced.history.updates, strict=True):
        assert parts["loss"] == pytest.approx(whole["loss"], abs=1e-4)


def test_what_follows_a_stop_sequence_is_cut_off(finished):
    ids = finished.tokenizer([" a film in the end"])["input_ids"]
    finished.sampler.stop_sequences = [" the"]
    response, mask, texts = finished.sampler.finish([[]], torch.tensor(ids), finished.sampler.gen_kwargs)
    finished.sampler.stop_sequences = []
    assert texts == [" a film in"]
    kept = response[0][mask[0].bool()].tolist()
    assert kept[-1] == finished.tokenizer.eos_token_id
    assert finished.tokenizer.decode(kept[:-1]) == " a film in"


def test_rollouts_of_different_widths_join(finished):
    short, _ = finished.sampler.rollouts(finished.prompts, [4])
    long, _ = finished.sampler.rollouts(finished.prompts, [2])
    both = concatenate([short, long])
    assert len(both) == 2
    assert torch.equal(both.query_mask.sum(1), torch.stack([short.query_mask.sum(), long.query_mask.sum()]))
    ids = torch.cat([both.query, both.response], 1)
    attention = torch.cat([both.query_mask, both.mask.long()], 1)
    with torch.no_grad():
        logits, _ = finished.policy(ids, attention, both.response.shape[1])
    logprobs = loss.token_logprobs(loss.log_distribution(logits), both.response)
    assert torch.allclose(logprobs * both.mask, both.logprobs, atol=1e-4)
