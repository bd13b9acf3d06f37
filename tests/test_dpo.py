"""DPO: its loss by hand and against TRL's own trainer, and a small run on a simulated rater's preferences."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from ppo_run import MODEL, PROMPTS
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.errors import CourseError
from helpers.feedback import dpo
from helpers.feedback.pairs import Pair, choose_pairs
from helpers.feedback.simulated import SimulatedRater
from helpers.ppo.blocks import freeze_below


def load(unfrozen: int = 2):
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    freeze_below(model, unfrozen)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def count_the(texts: list[str]) -> list[float]:
    return [float(text.lower().count("the")) for text in texts]


@torch.no_grad()
def samples(model, tokenizer, each: int) -> list[list[str]]:
    """`each` continuations of every prompt."""
    torch.manual_seed(0)
    found = []
    for prompt in PROMPTS:
        ids = tokenizer([prompt] * each, return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=8, do_sample=True, top_k=0, pad_token_id=0)
        found.append(tokenizer.batch_decode(out[:, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return found


def mean_reward(model, tokenizer) -> float:
    texts = [text for group in samples(model, tokenizer, 32) for text in group]
    return sum(count_the(texts)) / len(texts)


@pytest.fixture(scope="module")
def ratings(tokenizer):
    """What a rater who counts "the" said of 160 pairs of the model's own samples."""
    pairs = choose_pairs(PROMPTS, samples(load(), tokenizer, 12), 160)
    return SimulatedRater(count_the, error_rate=0).rate(pairs)


@pytest.fixture(scope="module")
def fitted(tokenizer, ratings):
    return dpo.fit(load(), tokenizer, ratings, lr=1e-3, epochs=4, batch_size=16)


def test_the_loss_by_hand():
    """The chosen text is twice as likely as under the reference, the rejected one half as likely: a margin of beta * log 4."""
    log = [torch.tensor([number]).log() for number in (0.2, 0.1, 0.1, 0.2)]
    assert dpo.dpo_loss(*log, beta=0.5).item() == pytest.approx(-math.log(1 / (1 + 4**-0.5)))
    assert dpo.dpo_loss(*log[:2], *log[:2], beta=0.5).item() == pytest.approx(math.log(2))
    assert dpo.implicit_rewards(log[0], log[2], 0.5).item() == pytest.approx(0.5 * math.log(2))


def test_ratings_become_preferences():
    pair = Pair("The film", " is bad", " is good")
    rater = SimulatedRater(lambda texts: [float("good" in text) for text in texts], error_rate=0)
    second, tie, first = rater.rate([pair, Pair("So", " good", " very good"), Pair("It", " good", " is bad")])
    same = replace(second, pair=Pair("So", " it", " it"))
    said = [first, second, tie, replace(first, choice="skip"), same]
    assert dpo.preferences(said) == [("It", " good", " is bad"), ("The film", " is good", " is bad")]
    with pytest.raises(CourseError, match="nothing to learn from in 2 ratings"):
        dpo.preferences([tie, same])


def test_padding_changes_no_logprob(tokenizer):
    model = load()
    texts = [dpo.tokens_of(tokenizer, prompt, " was good" * n) for n, prompt in enumerate(PROMPTS, start=1)]
    with torch.no_grad():
        alone = torch.cat([dpo.logprobs_of(model, [text]) for text in texts])
        assert torch.allclose(dpo.logprobs_of(model, texts), alone, atol=1e-4)
        prompt, continuation = texts[2]
        logits = model(torch.tensor([prompt + continuation])).logits[0, len(prompt) - 1 : -1]
    own = logits.log_softmax(-1)[torch.arange(len(continuation)), continuation].sum()
    assert alone[2].item() == pytest.approx(own.item(), abs=1e-4)


