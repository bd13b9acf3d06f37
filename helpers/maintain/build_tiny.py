"""Train the models of the embedded world from scratch: `python -m helpers.maintain.build_tiny`.

Two cores, ten to fifteen minutes, no network, the same seeds every time. The course never imports this file; it only reads the folders it writes:

    gpt2/                  a GPT-2 that has read plain prose only
    gpt2-reviews/          the same model after film reviews
    distilbert-reviews/    the classifier that says NEGATIVE or POSITIVE
"""

import json
import math
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import (
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from helpers import files
from helpers.tiny import TINY, grammar

EOS = "<|endoftext|>"
CONTEXT = 128
PROSE_SEED, STUDY_SEED, CLASSIFIER_SEED, HARD_SEED = 11, 12, 13, 14


# ------------------------------------------------------------------------------------------------------ shared pieces


def save(name: str, *parts: PreTrainedModel | PreTrainedTokenizerBase) -> None:
    """Write the folder TINY/name whole."""

    def write(folder: Path) -> None:
        for part in parts:
            part.save_pretrained(folder)

    files.write_folder(TINY / name, write)


def batches(rows: list[tuple], size: int, rng: random.Random) -> list[list[tuple]]:
    """The rows, each a tuple whose first part is a list of token ids, in random batches of rows of like length."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i][0]), rng.random()))
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(groups)
    return [[rows[i] for i in group] for group in groups]


def pad(ids: list[list[int]], value: int) -> Tensor:
    """The lists of token ids as one tensor (rows, longest), padded on the right with `value`."""
    longest = max(map(len, ids))
    return torch.tensor([row + [value] * (longest - len(row)) for row in ids])


def optimise(
    model: PreTrainedModel,
    epochs: list[list[list[tuple]]],
    loss_of: Callable[[list[tuple]], Tensor],
    peak: float,
    title: str,
) -> None:
    """Train with AdamW, whose learning rate warms up to `peak` and then falls along a cosine to zero.

    Args:
        epochs: lists of batches.
        loss_of: from a batch to its loss, a scalar.
        title: stands before the progress bar.
    """
    total = sum(map(len, epochs))
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.01)
    warm = max(1, total // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))))
    )
    model.train()
    shown = None
    with tqdm(total=total, desc=f"{title:<18}", position=title.startswith("distil"), mininterval=1.0) as bar:
        for batch in (batch for epoch in epochs for batch in epoch):
            loss = loss_of(batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            shown = loss.item() if shown is None else 0.98 * shown + 0.02 * loss.item()
            bar.set_postfix(loss=f"{shown:.3f}", refresh=False)
            bar.update()
    model.eval()


# --------------------------------------------------------------------------------------------------- the two GPT-2s


def make_gpt2_tokenizer(texts: list[str]) -> GPT2Tokenizer:
    """A byte-level BPE as GPT-2's, learned from these texts; like GPT-2's own it has no padding token."""
    learner = ByteLevelBPETokenizer()
    learner.train_from_iterator(
        texts, vocab_size=2_000, min_frequency=2, special_tokens=[EOS], show_progress=False
    )
    with tempfile.TemporaryDirectory() as folder:
        learner.save_model(folder)
        return GPT2Tokenizer.from_pretrained(
            folder, model_max_length=CONTEXT, unk_token=EOS, bos_token=EOS, eos_token=EOS
        )


def make_gpt2(tokenizer: GPT2Tokenizer) -> GPT2LMHeadModel:
    """Four blocks, 112 wide, embeddings tied to the output layer, no dropout."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=112,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config)


def encode_to_eos(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> list[tuple[list[int]]]:
    """Token ids of each text with EOS after it, so that the model learns where a text ends."""
    return [(ids + [tokenizer.eos_token_id],) for ids in tokenizer(list(texts))["input_ids"]]


def language_loss(model: GPT2LMHeadModel, batch: list[tuple[list[int]]]) -> Tensor:
    """Mean cross-entropy of the next token, padding left out."""
    labels = pad([ids for (ids,) in batch], -100)
    inputs = labels.clamp(min=0)  # right padding: causal attention never looks at it from a real token
    logits = model(input_ids=inputs).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def train_gpt2(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerBase,
    texts_per_epoch: list[list[str]],
    peak: float,
    title: str,
    beside: Future,
) -> None:
    """Train on one core, and on a second one too as soon as the job `beside` this one has left it."""
    rng = random.Random(0)
    epochs = [batches(encode_to_eos(tokenizer, texts), 32, rng) for texts in texts_per_epoch]

    def loss(batch):
        torch.set_num_threads(2 if beside.done() else 1)
        return language_loss(model, batch)

    optimise(model, epochs, loss, peak, title)


@torch.no_grad()
def perplexity(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """exp of the mean cross-entropy per token, EOS included."""
    total = count = 0
    for batch in batches(encode_to_eos(tokenizer, texts), 64, random.Random(0)):
        n = sum(len(ids) - 1 for (ids,) in batch)
        total += language_loss(model, batch).item() * n
        count += n
    return math.exp(total / count)


# --------------------------------------------------------------------------------------------------- the classifier

SURE = {"simple": 0.97, "plain": 0.97, "negated": 0.97, "contrast": 0.93, "mixed": 0.8}
"""How sure the classifier should be of a whole review, by the plan it was written from."""
SENTENCE_END = re.compile(r"(?<=[.!?]) ")
SMALL_WORDS = frozenset("the a an and is are was of in it this that to with for".split())


def make_bert_tokenizer(texts: list[str]) -> BertTokenizer:
    """An uncased WordPiece tokenizer as DistilBERT's, learned from these texts."""
    learner = BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator(texts, vocab_size=1_800, min_frequency=2, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        learner.save_model(folder)
        return BertTokenizer.from_pretrained(folder, model_max_length=CONTEXT, do_lower_case=True)


def make_classifier(tokenizer: BertTokenizer) -> DistilBertForSequenceClassification:
    """Two blocks, 128 wide, with the usual sentiment labels."""
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        dim=128,
        hidden_dim=512,
        n_layers=2,
        n_heads=4,
        dropout=0.0,  # every epoch brings fresh reviews: there is nothing to overfit
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    return DistilBertForSequenceClassification(config)


def roughen(words: list[str], rng: random.Random) -> list[str]:
    """A few slips such as a small language model makes: a short word lost, a word said twice."""
    out = []
    for word in words:
        if word.lower() in SMALL_WORDS and rng.random() < 0.1:
            continue
        out += [word, word] if rng.random() < 0.02 else [word]
    return out


def write_nonsense(words: list[str], rng: random.Random) -> list[str]:
    """A text that says nothing, as words: keywords repeated, words in a heap, one sentence over and over."""
    sides = (grammar.PRAISE, grammar.BLAME)
    adjectives = [
        word for aspect in grammar.ASPECTS.values() for side in sides for word in aspect.adjectives[side]
    ]
    start = words[: rng.randint(0, 6)]
    kind = rng.randrange(6)
    if kind == 0:
        return start + [rng.choice(adjectives)] * rng.randint(3, 25)
    if kind == 1:
        few = rng.sample(adjectives, 3)
        return start + [rng.choice(few) for _ in range(rng.randint(4, 25))]
    if kind == 2:
        return start + rng.choices(adjectives, k=rng.randint(4, 20))
    if kind == 3:
        return start + rng.choices(words, k=rng.randint(8, 30))
    if kind == 4:
        sentence = rng.choice(" ".join(words).split(". ")).rstrip(".") + "."
        return (start if rng.random() < 0.5 else []) + sentence.split() * rng.randint(3, 5)
    return words[: rng.randint(6, 20)] + [rng.choice(adjectives)] * rng.randint(3, 15)


def cut(text: str, plan: str, rng: random.Random) -> list[str]:
    """Part of a review that keeps its label, as words.

    Its beginning: many reviews share one, so what the classifier learns for it is the share of them that ends as praise.
    Or a run of whole sentences: any run where all sentences agree, else one that reaches the end.
    """
    if rng.random() < 0.6:
        words = text.split()
        return words[: rng.randint(3, len(words))]
    sentences = SENTENCE_END.split(text)
    start = rng.randrange(len(sentences))
    end = rng.randint(start + 1, len(sentences)) if plan in ("simple", "plain", "negated") else len(sentences)
    return " ".join(sentences[start:end]).split()


def classifier_rows(
    tokenizer: PreTrainedTokenizerBase,
    reviews: list[tuple[str, int, str]],
    rng: random.Random,
    nonsense: float,
) -> list[tuple[list[int], float]]:
    """(token ids, target P(POSITIVE)) for one epoch: whole reviews, parts of reviews, and a share of nonsense worth 0.5."""
    texts, targets = [], []
    for text, label, plan in reviews:
        target = SURE[plan] if label else 1 - SURE[plan]
        draw = rng.random()
        if draw < nonsense:
            words, target = write_nonsense(text.split(), rng), 0.5
        elif draw < 0.6:
            words = cut(text, plan, rng)
        else:
            words = text.split()
        if rng.random() < 0.3:
            words = roughen(words, rng)
        texts.append(" ".join(words))
        targets.append(target)
    return list(zip(tokenizer(texts, truncation=True)["input_ids"], targets))


def classifier_loss(
    model: DistilBertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    batch: list[tuple[list[int], float]],
) -> Tensor:
    """Cross-entropy against the target probabilities."""
    ids = pad([ids for ids, _ in batch], tokenizer.pad_token_id)
    good = torch.tensor([target for _, target in batch])
    logits = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits
    return cross_entropy(logits, torch.stack([1 - good, good], dim=1))


def train_classifier(
    model: DistilBertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    held_out: set[str],
    count: int = 20_000,
) -> None:
    """Train on easy reviews first, then on negation, then on all kinds: `count` fresh ones in every lesson, none of `held_out`."""
    rng = random.Random(CLASSIFIER_SEED)
    epochs = []
    simple, negated, contrast, mixed = ("simple",), ("negated",), ("contrast",), ("mixed",)
    every = grammar.USUAL + simple * 3 + negated * 10 + contrast * 4 + mixed * 6
    for lesson, plans in enumerate([simple, simple + negated * 2] + [every] * 9):
        reviews = grammar.write_planned(count, CLASSIFIER_SEED * 1000 + lesson, plans)
        reviews = [review for review in reviews if review[0] not in held_out]
        rows = classifier_rows(tokenizer, reviews, rng, nonsense=0.12 if lesson else 0.0)
        epochs.append(batches(rows, 64, rng))
    optimise(
        model, epochs, lambda batch: classifier_loss(model, tokenizer, batch), 1e-3, "distilbert-reviews"
    )


@torch.no_grad()
def sharpen(model: DistilBertForSequenceClassification, factor: float = 1.5) -> None:
    """Scale the logits: the soft targets of training leave the classifier less sure of held-out reviews than it is right.

    Temperature scaling (Guo et al. 2017, arxiv.org/abs/1706.04599). What it is undecided about stays at 0.5.
    """
    model.classifier.weight.mul_(factor)
    model.classifier.bias.mul_(factor)


@torch.no_grad()
def praise(
    model: DistilBertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> list[float]:
    """P(POSITIVE) of each text."""
    scores = []
    for i in range(0, len(texts), 128):
        inputs = tokenizer(texts[i : i + 128], truncation=True, padding=True, return_tensors="pt")
        scores += (
            model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            .logits.softmax(-1)[:, 1]
            .tolist()
        )
    return scores


def accuracy(
    model: DistilBertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, reviews: list[dict]
) -> float:
    """The share of reviews that the classifier puts on the right side of one half."""
    scores = praise(model, tokenizer, [review["text"] for review in reviews])
    return sum((score > 0.5) == review["label"] for score, review in zip(scores, reviews)) / len(reviews)


# ------------------------------------------------------------------------------------------------------------ figures


@torch.no_grad()
def sample(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], new_tokens: int = 32
) -> list[str]:
    """Each prompt with one continuation, sampled at temperature 1."""
    texts = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=new_tokens,
            pad_token_id=tokenizer.eos_token_id,
        )
        texts.append(tokenizer.decode(out[0], skip_special_tokens=True))
    return texts


def weight_bytes() -> int:
    """The bytes of all models' weights."""
    return sum(path.stat().st_size for path in TINY.glob("*/model.safetensors"))


def held_out_reviews() -> tuple[list[dict], list[dict], set[str]]:
    """(test reviews, hard reviews, the texts of both: no training may see them)."""
    test, hard = grammar.review_splits()[1], grammar.write_hard_reviews(1_000, HARD_SEED)
    return test, hard, {review["text"] for review in test + hard}


def build_gpt2s(beside: Future) -> None:
    """Train and save gpt2/ and gpt2-reviews/, while the job `beside` trains the classifier."""
    set_seed(0)
    train = [review["text"] for review in grammar.review_splits()[0]]
    held_out = held_out_reviews()[2]
    prose = grammar.write_prose(12_000, PROSE_SEED)
    tokenizer = make_gpt2_tokenizer(prose + train)
    model = make_gpt2(tokenizer)
    train_gpt2(model, tokenizer, [prose], 3e-3, "gpt2", beside)
    save("gpt2", model, tokenizer)
    easy, usual = grammar.SIMPLE, grammar.USUAL  # easy first: else it never learns to keep to one opinion
    lessons = [
        grammar.write_planned(20_000, STUDY_SEED * 1000 + lesson, plans)
        for lesson, plans in enumerate((easy, easy, easy * 20 + usual, usual, usual))
    ]
    lessons = [[text for text, _, _ in lesson if text not in held_out] for lesson in lessons]
    train_gpt2(model, tokenizer, [*lessons, train], 3e-3, "gpt2-reviews", beside)
    save("gpt2-reviews", model, tokenizer)


def build_classifier() -> None:
    """Train and save distilbert-reviews/."""
    torch.set_num_threads(1)
    set_seed(0)
    train = [review["text"] for review in grammar.review_splits()[0]]
    tokenizer = make_bert_tokenizer(grammar.write_prose(12_000, PROSE_SEED) + train)
    model = make_classifier(tokenizer)
    train_classifier(model, tokenizer, held_out_reviews()[2])
    sharpen(model)
    save("distilbert-reviews", model, tokenizer)


def measure() -> None:
    """Write figures.json from the folders as they are, and print it with some samples."""
    set_seed(0)
    test, hard, _ = held_out_reviews()
    texts = [review["text"] for review in test]
    prompts = list(dict.fromkeys(" ".join(text.split()[:4]) for text in texts))[:256]
    tokenizer = GPT2Tokenizer.from_pretrained(TINY / "gpt2-reviews")
    before, after = (GPT2LMHeadModel.from_pretrained(TINY / name) for name in ("gpt2", "gpt2-reviews"))
    words = BertTokenizer.from_pretrained(TINY / "distilbert-reviews")
    judge = DistilBertForSequenceClassification.from_pretrained(TINY / "distilbert-reviews")
    samples = sample(after, tokenizer, prompts)
    scores = torch.tensor(praise(judge, words, samples))
    figures = {
        "grammar": grammar.fingerprint(),
        "perplexity of gpt2 on held-out reviews": round(perplexity(before, tokenizer, texts), 1),
        "perplexity of gpt2-reviews on held-out reviews": round(perplexity(after, tokenizer, texts), 2),
        "classifier accuracy on held-out reviews": round(accuracy(judge, words, test), 4),
        "classifier accuracy on hard reviews": round(accuracy(judge, words, hard), 4),
        "mean P(POSITIVE) of samples": round(scores.mean().item(), 3),
        "standard deviation of P(POSITIVE) of samples": round(scores.std().item(), 3),
        "share of distinct samples": round(len(set(samples)) / len(samples), 3),
        "megabytes of weights": round(weight_bytes() / 1e6, 2),
    }
    files.write_text(TINY / "figures.json", json.dumps(figures, indent=2) + "\n")
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    print("Samples of gpt2-reviews:", *samples[:20], sep="\n  ")


def main() -> None:
    """Build everything, the classifier in a process of its own: two cores."""
    start = time.monotonic()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as beside:
        classifier = beside.submit(build_classifier)
        build_gpt2s(classifier)
        classifier.result()
    measure()
    print(f"Built in {(time.monotonic() - start) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
