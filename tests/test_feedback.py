"""Notebook 09's own cells: the loss, the fit, and a reader's ratings, which take the simulated rater's place."""

import math
import os
import re
import textwrap
import uuid

import nbformat
import pytest
import torch

from helpers import notebooks
from helpers.feedback.agreement import self_agreement
from helpers.feedback.ratings import Rating, Ratings, now
from helpers.feedback.reward_model import training_data
from helpers.maintain import stored_outputs

NOTEBOOK = notebooks.NOTEBOOKS / "09_human_feedback.ipynb"
BUDGET = "0.06"  # 60 ratings to train with, 40 held out


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """What the notebook's tagged cells define."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_SCALE", "tiny")
        patch.setenv("RLHF_BUDGET", BUDGET)
        patch.setenv("RLHF_OUT", str(tmp_path_factory.mktemp("out")))
        return stored_outputs.run_tagged(NOTEBOOK, "recipe")


@pytest.mark.parametrize(
    ("first", "second", "target", "loss"),
    [
        (2.0, 0.0, 1.0, math.log(1 + math.exp(-2))),
        (2.0, 0.0, 0.0, math.log(1 + math.exp(2))),
        (0.0, 0.0, 0.5, math.log(2)),
        (2.0, 0.0, 0.5, 0.5 * math.log(1 + math.exp(-2)) + 0.5 * math.log(1 + math.exp(2))),
        (-1000.0, 1000.0, 1.0, 2000.0),
    ],
)
def test_the_loss_by_hand(recipe, first, second, target, loss):
    given = recipe["preference_loss"](*(torch.tensor([value]) for value in (first, second, target)))
    assert given.item() == pytest.approx(loss, rel=1e-5)


def test_a_tie_pulls_the_rewards_together(recipe):
    margin = torch.tensor([1.5], requires_grad=True)
    recipe["preference_loss"](margin, torch.zeros(1), torch.tensor([0.5])).backward()
    assert margin.grad > 0


def test_fitted_twice_it_is_the_same_and_fits_what_it_saw(recipe):
    data = training_data(recipe["truth"].rate(recipe["pairs"]["train"]))
    one, other = recipe["fit"](data), recipe["fit"](data)
    margins = recipe["margins_on"](one, data)
    assert torch.equal(margins, recipe["margins_on"](other, data))
    assert recipe["accuracy"](margins, data).share > 0.7
    untrained = recipe["accuracy"](recipe["margins_on"](recipe["new_reward_model"](0), data), data).share
    assert recipe["accuracy"](margins, data).share > untrained
    frozen = dict(recipe["policy"].transformer.h[0].named_parameters())
    assert all(torch.equal(weight, frozen[name]) for name, weight in one.transformer.h[0].named_parameters())


def test_no_prompt_is_in_both_kinds_of_pairs(recipe):
    trained, tested = ({pair.prompt for pair in recipe["pairs"][name]} for name in ("train", "test"))
    assert trained and tested and not trained & tested


def rate(path, pairs, shown) -> Ratings:
    """Somebody's ratings: the shorter text is better."""
    ratings = Ratings(path)
    for pair in pairs:
        choice = "first" if len(pair.first) < len(pair.second) else "second"
        ratings.add(Rating(uuid.uuid4().hex, now(), "Ada", False, pair, choice, shown, 2.0, ""))
    return ratings


@pytest.mark.parametrize(("count", "used"), [(10, "simulated ratings"), (40, "your own ratings")])
def test_a_readers_ratings_take_the_simulated_raters_place(recipe, tmp_path, count, used):
    train, test = recipe["pairs"]["train"], recipe["pairs"]["test"]
    pairs = [pair for i, pair in enumerate(test) for pair in [*train[4 * i : 4 * i + 4], pair]]
    path = tmp_path / "out" / "tiny" / "ratings.jsonl"
    rate(path, pairs[:count], "first")
    assert self_agreement(rate(path, pairs[:5], "second").standing()).n == 5
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    wanted = ("is_simulated =", "people = ")
    decides, agree = (next(i for i, c in enumerate(notebook.cells) if text in c.source) for text in wanted)
    notebook.cells = notebook.cells[: agree + 1]
    env = {"RLHF_SCALE": "tiny", "RLHF_BUDGET": BUDGET, "RLHF_OUT": str(tmp_path / "out")}
    notebooks.execute(notebook, NOTEBOOK, os.environ | env)
    told = "".join(
        output.get("text", "") for cell in notebook.cells[decides:] for output in cell.get("outputs", ())
    )
    assert f"Used from here on: {used}" in told and re.search(rf"\b{count} preferences of your own", told)
    assert "Ada, twice: 5 pairs rated by both or twice, the same choice on 100%" in told


def test_a_reader_compares_blind_in_a_file_of_its_own(tmp_path):
    """Somebody who takes the longer text clicks through 25 pairs; the notebook gives their win rate, and its reward model never sees it."""
    clicks = """
    from helpers.widgets import labeller as module
    module.MIN_SECONDS = 0
    blind_labeller.rater.value = "Ada"
    for _ in range(25):
        pair, side = blind_labeller.pair, blind_labeller.side
        longer = "first" if len(pair.first) > len(pair.second) else "second"
        (blind_labeller.left if side == longer else blind_labeller.right).click()
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shows, asks = (
        next(i for i, c in enumerate(notebook.cells) if c.cell_type == "code" and text in c.source)
        for text in ("blind_labeller.view", "yours = ")
    )
    rating = nbformat.v4.new_code_cell(textwrap.dedent(clicks))
    notebook.cells = [*notebook.cells[: shows + 1], rating, *notebook.cells[shows + 1 : asks + 1]]
    env = {"RLHF_SCALE": "tiny", "RLHF_BUDGET": BUDGET, "RLHF_OUT": str(tmp_path / "out")}
    notebooks.execute(notebook, NOTEBOOK, os.environ | env)
    told = notebook.cells[-1].outputs[0]["text"]
    assert re.search(r"by you: \d+%, 95% interval \d+% to \d+%, 2\d prompts\n", told), told
    kept = Ratings(tmp_path / "out" / "tiny" / "blind.jsonl").standing()
    assert len(kept) == 25 and {rating.rater for rating in kept} == {"Ada"}
    assert Ratings(tmp_path / "out" / "tiny" / "ratings.jsonl").standing() == []
