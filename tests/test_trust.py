"""A configuration or a model that somebody sent runs nothing, fetches nothing and leads nowhere else."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from common import ROOT

from helpers.engine import TRLConfig, default_ppo_config
from helpers.errors import CourseError
from helpers.ppo.config import check
from helpers.ppo.load import load_policy, load_tokenizer
from helpers.rewards import load_reward
from helpers.tiny import TINY

MODELS = {"model": "gpt2-reviews", "tokenizer": "gpt2-reviews", "judge": "distilbert-reviews"}


def load(kind: str, source, /, **settings):
    """What `kind` is loaded by, from `source`, with model_extra_configs or tokenizer_extra_configs."""
    if kind == "judge":
        return load_reward(str(source), "cpu")
    if kind == "model":
        changes = dict(model_path=str(source), num_layers_unfrozen=1, model_extra_configs=settings)
    else:
        changes = dict(tokenizer_path=str(source), tokenizer_extra_configs=settings)
    config = default_ppo_config().evolve(**{kind: changes})
    return (load_policy if kind == "model" else load_tokenizer)(config)


def refused(kind: str, source, /, **settings) -> str:
    """The one sentence with which it is refused."""
    with pytest.raises(CourseError) as error:
        load(kind, source, **settings)
    said = str(error.value)
    assert len(said) < 1200 and "\n" not in said
    return said


@pytest.fixture
def folder(tmp_path):
    """Copies one of the tiny models, with changes to the tables in its files, and code that leaves a mark where it runs."""

    def make(kind: str, **tables):
        place = tmp_path / kind
        shutil.copytree(TINY / MODELS[kind], place)
        for name, changes in tables.items():
            path = place / f"{name}.json"
            table = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(table | changes))
        for name in ("evil.py", "custom_generate/generate.py"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        return place

    yield make
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------ code in a folder

AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModelForCausalLM": "evil.Model",
    "AutoModelForSequenceClassification": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", None],
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("file", ["config", "tokenizer_config", "generation_config"])
@pytest.mark.parametrize("model_type", [None, "evil"])
def test_code_that_a_folder_brings_is_not_run(folder, kind, file, model_type):
    tables = {file: {"auto_map": AUTO_MAP}}
    if model_type:
        tables["config"] = tables.get("config", {}) | {"model_type": model_type}
    place = folder(kind, **tables)
    shutil.rmtree(place / "custom_generate")
    assert f"{file}.json has 'auto_map'" in refused(kind, place)


@pytest.mark.parametrize("kind", MODELS)
def test_a_custom_generate_is_not_run(folder, kind):
    assert "custom_generate" in refused(kind, folder(kind))


@pytest.mark.parametrize("answer", [None, "y\ny\n"])
def test_nobody_is_asked_whether_to_run_it(folder, answer):
    """Asked, transformers takes what stands in the input for the answer."""
    place = folder("model", config={"model_type": "evil", "auto_map": AUTO_MAP})
    shutil.rmtree(place / "custom_generate")
    script = (
        "import sys; from helpers.ppo.config import default_ppo_config as default; from helpers.ppo.load import *\n"
        "for kind, load in [('model', load_policy), ('tokenizer', load_tokenizer)]:\n"
        "    try: load(default().evolve(**{kind: {f'{kind}_path': sys.argv[1]}}))\n"
        "    except ValueError as error: print('REFUSED', type(error).__name__, error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, place],
        **(dict(input=answer) if answer else dict(stdin=subprocess.DEVNULL)),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert run.stdout.count("REFUSED CourseError") == 2, run.stdout + run.stderr
    assert "[y/N]" not in run.stdout + run.stderr


@pytest.mark.parametrize(
    "table",
    [
        {"attn_implementation": "evil/kernel"},
        {"_attn_implementation": "kernels-community/flash-attn2"},
        {"_attn_implementation_internal": "evil/kernel@main:forward"},
        {"attn_implementation": {"": "evil/kernel"}},
        {"attn_implementation": "paged|evil/kernel"},
        {"text_config": {"attn_implementation": "evil/kernel"}},
        {"text_config": [{"_attn_implementation": "evil/kernel"}]},
        {"attn_implementation": "flash_attention_2"},
        {"experts_implementation": "deepgemm"},
        {"quantization_config": {"quant_method": "mxfp4"}},
        {"custom_pipelines": {"sentiment-analysis": {"impl": "evil.Pipeline", "pt": []}}},
        {"configuration_files": ["config.4.0.0.json"]},
        {"transformers_weights": "../model.safetensors"},
    ],
)
@pytest.mark.parametrize("kind", ["model", "judge"])
def test_a_config_that_would_fetch_a_program_or_other_weights(folder, kind, table):
    place = folder(kind, config=table)
    shutil.rmtree(place / "custom_generate")
    assert "config.json has" in refused(kind, place)


def test_flash_attention_is_not_fetched_in_place_of_the_package(monkeypatch):
    """Where flash_attn is missing and the package kernels is there, transformers fetches a program from the hub."""
    from helpers import weights

    for here, kernels, allowed in [(True, False, True), (True, True, False), (False, True, False)]:
        monkeypatch.setattr(weights, "is_flash_attn_2_available", lambda here=here: here)
        monkeypatch.setattr(weights, "is_kernels_available", lambda kernels=kernels: kernels)
        if allowed:
            weights.refuse_attention("flash_attention_2", "it")
        else:
            with pytest.raises(CourseError, match="flash_attn"):
                weights.refuse_attention("flash_attention_2", "it")


# ------------------------------------------------------------------------------------ elsewhere


@pytest.mark.parametrize("kind", ["model", "judge"])
@pytest.mark.parametrize("whole", [True, False])
def test_an_adapter_is_not_followed(tmp_path, kind, whole):
    place = tmp_path / "adapter"
    shutil.copytree(TINY / MODELS[kind], place)
    if not whole:
        (place / "config.json").unlink()
    (place / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(TINY / MODELS[kind]), "peft_type": "LORA"})
    )
    said = refused(kind, place)
    assert "is an adapter for" in said and "merge_and_unload" in said


def test_an_adapter_on_the_hub_is_not_followed(tmp_path, hub):
    place = tmp_path / "adapter"
    shutil.copytree(TINY / "distilbert-reviews", place)
    (place / "config.json").unlink()
    (place / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(TINY / "distilbert-reviews"), "peft_type": "LORA"})
    )
    address = hub({"models/friend/adapter": place, "models/friend/judge": TINY / "distilbert-reviews"})
    script = (
        "from helpers.rewards import load_reward\n"
        "print(len(load_reward('friend/judge', 'cpu')(['A film.'])))\n"
        "load_reward('friend/adapter', 'cpu')\n"
    )
    env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    for offline, said in [("0", "it is an adapter for"), ("1", "cannot be loaded")]:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env=env | {"HF_HUB_OFFLINE": offline},
        )
        assert done.stdout == "1\n" and "CourseError: the judge 'friend/adapter'" in done.stderr, done.stderr
        assert said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["model", "judge"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    "entry", ["absolute", "../outside/model.safetensors", "link", "..\\x", 3, None, ["a"]]
)
def test_an_index_that_names_a_file_elsewhere(tmp_path, kind, file, entry):
    place, outside = tmp_path / "folder", tmp_path / "outside"
    for copy in (place, outside):
        shutil.copytree(TINY / MODELS[kind], copy)
    (place / "model.safetensors").unlink()
    if entry == "absolute":
        entry = str(outside / "model.safetensors")
    if entry == "link":
        (place / "link").symlink_to(outside / "model.safetensors")
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": entry}}
    (place / f"{file}.index.json").write_text(json.dumps(index))
    assert f"{file}.index.json names the file {entry!r}" in refused(kind, place)


def test_a_model_in_shards_and_the_links_of_the_hub_s_cache_load(tmp_path):
    blobs, place = tmp_path / "blobs", tmp_path / "snapshots" / "0"
    shards = load("model", TINY / "gpt2-reviews").base_model
    shards.save_pretrained(blobs, max_shard_size="1MB")
    shutil.copy(TINY / "gpt2-reviews" / "tokenizer.json", blobs)
    place.mkdir(parents=True)
    for path in blobs.iterdir():
        (place / path.name).symlink_to(path)
    assert (place / "model.safetensors.index.json").exists()
    load("model", place)


# ------------------------------------------------------------------------------------ code in a YAML


@pytest.mark.parametrize(
    "key, value",
    [
        ("trust_remote_code", True),
        ("use_kernels", True),
        ("kernel_config", {"RMSNorm": "evil/kernel"}),
        ("allow_all_kernels", True),
        ("code_revision", "main"),
        ("adapter_kwargs", {"_adapter_model_path": "evil"}),
        ("custom_generate", "evil"),
        ("ignore_mismatched_sizes", True),
        ("state_dict", {}),
        ("weights_only", False),
        ("proxies", {"http": "evil:1"}),
        ("mirror", "evil"),
        ("gguf_file", "evil.gguf"),
        ("config", "evil"),
        ("path", "evil"),
        ("source", "evil"),
        ("_from_auto", True),
        ("_name_or_path", "evil"),
        ("output_loading_info", True),
        ("key_mapping", {"a": "b"}),
        ("quantization_config", {"quant_method": "mxfp4"}),
        ("distributed_config", {}),
        ("device_map", {"": "disk"}),
        ("transformers_weights", "evil.safetensors"),
        ("attn_implementation", "evil/kernel"),
        ("attn_implementation", {"": "evil/kernel"}),
        ("subfolder", "../evil"),
        ("subfolder", "/evil"),
        ("revision", "../../evil"),
        ("variant", "x/../../evil"),
        ("local_files_only", "no"),
        ("k" * 10_000, "v"),
    ],
)
@pytest.mark.parametrize("kind", ["model", "tokenizer"])
def test_a_setting_that_runs_code_or_hides_what_is_wrong(kind, key, value):
    assert key[:50] in refused(kind, TINY / "gpt2-reviews", **{key: value})


def test_settings_that_are_no_table():
    for kind, section in [("model", "model_extra_configs"), ("tokenizer", "tokenizer_extra_configs")]:
        for settings in ([1], {1: 2}, "x" * 10_000):
            with pytest.raises(CourseError, match=section) as error:
                default_ppo_config().evolve(**{kind: {section: settings}})
            assert len(str(error.value)) < 600


def test_settings_of_the_model_and_the_tokenizer_still_count():
    settings = dict(
        resid_pdrop=0.25, attn_implementation="eager", use_safetensors=True, torch_dtype="float16"
    )
    model = load("model", TINY / "gpt2-reviews", **settings).base_model
    assert model.config.resid_pdrop == 0.25 and model.config._attn_implementation == "eager"
    assert {str(p.dtype) for p in model.parameters()} == {"torch.float32"}
    tokenizer = load("tokenizer", TINY / "gpt2-reviews", pad_token=".", padding_side="right")
    assert tokenizer.pad_token == "." and tokenizer.padding_side == "left"


def test_lora_settings_that_import_a_module_by_name():
    lora = dict(peft_type="LORA", r=4, lora_alpha=8, target_modules=["c_attn"], bias="none")
    check(default_ppo_config().evolve(model=dict(peft_config=lora)))
    for key in ("megatron_core", "megatron_config", "corda_config", "auto_mapping"):
        with pytest.raises(CourseError, match=f"unknown key '{key}' in model.peft_config"):
            check(default_ppo_config().evolve(model=dict(peft_config=lora | {key: "evil"})))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdef", "bcdefg")  # 9 to the 7th
)


@pytest.mark.parametrize(
    "data, message",
    [
        (BOMB.encode(), "anchors"),
        (b"method: &a {x: *a}", "anchors"),
        (b"[" * 100_000, "nested"),
        (b"a: " * 2 + b"{a: " * 300 + b"}" * 300, "YAML"),
        ("method: {name: Fußball}".encode("latin-1"), "UTF-8"),
        ("method: {name: PPOConfig}".encode("utf-16-le"), "#x0000"),
        (b"method: \0", "#x0000"),
        (b"", "there is nothing in it"),
        (b"[1, 2]", "sections"),
        (b"- " + b"x" * 1_000_000, "sections"),
        (b"? " + b"x" * 1_000_000 + b"\n: 1", "unknown section"),
        (b"1: 2", "unknown section 1"),
        (b"method: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        (b"a: 2024-13-45", "month must be"),
        (b"a: !!int 0x", "YAML"),
        (b"a: 1" + b"0" * 10_000, "YAML"),
        (b"? [a]\n: b", "unhashable"),
        (b"a: [", "line 1"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, data, message):
    path = tmp_path / "bad.yml"
    path.write_bytes(data)
    with pytest.raises(CourseError) as error:
        TRLConfig.load_yaml(path)
    said = str(error.value)
    assert message in said and len(said) < 600 and "\n" not in said


def test_a_folder_in_place_of_a_configuration(tmp_path):
    for path in (tmp_path, tmp_path / "none.yml", f"{tmp_path}/\0"):
        with pytest.raises(CourseError, match="cannot be read"):
            TRLConfig.load_yaml(path)


def test_a_value_is_quoted_in_part():
    for changes in [
        {"train": {"total_steps": "x" * 10_000}},
        {"method": {"scale_reward": "x" * 10_000}},
        {"method": {"name": "x" * 10_000}},
        {"method": {"gen_kwargs": {"x" * 10_000: 1}}},
        {"model": {"model_arch_type": "x" * 10_000}},
        {"model": {"peft_config": {"x" * 10_000: 1}}},
        {"model": {"x" * 10_000: 1}},
        {"optimizer": {"kwargs": {"lr": "x" * 10_000}}},
    ]:
        with pytest.raises(CourseError) as error:
            check(default_ppo_config().evolve(**changes))
        assert len(str(error.value)) < 2500
