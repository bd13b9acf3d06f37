"""How many threads compute, and how they wait for each other: chosen by the course, unless the reader has."""

import os
import subprocess
import sys

import pytest
import torch
from common import ROOT

from helpers import course


@pytest.fixture
def torchs_own(monkeypatch):
    """As in a fresh Python in which torch took three threads by itself, and nobody has said anything."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    course.threads_at_first.cache_clear()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)
    course.threads_at_first.cache_clear()


def test_tiny_scale_computes_in_one_thread_and_full_scale_in_torchs_own(torchs_own):
    for scale, expected in [("tiny", 1), ("full", torchs_own), ("tiny", 1)]:
        course.choose_threads(scale)
        assert torch.get_num_threads() == expected
    assert course.one_thread() == {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_the_readers_stays(torchs_own, monkeypatch, name):
    monkeypatch.setenv(name, "3")
    course.choose_threads("tiny")
    assert torch.get_num_threads() == 3
    assert course.one_thread() == {}


@pytest.mark.parametrize("readers, expected", [("", "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_a_command_sets_how_to_wait_before_torch_loads(readers, expected):
    code = """
import os, sys
from helpers import __main__ as commands
commands.config = lambda args: print("torch" in sys.modules, os.environ["OMP_WAIT_POLICY"])
commands.main(["config"])
"""
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env |= {"OMP_WAIT_POLICY": readers} if readers else {}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.stdout == f"False {expected}\n", run.stderr


def test_a_notebooks_first_cell_chooses_even_after_torch():
    code = "import torch; torch.set_num_threads(3)\nfrom helpers import course; course.start(); print(torch.get_num_threads())"
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1:] == ["1"], run.stderr
