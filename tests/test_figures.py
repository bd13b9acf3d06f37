"""Figures and their text alternatives."""

import os

import matplotlib.pyplot as plt
import nbformat
import pytest
from common import ROOT

from helpers import figures, notebooks


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
