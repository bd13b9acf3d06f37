"""Judges of many kinds: which class is the reward, how long a text each takes, and what padding does to it."""

import json

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    ElectraConfig,
    GPT2Config,
    GPTNeoXConfig,
    OPTConfig,
    RobertaConfig,
    T5Config,
    XLNetConfig,
    pipeline,
)

from helpers.errors import CourseError
from helpers.feedback import reward_model
from helpers.judge import LONGEST, longest_input
from helpers.rewards import load_reward, sentiment_reward
from helpers.tiny import TINY

TEXTS = ["Dull.", "I loved this film, and I would watch it again.", "So"]
CLASSES = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
BERT, GPT2 = TINY / "distilbert-reviews", TINY / "gpt2-reviews"
SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)


def judge(folder, config, tokens=BERT, **of_tokenizer):
    """A small judge of that kind, with a tokenizer of ours; saved in a folder."""
    tokenizer = AutoTokenizer.from_pretrained(tokens)
    for name, value in of_tokenizer.items():
        setattr(tokenizer, name, value)
    config.vocab_size = max(len(tokenizer), config.vocab_size if config.vocab_size < 3000 else 0)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval(), tokenizer


KINDS = {  # the configuration, and how many tokens it takes
    "BERT": (BertConfig(max_position_embeddings=50, **SMALL), 50),
    "RoBERTa": (RobertaConfig(max_position_embeddings=50, pad_token_id=1, **SMALL), 48),
    "ALBERT": (AlbertConfig(max_position_embeddings=50, embedding_size=8, **SMALL), 50),
    "ELECTRA": (ElectraConfig(max_position_embeddings=50, embedding_size=8, **SMALL), 50),
    "DeBERTa": (DebertaV2Config(max_position_embeddings=50, **SMALL), 50),
    "XLNet": (XLNetConfig(d_model=16, n_layer=2, n_head=2, d_inner=16), LONGEST),
    "GPT-2": (GPT2Config(n_positions=50, n_embd=16, n_layer=2, n_head=2), 50),
    "OPT": (OPTConfig(max_position_embeddings=50, ffn_dim=16, word_embed_proj_dim=16, hidden_size=16, num_hidden_layers=2, num_attention_heads=2), 50),
    "GPT-NeoX": (GPTNeoXConfig(max_position_embeddings=50, **SMALL), 50),
    "T5": (T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0), LONGEST),
}  # fmt: skip


@pytest.mark.parametrize("named", [10**30, 512, 20], ids=["no limit named", "too many", "fewer"])
@pytest.mark.parametrize("kind", KINDS)
def test_how_many_tokens_a_judge_takes_is_found_by_trying(tmp_path, kind, named):
    config, takes = KINDS[kind]
    model, tokenizer = judge(tmp_path, type(config)(**config.to_dict() | CLASSES), model_max_length=named)
    state = torch.get_rng_state()
    model.train()
    assert longest_input(model, tokenizer) == min(takes, named)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind != "T5"]
)  # T5's wants an end token in each text
def test_long_texts_and_several_at_once_get_the_reward_that_each_has_alone(tmp_path, kind):
    config, takes = KINDS[kind]
    model, tokenizer = judge(tmp_path, type(config)(**config.to_dict() | CLASSES), model_max_length=10**30)
    texts = [*TEXTS, "film " * (takes + 20), *["A film"] * 70]
    expected = []
    for text in texts:
        row = tokenizer(text, truncation=True, max_length=takes, return_tensors="pt")
        with torch.no_grad():
            expected.append(model(**row).logits[0].softmax(0)[1].item())
    assert load_reward(str(tmp_path), "cpu")(texts) == pytest.approx(expected, abs=2e-4)
    assert len(set(expected)) > 3


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [None, "<|endoftext|>"])
@pytest.mark.parametrize("known", [True, False])
def test_a_gpt2_judge_is_padded_so_that_no_reward_changes(tmp_path, side, pad, known):
    """Without a padding token, or with padding on the left, where GPT-2 counts its positions from."""
    config = GPT2Config(n_positions=50, n_embd=16, n_layer=2, n_head=2, **CLASSES)
    tokenizer = AutoTokenizer.from_pretrained(GPT2)
    config.pad_token_id = tokenizer.eos_token_id if known else None
    model, tokenizer = judge(tmp_path, config, GPT2, padding_side=side, pad_token=pad)
    reward_fn = load_reward(str(tmp_path), "cpu")
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            expected.append(model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(0)[1].item())
    assert reward_fn(TEXTS) == pytest.approx(expected, abs=1e-5)
    assert reward_fn(TEXTS * 30) == pytest.approx(expected * 30, abs=1e-5)


