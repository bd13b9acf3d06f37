"""`python -m helpers pool`: the shared pairs, and the ratings of a class put together; nothing is dropped without a word."""

import json
import os
import random
import re
import shutil
import uuid

import pytest
import torch
from common import ROOT

from helpers import reviews
from helpers.errors import CourseError
from helpers.feedback import pool, reward_model
from helpers.feedback.exchange import read_ratings
from helpers.feedback.pairs import SHARED, Pair, shared_pairs, shared_pairs_in_order
from helpers.feedback.ratings import Rating, Ratings, now, record_of
from helpers.feedback.reward_model import count_preferences, split
from helpers.notebooks import NOTEBOOKS

PAIRS = shared_pairs_in_order()


def rating(rater, pair, choice="first", simulated=False):
    return Rating(uuid.uuid4().hex, now(), rater, simulated, pair, choice, "first", 2.0, "")


def hand_in(path, rater, choices, pairs=PAIRS):
    """A file of one rater: a choice for each of the first pairs."""
    ratings = Ratings(path)
    for pair, choice in zip(pairs, choices):
        ratings.add(rating(rater, pair, choice))
    return ratings


def bytes_in(folder):
    """What is in each file but the pooled one; without the locks that the labeller leaves."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {path: path.read_bytes() for path in paths if path.name != pool.NAME}


# ------------------------------------------------------------------------------------------------------------ the pairs


def test_sixty_pairs_of_sixty_prompts_every_fifth_held_out():
    train, test = shared_pairs().values()
    assert (len(train), len(test)) == (48, 12) and len({pair.prompt for pair in PAIRS}) == 60
    stored = [json.loads(line) for line in SHARED.read_text().splitlines()]
    assert [vars(Pair(**record)) for record in stored] == [
        {name: vars(pair)[name] for name in ("prompt", "first", "second")} for pair in PAIRS
    ]
    assert PAIRS[4::5] == test and all(pair.first < pair.second for pair in PAIRS)


def test_they_are_made_again_to_the_byte_and_of_prompts_that_notebook_09_leaves():
    from helpers import course
    from helpers.maintain import shared_pairs as maker

    assert maker.lines(maker.make()) == SHARED.read_text()
    used = reviews.make_prompts(course.start(), words=4, n_eval=64)
    assert not {pair.prompt for pair in PAIRS} & {*used[0][:625], *used[1]}


def test_notebook_09_shows_them_first_after_the_line_of_the_teachers_page():
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ +(pairs = .*shared_pairs.*)$", page, re.MULTILINE)
    notebook = json.loads((NOTEBOOKS / "09_human_feedback.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (mixing,) = re.findall(r"^mixed = .*$", "\n".join(cells), re.MULTILINE)
    own = {name: [Pair(name, "a", str(i)) for i in range(n)] for name, n in (("train", 1000), ("test", 250))}
    names = {"shared_pairs": shared_pairs, "pairs": own}
    exec(f"{line}\n{mixing}", names)
    assert names["mixed"][:60] == PAIRS and len(names["mixed"]) == 1310


# ------------------------------------------------------------------------------------------------------------ agreement


def test_agreement_of_three_by_hand():
    """Two pairs, three raters: all alike, and two to one. Shares 1 and 1/3; choices 5 to 1, so chance is 26/36."""
    choices = {"Ada": ("first", "first"), "Bo": ("first", "first"), "Cy": ("first", "second")}
    ratings = [rating(name, pair, c) for name, own in choices.items() for pair, c in zip(PAIRS, own)]
    found = pool.agreement_of_many(ratings)
    assert found.share.mean == pytest.approx(2 / 3) and found.chance == pytest.approx(26 / 36)
    assert found.kappa == pytest.approx((2 / 3 - 26 / 36) / (1 - 26 / 36))
    assert found.share.low is None  # two pairs have no interval


def test_skips_and_second_thoughts_do_not_count():
    ratings = [rating("Ada", PAIRS[0], choice) for choice in ("skip", "first", "second")]
    assert pool.agreement_of_many(ratings) is None
    ratings += [rating("Bo", PAIRS[0], "first")]
    found = pool.agreement_of_many(ratings)
    assert found.share.mean == 1 and found.kappa is None
    assert "No pair was rated by two people" in pool.agreement_in_words(ratings[:3])


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"first": 3, "second": 2}, "first"),
        ({"first": 2, "second": 2}, "-"),
        ({"first": 2, "second": 1, "tie": 1}, "-"),
        ({"tie": 2, "skip": 9}, "tie"),
        ({"skip": 1}, "-"),
        ({}, "-"),
    ],
)
def test_the_majority_is_more_than_half_of_those_who_chose(counts, said):
    assert pool.majority(pool.Counter(counts)) == said


# ------------------------------------------------------------------------------------------------------------ a class


def test_a_class(cli, tmp_path):
    folder = tmp_path / "class"
    hand_in(folder / "ada.jsonl", "Ada", ["first"] * 60)
    hand_in(
        folder / "Bo Li" / "ratings.jsonl",
        "Bo",
        ["first"] * 30 + ["second"] * 10 + ["tie"] * 5 + ["skip"] * 5,
    )
    hand_in(folder / "Bo Li" / "ratings.jsonl", "Bo", ["first", "second"])  # two pairs came again
    (folder / "list.csv").write_text("Ada\nBo\n")
    before = bytes_in(folder)
    done = cli("pool", folder)
    assert done.returncode == 0, done.stderr
    assert bytes_in(folder) == before
    lines = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()}
    assert lines["Ada"][1:] == ["60", "60", "0", "0", "0", "of", "0", "67%", "of", "45", "ada.jsonl"]
    assert (
        lines["Bo"][1:8] == ["50", "40", "5", "5", "1", "of", "2"] and lines["Bo"][-1] == "Li/ratings.jsonl"
    )
    assert lines["1"][-5:] == ["2", "0", "0", "0", "first"] and lines["31"][-5:] == ["1", "1", "0", "0", "-"]
    assert "Two raters of a pair agree (first, second or tie): 67%, 95% interval" in done.stdout
    assert "Not read, because it is no file, or its name does not end in .jsonl: list.csv." in done.stdout
    assert "112 ratings by 2 people" in done.stdout
    ratings = read_ratings(folder / pool.NAME)
    assert len(ratings) == 112 and {r.rater for r in ratings} == {"Ada", "Bo"}
    fitted_to, held_out = split([r for r in ratings if r.rater == "Ada"])
    assert count_preferences(fitted_to) + count_preferences(held_out) == 60
    again = cli("pool", folder)  # its own file is replaced, and not read
    assert again.returncode == 0 and read_ratings(folder / pool.NAME) == ratings


def test_what_is_left_out_is_said(tmp_path):
    mine = hand_in(tmp_path / "a.jsonl", "Ada", ["first"] * 4)
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "copy.jsonl")
    mine.undo("Ada")
    other = Pair("Another", " pair", " than these")
    hand_in(tmp_path / "b.jsonl", "Bo", ["first"] * 3, [PAIRS[0], other, other])
    Ratings(tmp_path / "b.jsonl").add(rating("code", PAIRS[1], simulated=True))
    hand_in(tmp_path / "cut.jsonl", "Cy", ["second", "second"])
    with open(tmp_path / "cut.jsonl", "r+b") as file:
        file.truncate((tmp_path / "cut.jsonl").stat().st_size - 40)
    hand_in(tmp_path / "damaged.jsonl", "Di", ["second"] * 2)
    text = (tmp_path / "damaged.jsonl").read_text()
    (tmp_path / "damaged.jsonl").write_text(text.replace('"second"', '"scnd"', 1))
    (tmp_path / "nothing.jsonl").write_text("")
    before = bytes_in(tmp_path)
    pooled, path = pool.pool(tmp_path)
    assert bytes_in(tmp_path) == before
    said = "\n".join(pooled.notes)
    assert (
        "copy.jsonl: left out are ratings: 3 in an earlier file already, by the id, 1 taken back in another copy"
        in said
    )
    assert (
        "b.jsonl: left out are ratings: 2 of pairs that are not the shared ones, 1 made by a program." in said
    )
    assert "cut.jsonl: its last line is only half written" in said
    assert "Left out whole: " in said and "damaged.jsonl, line 1: lacks 'second'" in said
    assert "nothing.jsonl: holds no rating that stands." in said and len(pooled.notes) == 5
    assert pool.raters_table(pooled)[1:] == [
        ("Ada", "3", "3", "0", "0", "0 of 0", "50% of 2", "a.jsonl"),
        ("Bo", "1", "1", "0", "0", "0 of 0", "50% of 2", "b.jsonl"),
        ("Cy", "1", "1", "0", "0", "0 of 0", "0% of 2", "cut.jsonl"),
    ]
    assert Ratings(path).standing() == pooled.ratings


def test_one_name_in_two_files_is_two_people_unless_one_file_is_a_copy_of_the_other(tmp_path):
    hand_in(tmp_path / "ada" / "ratings.jsonl", "me", ["first"] * 2)
    hand_in(tmp_path / "bo" / "ratings.jsonl", "me", ["second"] * 2)
    shutil.copy(tmp_path / "bo" / "ratings.jsonl", tmp_path / "bo later.jsonl")
    hand_in(tmp_path / "bo later.jsonl", "me", ["second"], PAIRS[2:])
    pooled, path = pool.pool(tmp_path)
    counts = {row[0]: row[1] for row in pool.raters_table(pooled)[1:]}
    assert counts == {"me (ada)": "2", "me (bo)": "3"}
    assert "in 2 files that have no rating in common, so it counts as 2 people" in "\n".join(pooled.notes)
    # pooled once more, beside a file that came late, nothing is counted twice
    shutil.move(path, tmp_path / "group one.jsonl")
    assert len(pool.pool(tmp_path)[0].ratings) == 5


def test_ratings_that_were_pooled_before_are_no_people(tmp_path):
    """Two of one name are told apart by their files, so what was pooled from these must not count as a copy of both."""
    for name, choice in (("a", "first"), ("b", "second")):
        hand_in(tmp_path / f"{name}.jsonl", "me", [choice] * 2)
    shutil.move(pool.pool(tmp_path)[1], tmp_path / "0.jsonl")
    for name, choice in (("a", "first"), ("b", "second")):  # both go on
        hand_in(tmp_path / f"{name}.jsonl", "me", [choice] * 2, PAIRS[2:])
    pooled, _ = pool.pool(tmp_path)
    assert {row[0]: row[1] for row in pool.raters_table(pooled)[1:]} == {"me (a)": "4", "me (b)": "4"}
    assert "0.jsonl: left out are ratings: 4 pooled before: collect the files" in pooled.notes[0]


def test_what_is_no_file_or_may_not_be_read_is_said(tmp_path, monkeypatch):
    hand_in(tmp_path / "class" / "a.jsonl", "Ada", ["first"] * 2)
    hand_in(tmp_path / "elsewhere" / "b.jsonl", "Bo", ["first"] * 2)
    (tmp_path / "class" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "class" / "loop").symlink_to(tmp_path / "class")
    (tmp_path / "class" / "dead.jsonl").symlink_to(tmp_path / "nothing")
    (tmp_path / "class" / ".git").mkdir()
    (tmp_path / "class" / ".git" / "HEAD").write_text("")
    pooled, _ = pool.pool(tmp_path / "class")
    assert "does not end in .jsonl: dead.jsonl, linked, loop." in pooled.notes[-1]
    (tmp_path / "class" / "closed").mkdir()
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert re.search(
        "the folder .*closed cannot be read: Permission denied.", pool.pool(tmp_path / "class")[0].notes[0]
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="no folder is closed to root")
def test_a_folder_that_lets_nobody_in(tmp_path):
    hand_in(tmp_path / "class" / "a.jsonl", "Ada", ["first"])
    (tmp_path / "class").chmod(0)
    try:
        with pytest.raises(CourseError, match="cannot be read: Permission denied"):
            pool.pool(tmp_path / "class")
    finally:
        (tmp_path / "class").chmod(0o700)


def test_names_stay_in_their_line_of_the_table(cli, tmp_path):
    folder = tmp_path / "cl\x1b[31mass"
    hand_in(folder / "a.jsonl", "A\nda\x1b[31m", ["first"])
    hand_in(folder / "b.jsonl", "B" * 3000, ["first"])
    done = cli("pool", folder)
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert "A\\nda\\x1b[31m" in done.stdout and max(map(len, done.stdout.splitlines())) < 300


def test_many_raters_of_few_pairs_are_no_more_pairs():
    """Twelve pairs, one rater or eight: the interval of the reward model's accuracy is the same."""
    rows = [(pair.first, pair.second, 1.0) for pair in PAIRS[:12]]
    margins = torch.tensor([1.0] * 8 + [-1.0] * 4)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for raters in (1, 8):
            scores = iter([margins.repeat(raters), torch.zeros(12 * raters)])
            patch.setattr(reward_model, "score_texts", lambda *_, scores=scores: next(scores))
            found.append(reward_model.accuracy(None, None, rows * raters))
    one, eight = found
    assert (one.low, one.high) == pytest.approx((eight.low, eight.high)) and (one.n, eight.n) == (12, 96)
    assert one.share == eight.share == pytest.approx(2 / 3)


