"""Figures with a text alternative, for readers who do not see them."""

import io
import math
import re
import weakref

import matplotlib.pyplot as plt
from IPython.display import DisplayHandle, display
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from helpers import settings
from helpers.settings import ROOT

DIAGRAMS = ROOT / "docs" / "images"
WIDEST, THINNEST, SMALLEST = 11, 2, 14
"""On a projector: inches of a figure, points of a line and of type."""
MANY = 8
"""Bars or texts that a description lists; of more bars it names the highest."""

fitted: weakref.WeakSet[Figure] = weakref.WeakSet()


def show(figure: Figure) -> None:
    """Show a figure in a notebook, once, with `describe(figure)` as its text alternative.

    The text lies in the output's metadata, where nbconvert and nbsphinx read it (github.com/jupyter/nbconvert/pull/1112);
    JupyterLab and Colab do not yet (github.com/jupyter/enhancement-proposals/issues/120): with RLHF_FIGURES=described the text
    stands below the figure too.
    """
    plt.close(figure)
    fit(figure)
    display({"image/png": picture(figure), "text/plain": repr(figure)}, metadata=alt(figure), raw=True)
    tell(describe(figure))


def tell(description: str) -> None:
    """Print what a figure shows where RLHF_FIGURES asks for it."""
    if "described" in settings.read_figures():
        print(f"Figure: {description}")


def fit(figure: Figure) -> None:
    """Lay a figure out for a projector where RLHF_FIGURES asks for it: larger, with more room for larger type, two panels in a row.

    Done again it changes nothing.
    """
    if "projector" not in settings.read_figures() or figure in fitted:
        return
    fitted.add(figure)
    width, height = figure.get_size_inches()
    rows = in_two_columns(figure)
    figure.set_size_inches(min(WIDEST, 1.2 * width), 1.2 * height * rows)
    for line in (line for axes in figure.axes for line in axes.lines):
        line.set_linewidth(max(line.get_linewidth(), THINNEST))
        line.set_markersize(max(line.get_markersize(), 2 * THINNEST))
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), SMALLEST))
    break_long_names(figure)


def break_long_names(figure: Figure) -> None:
    """Break the name of a vertical axis that is longer than its axis into two lines, at the space nearest to its middle."""
    figure.draw_without_rendering()  # how long names and axes are is known once the figure is laid out
    for axes in figure.axes:
        name = axes.yaxis.label
        text = name.get_text()
        spaces = [place for place, letter in enumerate(text) if letter == " "]
        if spaces and "\n" not in text and name.get_window_extent().height > axes.bbox.height:
            middle = min(spaces, key=lambda place: abs(place - len(text) / 2))
            name.set_text(f"{text[:middle]}\n{text[middle + 1 :]}")


