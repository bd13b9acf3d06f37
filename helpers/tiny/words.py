"""Read words.yaml, the words of the embedded world, and say where it is damaged.

The file is a tree of tables, and its leaves are phrases. YAML only divides it: every key and every phrase
stays the text that it is. So nothing in the file can run, `no` is a word, and libyaml reads it in a few
milliseconds.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from helpers.errors import CourseError

FILE = Path(__file__).with_name("words.yaml")
SIDES = ("blame", "praise")
"""The keys of what has two sides, in the order of the labels."""
SLOT = re.compile(r"\{([^{}]+)\}")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # not every build of PyYAML has libyaml
TABLE, PHRASES = "a table of keys", "phrases, one a line below 'key: |'"


class Table(dict):
    """One table of the file. `place` holds the keys that lead to it. A key that it lacks is a CourseError."""

    def __init__(self, place: tuple[str, ...], values: Mapping | Sequence = ()):
        super().__init__(values)
        self.place = place

    def __missing__(self, key: str):
        raise damaged((*self.place, key), "this key is missing")

    def table(self, key: str) -> "Table":
        """Return the table below a key."""
        if not isinstance(self[key], Table):
            raise damaged((*self.place, key), f"expected {TABLE}")
        return self[key]

    def phrases(self, key: str) -> list[str]:
        """Return the phrases below a key."""
        if not isinstance(self[key], list):
            raise damaged((*self.place, key), f"expected {PHRASES}")
        return self[key]

    def sides(self, key: str) -> tuple[list[str], list[str]]:
        """Return the phrases of blame and those of praise; where they have no sides, the same ones twice."""
        if isinstance(self[key], list):
            return self[key], self[key]
        blame, praise = (self[key].phrases(side) for side in SIDES)
        return blame, praise

    def check_lists(self, least: int = 1) -> "Table":
        """Return the table itself, once every key is known to hold phrases, `least` or more of them."""
        for key in self:
            if len(self.phrases(key)) < least:
                raise damaged((*self.place, key), f"expected {least} phrases or more")
        return self


def read_words() -> Table:
    """Read the whole file.

    Raises:
        CourseError: names the file, the key or the line, and what is wrong there.
    """
    try:
        root = yaml.compose(FILE.read_bytes().decode("utf-8-sig"), LOADER)
    except OSError as error:
        raise damaged((), f"it cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise damaged((), "it is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise damaged((), f"{where}{error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise damaged((), f"it is no YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise damaged((), f"expected {TABLE}")
    return read_node(root, ())


def read_node(node: yaml.Node, place: tuple[str, ...]) -> Table | list[str]:
    """Turn a node of YAML into a table or a list of phrases."""
    if isinstance(node, yaml.ScalarNode):
        if node.style != "|" and node.end_mark.line > node.start_mark.line:  # YAML would make them one line
            raise damaged(place, "phrases on several lines need a | after 'key:'")
        return split_phrases(node.value, place)
    if not isinstance(node, yaml.MappingNode) or len(place) > 4:  # an alias to its own table has no end
        raise damaged(place, f"expected {PHRASES}")
    table = Table(place)
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise damaged(place, f"line {line}: expected a key")
        if key.value in table:
            raise damaged((*place, key.value), f"line {line} has this key a second time")
        table[key.value] = read_node(value, (*place, key.value))
    return table


def split_phrases(text: str, place: tuple[str, ...]) -> list[str]:
    """Split a text into phrases, by lines and by slashes in a line. Comments and empty lines are left out."""
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    phrases = [phrase.strip() for line in lines for phrase in line.split("/")]
    if not phrases:
        raise damaged(place, f"it is empty: expected {PHRASES}")
    if "" in phrases:
        raise damaged(place, "nothing stands before or after a slash")
    return phrases


def check_slots(words: Table | list[str], known: set[str], place: tuple[str, ...] = ()) -> None:
    """Refuse a phrase with a slot that nothing fills, or with half a slot. known: the names of slots."""
    if isinstance(words, Table):
        for key, value in words.items():
            check_slots(value, known, (*words.place, key))
        return
    for phrase in words:
        for name in SLOT.findall(phrase):
            if name.removesuffix("~") not in known:
                raise damaged(place, f"nothing fills {{{name}}} in {phrase!r:.200}")
        if set("{}") & set(SLOT.sub("", phrase)):
            raise damaged(place, f"a brace stands without its other half in {phrase!r:.200}")


def damaged(place: tuple[str, ...], problem: str) -> CourseError:
    """Make an error that names the file and the key, and says how to get a file that works."""
    key = f", key '{'.'.join(map(str, place))}'" if place else ""
    return CourseError(
        f"{FILE}{key}: {problem}. Put it right, or take the file back as it was: "
        "`git checkout helpers/tiny/words.yaml`."
    )
