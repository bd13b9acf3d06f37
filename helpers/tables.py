"""Files of records, one reader for each format. What a file is follows from its ending and its content; nothing is guessed.

Each reader yields the number of a record (its line, entry or row, from 1), and the record. `advice` ends the message of an error.
"""

import codecs
import csv
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers import files
from helpers.errors import CourseError

BOM = b"\xef\xbb\xbf"
# how files begin that are no text, whatever they are called
BEGINNINGS = {
    b"PAR1": "parquet",
    b"PK\x03\x04": "a zip archive, as .xlsx, .docx and .zip files are",
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xd0\xcf\x11\xe0": "an old .xls or .doc file",
    b"%PDF": "PDF",
    b"{\\rtf": "RTF",
    b"SQLite format 3": "a database of SQLite",
    b"ARROW1": "Arrow",
    b"\x93NUMPY": "an array of numpy",
}


def read_bytes(path: Path, what: str) -> bytes:
    """All of a file; `what` says what is in it, such as "the prompts".

    Raises:
        CourseError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise CourseError(
            f"{what} in {path} cannot be read: {files.reason(error)}. Is the name right?"
        ) from error


def refuse_no_text(data: bytes, path: Path, advice: str) -> None:
    """Refuse what begins as a file of another kind does.

    Raises:
        CourseError: says what kind.
    """
    for beginning, kind in BEGINNINGS.items():
        if data.startswith(beginning):
            raise CourseError(f"{path}, line 1: is no text but {kind}. {advice}")


def text_of(data: bytes, path: Path, advice: str) -> str:
    """The text of a file in UTF-8, without its byte order mark.

    Raises:
        CourseError: it is in another encoding, or no text; names the line.
    """
    data = data.removeprefix(BOM)
    refuse_no_text(data, path, advice)
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
        raise CourseError(f"{path}, line {line}: {what}. Save the file as UTF-8. {advice}")
    return text


def json_lines(text: str, path: Path, advice: str) -> Iterator[tuple[int, dict]]:
    """(line number, object) of each line that is not empty."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, json_object(line.encode("utf-8"), f"{path}, line {number}", advice)


def json_object(line: bytes, where: str, advice: str) -> dict:
    """The JSON object that a line holds.

    Args:
        where: begins the message of an error, and `advice` ends it.
    Raises:
        CourseError: the line holds something else.
    """
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CourseError(f"{where}: is not UTF-8 text (byte {error.start + 1}). {advice}") from error
    except json.JSONDecodeError as error:
        raise CourseError(
            f"{where}: is not a whole JSON object but {as_text(line)}. Expected one object on each line. {advice}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CourseError(
            f"{where}: holds a number of too many digits, or lists in lists too deep: {as_text(line)}. {advice}"
        ) from error
    if not isinstance(record, dict):
        raise CourseError(
            f"{where}: is a JSON {'list' if isinstance(record, list) else 'value'}, not an object: {as_text(line)}. "
            f"Expected one object on each line; pandas writes that with to_json(path, orient='records', lines=True). {advice}"
        )
    return record


def as_text(line: bytes) -> str:
    """The beginning of a line for a message."""
    return f"{line[:60].decode('utf-8', 'replace')!r}{'…' if len(line) > 60 else ''}"


def csv_lines(
    text: str,
    path: Path,
    advice: str,
    check_columns: Callable[[list[str], str], None],
    delimiter: str = ",",
) -> Iterator[tuple[int, dict]]:
    """(number of its first line, {column: text}) of each row; the first row names the columns.

    `check_columns(names, where)` raises a CourseError where these are not the right ones.

    Raises:
        CourseError: a row has more or fewer cells than there are columns, or a column comes twice; names the line.
    """
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    columns, line = None, 1
    try:
        for row in rows:
            where, start = f"{path}, line {line}", line
            line = rows.line_num + 1
            if not row:
                continue
            if columns is None:
                columns = row
                check_columns(columns, where)
                if len(set(columns)) < len(columns):
                    raise CourseError(f"{where}: names a column twice: {', '.join(columns)!r:.80}. {advice}")
            elif len(row) != len(columns):
                raise CourseError(
                    f"{where}: has {len(row)} cells for {len(columns)} columns ({', '.join(columns)!r:.80}). {advice}"
                )
            else:
                yield start, dict(zip(columns, row))
    except csv.Error as error:
        raise CourseError(f"{path}, line {line}: is not CSV: {error}. {advice}") from error


def json_list(text: str, path: Path, advice: str) -> Iterator[tuple[int, object]]:
    """(number, entry) of each entry of a file that is one JSON list.

    Raises:
        CourseError: it is something else.
    """
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        lines = "JSON lines, whose ending is .jsonl" if error.msg == "Extra data" else f"no JSON: {error.msg}"
        raise CourseError(f"{path}, line {error.lineno}: is {lines}. {advice}") from error
    except (ValueError, RecursionError) as error:
        raise CourseError(
            f"{path}: holds a number of too many digits, or lists in lists too deep. {advice}"
        ) from error
    if not isinstance(entries, list):
        raise CourseError(f"{path}: holds {entries!r:.60}. Expected a list. {advice}")
    yield from enumerate(entries, start=1)


def parquet_rows(path: Path, advice: str) -> Iterator[tuple[int, dict]]:
    """(number, {column: value}) of each row of a parquet file.

    Raises:
        CourseError: it is none, or is damaged.
    """
    from datasets import Dataset

    if not read_bytes(path, "the table").startswith(b"PAR1"):
        raise CourseError(f"{path}: is no parquet file, although its name says so. {advice}")
    try:
        with tempfile.TemporaryDirectory() as cache:
            rows = Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True).to_list()
    except Exception as error:  # pyarrow and datasets have many kinds for what is damaged
        raise CourseError(f"{path}: cannot be read as parquet: {files.reason(error)}. {advice}") from error
    yield from enumerate(rows, start=1)


def refuse_half_characters(text: str, key: str, where: str, advice: str) -> None:
    """Refuse a text with half of a surrogate pair in it, which no tokenizer takes and no page shows.

    Raises:
        CourseError: names the place.
    """
    half = re.search("[\ud800-\udfff]", text)
    if half:
        raise CourseError(
            f"{where}: {key!r} holds half of a character, {half[0]!a} (character {half.start() + 1}), as a text that was cut "
            f"inside an emoji does; no page can show it. {advice}"
        )
