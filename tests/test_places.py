"""The set-ups for places in the cloud: what they name exists here. None of these places can be reached from a test."""

import json
import re

from common import ROOT
from packaging.requirements import Requirement


def test_the_devcontainer_names_what_is_here():
    place = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    make, target = place["postCreateCommand"].split()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert make == "make" and re.search(rf"^READY = {re.escape(target)}$", makefile, re.MULTILINE)
    assert all((ROOT / name).is_file() for name in place["customizations"]["codespaces"]["openFiles"])
    python = place["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    environment = re.search(r"^VENV = (.+)$", makefile, re.MULTILINE)[1]
    assert python == f"${{workspaceFolder}}/{environment}"
    assert re.fullmatch(r"mcr\.microsoft\.com/devcontainers/python:3\.(11|12|13)", place["image"])
    assert {"ms-python.python", "ms-toolsai.jupyter"} <= set(place["customizations"]["vscode"]["extensions"])


def test_binder_installs_what_make_does():
    folder = ROOT / "binder"
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = {line.split()[0]: line.split()[1] for line in lines if not line.startswith("#")}
    assert set(named) == {"--extra-index-url", "-c", "-r"}
    assert (folder / named["-r"]).resolve() == ROOT / "requirements.txt"
    assert (folder / named["-c"]).resolve() == ROOT / "constraints.txt"
    assert (folder / "runtime.txt").read_text() == "python-3.11\n"  # the constraints are of this Python


def test_the_cpus_torch_fits_the_constraints():
    """An index for the CPU names its builds 2.13.0+cpu, which a constraint to 2.13.0 has to let in."""
    (torch,) = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    ]
    version = torch.removeprefix("torch==")
    assert Requirement(torch).specifier.contains(f"{version}+cpu")
