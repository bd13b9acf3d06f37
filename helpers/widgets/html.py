"""HTML for the widgets and for their static doubles. Texts come from models and readers: nothing reaches HTML unescaped."""

import html
import math
import re

LIMIT = 2000
"""Characters shown of one text."""
MANY_DIGITS = 1e9
"""From here on numbers are shown as powers of ten."""
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of what follows; letters written from right to left need none of them."""


class Static:
    """HTML that a notebook shows without a kernel; what a widget looks like to those who read on the web."""

    def __init__(self, markup: str):
        self.markup = markup

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return "a table for notebooks; print(table.markup) shows its HTML"


def plain(text: str, limit: int = LIMIT) -> str:
    """`text` with control characters made visible and what exceeds `limit` counted, for places that take no HTML."""
    shown = "".join(visible(character) for character in text[:limit])
    rest = len(text) - limit
    return f"{shown}… ({rest} more characters)" if rest > 0 else shown


def visible(character: str) -> str:
    """Control characters as the pictures Unicode has for them, line ends as spaces, and no turning of the direction."""
    code = ord(character)
    if character in "\n\t\r":
        return " "
    if code < 32:
        return chr(0x2400 + code)
    if 0xD800 <= code < 0xE000 or code == 127 or character in TURNS:
        return "\N{REPLACEMENT CHARACTER}"
    return character


def encodable(text: str) -> str:
    """`text` without halves of surrogate pairs, which no message to the page can hold; for a field that is read again."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def escape(text: str, limit: int = LIMIT) -> str:
    """`text` as HTML that can neither run nor turn what stands around it; a long word may break, or it would widen the page.

    Each "$" and backslash is an element of its own. Every formula begins and ends with one of them, and MathJax finds none
    whose signs lie in different elements, whatever the page tells it to ignore.
    """
    breakable = re.sub(
        r"(\S{40})(?=\S)", "\\1\0", plain(text, limit)
    )  # `plain` leaves no NUL of the text's own
    markup = re.sub(r"[$\\]", r"<span>\g<0></span>", html.escape(breakable))
    return f'<bdi dir="auto">{markup.replace(chr(0), "<wbr>")}</bdi>'


def label(text: str) -> str:
    """`text` for a picture or an attribute, which take no elements: without the signs that formulas begin and end with."""
    return html.escape(re.sub(r"[$\\]", " ", plain(text)))


def number(value: float | None) -> str:
    """Two decimals with a true minus sign, large numbers with a power of ten; nothing for None."""
    if value is None:
        return ""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinity" if value > 0 else "minus infinity"
    return format(value, ".2f" if abs(value) < MANY_DIGITS else ".2e").replace("-", "\N{MINUS SIGN}")


def cell(value: object) -> str:
    """One table cell's content: numbers to two decimals, texts escaped, `Static` as it is."""
    if isinstance(value, Static):
        return value.markup
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return escape("" if value is None else str(value))
    return number(float(value))


def paragraph(markup: str) -> str:
    """HTML as a paragraph."""
    return f"<p>{markup}</p>"


def sentence(text: str) -> str:
    """A text as a paragraph; nothing for an empty one."""
    return paragraph(escape(text)) if text else ""
