"""RLOO and GRPO: their arithmetic by hand and against TRL's own trainers, and small runs of each."""

import warnings

import pandas as pd
import pytest
import torch
from common import TRLX_COMMAND
from ppo_run import MODEL, PROMPTS, count_the, small_config, small_run, without_times

from helpers import engine
from helpers.compare import token_view
from helpers.errors import CourseError
from helpers.monitor import plot_history
from helpers.ppo.config import TRLConfig, check, refuse_what_trlx_lacks
from helpers.ppo.groups import GRPO, RLOO, above_group, k3, leave_one_out
from helpers.ppo.rollout import Rollouts
from helpers.ppo.run import History
from helpers.ppo.train import train
from helpers.ppo.trainer import PPOTrainer
from helpers.real_trlx import install
from helpers.verdict import verdict

METHODS = {"rloo": RLOO, "grpo": GRPO}


def group_config(kind: str, folder, method=None, **changes) -> TRLConfig:
    """`ppo_run.small_config` with another method: 16 rollouts, in groups of four, of 8 tokens a round."""
    name = METHODS[kind].__name__ + "Config"
    return small_config(folder, method=dict(name=name) | (method or {}), **changes)


def group_run(kind: str, folder, trainer_class=None, reward_fn=count_the, **changes):
    return train(
        reward_fn=reward_fn,
        prompts=PROMPTS,
        eval_prompts=PROMPTS,
        config=group_config(kind, folder, **changes),
        trainer_class=trainer_class,
    )


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def finished(method, tmp_path_factory):
    """A run of six rounds."""
    return group_run(method, tmp_path_factory.mktemp(method), train=dict(total_steps=24))


# ------------------------------------------------------------------ By hand


def test_leave_one_out_by_hand():
    rewards = torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])
    expected = [1 - 4, 2 - 3.5, 6 - 1.5, 0 - 1.5, 0 - 1.5, 3 - 0]
    assert leave_one_out(rewards, 3).tolist() == pytest.approx(expected)


def test_above_the_group_s_mean_by_hand():
    scores = torch.tensor([1.0, 2.0, 3.0, 5.0, 5.0, 5.0])
    assert above_group(scores, 3, False).tolist() == [-1, 0, 1, 0, 0, 0]
    assert above_group(scores, 3, True).tolist() == pytest.approx([-1, 0, 1, 0, 0, 0], abs=2e-4)
    assert above_group(10 * scores, 3, True).tolist() == pytest.approx([-1, 0, 1, 0, 0, 0], abs=2e-4)


def test_k3_by_hand():
    """Where the reference finds a token twice as likely: 2 - 1 - log 2. On padding it is 0, whatever stands there."""
    logprobs, ref = torch.tensor([[0.25, 0.5, 0.1]]).log(), torch.tensor([[0.5, 0.5, 0.9]]).log()
    found = k3(logprobs, ref, torch.tensor([[1.0, 1.0, 0.0]]))
    assert found[0].tolist() == pytest.approx([1 - torch.tensor(2.0).log().item(), 0, 0])


def test_a_group_is_one_prompt(finished):
    dealt = finished.deal(8)
    assert len(dealt) == 8 and len(set(dealt[:4])) == len(set(dealt[4:])) == 1


def test_rewards_for_each_token_count_as_their_sum(method, tmp_path):
    def each_token(samples, outputs, tokenizer, **kwargs):
        return [[0.1 * (token % 7) for token in tokenizer(output)["input_ids"]] for output in outputs]

    trainer = METHODS[method](group_config(method, tmp_path), each_token, PROMPTS, PROMPTS)
    rollouts = trainer.collect()
    assert rollouts.scores.dim() == 2 and not rollouts.values.any()
    advantages, _ = trainer.credit(rollouts)
    rollouts.scores = rollouts.total_scores()
    assert advantages.abs().max() > 0.1 and torch.equal(advantages, trainer.credit(rollouts)[0])


def test_beta_is_in_rloo_s_reward_and_in_grpo_s_loss(method, tmp_path):
    trainer = METHODS[method](group_config(method, tmp_path), count_the, PROMPTS, PROMPTS)
    rollouts = trainer.collect()
    rollouts.ref_logprobs = rollouts.ref_logprobs - torch.rand_like(rollouts.mask) * rollouts.mask
    found = {}
    for trainer.kl_coef in (0.0, 1.0):
        advantages, returns = trainer.credit(rollouts)
        found[trainer.kl_coef] = advantages, trainer.losses(rollouts, 0 * advantages, returns)[0].item()
    same_advantages = torch.allclose(found[0.0][0], found[1.0][0])
    assert (same_advantages, found[0.0][1] == found[1.0][1]) == (method == "grpo", method == "rloo")


# ------------------------------------------------------------------ Against TRL

TRL_KEYS = {"rloo": {}, "grpo": dict(loss_type="bnpo", use_bias_correction_kl=False)}
BETA = 0.3


