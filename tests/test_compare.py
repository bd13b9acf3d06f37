"""Before and after: the same seed gives the same texts, changed weights are told from unchanged ones, KL is found token by token."""

import pandas as pd
import pytest
import torch
from ppo_run import MODEL, PROMPTS, count_the, small_run
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


@pytest.fixture(scope="module")
def trainer(engine, tmp_path_factory):
    """A finished run."""
    return small_run(tmp_path_factory.mktemp("run"))


def table_of(outputs):
    """A table as `before_after` gives, with these outputs after training."""
    rewards = count_the([prompt + output for prompt, output in zip(PROMPTS, outputs)])
    columns = {"prompt": PROMPTS, "before": " as it was", "after": outputs}
    return pd.DataFrame(columns | {"reward_before": 0.5, "reward_after": rewards, "gain": 0.0})


def sampled(trainer):
    """The trainer's own rollouts, whose texts have the tokens that were sampled, and these texts."""
    torch.manual_seed(0)
    rollouts, texts = trainer.sampler.rollouts(trainer.eval_prompts, list(range(len(PROMPTS))))
    for tokens, mask, text in zip(rollouts.response, rollouts.mask, texts["outputs"]):
        assert trainer.tokenizer(text)["input_ids"] == tokens[: int(mask.sum())].tolist()
    return rollouts, texts["outputs"]


def test_token_view_sums_to_the_kl_that_the_trainer_sees(trainer):
    rollouts, outputs = sampled(trainer)
    rows = compare.token_view(trainer, table_of(outputs))
    assert [(row["prompt"], row["before"], row["after"]) for row in rows] == [
        (prompt, " as it was", output) for prompt, output in zip(PROMPTS, outputs)
    ]
    kl = torch.tensor([sum(token[1] for token in row["tokens"]) for row in rows])
    assert kl.abs().min() > 1e-3
    assert torch.allclose(kl, rollouts.kl().sum(1).cpu(), atol=1e-4)
    for row in rows:
        assert "".join(token[0] for token in row["tokens"]) == row["after"]


def test_token_view_has_the_advantages_of_the_trainer(trainer):
    rollouts, outputs = sampled(trainer)
    method, beta = trainer.config.method, trainer.kl_coef
    for i, row in enumerate(compare.token_view(trainer, table_of(outputs))):
        rewards = [-beta * token[1] for token in row["tokens"]]
        rewards[-1] += row["reward_after"]
        values = [*rollouts.values[i].tolist()[: len(rewards)], 0.0]
        errors = [r + method.gamma * values[t + 1] - values[t] for t, r in enumerate(rewards)]
        for t, token in enumerate(row["tokens"]):
            expected = sum((method.gamma * method.lam) ** n * error for n, error in enumerate(errors[t:]))
            assert token[2] == pytest.approx(expected, abs=1e-4)


def test_token_view_of_an_untrained_policy_has_no_kl(engine, tmp_path):
    still = {"optimizer": {"kwargs": {"lr": 0.0}}, "scheduler": {"kwargs": {"eta_min": 0.0}}}
    trainer = small_run(tmp_path, changes=still | {"train": {"total_steps": 1}})
    rows = compare.token_view(trainer, table_of([" goes on" * n for n in range(len(PROMPTS))]))
    assert all(token[1] == 0 for row in rows for token in row["tokens"])
    assert any(token[2] != 0 for row in rows for token in row["tokens"])


def test_token_view_of_empty_outputs(trainer):
    rows = compare.token_view(trainer, table_of([""] * len(PROMPTS)))
    assert [row["tokens"] for row in rows] == [[]] * len(PROMPTS)
