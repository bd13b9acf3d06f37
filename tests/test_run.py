"""`python -m helpers run`, what `make course` does, with the notebooks that its table tells of and a third of their training."""

import json
import shutil

import pytest
from common import ROOT

from helpers import notebooks

NEEDED = ["01_install", "06_train", "09_human_feedback"]


@pytest.fixture
def small_course(tmp_path):
    """A copy of the course with these notebooks only: that every notebook runs is tested cell by cell."""
    folder = tmp_path / "course"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "out", "*.ipynb")
    shutil.copytree(ROOT, folder, ignore=left_out)
    for path in notebooks.numbered():
        if path.stem in NEEDED:
            shutil.copy(path, folder / "notebooks")
    return folder


def test_the_table_says_what_was_learned(cli, small_course, tmp_path):
    done = cli("run", cwd=small_course, RLHF_BUDGET="0.3")
    assert done.returncode == 0, done.stderr
    assert "Reward, held-out prompts" in done.stdout and " -> " in done.stdout
    out = tmp_path / "out" / "tiny"
    assert sorted(path.stem for path in (out / "notebooks").glob("*.ipynb")) == NEEDED
    numbers = json.loads((out / "result.json").read_text())
    for name in ("model_path", "curve_path"):
        assert numbers[name] in done.stdout
        assert (out / numbers[name]).exists()
    assert (out / numbers["model_path"] / "model.safetensors").is_file()
    assert 0.3 <= numbers["reward_before"] <= 0.7
    assert numbers["reward_after"] >= numbers["reward_before"] + 0.2
    assert 0 <= numbers["kl"] <= 10
    assert numbers["distinct"] >= 0.8
