"""A real browser on a real JupyterLab: `make test-browser`. Needs Chromium (Debian's package) beside what that installs."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from in_page import idle

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(os.environ.get("SCREENSHOTS", ROOT / "out" / "screenshots"))
TOKEN = "reader"
LAUNCH = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
LAUNCH += ["--disable-component-update", "--disable-sync", "--no-first-run"]


@pytest.fixture(scope="session")
def server(browser, tmp_path_factory):
    """The address of a JupyterLab on a copy of the course, and the copy's folder."""
    folder = tmp_path_factory.mktemp("lab")
    course = folder / "course"
    shutil.copytree(ROOT, course, ignore=shutil.ignore_patterns(".*", "out", "__pycache__"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    settings = {"RLHF_SCALE": "tiny", "RLHF_ENGINE": "builtin", "RLHF_OUT": str(folder / "out")}
    settings |= {
        "RLHF_BUDGET": "0.3",
        "OMP_NUM_THREADS": "1",
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
    }
    everything_shown = (
        folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    )
    everything_shown.parent.mkdir(parents=True)
    everything_shown.write_text('{"windowingMode": "none"}')  # else cells out of sight are not in the page
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--ServerApp.root_dir={course}", f"--IdentityProvider.token={TOKEN}"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=os.environ | own | settings, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api?token={TOKEN}", folder / "log")
        yield address, course
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address: str, log: Path) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="`make test-browser` installs Playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: `apt install chromium`")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=LAUNCH)
        yield chromium
        chromium.close()


@pytest.fixture
def lab(browser, server, request):
    """Opens a notebook of the course in JupyterLab: `lab("01_install.ipynb")` gives the page."""
    address, _ = server
    pages = []
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def open_notebook(name: str):
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        pages.append(page)
        page.shots = SCREENSHOTS
        page.goto(f"{address}/lab/tree/notebooks/{name}?token={TOKEN}&reset")
        idle(page)
        page.wait_for_timeout(2000)  # the first "idle" may be from before the kernel was asked anything
        return page

    yield open_notebook
    for number, page in enumerate(pages):
        page.screenshot(path=SCREENSHOTS / f"{request.node.name}_{number}.png")
        page.close()
