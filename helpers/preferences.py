"""Human preferences between pairs of texts, kept on disk.

A file of ratings is JSON lines, only ever appended to: a line for each rating, and {"undo": id, ...} for one taken back.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from helpers.errors import CourseError

CHOICES = ("first", "second", "tie", "skip")
SIDES = ("first", "second")
TYPES = {
    "id": str,
    "time": str,
    "rater": str,
    "simulated": bool,
    "prompt": str,
    "first": str,
    "second": str,
    "choice": str,
    "shown": str,
    "seconds": (int, float),
    "reason": str,
}
UNDO_TYPES = {"undo": str, "rater": str, "time": str}
NAMES = {str: "a text", bool: "true or false", (int, float): "a number"}

BOM = b"\xef\xbb\xbf"
STARTS = (b'{"id": "', b'{"undo": "')  # how each line begins that is written here
ADVICE = "Correct this line or remove it; pairs from other programs come in through helpers.exchange.import_pairs. The file is unchanged."


@dataclass(frozen=True)
class Pair:
    """Two continuations of one prompt."""

    prompt: str
    first: str
    second: str

    @functools.cached_property
    def id(self) -> str:
        """12 hex digits that follow from the three texts: the same pair has the same id everywhere."""
        return fingerprint([self.prompt, self.first, self.second])[:12]


@dataclass(frozen=True)
class Rating:
    """What one rater said about one pair.

    Args:
        id: unique in its file.
        time: when, ISO 8601 in UTC.
        rater: the rater's name.
        simulated: whether a program said it.
        pair: the pair, in its own order, whatever order it was shown in.
        choice: "first" or "second" of the pair, "tie" or "skip".
        shown: "first" or "second": which of the pair stood at the left.
        seconds: from the pair's appearing to the choice.
        reason: in the rater's words, or "".
    """

    id: str
    time: str
    rater: str
    simulated: bool
    pair: Pair
    choice: str
    shown: str
    seconds: float
    reason: str


class Ratings:
    """Ratings in a file. Opening it creates its folder, reads it, and repairs a last line that was only half written.

    A line is on disk before the rating is in memory, so a rating that is there after `add` stays there, whatever happens.
    One kernel at a time writes to a file: `add` notices when another has, and refuses.

    Args:
        path: the file, .jsonl.
    Raises:
        CourseError: the file cannot be read, or a line of it is damaged or foreign; names the line, and changes nothing.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.repaired = ""  # a sentence, where the last line had to be repaired
        self._ids: set[str] = set()  # of all ratings in the file, undone ones too
        self._standing: dict[str, Rating] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            data = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise CourseError(
                f"{self.path} cannot be read: {error.strerror}. Choose another file, or allow reading it."
            ) from error
        self._read(data)

    def _read(self, data: bytes) -> None:
        """Take in every line; only when all of them are right, repair the end of the file."""
        whole = data.rstrip(b"\0")  # a power failure can leave NUL bytes where a line was to be
        lines = whole.removeprefix(BOM).split(b"\n")
        last, number = lines[-1], len(lines)
        if half_written(last):
            lines[-1], last, whole = b"", b"", whole[: len(whole) - len(last)]
        for place, line in enumerate(lines, start=1):
            self._take(line, place)
        self._size = len(whole) + bool(last)
        if len(whole) < len(data):
            self.repaired = (
                f"{self.path}: line {number} was only half written, as when a kernel is killed or the power fails: "
                f"{len(data) - len(whole)} bytes were cut off, and no whole rating with them."
            )
        elif last:
            self.repaired = f"{self.path}: line {number} lacked its line end and was given one."
        if self.repaired:
            self._repair(len(whole), b"\n" if last else b"")

    def _repair(self, size: int, end: bytes) -> None:
        """Cut the file to `size` bytes and append `end`."""
        try:
            with open(self.path, "r+b") as file:
                file.truncate(size)
                file.seek(size)
                file.write(end)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CourseError(
                f"{self.path}: the last line needs repair, but the file cannot be written: {error.strerror}. "
                "Allow writing, or copy the file elsewhere."
            ) from error

    def _take(self, line: bytes, number: int) -> None:
        """Take in one line; empty ones are passed over."""
        if not line.strip():
            return
        where = f"{self.path}, line {number}"
        record = json_object(line, where, ADVICE)
        if "undo" in record:
            check_types(record, UNDO_TYPES, where, ADVICE)
            rating = self._standing.pop(record["undo"], None)
            if rating is None or rating.rater != record["rater"]:
                raise CourseError(
                    f"{where}: takes back rating {record['undo']!r:.60} of {record['rater']!r:.60}, but no line before it "
                    f"gives such a rating that still stands. {ADVICE}"
                )
            return
        rating = rating_of(record, where)
        if rating.id in self._ids:
            raise CourseError(f"{where}: rating {rating.id!r:.60} is there a second time. {ADVICE}")
        self._remember(rating)

    def _remember(self, rating: Rating) -> None:
        self._ids.add(rating.id)
        self._standing[rating.id] = rating

    def add(self, rating: Rating) -> None:
        """Write a rating to the disk, then keep it in memory. One whose id is in the file already is passed over.

        Raises:
            CourseError: the rating is not one, the disk is full, or the file may not be written or was changed by another
                program. The rating is then neither in the file nor in memory.
        """
        record = record_of(rating)
        rating_of(record, "this rating")  # what could not be read again is not written
        if rating.id not in self._ids:
            self._append(record)
            self._remember(rating)

    def undo(self, rater: str) -> Rating | None:
        """Take back the rater's latest rating that stands, by one more line.

        Returns:
            The rating taken back; None where there is none.
        Raises:
            CourseError: as in `add`; the rating then stands.
        """
        mine = self.standing(rater)
        if not mine:
            return None
        self._append({"undo": mine[-1].id, "rater": rater, "time": now()})
        return self._standing.pop(mine[-1].id)

    def standing(self, rater: str | None = None) -> list[Rating]:
        """The ratings of one rater, or of all, in the order given, without those taken back."""
        return [rating for rating in self._standing.values() if rater in (None, rating.rater)]

    @property
    def raters(self) -> list[str]:
        """Who has ratings that stand, in the order of their first."""
        return list(dict.fromkeys(rating.rater for rating in self._standing.values()))

    def _append(self, record: dict) -> None:
        """One line in one write, and on the disk when this returns; what was written of a line that failed is removed."""
        line = json.dumps(record).encode("ascii") + b"\n"
        try:
            with open(self.path, "ab", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != self._size:
                    raise CourseError(
                        f"{self.path} was changed by another program since it was opened here. Run the cell that opens it "
                        "again; it goes on from what the file holds now. Nothing was written."
                    )
                try:
                    if file.write(line) < len(line):  # a disk that fills up takes the beginning
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except BaseException:  # an interrupted kernel too
                    with contextlib.suppress(OSError):
                        file.truncate(self._size)
                    raise
        except OSError as error:
            raise CourseError(
                f"{self.path} could not be written: {error.strerror}. The rating was not saved. Free some space, or allow "
                "writing to the file, and rate again."
            ) from error
        self._size += len(line)


def now() -> str:
    """The time in UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def fingerprint(values: list) -> str:
    """64 hex digits that follow from `values`."""
    return hashlib.sha256(json.dumps(values).encode("ascii")).hexdigest()


def half_written(line: bytes) -> bool:
    """Whether this is the beginning of a line of ours and not the whole; a foreign text is never taken for one."""
    if not line or not any(line.startswith(start) or start.startswith(line) for start in STARTS):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def json_object(line: bytes, where: str, advice: str) -> dict:
    """The JSON object that a line holds."""
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CourseError(f"{where}: is not UTF-8 text (byte {error.start + 1}). {advice}") from error
    except (ValueError, RecursionError) as error:
        raise CourseError(
            f"{where}: is not a whole JSON object but {as_text(line)}. Expected one object on each line. {advice}"
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


def check_types(record: dict, types: dict, where: str, advice: str) -> None:
    """Refuse a record that lacks a key or has something else there than its type."""
    for key, kind in types.items():
        if key not in record:
            raise CourseError(f"{where}: lacks {key!r}. Expected {', '.join(types)}. {advice}")
        value = record[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise CourseError(f"{where}: {key!r} is {value!r:.60}. Expected {NAMES[kind]}. {advice}")


def record_of(rating: Rating) -> dict:
    """A rating as its line has it."""
    pair = {"prompt": rating.pair.prompt, "first": rating.pair.first, "second": rating.pair.second}
    values = vars(rating) | pair
    return {key: values[key] for key in TYPES}


def rating_of(record: dict, where: str) -> Rating:
    """The rating in a line.

    Raises:
        CourseError: says where, and what is wrong with it.
    """
    check_types(record, TYPES, where, ADVICE)
    for key, allowed in (("choice", CHOICES), ("shown", SIDES)):
        if record[key] not in allowed:
            raise CourseError(
                f"{where}: {key!r} is {record[key]!r:.60}. Expected one of {', '.join(allowed)}. {ADVICE}"
            )
    if not 0 <= record["seconds"] < 1e9:
        raise CourseError(
            f"{where}: 'seconds' is {record['seconds']!r:.60}. Expected seconds, from 0. {ADVICE}"
        )
    values = {key: record[key] for key in TYPES if key not in ("prompt", "first", "second")}
    return Rating(pair=Pair(record["prompt"], record["first"], record["second"]), **values)
