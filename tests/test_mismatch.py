"""A sampler that differs from the trainer: what is measured, what the weights are, and that the page says what was recorded."""

import pandas as pd
import pytest
import torch
from common import ROOT

from helpers import course
from helpers.maintain import mismatch, record
from helpers.ppo import loss, policy


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A trainer, a batch sampled at temperature 0.7, and with which log-probabilities it was drawn."""
    config = mismatch.rloo_config(course.start())
    folder = str(tmp_path_factory.mktemp("run"))
    trainer = mismatch.fresh(config.evolve(train=dict(checkpoint_dir=folder)), course.start())
    query, query_mask, _ = trainer.prompts.batch(list(range(16)))
    settings = trainer.sampler.gen_kwargs | dict(max_new_tokens=8, min_new_tokens=8)
    uniform = torch.rand(16, 8, generator=torch.Generator().manual_seed(0))
    model = trainer.policy.base_model
    return model, query, query_mask, settings, uniform


@pytest.mark.parametrize("changed", [{}, dict(temperature=0.7), dict(top_k=5)])
def test_drawn_is_the_distribution_that_was_sampled_from(drawn, changed):
    model, query, query_mask, settings, uniform = drawn
    del (settings := dict(settings))["min_new_tokens"]
    tokens, found = mismatch.draw_from(model, query, query_mask, settings | changed, uniform)
    texts, attention = (
        torch.cat([query, tokens], dim=1),
        torch.cat([query_mask, torch.ones_like(tokens)], dim=1),
    )
    with torch.no_grad():
        hidden = policy.hidden_states(model, texts, attention)[:, query.shape[1] - 1 : -1]
        logits = model.get_output_embeddings()(hidden)
    if "top_k" in changed:
        logits = logits.masked_fill(logits < logits.topk(5).values[..., -1:], -torch.inf)
    expected = loss.token_logprobs(loss.log_distribution(logits, changed.get("temperature", 1.0)), tokens)
    assert torch.allclose(found, expected, atol=1e-4)


def test_weights_by_hand():
    logprobs = torch.tensor([[0.5, 0.2, 0.9]]).log()
    seen, mask = torch.tensor([[0.1, 0.4, 0.1]]).log(), torch.tensor([[1.0, 1.0, 0.0]])
    weights = mismatch.importance_weights(logprobs, seen, mask, 2.0)
    assert (weights * mask)[0].tolist() == pytest.approx([2.0, 0.5, 0.0])


def test_effective_share_by_hand():
    assert mismatch.effective_share(torch.zeros(5)) == pytest.approx(1)
    assert mismatch.effective_share(torch.tensor([3.0, 1.0]).log()) == pytest.approx(16 / 20)
    assert mismatch.effective_share(torch.tensor([900.0, 0.0])) == pytest.approx(1 / 2)


def test_every_difference_is_seen():
    rows = {row["difference"]: row for row in mismatch.gaps(course.start(), samples=64)}
    same = rows.pop("none")
    assert same["largest"] < 1e-4 and same["ess_samples"] == pytest.approx(1, abs=1e-4)
    for name, row in rows.items():
        assert row["mean"] > 1e-4 and row["ess_samples"] < 0.99999, name
    assert (
        rows["sampler in float16"]["mean"]
        < rows["sampler in bfloat16"]["mean"]
        < rows["temperature 0.7"]["mean"]
    )


def test_runs_differ_where_sampler_or_weights_do(monkeypatch):
    monkeypatch.setenv("RLHF_BUDGET", "0.1")  # two rounds
    monkeypatch.setattr(mismatch, "STALE", 1)
    here = course.start()
    runs = [("the policy", "none"), ("the policy", "tokens"), ("4 rounds old", "none")]
    runs += [("temperature 0.7", level) for level in ("none", "tokens")]
    kl = {run: mismatch.run(here, *run, seed=0)["kl"] for run in runs}
    same = kl.pop(("the policy", "tokens"))  # all weights are 1
    # to within rounding, which two rounds make larger: 0.03 on one processor, less than 0.001 on another
    assert same == pytest.approx(kl["the policy", "none"], abs=0.1)
    assert len({round(found, 3) for found in kl.values()}) == len(kl)


def test_the_page_has_the_recorded_numbers():
    tables = [pd.read_csv(record.NOTEBOOKS / "data" / f"mismatch_{name}.csv") for name in ("gaps", "runs")]
    gaps, runs = tables
    assert gaps["difference"].tolist() == list(mismatch.DIFFERENCES)
    found = runs.groupby(["sampler", "weights"], sort=False).size()
    assert found.to_dict() == dict.fromkeys(mismatch.RUNS, record.SEEDS)
    page = (ROOT / "docs" / "sampler-and-trainer.md").read_text(encoding="utf-8")
    for row in mismatch.rows_of_page(*tables):
        assert row in page
