"""The checks of notebook 13 name the mistake that was made, and accept what is right."""

import pytest
from common import said

from helpers import exercises


@pytest.mark.parametrize(
    "answer, message",
    [
        ("nothing to gain", "Correct"),
        (" Nothing to gain", "Correct"),
        ("too rare", "not rare"),
        ("fine", "little is left"),
        ("yes", "choose one of"),
        (7, "should be a text"),
        (None, "Not attempted yet"),
    ],
)
def test_preflight(capsys, answer, message):
    assert message in said(capsys, exercises.check_preflight(answer), message)


@pytest.mark.parametrize(
    "answer, message",
    [
        (["0.75*JUDGE:Impactful", "0.25*words<=20"], "Correct"),
        (("0.25 * words <= 20", ".75 * JUDGE:Impactful"), "Correct"),
        (["0.75*JUDGE:Useful", "0.25*words<=20"], "the class is Impactful"),
        (["0.75*JUDGE", "0.25*words<=20"], "name the class"),
        (["0.75*JUDGE:Impactful", "0.25*words<20"], "includes 20"),
        (["0.75*JUDGE:Impactful", "0.25*words>=20"], "or MORE"),
        (["JUDGE:Impactful", "words<=20"], "the weights are 1, 1"),
        (["3/4*JUDGE:Impactful", "0.25*words<=20"], "is no number"),
        (["0.75*JUDGE:Impactful"], "expected the two rewards"),
        ([], "yours has none"),
        ("0.75*JUDGE:Impactful", "a list of texts"),
        ([0.75, 0.25], "a list of texts"),
        (None, "Not attempted yet"),
    ],
)
def test_reward_parts(capsys, answer, message):
    assert message in said(capsys, exercises.check_reward_parts(answer), message)
