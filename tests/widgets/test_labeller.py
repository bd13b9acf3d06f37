"""The preference labeller: every control, resuming, repeats, several raters, undo, disks that refuse, hostile text."""

import json
import re
import time
from dataclasses import replace

import pytest
from read_markup import active, all_html, bare, behind_style, cells, tree

from helpers.errors import CourseError
from helpers.feedback.agreement import self_agreement
from helpers.feedback.pairs import Pair
from helpers.feedback.ratings import Rating, Ratings, record_of
from helpers.feedback.simulated import SimulatedRater
from helpers.widgets import labeller as module
from helpers.widgets.html import Static
from helpers.widgets.labeller import OTHER, PreferenceLabeller

PAIRS = [Pair(f"Film {place} was", f" one {place}", f" two {place}") for place in range(40)]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time stands still unless a test moves it, and a click counts at once unless a test says otherwise."""

    class Clock:
        time = 100.0

        def monotonic(self):
            return self.time

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "MIN_SECONDS", 0)
    return clock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ratings.jsonl"


@pytest.fixture
def label(path):
    """Opens the file, as a new kernel does, and shows the labeller."""
    return lambda rater="Ann", pairs=PAIRS, **settings: PreferenceLabeller(
        pairs, Ratings(path), rater, **settings
    )


def sides(lab):
    """Prompt, left and right as they are on the page."""
    prompt = re.search(r"<b>Prompt</b> (<bdi.*?</bdi>)", lab.shown.value)
    texts = re.findall(r'<div class="rlhf-name">(.*?)</div>(.*?)</div>', lab.shown.value)
    if texts:
        assert [bare(name).strip() for name, _ in texts] == ["Left", "Right"]
    return tuple(bare(part) for part in (prompt[1], *(text for _, text in texts))) if prompt else ()


def rated(lab):
    """The number in the ring."""
    return int(bare(lab.progress.value))


def sentence_of(html):
    return re.sub(r"<.*?>", "", html.value).replace("&#x27;", "'")


# Rating


def test_left_and_right_are_what_stands_there(label, path):
    lab = label()
    for place in range(12):
        prompt, left, right = sides(lab)
        button, preferred = [(lab.left, left), (lab.right, right)][place % 2]
        button.click()
        rating = Ratings(path).standing()[-1]
        assert rating.pair.prompt == prompt and getattr(rating.pair, rating.choice) == preferred
        assert getattr(rating.pair, rating.shown) == left and rating.rater == "Ann" and not rating.simulated
    assert {rating.choice for rating in Ratings(path).standing()} == {"first", "second"}


def test_tie_skip_reason_and_seconds(label, path, clock):
    lab = label()
    clock.time += 2.25
    lab.reason.value = 'both "dull"\n'
    lab.tie.click()
    assert lab.reason.value == ""
    clock.time += 4
    lab.skip.click()
    tie, skip = Ratings(path).standing()
    assert (tie.choice, tie.reason, tie.seconds, tie.pair) == ("tie", 'both "dull"\n', 2.25, PAIRS[0])
    assert (skip.choice, skip.reason, skip.seconds, skip.pair) == ("skip", "", 4.0, PAIRS[1])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", tie.time) and re.fullmatch(
        "[0-9a-f]{32}", tie.id
    )


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf"), 1e308, -1.0])
def test_a_file_with_seconds_that_no_rater_took(label, seconds):
    """The file is the reader's, and may come from elsewhere: such a number says nothing about the pace."""
    lab = label()
    odd, fine = (
        Rating(f"{place}", "", "Ann", False, PAIRS[place], "tie", "first", taken, "")
        for place, taken in enumerate([seconds, 3.0])
    )
    assert lab.pace_in_words([odd]) == "1 of 40 rated"
    assert lab.pace_in_words([odd, fine]) == "2 of 40 rated, 3 s a pair, about 2 minutes left"


def test_a_rating_is_on_disk_before_the_next_pair_shows(label, path, monkeypatch):
    lab = label()
    first, seen = lab.shown.value, []
    lab.shown.observe(lambda change: seen.append(len(Ratings(path).standing())), "value")
    monkeypatch.setattr("os.fsync", lambda handle: seen.append(lab.shown.value == first))
    lab.left.click()
    assert seen == [True, True, 1]  # the folder, which has a new file, and the file


def test_a_click_right_after_a_pair_appeared_does_not_count(label, path, clock, monkeypatch):
    monkeypatch.setattr(module, "MIN_SECONDS", 0.3)
    lab = label()
    for button in lab.buttons:
        button.click()
    assert not Ratings(path).standing() and sides(lab)[0] == PAIRS[0].prompt
    clock.time += 0.31
    lab.left.click()
    lab.left.click()  # the second half of a double click
    assert len(Ratings(path).standing()) == 1 and sides(lab)[0] == PAIRS[1].prompt
    clock.time += 0.31
    lab.left.click()
    clock.time += 0.31
    lab.undo.click()
    lab.undo.click()
    assert sides(lab)[0] == PAIRS[1].prompt and len(Ratings(path).standing()) == 1


def test_sides_are_shuffled_for_each_pair_and_rater(label):
    lefts = {}
    for rater in ("Ann", "Ben"):
        lab = label(rater)
        lefts[rater] = [lab.side_of(pair, []) for pair in PAIRS]
        assert 10 <= lefts[rater].count("first") <= 30
        assert lefts[rater] == [label(rater).side_of(pair, []) for pair in PAIRS]
    assert lefts["Ann"] != lefts["Ben"]


# Keys


def press(lab, key):
    """What arrives when a key is pressed in the field."""
    lab.keys.value = key
    assert lab.keys.value == "", "the field is empty for the next key"


@pytest.mark.parametrize("place, choice", [(1, "left"), (2, "tie"), (3, "right"), (4, "skip")])
def test_a_key_does_what_its_button_does(label, path, place, choice):
    by_key, by_button = label("Ann"), PreferenceLabeller(PAIRS, Ratings(path.with_name("other")), "Ann")
    for lab in (by_key, by_button):
        lab.reason.value = "a reason"
    press(by_key, str(place))
    by_button.buttons[place - 1].click()
    (pressed,), (clicked,) = by_key.ratings.standing(), by_button.ratings.standing()
    assert replace(pressed, id="", time="") == replace(clicked, id="", time="")
    assert by_key.shown.value == by_button.shown.value and by_key.last.value == by_button.last.value != ""
    expected = {"left": pressed.shown, "right": OTHER[pressed.shown]}.get(choice, choice)
    assert pressed.choice == expected


def test_the_key_of_undo(label, path):
    lab = label()
    press(lab, "1")
    assert sides(lab)[0] == PAIRS[1].prompt
    press(lab, "5")
    assert sides(lab)[0] == PAIRS[0].prompt and not Ratings(path).standing()


@pytest.mark.parametrize("key", ["0", "6", "a", " ", "(", ")", "Undo", "é", "\ud83c", "$", "１"])
def test_other_keys_do_nothing(label, path, key):
    lab = label()
    lab.tie.click()
    before = lab.shown.value
    press(lab, key)
    assert lab.shown.value == before and len(Ratings(path).standing()) == 1


def test_the_last_of_several_keys_counts(label, path):
    """As they arrive when the kernel was slow to empty the field."""
    press(label(), "x2")
    assert [rating.choice for rating in Ratings(path).standing()] == ["tie"]


def test_a_key_whose_button_rests_does_nothing(label, path):
    lab = label()
    press(lab, "5")  # there is nothing to take back
    assert not lab.last.value and not path.exists()
    lab = label("")
    for key in "12345":
        press(lab, key)
    assert not path.exists()
    lab = label(pairs=PAIRS[:2])
    rate_all(lab)
    for key in "1234":
        press(lab, key)
    assert len(Ratings(path).standing()) == 2
    press(lab, "5")
    assert len(Ratings(path).standing()) == 1


def test_a_key_that_is_held_down_rates_no_pair_that_nobody_has_read(label, path, clock, monkeypatch):
    monkeypatch.setattr(module, "MIN_SECONDS", 0.3)
    lab = label()
    press(lab, "1")
    assert not path.exists()
    clock.time += 0.31
    for _ in range(3):
        press(lab, "1")
    assert len(Ratings(path).standing()) == 1 and sides(lab)[0] == PAIRS[1].prompt
    clock.time += 0.31
    press(lab, "1")
    assert len(Ratings(path).standing()) == 2


# What the last click did


def test_what_the_last_click_did_is_said(label):
    lab = label()
    assert lab.last.value == ""
    for button, said in [
        (lab.left, "left is better"),
        (lab.tie, "a tie"),
        (lab.right, "right is better"),
        (lab.skip, "skipped"),
    ]:
        button.click()
        assert lab.last.value == f"On disk: {said}. Undo takes it back."
    lab.undo.click()
    assert lab.last.value == "The last rating is taken back."
    lab.rater.value = "Ben"
    assert lab.last.value == "", "Ben has clicked nothing"


def test_left_is_better_whichever_text_stands_left(label):
    lab, seen = label(), set()
    while len(seen) < 2:
        seen.add(lab.side)
        lab.left.click()
        assert "left is better" in lab.last.value


def test_a_click_that_did_not_count_is_not_said_to_be_on_disk(label, path):
    """It was written in another window, or the file is gone: what the click before did is no longer the last thing."""
    lab, other = label(), label()
    lab.left.click()
    other.left.click()
    assert "did not count" in sentence_of(other.message) and other.last.value == ""
    path.unlink()
    lab.left.click()
    assert "moved, deleted or emptied" in sentence_of(lab.message) and lab.last.value == ""


# Who rates


def test_without_a_name_nothing_can_be_clicked(label, path):
    for rater in ("", "  "):
        lab = label(rater)
        assert "Type your name" in sentence_of(lab.shown) and "Film" not in lab.shown.value
        assert all(button.disabled for button in lab.buttons) and lab.reason.disabled
        for button in lab.buttons:
            button.click()
        assert not path.exists()
    lab.rater.value = " Ann "
    assert sides(lab)[0] == PAIRS[0].prompt and not lab.left.disabled and lab.undo.disabled
    lab.left.click()
    assert Ratings(path).raters == ["Ann"]
    lab.rater.value = ""
    assert all(button.disabled for button in lab.buttons) and "Type your name" in sentence_of(lab.shown)
    assert not lab.rater.continuous_update and not lab.reason.continuous_update


def test_simulated_ratings_are_called_simulated(label, path):
    for rating in SimulatedRater(lambda texts: [len(text) for text in texts], name="robot").rate(PAIRS[:7]):
        Ratings(path).add(rating)
    lab = label()
    assert "robot 7 (simulated)" in sentence_of(lab.people)
    lab.left.click()
    assert "robot 7 (simulated), Ann 1." in sentence_of(lab.people) and "1 of 40 rated" in lab.pace.value
    lab.rater.value = "robot"
    assert "under this name are simulated" in sentence_of(lab.shown)
    for button in lab.buttons:
        button.click()
    assert len(Ratings(path).standing()) == 8 and len(path.read_text().splitlines()) == 8


def test_several_raters_take_turns_in_one_file(label, path):
    alone = {}
    for rater in ("Ann", "Ben"):
        lab = PreferenceLabeller(PAIRS, Ratings(path.with_name(rater)), rater)
        rate_all(lab)
        alone[rater] = sequence(lab.ratings.standing(rater))
    lab = label("")
    for turn in range(60):
        lab.rater.value = ["Ann", "Ben"][turn // 3 % 2]
        lab.left.click()
        if turn % 7 == 0:
            lab = label("")
    for rater in ("Ann", "Ben"):
        mine = sequence(Ratings(path).standing(rater))
        assert mine == alone[rater][: len(mine)] and len(mine) == 30


# Repeats and resuming


def sequence(ratings):
    return [(rating.pair.id, rating.shown) for rating in ratings]


def rate_all(lab):
    while lab.pair:
        lab.left.click()


@pytest.mark.parametrize("repeat_every", [2, 3, 10, 100])
def test_earlier_pairs_come_again_with_their_sides_swapped(label, path, repeat_every):
    lab = label(repeat_every=repeat_every)
    rate_all(lab)
    ratings, first = Ratings(path).standing(), {}
    for place, rating in enumerate(ratings):
        if rating.pair in first:
            assert (place + 1) % repeat_every == 0 and place - first[rating.pair] >= 5
            assert rating.shown == OTHER[ratings[first[rating.pair]].shown]
        else:
            first[rating.pair] = place
    assert list(first) == PAIRS
    repeats = [place + 1 for place in range(len(ratings)) if (place + 1) % repeat_every == 0 and place >= 5]
    assert len(ratings) - 40 == len(repeats)
    if repeat_every == 10:
        assert len(repeats) == 4 and self_agreement(ratings).n == 4 and self_agreement(ratings).share == 0


def test_after_the_last_pair_nothing_comes_again(label, path):
    rate_all(label(pairs=PAIRS[:9]))
    assert len(Ratings(path).standing()) == 9


def test_skipped_pairs_do_not_come_again(label, path):
    lab = label(repeat_every=3)
    while lab.pair:
        lab.skip.click()
    assert len(Ratings(path).standing()) == 40


def test_a_new_kernel_goes_on_exactly_where_the_last_stopped(label, path):
    lab = label(repeat_every=4)
    rate_all(lab)
    whole = sequence(Ratings(path).standing())
    path.unlink()
    for place in range(len(whole)):
        lab = label(repeat_every=4)
        assert (lab.pair.id, lab.side) == whole[place]
        lab.left.click()
    assert sequence(Ratings(path).standing()) == whole


def test_a_half_written_rating_is_asked_for_again(label, path):
    lab = label()
    for _ in range(9):
        lab.left.click()
    lost = (lab.pair.id, lab.side)
    lab.left.click()
    path.write_bytes(path.read_bytes()[:-30])
    lab = label()
    assert (lab.pair.id, lab.side) == lost and "line 10 was only half written" in sentence_of(lab.message)
    lab.left.click()
    assert not lab.message.value and len(Ratings(path).standing()) == 10


def test_more_pairs_go_on_after_the_old_ones(label, path):
    rate_all(label(pairs=PAIRS[:3]))
    lab = label(pairs=PAIRS[:5])
    assert lab.pair == PAIRS[3] and "3 of 5 rated" in lab.pace.value


# Undo


def test_undo_brings_back_pair_after_pair(label, path):
    lab = label(repeat_every=4)
    shown = []
    for place in range(14):
        shown.append(sides(lab))
        lab.reason.value = f"reason {place}"
        lab.buttons[place % 4].click()
    for place in reversed(range(14)):
        if place == 7:
            lab = label(repeat_every=4)  # a new kernel takes back too
        assert not lab.undo.disabled
        lab.undo.click()
        assert sides(lab) == shown[place] and lab.reason.value == f"reason {place}"
        assert len(Ratings(path).standing()) == place
    assert lab.undo.disabled and len(path.read_text().splitlines()) == 28
    lab.undo.click()
    lab.left.click()
    assert len(Ratings(path).standing()) == 1 and sides(lab) == shown[1]


def test_undo_takes_back_nobody_elses_and_no_other_lists(label, path):
    label("Ben").left.click()
    assert label("Ann").undo.disabled
    lab = label("Ben", PAIRS[5:])
    assert lab.undo.disabled
    lab.undo.click()
    assert len(Ratings(path).standing("Ben")) == 1
    lab.left.click()
    lab.undo.click()
    assert len(Ratings(path).standing("Ben")) == 1 and lab.undo.disabled and lab.pair == PAIRS[5]
    lab.left.click()
    assert label("Ben").undo.disabled is False and label("Ben", PAIRS[:5]).undo.disabled


def test_after_the_last_pair_undo_still_works(label, path):
    lab = label(pairs=PAIRS[:2])
    rate_all(lab)
    assert lab.left.disabled and not lab.undo.disabled
    lab.undo.click()
    assert sides(lab)[0] == PAIRS[1].prompt and not lab.left.disabled


# Progress


def test_progress_and_pace_in_words(label, clock):
    lab = label()
    assert lab.pace.value == "0 of 40 rated" and rated(lab) == 0 and "share:0%" in lab.progress.value
    for _ in range(9):
        clock.time += 8
        lab.left.click()
    assert lab.pace.value == "9 of 40 rated, 8 s a pair, about 4 minutes left"
    assert rated(lab) == 9 and "share:22%" in lab.progress.value
    clock.time += 3600  # coffee
    lab.left.click()  # a pair rated before: no progress
    assert lab.pace.value == "9 of 40 rated, 8 s a pair, about 4 minutes left" and rated(lab) == 9
    while rated(lab) < 39:
        clock.time += 8
        lab.tie.click()
    assert lab.pace.value == "39 of 40 rated, 8 s a pair, about 1 minute left"
    lab.undo.click()
    assert rated(lab) == 38


def test_the_end_is_said_with_counts(label, path):
    lab = label(pairs=PAIRS[:12])
    for place in range(13):
        [lab.left, lab.right, lab.tie, lab.skip][place % 4].click()
    assert sentence_of(lab.shown) == (
        "All 12 pairs are rated, in 13 showings: one was better 7 times, 3 ties, 3 skipped. "
        "To go on, make more pairs and run this cell again."
    )
    assert lab.pace.value == "12 of 12 rated" and rated(lab) == 12
    assert "share:100%" in lab.progress.value
    for button in (lab.left, lab.tie, lab.right, lab.skip):
        assert button.disabled
        button.click()
    assert len(Ratings(path).standing()) == 13


def test_no_pairs(label):
    lab = label(pairs=[])
    for button in lab.buttons:
        button.click()
    assert "There are no pairs to rate." in lab.shown.value and "There are no pairs" in lab.static().markup


def test_a_pair_that_comes_twice_in_the_list_shows_once(label):
    lab = label(pairs=PAIRS[:2] * 2)
    assert lab.pace.value == "0 of 2 rated"
    lab.left.click()
    assert lab.pace.value.startswith("1 of 2 rated") and "share:50%" in lab.progress.value


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"pairs": [PAIRS[0], ("p", "a", "b")]}, "pair 1 is .*expected a Pair"),
        ({"repeat_every": 1}, "repeat_every is 1: expected 2 or more"),
        ({"repeat_every": 0}, "repeat_every is 0: expected 2 or more"),
    ],
)
def test_wrong_arguments(label, settings, says):
    with pytest.raises(CourseError, match=says):
        label(**settings)


# A disk that refuses


def test_a_full_disk_is_a_sentence_and_the_pair_stays(label, path):
    lab = label()
    lab.left.click()
    before, shown = path.read_bytes(), lab.shown.value
    lab.reason.value = "a reason"
    resource = pytest.importorskip("resource", reason="Windows has none")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 60, hard))
    try:
        for button in lab.buttons:
            button.click()
            assert "could not be written" in sentence_of(lab.message) and "not saved" in sentence_of(
                lab.message
            )
            assert lab.shown.value == shown and lab.reason.value == "a reason" and path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lab.right.click()
    assert not lab.message.value and lab.shown.value != shown and len(Ratings(path).standing()) == 2


def test_two_kernels_with_one_file(label, path):
    """Two raters do not disturb each other; one rater in two windows rates no showing twice, and takes back what shows."""
    ann, ben = label("Ann"), label("Ben")
    for _ in range(3):
        ann.left.click()
        ben.right.click()
    assert not ann.message.value and not ben.message.value and "Ann 3, Ben 3." in sentence_of(ben.people)
    other = label("Ann")
    ann.left.click()
    other.left.click()
    assert "changed in another window" in sentence_of(other.message) and sides(other) == sides(ann)
    assert len(Ratings(path).standing("Ann")) == 4
    other.left.click()
    assert not other.message.value and len(Ratings(path).standing("Ann")) == 5
    ann.undo.click()
    assert "changed in another window" in sentence_of(ann.message) and sides(ann) == sides(other)
    ann.undo.click()
    assert not ann.message.value and len(Ratings(path).standing("Ann")) == 4


def test_a_rating_of_other_pairs_in_another_window_is_not_taken_back(label, path):
    lab = label(pairs=PAIRS[:20])
    lab.left.click()
    label(pairs=PAIRS[20:]).left.click()
    lab.undo.click()
    assert "changed in another window" in sentence_of(lab.message) and lab.undo.disabled
    assert len(Ratings(path).standing()) == 2


def test_what_another_kernel_left_half_written_is_repaired_and_said(label, path):
    lab = label()
    lab.left.click()
    path.write_bytes(path.read_bytes() + b'{"id": "half')
    lab.left.click()
    assert "line 2 was only half written" in sentence_of(lab.message) and len(Ratings(path).standing()) == 2
    lab.left.click()
    assert not lab.message.value and len(Ratings(path).standing()) == 3


def test_a_file_that_is_gone_is_a_sentence_and_the_pair_stays(label, path):
    lab = label()
    lab.left.click()
    shown = lab.shown.value
    path.unlink()
    for button in lab.buttons:
        button.click()
        assert "moved, deleted or emptied" in sentence_of(lab.message) and lab.shown.value == shown
    assert not path.exists() and len(lab.ratings.standing()) == 1


# What a rater sees


