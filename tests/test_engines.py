"""What a run must do whichever engine trains: three invariants, trlX's interface, saving, and the same result twice."""

import copy

import pytest
import torch
from ppo_run import MODEL, PROMPTS, engine_train, small_run, without_times
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(scope="module")
def finished(engine, tmp_path_factory):
    """A finished run, its reference logits from before it, and the folder it saved to."""
    folder = tmp_path_factory.mktemp("run")

    class Before:
        def start(self, trainer):
            self.logits = reference_logits(trainer.policy)
            self.weights = copy.deepcopy(trainer.policy.base_model.state_dict())

        def progress(self, trainer): ...

        def end(self, trainer): ...

    before = Before()
    trainer = small_run(folder, listeners=[before])
    trainer.save_pretrained(folder / "tuned")
    return trainer, before, folder


def some_tokens(policy) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(5, 25).reshape(2, 10) % policy.base_model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return ids, mask


def reference_logits(policy) -> torch.Tensor:
    return policy.reference_logits(*some_tokens(policy), 6)


@pytest.mark.parametrize("unfrozen", [-1, 0, 1, 2])
def test_kl_is_0_before_the_first_update(tmp_path, unfrozen):
    trainer = small_run(
        tmp_path, changes={"model": {"num_layers_unfrozen": unfrozen}, "train": {"total_steps": 1}}
    )
    assert trainer.history.rounds[0]["kl"] == trainer.history.evals[0]["kl"] == 0


def test_a_continuation_ends_at_a_stop_sequence(tmp_path):
    seen = []

    def reward_fn(samples, outputs, **kwargs):
        seen.extend(outputs)
        return [1.0] * len(samples)

    small_run(tmp_path, reward_fn=reward_fn, stop_sequences=[" the"], changes={"train": {"total_steps": 1}})
    assert seen and not any(" the" in output for output in seen)


def test_the_ratio_is_1_on_the_first_minibatch(finished):
    trainer, _, _ = finished
    first = trainer.history.updates[0]
    assert first["ratio"] == pytest.approx(1, abs=1e-5)
    assert first["clipfrac"] == 0
    assert first["policy_loss"] == pytest.approx(0, abs=1e-4)  # whitened advantages have mean 0


def test_the_reference_never_changes(finished):
    trainer, before, _ = finished
    assert torch.equal(reference_logits(trainer.policy), before.logits)
    assert trainer.history.rounds[1]["kl"] != 0 and trainer.history.evals[-1]["kl"] != 0


def test_only_the_top_blocks_and_the_final_norm_learn(finished):
    trainer, before, _ = finished
    depth = trainer.model.config.num_hidden_layers
    changed = {
        name for name, p in trainer.model.state_dict().items() if not torch.equal(p, before.weights[name])
    }
    assert changed
    for name in changed:
        assert f".h.{depth - 1}." in name or f".h.{depth - 2}." in name or ".ln_f." in name, name


def test_the_same_seed_gives_the_same_history(finished, tmp_path):
    trainer, _, _ = finished
    again = small_run(tmp_path)
    assert without_times(again.history) == without_times(trainer.history)
    other = small_run(tmp_path / "other", changes={"train": {"seed": 7}})
    assert without_times(other.history) != without_times(trainer.history)


def test_evaluating_does_not_change_the_run(finished, tmp_path):
    trainer, _, _ = finished
    often = small_run(tmp_path, changes={"train": {"eval_interval": 1}})
    assert often.history.updates == trainer.history.updates
    assert trainer.evaluate() == trainer.evaluate()


def test_saved_and_loaded_the_logits_are_identical(finished):
    trainer, _, folder = finished
    loaded = AutoModelForCausalLM.from_pretrained(folder / "tuned")
    ids, mask = some_tokens(trainer.policy)
    with torch.no_grad():
        assert torch.equal(
            loaded(ids, attention_mask=mask).logits, trainer.model(ids, attention_mask=mask).logits
        )
    assert not (folder / "tuned" / "pytorch_model.bin").exists()
    assert len(AutoTokenizer.from_pretrained(folder / "tuned")) == len(AutoTokenizer.from_pretrained(MODEL))
    text = pipeline("text-generation", str(folder / "tuned"))("The plot", max_new_tokens=4)[0][
        "generated_text"
    ]
    assert text.startswith("The plot")


def test_generate_takes_what_a_tokenizer_gives(finished):
    trainer, _, _ = finished
    batch = trainer.tokenizer(["The plot", "I watched this film"], padding=True, return_tensors="pt")
    tokens = trainer.generate(**batch, do_sample=False)
    assert tokens.shape[0] == 2 and tokens.shape[1] <= batch["input_ids"].shape[1] + 8


def test_what_the_reward_function_gets(tmp_path):
    seen = []

    def reward_fn(samples, prompts, outputs, tokenizer, topic):
        assert [p + o for p, o in zip(prompts, outputs, strict=True)] == samples
        assert tokenizer.eos_token not in "".join(samples)
        seen.extend(zip(prompts, topic, strict=True))
        return [0.0] * len(samples)

    prompts = [{"prompt": text, "topic": text.upper()} for text in PROMPTS]
    small_run(
        tmp_path,
        reward_fn=reward_fn,
        prompts=prompts,
        eval_prompts=prompts,
        changes={"train": {"total_steps": 1}},
    )
    assert seen and all(topic == prompt.upper() for prompt, topic in seen)


def test_metrics_are_reported_with_each_evaluation(tmp_path):
    trainer = small_run(
        tmp_path,
        metric_fn=lambda samples, **kwargs: {"letters": [len(s) for s in samples]},
        changes={"train": {"total_steps": 1}},
    )
    assert all(row["metrics/letters"] > 5 for row in trainer.history.evals)


def test_rewards_per_token_are_learned_from(tmp_path):
    def reward_fn(samples, outputs, tokenizer, **kwargs):
        return [[0.5] * max(1, len(tokenizer(output)["input_ids"])) for output in outputs]

    trainer = small_run(tmp_path, reward_fn=reward_fn, changes={"train": {"total_steps": 2}})
    assert trainer.history.rounds[0]["reward"] > 0.5


def test_adaptive_kl_raises_beta_above_the_target(tmp_path):
    trainer = small_run(
        tmp_path, changes={"method": {"target": 1e-6, "horizon": 10}, "train": {"total_steps": 8}}
    )
    betas = [row["kl_coef"] for row in trainer.history.rounds]
    assert betas[0] == 0.05 and len(set(betas)) > 1


def test_a_model_path_alone_is_enough(tmp_path, monkeypatch):
    """trlX's shortest example: a model and a reward function, everything else by default."""
    monkeypatch.chdir(tmp_path)
    from helpers.engine import default_ppo_config

    config = default_ppo_config().evolve(
        tokenizer=dict(tokenizer_path=MODEL),
        train=dict(total_steps=1, batch_size=4, seq_length=64),
        method=dict(num_rollouts=4, gen_kwargs=dict(max_new_tokens=4)),
    )
    trainer = engine_train()(
        MODEL, reward_fn=lambda samples, **kwargs: [sample.count("film") for sample in samples], config=config
    )
    assert trainer.step == 1 and len(trainer.eval_prompts) == 4
