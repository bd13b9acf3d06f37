"""Notebook 01: the picture, and a reward of one's own."""

from helpers.errors import CourseError
from helpers.exercises.base import call, not_attempted, report, unattempted
from helpers.rewards import score


def check_parts(parts: dict) -> bool:
    """Which part of the RLHF picture each of four sentences describes."""
    if any(unattempted(answer) for answer in parts.values()):
        return not_attempted()
    right = {1: "policy", 2: "reference", 3: "reward", 4: "prompt"}
    wrong = [number for number in right if str(parts.get(number)).lower() != right[number]]
    if {parts.get(1), parts.get(2)} == {"policy", "reference"} and 1 in wrong:
        return report("policy and reference are swapped: the reference is the frozen one.")
    if wrong:
        return report(f"look at the picture again for {', '.join(f'sentence {number}' for number in wrong)}.")
    return report(None)


def check_reward_function(reward_fn) -> bool:
    """Does a reader's own reward function keep the contract, and does it tell texts apart?"""
    samples = [
        "I watched this film. The music is lovely.",
        "A short one.",
        "The director of this film had a plan, and lost it.",
    ]
    returned, error = call(reward_fn, samples)
    if error:
        return report(error)
    if unattempted(returned):
        return not_attempted()
    try:
        rewards = score(lambda samples: returned, samples, samples, samples)
    except CourseError as error:
        return report(str(error))
    if len(set(rewards)) == 1:
        return report(
            f"all three samples get {rewards[0]}. A reward that is the same for every text teaches nothing."
        )
    return report(
        None,
        f"A reward function. It gives {', '.join(f'{reward:.2f}' for reward in rewards)} to three samples.",
    )