def test_loss_and_gradient_are_trl_s(tokenizer, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed here: python -m helpers install trl")
    from datasets import Dataset

    rows = [
        dict(prompt=p, chosen=" was good" * (n + 1), rejected=" is a bad film") for n, p in enumerate(PROMPTS)
    ]
    settings = dict(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, beta=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = trl.DPOTrainer(
            model=load(-1),
            ref_model=load(-1),
            args=trl.DPOConfig(**settings, per_device_train_batch_size=len(rows), disable_dropout=True),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    inputs = next(iter(theirs.get_train_dataloader()))
    model, reference = theirs.model.train(), load(-1)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=chance)
    expected = theirs._compute_loss(model, inputs, False)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    # TRL's own tokens, whose chosen texts come first
    there, of_text = (inputs[name].bool() for name in ("attention_mask", "completion_mask"))
    texts = [
        (row[is_token & ~is_text].tolist(), row[is_text].tolist())
        for row, is_token, is_text in zip(inputs["input_ids"], there, of_text, strict=True)
    ]
    with torch.no_grad():
        refs = dpo.logprobs_of(reference, texts).chunk(2)
    found = dpo.dpo_loss(*dpo.logprobs_of(model, texts).chunk(2), *refs, beta=0.3).mean()
    assert found.item() == pytest.approx(expected.item(), abs=1e-5) and abs(found.item() - math.log(2)) > 0.1
    found.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4), name


def test_a_small_run_learns_what_the_rater_likes(tokenizer, fitted):
    model, history = fitted
    assert mean_reward(model, tokenizer) > mean_reward(load(), tokenizer) + 0.5
    first, last = history[0], history[-1]
    assert [row["step"] for row in history] == list(range(1, len(history) + 1))
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4) and last["loss"] < 0.5
    assert first["chosen_reward"] == pytest.approx(0, abs=1e-4) and last["accuracy"] > 0.8
    assert last["chosen_reward"] > last["rejected_reward"]


def test_the_same_run_twice(tokenizer, ratings, fitted):
    again, history = dpo.fit(load(), tokenizer, ratings, lr=1e-3, epochs=4, batch_size=16)
    assert history == fitted[1]
    for one, other in zip(again.parameters(), fitted[0].parameters(), strict=True):
        assert torch.equal(one, other)
    other_order = dpo.fit(load(), tokenizer, ratings, lr=1e-3, batch_size=16, seed=1)[1]
    assert other_order[-1] != history[len(other_order) - 1]


def test_frozen_blocks_stay_as_they_are(fitted):
    for (name, now), before in zip(fitted[0].named_parameters(), load().parameters(), strict=True):
        assert torch.equal(now, before) is not before.requires_grad, name


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(lr=0), "lr is 0: expected a number above 0"),
        (dict(beta=-1), "beta is -1: expected a number above 0"),
        (dict(epochs=0), "epochs is 0: expected a whole number of at least 1"),
        (dict(batch_size=0.5), "batch_size is 0.5: expected a whole number"),
        (dict(lr=1e20), "the run has diverged. Try a tenth"),
    ],
)
def test_what_cannot_be_fitted_with(tokenizer, ratings, changes, said):
    with pytest.raises(CourseError, match=said):
        dpo.fit(load(), tokenizer, ratings, **dict(lr=1e-3) | changes)


def test_texts_that_do_not_fit(tokenizer, ratings):
    pair = replace(ratings[0].pair, prompt=" and" * 2000)
    with pytest.raises(CourseError, match="the model takes [0-9]+: shorten it"):
        dpo.fit(load(), tokenizer, [replace(ratings[0], pair=pair, choice="first")], lr=1e-3)
    with pytest.raises(CourseError, match="a prompt has no token"):
        none = replace(ratings[0], pair=replace(pair, prompt=""), choice="first")
        dpo.fit(load(), tokenizer, [none], lr=1e-3)
    with pytest.raises(CourseError, match="no weight of the model learns"):
        dpo.fit(load().requires_grad_(False), tokenizer, ratings, lr=1e-3)
