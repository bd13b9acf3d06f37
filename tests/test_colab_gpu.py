"""The notebook that runs the course's tests on a Colab GPU, tried on what is here, with small notebooks in place of the course's."""

import os
import shutil

import nbformat
import pytest
from common import ROOT

from helpers import notebooks

NAME = "colab_gpu.ipynb"


@pytest.fixture
def small_course(tmp_path, make_notebook):
    """A course of two notebooks, of which the second fails."""
    folder = tmp_path / "course"
    (folder / "tests").mkdir(parents=True)
    (folder / "helpers").symlink_to(ROOT / "helpers")
    shutil.copy(ROOT / "tests" / NAME, folder / "tests")
    make_notebook(folder / "notebooks" / "01_fine.ipynb", "print(1)")
    make_notebook(folder / "notebooks" / "02_broken.ipynb", "raise ValueError('this one is broken')")
    return folder


def test_its_table_says_what_passed(small_course):
    path = small_course / "tests" / NAME
    notebook = nbformat.read(path, as_version=4)
    notebooks.execute(notebook, path, os.environ | {"RLHF_ENGINE": "builtin"})
    printed = [
        "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")
        for cell in notebooks.code_cells(notebook)
    ]
    printed = [notebooks.ANSI.sub("", text) for text in printed]
    assert "Engine: built-in PPO" in printed[2]
    assert "ValueError: this one is broken" in printed[-2] and "01_fine" not in printed[-2]
    fine, broken = printed[-1].splitlines()[-2:]
    assert fine.split()[0] == "01_fine" and fine.endswith("True")
    assert broken.split()[0] == "02_broken" and broken.endswith("False")
    assert "torch" in printed[-1] and str(ROOT) not in printed[-1]


def test_it_is_stored_without_outputs():
    notebook = nbformat.read(ROOT / "tests" / NAME, as_version=4)
    assert not any(cell.outputs for cell in notebooks.code_cells(notebook))
    assert notebook.metadata.accelerator == "GPU"
