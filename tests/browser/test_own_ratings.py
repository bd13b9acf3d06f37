"""A project whose reward is ratings by hand: 30 clicks in a notebook, then `python -m helpers train` to a model, its card and a report."""

import json
import os
import re
import subprocess
import sys
from html import unescape

import pytest
from conftest import COURSE
from in_page import write_notebook
from transformers import AutoModelForCausalLM

from helpers.verdict import read_history, verdict

CLICKS = 30
PAIRS = """
import sys
sys.path.insert(0, "..")
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
from helpers import course, reviews
from helpers.compare import continue_prompts
from helpers.feedback.pairs import choose_pairs
from helpers.feedback.ratings import Ratings
from helpers.widgets.labeller import PreferenceLabeller
here = course.start()
prompts = reviews.make_prompts(here)[0][:80]
tokenizer = AutoTokenizer.from_pretrained(here.finetuned_model)
policy = AutoModelForCausalLM.from_pretrained(here.finetuned_model, dtype="float32").to(here.device)
texts = [continue_prompts(policy, tokenizer, prompts, seed) for seed in range(4)]
"""
LABELLER = """
Path("mine").mkdir()
Path("mine/prompts.txt").write_text("\\n".join(prompts))
pairs = choose_pairs(prompts, list(map(list, zip(*texts))), 60)
PreferenceLabeller(pairs, Ratings("mine/ratings.jsonl")).view
"""


def rate(reader, number: int) -> None:
    """Read the pair that shows, and choose its shorter text as rating number `number`, by a key or by a click."""
    reader.page.wait_for_timeout(400)  # the labeller takes anything quicker for a double click
    left, right = (card_of(reader.page, side) for side in ("Left", "Right"))
    if reader.by == "keyboard":
        reader.control("textbox", "Keys").focus()
        reader.page.keyboard.press("1" if len(left) < len(right) else "3")
    else:
        reader.press("button", "Left is better (1)" if len(left) < len(right) else "Right is better (3)")
    assert reader.sees(rf"Ratings in this file: Ada {number}\."), (left, right)


def card_of(page, side: str) -> str:
    """The text that stands at this side of the labeller."""
    card = page.locator(".jupyter-widgets .rlhf-card", has_text=re.compile(f"^{side}"))
    return card.inner_text().removeprefix(side).strip()


@pytest.mark.parametrize("server", ["lab"], indirect=True)
def test_thirty_ratings_by_hand_become_a_policy_with_a_report(open_notebook, screenshot, server, tmp_path):
    _, _, course = server
    write_notebook(course / "notebooks" / "by_hand.ipynb", [PAIRS, LABELLER])
    reader = open_notebook("by_hand.ipynb")
    reader.run_all()
    reader.type("Rater", "Ada")
    for number in range(1, CLICKS + 1):
        reader.by = "keyboard" if number <= CLICKS / 2 else "mouse"
        rate(reader, number)
    screenshot(reader, "rated")
    mine = course / "notebooks" / "mine"
    ratings = [json.loads(line) for line in (mine / "ratings.jsonl").read_text().splitlines()]
    assert len(ratings) == CLICKS
    for rating in ratings:
        chosen, other = rating[rating["choice"]], rating["second" if rating["choice"] == "first" else "first"]
        assert len(chosen.strip()) <= len(other.strip())

    model = tmp_path / "model"
    given = ["--prompts", mine / "prompts.txt", "--reward", mine / "ratings.jsonl", "--out", model]
    command = [sys.executable, "-m", "helpers", "train", *map(str, given)]
    done = subprocess.run(command, cwd=course, env=os.environ | COURSE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert AutoModelForCausalLM.from_pretrained(model).config.model_type == "gpt2"
    history = read_history(tmp_path / "model-checkpoints")
    assert history.evals[-1]["reward/mean"] > history.evals[0]["reward/mean"]
    # 30 clicks are 27 different pairs, of which a fifth and no less is held out
    paid = "It pays what a reward model fitted to 21 preferences in ratings.jsonl gives (right on "
    report, card = (unescape((model / name).read_text()) for name in ("report.html", "README.md"))
    assert paid in done.stdout and paid in report and f"| reward | {paid}" in card
    for line in verdict(history):
        assert line in done.stdout and line.split(":", 1)[1].strip() in report
