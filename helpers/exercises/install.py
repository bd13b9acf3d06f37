"""Notebook 01: the picture, and a reward of one's own."""

from helpers.exercises.base import Answers, Right, attempted, call, exercise, filled_in, rewards, unlike


@exercise("a dictionary with one word for each of the sentences 1 to 4")
def check_parts(parts: object) -> str:
    """Which part of the RLHF picture each of four sentences describes."""
    given = {number: str(part).lower() for number, part in filled_in(parts).items()}
    right = {1: "policy", 2: "reference", 3: "reward", 4: "prompt"}
    wrong = Answers(*((unlike(number, part), f"sentence {number}") for number, part in right.items()))
    return Answers(
        (lambda given: (given.get(1), given.get(2)) == ("reference", "policy"),
         "policy and reference are swapped: the reference is the frozen one."),
        (lambda given: any(wrong.sentences(given)),
         f"look at the picture again for {', '.join(wrong.sentences(given))}."),
        otherwise=Right("Correct."),
    ).sentence(given)  # fmt: skip


@exercise("a function that gives one number for each sample")
def check_reward_function(reward_fn: object) -> str:
    """Does a reader's own reward function keep the contract, and does what PPO sees of it tell texts apart?"""
    from helpers.ppo.config import default_ppo_config

    samples = [
        "I watched this film. The music is lovely.",
        "A short one.",
        "The director of this film had a plan, and lost it.",
    ]
    returned = attempted(call(reward_fn, list(samples)))
    given = rewards(lambda samples: returned, samples, samples, samples)
    if len(set(given)) == 1:
        return f"all three samples get {given[0]}. A reward that is the same for every text teaches nothing."
    limit = default_ppo_config().method.cliprange_reward
    seen = [max(-limit, min(limit, reward)) for reward in given]
    numbers = ", ".join(f"{reward:.2f}" for reward in given)
    cut = f"scores beyond {limit:g} or -{limit:g} are cut to that (method.cliprange_reward)"
    if len(set(seen)) == 1:
        return (
            f"it gives {numbers} to three samples, and {cut}. So all three count as {seen[0]:g}, and a reward "
            "that is the same for every text teaches nothing. Divide it, so that it stays between 0 and 1."
        )
    if seen != given:
        return (
            f"it gives {numbers} to three samples, and {cut}, so that texts beyond it are all alike. Divide it, "
            "so that it stays between 0 and 1."
        )
    return Right(f"A reward function. It gives {numbers} to three samples.")