def trl_trainer(method: str, folder, reward_fn, **settings):
    """TRL's own trainer, on a policy that has moved away from its reference."""
    trl = pytest.importorskip("trl", reason="TRL is not installed here: python -m helpers install trl")
    datasets = pytest.importorskip("datasets")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = method.upper()
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    common = dict(output_dir=str(folder), report_to="none", use_cpu=True, bf16=False, beta=BETA)
    common |= dict(num_generations=4, per_device_train_batch_size=8, max_completion_length=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = getattr(trl, f"{name}Trainer")(
            model=AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32),
            reward_funcs=reward_fn,
            args=getattr(trl, f"{name}Config")(**common, **TRL_KEYS[method], **settings),
            train_dataset=datasets.Dataset.from_dict({"prompt": PROMPTS}),
            processing_class=tokenizer,
        )
    trainer.current_gradient_accumulation_steps = 1
    move(trainer.model, seed=0)
    trainer.model.eval()  # no dropout
    return trainer


@torch.no_grad()
def move(model, seed: int) -> None:
    """Change all weights a little."""
    chance = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter += 0.02 * torch.randn(parameter.shape, generator=chance)


def both_sides(method: str, folder, **settings):
    """TRL's trainer, the batch that it sampled, our trainer with the same weights, and that batch as rollouts."""
    given = []

    def reward_fn(completions, **kwargs):
        given.append([float(text.count("e")) for text in completions])
        return given[-1]

    theirs = trl_trainer(method, folder / "trl", reward_fn, **settings)
    theirs.model.train()
    batch = theirs._generate_and_score_completions([{"prompt": p} for p in PROMPTS[:2] for _ in range(4)])
    changes = dict(init_kl_coef=BETA, **(dict(scale_by_deviation=False) if settings else {}))
    config = group_config(method, folder, method=changes, model=dict(num_layers_unfrozen=-1))
    ours = METHODS[method](config, count_the, PROMPTS, PROMPTS)
    ours.policy.base_model.load_state_dict(theirs.model.state_dict())
    mask = batch["completion_mask"].float()
    tokens = (batch["prompt_ids"], batch["prompt_mask"], batch["completion_ids"], mask)
    with torch.no_grad():
        known = ours.sampler.forward_pass(*tokens)
    rollouts = Rollouts(*tokens, *known, scores=torch.tensor(given[-1]))
    assert rollouts.kl().abs().max() > 0.1
    return theirs, batch, ours, rollouts


def test_rloo_s_advantages_and_gradient_are_trl_s(tmp_path):
    """The gradient of a first step, at which the ratio is 1; TRL takes the mean over samples, we over tokens."""
    theirs, batch, ours, rollouts = both_sides("rloo", tmp_path)
    advantages, returns = ours.credit(rollouts)
    assert torch.allclose(advantages[:, 0], batch["advantages"], atol=1e-5)
    theirs._compute_loss(theirs.model, batch).backward()
    (ours.losses(rollouts, advantages, returns)[0] / len(rollouts)).backward()
    same_gradients(theirs.model, ours.policy.base_model)


@pytest.mark.parametrize("settings", [{}, dict(scale_rewards="none")])
def test_grpo_s_advantages_and_loss_are_trl_s(tmp_path, settings):
    """The loss of a later step, at which the ratio is no longer 1 and some tokens are clipped."""
    theirs, batch, ours, rollouts = both_sides("grpo", tmp_path, **settings)
    advantages, returns = ours.credit(rollouts)
    assert torch.allclose(advantages[:, 0], batch["advantages"], atol=1e-5)
    for model in (theirs.model, ours.policy.base_model):
        move(model, seed=1)
    batch["old_per_token_logps"] = rollouts.logprobs
    objective, sums = ours.losses(rollouts, advantages, returns)
    loss, expected = objective / rollouts.mask.sum(), theirs._compute_loss(theirs.model, batch)
    assert 0 < sums["clipfrac"] < rollouts.mask.sum()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    expected.backward()
    loss.backward()
    same_gradients(theirs.model, ours.policy.base_model)


def same_gradients(theirs, ours) -> None:
    for (name, one), (_, other) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5, rtol=1e-4), name
    assert max(p.grad.abs().max() for p in ours.parameters()) > 1e-2


# ------------------------------------------------------------------ Runs


def test_a_small_run_raises_its_reward(method, finished):
    first, last = finished.history.rounds[0], finished.history.rounds[-1]
    assert last["reward"] > first["reward"] + 0.4
    assert first["kl"] == pytest.approx(0, abs=1e-5) and first["group_size"] == 4
    assert not {"value_loss", "explained_variance"} & (finished.history.updates[0].keys() | first.keys())
    assert not [name for name in finished.policy.trainable() if "v_head" in name]
    plot_history(finished.history)


