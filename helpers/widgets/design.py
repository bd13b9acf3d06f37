"""How widgets and their static doubles look: one style sheet, and the parts that it is made for, each as HTML.

Whatever stands in a part has come through `html.escape`; each says by words and shape what it says by colour, and can be read without
the style sheet, which some pages that show notebooks leave out.
"""

import functools
import math
from pathlib import Path

import ipywidgets as widgets

from helpers import palette
from helpers.widgets.drawing import drawable
from helpers.widgets.html import Static, cell, escape, label, number

COLOURS = ("BLUE", "ORANGE", "GREEN")


@functools.cache
def style_sheet() -> str:
    """design.css with the palette's colours, as an element of the page."""
    css = Path(__file__).with_name("design.css").read_text(encoding="utf-8")
    for name in COLOURS:
        css = css.replace(f"%{name}%", getattr(palette, name))
    return f"<style>{' '.join(css.split())}</style>"  # one line: notebooks are stored with it


def framed(*parts: widgets.Widget) -> widgets.VBox:
    """Parts below each other, as the whole of a widget: it brings the style sheet along."""
    return named("rlhf", widgets.VBox([widgets.HTML(style_sheet()), *parts]))


def in_a_row(*controls: widgets.Widget) -> widgets.HBox:
    """Controls side by side, and on a narrow screen below each other."""
    return named("rlhf-row", widgets.HBox(controls))


def columns(*parts: widgets.Widget) -> widgets.HBox:
    """Parts beside each other, equally wide, and below each other where one would become too narrow to read."""
    return named("rlhf-columns", widgets.HBox(parts))


def named(name: str, part: widgets.DOMWidget) -> widgets.DOMWidget:
    """The widget with a class of the style sheet."""
    part.add_class(name)
    return part


def static(markup: str) -> Static:
    """HTML of the parts below as what a notebook shows without a kernel."""
    return Static(f'<div class="rlhf">{style_sheet()}{markup}</div>')


def beside(*markups: str) -> str:
    """HTML in columns, as `columns` does with widgets."""
    return f'<div class="rlhf-columns">{"".join(f"<div>{markup}</div>" for markup in markups)}</div>'


