"""What a run must do whichever engine trains: three invariants, trlX's interface, saving, and the same result twice."""

import copy

import pytest
import torch
from ppo_run import MODEL, PROMPTS, count_the, engine_train, small_config, small_run, without_times
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from helpers.ppo.config import OptimizerConfig, SchedulerConfig

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
    for rows in (trainer.history.rounds, trainer.history.evals):
        assert rows[0]["kl"] == pytest.approx(0, abs=1e-4)  # the rounding of some forty float32 tokens


def test_evaluation_at_another_temperature_reports_its_own_kl(tmp_path):
    """The KL of the distributions that it samples from, computed here text by text, by transformers alone."""
    kinds = dict(
        gen_kwargs=dict(temperature=1.5), gen_experience_kwargs=dict(max_new_tokens=8, temperature=0.5)
    )
    trainer = small_run(tmp_path, prompts=PROMPTS * 4, eval_prompts=PROMPTS * 4, changes={"method": kinds})
    policy = trainer.policy
    seen = []
    plain = trainer.sampler.remember
    trainer.sampler.remember = lambda *given: seen.append(given) or plain(*given)
    reported = trainer.evaluate()["kl"]

    def logprob(model, text, start, temperature):
        with torch.no_grad():
            logits = model(text[None]).logits[0, start - 1 : -1]
        chosen = (logits / temperature).log_softmax(-1).gather(-1, text[start:, None])
        return chosen.sum().item()

    found = {1.5: [], 0.5: []}
    for query, query_mask, response, mask, *_ in seen:
        for row in range(len(query)):
            prompt = query[row][query_mask[row].bool()]
            text = torch.cat([prompt, response[row][mask[row].bool()]])
            for temperature, kls in found.items():
                models = (policy.base_model, policy.reference)
                ours, reference = (logprob(model, text, len(prompt), temperature) for model in models)
                kls.append(ours - reference)
    kl, no_kl = (sum(kls) / len(kls) for kls in found.values())
    assert len(found[1.5]) == 20 and kl > 0.1
    assert reported == pytest.approx(kl, abs=1e-4)
    assert abs(no_kl - kl) > 0.2 * kl  # what the rollouts' temperature would have given


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
    """Each "the" is paid for where it stands; a list that is longer than the response counts in full."""

    def reward_fn(samples, prompts, tokenizer, **kwargs):
        return [[float(word.lower() == "the") for word in sample.split()] + [0.0] * 9 for sample in samples]

    longer = {"train": {"total_steps": 24, "eval_interval": 24}, "method": {"init_kl_coef": 0.0}}
    trainer = small_run(tmp_path, reward_fn=reward_fn, changes=longer)
    rewards = [row["reward"] for row in trainer.history.rounds]
    assert rewards[0] <= 8 and sum(rewards[-2:]) / 2 > sum(rewards[:2]) / 2 + 0.2


def test_adaptive_kl_lowers_beta_below_the_target_and_raises_it_above(tmp_path):
    changes = {"method": {"target": 0.5, "horizon": 100}, "train": {"total_steps": 24}}
    rounds = small_run(tmp_path, changes=changes).history.rounds
    betas = [row["kl_coef"] for row in rounds]
    assert rounds[0]["kl"] == pytest.approx(0, abs=1e-4) and betas[1] < betas[0]
    far = [
        i for i, row in enumerate(rounds[:-1]) if row["kl"] > 1.5
    ]  # trlX steers by another estimate of the KL
    assert far and all(betas[i + 1] > betas[i] for i in far)


def test_stopping_keeps_the_model_and_the_history(tmp_path):
    class StopAtStep3:
        def start(self, trainer): ...

        def progress(self, trainer):
            if trainer.step == 3 and len(trainer.history.updates) == 3:
                trainer.stop()

        def end(self, trainer):
            self.ended = True

    listener = StopAtStep3()
    trainer = small_run(tmp_path, listeners=[listener])
    assert listener.ended and trainer.step == 3 and len(trainer.history.updates) == 3
    assert [row["step"] for row in trainer.history.evals] == [0, 3]
    AutoModelForCausalLM.from_pretrained(trainer.save_pretrained(tmp_path / "stopped"))


def test_no_half_checkpoint_is_left(tmp_path):
    """Checkpoints that fall due inside a round wait for its end."""
    small_run(tmp_path, changes={"train": {"checkpoint_interval": 3}})
    folders = sorted(tmp_path.glob("checkpoint_*"))
    assert [folder.name for folder in folders] == ["checkpoint_4", "checkpoint_8"]
    assert all((folder / "state.json").exists() for folder in folders)


