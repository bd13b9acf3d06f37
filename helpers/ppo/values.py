"""What a setting may be: every value is held to the kind and the range that its field declares (fields.py).

What plainly means the same is taken: numbers of numpy and torch, 160.0 for a whole number, tuples for lists, paths for text.
What comes out is what JSON can hold, so that a checkpoint can be written.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from helpers.errors import CourseError
from helpers.files import expand

LARGEST = 1e30  # float32, in which models compute, ends at 3e38, and numbers are multiplied
EXACT = 2**53  # whole numbers beyond this are floats for torch, which takes none beyond 2**63
LONGEST = 255, 3800  # bytes of a name and of a path that file systems take, with room for a file's name
MANY = 10**12  # more than any run has of anything, and within torch's whole numbers


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`; with `above`, only those that are more than that."""

    least: float = -LARGEST
    most: float = LARGEST
    above: float = -LARGEST

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and (number > self.above or self.above == -LARGEST)

    def __str__(self) -> str:
        low = f"above {self.above}" if self.above > -LARGEST else f"of at least {self.least}"
        if self.most == LARGEST:
            return low
        if self.above > -LARGEST or self.most == MANY:
            return f"{low} and at most {self.most:g}"
        return f"from {self.least} to {self.most}"

    __repr__ = __str__  # so that `help` shows it in words


Count = Annotated[int, Range(1, MANY)]
WholeNumber = Annotated[int, Range(0, MANY)]
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(0)]
Name = Annotated[str, "that is not empty"]
Place = Annotated[
    str, "that is the path of a file or folder, or a name on the hub"
]  # `~` becomes the home folder
Table = dict[str, Any]

UNFIT = object()


def fit(name: str, value: Any, kind: Any) -> Any:
    """`value` as plain data of this kind, a type such as `Count | None`; `name` is the field's, for the error.

    Raises:
        CourseError: it is of another kind or out of range; says what is expected.
    """
    value = plain(value)
    if isinstance(value, Mapping) and (tables := [one for one in options(kind) if is_a(one, dict)]):
        within = (*get_args(tables[0]), Any, Any)[1]
        for key in value:
            if scalar(key, str) is UNFIT:
                raise CourseError(f"{name} has the key {shown(key)}: expected text as keys.{hint(key, str)}")
        return {str(key): fit(f"{name}.{key:.60}", one, within) for key, one in value.items()}
    if isinstance(value, list) and (lists := [one for one in options(kind) if is_a(one, list)]):
        within = (*get_args(lists[0]), Any)[0]
        return [fit(f"{name}[{index}]", one, within) for index, one in enumerate(value)]
    fitted = next((each for one in options(kind) if (each := scalar(value, one)) is not UNFIT), UNFIT)
    if fitted is UNFIT:
        raise CourseError(f"{name} is {shown(value)}: expected {words(kind)}.{hint(value, kind)}")
    return fitted


def plain(value: Any) -> Any:
    """`value` as Python's own kind, where it is a number of numpy or torch, a path, an enum or something like a list or a table."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, os.PathLike):
        value = os.fsdecode(value)
    if isinstance(value, (type, Mapping)):
        return value
    try:
        if callable(getattr(value, "tolist", None)):
            value = value.tolist()
        elif callable(getattr(value, "to_dict", None)):
            value = settings_of(value)
    except Exception:  # a tensor without numbers, or a foreign object that fails in a way of its own
        return value
    if type(value).__module__ == "torch" and type(value).__name__ == "dtype":
        return str(value).removeprefix("torch.")
    if isinstance(value, (set, frozenset)) and all(isinstance(one, str) for one in value):
        return sorted(value)  # the order of names does not matter; that of numbers, such as betas, may
    return list(value) if isinstance(value, tuple) else value


def settings_of(thing: Any) -> Any:
    """What a configuration of peft holds beyond that class's defaults; the size of its matrices in any case."""
    settings = thing.to_dict()
    try:
        defaults = type(thing)().to_dict()
    except (TypeError, ValueError):
        return settings
    always = ("peft_type", "r", "lora_alpha")
    return {key: value for key, value in settings.items() if key in always or value != defaults.get(key)}


