"""Human preferences between pairs of texts, kept on disk.

A file of ratings is JSON lines, only ever appended to: a line for each rating, and {"undo": id, ...} for one taken back.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from helpers import files
from helpers.errors import CourseError
from helpers.feedback.pairs import Pair
from helpers.tables import BOM, json_object

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

# how `json.dumps` writes a value of each type; at the end of a line, the beginning of one too
WRITTEN = {
    str: re.compile(
        rb'\Z|"(?:[ !#-\[\]-~]++|\\(?:["\\bfnrt]|u[0-9a-f]{4}))*+(?:"|\Z|\\(?:u[0-9a-f]{0,3})?\Z)'
    ),
    bool: re.compile(rb"true|false|(?:t|tr|tru|f|fa|fal|fals)?\Z"),
    (int, float): re.compile(rb"\Z|[0-9][-+.0-9e]*"),
}
UNREADABLE = "cannot be read: {}. Choose another file, or allow reading it."
UNWRITABLE = "could not be written: {}. The rating was not saved. Free some space, or allow writing to the file, and rate again."
ADVICE = "Correct this line or remove it; pairs from other programs come in through helpers.feedback.exchange.import_pairs. The file is unchanged."


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


@dataclass
class Content:
    """What a file of ratings says, as far as it was read.

    Args:
        ids: of all its ratings, undone ones too.
        standing: its ratings without those taken back, by id.
        lines: how many lines that is.
        size: how many bytes.
        hash: of these bytes.
        stamp: of the file when it held these bytes and no more; None where that is not sure.
    """

    ids: set[str] = field(default_factory=set)
    standing: dict[str, Rating] = field(default_factory=dict)
    lines: int = 0
    size: int = 0
    hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    stamp: tuple | None = None

    def begins(self, data: bytes) -> bool:
        """Whether these bytes begin with those that were read."""
        return hashlib.sha256(data[: self.size]).digest() == self.hash.digest()

    def copy(self) -> "Content":
        """The same once more, to be changed apart."""
        return replace(self, ids=set(self.ids), standing=dict(self.standing), hash=self.hash.copy())

    def take(self, line: bytes, path: Path) -> None:
        """Take in one line, unless it is empty.

        Raises:
            CourseError: the line is no rating, is there a second time, or takes back what does not stand.
        """
        self.lines += 1
        if not line.strip():
            return
        where = f"{path}, line {self.lines}"
        record = json_object(line, where, ADVICE)
        if "undo" in record:
            check_types(record, UNDO_TYPES, where, ADVICE)
            rating = self.standing.pop(record["undo"], None)
            if rating is None or rating.rater != record["rater"]:
                raise CourseError(
                    f"{where}: takes back rating {record['undo']!r:.60} of {record['rater']!r:.60}, but no line before it "
                    f"gives such a rating that still stands. {ADVICE}"
                )
            return
        rating = rating_of(record, where)
        if rating.id in self.ids:
            raise CourseError(f"{where}: rating {rating.id!r:.60} is there a second time. {ADVICE}")
        self.remember(rating)

    def remember(self, rating: Rating) -> None:
        """Count a rating among those that stand."""
        self.ids.add(rating.id)
        self.standing[rating.id] = rating

    def count(self, data: bytes) -> None:
        """Count bytes that were taken in as read."""
        self.size += len(data)
        self.hash.update(data)


class Ratings:
    """Ratings in a file. Opening it creates its folder, reads it, and repairs a last line that was only half written.

    A line is on disk before the rating is in memory, so a rating that is there after `add` stays there, whatever happens.
    Several kernels may write to a file: each locks it, reads what the others wrote since, and then appends. A file that was
    changed otherwise is read anew. In between, memory holds what the file held at the last `add`, `undo` or `refresh`.

    What a repair cuts off is kept beside the file (`ratings.jsonl.cut-1`). `repaired` is a sentence about what was repaired,
    or is missing, at the last of these readings; else "".

    Args:
        path: the file, .jsonl.
    Raises:
        CourseError: the file cannot be read, or a line of it is damaged or foreign; names the line, and changes nothing.
    """

    def __init__(self, path: str | Path):
        self.path = files.expand(path)
        self.repaired = ""
        self._content = Content()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CourseError(f"{self.path} {UNREADABLE.format(files.reason(error))}") from error
        self.refresh()

    def refresh(self) -> None:
        """Take in what other kernels wrote.

        Raises:
            CourseError: as in opening; or the file is gone. Memory stays as it was.
        """
        # a lock leaves a file: none beside ratings that are not there yet
        if self._content.size or os.path.lexists(self.path):
            with self._locked(UNREADABLE):
                self._catch_up()

    def add(self, rating: Rating) -> None:
        """Write a rating to the disk, then keep it in memory. One whose id is in the file already is passed over.

        Raises:
            CourseError: the rating is not one, the disk is full, the file may not be written, is gone, or has a damaged line.
                The rating is then neither in the file nor in memory.
        """
        record = record_of(rating)
        rating_of(record, "this rating")  # what could not be read again is not written
        with self._locked(UNWRITABLE):
            self._catch_up()
            if rating.id not in self._content.ids:
                stamp = self._append(record)
                self._content.remember(rating)
                self._content.stamp = stamp

    def undo(self, rater: str) -> Rating | None:
        """Take back the rater's latest rating that stands, by one more line.

        Returns:
            The rating taken back; None where there is none.
        Raises:
            CourseError: as in `add`; the rating then stands.
        """
        with self._locked(UNWRITABLE):
            self._catch_up()
            mine = self.standing(rater)
            if not mine:
                return None
            stamp = self._append({"undo": mine[-1].id, "rater": rater, "time": now()})
            del self._content.standing[mine[-1].id]
            self._content.stamp = stamp
        return mine[-1]

    def standing(self, rater: str | None = None) -> list[Rating]:
        """The ratings of one rater, or of all, in the order given, without those taken back."""
        return [rating for rating in self._content.standing.values() if rater in (None, rating.rater)]

    @property
    def raters(self) -> list[str]:
        """Who has ratings that stand, in the order of their first."""
        return list(dict.fromkeys(rating.rater for rating in self._content.standing.values()))

    @contextlib.contextmanager
    def _locked(self, failed: str):
        """While the block runs, no other kernel works on the file; an error of the disk becomes a sentence, by `failed`."""
        place = Path(os.path.realpath(self.path))  # of a file with several names, one is locked
        try:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(files.locked(place))
                except OSError as error:  # the folder, or another user's lock, may not be written to
                    if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                        raise
                    stack.enter_context(files.locked(place, beside=False))
                yield
        except OSError as error:
            raise CourseError(f"{self.path} {failed.format(files.reason(error))}") from error

    def _catch_up(self) -> None:
        """Read what other programs appended since, or the whole file where they changed it otherwise. The file is locked."""
        self.repaired = ""
        data, stamp = b"", None
        if self.path.exists():
            with open(self.path, "rb", buffering=0) as file:
                stamp = stamp_of(file)
                if stamp == self._content.stamp:
                    return
                data = file.read()
        if self._content.size and not data.strip(b"\0"):
            raise CourseError(
                f"{self.path} was moved, deleted or emptied since it was opened here, and nothing was written. Put the file "
                "back; or run the cell that opens it again, which begins a new file. What this kernel remembers of the old "
                f"one, {len(self._content.standing)} ratings, `standing()` gives until then."
            )
        if data:
            self._read(data, stamp)

    def _read(self, data: bytes, stamp: tuple) -> None:
        """Take in every line that is new; only when all of them are right, repair the end of the file."""
        known = self._content
        content = known.copy() if known.stamp and known.begins(data) else Content()
        new = data[content.size :]
        whole = new.rstrip(b"\0")  # a power failure can leave NUL bytes where a line was to be
        last = whole.removeprefix(b"" if content.size else BOM).split(b"\n")[-1]
        if cut_short(last):
            whole, last = whole[: len(whole) - len(last)], b""
        for line in whole.removeprefix(b"" if content.size else BOM).split(b"\n"):
            content.take(line, self.path)
        cut, end = new[len(whole) :], b"\n" if last else b""
        number = content.lines
        content.lines -= not last  # what follows the last line end is no line
        content.count(whole + end)
        content.stamp = stamp
        if cut or end:
            content.stamp, kept = self._repair(len(data), cut, end)
            self.repaired = f"{self.path}: line {number} lacked its line end and was given one."
        if cut:
            self.repaired = (
                f"{self.path}: line {number} was only half written, as when a kernel is killed or the power fails: "
                f"{len(cut)} bytes were cut off, and no whole rating with them{f'; they are kept in {kept}' if kept else ''}."
            )
        missing = len(known.ids - content.ids)
        if missing:
            self.repaired = (
                f"{self.path} was changed by another program: {missing} ratings that this kernel had read are no longer in "
                f"it. {self.repaired}".rstrip()
            )
        self._content = content

    def _repair(self, size: int, cut: bytes, end: bytes) -> tuple[tuple, Path | None]:
        """Cut `cut` off the end of a file of `size` bytes, and append `end`. Before, the disk holds `cut` in another file.

        Returns:
            The file's stamp, and where `cut` is kept; None where it is nothing but NUL bytes.
        """
        kept = None
        try:
            with open(self.path, "r+b", buffering=0) as file:
                self._check_size(file, size)
                if cut.strip(b"\0"):
                    kept = keep_beside(self.path, cut)
                if cut:
                    file.truncate(size - len(cut))
                if end:
                    file.seek(size - len(cut))
                    file.write(end)
                files.sync(file.fileno())
                return stamp_of(file), kept
        except OSError as error:
            raise CourseError(
                f"{self.path}: the last line needs repair, but that cannot be written: {files.reason(error)}. "
                "Allow writing, free some space, or copy the file elsewhere."
            ) from error

    def _append(self, record: dict) -> tuple:
        """Append one line in one write, and wait until the disk holds it. What was written of a line that failed is removed.

        Returns:
            The file's stamp, to be kept once memory has the rating too: where an interrupt comes between, the file is read anew.
        """
        line = json.dumps(record).encode("ascii") + b"\n"
        content = self._content
        content.stamp = None
        is_new = not self.path.exists()
        with open(self.path, "a+b", buffering=0) as file:
            self._check_size(file, content.size)
            try:
                if is_new:
                    files.sync(self.path.parent)
                if file.write(line) < len(line):  # a disk that fills up takes the beginning
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                files.sync(file.fileno())
            except BaseException:  # an interrupted kernel too
                with contextlib.suppress(OSError):
                    take_away(file, content.size, line)
                raise
            content.count(line)
            content.lines += 1
            return stamp_of(file)

    def _check_size(self, file: FileIO, size: int) -> None:
        """Refuse a file to which a program that asks for no lock wrote just now."""
        if os.fstat(file.fileno()).st_size != size:
            raise CourseError(
                f"{self.path} is being changed by another program right now. Nothing was written. Try again when that is done."
            )


def stamp_of(file: FileIO) -> tuple:
    """Device, number, size and time of a file: without reading it they tell whether it is another, or was changed."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def take_away(file: FileIO, begin: int, line: bytes) -> None:
    """Remove what was written of `line` at byte `begin`, unless something else follows: what others wrote is never cut off."""
    file.seek(begin)
    if line.startswith(file.read()):
        file.truncate(begin)


