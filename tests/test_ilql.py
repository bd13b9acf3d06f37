"""trlX's ILQL: what the course mends in it holds, it learns, and bad input is refused before the work."""

import json
import math

import pytest
import torch
from common import TRLX_COMMAND
from ppo_run import MODEL, PROMPTS
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import engine
from helpers.errors import CourseError
from helpers.real_trlx import install

if not install.installed():
    pytest.skip(f"trlX is not installed here: {TRLX_COMMAND}", allow_module_level=True)

from helpers.real_trlx import ilql

# two answers to each prompt, of which the second is worth more
SAMPLES = [[prompt, f" was {word}."] for prompt in PROMPTS for word in ("bad", "good")]
REWARDS = [0.0, 1.0] * len(PROMPTS)


@pytest.fixture(autouse=True)
def on_trlx(monkeypatch):
    monkeypatch.setenv("RLHF_ENGINE", "trlx")


def small_config(folder, **changes):
    train = dict(total_steps=4, epochs=100, batch_size=5, eval_interval=2, checkpoint_interval=100)
    config = engine.default_ilql_config().evolve(
        model=dict(model_path=MODEL, num_layers_unfrozen=2),
        tokenizer=dict(tokenizer_path=MODEL),
        train=train | dict(checkpoint_dir=str(folder / "run"), save_best=False),
        optimizer=dict(kwargs=dict(lr=1e-3)),
        scheduler=dict(kwargs=dict(eta_min=1e-3)),
        method=dict(alpha=1.0, steps_for_target_q_sync=1, gen_kwargs=dict(max_new_tokens=6)),
    )
    return config.evolve(**changes)


def small_run(folder, samples=SAMPLES, rewards=REWARDS, changes=None, **kwargs):
    config = small_config(folder, **(changes or {}))
    return engine.train(samples=samples, rewards=rewards, eval_prompts=PROMPTS, config=config, **kwargs)


def count_good(samples, **kwargs):
    return {"good": [float("good" in sample) for sample in samples]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 60 steps, long enough for the heads to tell the two words apart."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RLHF_ENGINE", "trlx")
        folder = tmp_path_factory.mktemp("ilql")
        return small_run(
            folder, changes={"train": {"total_steps": 60, "eval_interval": 20}}, metric_fn=count_good
        )


def test_the_heads_learn_which_word_is_worth_more(trained):
    """beta 0 writes what the samples say, half and half. The heads' shift chooses the better half."""
    tokenizer, model = trained.tokenizer, trained.model
    good, bad = (tokenizer(f" {word}")["input_ids"][0] for word in ("good", "bad"))
    for prompt in PROMPTS:
        ids = tokenizer(f"{prompt} was", return_tensors="pt")["input_ids"]
        logits, _, target_qs, values, _ = model(ids, attention_mask=torch.ones_like(ids))
        advantage = (torch.minimum(*target_qs) - values)[0, -1]
        logprobs = logits[0, -1].log_softmax(-1)
        assert (logprobs[good] - logprobs[bad]).abs() < 1.5
        assert advantage[good] > advantage[bad] + 0.5
    shares = [trained.evaluate(beta=beta)["metrics/good"] for beta in (0, 16)]
    assert shares[1] > shares[0]
    assert shares[1] >= 0.8


def test_the_history(trained):
    updates, evals = trained.history.updates, trained.history.evals
    assert [row["step"] for row in updates] == list(range(1, 61))
    assert [row["step"] for row in evals] == [0, 20, 40, 60]
    parts = updates[-1]["loss_q"] + updates[-1]["loss_v"] + 0.1 * updates[-1]["loss_cql"]
    assert updates[-1]["loss"] == pytest.approx(parts + updates[-1]["loss_awac"], rel=1e-4)
    assert updates[-1]["loss_q"] < updates[0]["loss_q"]
    assert set(evals[0]) == {"step", "length", "distinct", "metrics/good"}
    assert [row["prompt"] for row in trained.eval_samples] == PROMPTS