@pytest.mark.parametrize("content", ["", "notes of a student\n", "ratings"])
def test_another_file_of_that_name_stays(tmp_path, content):
    hand_in(tmp_path / "a.jsonl", "Ada", ["first"])
    path = tmp_path / pool.NAME
    if content == "ratings":
        pool.pool(tmp_path)
        with open(path, "a") as file:  # somebody went on rating in the pooled file
            file.write(json.dumps(record_of(rating("Ada", PAIRS[1]))) + "\n")
    else:
        path.write_text(content)
    kept = path.read_bytes()
    if content:
        with pytest.raises(CourseError, match="is not as this command writes it, so it is left as it is"):
            pool.pool(tmp_path)
        assert path.read_bytes() == kept
    else:
        pool.pool(tmp_path)  # an empty file holds nothing that could be lost


def test_a_folder_without_ratings(cli, tmp_path):
    assert "is no folder" in cli("pool", tmp_path / "nobody").stderr
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ratings.jsonl.txt").write_text("{}")
    done = cli("pool", tmp_path / "class")
    assert done.returncode == 2 and "holds no rating of a shared pair. Nothing was written" in done.stderr
    assert "ratings.jsonl.txt" in done.stderr and not (tmp_path / "class" / pool.NAME).exists()


def test_thirty_people(tmp_path):
    """Thirty raters of one taste, the shorter text, who err on one pair in ten: two agree on 82%, and most are right about every pair."""
    chance = random.Random(0)
    for number in range(30):
        choices = [
            "first" if (len(pair.first) < len(pair.second)) != (chance.random() < 0.1) else "second"
            for pair in PAIRS
        ]
        hand_in(tmp_path / f"{number}.jsonl", f"rater {number}", choices)
    pooled, path = pool.pool(tmp_path)
    found = pool.agreement_of_many(pooled.ratings)
    assert (
        found.share.mean == pytest.approx(0.82, abs=0.03)
        and found.share.low < found.share.mean < found.share.high
    )
    majorities = [row[-1] for row in pool.pairs_table(pooled.ratings)[1:]]
    assert majorities == ["first" if len(pair.first) < len(pair.second) else "second" for pair in PAIRS]
    assert len(read_ratings(path)) == 1800
