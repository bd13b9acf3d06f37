"""The real trlX beside our own PPO: where the definitions agree, the numbers do; where they differ, a test names it."""

import json
import logging
import shutil
import warnings

import pytest
import torch
import yaml
from accelerate.utils import set_seed
from common import TRLX_COMMAND
from ppo_run import MODEL, PROMPTS, count_the, engine_train, small_config, small_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import engine
from helpers.errors import CourseError
from helpers.ppo import loss, trial
from helpers.ppo.config import OptimizerConfig, TRLConfig, default_ppo_config
from helpers.ppo.policy import Policy
from helpers.real_trlx import install
from helpers.real_trlx.model import PolicyForTrlx
from helpers.real_trlx.patches import import_trlx

if not install.installed():
    pytest.skip(f"trlX is not installed here: {TRLX_COMMAND}", allow_module_level=True)

from helpers.real_trlx.train import train  # isort: skip  (first: without it trlX cannot be imported beside today's peft)
from helpers.real_trlx.trainer import CourseTrainer, fold  # isort: skip
from trlx.data import default_configs
from trlx.data.configs import TRLConfig as TrlxConfig
from trlx.data.ppo_types import PPORLBatch
from trlx.models.modeling_base import PreTrainedModelWrapper
from trlx.models.modeling_ppo import AdaptiveKLController
from trlx.trainer import accelerate_base_trainer
from trlx.utils.modeling import logprobs_of_labels, whiten

ROWS, WIDTH = 6, 9


@pytest.fixture
def method():
    """trlX's PPO settings, and with them its losses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return default_configs.default_ppo_config().method


@pytest.fixture
def batch():
    """One fixed batch: per token log-probabilities, values and rewards, and a mask with padding on the right."""
    torch.manual_seed(0)
    mask = (torch.arange(WIDTH) < torch.tensor([9, 4, 7, 1, 9, 5])[:, None]).float()
    old = -torch.rand(ROWS, WIDTH) * 4
    draws = {name: torch.randn(ROWS, WIDTH) for name in ("values", "old_values", "rewards", "advantages")}
    return {"mask": mask, "old_logprobs": old, "logprobs": old + 0.3 * torch.randn(ROWS, WIDTH), **draws}


def close(ours, theirs):
    return torch.allclose(torch.as_tensor(ours), torch.as_tensor(theirs), atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------ where the definitions agree


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.8)])
def test_advantages_and_returns(method, batch, gamma, lam):
    method.gamma, method.lam = gamma, lam
    rewards, values = batch["rewards"] * batch["mask"], batch["values"] * batch["mask"]
    theirs = method.get_advantages_and_returns(values, rewards, WIDTH, use_whitening=False)
    ours = loss.advantages_and_returns(rewards, values, batch["mask"], gamma, lam)
    assert all(close(a, b) for a, b in zip(ours, theirs, strict=True))


def test_whitening_of_responses_without_padding(batch):
    assert close(loss.masked_whiten(batch["values"], torch.ones(ROWS, WIDTH)), whiten(batch["values"]))


def test_policy_loss_value_loss_and_what_is_reported(method, batch):
    mask, returns = batch["mask"], batch["advantages"] + batch["old_values"]
    given = {name: batch[name] for name in ("logprobs", "values", "old_logprobs", "old_values", "advantages")}
    total, stats = method.loss(**given, returns=returns, mask=mask)
    policy, ratio, clipped = loss.policy_loss(
        batch["logprobs"], batch["old_logprobs"], batch["advantages"], mask, method.cliprange
    )
    value = loss.value_loss(batch["values"], batch["old_values"], returns, mask, method.cliprange_value)
    tokens = mask.sum()
    assert close(policy.sum() / tokens, stats["losses/policy_loss"])
    assert close(value.sum() / tokens, stats["losses/value_loss"])
    assert close((policy + method.vf_coef * value).sum() / tokens, total)
    assert close((ratio * mask).sum() / tokens, stats["ratio"])
    assert close(clipped.sum() / tokens, stats["policy/clipfrac"])


def test_log_probabilities_of_tokens():
    torch.manual_seed(0)
    logits, tokens = torch.randn(3, 5, 50), torch.randint(50, (3, 5))
    ours = loss.token_logprobs(loss.log_distribution(logits), tokens)
    assert close(ours, logprobs_of_labels(logits, tokens))


@pytest.mark.parametrize("kl", [0.1, 6.0, 6.5, 40.0])
def test_the_adaptive_kl_penalty(kl):
    controller = AdaptiveKLController(0.05, target=6, horizon=1000)
    controller.update(kl, n_steps=32)
    assert loss.next_kl_coef(0.05, kl, 6, 1000, 32) == pytest.approx(controller.value, abs=1e-9)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A trlX trainer after some updates, with a new round of rollouts in its store."""
    method = {
        "chunk_size": 16,
        "gen_kwargs": {"max_new_tokens": 24},
    }  # of several chunks trlX averages the root of the KL
    changes = {"train": {"total_steps": 12}, "method": method}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PPO_RUN_ENGINE", "trlx")
        trainer = small_run(tmp_path_factory.mktemp("trlx"), changes=changes)
    trainer.model = PolicyForTrlx(trainer.policy)  # as it is while trlX trains
    trainer.store.clear_history()
    trainer.make_experience(16)
    return trainer