def test_plain_and_fast_are_equal(method, finished, tmp_path):
    plain = group_run(method, tmp_path, METHODS[method], train=dict(total_steps=24))
    for kind, rows in without_times(plain.history).items():
        for ours, theirs in zip(rows, without_times(finished.history)[kind], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4), kind


def test_the_same_run_twice(method, finished, tmp_path):
    again = group_run(method, tmp_path, train=dict(total_steps=24))
    assert without_times(again.history) == without_times(finished.history)


def test_resumed_the_history_is_the_same(method, finished, tmp_path):
    group_run(method, tmp_path, train=dict(total_steps=8))
    further = dict(total_steps=24, resume_from_checkpoint=str(tmp_path))
    resumed = group_run(method, tmp_path, train=further)
    assert without_times(resumed.history) == without_times(finished.history)


def test_a_run_does_not_go_on_from_another_method_s(tmp_path):
    group_run("rloo", tmp_path, train=dict(total_steps=4))
    with pytest.raises(CourseError, match="method.name .was 'RLOOConfig', is 'GRPOConfig'"):
        group_run("grpo", tmp_path, train=dict(resume_from_checkpoint=str(tmp_path)))


def test_lora_and_micro_batches(method, tmp_path):
    pytest.importorskip("peft")
    lora = dict(peft_type="LORA", r=4, lora_alpha=8)
    whole, parts = (
        group_run(method, tmp_path / str(rows), model=dict(peft_config=lora), train=dict(minibatch_size=rows))
        for rows in (None, 2)
    )
    assert all("lora" in name for name in whole.policy.trainable())
    for one, other in zip(whole.history.updates, parts.history.updates, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_half_precision(method, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    trainer = group_run(method, tmp_path)
    assert trainer.step == 8 and trainer.history.rounds[0]["kl"] == pytest.approx(0, abs=0.05)


def test_the_verdict_of_a_run_without_value_head(finished):
    said = "\n".join(verdict(finished.history))
    assert "ok:   reward went from" in said
    assert "whitened" not in said and "value head" not in said


def test_the_verdict_names_groups_that_teach_nothing(finished):
    rounds = [row | {"same_group": 0.75} for row in finished.history.rounds]
    said = verdict(History(rounds, finished.history.updates, finished.history.evals))
    assert any(line.startswith("look: in 75% of the groups all samples") for line in said)


# ------------------------------------------------------------------ What is refused


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(method=dict(group_size=3)), r"method.group_size .3. must divide method.num_rollouts .16."),
        (dict(method=dict(chunk_size=6)), r"method.group_size .4. must divide method.chunk_size .6."),
        (dict(method=dict(group_size=1)), "method.group_size is 1: expected a whole number of at least 2"),
        (dict(method=dict(gamma=0.9)), "method.gamma is no key of .*default_"),
        (dict(method=dict(groupsize=4)), "Did you mean 'group_size'"),
        (dict(model=dict(num_layers_unfrozen=0)), "has no value head that could learn alone"),
    ],
)
def test_settings_that_cannot_work(method, tmp_path, changes, said):
    with pytest.raises(CourseError, match=said):
        check(group_config(method, tmp_path, **changes))


def test_another_method_s_keys_are_named(tmp_path):
    with pytest.raises(CourseError, match=r"method.gamma is no key of RLOOConfig.*default_rloo_config\(\)"):
        engine.default_ppo_config().evolve(method=dict(name="RLOOConfig", group_size=4))
    config = small_config(tmp_path)
    config.method.name = "GRPOConfig"
    with pytest.raises(CourseError, match="the other keys are those of PPOConfig"):
        check(config)


def test_a_trainer_of_another_method(method, tmp_path):
    with pytest.raises(CourseError, match="trainer_class is PPOTrainer, which trains by a PPOConfig"):
        group_run(method, tmp_path, PPOTrainer)
    with pytest.raises(CourseError, match="leave trainer_class out"):
        small_run(tmp_path, trainer_class=METHODS[method])


def test_trlx_has_neither(method, tmp_path):
    with pytest.raises(CourseError, match="trlX has no such method: set RLHF_ENGINE=builtin"):
        refuse_what_trlx_lacks(group_config(method, tmp_path))
    refuse_what_trlx_lacks(small_config(tmp_path))


@pytest.mark.skipif(not install.installed(), reason=f"trlX is not installed here: {TRLX_COMMAND}")
def test_the_real_trlx_s_train_refuses_them(method, tmp_path):
    from helpers.real_trlx.train import train as real_train

    with pytest.raises(CourseError, match="trlX has no such method"):
        real_train(reward_fn=count_the, prompts=PROMPTS, config=group_config(method, tmp_path))


def test_nothing_is_said_of_single_tokens(finished):
    table = pd.DataFrame({"prompt": PROMPTS, "after": PROMPTS, "reward_after": 1.0})
    with pytest.raises(CourseError, match="token_view .* give it a run of PPO"):
        token_view(finished, table)
