"""What the tests read out of the widgets' HTML."""

import re

import ipywidgets


def tree(widget):
    """A widget and all in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from tree(child)


def behind_style(markup):
    """Markup without the style sheet that it may begin with."""
    return markup.rpartition("</style>")[2]


def all_html(widget):
    """Of a widget and all in it every HTML value, without the style sheet, and every description, which 7.7 renders too."""
    for part in tree(widget):
        yield getattr(part, "description", "")
        if isinstance(part, ipywidgets.HTML):
            yield behind_style(part.value)


def active(markup):
    """Tags that run or fetch something; the widgets draw pictures of their own, as <svg role="img">."""
    return re.findall(r'<(?:img|script|iframe|style|svg(?! role="img"))', markup.lower())


def bare(markup):
    """The text of markup."""
    return re.sub(r"<.*?>", "", markup, flags=re.DOTALL)


def columns(markup):
    """The names of a table's columns."""
    return [bare(head) for head in re.findall(r'<th scope="col".*?</th>', markup)]


def cells(markup):
    """The text of each cell of each row of a table's body."""
    rows = re.findall(r"<tr>(.*?)</tr>", re.search(r"<tbody>(.*?)</tbody>", markup)[1])
    return [[bare(cell) for cell in re.findall(r"<td.*?</td>", row)] for row in rows]


def card_figures(markup):
    """{name: number} of cards, as they are shown."""
    shown = re.findall(r'<div class="rlhf-card"><div>(.*?)</div><div class="rlhf-figure">(.*?)</div>', markup)
    return {bare(name): figure for name, figure in shown}


def strip_pieces(markup):
    """Of a strip the names of its rows first, then each piece: a text and its numbers, as they are shown."""
    pieces = []
    for piece in re.findall(r'<span class="rlhf-piece[^>]*>(.*?)</span></span>', markup):
        text, *heats = piece.split(' <span class="rlhf-heat"')
        pieces.append((bare(text), *(bare(f"<{heat}") for heat in heats)))
    return pieces


def strengths(markup):
    """How strong the colour under each number of a strip is, from 0 to 150, and which: {(colour, strength)} in their order."""
    found = re.findall(r"background:(#[0-9a-fA-F]{6})([0-9a-f]{2})", markup)
    return [(colour, int(strength, 16)) for colour, strength in found]


def bar_widths(markup):
    """How far each bar is filled, in percent, as it is written."""
    return re.findall(r'<span class="rlhf-bar"><span style="width:(.*?)%', markup)
