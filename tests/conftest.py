"""What several tests need: clean settings, the command line, small notebooks, a stand-in for the hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import nbformat
import pytest

from helpers import trlx_install

TRLX_COMMAND = "`make trlx` installs it"
ROOT = Path(__file__).resolve().parent.parent
SHARED_ASSETS = (
    ROOT.parent / "shared" / "assets"
)  # real reviews and small models under the real names, where there are any


def pytest_collection_modifyitems(items):
    """The slowest file first: of two processes the other does the rest meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_run.py")


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
    if request.param == "trlx" and not trlx_install.installed():
        pytest.skip(f"trlX is not installed here: {TRLX_COMMAND}")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PPO_RUN_ENGINE", request.param)
        yield request.param


@pytest.fixture
def cli(tmp_path):
    """`python -m helpers ...` in a fresh process and an empty home, with extra environment variables by keyword."""

    def call(*arguments, python=(sys.executable,), **env):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        return subprocess.run(
            [*python, "-m", "helpers", *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"HOME": str(home), "HF_HOME": str(home / "hf")} | env,
            capture_output=True,
            text=True,
            timeout=1800,
        )

    return call


@pytest.fixture
def make_notebook():
    """Writes a small notebook with the course's badge, Setup cell and the code cells given."""

    def make(path, *sources):
        from helpers.publish import badge_line, setup_cell

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

    def start(repositories):
        handler = type("Handler", (StandInHub,), {"repositories": repositories})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def hub_repositories(imdb):
    """What the course asks the hub for: our tiny models under the real names, and the reviews in `imdb`."""
    from helpers.tiny import TINY

    return {
        "models/openai-community/gpt2": TINY / "gpt2",
        "models/lvwerra/gpt2-imdb": TINY / "gpt2-reviews",
        "models/lvwerra/distilbert-imdb": TINY / "distilbert-reviews",
        "datasets/stanfordnlp/imdb": imdb,
    }


def write_reviews(folder):
    """Four reviews in files named as IMDB's."""
    from datasets import Dataset

    from helpers.course import REVIEW_FILES

    folder.mkdir(parents=True)
    rows = {"train": [{"text": "Bad.", "label": 0}] * 3, "test": [{"text": "I liked it.", "label": 1}]}
    for split, file in REVIEW_FILES.items():
        Dataset.from_list(rows[split]).to_parquet(folder / Path(file).name)


class StandInHub(BaseHTTPRequestHandler):
    """As much of the hub's interface as from_pretrained and load_dataset use to fetch a repository's files."""

    protocol_version = "HTTP/1.1"
    repositories: dict[str, Path]
    commit = "0" * 40

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = unquote(urlsplit(self.path).path).strip("/")
        for name, folder in self.repositories.items():
            address = name.removeprefix(
                "models/"
            )  # files of models lie under no prefix, files of data sets under datasets/
            if path.startswith(f"{address}/resolve/"):
                return self.send_file(folder / path.removeprefix(f"{address}/resolve/").partition("/")[2])
            if f"{path}/".startswith(f"api/{name}/"):
                return self.send_listing(name, folder, path.removeprefix(f"api/{name}").strip("/"), body)
        self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_POST = do_GET

    def send_file(self, file):
        if not file.is_file():
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit})
        data = file.read_bytes()
        self.send(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.commit})

    def send_listing(self, name, folder, question, body):
        what, _, rest = question.partition("/")
        files = [path for path in folder.rglob("*") if path.is_file()]
        if what == "tree":
            top = folder / rest.partition("/")[2]
            if not top.is_dir():
                return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            listed = top.rglob("*") if "recursive=true" in self.path.lower() else top.iterdir()
            answer = [self.entry(folder, path) for path in sorted(listed)]
        elif what == "paths-info":
            asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            answer = [self.entry(folder, folder / path) for path in asked if (folder / path).exists()]
        else:
            siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
            answer = {
                "_id": "0",
                "id": name.partition("/")[2],
                "sha": self.commit,
                "siblings": siblings,
                "tags": [],
            }
        self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def entry(self, folder, path):
        kind = {"type": "file", "size": path.stat().st_size} if path.is_file() else {"type": "directory"}
        return kind | {"path": path.relative_to(folder).as_posix(), "oid": "0" * 40}

    def send(self, status, data, headers):
        self.send_response(status)
        for header in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(*header)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass
