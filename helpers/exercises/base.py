"""What every check is made of: a table of known answers, and a wrapper under which no answer makes it raise.

A check prints one line and returns True or False. It says which mistake was made, or what kind of answer was
expected. An answer that is still None or `...` is no mistake: the check says that it was not attempted. A right answer
is remembered (`helpers.progress`); where that fails, a second line says why.

The functions here that read an answer raise `Unusable` where it cannot be judged. `exercise` prints its sentence.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from helpers import progress
from helpers.errors import CourseError
from helpers.rewards import score
from helpers.terminal import printable

NOT_ATTEMPTED = "Not attempted yet."


class Right(str):
    """The sentence for a right answer. Every other sentence names a mistake."""


class Unusable(Exception):
    """Raised for an answer that cannot be judged. Its message is the sentence to print."""


Entry = tuple[object, str]
"""A known answer with its sentence, as `Answers` takes them."""


class Answers:
    """Known answers, right and wrong, each with its sentence. The first that fits is told, else `otherwise`.

    An entry is a pair (known, sentence). `known` is a value that the answer equals up to rounding: a number,
    a list or a tensor of numbers. Or `known` is a function that says of an answer whether the entry fits.
    """

    def __init__(self, *entries: Entry, otherwise: str = "", tolerance: float = 1e-4, relative: float = 0.0):
        self.entries, self.otherwise = entries, otherwise
        self.tolerance, self.relative = tolerance, relative

    def sentence(self, answer: object) -> str:
        """The sentence of the first entry that fits."""
        return next(self.sentences(answer), self.otherwise)

    def sentences(self, answer: object) -> Iterator[str]:
        """The sentences of all entries that fit, in order."""
        return (sentence for known, sentence in self.entries if self.fits(known, answer))

    def fits(self, known: object, answer: object) -> bool:
        """Whether `answer` is the one that an entry knows."""
        if callable(known):
            return bool(known(answer))
        return close(plain(answer), plain(known), self.tolerance, self.relative)


def exercise(expected: str) -> Callable[[Callable[..., str]], Callable[..., bool]]:
    """Turns a function that returns the sentence for an answer into a check, which prints it.

    `expected` says what kind of answer the check takes. The reader is told so when reading the answer raises.
    """

    def decorate(judge):
        signature = inspect.signature(judge)

        @functools.wraps(judge)
        def check(*arguments, **named) -> bool:
            answer, *_ = signature.bind(*arguments, **named).args
            try:
                sentence = NOT_ATTEMPTED if unattempted(answer) else judge(*arguments, **named)
            except Unusable as unusable:
                sentence = unusable.args[0]
            except KeyboardInterrupt:  # the reader wants to stop
                raise
            except BaseException as error:  # `exit()` in the reader's code included
                sentence = f"expected {expected}; reading yours raised {type(error).__name__}."
            right = isinstance(sentence, Right)
            start = "" if right or sentence == NOT_ATTEMPTED else "Not yet: "
            print(printable(start + " ".join(sentence.splitlines())))
            if right and (problem := progress.remember(judge.__name__)):
                print(printable(problem))
            return right

        check.__signature__ = signature.replace(return_annotation=bool)
        return check

    return decorate


def unattempted(answer: object) -> bool:
    """Whether the reader has left the answer as it was."""
    return answer is None or answer is ...


def attempted(answer: object) -> Any:
    """The answer, unless it was left as it was."""
    if unattempted(answer):
        raise Unusable(NOT_ATTEMPTED)
    return answer


def function(answer: object) -> Callable:
    """The answer, if it can be called."""
    if not callable(attempted(answer)):
        raise Unusable(f"the answer should be a function; yours is {type(answer).__name__}.")
    return answer


def call(answer: object, *arguments: object) -> Any:
    """What the reader's function returns for these arguments. Its errors become sentences."""
    function(answer)
    try:
        return answer(*arguments)
    except CourseError as error:  # which says everything itself
        raise Unusable(str(error)) from error
    except (Exception, SystemExit) as error:
        raise Unusable(f"your function raised {type(error).__name__}: {error}") from error


def rewards(answer: object, samples: list[str], prompts: list[str], outputs: list[str]) -> list[float]:
    """What the reader's reward function gives: one number a sample, as the contract asks."""
    given = call(score, function(answer), list(samples), list(prompts), list(outputs))
    if isinstance(given[0], list):
        raise Unusable("return one number a sample, not one a token.")
    return given


def filled_in(answer: object) -> dict:
    """The answer, if it is a dictionary without gaps."""
    if not isinstance(answer, dict):
        raise Unusable(f"the answer should be a dictionary; yours is {type(answer).__name__}.")
    return {key: attempted(value) for key, value in answer.items()}


def unlike(key: object, right: object) -> Callable[[dict], bool]:
    """For a table of answers that are dictionaries: fits where `key` has another value than `right`."""
    return lambda answer: answer.get(key) != right


def number(answer: object, otherwise: str | None = None) -> float:
    """The answer as a float. Where it is no number, the sentence is `otherwise`, or says what the answer is."""
    try:
        return float(answer)
    except Exception as error:
        raise Unusable(otherwise or f"expected a number; yours is {answer!r:.60}.") from error


def check_shape(answer: object, shape: tuple[int, ...], otherwise: str) -> None:
    """Refuse an answer that is no tensor of this shape; `otherwise` is the sentence."""
    if getattr(attempted(answer), "shape", None) != shape:
        raise Unusable(otherwise)


def judge_number(answer: object, *entries: Entry, tolerance: float) -> str:
    """The sentence for an answer that is one number."""
    given = number(answer)
    otherwise = f"{given:g} is not it. Put it back into the question and see whether it holds."
    return Answers(*entries, otherwise=otherwise, tolerance=tolerance).sentence(given)


def plain(value: object) -> float | list:
    """A number as a float; a tensor, an array or anything else one can go through as a list of these."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return [plain(part) for part in itertools.islice(value, 1000)]
    return float(value)


def close(given: float | list, known: float | list, tolerance: float = 1e-4, relative: float = 0.0) -> bool:
    """Whether two numbers, or two lists of these, agree up to rounding. Not-a-number agrees with itself."""
    if isinstance(given, list) and isinstance(known, list):
        return len(given) == len(known) and all(
            close(*pair, tolerance, relative) for pair in zip(given, known)
        )
    if isinstance(given, list) or isinstance(known, list):
        return False
    return abs(given - known) <= max(tolerance, relative * abs(known)) or (given != given and known != known)