def options(kind: Any) -> tuple:
    """The kinds of a union, or the one that `kind` is."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def is_a(kind: Any, container: type) -> bool:
    """Whether values of this kind are in such a container: dict or list."""
    return kind is Any or get_origin(kind) is container


def scalar(value: Any, kind: Any) -> Any:
    """`value` as text, number, truth value or None of this kind, or UNFIT."""
    if get_origin(kind) is Literal:
        same = [one for one in get_args(kind) if type(one) is type(value) and one == value]
        return same[0] if same else UNFIT
    if get_origin(kind) is Annotated:
        base, limit = get_args(kind)
        fitted = scalar(value, base)
        if kind is Place and fitted is not UNFIT:
            fitted = place(fitted)
        fits = fitted is not UNFIT and (fitted.strip() if base is str else fitted in limit)
        return fitted if fits else UNFIT
    if kind is Any:
        every = (scalar(value, one) for one in (bool, NoneType, str, float))
        return next((each for each in every if each is not UNFIT), UNFIT)
    if kind in (None, NoneType, bool):
        return value if isinstance(value, kind or NoneType) else UNFIT
    if kind is str:
        fits = isinstance(value, str) and "\0" not in value and is_whole(value)
        return str.__str__(value) if fits else UNFIT
    if (
        kind not in (int, float)
        or isinstance(value, bool)
        or not isinstance(value, Real)
        or not -LARGEST <= value <= LARGEST
    ):
        return UNFIT
    if (isinstance(value, Integral) and abs(value) < EXACT) or (kind is int and value == int(value)):
        return int(value)
    return float(value) if kind is float else UNFIT


def is_whole(text: str) -> bool:
    """Whether the text has no half of a character, as of an emoji that was cut in two, which UTF-8 cannot write."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def place(text: str) -> Any:
    """The path or name on the hub with the home folder for `~`, or UNFIT where a file system would not take it."""
    text = str(expand(text)) if text.startswith("~") else text
    name, path = LONGEST
    sizes = [len(os.fsencode(part)) for part in re.split(r"[\\/]" if os.name == "nt" else "/", text)]
    return text if max(sizes) <= name and sum(sizes) + len(sizes) <= path else UNFIT


def words(kind: Any) -> str:
    """What is expected, in words: "a whole number of at least 1, or null"."""
    if len(options(kind)) > 1:
        said = [words(one) for one in options(kind) if one is not NoneType]
        return " or ".join(said) + (", or null" if NoneType in options(kind) else "")
    if get_origin(kind) is Annotated:
        base, limit = get_args(kind)
        return f"{words(base)} {limit}"
    if get_origin(kind) is Literal:
        *others, last = [
            str(one).lower() if isinstance(one, bool) else str(one) or "nothing" for one in get_args(kind)
        ]
        return f"{', '.join(others)} or {last}" if others else last
    return WORDS[get_origin(kind) or kind]


WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
WORDS |= {
    list: "a list",
    dict: "a table of keys",
    Any: "text, a finite number, true, false, null, a list or a table",
}


def hint(value: Any, kind: Any) -> str:
    """A sentence on what is wrong with a value that looks right, or on how YAML came to read another kind; else ""."""
    if isinstance(value, Real) and not isinstance(value, bool) and abs(value) > LARGEST:
        return f" The largest number is {LARGEST:g}."
    if isinstance(value, str) and not is_whole(value):
        return " It holds half a character, as of an emoji that was cut in two: remove it."
    if Place in options(kind) and isinstance(value, str) and value.strip():
        return " It is too long for one, or holds a zero byte."
    wanted = {get_args(one)[0] if get_origin(one) is Annotated else one for one in options(kind)}
    if isinstance(value, str) and wanted & {int, float}:
        number = re.fullmatch(r"([-+]?[\d_]+)(\.\d*)?(?:e([-+]?)(\d+))?", value.strip().lower())
        if not number:
            return ""
        whole, decimals, sign, power = number.groups()
        if not power:
            return f" Write {value.strip()} without quotes."
        decimals = decimals if len(decimals or "") > 1 else ".0"
        return f" YAML reads {value.strip()} as text: write {whole}{decimals}e{sign or '+'}{power}."
    if isinstance(value, str) and bool in wanted:
        return " Write it without quotes."
    if str in wanted and isinstance(value, bool):
        return " YAML reads yes, no, on and off as true and false: put text into quotes."
    if str in wanted and value is not None and not isinstance(value, str):
        return f" YAML reads it as a {type(value).__name__}: put text into quotes."
    if value is None:
        return " A key with nothing after it is null in YAML: write a value, or leave the key out."
    return ""


def shown(value: Any) -> str:
    """The value for an error, in one line of 60 characters at most."""
    try:
        return f"{' '.join(line.strip() for line in repr(value).splitlines()):.60}"
    except (
        Exception
    ) as error:  # Python writes no number of more than 4300 digits; foreign objects may fail in any way
        return f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
