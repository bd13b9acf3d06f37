"""Text from elsewhere, such as a model's or a notebook's, made fit for a terminal."""

import re
import sys

# A terminal obeys control characters: ESC and those of C1 (\x80 to \x9f) set the clipboard, move the cursor and rename the
# window, a lone \r writes over what was there. The bidirectional ones show a line in another order than it has, and half of
# a surrogate pair cannot be written at all. Newline and tab stay.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours, and what moves the cursor


def print_whatever_comes() -> None:
    """Let stdout and stderr replace characters that their encoding lacks, such as "·" in Japan's cp932, instead of raising an error.

    A notebook's streams take all characters, and have no such setting.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors != "backslashreplace":  # stderr's own way
            stream.reconfigure(errors="replace")


def printable(text: str) -> str:
    """The text with every character that a terminal would obey shown as its escape, `\\x1b`."""
    return OBEYED.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def plain(text: str) -> str:
    """`printable` without the colours and cursor moves that IPython and progress bars print, which are no loss."""
    return printable(ANSI.sub("", text))
