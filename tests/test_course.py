"""Settings, scales and where things come from; every message a wrong setting gets."""

import ast
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest
from common import ASSETS, ROOT, hub_repositories, needs_assets, write_reviews

from helpers import assets, course, doctor, packages, reviews, settings
from helpers.errors import CourseError
from helpers.tiny import TINY

# Colab's packages in August 2026, as listed by googlecolab/backend-info.
COLAB = {
    "torch": "2.11.0+cu128",
    "transformers": "5.15.0",
    "accelerate": "1.14.0",
    "datasets": "4.0.0",
    "numpy": "2.1.3",
    "matplotlib": "3.10.0",
    "ipywidgets": "7.7.1",
    "ipykernel": "6.17.1",
}


def python(code, **env):
    """Run code in a fresh Python, for what is decided when a library is first imported."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
    )


def empty_assets(folder, without=None):
    """An assets folder whose files are all there, less one, and all empty."""
    models = [
        f"{name}/{file}"
        for name in assets.MODELS
        for file in ("config.json", "model.safetensors", "tokenizer.json")
    ]
    for part in {*models, *assets.REVIEW_FILES.values()} - {without}:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).touch()
    return folder


# Choosing a scale


def test_tiny_is_chosen_where_there_is_no_gpu(monkeypatch):
    monkeypatch.delenv("RLHF_SCALE")
    if course.has_gpu():
        pytest.skip("this machine has a GPU")
    assert course.choose_scale() == ("tiny", None)


@pytest.mark.parametrize("answers, scale", [(True, "full"), (False, "tiny")])
def test_with_a_gpu_it_depends_on_the_hub(monkeypatch, answers, scale):
    monkeypatch.delenv("RLHF_SCALE")
    monkeypatch.setattr(course, "has_gpu", lambda: True)
    monkeypatch.setattr(assets, "hub_answers", lambda: answers)
    assert course.choose_scale() == (scale, None)


def test_unknown_scale(monkeypatch):
    monkeypatch.setenv("RLHF_SCALE", "huge")
    with pytest.raises(CourseError, match="RLHF_SCALE is 'huge': expected tiny or full"):
        course.start()


def test_assets_mean_full_scale_unless_tiny_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_ASSETS", str(empty_assets(tmp_path)))
    assert course.choose_scale() == ("tiny", None)
    for scale in ("full", ""):
        monkeypatch.setenv("RLHF_SCALE", scale)
        assert course.choose_scale() == ("full", tmp_path)


def test_relative_settings_count_from_the_top_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert course.from_root("../shared/assets") == ROOT.parent / "shared/assets"


# Assets with something wrong


@pytest.mark.parametrize(
    "part",
    [
        "gpt2/config.json",
        "gpt2-imdb/tokenizer.json",
        "distilbert-imdb/model.safetensors",
        *assets.REVIEW_FILES.values(),
    ],
)
def test_missing_part(monkeypatch, tmp_path, part):
    monkeypatch.setenv("RLHF_SCALE", "full")
    monkeypatch.setenv("RLHF_ASSETS", str(empty_assets(tmp_path, without=part)))
    with pytest.raises(CourseError) as error:
        course.start()
    message = str(error.value)
    assert f"RLHF_ASSETS={tmp_path} lacks {part}. Expected" in message
    assert (
        "DIR/gpt2/" in message
        and "DIR/imdb/plain_text/" in message
        and "python -m helpers prefetch DIR" in message
    )


def test_assets_that_are_no_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("RLHF_SCALE")
    monkeypatch.setenv("RLHF_ASSETS", str(tmp_path / "none"))
    with pytest.raises(CourseError, match="none is not a folder. Expected"):
        course.start()


@pytest.mark.parametrize(
    "file, change",
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
        ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "elsewhere"}),
    ],
)
def test_assets_that_would_run_code_or_lead_elsewhere_are_refused(monkeypatch, tmp_path, file, change):
    """A folder from somebody's USB stick: notebooks hand its models to transformers as they are."""
    write_reviews(tmp_path / "imdb" / "plain_text")
    for name, tiny in {
        "gpt2": "gpt2",
        "gpt2-imdb": "gpt2-reviews",
        "distilbert-imdb": "distilbert-reviews",
    }.items():
        shutil.copytree(TINY / tiny, tmp_path / name)
    monkeypatch.setenv("RLHF_SCALE", "full")
    monkeypatch.setenv("RLHF_ASSETS", str(tmp_path))
    assert course.start().assets == tmp_path
    path = tmp_path / "gpt2-imdb" / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | change))
    with pytest.raises(CourseError, match="gpt2-imdb in RLHF_ASSETS"):
        course.start()


