"""Kernels killed at any moment while somebody rates: nothing that was acknowledged is lost or doubled.

Run as a script, this file forks one short-lived rater after another from a process that has imported everything, so that
a kill costs some milliseconds. Each rater opens the file as a new kernel does, clicks on, and kills itself at a moment that
is counted and not timed: the so-manieth change of a file, or the so-manieth line of code. So the same moments come on every
machine, however busy. What a click did it tells through a pipe only after the click has returned, which is when the next
pair on the page tells a human. fsync is counted and not done: it matters where the power fails, and nothing here is that.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest

from helpers.feedback import ratings as preferences
from helpers.feedback.pairs import Pair
from helpers.feedback.ratings import CHOICES, Rating, Ratings, now
from helpers.widgets import labeller
from helpers.widgets.labeller import PreferenceLabeller

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
ROOT = Path(__file__).resolve().parents[1]
KILLS = 1000
RATERS = ("Ann", "Ben")
PER_FILE = 10  # kills before a new file, so that none takes long to read
PAIRS = [Pair(f"Film {place} \N{CLAPPER BOARD} was", ' "good"\n', f" bad {place}") for place in range(300)]
WORKING = ("Ratings.", "Content.count", "take_away", "keep_beside", "locked", "sync")  # functions


def kill_raters(folder: Path, kills: int) -> dict:
    """Let so many raters kill themselves, look at the file after some, and count what happened."""
    labeller.MIN_SECONDS = 0
    os.fsync = lambda handle: None
    chance, counts = random.Random(0), Counter(kills=kills)
    assert len({pair.id for pair in PAIRS}) == len(PAIRS)  # computed before the first fork, and kept
    for number in range(kills):
        if number % PER_FILE == 0:
            path, told = folder / f"{number}.jsonl", []
        on_page = number // PER_FILE % 4 == 0  # a page's widgets cost most of the time
        news = kill_one(path, chance.choice(RATERS), number, on_page)
        told += news
        counts["before the first pair showed"] += not news
        counts["acknowledged"] += sum("saved" in line for line in news)
        counts["undone"] += sum("undone" in line for line in news)
        # else the next rater finds what this one left, and may be killed while it repairs that
        if number % PER_FILE == PER_FILE - 1 or chance.random() < 0.5:
            counts["half-written lines"] += look_at(path, told, told)
    counts["kept beside"] = len(list(folder.glob("*.cut-*")))
    return dict(counts)


def kill_one(path: Path, rater: str, seed: int, on_page: bool) -> list[dict]:
    """Let a rater click until it kills itself, and return what it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            chance = random.Random(seed)
            kill_self = kill_at_change if chance.random() < 0.6 else kill_at_line
            kill_self(chance)
            rate(path, rater, chance, writing, on_page)
        finally:
            os._exit(1)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        told = [json.loads(line) for line in pipe.read().splitlines()]
    assert os.WIFSIGNALED(status), f"the rater ended by itself after {told[-3:]}"
    return told


def kill_at_change(chance: random.Random, most: int = 50) -> None:
    """Have this process kill itself at a write, truncate or fsync: before it, after it, or after a part of what is written."""
    left, part = chance.randint(1, most), chance.choice([None, 0, 0.01, chance.random(), chance.random(), 1])
    fsync = os.fsync

    def counted(change, value):
        nonlocal left
        left -= 1
        if left == 0:
            if part is not None:
                change(value[: int(part * len(value))] if isinstance(value, bytes) else value)
            os.kill(os.getpid(), signal.SIGKILL)
        return change(value)

    class Counted(io.FileIO):
        def write(self, data):
            return counted(super().write, data)

        def truncate(self, size):
            return counted(super().truncate, size)

    preferences.open = lambda path, mode, buffering: Counted(path, mode)
    os.fsync = lambda handle: counted(fsync, handle)


