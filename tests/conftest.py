"""What several tests need: clean settings, the command line, small notebooks, a stand-in for the hub."""

import os
import subprocess
import sys
import threading
from collections import Counter
from http.server import ThreadingHTTPServer

import nbformat
import pytest
from common import ROOT, TRLX_COMMAND, StandInHub

from helpers.real_trlx import install

# Windows has no make, and other places and signals for programs.
collect_ignore = ["test_makefile.py", "test_packages.py"] if os.name == "nt" else []


def pytest_collection_modifyitems(items):
    """The slowest files first: of two processes the other does the rest meanwhile."""
    slowest = ["test_full.py", "test_processes.py", "test_run.py"]
    items.sort(key=lambda item: slowest.index(item.path.name) if item.path.name in slowest else len(slowest))


COUNTED = (
    "exercises",
    "known wrong answers named",
    "junk survived",
    "solutions run",
    "terms introduced before use",
)


def pytest_terminal_summary(terminalreporter):
    """One line of what the tests that passed counted with `record_property`, of however many processes."""
    counts = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, number in report.user_properties:
            counts[name] += number
    if any(counts[name] for name in COUNTED):
        terminalreporter.write_line(" · ".join(f"{name}: {counts[name]:,}" for name in COUNTED))


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    """No setting of whoever runs the tests counts: tiny scale, results in a temporary folder."""
    for name in [name for name in os.environ if name.startswith("RLHF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RLHF_SCALE", "tiny")
    monkeypatch.setenv("RLHF_ENGINE", "builtin")
    monkeypatch.setenv("RLHF_OUT", str(tmp_path / "out"))


@pytest.fixture(scope="module", params=["builtin", "trlx"])
def engine(request):
    """Who trains in `ppo_run.small_run`: every test that asks for this runs once with each engine."""
    if request.param == "trlx" and not install.installed():
        pytest.skip(f"trlX is not installed here: {TRLX_COMMAND}")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PPO_RUN_ENGINE", request.param)
        yield request.param


@pytest.fixture
def cli(tmp_path):
    """`python -m helpers ...` in a fresh process and an empty home, with extra environment variables by keyword; `cwd`: that of a copy of the course."""

    def call(*arguments, python=(sys.executable,), cwd=ROOT, **env):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        return subprocess.run(
            [*python, "-m", "helpers", *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"HOME": str(home), "HF_HOME": str(home / "hf")} | env,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=1800,
        )

    return call


@pytest.fixture
def make_notebook():
    """Writes a small notebook with the course's badge, Setup cell and the code cells given."""

    def make(path, *sources):
        from helpers.maintain.publish import badge_line, setup_cell

        cells = [
            nbformat.v4.new_markdown_cell(f"{badge_line(f'notebooks/{path.name}')}\n\n# A title: café"),
            *[nbformat.v4.new_code_cell(source) for source in (setup_cell(), *sources)],
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return make


@pytest.fixture
def hub():
    """Starts a stand-in for the hub on this machine: give it {"models/owner/name": folder}, get its address."""
    servers = []

    def start(repositories, requests=None):
        seen = [] if requests is None else requests
        handler = type("Handler", (StandInHub,), {"repositories": repositories, "requests": seen})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