def test_models_in_several_files_count(tmp_path):
    empty_assets(tmp_path, without="gpt2/model.safetensors")
    (tmp_path / "gpt2/model-00001-of-00002.safetensors").touch()
    assert assets.missing_parts(tmp_path) == []


# The network


@pytest.mark.parametrize(
    "env", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}], ids=["no network", "offline"]
)
def test_full_scale_without_a_network(tmp_path, env):
    result = python(
        "from helpers import course; course.start()", RLHF_SCALE="full", HF_HOME=str(tmp_path), **env
    )
    assert (
        "RLHF_SCALE=full needs models and reviews from huggingface.co, which does not answer" in result.stderr
    )
    assert "RLHF_ASSETS" in result.stderr and "RLHF_SCALE=tiny" in result.stderr


def test_a_hub_that_never_replies_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, says nothing
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        result = python("from helpers import assets; print(assets.hub_answers(1))", HF_ENDPOINT=address)
    assert result.stdout == "False\n"


def test_full_scale_from_the_hub(hub, tmp_path):
    """The real calls: hub ids through from_pretrained and load_dataset; and again without a network, from the cache."""
    write_reviews(tmp_path / "imdb" / "plain_text")
    address = hub(hub_repositories(tmp_path / "imdb"))
    code = """
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from helpers import course, reviews
here = course.start()
print(here.base_model, here.finetuned_model, here.reward_model)
for name in (here.base_model, here.finetuned_model):
    AutoModelForCausalLM.from_pretrained(name)
AutoModelForSequenceClassification.from_pretrained(here.reward_model)
AutoTokenizer.from_pretrained(here.base_model)
print(reviews.load_reviews(here, "train").num_rows, reviews.load_reviews(here, "test")[0])
"""
    env = {"RLHF_SCALE": "full", "HF_HOME": str(tmp_path / "hf")}
    for endpoint in (address, "http://127.0.0.1:9"):
        result = python(code, HF_ENDPOINT=endpoint, **env)
        # at the commits that the course names
        for model, revision in assets.REVISIONS.items():
            if revision != "main" and model != assets.REVIEWS:
                folder = f"models--{model.replace('/', '--')}/snapshots/{revision}"
                assert folder in result.stdout, result.stderr
        assert "3 {'text': 'I liked it.', 'label': 1}" in result.stdout, result.stderr


