"""The whole course, run as `make course` runs it but with a third of the training, and what it must show."""

import json

from helpers import notebooks


def check_run(result, out):
    """What every finished run leaves and says; returns its numbers."""
    assert result.returncode == 0, result.stderr
    assert "Reward, held-out prompts" in result.stdout and " -> " in result.stdout
    for path in notebooks.numbered():
        assert (out / "notebooks" / path.name).is_file()
    numbers = json.loads((out / "result.json").read_text())
    for name in ("model_path", "curve_path"):
        assert numbers[name] in result.stdout
        assert (out / numbers[name]).exists()
    assert (out / numbers["model_path"] / "model.safetensors").is_file()
    return numbers


def test_tiny(cli, tmp_path):
    result = cli("run", RLHF_BUDGET="0.3")
    numbers = check_run(result, tmp_path / "out" / "tiny")
    assert 0.3 <= numbers["reward_before"] <= 0.7
    assert numbers["reward_after"] >= numbers["reward_before"] + 0.2
    assert 0 <= numbers["kl"] <= 10
    assert numbers["distinct"] >= 0.8
