"""Before and after: the same seed gives the same texts, an interval holds what it says, changed weights are told from unchanged ones,
KL is found token by token."""

import numpy as np
import pandas as pd
import pytest
import torch
from ppo_run import MODEL, PROMPTS, count_the, small_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import compare
from helpers.errors import CourseError


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


def test_each_prompt_is_continued_so_many_times(model, tokenizer, monkeypatch):
    monkeypatch.setattr(compare, "BATCH", 4)
    drawn = compare.continue_each(model, tokenizer, PROMPTS[:3], 2, seed=3)
    assert drawn == compare.continue_each(model, tokenizer, PROMPTS[:3], 2, seed=3)
    one, two, three = PROMPTS[:3]
    first = compare.continue_prompts(model, tokenizer, [one, one, two, two], seed=3)
    second = compare.continue_prompts(model, tokenizer, [three, three], seed=4)
    assert drawn == [first[:2], first[2:], second] and len({*first, *second}) > 3


def test_a_model_against_itself_gains_nothing(model, tokenizer):
    table = compare.before_after(model, model, tokenizer, PROMPTS, count_the, max_new_tokens=8)
    assert (table["gain"] == 0).all() and (table["before"] == table["after"]).all()
    assert table["reward_before"].tolist() == count_the((table["prompt"] + table["before"]).tolist())


def test_several_samples_a_prompt_begin_with_those_of_one(model, tokenizer):
    given = dict(reward_fn=count_the, seed=5, max_new_tokens=8)
    other = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    with torch.no_grad():
        other.transformer.ln_f.weight.mul_(1.5)
    one = compare.before_after(model, other, tokenizer, PROMPTS, **given)
    three = compare.before_after(model, other, tokenizer, PROMPTS, samples=3, **given)
    assert three["prompt"].tolist() == PROMPTS * 3
    pd.testing.assert_frame_equal(three[: len(PROMPTS)], one)
    third = compare.continue_prompts(other, tokenizer, PROMPTS, seed=7, max_new_tokens=8)
    assert three["after"].tolist()[2 * len(PROMPTS) :] == third
    assert three["reward_after"].tolist() == count_the((three["prompt"] + three["after"]).tolist())
    with pytest.raises(CourseError, match="samples is 0: expected 1 or more"):
        compare.before_after(model, other, tokenizer, PROMPTS, samples=0, **given)


def simulated(seed, difference=0.0, prompts=40, samples=4):
    """A table of rewards: each prompt is easy or hard for both models, the rest is chance; `after` is better by `difference`."""
    chance = np.random.default_rng(seed)
    ease = np.tile(chance.normal(size=prompts), samples)
    table = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(prompts)] * samples})
    for name, higher in [("before", 0.0), ("after", difference)]:
        table[f"reward_{name}"] = ease + higher + chance.normal(size=len(table))
        table[name] = [f"{name} {i}" for i in range(len(table))]
    return table.assign(gain=table["reward_after"] - table["reward_before"])


def excludes(estimate, value):
    return not estimate.low <= value <= estimate.high


def test_equal_models_are_called_equal_in_19_of_20_comparisons():
    """Of 400 fair intervals 20 would be wrong; by chance up to 31, twice the standard error and a half more."""
    tables = [simulated(seed) for seed in range(400)]
    assert 8 < sum(excludes(compare.mean_gain(table), 0) for table in tables) < 32
    assert 2 < sum(excludes(compare.win_rate(table), 0.5) for table in tables) < 32


def test_a_true_difference_is_found_and_held():
    tables = [simulated(seed, difference=0.5) for seed in range(100)]
    found = [compare.mean_gain(table) for table in tables]
    assert sum(estimate.low > 0 for estimate in found) > 90
    assert sum(excludes(estimate, 0.5) for estimate in found) < 12
    assert sum(compare.win_rate(table).low > 0.5 for table in tables) > 80


def width(estimate):
    return estimate.high - estimate.low


def test_pairing_by_prompt_narrows_the_interval():
    table = simulated(0)
    order = np.random.default_rng(1).permutation(40)
    other_prompts = table["reward_before"].to_numpy().reshape(4, 40)[:, order].ravel()
    unpaired = table.assign(gain=table["reward_after"] - other_prompts)
    assert width(compare.mean_gain(table)) < 0.6 * width(compare.mean_gain(unpaired))


