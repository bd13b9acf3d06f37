"""Full scale: every notebook on real IMDB reviews and with models of the real architectures, where RLHF_ASSETS names a folder of both."""

import json
import os

import nbformat
import pytest
from common import ASSETS, needs_assets
from transformers import AutoConfig

from helpers import notebooks


@needs_assets
@pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
def test_full_on_real_reviews(path, tmp_path):
    """Each notebook on real IMDB reviews, with a budget that fits a test; training enough to see the reward rise."""
    budget = "0.2" if path.stem == "06_train" else "0.05"
    env = os.environ | {"RLHF_SCALE": "full", "RLHF_ASSETS": str(ASSETS), "RLHF_BUDGET": budget}
    notebook = nbformat.read(path, as_version=4)
    if path.stem == "06_train" and AutoConfig.from_pretrained(ASSETS / "gpt2-imdb").hidden_size < 768:
        # a stand-in for GPT-2 that is 128 wide gained 0.05 in this time with the step for 768, in place of 0.17
        given = [cell for cell in notebook.cells if "else 1.4e-5" in cell.source]
        assert len(given) == 1
        given[0].source = given[0].source.replace("else 1.4e-5", "else 4.9e-4")
    notebooks.execute(notebook, path, env)
    if path.stem == "06_train":
        numbers = json.loads((tmp_path / "out" / "full" / "result.json").read_text())
        assert numbers["reward_after"] - numbers["reward_before"] >= 0.1
        assert 0 <= numbers["kl"] <= 10
        assert numbers["distinct"] >= 0.8