def test_tiny_scale_never_touches_the_network():
    code = """
import socket
def refuse(self, address):
    raise AssertionError(f"asked the network: {address}")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = lambda *a, **k: refuse(None, a)
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
from helpers import course, reviews
here = course.start()
reviews.make_prompts(here)
AutoTokenizer.from_pretrained(here.base_model)
for name in (here.base_model, here.finetuned_model):
    AutoModelForCausalLM.from_pretrained(name)
print(pipeline("sentiment-analysis", here.reward_model, top_k=2)("a good film"))
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert "POSITIVE" in result.stdout


# Budget, results, paths


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf", "half"])
def test_impossible_budget(monkeypatch, budget):
    monkeypatch.setenv("RLHF_BUDGET", budget)
    with pytest.raises(CourseError, match=f"RLHF_BUDGET is '{budget}': expected a number above 0"):
        course.start()


@pytest.mark.parametrize("budget, steps", [("", 20), ("0.1", 2), ("0.001", 1), ("2", 40)])
def test_budget_shortens_training(monkeypatch, budget, steps):
    monkeypatch.setenv("RLHF_BUDGET", budget)
    assert course.start().steps(20) == steps


def test_start_says_one_line(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_BUDGET", "0.5")
    here = course.start()
    said = capfd.readouterr()
    assert (
        said.out
        == f"Scale tiny · {here.device} · {here.engine} · results in {tmp_path / 'out/tiny'} · budget 0.5\n"
    )
    assert said.err == ""
    assert here.out == tmp_path / "out/tiny" and here.out.is_dir()


# what a terminal may be told to be; with both of the last two, Python does not change the C locale to UTF-8
TERMINALS = {
    "Japanese Windows": ({"PYTHONIOENCODING": "cp932"}, b"?"),
    "Western Windows": ({"PYTHONIOENCODING": "cp1252"}, b"\xb7"),
    "ASCII": ({"PYTHONIOENCODING": "ascii:strict"}, b"?"),
    "the C locale": ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, b"?"),
}


@pytest.mark.parametrize("terminal", TERMINALS)
def test_what_a_terminal_cannot_show_is_replaced(terminal):
    env, dot = TERMINALS[terminal]
    code = "from helpers import course; course.start(); print('\\u2588 \\U0001f3ac')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | env, capture_output=True)
    first, second = done.stdout.splitlines()
    assert first.startswith(b"Scale tiny " + dot) and second == b"? ?", done.stderr.decode("utf-8", "replace")


def test_a_stream_that_is_none_or_has_no_encoding_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as a notebook's, which takes all characters
    monkeypatch.setattr(sys, "stderr", None)  # as without a console on Windows
    course.start()
    assert "·" in sys.stdout.getvalue()


@pytest.mark.parametrize(
    "name, meant",
    [("RLHF_BUGDET", "Did you mean RLHF_BUDGET?"), ("RLHF_COLOUR_MAP", "The settings are RLHF_SCALE,")],
)
def test_a_setting_that_is_none_is_told(monkeypatch, name, meant):
    monkeypatch.setenv(name, "0.1")
    with pytest.warns(UserWarning) as told:
        course.start()
    (message,) = {str(one.message) for one in told if "RLHF" in str(one.message)}
    assert message.startswith(f"{name} is no setting of the course, and has no effect. {meant}")
    (row,) = [row for row in doctor.environment() if row.name == name]
    assert not row.ok and row.advice == message


def test_an_empty_setting_is_unset(monkeypatch):
    for name in ("RLHF_ENGINE", "RLHF_BUDGET", "RLHF_ASSETS"):
        monkeypatch.setenv(name, "")
    here = course.start()
    assert here.budget == 1 and here.assets is None


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, ("tiny", "builtin")),
        ({"RLHF_SCALE": "", "RLHF_ENGINE": ""}, ("tiny", "builtin")),
        ({"RLHF_SCALE": "full"}, ("full", "builtin")),
        ({"RLHF_ENGINE": "trlx"}, ("tiny", "trlx")),
    ],
)
def test_the_setup_cell_says_what_the_environment_does_not(monkeypatch, given, expected):
    for name in ("RLHF_SCALE", "RLHF_ENGINE"):
        monkeypatch.setenv(name, given.get(name, ""))
    monkeypatch.setattr(settings, "_defaults", {})
    settings.set_defaults(scale="tiny", engine="builtin")
    assert (settings.read_scale(), settings.read_engine()) == expected


def test_kaggle_is_not_colab(monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    assert course.on_colab()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")  # its machines are made from Colab's
    assert not course.on_colab()


def test_settings_may_begin_at_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("RLHF_OUT", "~/mine")
    assert course.start().out == tmp_path / "mine" / "tiny"
    monkeypatch.setenv("RLHF_SCALE", "full")
    monkeypatch.setenv("RLHF_ASSETS", "~/usb")
    empty_assets(tmp_path / "usb")
    assert course.choose_scale() == ("full", tmp_path / "usb")
    assert course.from_root("~nobody-of-this-name/x") == ROOT / "~nobody-of-this-name/x"


REFUSED_BY_START = {
    "RLHF_SCALE": ({"RLHF_SCALE": "Tiny"}, "expected tiny or full"),
    "RLHF_SCALE without a hub": ({"RLHF_SCALE": "full", "HF_HUB_OFFLINE": "1"}, "needs models and reviews"),
    "RLHF_ENGINE": ({"RLHF_ENGINE": "TRLX"}, "expected auto, trlx or builtin"),
    "RLHF_BUDGET": ({"RLHF_BUDGET": "10%"}, "expected a number above 0"),
    "RLHF_ASSETS": ({"RLHF_SCALE": "full", "RLHF_ASSETS": "none"}, "is not a folder"),
    "RLHF_ASSETS, a part": (
        {"RLHF_SCALE": "full", "RLHF_ASSETS": "helpers"},
        "lacks distilbert-imdb/config.json",
    ),
    "RLHF_OUT, a file": ({"RLHF_OUT": "README.md"}, "Results cannot be written to"),
    "RLHF_OUT, in a file": ({"RLHF_OUT": "README.md/out"}, "Results cannot be written to"),
    "RLHF_OUT, too long": ({"RLHF_OUT": "x" * 300}, "File name too long"),
    "RLHF_FIGURES": ({"RLHF_FIGURES": "large"}, "expected projector"),
    "RLHF_OUT, not writable": ({"RLHF_OUT": "/proc/mine"}, "Set RLHF_OUT to a folder you can write to"),
}


@pytest.mark.parametrize("case", REFUSED_BY_START)
def test_the_doctor_shows_what_a_start_refuses(cli, case):
    env, message = REFUSED_BY_START[case]
    start = python("from helpers import course; course.start()", **env)
    assert start.returncode == 1 and message in start.stderr
    table = cli("doctor", **env)
    name = case.split()[0].rstrip(",")
    (row,) = [line for line in table.stdout.splitlines() if line.startswith(f"FAIL  {name} ")]
    assert message in row and table.returncode == 1 and "Traceback" not in table.stderr


def test_the_doctor_leaves_nothing_behind(monkeypatch, tmp_path):
    (tmp_path / "usb").mkdir()
    monkeypatch.setenv("RLHF_ASSETS", str(tmp_path / "usb"))  # of no use at tiny scale
    rows = {row.name: row for row in doctor.environment()}
    assert rows["RLHF_ASSETS"].ok and rows["RLHF_OUT"].ok and not (tmp_path / "out").exists()


def test_start_seeds():
    import torch

    drawn = []
    for seed in (1, 1, 2):
        course.start(seed)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1] != drawn[2]


def test_unwritable_results(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RLHF_OUT", str(tmp_path / "file"))
    with pytest.raises(
        CourseError, match="Results cannot be written to .*file/tiny.*Set RLHF_OUT to a folder"
    ):
        course.start()


def test_paths_are_shown_from_the_top_folder(tmp_path):
    here = course.start()
    assert here.show_path(ROOT / "out" / "tiny" / "model") == os.path.join("out", "tiny", "model")
    assert here.show_path(tmp_path) == str(tmp_path)


def test_results_are_merged():
    import torch

    here = course.start()
    assert here.load_result() == {}
    here.save_result(kl=torch.tensor(2.5), minutes=1)
    here.save_result(minutes=2, curve_path=ROOT / "out" / "curve.png")
    assert here.load_result() == {"kl": 2.5, "minutes": 2, "curve_path": os.path.join("out", "curve.png")}
    assert {path.name for path in here.out.iterdir()} == {"result.json", ".result.json.lock"}


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A limit on the size of files does what a full disk does: the write fails half-way."""
    target = tmp_path / "result.json"
    code = f"""
import resource, signal
from helpers.files import write_text
write_text({str(target)!r}, "old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_text({str(target)!r}, "new" * 1000)
"""
    result = python(code)
    assert "CourseError" in result.stderr and "could not be written" in result.stderr
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