def test_an_evaluation_draws_the_same_samples_and_disturbs_nothing(trained):
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        found.append((trained.evaluate(beta=1), trained.eval_samples))
        assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1]
    with pytest.raises(CourseError, match="ILQL samples by beta.* leave out gen_kwargs.top_p"):
        trained.evaluate(top_p=0.5)


@pytest.mark.parametrize("interval, followed", [(2, True), (100, False)])
def test_the_target_heads_follow_by_steps_and_not_by_passes(tmp_path, interval, followed):
    """Two steps are a pass over ten samples; three end in the middle of one, where trlX would not have asked again."""
    changes = {"train": {"total_steps": 3, "batch_size": 3}, "method": {"steps_for_target_q_sync": interval}}
    heads = small_run(tmp_path, changes=changes).model.ilql_heads
    at_first = ilql.with_heads(AutoModelForCausalLM.from_pretrained(MODEL), two_qs=True).ilql_heads
    assert len(at_first.q_heads) == 2
    pairs = list(zip(heads.q_heads.parameters(), heads.target_q_heads.parameters(), strict=True))
    close = all(torch.allclose(q, target, atol=1.5e-3) for q, target in pairs)
    moved = max((q - target).abs().max().item() for q, target in pairs)
    assert close if followed else moved > 2e-3, moved


def test_the_model_that_trlx_wraps_reads_the_text():
    base = AutoModelForCausalLM.from_pretrained(MODEL)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(ilql.with_heads(base, two_qs=True)(ids)[0], base(ids).logits)


