"""A real browser on JupyterLab and on classic Notebook: `make test-browser`. Needs Chromium (Debian's package) beside what that installs."""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from in_page import ClassicPage, LabPage, Reader

ROOT = Path(__file__).resolve().parents[2]
CLASSIC = ROOT / ".venv-classic" / "bin" / "python"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(os.environ.get("SCREENSHOTS", ROOT / "out" / "screenshots"))
TOKEN = "reader"
LAUNCH = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
LAUNCH += ["--disable-component-update", "--disable-sync", "--no-first-run"]
COURSE = {"RLHF_SCALE": "tiny", "RLHF_ENGINE": "builtin", "RLHF_BUDGET": "0.3", "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def serving(command: list[str], folder: Path, **env):
    """Start a notebook server on a copy of the course; gives its address and the copy's folder."""
    course = folder / "course"
    shutil.copytree(ROOT, course, ignore=shutil.ignore_patterns(".*", "out", "__pycache__"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    env = os.environ | own | COURSE | {"RLHF_OUT": str(folder / "out")} | env
    command = [*command, "--no-browser", "--allow-root", f"--port={port}"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=course)
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
    raise RuntimeError(f"the notebook server did not start:\n{log.read_text()[-2000:]}")


def cannot_run(reason: str) -> None:
    """Skip with a reason at a reader's; fail where CI=true, so that nothing counts as tested that was not."""
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(reason)
    pytest.fail(f"{reason}. Where CI={os.environ['CI']} this is no reason to skip.", pytrace=False)


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # else cells out of sight are not in the page
    command = [sys.executable, "-m", "jupyter", "lab", f"--IdentityProvider.token={TOKEN}"]
    with serving(command, folder, JUPYTERLAB_SETTINGS_DIR=str(folder / "settings")) as server:
        yield server


@pytest.fixture(scope="session")
def classic_server(tmp_path_factory):
    if not CLASSIC.exists():
        cannot_run("classic Notebook is missing: `make test-browser` installs it")
    command = [str(CLASSIC), "-m", "notebook", f"--NotebookApp.token={TOKEN}"]
    with serving(command, tmp_path_factory.mktemp("classic")) as server:
        yield server


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        cannot_run("no Chromium on this machine: `apt install chromium`")
    if importlib.util.find_spec("playwright") is None:
        cannot_run("Playwright is missing: `make test-browser` installs it")
    from playwright.sync_api import sync_playwright

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=LAUNCH)
        yield chromium
        chromium.close()


@pytest.fixture(params=["lab", "classic"])
def server(browser, request):
    """The kind of page, the server's address, and its copy of the course: JupyterLab, then classic Notebook."""
    kind = {"lab": LabPage, "classic": ClassicPage}[request.param]
    return kind, *request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def open_notebook(browser, server, request):
    """`open_notebook("01_install.ipynb", by="keyboard")` gives a Reader at that notebook; a screenshot is kept at the end."""
    kind, address, _ = server
    readers = []

    def open_it(name: str, by: str = "keyboard") -> Reader:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        reader = Reader(kind(page), by)
        readers.append(reader)
        page.goto(address + kind.path.format(name=name, token=TOKEN))
        reader.front_end.wait_until_ready()
        return reader

    yield open_it
    for number, reader in enumerate(readers):
        if not reader.page.is_closed():
            shoot(reader, request, f"end_{number}")
            reader.page.close()


@pytest.fixture
def screenshot(request):
    """`screenshot(reader, "words")` keeps a picture of the page as it stands."""
    return lambda reader, what: shoot(reader, request, what)


def shoot(reader: Reader, request, what: str) -> None:
    name = request.node.name.removeprefix("test_").replace("[", "_").replace("]", "")
    reader.page.screenshot(path=SCREENSHOTS / f"{name}_{what}.png")
