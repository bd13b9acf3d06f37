"""A reward function out of a reader's own Python file, which is run."""

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from helpers import files, tables
from helpers.errors import CourseError

EXPECTED = "Expected FILE.py:FUNCTION, such as rewards.py:reward."


def load_function(path: Path, name: str) -> Callable:
    """The function `name` that a Python file defines. The file is run, and can import what lies beside it.

    Errors that the function raises later name the line in its file.

    Raises:
        CourseError: there is no such file or function, or the file raises an error; it names the line.
    """
    source = tables.read_bytes(path, "the reward function")
    folder = os.path.abspath(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that no file there stands in for a library
    module = ModuleType(f"_reward_{path.stem}")
    module.__file__ = os.path.abspath(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look
    with errors_in(path, "the reward function's file"):
        exec(compile(source, module.__file__, "exec"), vars(module))
    own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    function = vars(module).get(name)
    if not callable(function):
        near = difflib.get_close_matches(name, own, 1)
        meant = f"Did you mean {path}:{near[0]}?" if near else EXPECTED
        what = (
            f"has no function {name!r:.60}" if function is None else f"has {name!r:.60}, which is no function"
        )
        raise CourseError(f"{path} {what}. It has {', '.join(own) or 'none'}. {meant}"[:600])
    return function


@contextmanager
def errors_in(path: Path, what: str) -> Iterator[None]:
    """While the block runs, an error of the reader's code becomes a sentence with its line; `what` says whose error it is.

    Raises:
        CourseError: that sentence.
    """
    try:
        yield
    except CourseError:
        raise
    except (Exception, SystemExit) as error:
        raise CourseError(f"{place_of(error, path)}: {what} failed: {said(error)}") from error


def place_of(error: BaseException, path: Path) -> str:
    """The file and the line in it that an error came from, as far as it can be told."""
    own = os.path.abspath(path)
    if isinstance(error, SyntaxError) and error.filename == own:
        return f"{path}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == own]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def said(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}."
    words = files.reason(error) if isinstance(error, Exception) else str(error)
    kind = type(error).__name__
    return f"{kind}." if words in ("", kind) else f"{kind}: {words}."
