"""The fast path gives what the plain one gives: log-probabilities, losses, gradients, whole runs."""

import pytest
import torch
from accelerate.utils import set_seed
from ppo_run import MODEL, PROMPTS, count_the, small_config, small_run, without_times
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from helpers.errors import CourseError
from helpers.ppo import loss, sampling
from helpers.ppo.fast import generate, head
from helpers.ppo.fast.rollout import FastRollouts
from helpers.ppo.fast.trainer import FastPPOTrainer
from helpers.ppo.fast.trunk import first_unfrozen
from helpers.ppo.lora import add_lora
from helpers.ppo.parallel.trainer import ParallelPPOTrainer, store_frozen_in
from helpers.ppo.policy import hidden_states
from helpers.ppo.rollout import Rollouts
from helpers.ppo.trainer import PPOTrainer

EOS = 0  # of the tiny models


def close(a, b) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    """The same few steps, taken by the plain trainer and by the fast one."""
    return [
        small_run(tmp_path_factory.mktemp(kind.__name__), trainer_class=kind)
        for kind in (PPOTrainer, FastPPOTrainer)
    ]


@pytest.fixture
def learned(tmp_path):
    """A fast trainer whose policy has moved away from its reference, and rollouts of it."""
    trainer = small_run(tmp_path, changes={"method": {"gen_kwargs": {"temperature": 0.8}}})
    return trainer, trainer.collect()


def assert_same_histories(ours, theirs) -> None:
    for kind in ("rounds", "updates", "evals"):
        assert len(ours[kind]) == len(theirs[kind])
        for mine, other in zip(ours[kind], theirs[kind], strict=True):
            assert mine == pytest.approx(other, abs=1e-4), kind


def test_a_whole_run_is_the_same(trainers):
    plain, fast = (without_times(trainer.history) for trainer in trainers)
    assert_same_histories(fast, plain)
    assert fast["rounds"][-1]["kl"] > 0.01  # they have learned something


@pytest.mark.parametrize("unfrozen", [1, 4, 0, -1])
def test_a_whole_run_is_the_same_however_much_learns(tmp_path, unfrozen):
    """By steps in proportion to the gradients, which show whether one was shortened, as Adam's usual ones do not."""
    train = {"total_steps": 4, "minibatch_size": 4, "max_grad_norm": 0.5}
    changes = {
        "model": {"num_layers_unfrozen": unfrozen},
        "train": train,
        "optimizer": {"kwargs": dict(lr=0.01, eps=0.1)},
    }
    plain, fast = (
        small_run(tmp_path / kind.__name__, trainer_class=kind, changes=changes)
        for kind in (PPOTrainer, FastPPOTrainer)
    )
    assert_same_histories(without_times(fast.history), without_times(plain.history))


def test_rollouts_remember_what_the_plain_path_computes_again(learned):
    trainer, rollouts = learned
    assert isinstance(rollouts, FastRollouts)
    again = trainer.sampler.forward_pass(
        rollouts.query, rollouts.query_mask, rollouts.response, rollouts.mask
    )
    remembered = (rollouts.logprobs, rollouts.ref_logprobs, rollouts.values)
    for ours, theirs in zip(remembered, again, strict=True):
        assert close(ours, theirs)
    assert not close(rollouts.logprobs, rollouts.ref_logprobs)


def test_what_is_remembered_of_the_frozen_blocks_is_what_they_give(learned):
    trainer, rollouts = learned
    trunk = trainer.sampler.run_trunk(rollouts.query, rollouts.query_mask, rollouts.response, rollouts.mask)
    kept = torch.cat([rollouts.query_trunk, rollouts.response_trunk], dim=1)[:, :-1]
    seen = torch.cat([rollouts.query_mask, rollouts.mask], dim=1)[:, :-1].bool()
    assert close(kept[seen], trunk[seen])


