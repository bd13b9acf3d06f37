"""helpers/finetune.py: perplexity counts each predicted token once; the picture shows what the labels say."""

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.errors import CourseError
from helpers.finetune import draw_batch, perplexity

END = 0


@pytest.fixture(scope="module")
def model():
    """A random GPT-2 with dropout, which perplexity has to switch off."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=30, n_positions=16, n_embd=16, n_layer=1, n_head=2, embd_pdrop=0.5)
    return GPT2LMHeadModel(config).train()


def batch_of(*rows):
    """A right-padded batch whose labels leave the padding out."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [END] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


LONG, SHORT = [5, 6, 7, 8, 9, 10, 11, 12, 13, END], [20, END]


def by_hand(model, rows):
    """Each row alone, token by token."""
    model.eval()
    losses = []
    for row in rows:
        chances = model(torch.tensor([row])).logits[0].log_softmax(-1)
        losses += [-chances[i, token].item() for i, token in enumerate(row[1:])]
    return math.exp(sum(losses) / len(losses))


@torch.no_grad()
def test_every_token_counts_once_however_it_is_batched(model):
    expected = by_hand(model, [LONG, SHORT, SHORT])
    for batches in (
        [batch_of(LONG, SHORT, SHORT)],
        [batch_of(LONG), batch_of(SHORT, SHORT)],
        [batch_of(LONG), batch_of(SHORT), batch_of(SHORT)],
    ):
        model.train()
        assert perplexity(model, batches) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_a_batch_with_nothing_to_predict_is_passed_over(model):
    nothing = batch_of(SHORT) | {"labels": torch.full((1, 2), -100)}
    assert perplexity(model, [nothing, batch_of(LONG)]) == pytest.approx(by_hand(model, [LONG]), rel=1e-5)


def test_nothing_to_predict_at_all_is_said(model):
    nothing = batch_of(SHORT) | {"labels": torch.full((1, 2), -100)}
    for batches in ([], [nothing]):
        with pytest.raises(CourseError, match="at least one token to predict"):
            perplexity(model, batches)


def test_the_picture_marks_what_is_learned_and_what_is_not():
    figure = draw_batch(batch_of(LONG, SHORT), END)
    read, learned = ([round(text.get_position()[1]) for text in axis.texts] for axis in figure.axes)
    assert (
        len(read) == 1 + 9
    )  # the end of the long row; the end of the short one and its eight places of padding
    assert len(learned) == 2
    kinds = figure.axes[1].collections[0].get_array().reshape(2, 10)
    assert kinds.tolist() == [[0] * 9 + [1], [0, 1] + [2] * 8]
