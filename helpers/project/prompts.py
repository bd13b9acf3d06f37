"""Prompts for a reader's own project: out of a file, or out of a data set by its name on the hub."""

import difflib
import re

import datasets

from helpers import assets, files, settings
from helpers.errors import CourseError
from helpers.ppo.prompts import Prompts, entry_of
from helpers.prompt_files import KEYS, READERS, prompt_of, read_prompts
from helpers.reviews import clean

NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
EXPECTED = (
    f"Expected a file ({', '.join(READERS)}), or the name of a data set on the hub, such as "
    "stanfordnlp/imdb:text with its column."
)


def prompts_from(source: str) -> Prompts:
    """The prompts in a file, as `prompt_files.read_prompts` reads them, or in a data set, NAME or NAME:COLUMN.

    Of a data set it is the split "train", or its first where it has none. Without a COLUMN it is prompt or text. All other
    columns go with the prompt to the reward function. The data set comes from the hub or from what an earlier run left in its
    cache; stanfordnlp/imdb comes out of RLHF_ASSETS where that is set.

    Raises:
        CourseError: the file cannot be read; or there is no such data set or column, or no network and nothing in the cache.
    """
    path = files.expand(source)
    if path.is_dir():
        raise CourseError(f"the prompts in {source} cannot be read: it is a folder. {EXPECTED}")
    if path.suffix.lower() in READERS or path.exists():
        return read_prompts(path)
    name, _, column = source.partition(":")
    if not NAME.fullmatch(name) or column.startswith(("\\", "/")):
        raise CourseError(f"the prompts {source!r:.200}: there is no such file. {EXPECTED}")
    return rows_of(name, column, source)


def rows_of(name: str, column: str, source: str) -> Prompts:
    """The prompts in a column of a data set; of prompt or text where `column` is empty. `source` is what the reader wrote."""
    data = load(name, source)
    chosen = column or next((key for key in KEYS if key in data.column_names), "")
    if chosen not in data.column_names:
        near = difflib.get_close_matches(chosen, data.column_names, 1)
        meant = f"Did you mean {name}:{near[0]}?" if near else f"Name one: {name}:COLUMN."
        lacks = f"no column {chosen!r:.60}" if chosen else "no column prompt or text"
        raise CourseError(
            f"the data set {name} has {lacks}. It has {', '.join(data.column_names):.300}. {meant}"
        )
    if chosen != "prompt":
        data = data.remove_columns([key for key in ("prompt",) if key in data.column_names])
        data = data.rename_column(chosen, "prompt")
    entries = [prompt_of(row, f"{name}, row {number}") for number, row in enumerate(data, start=1)]
    kept = [entry for entry in entries if entry["prompt"].strip()]
    if not kept:
        raise CourseError(
            f"the data set {name} has no text in its column {chosen}: name another, {name}:COLUMN."
        )
    return kept if len(data.column_names) > 1 else [entry["prompt"] for entry in kept]


def load(name: str, source: str) -> datasets.Dataset:
    """The split "train" of a data set, or its first; nothing that comes with it is run.

    Raises:
        CourseError: there is none of this name, or no network and nothing in the cache.
    """
    folder = settings.read_assets() if name == assets.REVIEWS else None
    if folder:
        return datasets.Dataset.from_parquet(str(folder / assets.REVIEW_FILES["train"]))
    with assets.cache_alone(name) as silent:
        try:
            splits = datasets.load_dataset(name, revision=assets.REVISIONS.get(name), token=False)
        except Exception as error:  # datasets and the hub's client have many kinds
            if silent:
                raise CourseError(
                    f"the prompts {source!r:.200}: there is no such file. A data set of this name would come from huggingface.co, "
                    f"which does not answer, and no earlier run left one here. {EXPECTED}"
                ) from error
            raise CourseError(
                f"the data set {name} cannot be loaded: {files.reason(error)}. {EXPECTED}"
            ) from error
    return splits.get("train", next(iter(splits.values())))


def split_prompts(source: str, words: int | None = None) -> tuple[Prompts, Prompts]:
    """(prompts to train on, prompts held out) of a file or a data set; its last tenth is held out, 64 at most and one at least.

    Args:
        source: as `prompts_from` takes it.
        words: the first so many words of each text are a prompt, as in notebook 04; none twice, and shorter texts are left out.
    Raises:
        CourseError: they cannot be read, or are fewer than two.
    """
    texts = prompts_from(source)
    if words is not None:
        texts = beginnings(texts, words)
    held_out = min(64, max(1, len(texts) // 10))
    if len(texts) <= held_out:
        raise CourseError(
            f"{source} has {len(texts)} prompt: at least 2 are needed, one of them to evaluate on"
        )
    return texts[:-held_out], texts[-held_out:]


def beginnings(texts: Prompts, words: int) -> list[str]:
    """The first `words` words of each text that has as many, none twice.

    Raises:
        CourseError: `words` is below 1.
    """
    if words < 1:
        raise CourseError(f"the first {words} words of a text were asked for: expected 1 or more")
    parts = (clean(entry_of(text)["prompt"]).split() for text in texts)
    return list(dict.fromkeys(" ".join(part[:words]) for part in parts if len(part) >= words))
