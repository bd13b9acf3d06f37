"""Notebook 13: what a pre-flight says, a reward of two parts."""

import re

from helpers.exercises.base import Right, Unusable, exercise

SAYS = {
    "nothing to gain": Right("Correct."),
    "too rare": "70% of the samples have the reward already. That is not rare.",
    "fine": "with 70% at the highest reward already most groups of samples look alike, and little is left to learn.",
}
WANTED = {"JUDGE:Impactful": 0.75, "words<=20": 0.25}


@exercise('"nothing to gain", "too rare" or "fine"')
def check_preflight(answer: object) -> str:
    """A program as reward that 70% of the samples have before training."""
    if not isinstance(answer, str):
        raise Unusable(f"the answer should be a text; yours is {type(answer).__name__}.")
    return SAYS.get(answer.strip().lower(), 'choose one of "nothing to gain", "too rare" and "fine".')


@exercise("a list of two texts")
def check_reward_parts(answer: object) -> str:
    """Three quarters for a class of the judge, one quarter for at most 20 words."""
    if not isinstance(answer, (list, tuple)) or not all(isinstance(part, str) for part in answer):
        raise Unusable("the answer should be a list of texts, one for each part.")
    parts = {}
    for part in answer:
        weight, star, reward = part.replace(" ", "").rpartition("*")
        if star and not re.fullmatch(r"[+-]?\d*\.?\d+", weight):
            return f"the weight of {part!r:.60} is no number."
        parts[reward] = float(weight) if star else 1.0
    if parts == WANTED:
        return Right("Correct.")
    if set(parts) == {"JUDGE:Useful", "words<=20"}:
        return "the class is Impactful."
    if set(parts) == {"JUDGE", "words<=20"}:
        return "name the class: JUDGE:Impactful."
    if set(parts) == {"JUDGE:Impactful", "words<20"}:
        return "at most 20 includes 20: words<=20."
    if set(parts) == {"JUDGE:Impactful", "words>=20"}:
        return "this pays for 20 words or MORE."
    if set(parts) == set(WANTED):
        return f"the weights are {', '.join(f'{weight:g}' for weight in parts.values())}: three quarters and one quarter were asked for."
    return f"expected the two rewards JUDGE:Impactful and words<=20, each with its weight before a *; yours has {', '.join(parts) or 'none':.80}."