def test_a_tokenizer_of_another_model_is_told(tmp_path):
    judge(tmp_path, BertConfig(**SMALL | CLASSES))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    model = AutoModelForSequenceClassification.from_config(BertConfig(**config | {"vocab_size": 2}))
    model.save_pretrained(tmp_path)
    with pytest.raises(CourseError, match="takes not even one token of its tokenizer.* and the model 2"):
        load_reward(str(tmp_path), "cpu")


def relabelled(folder, labels, **changes):
    """The tiny judge with other labels."""
    ids = dict(enumerate(labels))
    config = BertConfig(
        **SMALL, id2label=ids, label2id={label: n for n, label in ids.items()}, num_labels=len(ids), **changes
    )
    return judge(folder, config)


@pytest.mark.parametrize(
    "labels",
    [
        ["negative", "positive"],
        ["LABEL_0", "LABEL_1"],
        ["NEGATIVE", "POSITIVE "],
        ["Factual", "Useful", "Positive", "1 star"],
        ["POSITIVE", "NEGATIVE", "POSITIVE"],
    ],
)
def test_a_judge_without_exactly_one_class_positive_lists_its_classes(tmp_path, labels):
    model, tokenizer = relabelled(tmp_path, labels)
    for make in (
        lambda: load_reward(str(tmp_path), "cpu"),
        lambda: sentiment_reward(pipeline("text-classification", model, tokenizer=tokenizer, top_k=2)),
    ):
        with pytest.raises(CourseError) as error:
            make()
        assert f"has the classes {', '.join(map(repr, labels))}: expected exactly one" in str(error.value)


def test_a_judge_with_one_output(tmp_path):
    """A number is no probability; one output that is called POSITIVE is one, through a sigmoid."""
    relabelled(tmp_path, ["LABEL_0"])
    with pytest.raises(CourseError, match="has one output, 'LABEL_0', as reward models have.*learned_reward"):
        load_reward(str(tmp_path), "cpu")
    relabelled(tmp_path, ["POSITIVE"], problem_type="regression")
    with pytest.raises(CourseError, match="gives numbers .its problem_type is 'regression'"):
        load_reward(str(tmp_path), "cpu")
    model, tokenizer = relabelled(tmp_path, ["POSITIVE"])
    with torch.no_grad():
        logit = model(**tokenizer(TEXTS[1], return_tensors="pt")).logits[0, 0]
    assert load_reward(str(tmp_path), "cpu")(TEXTS)[1] == pytest.approx(logit.sigmoid().item(), abs=1e-5)


def test_several_labels_at_once_are_probabilities_of_their_own(tmp_path):
    kind = dict(problem_type="multi_label_classification")
    model, tokenizer = relabelled(tmp_path, ["POSITIVE", "FUNNY", "LONG"], **kind)
    with torch.no_grad():
        logit = model(**tokenizer(TEXTS[1], return_tensors="pt")).logits[0, 0]
    assert load_reward(str(tmp_path), "cpu")(TEXTS)[1] == pytest.approx(logit.sigmoid().item(), abs=1e-5)


@pytest.mark.parametrize("settings", [{"top_k": 2}, {"top_k": 1}, {}])
def test_of_a_pipeline_all_classes_are_read(tmp_path, settings):
    """With top_k=2 a third class was missing from what the judge said of some samples."""
    model, tokenizer = relabelled(tmp_path, ["NEGATIVE", "NEUTRAL", "POSITIVE"])
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([9.0, 6.0, -9.0]))
    model.save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    given = sentiment_reward(
        pipeline("text-classification", model, tokenizer=tokenizer, device="cpu", **settings)
    )(TEXTS)
    assert len(given) == 3 and max(given) < 0.01
    assert given == pytest.approx(load_reward(str(tmp_path), "cpu")(TEXTS), abs=1e-6)


def test_a_reward_model_of_another_kind_reads_as_much_as_it_takes(tmp_path):
    for kind in ("RoBERTa", "XLNet"):
        config, takes = KINDS[kind]
        model, tokenizer = judge(
            tmp_path, type(config)(**config.to_dict() | {"num_labels": 1}), model_max_length=10**30
        )
        model.config.pad_token_id = tokenizer.pad_token_id
        rewards = reward_model.score_texts(model, tokenizer, ["film " * (takes + 9), "film " * (takes + 99)])
        assert rewards.diff().item() == 0


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    relabelled(tmp_path / "judge", ["NEGATIVE", "POSITIVE"])
    assert len(load_reward("~/judge", "cpu")(TEXTS)) == 3