def unpadded(sampled) -> list[tuple]:
    """The rollouts that fill their width, each with its score and its log-probabilities under the reference."""
    rollouts = zip(sampled.store.history, sampled.scores, sampled.model.ref_logprobs, strict=True)
    full = [
        (rollout, score, reference[len(rollout.query_tensor) - 1 :][: len(rollout.logprobs)])
        for rollout, score, reference in rollouts
        if (rollout.response_tensor != sampled.tokenizer.pad_token_id).all()
    ]
    assert len(full) >= 4
    return full


def test_the_kl_penalty_and_the_place_of_the_score(sampled):
    for rollout, score, reference in unpadded(sampled):
        mask = torch.ones(1, len(rollout.logprobs))
        kl = loss.kl_per_token(rollout.logprobs[None], reference[None], mask)
        assert kl.abs().max() > 0.01
        ours = loss.token_rewards(torch.tensor([score]), kl, sampled.kl_coef, mask)
        assert close(ours[0], rollout.rewards)


def test_the_history_has_the_kl_that_is_penalised(sampled):
    kl = [(rollout.logprobs - reference).sum() for rollout, _, reference in unpadded(sampled)]
    reported, lengths = sampled.kl_of_rollouts()
    full = lengths == lengths.max()
    assert close(reported[full].sum(), torch.stack(kl).sum())


# ------------------------------------------------------------------------------------ where they differ on purpose


def test_difference_trlx_whitens_padding_too(batch):
    """trlX: mean and variance over padding as well, which pulls the mean to 0 and shrinks the variance. Ours: responses only."""
    values, mask = (batch["values"] + 3) * batch["mask"], batch["mask"].bool()
    theirs, ours = whiten(values)[mask], loss.masked_whiten(values, batch["mask"])[mask]
    assert ours.mean().abs() < 1e-5 and ours.var() == pytest.approx(1, abs=1e-4)
    assert theirs.mean() > 0.3


def test_difference_trlx_reports_kl_over_the_prompt_too(sampled):
    """trlX reports k3 over prompt and response. The history, under either engine, has k1 over the response."""
    _, lengths = sampled.kl_of_rollouts()
    over_response = []
    for rollout, reference, length in zip(
        sampled.store.history, sampled.model.ref_logprobs, lengths.tolist(), strict=True
    ):
        start = len(rollout.query_tensor) - 1
        log_ratio = rollout.logprobs[:length] - reference[start : start + length]
        over_response.append((log_ratio.exp() - 1 - log_ratio).sum().item())
    reported = sampled.mean_kl  # trlX's own figure for this round
    assert reported > sum(over_response) / len(over_response) + 1e-3  # what the prompts' tokens add
    assert sampled.history.rounds[-1]["kl"] != pytest.approx(reported, rel=0.01)


