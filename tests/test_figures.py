"""Figures and their text alternatives."""

import base64
import io
import itertools
import os
import re
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from common import ROOT
from matplotlib.text import Text
from PIL import Image

from helpers import figures, look, monitor, notebooks, palette
from helpers.maintain import diagrams
from helpers.ppo.run import History

COLOURS = {value for name, value in vars(palette).items() if name.isupper()} | {
    "#ffffff",
    "#222222",
    "#444444",
}


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_a_line_is_told_by_its_ends_and_extremes(axes):
    axes.plot([0, 1, 2, 3], [0.5, 0.2, 0.9, 0.8], label="held-out prompts")
    axes.set(title="Reward", xlabel="step", ylabel="mean reward")
    axes.axhline(0.1)  # a line of two points only guides the eye
    told = "Reward: mean reward against step. held-out prompts from 0.5 at 0 to 0.8 at 3, lowest 0.2, highest 0.9."
    assert figures.describe(axes.figure) == told


@pytest.mark.parametrize("side", ["left", "center", "right"])
def test_a_title_is_told_wherever_it_stands_and_in_one_line(axes, side):
    axes.plot([0, 1, 2], [1, 2, 4], label="sick")
    axes.set_title("mean\nreward", loc=side)
    axes.set_ylabel("beta\nis 0")
    assert figures.describe(axes.figure) == "mean reward: beta is 0. sick from 1 at 0 to 4 at 2."


def test_points_with_error_bars_are_told_once(axes):
    axes.errorbar([0, 1, 2], [1, 2, 3], [0.1, 0.1, 0.1], fmt="o", capsize=3, label="with intervals")
    assert figures.describe(axes.figure) == "with intervals from 1 at 0 to 3 at 2."


def test_bars(axes):
    axes.barh(["wte", "block 0"], [0, 24.123])
    axes.hist([[1, 1, 2], [2, 3, 3]], bins=[1, 2, 3, 4], stacked=True, label=["ended", "cut off"])
    told = figures.describe(axes.figure)
    assert "bars: wte 0, block 0 24.1" in told
    assert "ended: 3 bars, the highest 2 at 1" in told and "cut off: 3 bars, the highest 2 at 3" in told


def test_what_only_the_legend_names(axes):
    axes.hist([1, 1, 2], histtype="step", label="after, mean 0.97")
    axes.legend()
    assert figures.describe(axes.figure) == "after, mean 0.97."


def test_texts_and_titles(axes):
    axes.text(0, 0, "policy\nthe GPT-2 that learns")
    axes.figure.suptitle("The loop")
    assert figures.describe(axes.figure) == "The loop. texts: policy the GPT-2 that learns."


def test_names_at_the_ends_of_lines_stand_apart_and_are_told_once(axes):
    for name, end in (("one", 0.50), ("two", 0.51), ("three", 0.52)):
        axes.plot([0, 1, 2], [0, 0.2, end], label=name)
    axes.plot([0, 1], [0, 1])  # a line without a name
    figures.label_ends(axes)
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["one", "two", "three"]
    assert all(low.y1 < high.y0 for low, high in zip(boxes, boxes[1:]))
    assert [text.get_color() for text in axes.texts] == [line.get_color() for line in axes.lines[:3]]
    assert "texts:" not in figures.describe(axes.figure)


def test_a_picture_is_small_and_looks_the_same(axes):
    axes.plot([0, 1, 2], [1, 2, 4])
    small = Image.open(io.BytesIO(figures.picture(axes.figure))).convert("RGB")
    whole = io.BytesIO()
    axes.figure.savefig(whole, format="png", bbox_inches="tight")
    assert len(figures.picture(axes.figure)) < len(whole.getvalue()) / 2
    difference = np.array(small, dtype=float) - np.array(Image.open(whole).convert("RGB"), dtype=float)
    assert small.size == Image.open(whole).size and np.abs(difference).max() < 40


@pytest.mark.parametrize("svg", sorted(figures.DIAGRAMS.glob("*.svg")), ids=lambda path: path.stem)
def test_a_diagram_says_what_it_shows_and_its_png_is_of_it(svg):
    root = ElementTree.parse(svg).getroot()
    title, desc = (root.find(f"{{http://www.w3.org/2000/svg}}{name}") for name in ("title", "desc"))
    assert len(title.text) > 10 and len(desc.text) > 100
    assert root.get("aria-labelledby").split() == [title.get("id"), desc.get("id")]
    assert set(re.findall(r'(?:fill|stroke)="(#\w+)"', svg.read_text())) <= COLOURS
    made_from = Image.open(svg.with_suffix(".png")).info["Source"]
    assert made_from == diagrams.digest(svg), "run `python -m helpers.maintain.diagrams`"


def test_a_diagram_in_a_notebook(make_notebook, tmp_path):
    (tmp_path / "helpers").symlink_to(ROOT / "helpers")
    show = "from helpers.figures import show_diagram\nshow_diagram('rlhf_loop')"
    path = make_notebook(tmp_path / "notebooks" / "01_small.ipynb", show)
    notebook = nbformat.read(path, as_version=4)
    notebooks.execute(notebook, path, os.environ)
    (shown,) = notebooks.code_cells(notebook)[1].outputs
    said = "A prompt, “I watched this film”, goes to the policy"
    assert shown.data["image/svg+xml"].startswith("<svg") and shown.data["text/plain"].startswith(said)
    assert base64.b64decode(shown.data["image/png"]).startswith(b"\x89PNG")
    assert shown.metadata["image/png"]["alt"].startswith(said)


