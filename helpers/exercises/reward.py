"""Notebook 05: the contract, a length penalty, the preference loss, robust keywords."""

import math

from helpers.exercises.base import call, close, not_attempted, report, unattempted
from helpers.rewards import score


def check_suspects(answer) -> bool:
    """Exercise 1: for each of the functions A to E "fine", "refused" or "useless"."""
    if unattempted(answer):
        return not_attempted()
    right = {"A": "fine", "B": "refused", "C": "useless", "D": "refused", "E": "useless"}
    hints = {
        "A": "it stretches 0 to 1 over -1 to 1. Numbers below zero are allowed, and the better sample still gets more.",
        "B": "look at the brackets: how many elements has [reward_fn(samples)]?",
        "C": "the count is right and all are numbers, but which sample gets which reward?",
        "D": "a set has no order, and equal rewards become one. What type does the contract ask for?",
        "E": "the count is right and all are numbers, but is any sample better than another?",
    }
    if not isinstance(answer, dict) or answer.keys() != right.keys():
        return report("the answer should be a dictionary with the keys A, B, C, D and E.")
    for name, said in answer.items():
        if said not in ("fine", "refused", "useless"):
            return report(f"{name} is {said!r}: expected 'fine', 'refused' or 'useless'.")
    wrong = [name for name in right if answer[name] != right[name]]
    if wrong:
        return report(f"{len(right) - len(wrong)} of 5 are right. {wrong[0]}: {hints[wrong[0]]}")
    return report(
        None, "Correct: the check sees numbers and counts; whether they mean anything is up to you."
    )


def check_length_penalty(answer) -> bool:
    """Exercise 2: answer(outputs, ...) -> minus 0.05 for every word of the output beyond 10."""
    if unattempted(answer):
        return not_attempted()
    prompts = ["The film was", "I saw this on a plane with my brother and", "My sister"]
    outputs = [f" {' '.join(['word'] * count)}" for count in (14, 10, 3)]
    samples = [prompt + output for prompt, output in zip(prompts, outputs, strict=True)]
    given = rewards(answer, samples, prompts, outputs)
    if isinstance(given, str):
        return report(given)

    def same(rule, texts=outputs):
        return close(given, [rule(text) for text in texts])

    def beyond(text):
        return max(0, len(text.split()) - 10)

    if same(lambda text: -0.05 * beyond(text)):
        return report(
            None, "Correct: only what the model wrote is counted, and short texts are not punished."
        )
    if same(lambda text: 0.05 * beyond(text)):
        return report(
            "the sign is wrong: your function pays for every word too many, so training would write more."
        )
    if same(lambda text: -0.05 * beyond(text), samples):
        return report("you counted the prompt's words too. The model did not choose those: use `outputs`.")
    if same(lambda text: -0.05 * max(0, len(text) - 10)) or same(
        lambda text: -0.05 * max(0, len(text.strip()) - 10)
    ):
        return report("you counted characters. `output.split()` gives the words.")
    if same(lambda text: -0.05 * len(text.split())):
        return report("you charged every word. The first 10 are free.")
    if same(lambda text: -0.05 * (len(text.split()) - 10)):
        return report(
            "texts below 10 words earn a bonus, so the best text is empty. Should it be? Use max(0, ...)."
        )
    if same(lambda text: -0.05 if beyond(text) else 0.0):
        return report("you charged once per text. The penalty is 0.05 for each word beyond 10.")
    if same(lambda text: -beyond(text)):
        return report("you took 1 for every word beyond 10; asked for is 0.05.")
    return report(
        f"for outputs of 14, 10 and 3 words you gave {', '.join(f'{value:g}' for value in given)}; expected -0.2, 0, 0."
    )


