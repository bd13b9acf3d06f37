"""Installing the real trlX: which one is here, and one line where it cannot be fetched."""

import importlib.metadata
import json
import re
import subprocess

import pytest

from helpers import engine, trlx_install
from helpers.errors import CourseError

HERE = trlx_install.installed()


def pretend(monkeypatch, commit):
    """trlX as pip leaves it: a name, a version, and where it came from."""

    class Trlx:
        version = "0.7.0"

        def read_text(self, name):
            return (
                json.dumps({"url": trlx_install.ADDRESS, "vcs_info": {"commit_id": commit}})
                if commit
                else None
            )

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Trlx())


@pytest.mark.parametrize(
    "commit, text",
    [
        (trlx_install.COMMIT, "0.7.0, commit 3340c2f"),
        ("f" * 40, "0.7.0, commit fffffff (not the course's)"),
        (None, "0.7.0, commit unknown"),
    ],
)
def test_which_commit_is_here(monkeypatch, commit, text):
    pretend(monkeypatch, commit)
    monkeypatch.setenv("RLHF_ENGINE", "auto")
    assert engine.describe() == f"trlX {text}"


@pytest.mark.skipif(HERE is not None, reason="trlX is installed here")
def test_without_trlx_auto_means_the_built_in_engine(monkeypatch):
    monkeypatch.setenv("RLHF_ENGINE", "auto")
    assert engine.describe().startswith("built-in PPO")
    monkeypatch.setenv("RLHF_ENGINE", "trlx")
    with pytest.raises(CourseError, match="python -m helpers trlx.*RLHF_ENGINE=builtin"):
        engine.describe()


@pytest.mark.skipif(HERE is not None, reason="trlX is installed here")
@pytest.mark.parametrize(
    "address, why",
    [
        ("https://github.invalid/", "github.com cannot be reached"),
        ("file:///no/such/place/", "fatal: "),
    ],
)
def test_where_trlx_cannot_be_fetched_one_line_says_so(cli, address, why):
    """git is told to look elsewhere, so that this fails without a network and with one."""
    rerouted = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{address}.insteadOf"}
    result = cli("trlx", GIT_CONFIG_VALUE_0="https://github.com/", **rerouted)
    assert result.returncode == 1
    (line,) = result.stdout.strip().splitlines()
    assert re.fullmatch(
        r"trlX was not installed \(.*\)\. The course goes on with its built-in engine\.", line
    )
    assert why in line


@pytest.mark.skipif(HERE is not None, reason="trlX is installed here")
@pytest.mark.parametrize("fails_at, importable", [("deepspeed", True), ("trlx @", True), ("never", False)])
def test_an_installation_that_fails_half_way_leaves_the_built_in_engine(
    monkeypatch, capsys, fails_at, importable
):
    done = []

    def run(*command):
        if any(fails_at in word for word in command):
            raise subprocess.CalledProcessError(1, command, stderr="ERROR: Failed building wheel")
        done.append(" ".join(command))

    monkeypatch.setattr(trlx_install, "run", run)
    monkeypatch.setattr(trlx_install, "importable", lambda: importable)
    assert not trlx_install.install()
    assert "built-in engine" in capsys.readouterr().out.splitlines()[-1]
    came = [line for line in done if "trlx @" in line]
    assert not came or "uninstall" in done[-1]


def test_what_trlx_needs_is_bounded():
    for requirement in trlx_install.NEEDED:
        assert re.fullmatch(r"[a-z]+>=[\d.]+,<[\d.]+", requirement), requirement
    assert re.fullmatch(r"[0-9a-f]{40}", trlx_install.COMMIT)