def test_gradients_are_the_same(learned):
    trainer, rollouts = learned
    advantages, returns = torch.randn(2, *rollouts.mask.shape) * rollouts.mask
    found = []
    for look in (PPOTrainer.forward_pass, FastPPOTrainer.forward_pass):
        trainer.forward_pass = lambda batch, look=look: look(trainer, batch)
        sums = trainer.gradients(rollouts, advantages, returns, rollouts.mask.sum(), rows=4)
        found.append((sums, {name: p.grad.clone() for name, p in trainer.policy.trainable().items()}))
    (plain_sums, plain), (fast_sums, fast) = found
    assert fast_sums == pytest.approx(plain_sums, abs=2e-3)  # sums over some 128 tokens
    assert plain.keys() == fast.keys() and any("v_head" in name for name in plain)
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0
        assert close(fast[name], gradient), name


def test_a_whole_run_is_the_same_where_evaluation_samples_at_another_temperature(tmp_path):
    changes = {
        "method": {"gen_experience_kwargs": dict(max_new_tokens=8, temperature=0.7)},
        "train": {"total_steps": 4},
    }
    plain, fast = (
        small_run(tmp_path / kind.__name__, trainer_class=kind, changes=changes)
        for kind in (PPOTrainer, FastPPOTrainer)
    )
    assert_same_histories(without_times(fast.history), without_times(plain.history))


def test_a_response_cut_at_a_stop_sequence_is_looked_at_again(tmp_path):
    """Its tokens are not those that were sampled."""
    trainer = small_run(tmp_path, stop_sequences=[" the", " a", " in"], changes={"train": {"total_steps": 4}})
    rollouts = trainer.collect()
    lengths = rollouts.mask.sum(1)
    assert lengths.min() < lengths.max()
    again = trainer.sampler.forward_pass(
        rollouts.query, rollouts.query_mask, rollouts.response, rollouts.mask
    )
    for ours, theirs in zip((rollouts.logprobs, rollouts.ref_logprobs, rollouts.values), again, strict=True):
        assert close(ours, theirs)


def test_a_setting_that_only_transformers_knows_is_sampled_by_it(tmp_path):
    changes = {"method": {"gen_kwargs": {"repetition_penalty": 1.3}}, "train": {"total_steps": 1}}
    trainer = small_run(tmp_path, changes=changes)
    rollouts = trainer.collect()
    again = trainer.sampler.forward_pass(
        rollouts.query, rollouts.query_mask, rollouts.response, rollouts.mask
    )
    assert close(rollouts.logprobs, again[0])


def test_transformers_cuts_no_more_than_it_is_told(tmp_path):
    """Its own default is to draw from the 50 likeliest tokens; a table of settings without top_k means all of them."""
    given = {"max_new_tokens": 8, "use_cache": True, "temperature": 20.0}
    changes = {"train": {"total_steps": 1}, "method": {"gen_experience_kwargs": given}}
    trainer = small_run(tmp_path, changes=changes)
    rollouts, _ = trainer.sampler.rollouts(trainer.prompts, [0] * 16)
    with torch.no_grad():
        likeliest = trainer.model(rollouts.query[:1]).logits[0, -1].topk(50).indices
    assert not torch.isin(rollouts.response[:, 0], likeliest).all()


def test_a_llama_is_trained_the_fast_way_too(tmp_path, trainers):
    """Rotary positions, other names for the blocks, an output layer tied to the embeddings."""
    torch.manual_seed(0)
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
    config = LlamaConfig(vocab_size=2000, tie_word_embeddings=True, **shape)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    trainers[0].tokenizer.save_pretrained(tmp_path / "llama")
    changes = {"model": {"model_path": str(tmp_path / "llama")}, "train": {"total_steps": 4}}
    trainer = small_run(tmp_path / "run", changes=changes)
    rollouts = trainer.collect()
    assert isinstance(rollouts, FastRollouts)
    again = trainer.sampler.forward_pass(
        rollouts.query, rollouts.query_mask, rollouts.response, rollouts.mask
    )
    assert close(rollouts.logprobs, again[0]) and close(rollouts.ref_logprobs, again[1])