def test_a_short_last_batch_is_averaged_over_what_it_has(tmp_path):
    changes = {"method": {"num_rollouts": 10}, "train": {"minibatch_size": 2, "total_steps": 4}}
    history = small_run(tmp_path, changes=changes).history
    assert [row["ratio"] for row in history.updates[:2]] == pytest.approx([1, 1], abs=0.2)
    assert history.updates[1]["entropy"] > 0.5 * history.updates[0]["entropy"]


def test_the_learning_rate_is_that_of_the_step(tmp_path):
    warm_up = {"name": "linear", "kwargs": {"start_factor": 0.1, "total_iters": 4}}
    config = small_config(tmp_path)
    config.scheduler = SchedulerConfig(**warm_up)
    history = engine_train()(reward_fn=count_the, prompts=PROMPTS, config=config).history
    assert [row["lr"] for row in history.updates[:3]] == pytest.approx([1e-4, 3.25e-4, 5.5e-4])


def test_the_gradient_s_length_is_reported_and_limited_where_asked(tmp_path):
    """One step of plain gradient descent is the learning rate times the gradient: the weights show its length."""

    class Before:
        def start(self, trainer):
            self.weights = {name: p.detach().clone() for name, p in trainer.policy.trainable().items()}

        def progress(self, trainer): ...

        def end(self, trainer): ...

    def one_step(limit) -> tuple[float, float]:
        config = small_config(tmp_path, train=dict(total_steps=1, max_grad_norm=limit))
        config.optimizer, before = OptimizerConfig("sgd", dict(lr=1e-2)), Before()
        trainer = engine_train()(
            reward_fn=count_the, prompts=PROMPTS, eval_prompts=PROMPTS, config=config, listeners=[before]
        )
        moved = [p.detach() - before.weights[name] for name, p in trainer.policy.trainable().items()]
        return trainer.history.updates[0]["grad_norm"], torch.cat([x.flatten() for x in moved]).norm() / 1e-2

    length, step = one_step(None)
    assert length > 0.1 and step == pytest.approx(length, rel=1e-3)
    for limit, expected in [(length / 3, length / 3), (length * 3, length)]:
        reported, step = one_step(limit)
        assert reported == pytest.approx(length, rel=1e-5) and step == pytest.approx(expected, rel=1e-3)


def test_explained_variance_is_in_each_round(tmp_path):
    """The first value head knows nothing; one that has learned from many rounds knows a little."""
    once = {"prompts": ["The film"], "eval_prompts": ["The film"]}
    changes = {"train": {"total_steps": 40}, "optimizer": {"kwargs": {"lr": 3e-3}}}
    changes["method"] = {"init_kl_coef": 0.0, "num_rollouts": 32}
    changes["model"] = {"num_layers_unfrozen": 0}  # the texts stay what they are
    rounds = small_run(tmp_path, changes=changes, **once).history.rounds
    explained = [row["explained_variance"] for row in rounds]
    assert len(explained) == 5 and max(explained) <= 1
    assert explained[-1] > explained[0] + 0.1


def test_prompts_of_several_lengths_and_a_chunk_that_does_not_divide_the_round(tmp_path):
    changes = {"method": {"num_rollouts": 12, "chunk_size": 5}, "train": {"total_steps": 4}}
    trainer = small_run(tmp_path, changes=changes)
    assert len(trainer.history.updates) == 4
    assert trainer.history.rounds[0]["kl"] == pytest.approx(0, abs=1e-4)


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
        MODEL,
        reward_fn=lambda samples, **kwargs: [sample.count("film") for sample in samples],
        prompts=["The film"] * 4,
        config=config,
    )
    assert trainer.step == 1 and len(trainer.eval_prompts) == 4


@pytest.mark.parametrize(
    "reward, message",
    [
        (lambda samples, **_: [0.5] * len(samples), "has the same reward, 0.5"),
        (lambda samples, **_: [-float(len(sample)) for sample in samples], "100% of this round's rewards"),
    ],
)
def test_rewards_that_tell_nothing_apart_are_warned_of(tmp_path, reward, message):
    config = small_config(tmp_path, train=dict(total_steps=1))
    with pytest.warns(UserWarning, match=message):
        engine_train()(reward_fn=reward, prompts=PROMPTS, eval_prompts=PROMPTS, config=config)