def in_two_columns(figure: Figure) -> int:
    """Put panels that stand four or more in a row into rows of two, or of three where they are five or six in all.

    Returns:
        How many rows there are for each row before.
    """
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    grids = {axes.get_subplotspec().get_gridspec() for axes in panels}
    if len(grids) != 1 or next(iter(grids)).ncols < 4:
        return 1
    before = next(iter(grids))
    columns = 2 if before.ncols == 4 else 3
    rows = math.ceil(len(panels) / columns)
    grid = figure.add_gridspec(rows, columns)
    labelled = panels[0].yaxis.get_tick_params()["labelleft"]
    for number, axes in enumerate(panels):
        axes.set_subplotspec(grid[number // columns, number % columns])
        if number % columns == 0:
            axes.tick_params(labelleft=labelled)  # with a shared axis the first panel alone had them
    return math.ceil(rows / before.nrows)


def picture(figure: Figure) -> bytes:
    """A figure as a PNG of at most 128 colours, a third of the bytes that it has otherwise; notebooks are stored with them."""
    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", bbox_inches="tight")
    Image.open(whole).convert("RGB").quantize(128).save(small, format="png", optimize=True)
    return small.getvalue()


def show_diagram(name: str) -> None:
    """Show a diagram of docs/images in a notebook, such as "rlhf_loop", with its description as text alternative.

    As SVG and as PNG: each front end takes what it can show. JupyterLab shows no SVG before the notebook is trusted, and
    its outputs, as they come from GitHub, are not. A picture linked from Markdown would be missing where Colab opens the notebook alone.
    """
    svg = (DIAGRAMS / f"{name}.svg").read_text(encoding="utf-8")
    said = re.search(r"<desc[^>]*>(.*?)</desc>", svg, re.DOTALL)[1]
    display(
        {"image/svg+xml": svg, "image/png": (DIAGRAMS / f"{name}.png").read_bytes(), "text/plain": said},
        metadata={"image/png": {"alt": said}},
        raw=True,
    )
    tell(said)


def show_live(figure: Figure) -> DisplayHandle:
    """Show a figure that will change, as `show` does, and return the handle that `update` takes; `tell` its description at the end."""
    plt.close(figure)
    fit(figure)
    return display(figure, metadata=alt(figure), display_id=True)


def update(handle: DisplayHandle, figure: Figure) -> None:
    """Redraw in place what `show_live` has shown."""
    handle.update(figure, metadata=alt(figure))


def label_ends(axes: Axes) -> None:
    """Write the name of each line at its right end, in its colour, in place of a legend; names stand apart."""
    fit(axes.figure)
    size = FontProperties(size=plt.rcParams["legend.fontsize"]).get_size_in_points()
    axes.figure.draw_without_rendering()  # where the lines end is known once the figure is laid out
    point = axes.figure.dpi / 72  # in pixels
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    ends = {line: axes.transData.transform(line.get_xydata()[-1])[1] / point for line in named}
    place = -math.inf
    for line in sorted(named, key=ends.get):
        place = max(ends[line], place + 1.3 * size)
        beside = dict(xytext=(8, place - ends[line]), textcoords="offset points", va="center")
        look = dict(color=line.get_color(), fontsize=size, annotation_clip=False)
        axes.annotate(line.get_label(), line.get_xydata()[-1], **beside, **look)


def alt(figure: Figure) -> dict:
    """The metadata of a figure's output."""
    return {"image/png": {"alt": describe(figure)}}


def describe(figure: Figure) -> str:
    """What a figure shows, in words and numbers: titles, axes, where each line begins and ends, bars, and texts."""
    title = [figure.get_suptitle() + "."] if figure.get_suptitle() else []
    return " ".join(title + [describe_axes(axes) for axes in figure.axes])


def describe_axes(axes: Axes) -> str:
    """What one pair of axes shows: title, names of the axes, lines, bars, legend and texts."""
    names = [name for name in (axes.get_ylabel(), axes.get_xlabel()) if name]
    title = "".join(axes.get_title(loc=side) for side in ("left", "center", "right"))
    head = " ".join(": ".join(part for part in (title, " against ".join(names)) if part).split())
    bars = [container for container in axes.containers if isinstance(container, BarContainer)]
    said = [describe_line(line, name) for line, name in named_lines(axes)]
    said += [describe_bars(axes, container) for container in bars]
    legend = [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []
    said += [name for name in legend if not any(name in sentence for sentence in said)]
    texts = [" ".join(text.get_text().split()) for text in axes.texts if text.get_text().strip()]
    texts = [text for text in texts if not any(sentence.startswith(text) for sentence in said)]
    if texts and not bars and len(texts) <= 2 * MANY:
        said.append("texts: " + "; ".join(texts))
    return f"{head}. " * bool(head) + "; ".join(said) + "." * bool(said)


def named_lines(axes: Axes) -> list[tuple[Line2D, str]]:
    """The lines of three points and more with their names; of error bars the points alone."""
    errors = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    parts = {id(line) for container in errors for line in (container.lines[0], *container.lines[1])}
    named = [(line, line.get_label()) for line in axes.lines if id(line) not in parts]
    named += [(container.lines[0], container.get_label()) for container in errors]
    return [(line, name) for line, name in named if line is not None and len(line.get_xdata()) > 2]


def describe_line(line: Line2D, name: str) -> str:
    """A line's name, its two ends, and its extremes where they lie between."""
    x, y = ([float(value) for value in values] for values in (line.get_xdata(), line.get_ydata()))
    ends = f"from {number(y[0])} at {number(x[0])} to {number(y[-1])} at {number(x[-1])}"
    extremes = [("lowest", min(y)), ("highest", max(y))]
    between = [f"{what} {number(value)}" for what, value in extremes if value not in (y[0], y[-1])]
    return ", ".join([f"{'a line' if name.startswith('_') else name} {ends}", *between])


def describe_bars(axes: Axes, bars: BarContainer) -> str:
    """A few lying bars one by one; of many bars the number, and the highest."""
    lying = bars.orientation == "horizontal"
    sizes = [bar.get_width() if lying else bar.get_height() for bar in bars]
    places = [bar.get_y() if lying else bar.get_x() for bar in bars]
    labels = [
        label for label in (bars.get_label(), bars[0].get_label()) if label and not label.startswith("_")
    ]
    name = labels[0] if labels else "bars"
    if lying and len(bars) <= MANY:
        ticks = [label.get_text() for label in axes.get_yticklabels()]
        return f"{name}: " + ", ".join(f"{tick} {number(size)}" for tick, size in zip(ticks, sizes))
    top = sizes.index(max(sizes))
    return f"{name}: {len(bars)} bars, the highest {number(sizes[top])} at {number(places[top])}"


def number(value: float) -> str:
    """Three significant digits, without an exponent where there is no need for one."""
    if abs(value) < 1e-9:
        return "0"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