def test_an_output_layer_that_learns_is_left_to_the_plain_way(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(MODEL, tie_word_embeddings=False)
    assert model.lm_head.weight.data_ptr() != model.transformer.wte.weight.data_ptr()
    model.save_pretrained(tmp_path / "untied")
    trainer = FastPPOTrainer(
        small_config(tmp_path, model=dict(model_path=str(tmp_path / "untied"))), count_the, PROMPTS, PROMPTS
    )
    assert type(trainer.collect()) is Rollouts


@pytest.mark.parametrize("more", ["LoRA", "a bias"])
def test_an_output_layer_that_is_more_than_its_weights_is_left_to_the_plain_way(tmp_path, more):
    model = tiny_model().requires_grad_(False)
    model.transformer.h[1].requires_grad_(True)
    assert first_unfrozen(model) == 1
    if more == "LoRA":
        add_lora(model, dict(peft_type="LORA", r=2, target_modules=["lm_head", "c_attn"]))
    else:
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size), requires_grad=False)
    assert first_unfrozen(model) is None


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("at_once", [5_000_000, 4000])
def test_log_probabilities_in_parts(monkeypatch, temperature, at_once):
    """Against log_softmax over the whole vocabulary, values and gradients; in one part, and in several."""
    monkeypatch.setattr(head, "AT_ONCE", at_once)
    torch.manual_seed(0)
    weight, tokens = torch.randn(1500, 16), torch.randint(0, 1500, (7,))
    whole = torch.randn(7, 16, requires_grad=True)
    parts = whole.detach().clone().requires_grad_()
    distribution = loss.log_distribution(whole @ weight.T, temperature)
    expected = loss.token_logprobs(distribution, tokens)
    found, entropy = head.learnable(parts, weight, tokens, temperature)
    assert close(found, expected)
    assert torch.allclose(
        entropy, loss.entropy(distribution), atol=1e-4, rtol=0
    )  # a difference of larger numbers
    assert close(head.token_logprobs(parts, weight, tokens, temperature), expected)
    for logprobs in (expected, found):
        (logprobs * torch.linspace(-1, 1, 7)).sum().backward()
    assert close(parts.grad, whole.grad)


@pytest.mark.filterwarnings("error")
def test_draws_are_in_proportion():
    torch.manual_seed(0)
    weights = torch.tensor([0.0, 1.0, 5.0, 0.0, 2.0, 0.0]).expand(40_000, 6)
    counts = sampling.draw(weights, torch.rand(40_000)).bincount(minlength=6) / 40_000
    assert torch.allclose(counts, weights[0] / 8, atol=0.01)
    assert not counts[[0, 3, 5]].any()


def test_the_ends_of_the_unit_interval_draw_what_has_weight():
    weights = torch.tensor([[0.0, 1.0, 2.0, 0.0], [0.0, 0.1, 0.3, 0.0]]) / 3
    for uniform, expected in [(0.0, 1), (1 - 2**-24, 2), (1.0, 2)]:
        assert sampling.draw(weights, torch.full((2,), uniform)).tolist() == [expected, expected]


@pytest.mark.parametrize("weight", [0.0, float("nan")])
def test_weights_from_which_nothing_can_be_drawn_give_no_token_outside_the_vocabulary(weight):
    """As a run that has diverged has them: the verdict then says so, and no index error comes before it."""
    index = sampling.draw(torch.full((3, 5), weight), torch.tensor([0.0, 0.5, 1 - 2**-24]))
    assert ((index >= 0) & (index < 5)).all()


@pytest.mark.parametrize("sample", [True, False])
def test_an_end_that_is_certain_and_forbidden_leaves_the_others(sample):
    """In float32 no other token has a probability above 0, and yet one of them is the likeliest."""
    logits = torch.tensor([[300.0, -50, 0, -50]])
    probabilities = logits.softmax(-1)
    assert probabilities[0].tolist() == [1, 0, 0, 0]
    given = settings(min_new_tokens=2, do_sample=sample)
    for uniform in (0.1, 0.5, 1 - 2**-24):
        assert sampling.choose(probabilities, logits, given, torch.tensor([uniform]), t=0).item() == 2


def settings(**changes) -> dict:
    return dict(max_new_tokens=6, do_sample=True, eos_token_id=EOS, pad_token_id=EOS) | changes


def tiny_model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def some_prompts() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(5, 29).reshape(4, 6)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return ids, mask


