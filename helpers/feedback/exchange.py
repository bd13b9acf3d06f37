"""Preferences to and from other trainers, in the formats they are published in: prompt, chosen, rejected."""

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers import files, tables
from helpers.errors import CourseError
from helpers.feedback.pairs import Pair, fingerprint
from helpers.feedback.ratings import SIDES, Rating, Ratings, check_types, now

COLUMNS = ("prompt", "chosen", "rejected")
IMPORT_ADVICE = "Correct this line or remove it. Nothing was imported."


def export_pairs(ratings: list[Rating], path: str | Path) -> int:
    """Write preferences as JSON lines with prompt, chosen and rejected (continuations), as preference trainers read them.

    That format has no ties and no skips: they are left out, as are preferences between identical texts. A warning counts the latter,
    and the pairs that are preferred both ways. An earlier export is replaced, and no other file is.

    Returns:
        How many were written; len(ratings) minus that is how many were left out.
    Raises:
        CourseError: the file cannot be written, or holds something else, such as the ratings; it is then as it was.
    """
    path = files.expand(path)
    refuse_others(path)
    lines = []
    for rating in without_doubts([rating for rating in ratings if rating.choice in SIDES], "the ratings"):
        texts = {"first": rating.pair.first, "second": rating.pair.second}
        chosen = texts.pop(rating.choice)
        values = (rating.pair.prompt, chosen, texts.popitem()[1])
        lines.append(json.dumps(dict(zip(COLUMNS, values))) + "\n")
    files.write_text(path, "".join(lines))
    return len(lines)


def refuse_others(path: Path) -> None:
    """Refuse a path at which is something that `export_pairs` did not write, however the path is spelled or linked."""
    try:
        if not path.exists():
            return
        wrong = "" if path.is_file() else "no file"
        for number, line in enumerate(path.read_bytes().splitlines() if not wrong else [], start=1):
            record = json_or_none(line)
            if not isinstance(record, dict):
                wrong = f"no export (line {number})"
            elif {"id", "choice"} <= record.keys() or "undo" in record:
                wrong = f"a file of ratings (line {number})"
            elif tuple(record) != COLUMNS or json.dumps(record).encode("ascii") != line:
                wrong = f"no export, or was edited (line {number})"
            if wrong:
                break
    except OSError as error:
        raise CourseError(
            f"{path} cannot be read: {files.reason(error)}. Name a file that is not there yet."
        ) from error
    if wrong:
        raise CourseError(
            f"{path} is there already and is {wrong}. Expected a new name, or that of an earlier export, which is replaced. "
            "Nothing was written. Choose another name, or move the file."
        )


def json_or_none(line: bytes) -> Any:
    """What a line of JSON holds; None where it is not one."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def import_pairs(path: str | Path, rater: str) -> list[Rating]:
    """Read preferences of other programs: JSON lines (.jsonl, .json) or .csv, with prompt, chosen and rejected.

    Without a prompt, chosen and rejected are whole texts, and the prompt is the beginning they share, up to a space. The
    alphabetically earlier text of a pair comes first, as in `pairs.choose_pairs`: so the pair is the same whichever was
    chosen, and raters can be compared. The ratings' ids follow from content and line, so `Ratings.add` passes over
    what was imported before. How long a choice took and what stood at the left is not known: 0 seconds, "first".
    Preferences between two identical texts are left out. A warning counts them, and the pairs that are preferred both ways.

    Args:
        rater: the name these ratings go under.
    Raises:
        CourseError: the file cannot be read or holds no preference, or a line is not one; names the line.
    """
    path = files.expand(path)
    readers = {".jsonl": tables.json_lines, ".json": tables.json_lines, ".csv": csv_lines}
    if path.suffix.lower() not in readers:
        raise CourseError(f"{path}: expected a file whose name ends in {', '.join(readers)}.")
    text, time = tables.text_of(tables.read_bytes(path, "the preferences"), path, IMPORT_ADVICE), now()
    found = [
        imported(record, f"{path}, line {number}", number, rater, time)
        for number, record in readers[path.suffix.lower()](text, path, IMPORT_ADVICE)
    ]
    ratings = without_doubts(found, str(path))
    if not ratings:
        raise CourseError(
            f"{path} holds no preference. Expected {', '.join(COLUMNS)} on each line. Is it the right file?"
        )
    return ratings


def read_ratings(path: str | Path, rater: str = "imported") -> list[Rating]:
    """The ratings in a file, the labeller's own or preferences of other programs: its first line says which.

    Raises:
        CourseError: as `Ratings` or `import_pairs`; or the labeller's file holds none that stands.
    """
    path = files.expand(path)
    lines = tables.read_bytes(path, "the ratings").removeprefix(tables.BOM).splitlines()
    first = json_or_none(next((line for line in lines if line.strip()), b""))
    if not isinstance(first, dict) or not ("undo" in first or "choice" in first):
        return import_pairs(path, rater)
    ratings = Ratings(path).standing()
    if not ratings:
        raise CourseError(f"{path} holds no rating that stands: all were taken back.")
    return ratings


def without_doubts(preferences: list[Rating], where: str) -> list[Rating]:
    """The preferences without those between identical texts; one warning counts these, and the pairs that are preferred both ways."""
    ratings = [rating for rating in preferences if rating.pair.first != rating.pair.second]
    alike = len(preferences) - len(ratings)
    sides = {(rating.pair, rating.choice) for rating in ratings}
    both = sum(choice == "first" and (pair, "second") in sides for pair, choice in sides)
    if alike or both:
        warnings.warn(
            f"{where}: {len(preferences)} preferences. Between identical texts, left out: {alike}. "
            f"Pairs that are preferred both ways, which contradicts itself, kept: {both}.",
            stacklevel=3,
        )
    return ratings


def csv_lines(text: str, path: Path, advice: str) -> Iterator[tuple[int, dict]]:
    """`tables.csv_lines` of a file that has the columns of preferences."""

    def check_columns(names: list[str], where: str) -> None:
        if not {"chosen", "rejected"} <= set(names):
            raise CourseError(
                f"{where}: names the columns {', '.join(names)!r:.80}. Expected chosen and rejected among them, "
                f"separated by commas. {advice}"
            )

    return tables.csv_lines(text, path, advice, check_columns)


def imported(record: dict, where: str, number: int, rater: str, time: str) -> Rating:
    """One line of a preference file as a rating."""
    for key in COLUMNS:
        if isinstance(record.get(key), (list, dict)):
            raise CourseError(
                f"{where}: {key!r} is a conversation (a list of messages), not a text. Write its messages as one text, as "
                f"your tokenizer's chat template does. {IMPORT_ADVICE}"
            )
    check_types({"prompt": ""} | record, dict.fromkeys(COLUMNS, str), where, IMPORT_ADVICE)
    for key in COLUMNS:
        tables.refuse_half_characters(record.get(key, ""), key, where, IMPORT_ADVICE)
    chosen, rejected = record["chosen"], record["rejected"]
    prompt = record.get("prompt")
    if prompt is None:
        shared = os.path.commonprefix([chosen, rejected])
        prompt = shared[: max(0, shared.rfind(" "))]
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    pair = Pair(prompt, *sorted([chosen, rejected]))
    return Rating(
        id=fingerprint([rater, number, prompt, chosen, rejected])[:32],
        time=time,
        rater=rater,
        simulated=False,
        pair=pair,
        choice="first" if chosen == pair.first else "second",
        shown="first",
        seconds=0.0,
        reason="",
    )
