"""Prompts out of a file: .txt, .csv, .tsv, .jsonl, .json and .parquet, each by its ending and its content."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers import files, tables
from helpers.errors import CourseError
from helpers.ppo.prompts import TAKEN, Prompts

KEYS = ("prompt", "text")  # which column holds the prompts; the first that is there
ADVICE = "Correct the file, or save the prompts as a .txt in UTF-8 with one a line."
ENDINGS = (
    ".txt with one prompt a line; .csv or .tsv with a column prompt or text; .jsonl with such a key in each "
    "line's object; .json with a list of texts or of such objects; or .parquet with such a column"
)
OBEYED = re.compile("[\x00-\x08\x0e-\x1f\x7f]")  # no character of a text, as \t, \n and \r are
JSON_BEGINS = re.compile(r'\s*(\{\s*["}]|\[\s*["{\]])')
WEB_PAGE = re.compile(r"\s*<(!doctype|html|\?xml)\b", re.IGNORECASE)


def read_prompts(path: str | Path) -> Prompts:
    """The prompts in a file, in order, as `trlx.train` takes them; empty ones are left out.

    The ending says the format: .txt has one prompt a line; .csv and .tsv name a column prompt or text in their first row; the
    objects of .jsonl and .json, and the rows of .parquet, have one of these keys. All other columns go with the prompt to the reward
    function: each prompt is then a dictionary with "prompt" and them. A .json may also be a list of texts.

    Raises:
        CourseError: the file cannot be read, is of another format than its ending says, or holds no prompt.
    """
    path = files.expand(path)
    ending = path.suffix.lower()
    if ending not in READERS:
        raise CourseError(f"the prompts in {path}: its ending is {ending!r}. Expected {ENDINGS}.")
    read, unit = READERS[ending]
    entries = [prompt_of(entry, f"{path}, {unit} {number}") for number, entry in read(path)]
    kept = [entry for entry in entries if entry["prompt"].strip()]
    if not kept:
        raise CourseError(f"{path} has no prompts: expected {ENDINGS}")
    others = list(dict.fromkeys(key for entry in kept for key in entry if key != "prompt"))
    if not others:
        return [entry["prompt"] for entry in kept]
    return [{key: entry.get(key) for key in ("prompt", *others)} for entry in kept]


def text_of(path: Path) -> str:
    """The text of a file in UTF-8 without characters that no text has.

    Raises:
        CourseError: it is something else; names the line.
    """
    text = tables.text_of(tables.read_bytes(path, "the prompts"), path, ADVICE)
    found = OBEYED.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise CourseError(f"{path}, line {line}: holds the control character {found[0]!a}. {ADVICE}")
    return text


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of each line; a line ends as Python and editors have it, with \\n, \\r\\n or \\r, and at nothing else."""
    text = text_of(path)
    refuse_other_formats(text, path)
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        yield number, line.strip("\ufeff").strip()  # files put together have marks inside


def refuse_other_formats(text: str, path: Path) -> None:
    """Refuse a .txt whose content plainly is of another format.

    Raises:
        CourseError: names the ending that such a file has.
    """
    first = next((line for line in re.split("[\r\n]", text) if line.strip()), "")
    ending = None
    if JSON_BEGINS.match(text):
        ending = ".jsonl" if re.match(r"\s*\{.*\}\s*$", first) else ".json"
        what = "JSON lines" if ending == ".jsonl" else "JSON"
    elif WEB_PAGE.match(text):
        raise CourseError(f"{path}, line 1: is a web page, not one prompt a line. {ADVICE}")
    elif delimiter := header_delimiter(first):
        ending = ".tsv" if delimiter == "\t" else ".csv"
        what = f"the header of a table, {first!r:.60}"
        if delimiter in ";|":
            what += f" (with {delimiter!r} between columns, where a .csv has commas)"
    if ending:
        raise CourseError(f"{path}, line 1: is {what}, not one prompt a line. Let its name end in {ending}.")


def header_delimiter(line: str) -> str | None:
    """What stands between the columns where a line is a header with a column of prompts; None where it is none."""
    for delimiter in ",\t;|":
        cells = [cell.strip().strip('"').strip() for cell in line.split(delimiter)]
        named = {cell.lower() for cell in cells} & set(KEYS)
        if named and all(re.fullmatch(r"[\w.-]*", cell) for cell in cells):
            return delimiter
    return None


def table(path: Path, delimiter: str) -> Iterator[tuple[int, dict]]:
    """`tables.csv_lines` of a .csv or .tsv that has a column of prompts."""

    def check_columns(names: list[str], where: str) -> None:
        if not set(KEYS) & set(names):
            between = "tabs" if delimiter == "\t" else "commas"
            raise CourseError(
                f"{where}: names the columns {', '.join(map(repr, names)):.200}. Expected one called prompt or text, and "
                f"{between} between them. {ADVICE}"
            )

    return tables.csv_lines(text_of(path), path, ADVICE, check_columns, delimiter)


def prompt_of(entry: object, where: str) -> dict[str, Any]:
    """One entry of a file as {"prompt": text, and whatever else it has}.

    Raises:
        CourseError: it has no prompt that is a text, or a key that the course itself gives to reward functions.
    """
    if isinstance(entry, str):
        entry = {"prompt": entry}
    if not isinstance(entry, dict):
        raise CourseError(
            f"{where}: is {entry!r:.60}. Expected a text, or an object with prompt or text. {ADVICE}"
        )
    key = next((key for key in KEYS if key in entry), None)
    if key is None:
        found = ", ".join(map(repr, entry)) or "nothing"
        raise CourseError(f"{where}: has {found:.200}. Expected prompt or text. {ADVICE}")
    if isinstance(entry[key], list):
        raise CourseError(
            f"{where}: {key!r} is a conversation (a list of messages), not a text. Write its messages as one text, as your "
            f"tokenizer's chat template does. {ADVICE}"
        )
    if not isinstance(entry[key], str):
        raise CourseError(f"{where}: {key!r} is {entry[key]!r:.60}. Expected a text. {ADVICE}")
    tables.refuse_half_characters(entry[key], key, where, ADVICE)
    others = {name: value for name, value in entry.items() if name != key}
    for name in TAKEN:
        if name in others:
            raise CourseError(
                f"{where}: has {name!r}, which is what every reward function is given under this name, or the engine has already. Rename it."
            )
    return {"prompt": entry[key]} | others


# how to read a file with this ending, and what its records are called
READERS: dict[str, tuple[Callable[[Path], Iterator[tuple[int, Any]]], str]] = {
    ".txt": (text_lines, "line"),
    ".csv": (lambda path: table(path, ","), "line"),
    ".tsv": (lambda path: table(path, "\t"), "line"),
    ".jsonl": (lambda path: tables.json_lines(text_of(path), path, ADVICE), "line"),
    ".json": (lambda path: tables.json_list(text_of(path), path, ADVICE), "entry"),
    ".parquet": (lambda path: tables.parquet_rows(path, ADVICE), "row"),
}