# Reviews and prompts


def test_clean():
    assert reviews.clean(" One.<br /><br />Two,\n\tthree. ") == "One. Two, three."


def test_tiny_reviews():
    here = course.start()
    train, test = (reviews.load_reviews(here, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (20_000, 2_000)
    assert set(train.column_names) == {"text", "label"} and set(train["label"]) == {0, 1}
    assert not set(train["text"]) & set(test["text"])
    assert reviews.load_reviews(here, "test")["text"] == test["text"]


def test_unknown_split():
    with pytest.raises(CourseError, match="no split 'validation': expected 'train' or 'test'"):
        reviews.load_reviews(course.start(), "validation")


@pytest.mark.parametrize("words", [1, 4, 6])
def test_prompts_do_not_leak(words):
    train, held_out = reviews.make_prompts(course.start(), words=words, n_eval=8)
    assert len(held_out) == 8 and train
    assert len({*train, *held_out}) == len(train) + 8
    assert all(len(prompt.split()) == words for prompt in train + held_out)


def test_prompts_depend_on_the_seed_alone():
    here = course.start()
    assert (
        reviews.make_prompts(here, seed=1)
        == reviews.make_prompts(here, seed=1)
        != reviews.make_prompts(here, seed=2)
    )


@pytest.mark.parametrize("wrong", [{"words": 0}, {"n_eval": 0}])
def test_prompts_of_nothing(wrong):
    with pytest.raises(CourseError, match="must be at least 1"):
        reviews.make_prompts(course.start(), **wrong)


def test_more_prompts_than_there_are():
    with pytest.raises(CourseError, match="n_eval=5000.*only [0-9]+ different ways"):
        reviews.make_prompts(course.start(), n_eval=5000)


@needs_assets
def test_real_reviews(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_SCALE", "full")
    monkeypatch.setenv("RLHF_ASSETS", str(ASSETS))
    here = course.start()
    assert here.reward_model == str(ASSETS / "distilbert-imdb")
    train = reviews.load_reviews(here, "train")
    # all of IMDB, or a sample of it
    assert len(train) in (25_000, 6_000) and set(train["label"]) == {0, 1}
    prompts, held_out = reviews.make_prompts(here)
    assert len(prompts) > 5_000 and len(held_out) == 64
    assert not any("<br" in prompt for prompt in prompts + held_out)


# The environment


def test_environment_rows():
    checks = doctor.environment()
    assert [check.name for check in checks] == [
        *[
            "Python",
            "torch",
            "transformers",
            "datasets",
            "accelerate",
            "ipywidgets",
            "matplotlib",
            "other packages",
        ],
        *["RLHF_SCALE", "RLHF_ENGINE", "RLHF_ASSETS", "RLHF_BUDGET", "RLHF_OUT", "RLHF_FIGURES"],
        *["engine", "device", "memory", "disk"],
    ]
    assert all(check.ok for check in checks if check.name != "memory"), checks


def test_a_package_out_of_range_is_named(monkeypatch, tmp_path):
    (tmp_path / "requirements.txt").write_text("# comment\ntorch>=99,<100\nno-such-package>=1\n")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert doctor.requirements() == {"torch": ">=99,<100", "no-such-package": ">=1"}
    old = doctor.check_package("torch", ">=99,<100")
    assert not old.ok and "wanted >=99,<100: python -m pip install -r requirements.txt" in old.advice
    rest = doctor.check_packages({"numpy": ">=1", "no-such-package": ">=1"})
    assert not rest.ok and "no-such-package (missing)" in rest.advice and "numpy" not in rest.advice


def test_too_little_room_is_said():
    memory, disk = doctor.check_memory(needed=10**6), doctor.check_disk(needed=10**6)
    assert not memory.ok and "close other programs" in memory.advice
    assert not disk.ok and "free some space" in disk.advice


@pytest.mark.parametrize("name", COLAB)
def test_requirements_leave_colab_alone(name):
    assert packages.in_range(COLAB[name], doctor.requirements()[name])


def test_a_version_known_to_be_bad_is_left_out():
    assert not packages.in_range("2.12.0", ">=2.10,!=2.12.0") and packages.in_range(
        "2.12.1", ">=2.10,!=2.12.0"
    )


def test_requirements_forbid_nothing_that_is_newer():
    for name, ranges in doctor.requirements().items():
        assert re.fullmatch(r">=[\d.]+(,!=[\d.]+)*", ranges), name


def test_requirements_name_all_that_is_imported():
    packages = {
        "yaml": "pyyaml",
        "huggingface_hub": "huggingface-hub",
        "jupyter_client": "nbclient",
        "IPython": "ipykernel",
        "PIL": "matplotlib",
        "jupyter_ui_poll": "jupyter-ui-poll",
    }
    imported = set()
    for file in (ROOT / "helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    beside = {"trlx", "peft", "trl", "playwright"}  # looked for, and done without
    outside = imported - set(sys.stdlib_module_names) - {"helpers"} - beside
    assert {packages.get(name, name) for name in outside} <= set(doctor.requirements())


def test_result_is_json(tmp_path):
    here = course.start()
    here.save_result(model_path=here.out / "model")
    assert json.loads((here.out / "result.json").read_text())["model_path"] == str(here.out / "model")