def test_greedy_continuations_are_those_of_transformers():
    model = tiny_model()
    ids, mask = some_prompts()
    greedy = settings(do_sample=False, max_new_tokens=20)
    ours = generate.sample(model, ids, mask, greedy, torch.zeros(4, 20)).tokens
    theirs = model.generate(input_ids=ids, attention_mask=mask, **greedy)[:, 6:]
    assert torch.equal(ours, theirs)


def test_log_probabilities_and_states_from_sampling():
    model = tiny_model()
    ids, mask = some_prompts()
    sampled = generate.sample(model, ids, mask, settings(temperature=0.7), torch.rand(4, 6))
    tokens = torch.cat([ids, sampled.tokens], dim=1)
    seen = torch.cat([mask, torch.ones_like(sampled.tokens)], dim=1)
    with torch.no_grad():
        states = hidden_states(model, tokens, seen)[:, 5:-1]
    distribution = loss.log_distribution(model.lm_head(states), 0.7)
    live = (sampled.tokens == EOS).cumsum(1) - (sampled.tokens == EOS).long() == 0
    assert close(sampled.hidden[live], states[live])
    assert close(sampled.logprobs[live], loss.token_logprobs(distribution, sampled.tokens)[live])


@pytest.mark.parametrize("cut", [dict(top_k=1), dict(top_p=1e-6)])
def test_a_distribution_cut_to_its_likeliest_token_is_greedy(cut):
    model = tiny_model()
    ids, mask = some_prompts()
    greedy = generate.sample(model, ids, mask, settings(do_sample=False), torch.zeros(4, 6)).tokens
    assert torch.equal(generate.sample(model, ids, mask, settings(**cut), torch.rand(4, 6)).tokens, greedy)


def test_no_end_before_min_new_tokens_and_nothing_after_the_end():
    probabilities = torch.zeros(1, 5)
    probabilities[0, EOS], probabilities[0, 3] = 0.99, 0.01
    arguments = (probabilities, probabilities.log(), settings(min_new_tokens=2), torch.tensor([0.5]))
    early, late = (sampling.choose(*arguments, t=t) for t in (1, 2))
    assert (early.item(), late.item()) == (3, EOS)
    model = tiny_model()
    model.get_output_embeddings().weight.data[EOS] = 100 * model.transformer.wte.weight.data.mean(0)
    ids, mask = some_prompts()
    tokens = generate.sample(
        model, ids, mask, settings(max_new_tokens=40, pad_token_id=7), torch.rand(4, 40)
    ).tokens
    for row in tokens.tolist():
        if EOS in row:
            assert set(row[row.index(EOS) + 1 :]) <= {7}


