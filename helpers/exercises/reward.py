"""Notebook 05: the contract, a length penalty, robust keywords."""

from helpers.exercises.base import Answers, Right, exercise, rewards, unlike

REWARD_FUNCTION = "a function that gives one number for each sample"


@exercise("a dictionary with the keys A, B, C, D and E")
def check_suspects(answer: object) -> str:
    """Exercise 1: for each of the functions A to E "fine", "refused" or "useless"."""
    if not isinstance(answer, dict) or answer.keys() != set("ABCDE"):
        return "the answer should be a dictionary with the keys A, B, C, D and E."
    for name, said in answer.items():
        if said not in ("fine", "refused", "useless"):
            return f"{name} is {said!r}: expected 'fine', 'refused' or 'useless'."
    wrong = list(Answers(
        (unlike("A", "fine"),
         "A: it stretches 0 to 1 over -1 to 1. Numbers below zero are allowed, and the better sample still "
         "gets more."),
        (unlike("B", "refused"), "B: look at the brackets: how many elements has [reward_fn(samples)]?"),
        (unlike("C", "useless"),
         "C: the count is right and all are numbers, but which sample gets which reward?"),
        (unlike("D", "refused"),
         "D: a set has no order, and equal rewards become one. What type does the contract ask for?"),
        (unlike("E", "useless"),
         "E: the count is right and all are numbers, but is any sample better than another?"),
    ).sentences(answer))  # fmt: skip
    if wrong:
        return f"{5 - len(wrong)} of 5 are right. {wrong[0]}"
    return Right("Correct: the check sees numbers and counts; whether they mean anything is up to you.")


@exercise(REWARD_FUNCTION)
def check_length_penalty(answer: object) -> str:
    """Exercise 2: answer(outputs, ...) -> minus 0.05 for every word of the output beyond 10."""
    prompts = ["The film was", "I saw this on a plane with my brother and", "My sister"]
    outputs = [f" {' '.join(['word'] * count)}" for count in (14, 10, 3)]
    samples = [prompt + output for prompt, output in zip(prompts, outputs)]
    given = rewards(answer, samples, prompts, outputs)

    def each(rule, texts=outputs):
        return [rule(text) for text in texts]

    def beyond(text):
        return max(0, len(text.split()) - 10)

    listed = ", ".join(f"{value + 0.0:g}" for value in given)  # -0 is shown as 0
    characters = "you counted characters. `output.split()` gives the words."
    return Answers(
        (each(lambda text: -0.05 * beyond(text)),
         Right("Correct: only what the model wrote is counted, and short texts are not punished.")),
        (each(lambda text: 0.05 * beyond(text)),
         "the sign is wrong: your function pays for every word too many, so training would write more."),
        (each(lambda text: -0.05 * beyond(text), samples),
         "you counted the prompt's words too. The model did not choose those: use `outputs`."),
        (each(lambda text: -0.05 * max(0, len(text) - 10)), characters),
        (each(lambda text: -0.05 * max(0, len(text.strip()) - 10)), characters),
        (each(lambda text: -0.05 * len(text.split())), "you charged every word. The first 10 are free."),
        (each(lambda text: -0.05 * (len(text.split()) - 10)),
         "texts below 10 words earn a bonus, so the best text is empty. Should it be? Use max(0, ...)."),
        (each(lambda text: -0.05 * max(0, len(text.split()) - 9)),
         "you charged for one word too many: 10 words are free. (`split(\" \")` also counts the nothing before the first "
         "space; `split()` does not.)"),
        (each(lambda text: -0.05 * (beyond(text) > 0)),
         "you charged once per text. The penalty is 0.05 for each word beyond 10."),
        (each(lambda text: -beyond(text)), "you took 1 for every word beyond 10; asked for is 0.05."),
        otherwise=f"for outputs of 14, 10 and 3 words you gave {listed}; expected -0.2, 0, 0.",
    ).sentence(given)  # fmt: skip


@exercise(REWARD_FUNCTION)
def check_robust_keywords(answer: object) -> str:
    """Exercise 3: answer(samples, ...) -> a reward for praise words that resists spam, lists and negation."""
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
    given = rewards(answer, [*texts.values()], ["" for _ in texts], [*texts.values()])

    def more(paid, than):
        return lambda reward: reward[paid] > reward[than]

    def unpaid(name):
        return lambda reward: reward[name] <= reward["plain"]

    return Answers(
        (unpaid("once"),
         f"{texts['once']!r} earns no more than a text without praise. It should still be paid; mind the full stop."),
        (unpaid("honest"), f"{texts['honest']!r} earns no more than a text without praise."),
        (unpaid("loud"), f"{texts['loud']!r} is not paid: mind the capitals and the punctuation."),
        (more("spam", "once"), "'great' twenty times beats 'The film is great.': count each word once."),
        (more("list",
         "honest"), "a bare list of the praise words beats an honest sentence with two of them: set a "
         "limit."),
        (more("not", "plain"), f"{texts['not']!r} is paid: look at the word before a praise word."),
        (more("not a", "plain"), f"{texts['not a']!r} is paid: the negation may stand two words before."),
        (more("never", "plain"), f"{texts['never']!r} is paid: 'not' is not the only negation."),
        (more("greater",
         "plain"), f"{texts['greater']!r} is paid: 'greater' is another word than 'great'. Compare whole "
         "words."),
        otherwise=Right(
            "Correct: it pays for honest praise and resists these tricks. Can you think of the next one?"
        ),
    ).sentence(dict(zip(texts, given)))  # fmt: skip
