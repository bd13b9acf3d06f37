"""The words about each field of a configuration, and the command that prints them: `python -m helpers config`."""

import json
import pydoc
import re
from dataclasses import fields
from types import SimpleNamespace

import pytest
import yaml
from common import ROOT, TRLX_COMMAND
from ppo_run import PROMPTS

from helpers import config_cli, course, engine
from helpers.engine import TRLConfig, default_ppo_config
from helpers.ppo.config import check
from helpers.ppo.fields import METHODS, SECTIONS, WORDS, PPOConfig
from helpers.real_trlx import install
from helpers.tiny import TINY

# (section, class, field) of every field that a configuration can have
FIELDS = [
    (name, kind.__name__, f.name)
    for name, section in SECTIONS.items()
    for kind in (METHODS.values() if name == "method" else [section])
    for f in fields(kind)
]
DEFAULTS = {kind: default() for kind, default in zip(METHODS, config_cli.DEFAULTS.values(), strict=True)}
ENDING = re.compile(
    r"(Unit: (?P<unit>[^.]+)\. )?Default: (?P<value>.+) \((trlX's|the course's; trlX's is \w+|the course's; trlX has none)\)\.$"
)


def words_of(section, name):
    """A field's words in one line; of a method, PPO's."""
    kind = PPOConfig if section == "method" else SECTIONS[section]
    return " ".join(WORDS[kind.__name__][name].split())


@pytest.mark.parametrize("section, kind, name", FIELDS)
def test_every_field_says_what_it_does_its_unit_and_its_true_default(section, kind, name):
    words = " ".join(WORDS[kind][name].split())
    ending = ENDING.search(words)
    assert ending and len(words[: ending.start()]) > 20, words
    config = DEFAULTS.get(kind, default_ppo_config())
    default = json.loads(json.dumps(config.to_dict()[section].get(name)))
    assert yaml.safe_load(ending["value"]) == default
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        assert ending["unit"], f"{section}.{name} is a number without a unit"


def test_what_is_ignored_or_refused_says_so():
    """The fields that nothing of ours reads, and those that `check` refuses to see changed."""
    for name in ("trainer_kwargs", "save_optimizer"):
        assert "Ignored here" in words_of("train", name), name
    for place in ("tokenizer.truncation_side", "method.ref_mean"):
        assert "Ignored here" in words_of(*place.split(".")), place
    refused = (
        "model.model_arch_type tokenizer.padding_side train.pipeline train.trainer train.rollout_logging_dir"
    )
    for place in f"{refused} method.num_value_layers_unfrozen method.name".split():
        assert "engine refuses" in words_of(*place.split(".")), place


def test_the_papers_are_linked():
    for name, paper in {
        "init_kl_coef": "1909.08593",
        "target": "1909.08593",
        "lam": "1506.02438",
        "cliprange": "1707.06347",
    }.items():
        assert f"https://arxiv.org/abs/{paper}" in words_of("method", name)
    assert "https://arxiv.org/abs/2106.09685" in words_of("model", "peft_config")


def test_help_shows_the_words():
    for kind in METHODS:
        shown = pydoc.render_doc(getattr(engine, kind), renderer=pydoc.plaintext)
        for name, words in WORDS[kind].items():
            assert f"{name}: {words.splitlines()[0]}" in shown


def test_the_horizon_s_arithmetic():
    """What the words about `horizon` say of notebook 06's tiny run, and of a horizon of 200."""
    from helpers.ppo.loss import next_kl_coef

    passes = 160 // (2 * 128 // 32) * 2
    beta = 1.0
    for _ in range(passes):
        beta = next_kl_coef(beta, kl=100.0, target=6.0, horizon=10000, n_steps=32)
    assert passes == 40 and 1.02 < beta < 1.03
    assert next_kl_coef(1.0, kl=100.0, target=6.0, horizon=200, n_steps=32) == pytest.approx(1.032)


@pytest.fixture(params=["tiny", "full"])
def printed(request, tmp_path, monkeypatch, capsys):
    """(scale, file): what the command prints at that scale."""
    monkeypatch.chdir(ROOT)
    config_cli.main(request.param)
    path = tmp_path / "ppo.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return request.param, path