def test_shown_and_redrawn_in_a_notebook_it_carries_its_description(make_notebook, tmp_path):
    (tmp_path / "helpers").symlink_to(ROOT / "helpers")
    setup = "import matplotlib.pyplot as plt\nfrom helpers import figures"
    draw = "figure, axes = plt.subplots()\naxes.plot([0, 1, 2], [1, 2, 4], label='reward')\n"
    live = "handle = figures.show_live(figure)\naxes.lines[0].set_ydata([1, 2, 9])\nfigures.update(handle, figure)"
    path = make_notebook(
        tmp_path / "notebooks" / "01_small.ipynb", setup, f"{draw}figures.show(figure)", draw + live
    )
    notebook = nbformat.read(path, as_version=4)
    notebooks.execute(notebook, path, os.environ)
    shown, redrawn = (cell.outputs for cell in notebooks.code_cells(notebook)[2:])
    assert [len(shown), len(redrawn)] == [1, 1]
    assert shown[0].metadata["image/png"]["alt"] == "reward from 1 at 0 to 4 at 2."
    assert redrawn[0].metadata["image/png"]["alt"] == "reward from 1 at 0 to 9 at 2."


@pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
def test_every_stored_figure_has_a_text_alternative(path):
    assert path.is_relative_to(ROOT)
    for cell in notebooks.code_cells(nbformat.read(path, as_version=4)):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.metadata.get("image/png", {}).get("alt", "")) > 20, cell.source


# --------------------------------------------------------------------------------------------- for a room, and for the ear


@pytest.fixture
def projector(monkeypatch):
    """A figure's settings as a start makes them with RLHF_FIGURES=projector; what was set before again afterwards."""
    monkeypatch.setenv("RLHF_FIGURES", "projector")
    with mpl.rc_context():
        look.dress()
        yield


def texts_that_overlap(figure):
    """Pairs of texts of a laid out figure that lie on each other."""
    figure.draw_without_rendering()
    beyond = set()  # the numbers of an axis that lie outside of it are not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        beyond |= {label for tick in ticks for label in (tick.label1, tick.label2)}
    texts = [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text() and text not in beyond
    ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)]


def history():
    steps = range(0, 160, 16)
    rounds = [dict(step=s, reward=0.5 + s / 400, kl=s / 40, explained_variance=-26.31) for s in steps]
    evals = [{"step": s, "reward/mean": 0.53 + s / 400, "kl": s / 41} for s in steps]
    updates = [dict(step=s, policy_loss=-0.01, value_loss=0.2, entropy=1.02 - s / 900) for s in steps]
    return History(rounds=rounds, updates=updates, evals=evals)


def test_four_panels_stand_two_by_two_on_a_projector_and_say_the_same(projector, monkeypatch):
    large = monitor.plot_history(history())
    places = [axes.get_subplotspec() for axes in large.axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    width, height = large.get_size_inches()
    assert width <= 11 and height > 5 and not texts_that_overlap(large)
    figures.fit(large)  # once more
    assert tuple(large.get_size_inches()) == (width, height)
    monkeypatch.delenv("RLHF_FIGURES")
    assert figures.describe(monitor.plot_history(history())) == figures.describe(large)


def test_panels_that_share_an_axis_keep_its_numbers_in_each_row(projector):
    figure, axes = plt.subplots(1, 5, figsize=(11, 4.2), sharex=True, sharey=True)
    for panel in axes:
        panel.barh(["about", "a"], [1, 2])
    figures.fit(figure)
    places = [panel.get_subplotspec() for panel in axes]
    assert [place.rowspan.start for place in places] == [0, 0, 0, 1, 1]
    shown = [panel.yaxis.get_tick_params()["labelleft"] for panel in axes]
    assert shown == [True, False, False, True, False] and not texts_that_overlap(figure)
    plt.close(figure)


def test_small_type_thin_lines_and_long_names_on_a_projector(projector):
    figure, axes = plt.subplots(figsize=(8, 3.2))
    (line,) = axes.plot([0, 1, 2], [1, 2, 4], lw=1, ms=3)
    word = axes.text(1, 1, "cut", fontsize=7)
    axes.set(ylabel="held-out accuracy of the reward model, 95% interval", title="What ratings buy")
    figures.fit(figure)
    assert line.get_linewidth() >= 2 and word.get_fontsize() >= 14
    assert axes.get_ylabel().count("\n") == 1 and not texts_that_overlap(figure)
    assert "held-out accuracy of the reward model, 95% interval" in figures.describe(figure)
    plt.close(figure)


def test_without_the_setting_a_figure_stays_as_it_is(axes):
    axes.plot([0, 1, 2], [1, 2, 4], lw=1)
    size = tuple(axes.figure.get_size_inches())
    figures.fit(axes.figure)
    assert tuple(axes.figure.get_size_inches()) == size and axes.lines[0].get_linewidth() == 1


@pytest.mark.parametrize("asked", ["", "described", "projector,described"])
def test_a_description_is_printed_where_it_is_asked_for(axes, asked, monkeypatch, capsys):
    monkeypatch.setenv("RLHF_FIGURES", asked)
    axes.plot([0, 1, 2], [1, 2, 4], label="reward")
    figures.show(axes.figure)
    printed = capsys.readouterr().out
    assert ("Figure: reward from 1 at 0 to 4 at 2.\n" in printed) == bool(asked)
