"""`python -m helpers` and `make`, as a person calls them."""

import shutil
import subprocess
import sys

import pytest
from common import ASSETS, ROOT, hub_repositories, needs_assets, write_reviews

from helpers import assets
from helpers.tiny import TINY


def test_doctor_is_content_here(cli):
    result = cli("doctor")
    assert result.returncode == 0, result.stdout
    for line in ("OK  Python", "OK  torch", "OK  engine          built-in PPO", "Everything needed is here."):
        assert line in result.stdout


def test_doctor_where_nothing_is_installed(cli):
    result = cli("doctor", python=(sys.executable, "-S"))  # without site-packages
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "OK    Python" in result.stdout
    assert "FAIL  torch           missing" in result.stdout
    assert "python -m pip install -r requirements.txt" in result.stdout
    assert "need something done." in result.stdout


def test_run_where_nothing_is_installed(cli):
    result = cli("run", python=(sys.executable, "-S"))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "is missing: `make course`, or README.md" in result.stderr


@pytest.mark.parametrize(
    "env, message",
    [
        ({"RLHF_SCALE": "huge"}, "RLHF_SCALE is 'huge': expected tiny or full"),
        ({"RLHF_BUDGET": "none"}, "RLHF_BUDGET is 'none'"),
        ({"RLHF_ENGINE": "magic"}, "RLHF_ENGINE is 'magic'"),
        ({"RLHF_SCALE": "full", "RLHF_ASSETS": "no-such-folder"}, "no-such-folder is not a folder"),
    ],
)
def test_a_wrong_setting_is_one_message(cli, env, message):
    result = cli("run", **env)
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("fly",), ("train",), ("prefetch",), ("publish", "a/b", "--unpublish")]
)
def test_wrong_arguments_show_the_usage(cli, arguments):
    result = cli(*arguments)
    assert result.returncode == 2 and "usage: python -m helpers" in result.stderr


def test_publish_refuses_what_is_no_repository(cli):
    result = cli("publish", "nowhere")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "'nowhere' is not a GitHub repository" in result.stderr


def test_unknown_notebook(cli):
    result = cli("notebooks", "99_none.ipynb")
    assert result.returncode == 2 and "no notebook is called 99_none.ipynb: there are 01_" in result.stderr


# prefetch


def test_prefetch_fills_a_folder_from_the_hub(cli, hub, tmp_path):
    write_reviews(tmp_path / "imdb" / "plain_text")
    address = hub(hub_repositories(tmp_path / "imdb"))
    target = tmp_path / "usb"
    first = cli("prefetch", target, HF_ENDPOINT=address)
    assert first.returncode == 0, first.stderr
    assert "gpt2-imdb: fetching lvwerra/gpt2-imdb" in first.stdout and f"RLHF_ASSETS={target}" in first.stdout
    assert assets.check_assets(target) == target
    names = {path.name for path in target.iterdir()} | {path.name for path in (target / "imdb").iterdir()}
    assert names == {*assets.MODELS, "imdb", "plain_text"}

    whole = (target / "gpt2" / "model.safetensors").read_bytes()
    (target / "gpt2" / "model.safetensors").write_bytes(whole[:100])  # a copy that was cut short
    shutil.rmtree(target / "imdb")
    again = cli("prefetch", target, HF_ENDPOINT=address)
    assert "gpt2: fetching" in again.stdout and "gpt2-imdb: already there" in again.stdout
    assert "imdb/plain_text: fetching" in again.stdout and again.returncode == 0, again.stderr
    assert (target / "gpt2" / "model.safetensors").read_bytes() == whole


def test_prefetch_without_a_network(cli, tmp_path):
    result = cli("prefetch", tmp_path / "usb", HF_ENDPOINT="http://127.0.0.1:9")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "gpt2 has to come from huggingface.co, which does not answer" in result.stderr
    assert not (tmp_path / "usb").exists()


def test_prefetch_keeps_what_it_has_when_the_hub_lacks_a_part(cli, hub, tmp_path):
    repositories = hub_repositories(tmp_path)
    del repositories["models/lvwerra/gpt2-imdb"]
    result = cli("prefetch", tmp_path / "usb", HF_ENDPOINT=hub(repositories))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "gpt2-imdb could not be fetched from huggingface.co (lvwerra/gpt2-imdb)" in result.stderr
    assert [path.name for path in (tmp_path / "usb").iterdir()] == ["gpt2"]


@needs_assets
def test_prefetch_leaves_a_complete_folder_alone(cli):
    result = cli("prefetch", ASSETS, HF_ENDPOINT="http://127.0.0.1:9")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("already there") == 4


# make


def make(*arguments):
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_plain_make_lists_the_targets():
    result = make()
    for target in ("course", "test", "lab", "notebooks", "lint", "publish", "tiny", "clean"):
        assert f"  make {target} " in result.stdout


