"""HTML for the widgets and for their static doubles. Texts come from models and readers: nothing reaches HTML unescaped."""

import html
import math
import re

from helpers.palette import BLUE, ORANGE

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


def heading(caption: str) -> str:
    """A table's caption as HTML."""
    return f'<caption style="white-space:nowrap;text-align:left">{escape(caption)}</caption>'


def table(rows: list[dict], caption: str) -> str:
    """Rows of {column: value} as an HTML table with a caption; columns in the order of the first row."""
    columns = list(rows[0]) if rows else []
    head = "".join(f'<th scope="col" style="text-align:left">{escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{cell(row.get(name))}</td>' for name in columns)
        + "</tr>"
        for row in rows
    )
    return f"<table>{heading(caption)}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def bars(rows: list[tuple[str, float]], caption: str, low: float = 0.0, high: float = 1.0) -> str:
    """Labelled horizontal bars from `low` to `high` with their numbers, as a table: readable without colour and style."""
    lines = []
    for label, value in rows:
        share = 100 * min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))
        bar = f'<div style="width:{share:.0f}%;height:0.8em;background:{BLUE}"></div>'
        lines.append(
            f'<tr><th scope="row" style="text-align:left">{escape(label)}</th>'
            f'<td style="width:12em">{bar}</td><td>{number(value)}</td></tr>'
        )
    return f"<table>{heading(caption)}<tbody>{''.join(lines)}</tbody></table>"


def shaded(pieces: list[tuple[str, float]], caption: str, scale: float | None = None) -> str:
    """Pieces of a text, each over its number: blue for above 0, orange for below, the stronger the further.

    `scale` is the number that gets the full colour; by default the largest finite one. What is not a number gets none.
    """
    scale = scale or max((abs(value) for _, value in pieces if math.isfinite(value)), default=0.0) or 1.0
    spans = []
    for text, value in pieces:
        strength = 0.0 if math.isnan(value) else min(1.0, abs(value) / scale)
        colour = f"{BLUE if value > 0 else ORANGE}{round(150 * strength):02x}"
        spans.append(
            f'<ruby style="background:{colour};padding:0 0.1em">{escape(text)}'
            f'<rp> (</rp><rt style="font-size:0.7em">{number(value)}</rt><rp>) </rp></ruby> '
        )
    return f'<div style="line-height:2.4"><div>{escape(caption)}</div>{"".join(spans)}</div>'