def test_difference_trlx_averages_the_ratio_s_kl_over_padding(method, batch):
    """`approx_kl` is a mean over all places in trlX, and over response tokens in ours."""
    given = {name: batch[name] for name in ("logprobs", "values", "old_logprobs", "old_values", "advantages")}
    _, stats = method.loss(**given, returns=batch["advantages"], mask=batch["mask"])
    log_ratio = (batch["logprobs"] - batch["old_logprobs"]) * batch["mask"]
    over_tokens = (log_ratio.exp() - 1 - log_ratio).sum() / batch["mask"].sum()
    assert stats["policy/approx_kl"] == pytest.approx(
        over_tokens.item() * batch["mask"].mean().item(), abs=1e-6
    )


def test_difference_trlx_forgets_the_sampling_temperature(tmp_path, monkeypatch):
    """trlX keeps a token's log-probability at temperature 1, however it was sampled. Ours: at the sampling temperature."""
    monkeypatch.setenv("PPO_RUN_ENGINE", "trlx")
    frozen = {"model": {"num_layers_unfrozen": 0}, "train": {"total_steps": 1}}  # the policy stays as it was
    trainer = small_run(tmp_path, changes={**frozen, "method": {"gen_kwargs": {"temperature": 0.5}}})
    rollout = trainer.store.history[0]
    query, response = rollout.query_tensor[None], rollout.response_tensor[None]
    known = (query != trainer.tokenizer.pad_token_id).long()
    trainer.sampler.temperature = 0.5  # as the built-in engine has it
    ours, _, _ = trainer.sampler.forward_pass(query, known, response, torch.ones_like(response).float())
    ids, mask = torch.cat([query, response], 1), torch.cat([known, torch.ones_like(response)], 1)
    plain = loss.log_distribution(trainer.policy.reference_logits(ids, mask, response.shape[1]))
    at_one = loss.token_logprobs(plain, response)
    assert torch.allclose(rollout.logprobs, at_one[0], atol=1e-4)
    assert not torch.allclose(ours, at_one, atol=0.1)


def test_difference_trlx_whitens_each_micro_batch_by_itself(method, batch):
    values, rewards = batch["values"], batch["rewards"]
    whole, _ = method.get_advantages_and_returns(values, rewards, WIDTH)
    halves = [
        method.get_advantages_and_returns(values[h], rewards[h], WIDTH)[0] for h in (slice(3), slice(3, 6))
    ]
    assert not torch.allclose(torch.cat(halves), whole, atol=0.05)


def test_difference_trlx_pays_the_score_one_place_after_the_end(sampled):
    """For a response that is shorter than others of its chunk. Ours: on its EOS."""
    pad = sampled.tokenizer.pad_token_id
    ended = [r for r in sampled.store.history if (r.response_tensor[-2:] == pad).all()]
    assert ended
    for rollout in ended:
        text = int((rollout.response_tensor != pad).sum())
        assert len(rollout.rewards) - 1 == text + 1  # the EOS stands at `text`


def test_difference_trlx_tokenises_responses_again(sampled, monkeypatch):
    """What was sampled as " f" and "ilm" is learned as " film". Ours keeps the tokens that were sampled."""
    vocabulary = sampled.tokenizer.get_vocab()
    pieces = [vocabulary["\u0120f"], vocabulary["i"], vocabulary["l"], vocabulary["m"]]
    with monkeypatch.context() as patched:
        patched.setattr(
            sampled,
            "generate",
            lambda ids, mask: torch.cat([ids, torch.tensor([pieces] * len(ids))], dim=1),
        )
        sampled.store.clear_history()
        sampled.make_experience(16)
    assert sampled.store.history[0].response_tensor.tolist() == [vocabulary["\u0120film"]]
    ids, _, _ = sampled.sampler.finish([[]], torch.tensor([pieces]), sampled.sampler.gen_kwargs)
    assert ids[0].tolist() == pieces