def test_make_refuses_other_pythons(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in ("requirements.txt", "tests/requirements.txt", "constraints.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    old = tmp_path / "python3.10"  # what matters of an old Python: it says no to the question for its version
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = subprocess.run(
        ["make", f"PYTHON={old}", "course"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode != 0
    assert (
        "The course needs Python 3.11, 3.12 or 3.13" in result.stdout
        and "make PYTHON=python3.13 course" in result.stdout
    )
    assert not (tmp_path / ".venv").exists()


# prefetch deletes nothing


@pytest.fixture
def usb(tmp_path):
    """A complete assets folder, of our tiny models under the real names."""
    write_reviews(tmp_path / "usb" / "imdb" / "plain_text")
    for name, folder in {
        "gpt2": "gpt2",
        "gpt2-imdb": "gpt2-reviews",
        "distilbert-imdb": "distilbert-reviews",
    }.items():
        shutil.copytree(TINY / folder, tmp_path / "usb" / name)
    return tmp_path / "usb"


@pytest.mark.parametrize(
    "file, damage",
    [
        ("model.safetensors", 1000),
        ("config.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("model.safetensors", b""),
    ],
)
def test_prefetch_renames_what_it_cannot_load(cli, hub, usb, file, damage):
    address = hub(hub_repositories(usb / "imdb"))
    path = usb / "gpt2" / file
    path.write_bytes(path.read_bytes()[:damage] if isinstance(damage, int) else damage)
    (usb / "gpt2" / "notes.txt").write_text("mine")
    before = path.read_bytes()
    result = cli("prefetch", usb, HF_ENDPOINT=address)
    assert result.returncode == 0, result.stderr
    assert "gpt2: could not be loaded" in result.stdout and "gpt2.damaged-1 now" in result.stdout
    assert (usb / "gpt2.damaged-1" / file).read_bytes() == before
    assert (usb / "gpt2.damaged-1" / "notes.txt").read_text() == "mine"
    assert (usb / "gpt2" / "model.safetensors").read_bytes() == (TINY / "gpt2/model.safetensors").read_bytes()


def test_prefetch_adds_what_a_folder_lacks_and_leaves_the_rest(cli, hub, usb):
    (usb / "gpt2" / "tokenizer.json").unlink()
    (usb / "gpt2" / "notes.txt").write_text("mine")
    (usb / "imdb" / "plain_text" / "test-00000-of-00001.parquet").unlink()
    (usb / "imdb" / "plain_text" / "mine.parquet").write_text("mine")
    write_reviews(usb.parent / "imdb" / "plain_text")
    result = cli("prefetch", usb, HF_ENDPOINT=hub(hub_repositories(usb.parent / "imdb")))
    assert result.returncode == 0, result.stderr
    assert (usb / "gpt2" / "tokenizer.json").exists() and (usb / "gpt2" / "notes.txt").read_text() == "mine"
    assert (usb / "imdb" / "plain_text" / "mine.parquet").read_text() == "mine"


def test_prefetch_takes_nothing_for_damaged_where_a_package_is_lacking(cli, usb, tmp_path):
    """A package that cannot be imported, put before the real one, as where memory or a library is lacking."""
    for package, error in [
        ("tokenizers", "ImportError('no tokenizers here')"),
        ("safetensors", "MemoryError()"),
    ]:
        stub = tmp_path / f"without_{package}"
        stub.mkdir()
        (stub / "sitecustomize.py").write_text(LACKING.format(package=package, error=error))
        result = cli("prefetch", usb, HF_ENDPOINT="http://127.0.0.1:9", PYTHONPATH=str(stub))
        assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
        assert "could not be loaded, and may be whole" in result.stderr and "It is as it was" in result.stderr
        assert (
            not list(usb.glob("*.damaged-*")) and (usb / "gpt2" / "model.safetensors").stat().st_size > 1000
        )


LACKING = """
import sys
def hook(event, arguments):
    if event == "import" and arguments[0].split(".")[0] == "{package}" and "helpers" in sys.modules:
        raise {error}
sys.addaudithook(hook)
"""


@pytest.mark.parametrize("kind", ["file", "link"])
def test_prefetch_refuses_a_place_that_is_no_folder(cli, hub, usb, kind):
    shutil.rmtree(usb / "gpt2")
    (usb / "gpt2").write_text("mine") if kind == "file" else (usb / "gpt2").symlink_to(usb / "none")
    result = cli("prefetch", usb, HF_ENDPOINT=hub(hub_repositories(usb / "imdb")))
    assert result.returncode == 2 and "Traceback" not in result.stderr and "fetching" not in result.stdout
    assert "is no folder" in result.stderr or "is a link to" in result.stderr


def test_nothing_is_sent_home(cli, hub, tmp_path):
    """What the hub is told of us from the first request on: no telemetry, no token, no count of downloads."""
    write_reviews(tmp_path / "imdb" / "plain_text")
    requests = []
    address = hub(hub_repositories(tmp_path / "imdb"), requests)
    result = cli("prefetch", tmp_path / "usb", HF_ENDPOINT=address, HF_TOKEN="secret")
    assert result.returncode == 0, result.stderr
    assert len(requests) > 10
    for path, headers in requests:
        headers = {name.lower(): value for name, value in headers.items()}
        # without telemetry the hub's client names itself, and neither Python nor torch; datasets always names those
        agent = headers["user-agent"]
        assert agent.startswith("datasets/") or "hf_hub/" in agent and "torch/" not in agent, (path, headers)
        assert "secret" not in str(headers) and "authorization" not in headers, (path, headers)
        assert "telemetry" not in path, path