def check_preference_loss(answer) -> bool:
    """Exercise 3: answer(winners, losers) -> the mean of -log sigmoid(winner - loser)."""
    if unattempted(answer):
        return not_attempted()
    if not callable(answer):
        return report(f"the answer should be a function; yours is {type(answer).__name__}.")

    def sigmoid(value):
        return 1 / (1 + math.exp(-value))

    winners, losers = [2.0, 0.5, 1.0], [0.0, 1.5, 0.75]
    differences = [winner - loser for winner, loser in zip(winners, losers, strict=True)]
    right = -sum(math.log(sigmoid(value)) for value in differences) / 3
    mean_difference = sum(differences) / 3
    mistakes = [
        (-right, "the sign is wrong: the logarithm of a probability is negative, and a loss is minus that."),
        (-sum(math.log(sigmoid(-value)) for value in differences) / 3, "you took loser minus winner: this loss would "
         "train the reward model to prefer what people liked less."),
        (sum(sigmoid(value) for value in differences) / 3, "that is the mean probability of the winner. The loss is minus "
         "its logarithm."),
        (1 - sum(sigmoid(value) for value in differences) / 3, "that is one minus the mean probability. The loss is minus "
         "the logarithm."),
        (right * 3, "you took the sum over the comparisons; asked for is the mean."),
        (-math.log(sigmoid(mean_difference)), "you averaged the differences first. Take the loss of each comparison, then the "
         "mean: one bad mistake must not hide behind two easy pairs."),
        (-math.log(sum(sigmoid(value) for value in differences) / 3), "you averaged the probabilities first. Take the logarithm "
         "of each, then the mean."),
        (right / math.log(2), "you took the logarithm to base 2; the loss takes the natural one."),
        (-mean_difference, "that is the mean difference, without the logistic function: it could fall for ever."),
        (2 / 3, "that is the accuracy: how often the winner has the higher reward. The loss also asks by how much."),
        (1 / 3, "that is the share of wrong comparisons. The loss also asks by how much."),
    ]  # fmt: skip
    try:
        given = float(answer(list(winners), list(losers)))
    except Exception as error:  # whatever the reader's code raises is a mistake to name, not to stop at
        return report(f"your function raised {type(error).__name__}: {error}")
    if not close([given], [right]):
        for value, mistake in mistakes:
            if close([given], [value]):
                return report(mistake)
        return report(f"for the differences 2, -1 and 0.25 you gave {given:.3f}; expected {right:.3f}.")
    try:
        far = float(answer([0.0], [1000.0]))
    except (ArithmeticError, ValueError) as error:
        return report(
            f"right for small differences, but for 0 against 1000 it raised {type(error).__name__}: the power e^1000 is "
            "too large for a float, and the logarithm of 0 does not exist. Rewrite it, or use torch's `softplus`."
        )
    if not close([far], [1000.0]):
        return report(
            f"right for small differences, but for 0 against 1000 it gave {far:g}; expected 1000. The sigmoid rounds to 0 "
            "there: rewrite -log sigmoid(d) as log(1 + e^-d), or use torch's `softplus`."
        )
    return report(
        None, "Correct: the loss that reward models are trained with, and it survives large differences."
    )


def check_robust_keywords(answer) -> bool:
    """Exercise 4: answer(samples, ...) -> a reward for praise words that resists repetition, lists, negation, parts of words."""
    if unattempted(answer):
        return not_attempted()
    texts = {
        "plain": "I watched the film with my brother on Monday.",
        "once": "The film is great.",
        "honest": "The story is brilliant and the cast are wonderful.",
        "loud": "GREAT film!",
        "spam": "great " * 20,
        "list": "great wonderful brilliant excellent superb",
        "not": "The film is not great.",
        "not a": "This is not a great film.",
        "never": "The jokes are never brilliant and the music is not excellent.",
        "greater": "He ordered a greater number of chairs than the greatest hall could hold.",
        "empty": "",
    }
    given = rewards(answer, list(texts.values()), ["" for _ in texts], list(texts.values()))
    if isinstance(given, str):
        return report(given)
    reward = dict(zip(texts, given, strict=True))
    faults = {
        f"{texts['once']!r} earns no more than a text without praise. It should still be paid.": reward[
            "once"
        ]
        <= reward["plain"],
        f"{texts['honest']!r} earns no more than a text without praise.": reward["honest"] <= reward["plain"],
        f"{texts['loud']!r} is not paid: mind the capitals and the punctuation.": reward["loud"]
        <= reward["plain"],
        "'great' twenty times beats 'The film is great.': count each word once.": reward["spam"]
        > reward["once"],
        "a bare list of the praise words beats an honest sentence with two of them: set a limit.": reward[
            "list"
        ]
        > reward["honest"],
        f"{texts['not']!r} is paid: look at the word before a praise word.": reward["not"] > reward["plain"],
        f"{texts['not a']!r} is paid: the negation may stand two words before.": reward["not a"]
        > reward["plain"],
        f"{texts['never']!r} is paid: 'not' is not the only negation.": reward["never"] > reward["plain"],
        f"{texts['greater']!r} is paid: 'greater' is another word than 'great'. Compare whole words.": reward[
            "greater"
        ]
        > reward["plain"],
    }
    fault = next((fault for fault, found in faults.items() if found), None)
    return report(
        fault, "Correct: it pays for honest praise and resists these tricks. Can you think of the next one?"
    )


def rewards(function, samples, prompts, outputs) -> list[float] | str:
    """What a reward function returns, one number a sample; or, as a sentence, why that was not to be had."""
    if not callable(function):
        return f"the answer should be a function; yours is {type(function).__name__}."
    given, error = call(score, function, samples, prompts, outputs)
    if error:
        return error
    return "return one number a sample, not one a token." if isinstance(given[0], list) else given