def table(rows: list[dict], caption: str, kind: str = "") -> str:
    """Rows of {column: value} as a table with a caption; columns in the order of the first row, numbers to the right.

    Args:
        kind: a class of the style sheet for the whole table.
    """
    names = list(rows[0]) if rows else []
    look = {name: ' class="rlhf-n"' * all(is_number(row.get(name)) for row in rows) for name in names}
    head = "".join(f'<th scope="col"{look[name]}>{escape(name)}</th>' for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td{look[name]}>{cell(row.get(name))}</td>' for name in names)}</tr>" for row in rows
    )
    return (
        f'<div class="rlhf-scroll"><table class="{kind}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def continued(sample: dict) -> Static:
    """The prompt of a sample, and set off from it its output."""
    return Static(f'<span class="rlhf-quiet">{escape(sample["prompt"])}</span> {escape(sample["output"])}')


def samples_table(samples: list[dict], caption: str) -> str:
    """Samples {prompt, output, reward} as a table: the text, and its reward."""
    rows = [{"sample": continued(sample), "reward": sample["reward"]} for sample in samples]
    return table(rows, caption)


def is_number(value: object) -> bool:
    """Whether a table's cell holds a number, or nothing in the place of one."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def bars(rows: list[tuple[str, float]], caption: str, low: float = 0.0, high: float = 1.0) -> str:
    """Labelled horizontal bars from `low` to `high` with their numbers, as a table."""
    lines = [
        f'<tr><th scope="row">{escape(name)}</th><td>{bar(value, low, high)}</td>'
        f'<td class="rlhf-n">{number(value)}</td></tr>'
        for name, value in rows
    ]
    return f"<table><caption>{escape(caption)}</caption><tbody>{''.join(lines)}</tbody></table>"


def bar(value: float, low: float, high: float) -> str:
    """A bar that is empty at `low` and below and full at `high` and above; empty for NaN, and where there is nothing between them."""
    if value >= high > low:
        share = 1.0
    elif value > low:
        # halves, since the difference of the largest numbers is infinite
        share = (value / 2 - low / 2) / (high / 2 - low / 2)
    else:
        share = 0.0
    return f'<span class="rlhf-bar"><span style="width:{100 * share:.0f}%"></span></span>'


def cards(figures: dict[str, float | None]) -> str:
    """{name: number} as cards, the numbers large."""
    each = (
        f'<div class="rlhf-card"><div>{escape(name)}</div><div class="rlhf-figure">{number(value) or "–"}</div></div>'
        for name, value in figures.items()
    )
    return f'<div class="rlhf-cards">{"".join(each)}</div>'


def text_cards(texts: list[tuple[str, str, str]]) -> str:
    """Texts beside each other: of each its name, what stands at the name's right, and the text as HTML."""
    each = (
        f'<div class="rlhf-card rlhf-text"><div class="rlhf-name"><span>{escape(name)}</span> <span>{escape(right)}</span></div>'
        f"{markup}</div>"
        for name, right, markup in texts
    )
    return f'<div class="rlhf-cards">{"".join(each)}</div>'


SIGNS = {"ok": "✓", "met": "✓", "right": "✓", "look": "▲", "open": "○"}


def badge(word: str) -> str:
    """One of SIGNS as a word in a frame: round where it is well, with a corner where it wants a look, broken where it is open."""
    kind = word if word in ("look", "open") else "ok"
    return f'<span class="rlhf-badge rlhf-{kind}">{SIGNS[word]} {word}</span>'


def badges(lines: list[tuple[str, str]]) -> str:
    """A list of (word of SIGNS, HTML)."""
    items = "".join(f"<li>{badge(word)} <span>{markup}</span></li>" for word, markup in lines)
    return f'<ul class="rlhf-list">{items}</ul>'


def strip(
    pieces: list[tuple], names: tuple[str, ...], caption: str, scales: tuple[float, ...] | None = None
) -> str:
    """Pieces of a text, each over its numbers: blue for above 0, orange for below, the stronger the further.

    What is not a number has no colour.

    Args:
        pieces: of each its text and one number for each of `names`.
        names: what the rows of numbers are called.
        scales: of each row the number that has the full colour, above 0; by default its largest finite one. Strips that are to be
            compared share them.
    """
    scales = scales or tuple(
        max((abs(numbers[row]) for _, *numbers in pieces if math.isfinite(numbers[row])), default=0.0) or 1.0
        for row in range(len(names))
    )
    # the spaces keep texts and numbers apart where the style sheet is left out
    first = " ".join(f'<span class="rlhf-heat">{escape(name)}</span>' for name in names)
    columns = [f'<span class="rlhf-piece rlhf-names"><span>&nbsp;</span> {first}</span> ']
    for text, *numbers in pieces:
        heats = " ".join(heat(value, scale) for value, scale in zip(numbers, scales, strict=True))
        columns.append(f'<span class="rlhf-piece"><span>{escape(text)}</span> {heats}</span> ')
    return f'<div>{escape(caption)}</div><div class="rlhf-strip">{"".join(columns)}</div>'


def heat(value: float, scale: float) -> str:
    """A number on a ground whose colour says how far it is from 0; `scale` has the full colour."""
    strength = 0.0 if math.isnan(value) else min(1.0, abs(value) / scale)
    colour = f"{palette.BLUE if value > 0 else palette.ORANGE}{round(150 * strength):02x}"
    return f'<span class="rlhf-heat" style="background:{colour}">{number(value)}</span>'


def sparkline(name: str, values: list[float | None]) -> str:
    """Numbers in their order as a small line, with a dot at the last one, and in words; nothing where none has a place."""
    drawn = [(place, value) for place, value in enumerate(values) if value is not None and drawable(value)]
    if not drawn:
        return ""
    low, high = min(value for _, value in drawn), max(value for _, value in drawn)
    across, height = 150 / max(1, len(values) - 1), 24
    points = [
        (4 + place * across, 4 + (height - 8) * (1 - (value - low) / ((high - low) or 1.0)))
        for place, value in drawn
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    about = label(
        f"{name}: {len(values)} texts, lowest {number(low)}, highest {number(high)}, last {number(values[-1]) or 'none'}"
    )
    return (
        f'<svg role="img" aria-label="{about}" width="158" height="{height}" viewBox="0 0 158 {height}"><title>{about}</title>'
        f'<polyline points="{path}" fill="none" stroke="{palette.BLUE}" stroke-width="2"/>'
        f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="3.5" fill="{palette.BLUE}"/></svg>'
    )


def ring(done: int, of: int) -> str:
    """How much is done, as a ring with a number."""
    share = 100 * done / max(1, of)
    return f'<span class="rlhf-ring" style="--rlhf-share:{share:.0f}%">{done}</span>'


def folded(summary: str, markup: str) -> str:
    """HTML that shows when a reader opens it."""
    return f"<details><summary>{escape(summary)}</summary>{markup}</details>"
