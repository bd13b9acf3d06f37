"""Of each exercise of each notebook: its starter is not accepted, its printed solution is, known mistakes are named, junk gets one sentence.

The counts go to the line that conftest.py prints at the end.
"""

import asyncio
import collections
import datetime
import decimal
import fractions
import importlib
import inspect
import itertools
import math
import random
import re
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import exercise_cells, exercises, notebooks
from helpers.exercises import train
from helpers.feedback.agreement import wilson

CHECKS = {name: check for name, check in vars(exercises).items() if name.startswith("check_")}
IDS = torch.tensor([[0, 0, 0, 11, 12, 13, 14, 15, 0], [21, 22, 23, 24, 25, 26, 27, 28, 0]])
FINAL_LOSSES = {"hundredth": 9.0, "as above": 4.0, "hundredfold": 12.0}
OTHERS = {  # what a notebook gives some checks beside the answer
    "check_perplexity": (torch.ones(2, 6), torch.ones(2, 6)),
    "check_labels": (IDS, torch.ones_like(IDS), 3),
    "check_learning_rates": (FINAL_LOSSES,),
    "check_graded_loss": (lambda y: math.log(y / (1 - y)),),
}


def raising(*names, error=ValueError):
    """An object of which these methods raise."""

    def method(self, *arguments):
        raise error("no")

    return type("Raising", (), dict.fromkeys(names, method))()


def raising_function(error):
    def function(*arguments, **named):
        raise error

    return function


def recursive(kind=list):
    inside = []
    inside.append(inside)
    return kind(inside)


def deep():
    nested = []
    for _ in range(sys.getrecursionlimit() * 3):
        nested = [nested]
    return nested


def recursive_dictionary():
    found = {}
    found["A"] = found[1] = found
    return found


def emptied(*arguments, **named):
    """A function that changes its arguments."""
    for argument in [*arguments, *named.values()]:
        if hasattr(argument, "zero_"):
            argument.zero_()
        elif hasattr(argument, "clear"):
            argument.clear()
        elif hasattr(argument, "drop"):
            argument.drop(argument.index, inplace=True)
    return arguments


class Bad(Exception):
    """An error that cannot be printed."""

    def __str__(self):
        raise ValueError("no")


class Lying(str):
    """A text that says of itself that it equals everything, and has no length."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        return True

    def __len__(self):
        raise TypeError("no length")


JUNK = {
    "zero": lambda: 0,
    "true": lambda: True,
    "negative": lambda: -3.5,
    "huge": lambda: 10**400,
    "too huge to print": lambda: 10**5000,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "complex": lambda: 1 + 2j,
    "decimal": lambda: decimal.Decimal("NaN"),
    "fraction": lambda: fractions.Fraction(10**400, 3),
    "empty text": lambda: "",
    "text": lambda: "an answer",
    "text of lines": lambda: "one\ntwo\r\nthree\u2028four",
    "text that a terminal obeys": lambda: "\x1b[2J\x07",
    "surrogate": lambda: "\ud800",
    "number as text": lambda: "0.5",
    "lying text": lambda: Lying("policy"),
    "bytes": lambda: b"\xff",
    "empty list": list,
    "list of numbers": lambda: [1, 2, 3],
    "list of none": lambda: [None, None],
    "list of texts": lambda: ["a", "b", "\ud800", "d\ne", "f"],
    "ragged list": lambda: [[1.0], [2.0, 3.0]],
    "mixed list": lambda: [1, "a", None, {}],
    "list of huge numbers": lambda: [10**400, 1],
    "list of nan": lambda: [math.nan, math.inf],
    "recursive list": recursive,
    "recursive tuple": lambda: recursive(tuple),
    "deep list": deep,
    "tuple": lambda: (1, 2),
    "pair of lists": lambda: ([1], [2]),
    "pair of unhashable texts": lambda: (["a", []], ["b"]),
    "set": lambda: {1, 2},
    "range": lambda: range(1000),
    "empty dictionary": dict,
    "dictionary": lambda: {"A": 1, 2: [], None: 3},
    "dictionary with the right keys": lambda: {key: [] for key in [*"ABCDE", 1, 2, 3, 4]},
    "dictionary of arrays": lambda: {key: np.ones(3) for key in "ABCDE"},
    "dictionary of raising values": lambda: {key: raising("__eq__", "__ne__", "__str__") for key in "ABCDE"},
    "recursive dictionary": recursive_dictionary,
    "default dictionary": lambda: collections.defaultdict(list),
    "generator": lambda: (number for number in range(3)),
    "infinite generator": itertools.count,
    "raising generator": lambda: (1 / number for number in [0]),
    "array": lambda: np.ones((2, 4)),
    "empty array": lambda: np.array([]),
    "array of objects": lambda: np.array([None, "a", []], dtype=object),
    "array without dimensions": lambda: np.array(3.0),
    "numpy date": lambda: np.datetime64("NaT"),
    "structured array": lambda: np.zeros(2, dtype=[("a", int), ("b", float)]),
    "tensor": lambda: torch.ones(2, 4),
    "empty tensor": lambda: torch.empty(0),
    "tensor of nan": lambda: torch.full((3, 5), math.nan),
    "whole tensor": lambda: torch.ones(3, 5, dtype=torch.long),
    "complex tensor": lambda: torch.ones(3, 5, dtype=torch.complex64),
    "tensor of labels' shape": lambda: torch.ones(2, 9) * math.nan,
    "tensor with gradient": lambda: torch.ones(4, requires_grad=True) * 2,
    "sparse tensor": lambda: torch.eye(4).to_sparse(),
    "meta tensor": lambda: torch.ones(2, 4, device="meta"),
    "data frame": lambda: pd.DataFrame({"a": [1, 2]}),
    "series": lambda: pd.Series([1.0, None]),
    "no value in pandas": lambda: pd.NA,
    "date": datetime.date.today,
    "pattern": lambda: re.compile("a"),
    "path": lambda: Path("a"),
    "module": lambda: math,
    "class": lambda: dict,
    "error": lambda: ValueError("an error"),
    "ellipsis in a list": lambda: [...],
    "not implemented": lambda: NotImplemented,
    "mock": MagicMock,
    "object": object,
    "raises when compared": lambda: raising("__eq__", "__ne__", "__lt__", "__gt__", "__hash__"),
    "raises when counted": lambda: raising("__len__", "__iter__", "__getitem__", "__contains__"),
    "raises when read": lambda: raising("__float__", "__int__", "__index__", "__bool__", "__array__"),
    "raises when printed": lambda: raising("__repr__", "__str__", "__format__"),
    "raises when asked for anything": lambda: raising("__getattribute__", "__repr__"),
    "raises when called": lambda: raising("__call__"),
    "raises an error that raises": lambda: raising("__call__", error=Bad),
    "raises a surrogate": lambda: raising_function(ValueError("\ud800\n\x1b[2J")),
    "raises a key": lambda: raising_function(KeyError({1: [2]})),
    "stops iterating": lambda: raising_function(StopIteration()),
    "exits": lambda: raising_function(SystemExit(1)),
    "cancels": lambda: raising_function(asyncio.CancelledError()),
    "has no end": lambda: raising_function(RecursionError()),
    "lacks memory": lambda: raising_function(MemoryError()),
    "builtin": lambda: max,
    "changes its arguments": lambda: emptied,
    "needs names": lambda: lambda *, nothing: 0,
    "takes all": lambda: lambda *arguments, **named: 0,
    "generator function": lambda: emptied_generator,
    "coroutine function": lambda: coroutine,
}  # fmt: skip


def emptied_generator(*arguments, **named):
    yield emptied(*arguments, **named)


async def coroutine(*arguments, **named):
    return 0


def said(capsys, check, *arguments) -> tuple[bool, str]:
    """What a check returned, and the one line that it printed."""
    result = check(*arguments)
    printed = capsys.readouterr().out
    assert type(result) is bool
    assert printed.strip() and printed.endswith("\n") and printed[:-1].isprintable(), printed
    assert result is not printed.startswith(("Not yet: ", "Not attempted yet.\n"))
    return result, printed


def faults(capsys, check, others) -> dict[str, str]:
    """Which kinds of junk the check accepts, raises at, or answers otherwise than by one line.

    `check` gets the junk made for it, then `others`.
    """
    found = {}
    for kind, make in JUNK.items():
        try:
            if said(capsys, check, make(), *others)[0]:
                found[kind] = "accepted"
        except BaseException as error:
            found[kind] = type(error).__name__
            capsys.readouterr()
    return found


def returning(junk):
    return lambda *arguments, **named: junk


pytestmark = pytest.mark.filterwarnings("ignore")


def test_there_are_fifty_kinds_of_junk():
    assert len(JUNK) >= 50 and len(CHECKS) >= 26


@pytest.mark.parametrize("name", CHECKS)
def test_junk_gets_one_sentence(capsys, record_property, name):
    assert faults(capsys, CHECKS[name], OTHERS.get(name, ())) == {}
    record_property("junk survived", len(JUNK))


@pytest.mark.parametrize("name", CHECKS)
def test_a_function_that_returns_junk_gets_one_sentence(capsys, record_property, name):
    found = faults(capsys, lambda junk, *others: CHECKS[name](returning(junk), *others), OTHERS.get(name, ()))
    # A reward function of one's own has no right answer: any three numbers do.
    fine = {"list of numbers": "accepted", "generator": "accepted"}
    assert found == (fine if name == "check_reward_function" else {})
    record_property("junk survived", len(JUNK) - len(found))


@pytest.mark.parametrize("made", [lambda junk: junk, returning])
def test_the_second_answer_may_be_junk_too(capsys, made):
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    assert faults(capsys, lambda junk: exercises.check_graded_loss(loss, made(junk)), ()) == {}


@pytest.mark.parametrize("unattempted", [None, ...])
@pytest.mark.parametrize("name", CHECKS)
def test_nothing_is_not_attempted(capsys, name, unattempted):
    assert said(capsys, CHECKS[name], unattempted, *OTHERS.get(name, ())) == (False, "Not attempted yet.\n")
    named = dict(zip(inspect.signature(CHECKS[name]).parameters, (unattempted, *OTHERS.get(name, ()))))
    assert CHECKS[name](**named) is False


def test_the_reader_can_stop_a_check():
    with pytest.raises(KeyboardInterrupt):
        exercises.check_accumulate(raising_function(KeyboardInterrupt()))


@pytest.mark.parametrize(
    "check, answer, message",
    [
        (exercises.check_parts, [1, 2], "should be a dictionary; yours is list"),
        (exercises.check_diagnosis, "healthy", "should be a dictionary; yours is str"),
        (exercises.check_diagnosis, [], "should be a dictionary; yours is list"),
        (exercises.check_memory, "1.82 GB", "expected a number; yours is '1.82 GB'"),
        (exercises.check_kl, object(), "the KL of each sample; reading yours raised TypeError"),
        (exercises.check_top_p, lambda probs, p: JUNK["meta tensor"](), "expected"),
        (exercises.check_robust_keywords, lambda samples: samples.clear(), "None (is a `return` missing?)"),
        (exercises.check_reward_function, lambda samples: [[1.0, 1.0], [2.0], [3.0]], "not one a token"),
        (exercises.check_accumulate, raising_function(SystemExit(2)), "your function raised SystemExit: 2"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_was_expected(capsys, check, answer, message):
    assert message in said(capsys, check, answer)[1]


def test_the_likeliest_slips_of_the_kl_are_named(capsys):
    logprobs, reference, mask = (
        torch.tensor(rows) for rows in (train.KL_LOGPROBS, train.KL_REF_LOGPROBS, train.KL_MASK)
    )
    terms = (logprobs - reference) * mask
    assert "terms of each token" in said(capsys, exercises.check_kl, terms)[1]
    assert "one sum over both samples" in said(capsys, exercises.check_kl, terms.sum())[1]
    assert said(capsys, exercises.check_kl, (sum(row) for row in terms.tolist()))[0] is True


def test_a_loss_that_returns_text_is_no_number(capsys):
    text = said(capsys, exercises.check_graded_loss, lambda m, y: "low", lambda y: 1.0)[1]
    assert "the loss should be one number" in text


# ---------------------------------------------------------------------------------- the notebooks' own cells

NAMES = {  # what the cells of exercises take from the cells before them
    "exercises": exercises,
    "math": math,
    "random": random,
    "re": re,
    "torch": torch,
    "PRAISE": ("great", "wonderful", "brilliant", "excellent", "superb"),
    "calibration": pd.DataFrame({"count": [3, 1], "predicted": [0.1, 0.9], "observed": [0.0, 1.0]}),
    "p": np.array([0.95, 0.2]),
    "labels": np.array([0, 1]),
    "wilson": wilson,
}
CHECKED = [
    pytest.param(exercise, id=exercise.name) for exercise in exercise_cells.of_course() if exercise.check
]


def starter_of(exercise):
    """The code of the exercise's cells, as the notebook has it, and the call of its check."""
    cells = notebooks.read(notebooks.NOTEBOOKS / f"{exercise.notebook}.ipynb").cells
    source = "\n".join(cells[index].source for index in exercise.cells)
    return source, exercise_cells.CHECK.search(source)[0].rstrip(";")


