"""Two kernels rate into one file at the same time, and are killed again and again.

Run as a script, this file forks a process for each rater; whoever is killed is followed by another that opens the file anew.
They kill themselves after so many clicks, or at so many changes of the file, as in test_kills; and none is ever more than
some clicks ahead of the other, so their clicks are mixed on every machine.
"""

import functools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import filelock
import pytest
from test_kills import PAIRS, RATERS, click, kill_at_change, look_at, rating_by, run_script

from helpers.feedback.ratings import Ratings
from helpers.widgets import labeller
from helpers.widgets.labeller import PreferenceLabeller

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
CLICKS = 10_000
PER_FILE = 500  # clicks, of both raters; no rater comes to the end of the pairs
AHEAD = 20  # clicks; what one click tells is a line or two
LINE = 64  # bytes of what is told


def rate_together(folder: Path, clicks: int) -> dict:
    """Fill file after file, and count what happened."""
    labeller.MIN_SECONDS = 0
    os.fsync = lambda handle: None  # it matters where the power fails, and nothing here is that
    wait_briefly()
    chance, counts = random.Random(0), Counter()
    assert len({pair.id for pair in PAIRS}) == len(PAIRS)  # computed before the first fork, and kept
    for number in range(clicks // PER_FILE):
        path = folder / f"{number}.jsonl"
        on_page = number % 10 == 0  # a page's widgets cost most of the time
        counts.update(fill(path, PER_FILE // len(RATERS), on_page, chance))
    return dict(counts)


def fill(path: Path, clicks: int, on_page: bool, chance: random.Random) -> Counter:
    """Let every rater do so many clicks, whatever kills it, and look at the file after each kill."""
    counts = Counter()
    told = {rater: path.with_suffix(f".{rater}") for rater in RATERS}
    for file in told.values():
        file.touch()
    running = {start(path, rater, told, clicks, on_page, chance): rater for rater in RATERS}
    try:
        while running:
            child, status = os.wait()
            rater = running.pop(child)
            assert os.WIFSIGNALED(status) or status == 0, f"{rater} ended with {status}"
            counts["half-written lines"] += look_at(path, lines_of(told), Later(told))
            if os.WIFSIGNALED(status):
                counts["kills"] += 1
                running[start(path, rater, told, clicks, on_page, chance)] = rater
            else:
                told[rater].with_suffix(f".{rater}-done").touch()
    finally:
        for child in running:  # after an error here, else they would wait for each other for ever
            os.kill(child, signal.SIGKILL)
    lines = lines_of(told)
    counts["half-written lines"] += look_at(path, lines, lines)
    counts["clicks"] += sum("saved" in line or "undone" in line for line in lines)
    ratings = [json.loads(line).get("rater") for line in path.read_bytes().splitlines()]
    counts["turns"] += sum(one != other for one, other in zip(ratings, ratings[1:]))
    return counts


class Later:
    """What will have been told when this is looped over."""

    def __init__(self, told: dict[str, Path]):
        self.told = told

    def __iter__(self):
        return iter(lines_of(self.told))


def lines_of(told: dict[str, Path]) -> list[dict]:
    return [json.loads(line) for file in told.values() for line in file.read_bytes().splitlines()]


def start(path: Path, rater: str, told: dict, clicks: int, on_page: bool, chance: random.Random) -> int:
    """Fork a rater, which ends when it has done its clicks, or kills itself before."""
    seed = chance.random()
    child = os.fork()
    if child:
        return child
    try:
        rate(path, rater, told, clicks, on_page, random.Random(seed))
        os._exit(0)
    finally:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def rate(
    path: Path, rater: str, told: dict[str, Path], clicks: int, on_page: bool, chance: random.Random
) -> None:
    most = 10**9
    if chance.random() < 0.8:
        kill_at_change(chance, most=300)
    else:
        most = chance.randint(1, 100)
    others = [file for name, file in told.items() if name != rater]
    pipe = os.open(told[rater], os.O_WRONLY | os.O_APPEND)
    ratings = Ratings(path)
    lab = PreferenceLabeller(PAIRS, ratings, rater, repeat_every=4) if on_page else None
    done = sum(not line.keys() & {"undoing", "shown"} for line in lines_of({rater: told[rater]}))
    for number in range(clicks - done):
        if number == most:
            os.kill(os.getpid(), signal.SIGKILL)
        while any(is_behind(file, told[rater]) for file in others):
            time.sleep(0.0005)
        click(ratings, rater, lab, chance, pipe)


def is_behind(other: Path, mine: Path) -> bool:
    """Whether this rater has told much more than the other, who has more to tell."""
    ahead = mine.stat().st_size - other.stat().st_size
    return ahead > AHEAD * LINE and not other.with_suffix(f"{other.suffix}-done").exists()


def wait_briefly() -> None:
    """Have who waits for the lock ask for it often, or two that never pause would wait most of the time."""
    filelock.FileLock = functools.partial(filelock.FileLock, poll_interval=0.0005)


def import_together(path: Path, count: int) -> dict:
    """Both add the same ratings, as two kernels that run the same cell; the file has each once."""
    wait_briefly()
    os.fsync = lambda handle: None
    chance = random.Random(0)
    given = [rating_by("Ann", pair, chance) for pair in PAIRS[:count]]
    children = []
    for seed in range(2):
        child = os.fork()
        if not child:  # an error here ends this process as any error does
            ratings = Ratings(path)
            for rating in random.Random(seed).sample(given, count):
                ratings.add(rating)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert sorted(one.id for one in Ratings(path).standing()) == sorted(one.id for one in given)
    return {"lines": len(path.read_bytes().splitlines())}


def test_two_processes_and_many_kills_lose_and_double_nothing(tmp_path):
    counts = run_script(__file__, tmp_path, CLICKS)
    # a click whose process was killed before it could tell of it is done, and not counted
    assert counts["clicks"] == CLICKS and counts["kills"] > 50
    assert counts["turns"] > CLICKS / (2 * AHEAD) and counts["half-written lines"] > 5


def test_two_processes_that_import_the_same_have_it_once(tmp_path):
    assert run_script(__file__, tmp_path / "ratings.jsonl")["lines"] == 200


if __name__ == "__main__":
    place, *clicks = sys.argv[1:]
    done = rate_together(Path(place), int(clicks[0])) if clicks else import_together(Path(place), 200)
    print(json.dumps(done))
