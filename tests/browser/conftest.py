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

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(os.environ.get("SCREENSHOTS", ROOT / "out" / "screenshots"))
TOKEN = "reader"
LAUNCH = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
LAUNCH += ["--disable-component-update", "--disable-sync", "--no-first-run"]

playwright = pytest.importorskip("playwright.sync_api", reason="`make test-browser` installs Playwright")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine: `apt install chromium`", allow_module_level=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The address of a JupyterLab on a copy of the course, and the copy's folder."""
    folder = tmp_path_factory.mktemp("lab")
    course = folder / "course"
    shutil.copytree(ROOT, course, ignore=shutil.ignore_patterns(".*", "out", "__pycache__"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    settings = {"RLHF_SCALE": "tiny", "RLHF_ENGINE": "builtin", "RLHF_OUT": str(folder / "out")}
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
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=LAUNCH)
        yield chromium
        chromium.close()


@pytest.fixture
def lab(browser, server, request):
    """Opens a notebook of the course in JupyterLab: `lab("01_install.ipynb")` gives the page."""
    address, _ = server
    pages = []

    def open_notebook(name: str):
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        pages.append(page)
        page.goto(f"{address}/lab/tree/notebooks/{name}?token={TOKEN}&reset")
        idle(page)
        page.wait_for_timeout(2000)  # the first "idle" may be from before the kernel was asked anything
        return page

    yield open_notebook
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages):
        page.screenshot(path=SCREENSHOTS / f"{request.node.name}_{number}.png")
        page.close()


def idle(page, seconds: float = 120) -> None:
    """Wait until the kernel has nothing to do."""
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=1000 * seconds)


def run_all(page) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('li[data-command="runmenu:run-all"]').click()