def test_samples_of_one_prompt_are_not_taken_for_so_many_prompts():
    """A copy of every row says nothing new, so the interval stays as wide; more samples of each prompt narrow it, more prompts further."""
    table = simulated(0)
    assert width(compare.mean_gain(pd.concat([table] * 5))) == pytest.approx(width(compare.mean_gain(table)))
    assert width(compare.mean_gain(table)) < width(compare.mean_gain(table[:40]))
    assert width(compare.mean_gain(simulated(0, prompts=160))) < 0.7 * width(compare.mean_gain(table))


def test_the_same_table_gives_the_same_interval():
    np.random.seed(1)
    first = compare.mean_gain(simulated(0)), compare.win_rate(simulated(0))
    np.random.seed(2)
    assert first == (compare.mean_gain(simulated(0)), compare.win_rate(simulated(0)))


def test_one_sample_a_prompt():
    table = simulated(3, difference=1.0, samples=1)
    found = compare.mean_gain(table)
    assert found.mean == pytest.approx(table["gain"].mean()) and found.low < found.mean < found.high
    error = table["gain"].std() / 40**0.5
    assert width(found) == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_a_prompt_with_more_values_weighs_more():
    prompts = [f"prompt {i}" for i in range(30)]
    found = compare.bootstrap([1.0] * 70 + [0.0] * 29, ["prompt 0"] * 70 + prompts[1:])
    assert found.mean == pytest.approx(70 / 99)
    assert (
        found.low == 0 and found.high > 0.8
    )  # without prompt 0, which a third of the draws lack, nothing is left


def test_too_few_prompts_have_no_interval_and_say_so():
    one = simulated(0, prompts=1, samples=50)
    for found in (compare.mean_gain(one), compare.win_rate(one)):
        assert found.mean is not None and found.low is found.high is None
        assert f"{found:.2f}".endswith(", no interval: 1 of the 20 prompts that it needs")
    assert compare.mean_gain(simulated(0, prompts=19)).low is None
    assert compare.mean_gain(simulated(0, prompts=20)).low is not None
    nothing = compare.share_of_wins([], [])
    assert nothing.mean is None and f"{nothing:.0%}" == "nothing to compare yet"


def test_an_estimate_prints_as_the_format_says():
    found = compare.Estimate(0.5, 0.25, 0.75, 64)
    assert f"{found:+.2f}" == "+0.50, 95% interval +0.25 to +0.75, 64 prompts"
    assert f"{found:.0%}" == "50%, 95% interval 25% to 75%, 64 prompts"


def test_a_model_against_itself_has_no_gain_and_wins_half(model, tokenizer):
    prompts = [f"I watched {name}" for name in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    table = compare.before_after(model, model, tokenizer, prompts, count_the, samples=2, max_new_tokens=4)
    assert compare.mean_gain(table) == compare.Estimate(0, 0, 0, 26)
    rounded = table.assign(gain=1e-7)  # what a judge makes of the same text in another batch
    for found in (compare.win_rate(table), compare.win_rate(rounded)):
        assert found.mean == 0.5 and 0.4 < found.low < 0.5 < found.high < 0.6


def test_a_tie_counts_half():
    table = simulated(0, samples=1)[:20].assign(
        gain=[0.5] * 5 + [-0.5] * 2 + [0.05] * 6 + [-0.05] * 4 + [0.0] * 3
    )
    assert compare.win_rate(table).mean == (5 + 6 + 3 / 2) / 20
    assert compare.win_rate(table, tie_margin=0.1).mean == (5 + 13 / 2) / 20
    assert compare.win_rate(table, tie_margin=0.05).mean == (5 + 6 + 3 / 2) / 20


def test_all_won_is_not_certain():
    """Of 20 wins Wilson's interval has 84% as its low end."""
    found = compare.win_rate(simulated(0, difference=20, prompts=20, samples=1))
    assert found.mean == found.high == 1 and 0.8 < found.low < 0.9
    twice = compare.win_rate(simulated(0, difference=20, prompts=20, samples=2))
    assert twice == found


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


def test_tokens_beyond_what_the_model_takes_are_left_out(trainer):
    most = trainer.model.config.max_position_embeddings
    prompt = len(trainer.tokenizer(PROMPTS[0])["input_ids"])
    rows = compare.token_kl(trainer, table_of([" zq" * most, *["."] * (len(PROMPTS) - 1)]))
    assert [len(rows[0]), len(rows[1])] == [most - prompt, 1]


def test_token_view_of_empty_outputs(trainer):
    rows = compare.token_view(trainer, table_of([""] * len(PROMPTS)))
    assert [row["tokens"] for row in rows] == [[]] * len(PROMPTS)
