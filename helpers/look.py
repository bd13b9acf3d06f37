"""How figures and tables look in every notebook, set in one place; `course.start` puts it on."""

import itertools
import re

from helpers import palette, settings

FIGURES = {
    "figure.figsize": (7, 3.4),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    # opaque and light, so that a figure reads on a dark page too
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    # 12 points are legible where a page shows the figure at half its size
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "figure.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#767676",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "hatch.linewidth": 0.8,
}
"""matplotlib's settings; the sizes are inches and points."""

PROJECTOR = {
    "font.size": 17,
    "axes.titlesize": 18,
    "axes.labelsize": 17,
    "xtick.labelsize": 16,
    "ytick.labelsize": 16,
    "legend.fontsize": 16,
    "figure.titlesize": 18,
    "axes.linewidth": 1.5,
    "grid.linewidth": 1.2,
    "lines.linewidth": 3.5,
    "lines.markersize": 9,
    "xtick.major.width": 1.5,
    "ytick.major.width": 1.5,
    # a legend lies over a line sooner than with small type
    "legend.frameon": True,
    "legend.framealpha": 0.6,
    "legend.edgecolor": "white",
}
"""What RLHF_FIGURES=projector sets besides, in points where it is a size."""

TABLES = {
    "display.max_colwidth": 160,
    "display.html.use_mathjax": False,  # "$5 and $7" in a review is no formula
}
"""pandas' settings; a column's width is in characters."""


def dress() -> None:
    """Set how figures and tables look from here on; in a notebook a table is shown as `table_html` writes it."""
    import matplotlib as mpl
    import pandas as pd
    from IPython import get_ipython

    colours = [palette.BLUE, palette.ORANGE, palette.GREEN, palette.PURPLE, palette.AMBER, palette.BEFORE]
    plain = {name: mpl.rcParamsDefault[name] for name in PROJECTOR} | FIGURES
    large = PROJECTOR if "projector" in settings.read_figures() else {}
    mpl.rcParams.update(plain | large | {"axes.prop_cycle": mpl.rcsetup.cycler(color=colours)})
    for name, value in TABLES.items():
        pd.set_option(name, value)
    shell = get_ipython()
    if shell:
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, table_html)


def table_html(table) -> str:
    """A DataFrame as HTML: no index that only counts; numbers at the right, all else at the left."""
    from pandas.api.types import is_integer_dtype, is_numeric_dtype

    counts = table.index.nlevels == 1 and table.index.name is None and is_integer_dtype(table.index)
    markup = table.to_html(index=not counts, border=0, max_rows=60)
    if table.index.nlevels > 1 or table.columns.nlevels > 1:
        return markup  # cells that span others: pandas' own alignment
    is_number = [False] * (not counts) + [is_numeric_dtype(kind) for kind in table.dtypes]
    column = itertools.cycle(is_number)
    # on each cell: neither GitHub nor a notebook that is not trusted takes a style sheet
    align = {True: "right", False: "left"}
    return re.sub("<(t[hd])>", lambda cell: f'<{cell[1]} style="text-align: {align[next(column)]}">', markup)
