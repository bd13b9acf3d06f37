"""Kernels killed at any moment while somebody rates: nothing that was acknowledged is lost or doubled.

Run as a script, this file forks one short-lived rater after another from a process that has imported everything, so that
a kill costs some milliseconds. Each rater opens the file as a new kernel does and clicks on. What a click did it tells
through a pipe only after the click has returned, which is when the next pair on the page tells a human.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from helpers.preferences import Pair, Ratings
from helpers.widgets import labeller
from helpers.widgets.labeller import PreferenceLabeller

ROOT = Path(__file__).resolve().parents[1]
KILLS = 1000
RATERS = ("Ann", "Ben")
PER_FILE = 10  # kills before a new file, so that none takes long to read
LONG = " good" * 100_000  # a line with such a text takes long enough to write that some kills cut it


def kill_raters(folder: Path, kills: int) -> dict:
    """Kill so many raters, look at the file after each, and count what happened."""
    labeller.MIN_SECONDS = 0
    chance, counts = random.Random(0), Counter(kills=kills)
    short = [Pair(f"Film {place} was", " good", f" bad {place}") for place in range(1000)]
    long = [Pair(pair.prompt, LONG, pair.second) for pair in short[:100]]
    assert len({pair.id for pair in short + long}) == 1100  # computed before the first fork, and kept
    for number in range(kills):
        if number % PER_FILE == 0:
            path, saved, undoing, undone = folder / f"{number}.jsonl", set(), set(), set()
            pairs = long if number // PER_FILE % 4 == 3 else short
        told = kill_one(path, pairs, chance.choice(RATERS), number, chance.uniform(0, 0.05))
        saved |= {line["saved"] for line in told if "saved" in line}
        undoing |= {line["undoing"] for line in told if "undoing" in line}
        undone |= {line["undone"] for line in told if "undone" in line}
        counts["half-written lines"] += look_at(path, saved, undoing, undone)
        counts["before the first pair showed"] += not told
        counts["acknowledged"] += sum("saved" in line for line in told)
        counts["undone"] += sum("undone" in line for line in told)
        if number % PER_FILE == PER_FILE - 1:
            path.unlink(missing_ok=True)
    return dict(counts)


def kill_one(path: Path, pairs: list[Pair], rater: str, seed: int, seconds: float) -> list[dict]:
    """Let a rater click for so long, kill it, and return what it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            rate(path, pairs, rater, random.Random(seed), writing)
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        told = [json.loads(line) for line in pipe.read().splitlines()]
    assert os.WIFSIGNALED(status), f"the rater ended by itself after {told[-3:]}"
    return told


def rate(path: Path, pairs: list[Pair], rater: str, chance: random.Random, pipe: int) -> None:
    """Open the file and click for ever, telling what was saved, and what is about to be taken back."""

    def tell(what: str, rating) -> None:
        os.write(pipe, json.dumps({what: rating and rating.id}).encode() + b"\n")

    ratings = Ratings(path)
    lab = PreferenceLabeller(pairs, ratings, rater, repeat_every=4)
    tell("shown", None)
    while True:
        mine = ratings.standing(rater)
        if mine and (not lab.pair or chance.random() < 0.15):
            tell("undoing", mine[-1])
            lab.undo.click()
            tell("undone", mine[-1])
        else:
            chance.choice([lab.left, lab.tie, lab.right, lab.skip]).click()
            assert len(ratings.standing(rater)) == len(mine) + 1
            tell("saved", ratings.standing(rater)[-1])


def look_at(path: Path, saved: set[str], undoing: set[str], undone: set[str]) -> bool:
    """Hold the file to the ids that were told of it; returns whether its last line was half written."""
    ratings = Ratings(path)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    ids = [line["id"] for line in lines if "id" in line]
    standing = {rating.id for rating in ratings.standing()}
    assert saved <= set(ids), "an acknowledged rating is lost"
    assert saved - undoing <= standing, "an acknowledged rating does not stand"
    assert not undone & standing, "an acknowledged undo is lost"
    assert len(ids) == len(set(ids)), "a rating is doubled"
    for rater in RATERS:
        showings = [(rating.pair.id, rating.shown) for rating in ratings.standing(rater)]
        # a repeat has its sides swapped: the same pair with the same sides would be one showing rated twice
        assert len(showings) == len(set(showings)), "a showing was rated twice"
    return "half written" in ratings.repaired


def test_no_kill_loses_or_doubles_a_rating(tmp_path):
    """In a process of its own: forking this one, with whatever threads other tests left, would not be safe."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(tmp_path), str(KILLS)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert run.returncode == 0, run.stderr
    counts = json.loads(run.stdout)
    print(counts)
    assert counts["kills"] == KILLS and counts["acknowledged"] > KILLS and counts["undone"] > KILLS / 20
    assert 0 < counts["before the first pair showed"] < 0.8 * KILLS


if __name__ == "__main__":
    print(json.dumps(kill_raters(Path(sys.argv[1]), int(sys.argv[2]))))
