"""make_prompts against the reviews themselves: where its prompts come from, and that none is lost on the way."""

import pytest

from helpers import course, reviews


@pytest.mark.parametrize("words, n_eval, seed", [(4, 64, 0), (5, 200, 1), (2, 1, 2)])
def test_prompts_are_all_openings_less_the_held_out(words, n_eval, seed):
    here = course.start()
    train, held_out = reviews.make_prompts(here, words=words, n_eval=n_eval, seed=seed)
    openings = {}
    for split in ("train", "test"):
        texts = [reviews.clean(text).split() for text in reviews.load_reviews(here, split)["text"]]
        openings[split] = {" ".join(text[:words]) for text in texts if len(text) >= words}
    assert openings["train"] & openings["test"], "the splits share openings, or nothing could leak"
    assert set(held_out) <= openings["test"]
    assert set(train) == openings["train"] - set(held_out)


def test_both_lists_are_shuffled():
    here = course.start()
    train, held_out = reviews.make_prompts(here)
    first = [" ".join(text.split()[:4]) for text in reviews.load_reviews(here, "train")["text"][:100]]
    assert train[:100] != first and train != sorted(train)
    assert held_out != sorted(held_out)
