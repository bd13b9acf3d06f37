"""Preferences on disk: damage, foreign files, agreement, export and import, the simulated rater, and the choice of pairs."""

import contextlib
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import files
from helpers.errors import CourseError
from helpers.feedback.agreement import Share, agreement, self_agreement, wilson
from helpers.feedback.exchange import export_pairs, import_pairs
from helpers.feedback.pairs import Pair, choose_pairs, shared_words
from helpers.feedback.ratings import Rating, Ratings, record_of
from helpers.feedback.simulated import SimulatedRater

PAIR = Pair("The film was", " good.", " bad.")
ODD = [
    'quote " comma, line\nend\r\n',
    "\ud800 lone",
    "\u2028 café 🎬",
    "NUL \x00",
    "",
    "\\u0041",
    "\ufeffBOM",
]


def rating(number, choice="first", rater="Ann", pair=PAIR, **changes):
    values = {"time": "2026-01-02T03:04:05+00:00", "simulated": False, "shown": "first", "seconds": 1.5}
    return Rating(
        id=f"{number:032x}", rater=rater, pair=pair, choice=choice, **(values | {"reason": ""} | changes)
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ratings" / "mine.jsonl"


@pytest.fixture
def three(path):
    """A file of three ratings, and the ratings."""
    ratings = Ratings(path)
    given = [rating(number) for number in range(3)]
    for one in given:
        ratings.add(one)
    return given


# The file


def test_pairs_have_the_same_id_everywhere():
    assert PAIR.id == Pair("The film was", " good.", " bad.").id == "45c4a584ed26"
    assert (
        len({PAIR.id, Pair("The film was", " bad.", " good.").id, Pair("The film", " was good.", " bad.").id})
        == 3
    )


def test_what_is_added_is_read_again(path):
    ratings = Ratings(path)
    given = [rating(1), rating(2, "tie", "Ben", reason="both dull"), rating(3, "skip", simulated=True)]
    for one in given:
        ratings.add(one)
        assert Ratings(path).standing() == ratings.standing()
    assert Ratings(path).standing() == given and Ratings(path).repaired == ""
    assert ratings.standing("Ben") == [given[1]] and ratings.raters == ["Ann", "Ben"]
    assert list(json.loads(path.read_text().splitlines()[1])) == [
        *(
            "id",
            "time",
            "rater",
            "simulated",
            "prompt",
            "first",
            "second",
            "choice",
            "shown",
            "seconds",
            "reason",
        )
    ]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_texts_are_kept_exactly(path, text):
    given = rating(1, pair=Pair(text, text + "a", text + "b"), rater=text, reason=text)
    Ratings(path).add(given)
    assert (
        Ratings(path).standing() == [given]
        and path.read_bytes().isascii()
        and path.read_bytes().count(b"\n") == 1
    )


def test_the_same_id_again_is_passed_over(path, three):
    ratings, before = Ratings(path), path.read_bytes()
    ratings.add(replace(three[1], choice="tie"))
    assert path.read_bytes() == before and ratings.standing() == three
    ratings.undo("Ann")
    ratings.add(three[2])  # undone, but still in the file
    assert ratings.standing() == Ratings(path).standing() == three[:2]


def test_undo_takes_back_the_raters_latest_that_stands(path):
    ratings = Ratings(path)
    for one in [rating(1), rating(2), rating(3, rater="Ben")]:
        ratings.add(one)
    assert [ratings.undo("Ann"), ratings.undo("Ann"), ratings.undo("Ann")] == [rating(2), rating(1), None]
    assert ratings.standing() == Ratings(path).standing() == [rating(3, rater="Ben")]
    assert ratings.raters == ["Ben"] and len(path.read_text().splitlines()) == 5
    assert set(json.loads(path.read_text().splitlines()[-1])) == {"undo", "rater", "time"}


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"choice": "left"}, "'choice' is 'left'"),
        ({"shown": "left"}, "'shown' is 'left'"),
        ({"seconds": float("nan")}, "'seconds' is nan"),
        ({"seconds": -1.0}, "'seconds' is -1.0"),
        ({"simulated": 0}, "'simulated' is 0"),
        ({"pair": Pair("a", "b", None)}, "'second' is None"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(path, three, changes, says):
    ratings, before = Ratings(path), path.read_bytes()
    with pytest.raises(CourseError, match=says):
        ratings.add(replace(rating(9), **changes))
    assert path.read_bytes() == before and ratings.standing() == three


# Damage


def kept(path, ratings):
    """What the last repair says it kept beside the file; every repair before kept a file of its own."""
    files = [other for other in path.parent.iterdir() if other.name.startswith(f"{path.name}.cut-")]
    last = path.with_name(f"{path.name}.cut-{len(files)}")
    assert f"kept in {last}" in ratings.repaired
    return last.read_bytes()


# every escape that json writes, and both truths; numbers with a point, without, and with an exponent
WRITTEN = [
    rating(1, rater='"\\/\b\f\n\r\t', pair=Pair("\x00\x1f\x7fé", "\ud800 🎬", "\u2028"), seconds=1.25e-05),
    rating(2, "tie", "", Pair("", "", " "), simulated=True, seconds=7, reason="\\u0041\\"),
    rating(3, seconds=123456789.5),
]


@pytest.mark.parametrize("last", WRITTEN, ids=lambda one: one.id[-1])
def test_a_line_of_anything_cut_anywhere_is_repaired(path, three, last):
    ratings, before = Ratings(path), path.read_bytes()
    ratings.add(last)
    whole = path.read_bytes()
    for size in range(len(before) + 1, len(whole) - 1):
        path.write_bytes(whole[:size])
        ratings = Ratings(path)
        assert "line 4 was only half written" in ratings.repaired and ratings.standing() == three
        assert path.read_bytes() == before and kept(path, ratings) == whole[len(before) : size]


def edits(line):
    """A line with something wrong before its end, as a hand in an editor leaves it."""
    half = line[:-40]
    yield "a quote too many", line.replace('" good.', '"" good.')
    yield "a comma missing", line.replace('", "first"', '" "first"', 1)
    yield "a name misspelled", half.replace('"time"', '"tine"')
    yield "a bare é", half.replace("The film", "The café film")
    yield "a tabulator", half.replace("The film", "The\tfilm")
    yield "True", line[:-5].replace("false", "False")
    yield "an escape that is none", half.replace("The film", "The \\quiet film")
    yield "capitals in an escape", half.replace("The film", "\\u00E9 film")
    yield "a name in front", "x" + half
    yield "a word after it", line + " checked"
    yield "a brace too many", line + "}"
    yield "another object after it", line + line[:20]
    yield "spaces", line[:-5].replace('": ', '" : ')
    yield "cut with its line end", half + "\n"
    yield "cut by another editor's line end", half + "\r"
    yield "cut, with an empty line", half + "\n\n"


@pytest.mark.parametrize("zeros", [0, 300])
def test_an_edited_last_line_is_never_thrown_away(path, three, zeros):
    """Only what may have been written here and cut off by a kill is cut off; all else is the reader's."""
    whole = path.read_text()
    begins = whole.rindex("\n", 0, -1) + 1
    for name, line in edits(whole[begins:].strip()):
        damaged = whole[:begins].encode() + line.encode() + b"\0" * zeros
        path.write_bytes(damaged)
        with pytest.raises(CourseError, match=f"{path}, line 3: .*Correct this line.*unchanged"):
            Ratings(path)
        assert path.read_bytes() == damaged and set(os.listdir(path.parent)) <= LEFT, name


LEFT = {"mine.jsonl", ".mine.jsonl.lock"}


def test_a_line_edited_in_an_open_file(path, three):
    """The kernel that has the file open neither writes to it nor forgets; with the line put right it goes on."""
    ratings, whole = Ratings(path), path.read_bytes()
    for act in (lambda: ratings.add(rating(9)), lambda: ratings.undo("Ann"), ratings.refresh):
        path.write_bytes(damaged := whole.replace(b'"seconds": 1.5', b'"seconds": x1.5', 2))
        with pytest.raises(CourseError, match="line 1: is not a whole JSON object"):
            act()
        assert path.read_bytes() == damaged and ratings.standing() == three
    path.write_bytes(whole.replace(b'"reason": ""', b'"reason": "I reconsidered"', 1))
    ratings.add(rating(9))
    assert ratings.standing() == Ratings(path).standing()
    assert [one.reason for one in ratings.standing()] == ["I reconsidered", "", "", ""]
    assert not ratings.repaired


def test_an_edit_of_the_same_length_is_noticed(path, three):
    ratings = Ratings(path)
    path.write_bytes(path.read_bytes().replace(b"good.", b"food."))
    os.utime(path, (1, 1))  # whatever the clock's steps are
    ratings.add(rating(9))
    assert [one.pair.first for one in ratings.standing()] == [" food."] * 3 + [" good."]


def test_an_editor_that_replaces_the_file(path, three):
    ratings = Ratings(path)
    new = path.with_name("new")
    new.write_bytes(path.read_bytes() + (json.dumps(json.loads(LINE)) + "\n").encode())
    os.replace(new, path)
    ratings.add(rating(9))
    assert len(ratings.standing()) == 5 and ratings.standing() == Ratings(path).standing()


def test_lines_that_were_removed_are_missed_in_words(path, three):
    ratings = Ratings(path)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    ratings.add(rating(9))
    assert ratings.standing() == Ratings(path).standing() == [three[1], rating(9)]
    assert "2 ratings that this kernel had read are no longer in it" in ratings.repaired
    ratings.add(rating(10))
    assert not ratings.repaired


@pytest.mark.parametrize("tail", [b"\0" * 9, b'{"id": "ab' + b"\0" * 9, b'{"id": "ab'])
def test_what_is_kept_of_a_tail_of_nul_bytes(path, three, tail):
    before = path.read_bytes()
    path.write_bytes(before + tail)
    ratings = Ratings(path)
    assert "line 4 was only half written" in ratings.repaired and path.read_bytes() == before
    if tail.strip(b"\0"):
        assert kept(path, ratings) == tail
    else:
        assert "kept in" not in ratings.repaired and set(os.listdir(path.parent)) <= LEFT


def test_what_is_cut_off_is_on_the_disk_elsewhere_before(path, three, monkeypatch):
    before = path.read_bytes()
    path.write_bytes(before + b'{"id": "ab')
    seen = []

    def fsync(handle):
        beside = path.with_name("mine.jsonl.cut-1")
        seen.append((beside.read_bytes(), path.read_bytes() == before))

    monkeypatch.setattr(os, "fsync", fsync)
    Ratings(path)
    # the file beside, its folder, and then the file that was cut
    assert seen == [(b'{"id": "ab', False), (b'{"id": "ab', False), (b'{"id": "ab', True)]


def test_where_nothing_can_be_kept_nothing_is_cut(path, three):
    path.write_bytes(damaged := path.read_bytes() + b'{"id": "abcdef')
    resource = pytest.importorskip("resource", reason="Windows has none")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
    try:
        with pytest.raises(CourseError, match="needs repair, but that cannot be written: No space left"):
            Ratings(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == damaged and set(os.listdir(path.parent)) <= LEFT


def test_a_last_line_cut_anywhere_is_repaired(path, three):
    whole = path.read_bytes()
    begins = whole.rindex(b"\n", 0, -1) + 1
    for size in range(begins + 1, len(whole) - 1):
        path.write_bytes(whole[:size])
        ratings = Ratings(path)
        assert ratings.standing() == three[:2] and "line 3 was only half written" in ratings.repaired
        assert f"{size - begins} bytes were cut off" in ratings.repaired
        assert path.read_bytes() == whole[:begins] and not Ratings(path).repaired
        assert kept(path, ratings) == whole[begins:size]
        ratings.add(three[2])
        assert path.read_bytes() == whole
    path.write_bytes(whole[:begins])
    assert Ratings(path).standing() == three[:2] and not Ratings(path).repaired


def test_an_undo_cut_anywhere_is_repaired(path, three):
    Ratings(path).undo("Ann")
    whole = path.read_bytes()
    begins = whole.rindex(b"\n", 0, -1) + 1
    for size in range(begins + 1, len(whole) - 1):
        path.write_bytes(whole[:size])
        ratings = Ratings(path)
        assert ratings.standing() == three and "line 4 was only half written" in ratings.repaired


def test_the_only_line_cut_anywhere_is_repaired(path):
    Ratings(path).add(rating(1))
    whole = path.read_bytes()
    for size in range(1, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "line 1 was only half" in Ratings(path).repaired and path.read_bytes() == b""


def test_a_whole_last_line_gets_its_line_end(path, three):
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    ratings = Ratings(path)
    assert ratings.standing() == three and "line 3 lacked its line end" in ratings.repaired
    assert path.read_bytes() == whole
    ratings.add(rating(9))
    assert Ratings(path).standing() == [*three, rating(9)]


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_a_tail_of_nul_bytes_is_cut_off(path, three, kept):
    """A power failure can leave a file its length and not its content."""
    whole = path.read_bytes()
    begins = whole.rindex(b"\n", 0, -1) + 1
    path.write_bytes(whole[: begins + kept if kept >= 0 else -1] + b"\0" * 300)
    ratings = Ratings(path)
    assert ratings.standing() == (three[:2] if kept >= 0 else three) and "line 3" in ratings.repaired
    assert path.read_bytes() == (whole[:begins] if kept >= 0 else whole) and not Ratings(path).repaired


def test_nothing_but_nul_bytes(path):
    path.parent.mkdir()
    path.write_bytes(b"\0" * 500)
    assert Ratings(path).standing() == [] and path.read_bytes() == b""


def test_bom_crlf_and_empty_lines_are_taken_as_they_are(path, three):
    odd = b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n"
    path.write_bytes(odd)
    ratings = Ratings(path)
    assert ratings.standing() == three and not ratings.repaired and path.read_bytes() == odd
    ratings.add(rating(9))
    path.write_bytes(path.read_bytes() + b'{"id": "half')
    assert Ratings(path).standing() == [*three, rating(9)]


LINE = json.dumps(
    {"id": "a", "time": "2026-01-02T03:04:05+00:00", "rater": "Ann", "simulated": False}
    | {
        "prompt": "p",
        "first": "f",
        "second": "s",
        "choice": "tie",
        "shown": "first",
        "seconds": 2,
        "reason": "",
    }
)


def changed(**changes):
    return json.dumps(json.loads(LINE) | {"id": "b"} | changes)


def lacking(key):
    return json.dumps({name: value for name, value in json.loads(changed()).items() if name != key})


DAMAGED = {
    "a broken line in the middle": (f"{LINE}\n{LINE[:40]}\n{changed()}\n", 2, "not a whole JSON object"),
    "a broken last line with its line end": (f"{LINE}\n{LINE[:40]}\n", 2, "not a whole JSON object"),
    "a line that is not UTF-8": (f"{LINE}\n".encode() + b'{"id": "caf\xe9"}\n', 2, "not UTF-8"),
    "UTF-16": (LINE.encode("utf-16"), 1, "not UTF-8"),
    "UTF-16 without its mark": ((LINE + "\n").encode("utf-16-le"), 1, "not a whole JSON object"),
    "NUL bytes in the middle": (
        f"{LINE}\n".encode() + b"\0" * 9 + f"{changed()}\n".encode(),
        2,
        "not a whole JSON",
    ),
    "an unknown choice": (
        f"{LINE}\n{changed(choice='left')}\n",
        2,
        "'choice' is 'left'. Expected one of first, second",
    ),
    "an unknown side": (f"{LINE}\n{changed(shown='middle')}\n", 2, "'shown' is 'middle'"),
    "a key missing": (f"{LINE}\n\n{lacking('second')}\n", 3, "lacks 'second'"),
    "a number for a text": (f"{LINE}\n{changed(prompt=3)}\n", 2, "'prompt' is 3. Expected a text"),
    "a text for a number": (f"{LINE}\n{changed(seconds='2')}\n", 2, "'seconds' is '2'. Expected a number"),
    "true for a number": (f"{LINE}\n{changed(seconds=True)}\n", 2, "'seconds' is True. Expected a number"),
    "no time at all": (f"{LINE}\n{changed(seconds=float('nan'))}\n", 2, "'seconds' is nan"),
    "a number beyond all floats": (f"{LINE}\n{changed(seconds=10**400)}\n", 2, "'seconds' is 1000"),
    "null": (f"{LINE}\n{changed(reason=None)}\n", 2, "'reason' is None. Expected a text"),
    "the same id twice": (f"{LINE}\n{changed()}\n{LINE}\n", 3, "'a' is there a second time"),
    "undo of an unknown id": (
        f'{LINE}\n{{"undo": "x", "rater": "Ann", "time": ""}}\n',
        2,
        "takes back rating 'x'",
    ),
    "undo by another rater": (f'{LINE}\n{{"undo": "a", "rater": "Ben", "time": ""}}\n', 2, "of 'Ben'"),
    "undo twice": (LINE + '\n{"undo": "a", "rater": "Ann", "time": ""}' * 2 + "\n", 3, "still stands"),
    "undo of a list": (f'{LINE}\n{{"undo": [1], "rater": "Ann", "time": ""}}\n', 2, "'undo' is [1]"),
    "undo by nobody": (f'{LINE}\n{{"undo": "a", "time": ""}}\n', 2, "lacks 'rater'"),
    "a JSON array": (f"[{LINE}]", 1, "is a JSON list, not an object"),
    "a JSON array over several lines": (f"[\n{LINE}\n]\n", 1, "not a whole JSON object"),
    "one indented object": (json.dumps(json.loads(LINE), indent=2), 1, "not a whole JSON object"),
    "a CSV by this name": (
        "prompt,chosen,rejected\nThe film, good, bad\n",
        1,
        "but 'prompt,chosen,rejected'",
    ),
    "HTML on one line": ("<!DOCTYPE html><title>Sign in</title>", 1, "not a whole JSON object"),
    "half a foreign object": ('{"prompt": "The film', 1, "not a whole JSON object"),
    "half a foreign line": (f'{LINE}\n{{"choice": "fir', 2, "not a whole JSON object"),
    "another program's pairs": ('{"prompt": "p", "chosen": "c", "rejected": "r"}\n', 1, "import_pairs"),
    "lists in lists": ("[" * 100_000, 1, "lists in lists too deep"),
    "lists in a value": (f"{LINE[:-1]}, {json.dumps('x')}: {'[' * 50_000}", 1, "too deep"),
    "a number of 5,000 digits": (
        changed(seconds=0).replace(": 0,", f": {'1' * 5000},"),
        1,
        "too many digits",
    ),
    "lists for a text": (LINE.replace('"p"', "[" * 300 + "]" * 300), 1, "'prompt' is [["),
    "a number": ("3\n", 1, "is a JSON value"),
    "two objects on a line": (f"{LINE}{changed()}\n", 1, "not a whole JSON object"),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1, "not UTF-8"),
    "wrong, and half a line": (f'{LINE}\n{LINE}\n{{"id": "half', 2, "a second time"),
    "wrong, and NUL bytes": (f"{LINE}\n{LINE}\n\0\0\0", 2, "a second time"),
    "wrong, and no line end": (f"{LINE}\n{LINE}", 2, "a second time"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_or_foreign_file_is_refused_with_its_line(path, name):
    content, line, says = DAMAGED[name]
    content = content if isinstance(content, bytes) else content.encode()
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(CourseError) as error:
        Ratings(path)
    message = str(error.value)
    assert f"{path}, line {line}:" in message and says in message and len(message) < 600
    assert "Correct this line or remove it" in message
    assert path.read_bytes() == content


def test_the_line_these_files_are_made_of_is_right(path):
    path.parent.mkdir()
    path.write_text(f"{LINE}\n{changed(more='unknown keys are left alone')}\n")
    assert len(Ratings(path).standing()) == 2


def test_a_folder_for_a_file(tmp_path):
    with pytest.raises(CourseError, match="cannot be read: Is a directory"):
        Ratings(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match="cannot be read"):
        Ratings(tmp_path / "file" / "ratings.jsonl")


# A disk that refuses


@pytest.mark.parametrize("act", [lambda ratings: ratings.add(rating(9)), lambda ratings: ratings.undo("Ann")])
@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_full_disk_leaves_no_half_line(path, three, act, room):
    """A limit on the file's size stands in for a full disk: the first bytes of the line fit, the rest does not."""
    ratings, before = Ratings(path), path.read_bytes()
    resource = pytest.importorskip("resource", reason="Windows has none")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
    try:
        with pytest.raises(CourseError, match="could not be written.*was not saved"):
            act(ratings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and ratings.standing() == three
    ratings.add(rating(9))  # there is room again
    assert Ratings(path).standing() == [*three, rating(9)]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_what_is_not_surely_on_the_disk_is_not_there(path, three, monkeypatch, error):
    def fails(handle):
        raise error

    ratings, before = Ratings(path), path.read_bytes()
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises((CourseError, KeyboardInterrupt)):
        ratings.add(rating(9))
    assert path.read_bytes() == before and ratings.standing() == three


def test_fsync_comes_before_memory(path, monkeypatch):
    ratings, seen = Ratings(path), []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append((ratings.standing(), path.read_bytes()[-1:])))
    ratings.add(rating(1))
    assert seen == [([], b""), ([], b"\n")]  # the folder, which has a new file, and the line


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_drive_that_cannot_promise_to_keep_is_written_to(path, three, monkeypatch, number):
    """Network drives answer fsync so; the line is written none the less."""

    def unable(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", unable)
    ratings = Ratings(path)
    ratings.add(rating(9))
    path.write_bytes(path.read_bytes() + b'{"id": "ab')
    assert Ratings(path).standing() == ratings.standing() == [*three, rating(9)]
    assert Ratings(path.with_name("new.jsonl")).add(rating(1)) is None


def test_only_handles_that_may_write_are_synced(path, three, monkeypatch):
    """Windows refuses others, except for folders, which it cannot sync at all."""
    fcntl = pytest.importorskip("fcntl", reason="Windows has none")
    fsync, modes = os.fsync, []

    def noted(handle):
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            modes.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    ratings = Ratings(path)
    ratings.add(rating(9))
    path.write_bytes(path.read_bytes() + b'{"id": "ab')
    ratings.add(rating(10))
    assert len(modes) == 4 and os.O_RDONLY not in modes


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_only_the_bytes_of_the_line_that_failed_are_taken_away(path, three, monkeypatch, error):
    """Where something follows them, as another kernel writes on a drive that has no locks, nothing is cut off."""
    other = (json.dumps(record_of(rating(8))) + "\n").encode()

    def fails(handle):
        with open(path, "ab") as file:
            file.write(other)
        raise error

    ratings, before = Ratings(path), path.read_bytes()
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises((CourseError, KeyboardInterrupt)):
        ratings.add(rating(9))
    assert path.read_bytes().startswith(before) and path.read_bytes().endswith(other)
    monkeypatch.undo()
    ratings.refresh()
    assert ratings.standing() == [*three, rating(9), rating(8)]


def test_a_half_line_that_could_not_be_taken_away_is_repaired_by_the_next(path, three, monkeypatch):
    ratings, before = Ratings(path), path.read_bytes()
    monkeypatch.setattr("helpers.feedback.ratings.take_away", lambda *arguments: None)
    resource = pytest.importorskip("resource", reason="Windows has none")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))
    try:
        with pytest.raises(CourseError, match="could not be written"):
            ratings.add(rating(9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ratings.add(rating(9))
    assert "line 4 was only half written" in ratings.repaired and len(kept(path, ratings)) == 50
    assert ratings.standing() == Ratings(path).standing() == [*three, rating(9)]


@pytest.mark.parametrize("place", range(40))
def test_an_interrupt_anywhere_loses_and_doubles_nothing(path, three, place):
    """An interrupt at any line that `add` runs: the rating may be there, and what the next `add` does fits it."""
    ratings, lines = Ratings(path), 0

    def trace(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(("feedback/ratings.py", "helpers/files.py")):
            return None
        lines += event == "line"
        if event == "line" and lines == 3 * place + 1:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    with contextlib.suppress(KeyboardInterrupt):
        sys.settrace(trace)
        try:
            ratings.add(rating(9))
        finally:
            sys.settrace(None)
    ratings.add(rating(10))
    expected = [*three, rating(9), rating(10)]
    assert ratings.standing() == Ratings(path).standing()
    assert ratings.standing() in (expected, [*three, rating(10)])


def test_a_file_that_may_not_be_written(path, three, monkeypatch):
    def refused(file, mode="r", *arguments, **keywords):
        if mode != "rb":
            raise PermissionError(13, "Permission denied")
        return open(file, mode, *arguments, **keywords)

    ratings, whole = Ratings(path), path.read_bytes()
    monkeypatch.setattr("helpers.feedback.ratings.open", refused, raising=False)
    with pytest.raises(CourseError, match="Permission denied.*not saved"):
        ratings.add(rating(9))
    assert ratings.standing() == three
    path.write_bytes(whole[:-9])
    with pytest.raises(CourseError, match="needs repair.*Permission denied"):
        Ratings(path)


# Several kernels


def test_kernels_take_turns(path, three):
    one, other = Ratings(path), Ratings(path)
    for number in range(10, 20):
        one.add(rating(number))
        other.add(rating(10 * number, rater="Ben"))
        assert one.undo("Ann") == rating(number)
        other.add(rating(number, choice="tie"))  # undone, but still in the file
        one.add(rating(10 * number, rater="Ben"))
    one.refresh()
    assert one.standing() == other.standing() == Ratings(path).standing()
    assert [one.id for one in one.standing()] == [rating(n).id for n in [0, 1, 2, *range(100, 200, 10)]]
    assert len(path.read_text().splitlines()) == 33 and not one.repaired and not other.repaired


def test_an_undo_in_another_kernel_is_not_done_again(path, three):
    one, other = Ratings(path), Ratings(path)
    assert [one.undo("Ann"), other.undo("Ann"), one.undo("Ann"), other.undo("Ann")] == [*three[::-1], None]


def test_what_another_kernel_left_half_written_is_repaired(path, three):
    ratings, before = Ratings(path), path.read_bytes()
    path.write_bytes(before + b'{"undo": "0')
    assert ratings.undo("Ann") == three[2]
    assert "line 4 was only half written" in ratings.repaired and kept(path, ratings) == b'{"undo": "0'
    path.write_bytes(path.read_bytes()[:-1])
    ratings.add(rating(9))
    assert "line 4 lacked its line end" in ratings.repaired
    assert ratings.standing() == Ratings(path).standing() == [*three[:2], rating(9)]


def test_a_line_of_another_kernel_that_is_damaged_is_named(path, three):
    ratings = Ratings(path)
    path.write_bytes(damaged := path.read_bytes() + f"{LINE}\n\n{LINE}\n".encode())
    for _ in range(2):
        with pytest.raises(CourseError, match="line 6: rating 'a' is there a second time"):
            ratings.add(rating(9))
    assert path.read_bytes() == damaged and ratings.standing() == three


def test_the_lock_is_held_while_a_line_is_written(path, three, monkeypatch):
    held, ratings = [], Ratings(path)

    @contextlib.contextmanager
    def locked(place):
        held.append((place, path.read_bytes()))
        yield
        held.append((place, path.read_bytes()))

    monkeypatch.setattr("helpers.files.locked", locked)
    before = path.read_bytes()
    link = path.with_name("link.jsonl")
    link.symlink_to(path.name)
    Ratings(link).add(rating(9))  # the file has one lock, whatever it is called
    assert held == [(path, before)] * 3 + [(path, path.read_bytes())]
    path.write_bytes(path.read_bytes() + b'{"id": "a')
    del held[:]
    ratings.refresh()
    assert held[0][1].endswith(b'{"id": "a') and not held[1][1].endswith(b'{"id": "a')


def test_another_program_holds_the_lock(path, three, monkeypatch):
    ratings, before = Ratings(path), path.read_bytes()
    locked = files.locked
    monkeypatch.setattr("helpers.files.locked", lambda place: locked(place, seconds=0))
    with locked(path):
        for act in (lambda: ratings.add(rating(9)), lambda: ratings.undo("Ann"), lambda: Ratings(path)):
            with pytest.raises(CourseError, match="in use by another program"):
                act()
    assert path.read_bytes() == before and ratings.standing() == three


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_takes_no_lock_file(path, three, monkeypatch, number):
    """Ratings that somebody else lent can be read, and a file that may be written in such a folder is written."""
    locked = files.locked

    @contextlib.contextmanager
    def refused(place, beside=True):
        if beside:
            raise OSError(number, os.strerror(number))
        with locked(place, beside):
            yield

    monkeypatch.setattr("helpers.files.locked", refused)
    ratings = Ratings(path)
    ratings.add(rating(9))
    assert Ratings(path).standing() == ratings.standing() == [*three, rating(9)]


def test_reading_what_is_not_there_leaves_nothing_there(path):
    ratings = Ratings(path)
    ratings.refresh()
    assert ratings.undo("Ann") is None and not path.exists()


@pytest.mark.parametrize("remains", [None, b"", b"\0" * 10])
def test_the_file_is_gone(path, three, remains):
    """What is in memory is neither lost without a word nor written to a file that lacks the rest of it."""
    ratings, before = Ratings(path), path.read_bytes()
    path.unlink()
    if remains is not None:
        path.write_bytes(remains)
    for act in (lambda: ratings.add(rating(9)), lambda: ratings.undo("Ann"), ratings.refresh):
        with pytest.raises(CourseError, match="moved, deleted or emptied.*nothing was written.*3 ratings"):
            act()
        assert ratings.standing() == three and (path.read_bytes() if path.exists() else None) == remains
    path.write_bytes(before)  # put back
    ratings.add(rating(9))
    assert ratings.standing() == Ratings(path).standing() == [*three, rating(9)]


def test_a_folder_that_is_gone(path, three):
    ratings = Ratings(path)
    shutil.rmtree(path.parent)
    with pytest.raises(CourseError, match="moved, deleted or emptied"):
        ratings.add(rating(9))
    assert ratings.standing() == three and not path.exists()


# Agreement


def test_wilson_against_published_intervals():
    """Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, n), interval in published.items():
        share = wilson(hits, n)
        assert (round(share.low, 4), round(share.high, 4)) == interval
        other = wilson(n - hits, n)
        assert (other.low, other.high) == pytest.approx((1 - share.high, 1 - share.low))
    # by hand for 7 of 10: (0.7 + 0.19207 +- 1.96 sqrt(0.021 + 0.0096037)) / 1.38415
    assert wilson(7, 10) == Share(0.7, pytest.approx(0.3968, abs=1e-4), pytest.approx(0.8922, abs=1e-4), 10)
    assert wilson(20, 20).high == 1.0 and wilson(0, 20).low == 0.0
    assert wilson(0, 0) == Share(None, 0.0, 1.0, 0)


def rated(rater, choices):
    return [
        rating(place, choice, rater, Pair(f"prompt {place}", "a", "b"))
        for place, choice in enumerate(choices)
    ]


def test_agreement_by_hand():
    ann = rated("Ann", ["first", "second", "tie", "skip", "first", "tie", "first"])
    ben = rated("Ben", ["first", "first", "tie", "first", "skip", "second"])  # has not rated the last
    assert agreement(ann, ben) == agreement(ben, ann) == wilson(2, 4)
    assert agreement(ann, ann) == wilson(6, 6) and agreement(ann, []) == Share(None, 0.0, 1.0, 0)


def test_of_a_pair_rated_twice_the_first_rating_counts():
    ann, ben = rated("Ann", ["first"]), rated("Ben", ["first"])
    assert agreement([*ann, replace(ann[0], id="again", choice="second")], ben).share == 1.0
    assert agreement([replace(ann[0], id="again", choice="skip"), *ann], ben).share == 1.0


def test_self_agreement_by_hand():
    first = rated("Ann", ["first", "second", "tie", "skip", "first", "tie"])
    again = rated("Ann", ["first", "first", "tie", "first", "skip"])
    assert self_agreement([*first, *again]) == wilson(2, 3)
    assert self_agreement(first) == Share(None, 0.0, 1.0, 0)
    assert self_agreement([*first, *rated("Ben", ["second"] * 6)]).n == 0  # somebody else is not oneself
    assert self_agreement([*first, *again, *rated("Ann", ["tie"] * 3)]) == wilson(
        2, 3
    )  # a third time does not count


# Export and import


def test_export_and_import_again(tmp_path):
    texts = [text for text in ODD if "\ud800" not in text]
    pairs = [Pair(f"prompt {place} {text}", f"a {text}", f"b {text}") for place, text in enumerate(texts)]
    given = [rating(place, ["first", "second"][place % 2], pair=pair) for place, pair in enumerate(pairs)]
    file = tmp_path / "pairs.jsonl"
    written = export_pairs([*given, rating(90, "tie"), rating(91, "skip")], file)
    assert written == len(file.read_text().splitlines()) == len(given)
    assert json.loads(file.read_text().splitlines()[1]) == {
        "prompt": pairs[1].prompt,
        "chosen": pairs[1].second,
        "rejected": pairs[1].first,
    }
    back = import_pairs(file, "Ann")
    assert [(one.pair, one.choice, one.rater) for one in back] == [
        (one.pair, one.choice, "Ann") for one in given
    ]
    ratings = Ratings(tmp_path / "ratings.jsonl")
    for one in [*back, *import_pairs(file, "Ann")]:
        ratings.add(one)
    assert Ratings(tmp_path / "ratings.jsonl").standing() == back
    for one in import_pairs(file, "Ben"):  # another rater's are others
        ratings.add(one)
    assert len(ratings.standing()) == 2 * len(back)
    assert agreement(ratings.standing("Ann"), ratings.standing("Ben")) == wilson(len(back), len(back))


def test_export_is_whole_or_not_at_all(tmp_path):
    file = tmp_path / "pairs.jsonl"
    assert export_pairs([rating(1)], file) == 1
    before = file.read_bytes()
    resource = pytest.importorskip("resource", reason="Windows has none")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(CourseError, match="could not be written"):
            export_pairs([rating(number) for number in range(9)], file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["pairs.jsonl"]


def test_the_ratings_are_never_exported_over(tmp_path, monkeypatch):
    """However the path is spelled; a second rater's file, an edited one and a damaged one neither."""
    file, other = tmp_path / "ratings.jsonl", tmp_path / "Ben.jsonl"
    ratings = Ratings(file)
    ratings.add(rating(1))
    Ratings(other).add(rating(2, rater="Ben"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "symlink.jsonl").symlink_to(file)
    os.link(file, tmp_path / "hard.jsonl")
    monkeypatch.chdir(tmp_path / "folder")
    spelled = [file, str(file), "../ratings.jsonl", "../symlink.jsonl", tmp_path / "hard.jsonl", other]
    for path in spelled:
        before = Path(path).read_bytes()
        for changed in (before, b"\xef\xbb\xbf" + before, b"\n" + before, before[:-9], before + b"\n{"):
            Path(path).write_bytes(changed)
            with pytest.raises(CourseError, match="is there already and is .*Nothing was written"):
                export_pairs(ratings.standing(), path)
            assert Path(path).read_bytes() == changed
        Path(path).write_bytes(before)
    with pytest.raises(CourseError, match="a file of ratings .line 1.*Choose another name"):
        export_pairs(ratings.standing(), file)
    assert sorted(os.listdir(tmp_path)) == sorted(
        [".Ben.jsonl.lock", ".ratings.jsonl.lock", "Ben.jsonl", "folder", "hard.jsonl", "ratings.jsonl"]
        + ["symlink.jsonl"]
    ) and not os.listdir(tmp_path / "folder")


def test_of_files_that_exist_only_an_export_is_replaced(tmp_path):
    file = tmp_path / "pairs.jsonl"
    for given in ([], [rating(1), rating(2, pair=Pair("\ud800", "🎬", ""))], [rating(1)], []):
        export_pairs(given, file)
        assert len(file.read_text().splitlines()) == len(given)
    export_pairs([rating(1)], file)
    line = file.read_text()
    strange = ["notes\n", "\n", "[1]\n", "[" * 100_000, line + line[:20], line.replace(" good", " góod")]
    for text in [*strange, line.replace(": ", ":"), f"{line[:-2]}, {json.dumps('score')}: 1}}\n"]:
        file.write_text(text, encoding="utf-8")
        with pytest.raises(CourseError, match="is there already and is no export"):
            export_pairs([rating(1)], file)
        assert file.read_text(encoding="utf-8") == text
    for path, wrong in [(tmp_path, "is no file"), (Path(os.devnull), "is no file")]:
        with pytest.raises(CourseError, match=wrong):
            export_pairs([rating(1)], path)
    with pytest.raises(CourseError, match="could not be written"):
        export_pairs([rating(1)], tmp_path / "none" / "pairs.jsonl")


def test_an_export_through_a_link_keeps_the_link(tmp_path):
    export_pairs([rating(1)], tmp_path / "pairs.jsonl")
    (tmp_path / "link.jsonl").symlink_to("pairs.jsonl")
    export_pairs([rating(1), rating(2)], tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len((tmp_path / "pairs.jsonl").read_text().splitlines()) == 2


def test_pairs_are_the_same_whichever_was_chosen(tmp_path):
    """Or two raters who disagree would have no pair in common."""
    for name, chosen, rejected in [("ann", " good", " bad"), ("ben", " bad", " good")]:
        line = {"prompt": "The film was", "chosen": chosen, "rejected": rejected}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line))
    ann, ben = (import_pairs(tmp_path / f"{name}.jsonl", name) for name in ("ann", "ben"))
    assert agreement(ann, ben) == wilson(0, 1)
    assert ann[0].pair == choose_pairs(["The film was"], [[" good", " bad"]], 1)[0]


@pytest.mark.parametrize(
    "chosen, rejected, prompt, texts",
    [
        ("The film was good", "The film was bad", "The film was", (" bad", " good")),
        ("The film was great", "The film was good", "The film was", (" good", " great")),
        ("The film was", "The film was good", "The film", (" was", " was good")),
        ("Good", "Bad", "", ("Bad", "Good")),
        ("Good film", "Goofy", "", ("Good film", "Goofy")),
    ],
)
def test_the_implicit_prompt_is_the_shared_beginning(tmp_path, chosen, rejected, prompt, texts):
    (tmp_path / "p.jsonl").write_text(json.dumps({"chosen": chosen, "rejected": rejected, "score": 3}))
    (tmp_path / "p.csv").write_text(f'rejected,chosen\n"{rejected}","{chosen}"\n')
    for name in ("p.jsonl", "p.csv"):
        one = import_pairs(tmp_path / name, "Ann")[0]
        assert one.pair == Pair(prompt, *texts)
        assert one.pair.prompt + getattr(one.pair, one.choice) == chosen


def test_csv_as_spreadsheets_write_it(tmp_path):
    file = tmp_path / "pairs.CSV"
    text = '\ufeffid,prompt,chosen,rejected\r\n1,"The film, they say,"," ""good""\nand long",café\r\n\r\n2,It was, bad, good\r\n'
    file.write_text(text, encoding="utf-8", newline="")
    one, two = import_pairs(file, "Ann")
    assert one.pair == Pair("The film, they say,", ' "good"\nand long', "café") and one.choice == "first"
    assert two.pair == Pair("It was", " bad", " good") and two.choice == "first"


def test_a_bom_is_no_part_of_what_is_imported(tmp_path):
    for name, text in [("p.jsonl", GOOD), ("p.csv", "chosen,rejected,prompt\nc,r,p\n")]:
        (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")
        assert import_pairs(tmp_path / name, "Ann")[0].pair == Pair("p", "c", "r")


GOOD = '{"prompt": "p", "chosen": "c", "rejected": "r"}'
MESSAGES = json.dumps(
    {"chosen": [{"role": "user", "content": "Hi"}], "rejected": [{"role": "user", "content": "Hi"}]}
)
REFUSED = {
    "half a line": (".jsonl", f"{GOOD}\n{GOOD[:20]}", 2, "not a whole JSON object"),
    "an array": (".json", f"[{GOOD}]", 1, "a JSON list"),
    "a conversation": (
        ".jsonl",
        f"{GOOD}\n{MESSAGES}\n",
        2,
        "'chosen' is a conversation (a list of messages)",
    ),
    "a conversation as prompt": (
        ".jsonl",
        GOOD.replace('"p"', '[{"role": "user"}]'),
        1,
        "'prompt' is a conversation",
    ),
    "no rejected": (".jsonl", f'{GOOD}\n\n{{"prompt": "p", "chosen": "c"}}\n', 3, "lacks 'rejected'"),
    "a number": (".json", '{"chosen": "c", "rejected": 3}', 1, "'rejected' is 3. Expected a text"),
    "prompt is null": (".json", '{"prompt": null, "chosen": "c", "rejected": "r"}', 1, "'prompt' is None"),
    "not UTF-8": (".jsonl", f"{GOOD}\n".encode() + b"\xff\n", 2, "not UTF-8"),
    "other columns": (".csv", "question;chosen;rejected\na;b;c\n", 1, "Expected chosen and rejected"),
    "a cell too many": (".csv", 'chosen,rejected\n"a\nb",c\nd,e,f\n', 4, "has 3 cells for 2 columns"),
    "a cell too few": (".csv", "chosen,rejected\na,b\nd\n", 3, "has 1 cells for 2 columns"),
    "an open quote": (".csv", 'chosen,rejected\na,b\nc,"d\ne,f\n', 3, "is not CSV"),
    "half a surrogate pair": (
        ".jsonl",
        f'{GOOD}\n{{"chosen": "good \\ud83c", "rejected": "r"}}',
        2,
        "'chosen' holds half of a character, '\\ud83c' (character 6)",
    ),
    "the other half, in a prompt": (".json", GOOD.replace('"p"', '"\\udfac"'), 1, "'prompt' holds half"),
    "a NUL byte": (".jsonl", GOOD.encode() + b"\n\0\n", 2, "holds a NUL byte"),
    "a NUL byte in a text": (".jsonl", GOOD.replace('"p"', '"p\0"'), 1, "holds a NUL byte"),
    "UTF-16": (".jsonl", GOOD.encode("utf-16"), 1, "not UTF-8 text but UTF-16"),
    "UTF-16 without its mark": (".json", f"{GOOD}\n".encode("utf-16-le"), 1, "as files in UTF-16 do"),
    "Latin-1": (".json", f"{GOOD}\ncafé".encode("latin-1"), 2, "such as Latin-1"),
    "lists in lists": (".jsonl", f"{GOOD}\n" + "[" * 100_000, 2, "too deep"),
    "lists in another column": (".jsonl", GOOD[:-1] + ', "x": ' + "[" * 100_000, 1, "too deep"),
    "a number of 5,000 digits": (".jsonl", f'{GOOD[:-1]}, "x": {"1" * 5000}}}', 1, "too many digits"),
    "a CSV with a NUL byte": (".csv", "chosen,rejected\na,b\nc,d\0\n", 3, "holds a NUL byte"),
    "a CSV in UTF-16": (".csv", "chosen,rejected\na,b\n".encode("utf-16"), 1, "not UTF-8 text but UTF-16"),
    "a CSV in Latin-1": (".csv", "chosen,rejected\na,café\n".encode("latin-1"), 2, "such as Latin-1"),
    "a huge cell": (".csv", f"chosen,rejected\na,b\nc,{'d' * 200_000}\n", 3, "is not CSV: field larger"),
    "a column missing": (".csv", "prompt,chosen\na,b\n", 1, "Expected chosen and rejected"),
    "a column twice": (".csv", "chosen,rejected,chosen\na,b,c\n", 1, "names a column twice"),
    "a spreadsheet": (".csv", b"PK\x03\x04 and so on", 1, "no text but a zip archive, as .xlsx"),
    "a CSV not in UTF-8": (".csv", b"chosen,rejected\na,b\ncaf\xe9,d\n", 3, "not UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_foreign_file_is_refused_with_its_line(tmp_path, name):
    ending, content, line, says = REFUSED[name]
    file = tmp_path / f"pairs{ending}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CourseError) as error:
        import_pairs(file, "Ann")
    assert f"{file}, line {line}:" in str(error.value) and says in str(error.value)


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_identical_texts_are_left_out_and_contradictions_counted(tmp_path, ending):
    rows = [
        ("c", "r"),
        ("r", "c"),
        ("same", "same"),
        ("c", "r"),
        ("a", "b"),
        ("same", "same"),
        ("same ", "same"),
    ]
    if ending == ".csv":
        lines = ["chosen,rejected", *[",".join(row) for row in rows]]
    else:
        lines = [json.dumps({"prompt": "p", "chosen": one, "rejected": other}) for one, other in rows]
    file = tmp_path / f"p{ending}"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.warns(UserWarning) as told:
        found = import_pairs(file, "Ann")
    assert [str(one.message) for one in told] == [
        f"{file}: 7 preferences. Between identical texts, left out: 2. "
        "Pairs that are preferred both ways, which contradicts itself, kept: 1."
    ]
    assert [rating.choice for rating in found] == ["first", "second", "first", "first", "second"]
    with pytest.warns(UserWarning, match="the ratings: 6 preferences. .*left out: 1. .*kept: 1."):
        assert (
            export_pairs([*found, replace(found[0], pair=Pair("p", "x", "x"))], tmp_path / "out.jsonl") == 5
        )


def test_nothing_but_identical_texts(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"chosen": "c", "rejected": "c"}', encoding="utf-8")
    with (
        pytest.warns(UserWarning, match="left out: 1"),
        pytest.raises(CourseError, match="no preference"),
    ):
        import_pairs(tmp_path / "p.jsonl", "Ann")


def test_preferences_without_doubts_give_no_warning(tmp_path, recwarn):
    (tmp_path / "p.jsonl").write_text(f"{GOOD}\n{GOOD}", encoding="utf-8")
    assert len(import_pairs(tmp_path / "p.jsonl", "Ann")) == 2 and not recwarn.list


def test_files_that_are_none(tmp_path):
    with pytest.raises(CourseError, match="ends in .jsonl, .json, .csv"):
        import_pairs(tmp_path / "pairs.parquet", "Ann")
    with pytest.raises(CourseError, match="No such file"):
        import_pairs(tmp_path / "pairs.csv", "Ann")
    empty = [
        ("a.csv", ""),
        ("b.csv", "chosen,rejected\n"),
        ("c.jsonl", ""),
        ("d.json", "\n \n"),
        ("e.csv", "\n"),
    ]
    for name, text in empty:
        (tmp_path / name).write_text(text)
        with pytest.raises(
            CourseError, match=f"{name} holds no preference. Expected prompt, chosen, rejected"
        ):
            import_pairs(tmp_path / name, "Ann")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(CourseError, match="Is a directory"):
        import_pairs(tmp_path / "folder.jsonl", "Ann")


def test_a_whole_surrogate_pair_in_escapes_is_a_character(tmp_path):
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "\\ud83c\\udfac", "chosen": "NUL \\u0000", "rejected": "r"}'
    )
    assert import_pairs(tmp_path / "p.jsonl", "Ann")[0].pair == Pair("🎬", "NUL \x00", "r")


# The simulated rater


def length(texts):
    return [len(text) / 10 for text in texts]


PAIRS = [Pair(f"prompt {place}", "long " * (place % 3), "long") for place in range(3000)]


def test_the_simulated_rater_has_its_taste():
    said = SimulatedRater(length, error_rate=0, tie_margin=0.05).rate(PAIRS[:3])
    assert [one.choice for one in said] == ["second", "first", "first"]
    wide = SimulatedRater(length, error_rate=0, tie_margin=0.5).rate(PAIRS[:3])
    assert [one.choice for one in wide] == ["tie", "tie", "first"]
    assert SimulatedRater(lambda texts: [1.0] * len(texts), tie_margin=0).rate(PAIRS[:1])[0].choice == "tie"
    assert all(one.simulated and one.rater == "simulated" for one in said)


def test_it_errs_at_its_rate_and_never_on_ties():
    pairs = [pair for pair in PAIRS if pair.first]
    right = SimulatedRater(length, error_rate=0, tie_margin=0.3).rate(pairs)
    for rate in (0.1, 0.3, 1.0):
        said = SimulatedRater(length, error_rate=rate, tie_margin=0.3).rate(pairs)
        assert [one.choice == "tie" for one in said] == [one.choice == "tie" for one in right]
        preferred = [(a.choice, b.choice) for a, b in zip(right, said) if a.choice != "tie"]
        wrong = sum(a != b for a, b in preferred) / len(preferred)
        assert abs(wrong - rate) < 0.04 and len(preferred) == 1000
    assert 0.45 < sum(one.shown == "first" for one in right) / len(right) < 0.55


def test_a_choice_depends_on_its_pair_alone():
    rater = SimulatedRater(length, error_rate=0.5)
    said = rater.rate(PAIRS[:50])
    assert said == rater.rate(PAIRS[:50]) and said[::-1] == rater.rate(PAIRS[:50][::-1])
    assert said[7:8] == SimulatedRater(length, error_rate=0.5).rate(PAIRS[7:8]) and rater.rate([]) == []
    for other in (SimulatedRater(length, 0.5, seed=1), SimulatedRater(length, 0.5, name="Ben")):
        again = other.rate(PAIRS[:50])
        assert [one.choice for one in again] != [one.choice for one in said]
        assert not {one.id for one in again} & {one.id for one in said}


def test_simulated_ratings_double_nothing_in_a_file(path):
    ratings = Ratings(path)
    for one in SimulatedRater(length).rate(PAIRS[:20]) + SimulatedRater(length).rate(PAIRS[:30]):
        ratings.add(one)
    assert Ratings(path).standing() == SimulatedRater(length).rate(PAIRS[:30])


@pytest.mark.parametrize(
    "returned", [None, [1.0], ["good", "bad"], [None, None], [float("nan"), 1.0], 3, [1.0, 2.0, 3.0]]
)
def test_a_taste_that_is_none(returned):
    with pytest.raises(CourseError, match="taste returned .* for 2 texts"):
        SimulatedRater(lambda texts: returned).rate(PAIRS[:1])


@pytest.mark.parametrize("wrong", [{"error_rate": 1.1}, {"error_rate": -0.1}, {"tie_margin": -1}])
def test_settings_out_of_range(wrong):
    with pytest.raises(CourseError, match="expected a probability from 0 to 1"):
        SimulatedRater(length, **wrong)


# Which pairs


def test_the_most_different_pair_of_each_prompt_comes_first():
    outputs = [
        [" a good film", " a good film indeed", " it bored me"],
        [" x y", " x z", " x y z", " q"],
    ]
    pairs = choose_pairs(["One", "Two"], outputs, 9)
    assert {pair.prompt for pair in pairs[:2]} == {"One", "Two"}
    for prompt in ("One", "Two"):
        shares = [shared_words(pair.first, pair.second) for pair in pairs if pair.prompt == prompt]
        assert shares == sorted(shares) and shares[0] == 0.0
    assert len({pair.id for pair in pairs}) == 9 and all(pair.first < pair.second for pair in pairs)
    assert pairs == choose_pairs(["One", "Two"], outputs, 9)
    assert pairs[:4] == choose_pairs(["One", "Two"], outputs, 4)


def test_shared_words_by_hand():
    assert shared_words("a good film", "A good one") == 2 / 4
    assert (
        shared_words("same", "same") == 1.0 and shared_words("", "") == 0.0 and shared_words("a", "b") == 0.0
    )


def test_seeds_take_prompts_in_another_order():
    prompts = [f"prompt {place}" for place in range(30)]
    outputs = [["a b", "a c", "d e"]] * 30
    orders = {tuple(pair.prompt for pair in choose_pairs(prompts, outputs, 10, seed)) for seed in range(5)}
    assert len(orders) == 5 and all(len(set(order)) == 10 for order in orders)


def test_identical_texts_are_never_paired():
    outputs = [[" good", " good", "good ", " good\n", " bad"], [" one"], []]
    pairs = choose_pairs(["A", "B", "C"], outputs, 1)
    assert pairs == [Pair("A", " bad", " good")]
    with pytest.raises(CourseError, match="2 pairs were asked for, but there are only 1"):
        choose_pairs(["A", "B", "C"], outputs, 2)


def test_a_prompt_that_comes_twice_gives_no_pair_twice():
    pairs = choose_pairs(["A", "A"], [[" x", " y"], [" y", " z"]], 3)
    assert len({pair.id for pair in pairs}) == 3
    with pytest.raises(CourseError, match="only 3 pairs"):
        choose_pairs(["A", "A"], [[" x", " y"], [" y", " z"]], 4)


def test_lists_that_do_not_fit():
    for outputs in ([[" x", " y"]], ["text", "text"]):
        with pytest.raises(CourseError, match="expected a list of continuations for each prompt"):
            choose_pairs(["A", "B"], outputs, 1)


def test_imports_nothing_heavy():
    code = (
        "import sys, helpers.feedback.simulated, helpers.feedback.agreement, helpers.feedback.exchange\n"
        "print({'torch', 'pandas', 'matplotlib', 'ipywidgets', 'numpy'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr
