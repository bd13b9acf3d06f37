"""Preferences to and from other trainers, in the formats they are published in: prompt, chosen, rejected."""

import csv
import io
import json
import os
from pathlib import Path

from helpers.course import atomic_write
from helpers.errors import CourseError
from helpers.preferences import BOM, SIDES, Pair, Rating, check_types, fingerprint, json_object, now

IMPORT_ADVICE = "Correct this line or remove it. Nothing was imported."


def export_pairs(ratings: list[Rating], path) -> int:
    """Write preferences as JSON lines with prompt, chosen and rejected (continuations), as preference trainers read them.

    That format has no ties and no skips: they are left out.

    Returns:
        How many were written; len(ratings) minus that is how many were left out.
    Raises:
        CourseError: the file cannot be written; it is then as it was.
    """
    lines = []
    for rating in ratings:
        if rating.choice in SIDES:
            texts = {"first": rating.pair.first, "second": rating.pair.second}
            chosen = texts.pop(rating.choice)
            record = {"prompt": rating.pair.prompt, "chosen": chosen, "rejected": texts.popitem()[1]}
            lines.append(json.dumps(record) + "\n")
    atomic_write(path, "".join(lines))
    return len(lines)


def import_pairs(path, rater: str) -> list[Rating]:
    """Read preferences of other programs: JSON lines (.jsonl, .json) or .csv, with prompt, chosen and rejected.

    Without a prompt, chosen and rejected are whole texts, and the prompt is the beginning they share, up to a space. Of each
    pair the alphabetically earlier text comes first, as in `raters.choose_pairs`: so the pair is the same whichever was
    chosen, and raters can be compared. The ratings' ids follow from content and line, so `Ratings.add` passes over
    what was imported before. How long a choice took and what stood at the left is not known: 0 seconds, "first".

    Args:
        rater: the name these ratings go under.
    Raises:
        CourseError: the file cannot be read, or a line is not such a preference; names the line.
    """
    path = Path(path)
    readers = {".jsonl": json_lines, ".json": json_lines, ".csv": csv_lines}
    if path.suffix.lower() not in readers:
        raise CourseError(f"{path}: expected a file whose name ends in {', '.join(readers)}.")
    try:
        data = path.read_bytes().removeprefix(BOM)
    except OSError as error:
        raise CourseError(f"{path} cannot be read: {error.strerror}. Is the name right?") from error
    time = now()
    return [
        imported(record, f"{path}, line {number}", number, rater, time)
        for number, record in readers[path.suffix.lower()](data, path)
    ]


def json_lines(data: bytes, path: Path):
    """(line number, object) of each line that is not empty."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield number, json_object(line, f"{path}, line {number}", IMPORT_ADVICE)


def csv_lines(data: bytes, path: Path):
    """(number of its first line, {column: text}) of each row."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CourseError(f"{path}, line {line}: is not UTF-8 text. Save it as UTF-8.") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns, line = None, 1
    try:
        for row in rows:
            where, start = f"{path}, line {line}", line
            line = rows.line_num + 1
            if not row:
                continue
            if columns is None:
                columns = row
                if not {"chosen", "rejected"} <= set(columns):
                    raise CourseError(
                        f"{where}: names the columns {', '.join(columns)!r:.80}. Expected chosen and rejected among them, "
                        f"separated by commas. {IMPORT_ADVICE}"
                    )
            elif len(row) != len(columns):
                raise CourseError(
                    f"{where}: has {len(row)} cells for {len(columns)} columns. {IMPORT_ADVICE}"
                )
            else:
                yield start, dict(zip(columns, row))
    except csv.Error as error:
        raise CourseError(f"{path}, line {line}: is not CSV: {error}. {IMPORT_ADVICE}") from error


def imported(record: dict, where: str, number: int, rater: str, time: str) -> Rating:
    """One line of a preference file as a rating."""
    for key in ("prompt", "chosen", "rejected"):
        if isinstance(record.get(key), (list, dict)):
            raise CourseError(
                f"{where}: {key!r} is a conversation (a list of messages), not a text. Write its messages as one text, as "
                f"your tokenizer's chat template does. {IMPORT_ADVICE}"
            )
    check_types(
        {"prompt": ""} | record, dict.fromkeys(("prompt", "chosen", "rejected"), str), where, IMPORT_ADVICE
    )
    chosen, rejected = record["chosen"], record["rejected"]
    if chosen == rejected:
        raise CourseError(f"{where}: 'chosen' and 'rejected' are the same text. {IMPORT_ADVICE}")
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
