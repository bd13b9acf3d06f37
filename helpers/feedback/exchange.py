"""Preferences to and from other trainers, in the formats they are published in: prompt, chosen, rejected."""

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers import files
from helpers.errors import CourseError
from helpers.feedback.pairs import Pair, fingerprint
from helpers.feedback.ratings import BOM, SIDES, Rating, check_types, json_object, now

COLUMNS = ("prompt", "chosen", "rejected")
IMPORT_ADVICE = "Correct this line or remove it. Nothing was imported."


def export_pairs(ratings: list[Rating], path: str | Path) -> int:
    """Write preferences as JSON lines with prompt, chosen and rejected (continuations), as preference trainers read them.

    That format has no ties and no skips: they are left out. An earlier export is replaced, and no other file is.

    Returns:
        How many were written; len(ratings) minus that is how many were left out.
    Raises:
        CourseError: the file cannot be written, or holds something else, such as the ratings; it is then as it was.
    """
    refuse_others(Path(path))
    lines = []
    for rating in ratings:
        if rating.choice in SIDES:
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

    Args:
        rater: the name these ratings go under.
    Raises:
        CourseError: the file cannot be read or holds no preference, or a line is not one; names the line.
    """
    path = Path(path)
    readers = {".jsonl": json_lines, ".json": json_lines, ".csv": csv_lines}
    if path.suffix.lower() not in readers:
        raise CourseError(f"{path}: expected a file whose name ends in {', '.join(readers)}.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CourseError(f"{path} cannot be read: {files.reason(error)}. Is the name right?") from error
    text, time = text_of(data.removeprefix(BOM), path), now()
    ratings = [
        imported(record, f"{path}, line {number}", number, rater, time)
        for number, record in readers[path.suffix.lower()](text, path)
    ]
    if not ratings:
        raise CourseError(
            f"{path} holds no preference. Expected {', '.join(COLUMNS)} on each line. Is it the right file?"
        )
    return ratings


def text_of(data: bytes, path: Path) -> str:
    """The text of a file in UTF-8."""
    wrong = data.find(b"\0")
    what = "holds a NUL byte, as files in UTF-16 do, and no text does"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        is_other = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = f"is not UTF-8 text but {'UTF-16' if is_other else 'in another encoding, such as Latin-1'}"
        wrong = error.start
    if wrong >= 0:
        line = data.count(b"\n", 0, wrong) + 1
        raise CourseError(f"{path}, line {line}: {what}. Save the file as UTF-8. Nothing was imported.")
    return text


def json_lines(text: str, path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, object) of each line that is not empty."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, json_object(line.encode("utf-8"), f"{path}, line {number}", IMPORT_ADVICE)


def csv_lines(text: str, path: Path) -> Iterator[tuple[int, dict]]:
    """(number of its first line, {column: text}) of each row."""
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
    for key in COLUMNS:
        if isinstance(record.get(key), (list, dict)):
            raise CourseError(
                f"{where}: {key!r} is a conversation (a list of messages), not a text. Write its messages as one text, as "
                f"your tokenizer's chat template does. {IMPORT_ADVICE}"
            )
    check_types({"prompt": ""} | record, dict.fromkeys(COLUMNS, str), where, IMPORT_ADVICE)
    for key in COLUMNS:
        half = re.search("[\ud800-\udfff]", record.get(key, ""))
        if half:
            raise CourseError(
                f"{where}: {key!r} holds half of a character, {half[0]!a} (character {half.start() + 1}), as a text that was cut "
                f"inside an emoji does; no page can show it. {IMPORT_ADVICE}"
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