def test_every_check_is_used_by_a_notebook():
    assert {exercise.values[0].check for exercise in CHECKED} == set(CHECKS)


@pytest.mark.parametrize("exercise", CHECKED)
def test_a_starter_is_not_attempted(capsys, record_property, exercise):
    exec(starter_of(exercise)[0], dict(NAMES))
    assert capsys.readouterr().out == "Not attempted yet.\n"
    record_property("exercises", 1)


@pytest.mark.parametrize("exercise", CHECKED)
def test_a_printed_solution_is_right(capsys, record_property, exercise):
    assert exercise.solution, "the solution has no code"
    starter, call = starter_of(exercise)
    names = dict(NAMES)
    exec(starter, names)
    capsys.readouterr()
    exec(exercise.solution, names)
    names["final_losses"] = FINAL_LOSSES | {"hundredth": 12.5}  # in place of three runs at tiny scale
    assert eval(call, names) is True, capsys.readouterr().out
    record_property("solutions run", 1)


# ---------------------------------------------------------------------------------------------- answers that are known

KNOWN = [
    pytest.param(*entry, id=entry[0].__name__)
    for path in sorted(Path(__file__).parent.glob("answers_*.py"))
    for entry in importlib.import_module(path.stem).KNOWN
]
RIGHT = ("Correct", "A reward function")
OPEN = "Not attempted yet"


@pytest.mark.parametrize("check, answer, words", KNOWN)
def test_a_known_answer_is_named(capsys, record_property, check, answer, words):
    result, printed = said(capsys, check, answer)
    assert words in printed
    assert result is printed.startswith(RIGHT) is (words in RIGHT)
    assert printed.startswith(OPEN) is (words == OPEN)
    if words not in (*RIGHT, OPEN):
        record_property("known wrong answers named", 1)


@pytest.mark.parametrize("exercise", CHECKED)
def test_each_exercise_has_a_right_and_some_wrong_answers_that_are_known(exercise):
    words = [
        words
        for check, _, words in (entry.values for entry in KNOWN)
        if check.__name__.startswith(exercise.check)
    ]
    assert set(words) & set(RIGHT)
    assert len(set(words) - {*RIGHT, OPEN}) >= 3