def test_difference_trlx_takes_the_end_of_a_text_for_padding(sampled):
    """GPT-2 has no padding token, and trlX pads with the EOS: a sampled EOS counts as padding, and is not learned."""
    eos = sampled.tokenizer.eos_token_id
    query, response = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9, eos]])
    numbers = [torch.zeros(1, 3) for _ in range(3)]
    _, stats = sampled.loss(PPORLBatch(query, response, *numbers))
    assert stats["padding_percentage"].item() == pytest.approx(1 / 3)
    _, mask, _ = sampled.sampler.finish([[5, 6, 7]], response, sampled.sampler.gen_kwargs)
    assert mask.sum() == 3  # ours


def test_difference_trlx_adds_up_the_means_of_micro_batches(tmp_path, monkeypatch):
    """Four micro-batches make trlX's step four times as long where the optimizer is plain SGD. Ours stays the same."""

    def step_of_the_value_head(engine_name, size) -> float:
        monkeypatch.setenv("PPO_RUN_ENGINE", engine_name)
        folder = tmp_path / f"{engine_name}{size}"
        method = dict(cliprange_value=100.0, num_rollouts=8)
        config = small_config(folder, train=dict(total_steps=1, minibatch_size=size), method=method)
        config.optimizer = OptimizerConfig("sgd", dict(lr=1e-2))
        config.model.num_layers_unfrozen = 0  # the value head alone learns
        set_seed(config.train.seed)
        before = (
            Policy(AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32), 0).v_head[2].bias.item()
        )
        trainer = engine_train()(reward_fn=count_the, prompts=PROMPTS, eval_prompts=PROMPTS, config=config)
        return trainer.policy.v_head[2].bias.item() - before

    theirs, ours = (
        step_of_the_value_head(name, 2) / step_of_the_value_head(name, 8) for name in ("trlx", "builtin")
    )
    assert theirs == pytest.approx(4, rel=0.01)
    assert ours == pytest.approx(1, rel=0.01)


# ------------------------------------------------------------------------------------ configuration


def test_what_trlx_writes_loads_here(tmp_path):
    theirs = default_configs.default_ppo_config()
    (tmp_path / "trlx.yml").write_text(yaml.dump(plain(theirs.to_dict())))
    assert plain(TRLConfig.load_yaml(tmp_path / "trlx.yml").to_dict()) == plain(theirs.to_dict())


def test_what_is_written_here_loads_in_trlx(tmp_path):
    ours = small_config(tmp_path)
    (tmp_path / "ours.yml").write_text(yaml.dump(plain(ours.to_dict())))
    assert plain(TrlxConfig.load_yaml(tmp_path / "ours.yml").to_dict()) == plain(ours.to_dict())


def test_the_defaults_are_trlx_s_but_for_the_tracker():
    theirs, ours = (
        plain(make().to_dict()) for make in (default_configs.default_ppo_config, default_ppo_config)
    )
    assert theirs["train"].pop("tracker") == "wandb" and ours["train"].pop("tracker") is None
    assert ours == theirs


def plain(value):
    """As YAML has it: lists for tuples."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


# ------------------------------------------------------------------------------------ our trainer inside trlX


def test_trlx_s_own_configuration_is_taken_and_left_as_it_was(tmp_path):
    theirs = TrlxConfig.from_dict(small_config(tmp_path, train=dict(total_steps=1)).to_dict())
    before = plain(theirs.to_dict())
    with pytest.warns(UserWarning, match="'wandb' is ignored with trlX"):
        theirs.train.tracker = "wandb"
        trainer = train(reward_fn=count_the, prompts=PROMPTS, config=theirs)
    assert trainer.step == 1
    assert plain(theirs.to_dict()) == before | {"train": before["train"] | {"tracker": "wandb"}}


def test_the_import_leaves_a_readers_logging_as_it_is():
    logging.disable(logging.ERROR)
    try:
        import_trlx()
        assert logging.root.manager.disable == logging.ERROR
    finally:
        logging.disable(logging.NOTSET)


def test_trlx_loads_neither_a_model_nor_a_tokenizer_by_itself(tmp_path, on_trlx, monkeypatch):
    """Its own loading follows adapters, opens pickles, and leaves it to transformers whether to run code from a folder."""
    loaded = []

    def refuse(*args, **kwargs):
        raise AssertionError(f"trlX loads {args}")

    def watch(kind):
        plain = kind.from_pretrained

        def from_pretrained(source, *args, **kwargs):
            loaded.append((kind.__name__, source, kwargs["trust_remote_code"]))
            return plain(source, *args, **kwargs)

        monkeypatch.setattr(kind, "from_pretrained", from_pretrained)

    monkeypatch.setattr(PreTrainedModelWrapper, "from_pretrained", refuse)
    monkeypatch.setattr(PreTrainedModelWrapper, "from_config", refuse)
    watch(AutoModelForCausalLM)
    watch(AutoTokenizer)
    trainer = small_run(tmp_path, changes={"train": {"total_steps": 1}})
    read_back = str(tmp_path / trial.TRIAL / "hf_model")  # what the course tried to save
    expected = [("AutoModelForCausalLM", MODEL), ("AutoTokenizer", MODEL), ("AutoTokenizer", read_back)]
    assert sorted((kind, str(source)) for kind, source, _ in loaded) == sorted(expected)
    assert not any(trusted for *_, trusted in loaded)
    assert accelerate_base_trainer.AutoTokenizer is AutoTokenizer
    assert trainer.tokenizer.sep_token is None


@pytest.mark.parametrize(
    "file, table, message",
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "config.json has 'auto_map'"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "has 'auto_map'"),
        ("adapter_config.json", {"base_model_name_or_path": MODEL, "peft_type": "LORA"}, "is an adapter for"),
    ],
)
def test_a_folder_that_wants_code_run_or_leads_elsewhere_is_refused(tmp_path, on_trlx, file, table, message):
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    found = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(found | table))
    paths = {"model": {"model_path": str(folder)}, "tokenizer": {"tokenizer_path": str(folder)}}
    for section in paths:
        if file == "adapter_config.json" and section == "tokenizer":
            continue  # a tokenizer has no use for it
        with pytest.raises(CourseError, match=message):
            small_run(tmp_path, changes={section: paths[section]})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "key, value",
    [
        ("trust_remote_code", True),
        ("peft_from_pretrained_kwargs", {"adapter_name": "evil"}),
        ("load_in_8bit", True),
        ("peft_int8_kwargs", {}),
    ],
)
def test_settings_of_trlx_s_own_loading_are_refused(tmp_path, on_trlx, key, value):
    with pytest.raises(CourseError, match=f"'{key}' in model.model_extra_configs is not passed on"):
        small_run(tmp_path, changes={"model": {"model_extra_configs": {key: value}}})


def test_reward_functions_read_the_same_text_in_training_and_evaluation(tmp_path, monkeypatch):
    monkeypatch.setenv("PPO_RUN_ENGINE", "trlx")
    seen = []

    def reward_fn(samples, outputs, **kwargs):
        seen.extend(samples + outputs)
        return [0.0] * len(samples)

    changes = {"train": {"total_steps": 1}, "method": {"gen_kwargs": {"max_new_tokens": 50}}}
    trainer = small_run(tmp_path, reward_fn=reward_fn, changes=changes)
    ended = [r for r in trainer.store.history if (r.response_tensor == trainer.tokenizer.eos_token_id).any()]
    assert ended, "no rollout ended with an EOS: the test shows nothing"
    assert seen and not any(trainer.tokenizer.eos_token in text for text in seen)


def only_the_end_of_a_text() -> dict:
    """Settings under which every response is an EOS and nothing else."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    words = [[i] for i in range(len(tokenizer)) if i != tokenizer.eos_token_id]
    return {"max_new_tokens": 4, "bad_words_ids": words}


