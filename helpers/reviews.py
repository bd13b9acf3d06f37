"""Reads film reviews, and makes prompts of them."""

import random
import re

from datasets import ClassLabel, Dataset, Features, Value, load_dataset

from helpers.assets import REVIEW_FILES, REVIEWS, REVISIONS
from helpers.course import Course
from helpers.errors import CourseError
from helpers.prompt_files import read_prompts  # noqa: F401  (notebook 04 takes it from here)

COLUMNS = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})


def load_reviews(here: Course, split: str) -> Dataset:
    """Film reviews with their labels.

    Args:
        here: what `course.start` returned. It decides where the reviews come from: the embedded grammar at tiny scale (20,000
            to train on, 2,000 to test on, always the same ones), IMDB at full scale.
        split: "train" or "test".

    Returns:
        A dataset with columns text and label (0 negative, 1 positive).

    Raises:
        CourseError: an unknown split, or the hub cannot be reached.
    """
    if split not in ("train", "test"):
        raise CourseError(f"there is no split {split!r}: expected 'train' or 'test'")
    if here.scale == "tiny":
        from helpers.tiny import grammar

        train, test = grammar.review_splits()
        return Dataset.from_list(train if split == "train" else test, features=COLUMNS)
    if here.assets:
        file = str(here.assets / REVIEW_FILES[split])
        return load_dataset("parquet", data_files={split: file}, split=split, features=COLUMNS)
    try:
        return load_dataset(REVIEWS, split=split, revision=REVISIONS[REVIEWS])
    except ConnectionError as error:
        raise CourseError(
            f"The reviews ({REVIEWS}) could not be fetched from huggingface.co: {error}. Try again, or set RLHF_ASSETS to a "
            "folder that holds them (`python -m helpers prefetch DIR`), or RLHF_SCALE=tiny, which needs no network."
        ) from error


def clean(text: str) -> str:
    """The text with the line breaks of IMDB's web pages ("<br />") and all runs of white space as single spaces."""
    return re.sub(r"\s+", " ", text.replace("<br />", " ")).strip()


def make_prompts(
    here: Course, words: int = 4, n_eval: int = 64, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Prompts for training and for evaluation: the first words of reviews.

    No prompt appears twice, and none is in both lists, so a rising reward on the evaluation prompts is not memory.

    Args:
        here: what `course.start` returned.
        words: how many words of a review to take; shorter reviews are left out.
        n_eval: how many evaluation prompts to take, from the test split.
        seed: decides the order.

    Returns:
        (training prompts, all there are; evaluation prompts, `n_eval` of them).

    Raises:
        CourseError: `words` or `n_eval` below 1, or fewer distinct evaluation prompts than asked for.
    """
    if words < 1 or n_eval < 1:
        raise CourseError(f"words={words}, n_eval={n_eval}: both must be at least 1")
    shuffle = random.Random(seed).shuffle
    openings = {}
    for split in ("train", "test"):
        texts = (clean(text).split() for text in load_reviews(here, split)["text"])
        openings[split] = list(dict.fromkeys(" ".join(text[:words]) for text in texts if len(text) >= words))
        shuffle(openings[split])
    held_out = openings["test"][:n_eval]
    if len(held_out) < n_eval:
        raise CourseError(
            f"n_eval={n_eval}, but the test reviews begin in only {len(held_out)} different ways when {words} words are "
            "taken. Ask for fewer prompts or more words."
        )
    seen = set(held_out)
    return [prompt for prompt in openings["train"] if prompt not in seen], held_out