def test_a_saved_model_reads_as_a_language_model_and_with_its_heads(trained, tmp_path):
    folder = trained.save_pretrained(tmp_path / "model")
    ids = torch.tensor([[5, 6, 7]])
    mask = torch.ones_like(ids)
    ours = trained.model(ids, attention_mask=mask)
    assert torch.allclose(AutoModelForCausalLM.from_pretrained(folder)(ids).logits, ours[0], atol=1e-5)
    again = ilql.load(folder)(ids, attention_mask=mask)
    for one, other in zip([*ours[1], *ours[2], ours[3]], [*again[1], *again[2], again[3]], strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert AutoTokenizer.from_pretrained(folder).sep_token is None
    (folder / ilql.HEADS).write_bytes(b"no heads")
    with pytest.raises(CourseError, match="is not readable as heads"):
        ilql.load(folder)


def test_a_run_saves_its_last_model_and_lets_others_be(tmp_path):
    small_run(tmp_path)
    folder = tmp_path / "run" / "checkpoint_4" / "hf_model"
    assert ilql.load(folder)
    (folder / "config.json").write_text(json.dumps({"mine": True}))
    with pytest.raises(CourseError, match="would be replaced") as caught:
        small_run(tmp_path)
    assert not caught.value.trainer.history.updates
    assert json.loads((folder / "config.json").read_text()) == {"mine": True}


def test_plain_texts_and_trlx_s_own_arguments(tmp_path):
    """trlX takes a text for what follows the token that begins texts."""
    trainer = small_run(tmp_path, samples=[prompt + output for prompt, output in SAMPLES])
    tokenizer = trainer.tokenizer
    ids = trainer.store.input_ids[0].tolist()
    assert tokenizer.decode(ids) == f"{tokenizer.bos_token}{''.join(SAMPLES[0])}{tokenizer.eos_token}"
    assert trainer.history.updates[-1]["step"] == 4
    prompt = tokenizer(PROMPTS[0], return_tensors="pt")
    assert trainer.generate(**prompt, beta=2).shape[1] > prompt["input_ids"].shape[1]


def test_the_door_shows_a_bar_and_no_verdict(tmp_path, capsys):
    small_run(tmp_path)
    printed = capsys.readouterr().out
    assert "4/4" in printed and "look:" not in printed and "Experience" not in printed


def test_stop_ends_a_run_with_an_evaluation_and_an_error_carries_it(tmp_path):
    class StopsAt:
        def __init__(self, error=None):
            self.error = error

        def start(self, trainer): ...

        def end(self, trainer): ...

        def progress(self, trainer):
            if trainer.step == 3:
                trainer.stop()

    config = small_config(tmp_path)
    given = dict(samples=SAMPLES, rewards=REWARDS, eval_prompts=PROMPTS, config=config)
    trainer = ilql.train(**given, listeners=[StopsAt()])
    assert (trainer.step, trainer.history.evals[-1]["step"]) == (3, 3)

    def broken(samples):
        raise KeyError("broken")

    with pytest.raises(KeyError) as caught:
        ilql.train(**given, metric_fn=broken)
    assert isinstance(caught.value.trainer, ilql.ILQLTrainer)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(samples=SAMPLES[:3]), "there are 3 samples and 10 rewards"),
        (dict(samples=[]), "samples is .*expected a list with at least one"),
        (dict(samples="The film"), "samples is 'The film'"),
        (dict(samples=[*SAMPLES[:9], ["alone"]]), r"samples\[9\] has 1 texts: expected \(prompt, output\)"),
        (dict(samples=[*SAMPLES[:9], ["The", " "]]), r"samples\[9\]\[1\] is ' ': expected a text"),
        (dict(samples=[*SAMPLES[:9], 5]), r"samples\[9\] is 5: expected a text"),
        (dict(samples=[*SAMPLES[:9], "good " * 70]), r"samples\[9\] has \d+ tokens.* and 64 fit"),
        (dict(rewards=[*REWARDS[:9], math.nan]), r"rewards\[9\] is nan"),
        (dict(rewards=[*REWARDS[:9], "1"]), r"rewards\[9\] is '1'"),
        (dict(rewards=[1.0] * 10), "all 10 rewards are 1: nothing tells"),
        (dict(rewards=None), "expected samples and rewards together"),
        (dict(reward_fn=len), "reward_fn is given beside samples and rewards"),
        (dict(minutes=5), "minutes is given beside"),
        (dict(config=engine.default_ppo_config()), r"start from trlx.default_ilql_config\(\)"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, changes, message):
    given = dict(samples=SAMPLES, rewards=REWARDS, config=small_config(tmp_path)) | changes
    with pytest.raises(CourseError, match=message):
        engine.train(**given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": {"tau": 1.5}}, "method.tau is 1.5: expected a number from 0 to 1"),
        ({"method": {"alpha": "fast"}}, "method.alpha is 'fast'"),
        ({"method": {"gen_kwargs": {"top_p": 0.9}}}, "leave out gen_kwargs.top_p"),
        ({"method": {"gen_kwargs": {"beta": [1, 4]}}}, "gen_kwargs.beta is"),
        ({"method": {"gen_kwargs": {"top_k": 0}}}, "gen_kwargs.top_k is 0"),
        ({"method": {"gen_kwargs": {"max_new_tokens": 64}}}, "leaves no room for a prompt"),
        ({"model": {"model_arch_type": "seq2seq"}}, "only 'causal' works here"),
        ({"train": {"resume_from_checkpoint": "run"}}, "train.resume_from_checkpoint is 'run'"),
        ({"train": {"batch_size": 0}}, "train.batch_size is 0"),
        ({"optimizer": {"kwargs": {"lr": "3e-5"}}}, "write 3.0e-5"),
    ],
)
def test_bad_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(CourseError, match=message):
        small_run(tmp_path, changes=changes)
    assert not (tmp_path / "run").exists()


def test_adapters_are_refused(tmp_path):
    config = small_config(tmp_path)
    config.model.peft_config = dict(peft_type="LORA")
    with pytest.raises(CourseError, match="model.peft_config is .*, only None works with ILQL here"):
        engine.train(samples=SAMPLES, rewards=REWARDS, config=config)


def test_a_run_that_diverges_ends(tmp_path):
    with pytest.raises(CourseError, match="the run has diverged. Try a tenth of the learning rate"):
        small_run(tmp_path, changes={"optimizer": {"kwargs": {"lr": 1e30}}})


def test_the_configuration_stays_as_it_was(tmp_path):
    config = small_config(tmp_path)
    before = json.dumps(config.to_dict(), default=vars)
    engine.train(samples=SAMPLES, rewards=REWARDS, eval_prompts=PROMPTS, config=config)
    assert json.dumps(config.to_dict(), default=vars) == before
