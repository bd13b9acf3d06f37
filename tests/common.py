"""What several tests import: places, and a stand-in for the hub. (What they ask for by argument is in conftest.py.)"""

import hashlib
import json
import os
import re
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What `RLHF_ASSETS=DIR make test` names: reviews and models as `python -m helpers prefetch DIR` puts them. The tests by themselves
# run without it (conftest.py).
ASSETS = Path(os.environ["RLHF_ASSETS"]).resolve() if os.environ.get("RLHF_ASSETS") else None
needs_assets = pytest.mark.skipif(
    ASSETS is None,
    reason="full scale takes half an hour more: RLHF_ASSETS=DIR make test, where prefetch filled DIR",
)
TRLX_COMMAND = "`make trlx` installs it"


def fork() -> int:
    """os.fork; on Windows, which has none, the test is skipped."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    return os.fork()


def metadata_of(name, version, *requires):
    """What a package says of itself."""
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"


def write_wheel(folder, name, version, requires=(), tag="py3-none-any", module=None):
    """A wheel with what pip reads, and the module `name` where its text is given; returns its path."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": metadata_of(name, version, *requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if module is not None:
        files[f"{name}.py"] = module
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return path


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

    from helpers.assets import REVIEW_FILES

    folder.mkdir(parents=True)
    rows = {"train": [{"text": "Bad.", "label": 0}] * 3, "test": [{"text": "I liked it.", "label": 1}]}
    for split, file in REVIEW_FILES.items():
        Dataset.from_list(rows[split]).to_parquet(folder / Path(file).name)


class StandInHub(BaseHTTPRequestHandler):
    """As much of the hub's interface as from_pretrained and load_dataset use to fetch a repository's files."""

    protocol_version = "HTTP/1.1"
    repositories: dict[str, Path]
    requests: list[tuple[str, dict]]  # what was asked, with which headers

    def do_GET(self):
        self.requests.append((self.path, dict(self.headers)))
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

    @property
    def commit(self):
        """The commit that was asked for, as if it were here; else one of zeros."""
        asked = re.search(r"/(?:resolve|revision|tree)/([0-9a-f]{40})", unquote(self.path))
        return asked[1] if asked else "0" * 40

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


def known(check, answers: list[tuple[object, str]]) -> list[tuple]:
    """Answers to one exercise with words of the sentence for each, as tests/answers_*.py collect them."""
    return [(check, answer, words) for answer, words in answers]