@pytest.fixture
def on_trlx(monkeypatch):
    monkeypatch.setenv("PPO_RUN_ENGINE", "trlx")


def test_rollouts_that_are_always_empty_are_refused(tmp_path, on_trlx):
    """trlX takes their EOS for padding, divides by no tokens, and every weight is NaN from then on."""
    with pytest.raises(CourseError, match="every sample of this round is empty.*min_new_tokens"):
        small_run(tmp_path, changes={"method": {"gen_kwargs": only_the_end_of_a_text()}})


def test_a_micro_batch_of_empty_responses_teaches_nothing_and_breaks_nothing(sampled):
    eos = sampled.tokenizer.eos_token_id
    numbers = [torch.zeros(1, 1) for _ in range(3)]
    objective, stats = sampled.loss(PPORLBatch(torch.tensor([[5, 6]]), torch.tensor([[eos]]), *numbers))
    assert objective.item() == 0 and not any(stats.values())


def test_prompts_that_hold_the_padding_token_are_refused(tmp_path, on_trlx):
    eos = AutoTokenizer.from_pretrained(MODEL).eos_token
    for prompts in ([f"The{eos} film"], None):
        with pytest.raises(CourseError, match=r"prompts\[0\] holds .*RLHF_ENGINE=builtin"):
            small_run(tmp_path, prompts=prompts)


@pytest.mark.parametrize("scale_reward", ["ref", "running"])
def test_equal_rewards_cannot_be_scaled(tmp_path, on_trlx, scale_reward):
    with pytest.raises(CourseError, match="rewards of the first chunk are 0.5: there is no spread"):
        small_run(
            tmp_path,
            reward_fn=lambda samples: [0.5] * len(samples),
            changes={"method": {"scale_reward": scale_reward}},
        )


def test_more_rewards_than_tokens_count_in_full():
    assert fold([1.0, 2.0, 3.0, 4.0], 2) == [1.0, 9.0]
    assert fold([1.0, 2.0], 2) == [1.0, 2.0]
    assert fold([1.0], 2) == [1.0]


def test_a_text_longer_than_the_positions_is_named(sampled):
    long = torch.full((1, sampled.policy.base_model.config.max_position_embeddings + 1), 5)
    with pytest.raises(CourseError, match="lower max_new_tokens"):
        sampled.model(long, torch.ones_like(long))


def test_auto_takes_trlx_and_says_so(monkeypatch):
    for asked in ("auto", "trlx"):
        monkeypatch.setenv("RLHF_ENGINE", asked)
        assert engine.describe() == f"trlX {install.installed()}"
    monkeypatch.setenv("RLHF_ENGINE", "builtin")
    assert engine.describe().startswith("built-in PPO")


def test_the_door_leads_to_trlx(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RLHF_ENGINE", "auto")
    trainer = engine.train(reward_fn=count_the, prompts=PROMPTS, config=small_config(tmp_path))
    assert isinstance(trainer, CourseTrainer)
    assert "8 steps in" in capsys.readouterr().out


def test_a_checkpoint_of_the_other_engine_is_refused(tmp_path, monkeypatch):
    small_run(tmp_path)
    monkeypatch.setenv("PPO_RUN_ENGINE", "trlx")
    with pytest.raises(CourseError, match="made by the engine built-in PPO, this run uses trlX"):
        small_run(tmp_path, changes={"train": {"resume_from_checkpoint": str(tmp_path)}})