def keep_beside(path: Path, data: bytes) -> Path:
    """Write a file of the first free name such as ratings.jsonl.cut-1; it is on the disk when this returns."""
    kept = files.free_name(path, "cut")
    try:
        with open(kept, "xb", buffering=0) as file:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            files.sync(file.fileno())
        files.sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            kept.unlink(missing_ok=True)
        raise
    return kept


def now() -> str:
    """The time in UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cut_short(line: bytes) -> bool:
    """Whether this is the beginning of a line that was written here, and not the whole.

    Every byte must be as `json.dumps` writes it, up to the end: a foreign or edited line is never taken for one.
    """
    return line != b"" and any(is_beginning(line, types) for types in (TYPES, UNDO_TYPES))


def is_beginning(line: bytes, types: dict) -> bool:
    """Whether `line` is the beginning, and no more, of a line with the keys and the kinds of values in `types`."""
    place, before = 0, b"{"
    for key, kind in types.items():
        name = before + f'"{key}": '.encode("ascii")
        if not line.startswith(name, place):
            return name.startswith(line[place:])
        value = WRITTEN[kind].match(line, place + len(name))
        if value is None or value.end() == len(line):
            return value is not None
        place, before = value.end(), b", "
    return False


def check_types(record: dict, types: dict, where: str, advice: str) -> None:
    """Refuse a record that lacks a key of `types`, or has a value of another type there; `where` and `advice` as in `tables.json_object`.

    Raises:
        CourseError: names the key.
    """
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