def test_bfloat16_keeps_the_invariants(tmp_path, monkeypatch):
    """KL exactly 0 and the ratio exactly 1 before the first update; what is saved is float32, and is what was trained."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    for kind in (ParallelPPOTrainer, FastPPOTrainer):
        trainer = small_run(tmp_path / kind.__name__, trainer_class=kind)
        assert trainer.accelerator.mixed_precision == "bf16"
        history = trainer.history
        assert history.rounds[0]["kl"] == 0 and history.updates[0]["ratio"] == 1
        assert history.rounds[1]["kl"] > 0.01
        saved = AutoModelForCausalLM.from_pretrained(
            trainer.save_pretrained(tmp_path / "saved"), dtype="auto"
        )
        assert saved.dtype == torch.float32
        ids, _ = some_prompts()
        with torch.no_grad():
            assert torch.equal(saved(ids).logits, trainer.model(ids).logits)


@pytest.fixture(scope="module")
def low_logits(tmp_path_factory):
    """The embedded model with all logits 100 lower, which changes no probability: about where GPT-2 has its own."""
    folder = tmp_path_factory.mktemp("low")
    model = tiny_model()
    with torch.no_grad():
        model.transformer.ln_f.weight[0], model.transformer.ln_f.bias[0] = 0, 100
        model.lm_head.weight[:, 0] = -1
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", [ParallelPPOTrainer, FastPPOTrainer])
def test_logits_are_float32_in_half_precision(tmp_path, monkeypatch, low_logits, kind):
    """At -100 bfloat16 has steps of 0.5. The states may be rounded; what is made of them is not."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    prompts = [*PROMPTS, "The film was" + " very" * 9 + " good"]  # padding of several widths
    config = small_config(
        tmp_path, model=dict(model_path=str(low_logits)), train=dict(minibatch_size=4, total_steps=1)
    )
    set_seed(0)
    trainer = kind(config, count_the, prompts, prompts)
    weight = trainer.model.get_output_embeddings().weight.double()

    def exactly(states, tokens):
        logits = states.double() @ weight.T
        assert logits.mean() < -90
        return logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)

    rollouts = trainer.collect()
    sampled, mask = getattr(trainer.sampler, "sampled", None), rollouts.mask.bool()
    if sampled:
        ended = (sampled.tokens == trainer.tokenizer.eos_token_id).cumsum(1) > 0
        errors = sampled.logprobs - exactly(sampled.hidden, sampled.tokens)
        assert errors[~ended].abs().max() < 1e-4
    seen = []
    hook = trainer.policy.v_head.register_forward_pre_hook(lambda head, given: seen.append(given[0]))
    with torch.no_grad():
        found, _, _ = trainer.forward_pass(rollouts)
    hook.remove()
    states = seen[0] if seen[0].dim() == 2 else seen[0][mask]
    assert (found[mask] - exactly(states, rollouts.response[mask])).abs().max() < 1e-4
    trainer.update(rollouts)
    assert trainer.history.updates[0]["ratio"] == pytest.approx(1, abs=1e-3)


def test_bfloat16_is_near_float32(learned):
    """The stated error: log-probabilities of a token within 0.1 nats, a sample's KL within 0.2."""
    trainer, rollouts = learned
    arguments = (rollouts.query, rollouts.query_mask, rollouts.response, rollouts.mask)
    store_frozen_in(trainer.policy, torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        trunk = trainer.sampler.run_trunk(*arguments)
        looked = [
            trainer.sampler.top_forward_pass(top, trunk, *arguments[1:], 0.8)[0]
            for top in (trainer.sampler.top, trainer.sampler.reference_top)
        ]
    assert trunk.dtype == torch.bfloat16 and looked[0].dtype == torch.float32
    errors = [(a - b).abs().max() for a, b in zip(looked, (rollouts.logprobs, rollouts.ref_logprobs))]
    kl_error = ((looked[0] - looked[1]).sum(1) - rollouts.kl().sum(1)).abs().max()
    print(f"bfloat16: token log-probabilities within {max(errors):.3f}, KL of a sample within {kl_error:.3f}")
    assert 0 < max(errors) < 0.1 and kl_error < 0.2


def test_float16_on_a_cpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(CourseError, match="fp16 needs a GPU"):
        ParallelPPOTrainer(small_config(tmp_path), count_the, PROMPTS, PROMPTS)


def test_log_probabilities_kept_from_sampling_are_exact_at_a_large_vocabulary():
    """torch's float32 softmax over so many words does not add up to 1, which would be KL from the first round on."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=64)).eval()
    model.get_output_embeddings().weight.data *= 20  # as sure of its words as a trained model
    query = torch.randint(model.config.vocab_size, (64, 3))
    settings = dict(max_new_tokens=8, eos_token_id=50_256, pad_token_id=50_256)
    sampled = generate.sample(model, query, torch.ones_like(query), settings, torch.rand(64, 8))
    logits = sampled.hidden.double() @ model.get_output_embeddings().weight.double().T
    exact = logits.log_softmax(-1).gather(-1, sampled.tokens[..., None]).squeeze(-1)
    assert exact.exp().max() > 0.1
    assert (sampled.logprobs - exact).mean().abs() < 2e-7


def test_logits_in_parts_are_the_layers():
    torch.manual_seed(0)
    hidden = torch.randn(5, 16)
    layer = torch.nn.Linear(16, 2 * head.ROWS + 7, bias=False)
    assert torch.allclose(head.all_logits(hidden, layer.weight), layer(hidden), atol=1e-6)