def test_every_key_stands_below_its_words(printed):
    scale, path = printed
    text = path.read_text(encoding="utf-8")
    assert text.isascii() and str(ROOT) not in text
    for section, kind, name in FIELDS:
        if kind in ("RLOOConfig", "GRPOConfig"):
            continue
        comment = "\n".join(f"  # {line}" for line in WORDS[kind][name].splitlines())
        line = "# max_grad_norm: null" if name == "max_grad_norm" else f"{name}:"  # trlX does not know it
        assert f"{comment}\n  {line}" in text, f"{section}.{name}"
    assert max(len(line) for line in text.splitlines() if "#" in line) <= 110
    assert f"python -m helpers config --scale {scale} > ppo.yaml" in text


def test_the_file_gives_back_exactly_that_configuration(printed, recwarn):
    scale, path = printed
    loaded = TRLConfig.load_yaml(path)
    assert loaded == config_cli.notebook_config(scale)
    check(loaded)
    assert not recwarn.list
    assert type(loaded.optimizer.kwargs["lr"]) is type(loaded.scheduler.kwargs["T_max"]) is float


def test_it_is_what_notebook_06_trains_with(printed):
    """The notebook's own cell, run with a stand-in for `here`, gives the same but for the folder of checkpoints."""
    scale, path = printed
    notebook = json.loads((ROOT / "notebooks/06_train.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (source,) = [source for source in sources if "config = trlx.default_ppo_config().evolve(" in source]
    loaded = TRLConfig.load_yaml(path)
    model = loaded.model.model_path
    here = SimpleNamespace(
        scale=scale,
        finetuned_model=model,
        steps=lambda n: n,
        out=course.results() / scale,
        device="cuda" if course.has_gpu() else "cpu",
    )
    names = {"here": here, "trlx": engine}
    exec(source, names)
    assert model == ("lvwerra/gpt2-imdb" if scale == "full" else "helpers/tiny/gpt2-reviews")
    theirs = names["config"].evolve(train=dict(checkpoint_dir=loaded.train.checkpoint_dir))
    assert json.loads(str(theirs)) == loaded.to_dict()


def test_a_folder_of_assets_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_ASSETS", str(tmp_path))
    assert config_cli.notebook_config("full").model.model_path == str(tmp_path / "gpt2-imdb")
    assert config_cli.notebook_config("tiny").model.model_path.endswith("gpt2-reviews")


@pytest.mark.skipif(not install.installed(), reason=f"trlX is not installed here: {TRLX_COMMAND}")
def test_trlx_loads_the_file(printed):
    from helpers.real_trlx.train import TrlxConfig

    theirs = TrlxConfig.load_yaml(str(printed[1]))
    assert theirs.to_dict() == TRLConfig.load_yaml(printed[1]).to_dict()


@pytest.mark.parametrize("method, kind", [("rloo", "RLOOConfig"), ("grpo", "GRPOConfig")])
def test_another_method_s_file(method, kind, tmp_path, monkeypatch, capsys, recwarn):
    monkeypatch.chdir(ROOT)
    config_cli.main("tiny", method)
    text = capsys.readouterr().out
    assert f"python -m helpers config --scale tiny --method {method} > {method}.yaml" in text
    for name, words in WORDS[kind].items():
        comment = "\n".join(f"  # {line}" for line in words.splitlines())
        assert f"{comment}\n  {name}:" in text, name
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = TRLConfig.load_yaml(path)
    assert loaded == config_cli.notebook_config("tiny", method) and loaded.method.name == kind
    check(loaded)
    assert max(len(line) for line in text.splitlines() if "#" in line) <= 110 and not recwarn.list


def test_train_takes_what_config_prints(cli, tmp_path):
    done = cli("config", "--scale", "tiny")
    assert done.returncode == 0, done.stderr
    shorter = done.stdout
    for key, value in {"total_steps": 2, "num_rollouts": 32, "chunk_size": 32}.items():
        shorter, count = re.subn(rf"^  {key}: .*$", f"  {key}: {value}", shorter, flags=re.MULTILINE)
        assert count == 1
    config, prompts = tmp_path / "ppo.yaml", tmp_path / "prompts.txt"
    config.write_text(shorter)
    prompts.write_text("\n".join(PROMPTS))
    arguments = ("--config", config, "--prompts", prompts, "--reward", TINY / "distilbert-reviews")
    done = cli("train", *arguments, "--out", tmp_path / "tuned")
    assert done.returncode == 0, done.stderr
    assert "2 steps in" in done.stdout and (tmp_path / "tuned" / "model.safetensors").is_file()


def test_a_scale_that_is_none(cli):
    done = cli("config", "--scale", "huge")
    assert done.returncode == 2 and "invalid choice: 'huge'" in done.stderr