def kill_at_line(chance: random.Random) -> None:
    """Have this process kill itself at some line of the code that reads and writes the file."""
    left = chance.randint(1, 800)

    def trace(frame, event, argument):
        nonlocal left
        if not frame.f_code.co_qualname.startswith(WORKING):
            return None
        left -= event == "line"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def rate(path: Path, rater: str, chance: random.Random, pipe: int, on_page: bool) -> None:
    """Open the file and click for ever."""
    ratings = Ratings(path)
    lab = PreferenceLabeller(PAIRS, ratings, rater, repeat_every=4) if on_page else None
    tell(pipe, "shown", None)
    while True:
        click(ratings, rater, lab, chance, pipe)


def click(
    ratings: Ratings, rater: str, lab: PreferenceLabeller | None, chance: random.Random, pipe: int
) -> None:
    """Rate or take back, on the page or as its buttons do; tell what was saved, and what is about to be taken back."""
    mine = ratings.standing(rater)
    if mine and (chance.random() < 0.15 or (lab and not lab.pair)):
        tell(pipe, "undoing", mine[-1])
        lab.undo.click() if lab else ratings.undo(rater)
        assert ratings.standing(rater) == mine[:-1]
        tell(pipe, "undone", mine[-1])
    else:
        if lab:
            chance.choice([lab.left, lab.tie, lab.right, lab.skip]).click()
        else:
            ratings.add(rating_by(rater, PAIRS[len(mine) % len(PAIRS)], chance))
        assert ratings.standing(rater)[:-1] == mine, lab and lab.message.value
        tell(pipe, "saved", ratings.standing(rater)[-1])


def rating_by(rater: str, pair: Pair, chance: random.Random) -> Rating:
    choice, seconds = chance.choice(CHOICES), round(chance.uniform(0, 9), 2)
    return Rating(uuid.uuid4().hex, now(), rater, False, pair, choice, "first", seconds, "")


def tell(pipe: int, what: str, rating) -> None:
    os.write(pipe, json.dumps({what: rating and rating.id}).encode().ljust(63) + b"\n")


def look_at(path: Path, before: list[dict], after: list[dict]) -> bool:
    """Hold the file to what was told; returns whether its last line was half written.

    Args:
        before: told before the file is read here.
        after: told, or meant, up to a moment after that; the same list where nobody else writes to the file now.
    """
    was = path.read_bytes() if path.exists() else b""
    ratings = Ratings(path)
    data = path.read_bytes() if path.exists() else b""
    lines = [json.loads(line) for line in data.splitlines()]
    ids = [line["id"] for line in lines if "id" in line]
    standing = {rating.id for rating in ratings.standing()}
    saved, undone = ({line[what] for line in before if what in line} for what in ("saved", "undone"))
    undoing = {line["undoing"] for line in after if "undoing" in line}
    assert saved <= set(ids), "an acknowledged rating is lost"
    assert saved - undoing <= standing, "an acknowledged rating does not stand"
    assert not undone & standing, "an acknowledged undo is lost"
    assert len(ids) == len(set(ids)), "a rating is doubled"
    for rater in RATERS:
        showings = [(rating.pair.id, rating.shown) for rating in ratings.standing(rater)]
        # a repeat has its sides swapped: the same pair with the same sides would be one showing rated twice
        assert len(showings) == len(set(showings)), "a showing was rated twice"
    half = "half written" in ratings.repaired
    if half and before is after:
        kept = Path(ratings.repaired.split("kept in ")[1].rstrip(".")).read_bytes()
        assert was == data + kept, "what was cut off is not beside the file"
    return half


def run_script(file: str, *arguments: object) -> dict:
    """Run a test's file as a script; what it counted. In a process of its own: forking one with threads would not be safe."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, file, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert run.returncode == 0, run.stderr
    counts = json.loads(run.stdout)
    print(counts)
    return counts


def test_no_kill_loses_or_doubles_a_rating(tmp_path):
    counts = run_script(__file__, tmp_path, KILLS)
    assert counts["kills"] == KILLS and counts["acknowledged"] > 3 * KILLS and counts["undone"] > KILLS / 2
    assert KILLS / 50 < counts["before the first pair showed"] < KILLS / 2
    assert counts["kept beside"] >= counts["half-written lines"] > KILLS / 50


if __name__ == "__main__":
    print(json.dumps(kill_raters(Path(sys.argv[1]), int(sys.argv[2]))))
