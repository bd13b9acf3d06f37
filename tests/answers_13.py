"""Answers to the exercises of notebook 13, right and wrong, each with words of the sentence for it: `test_exercises.py` holds the checks to them."""

from common import known

from helpers import exercises

KNOWN = []


KNOWN += known(
    exercises.check_preflight,
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


KNOWN += known(
    exercises.check_reward_parts,
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