def all_markup(lab):
    yield from all_html(lab.view)
    yield behind_style(lab.static().markup)


PLACES = ["prompt", "first", "second", "rater", "simulated", "reason", "file"]


@pytest.mark.parametrize("place", PLACES)
def test_hostile_text_stays_text(path, hostile, place):
    texts = {"prompt": "p", "first": "f", "second": "s"}
    pair = Pair(**(texts | {place: hostile} if place in texts else texts))
    name = re.sub("[/\0\ud800-\udfff]", "", hostile)[:40] + ".jsonl"
    file = path.with_name(name) if place == "file" else path
    if place == "simulated":
        for rating in SimulatedRater(len_of).rate([pair]):
            Ratings(file).add(replace(rating, rater=hostile))
    else:
        Ratings(file).add(Rating("a", "", "Ben", False, PAIRS[0], "tie", "first", 1, ""))
    file.write_bytes(file.read_bytes() + b'{"id": "half')
    lab = PreferenceLabeller([pair], Ratings(file), hostile if place == "rater" else "Ann")
    assert "half written" in lab.message.value and (place != "simulated" or "(simulated)" in lab.people.value)
    lab.reason.value = hostile if place == "reason" else ""
    shown = list(all_markup(lab))
    lab.left.click()
    shown += all_markup(lab)
    lab.undo.click()
    shown += all_markup(lab)
    file.write_bytes(file.read_bytes() + json.dumps({"id": hostile}).encode() + b"\n")
    lab.left.click()
    assert "lacks " in lab.message.value or not lab.name
    assert not unsafe(shown + list(all_markup(lab)))


def len_of(texts):
    return [float(len(text)) for text in texts]


def unsafe(shown):
    """Markup that came from a text, or a character that could turn the direction of what stands around it."""
    outside = [re.sub(r"<bdi[^>]*>[^<]*</bdi>", "", text) for text in shown]
    return [text for text in shown if active(text) or "\x00" in text] + [
        text for text in outside if "\u202e" in text
    ]


def test_empty_texts_are_called_nothing(label):
    assert "(nothing)" in sides(label(pairs=[Pair("p", "", "x")]))


def test_controls_have_descriptions_of_their_own(label):
    lab = label()
    controls = [lab.rater, lab.reason, *lab.buttons, lab.keys]
    assert len({control.description for control in controls}) == 8 and all(c.description for c in controls)
    assert set(controls) < set(tree(lab.view))
    assert [button.description for button in lab.buttons] == [
        *("Left is better (1)", "Tie (2)", "Right is better (3)", "Skip (4)", "Undo (5)")
    ]


def test_controls_stay_the_same_objects_so_that_the_keyboard_keeps_its_place(label):
    lab = label()
    before = list(tree(lab.view))
    for button in lab.buttons:
        button.click()
    assert list(tree(lab.view)) == before and not lab.left.disabled


def test_static_shows_the_next_pairs(label):
    lab = label(repeat_every=4)
    for _ in range(7):
        lab.left.click()
    markup = behind_style(lab.static(count=3).markup)
    assert isinstance(lab.static(), Static)
    prompts = re.findall(r"Film (\d+) was", markup)
    assert len(prompts) == 3 and int(prompts[0]) < 3 and prompts[1:] == ["7", "8"]
    assert f"Film {prompts[0]} was" == lab.pair.prompt
    assert "7 of 40 rated" in markup and "Ann 7." in markup
    assert tuple(cells(markup)[0]) == sides(lab)
    rate_all(lab)
    assert "All 40 pairs are rated" in lab.static().markup
    assert "0 of 40 rated" in label("").static().markup and "Film 0 was" in label("").static().markup


def test_ten_thousand_pairs_and_a_thousand_ratings_are_quick(label, path, clock):
    many = [Pair(f"prompt {place}", "a", "b") for place in range(10_000)]
    ratings = [
        Rating(f"{place:032x}", "", "Ann", False, pair, "tie", "first", 1.0, "")
        for place, pair in enumerate(many[:1000])
    ]
    path.write_text("".join(json.dumps(record_of(rating)) + "\n" for rating in ratings))
    started = time.perf_counter()
    lab = label(pairs=many)
    assert time.perf_counter() - started < 2
    started = time.perf_counter()
    lab.left.click()
    assert time.perf_counter() - started < 0.5 and rated(lab) == 1001
