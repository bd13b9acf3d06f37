"""Settings and inputs are held to what they are for, when they are given: one sentence that names the key, before any training.

What only looks wrong, such as numbers of numpy or prompts in a column of a table, is taken for what it means.
"""

import codecs
import dataclasses
import enum
import json
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from datasets import Dataset
from ppo_run import MODEL, PROMPTS, count_the, engine_train, small_config, small_run, without_times
from transformers import AutoModelForCausalLM

from helpers.engine import TRLConfig, default_grpo_config, default_ppo_config
from helpers.errors import CourseError
from helpers.ppo.config import as_config, check
from helpers.ppo.fields import SECTIONS

both_engines = pytest.mark.usefixtures("engine")
HALF = "\ud83c"  # the first half of an emoji
ONE_STEP = {"train": {"total_steps": 1, "batch_size": 4}, "method": {"num_rollouts": 4, "ppo_epochs": 1}}


def with_value(path: str, value, default=default_ppo_config) -> TRLConfig:
    """The default configuration with one value set: "method.gen_kwargs.top_k" is the path of one in a table."""
    config = default().to_dict()
    *tables, key = path.split(".")
    table = config
    for name in tables:
        table[name] = dict(table[name] or {})
        table = table[name]
    table[key] = value
    return TRLConfig.from_dict(config)


def message(path: str, value) -> str:
    """With which sentence the value is refused, when it is set or when it is looked at before a run."""
    with pytest.raises(CourseError) as error:
        check(with_value(path, value))
    return str(error.value)


class Fails:
    """An object of another library whose every method fails."""

    def __repr__(self):
        raise RuntimeError

    tolist = to_dict = __repr__


class NoTable:
    def to_dict(self):
        return 5


class Choice(enum.Enum):
    ADAM = "adam"
    THREE = 3


class Lots(list):
    """A list that holds itself."""

    def __init__(self):
        self.append(self)


ODD = ["", " ", "x", "1e4", "0", "nan", HALF, "a\0b", "x" * 5000, 0, 1, -1, 0.5, 1e4, 2**32, 2**64, 10**400]
ODD += [10**5000, 1e308, 1e-320, float("nan"), float("inf"), -float("inf"), True, False, None, [], [1], ["x"]]
ODD += [{}, {"a": 1}, {1: 2}, {HALF: 1}, {"a": HALF}, {"a": {"b": [1, {"c": None}]}}, {"a": float("nan")}]
ODD += [
    (1,),
    {"x"},
    {1},
    b"x",
    1j,
    np.int64(3),
    np.float32(0.5),
    np.array([1, 2]),
    np.array("x"),
    np.bool_(True),
]
ODD += [np.datetime64("2024-01-01"), pd.NA, pd.NaT, pd.Series([1]), pd.DataFrame({"a": [1]}), torch.tensor(3)]
ODD += [torch.tensor([0.5]), torch.tensor(3, device="meta"), torch.float16, torch.device("cpu"), Choice.THREE]
ODD += [Path("x"), Decimal("0.5"), Decimal("sNaN"), Fraction(1, 2), Fails(), NoTable(), Lots(), int, range(3)]
ODD += ["left", lambda: 1, iter([1]), object(), Ellipsis, PROMPTS]
# every field, with the default configuration that has it
FIELDS = [
    (default, name, f.name)
    for default in (default_ppo_config, default_grpo_config)
    for name in SECTIONS
    for f in dataclasses.fields(getattr(default(), name))
    if default is default_ppo_config or name == "method"
]


@pytest.mark.parametrize("default, section, field", FIELDS)
def test_whatever_is_set_is_plain_data_or_refused_by_its_name(default, section, field):
    """Text, numbers of all sizes, tables and objects of other libraries, in every field."""
    taken = 0
    for value in ODD:
        config = default()
        try:
            setattr(getattr(config, section), field, value)
        except CourseError as error:
            assert f"{section}.{field}" in str(error) and "\n" not in str(error) and len(str(error)) < 400
            str(error).encode()  # so that any terminal shows it
            continue
        taken += 1
        assert json.loads(json.dumps(config.to_dict(), allow_nan=False)) == config.to_dict()
        if field != "name" or section != "method":  # another method has other keys
            assert TRLConfig.from_dict(config.to_dict()) == config
    assert 0 < taken < len(ODD) / 2


@pytest.mark.parametrize("default, section, field", FIELDS)
def test_whatever_was_set_a_run_takes_or_refuses(default, section, field):
    for value in ODD:
        try:
            check(with_value(f"{section}.{field}", value, default))
        except CourseError as error:
            assert "\n" not in str(error) and len(str(error)) < 400


@pytest.mark.parametrize(
    "path, value, said",
    [
        ("method.horizon", "1e4", "YAML reads 1e4 as text: write 1.0e+4."),
        ("method.horizon", "10_000", "Write 10_000 without quotes."),
        ("method.horizon", 0, "at least 1"),
        ("method.target", 0, "expected a number above 0, or null"),
        ("method.cliprange_reward", "1e1", "write 1.0e+1"),
        ("method.gamma", 1.5, "from 0 to 1"),
        ("method.init_kl_coef", -0.1, "at least 0"),
        ("method.init_kl_coef", float("nan"), "expected a number"),
        ("method.cliprange", 1e39, "The largest number is 1e+30."),
        ("method.gen_kwargs", None, "A key with nothing after it is null"),
        ("method.gen_kwargs", 3, "expected a table of keys"),
        ("method.gen_kwargs", [["top_k", 0]], "expected a table of keys"),
        ("method.gen_experience_kwargs", 0, "expected a table of keys, or null"),
        ("model.num_layers_unfrozen", 0.5, "expected a whole number"),
        ("model.num_layers_unfrozen", True, "expected a whole number"),
        ("model.model_path", None, "expected text"),
        ("model.model_path", 5, "put text into quotes"),
        ("model.model_path", "", "or a name on the hub"),
        ("train.checkpoint_dir", "x" * 300, "too long"),
        ("train.checkpoint_dir", f"a{HALF}b", "half a character"),
        ("train.run_name", False, "YAML reads yes, no, on and off as true and false"),
        ("train.seed", 2**32, "from 0 to 4294967295"),
        ("train.seed", -1, "from 0 to 4294967295"),
        ("train.seed", 1.5, "expected a whole number"),
        ("train.total_steps", float("inf"), "expected a whole number"),
        ("train.batch_size", [8, 16], "expected a whole number"),
        ("train.save_best", "yes", "Write it without quotes"),
        ("train.save_best", 1, "expected true or false"),
        ("train.tags", 3, "expected a list, or null"),
        ("train.tags", ["a", 5], "train.tags[1] is 5: expected text"),
        ("train.trainer_kwargs", {1: 2}, "has the key 1: expected text as keys"),
        ("optimizer.kwargs", 3, "expected a table of keys"),
        ("optimizer.kwargs.lr", "3e-5", "write 3.0e-5"),
        ("optimizer.kwargs.lr", -1, "at least 0"),
        ("optimizer.kwargs.lr", None, "expected a number"),
        ("optimizer.kwargs.lr", [1e-3, 1e-4], "expected a number"),
        ("optimizer.kwargs.eps", 0, "at least 1e-30"),
        ("optimizer.kwargs.betas", [0.9], "expected two numbers below 1"),
        ("optimizer.kwargs.betas", [0.9, 1.0], "expected two numbers below 1"),
        ("optimizer.kwargs.betas", 0.9, "expected a list"),
        ("optimizer.name", "adam8", "Did you mean 'adam'?"),
        ("scheduler.kwargs.T_max", 0, "at least 1"),
        ("scheduler.kwargs.T_max", "1e12", "write 1.0e+12"),
        ("scheduler.kwargs.warmup", 5, "unknown key 'warmup' in scheduler.kwargs"),
        ("method.gen_kwargs.num_return_sequences", 4, "expected 1"),
        ("method.gen_kwargs.return_dict_in_generate", True, "expected false"),
        ("method.gen_kwargs.max_new_tokens", None, "has no max_new_tokens"),
        ("method.gen_kwargs.max_new_tokens", 8.5, "expected a whole number"),
        ("method.gen_kwargs.max_new_tokens", "8", "Write 8 without quotes."),
        ("method.gen_kwargs.min_new_tokens", 99, "is more than max_new_tokens (40)"),
        ("method.gen_kwargs.top_p", 2, "from 0 to 1"),
        ("method.gen_kwargs.top_k", 0.5, "expected a whole number"),
        ("method.gen_kwargs.do_sample", "true", "Write it without quotes"),
        ("method.gen_kwargs.temperature", "hot", "expected a number above 0"),
        ("method.gen_kwargs.epsilon_cutoff", 5, "from 0 to 1"),
        ("method.gen_kwargs.cache_config", "x", "expected a table of keys"),
        ("method.gen_kwargs.stop_strings", ["."], "give `train` stop_sequences instead"),
        ("method.gen_kwargs.no_such_thing_at_all", 1, "The nearest are"),
        ("model.peft_config", {"r": 4}, "peft_type None: expected LoRA"),
        (
            "model.peft_config",
            {"peft_type": "LORA", "r": 0},
            "model.peft_config.r is 0: expected a whole number",
        ),
        ("model.peft_config", {"peft_type": "LORA", "rank": 4}, "unknown key 'rank' in model.peft_config"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_does(path, value, said):
    text = message(path, value)
    assert said in text
    assert path in text or path.rpartition(".")[0] in text and path.rpartition(".")[2] in text


def test_what_plainly_means_the_same_is_taken():
    """A search over settings gives numbers of numpy; a script gives paths, enums and types of torch."""
    for path, value, expected in [
        ("method.gamma", np.float32(0.5), 0.5),
        ("method.gamma", Fraction(1, 2), 0.5),
        ("method.horizon", 1e4, 10000),
        ("method.horizon", np.array(5), 5),
        ("method.init_kl_coef", 2**70, float(2**70)),
        ("train.seed", torch.tensor(7), 7),
        ("train.total_steps", 160.0, 160),
        ("train.save_best", np.bool_(False), False),
        ("train.tags", {"b", "a"}, ["a", "b"]),
        ("train.tags", ("b", "a"), ["b", "a"]),
        ("train.resume_from_checkpoint", "", ""),
        ("train.checkpoint_dir", Path("a") / "b", "a/b"),
        ("optimizer.name", Choice.ADAM, "adam"),
        ("optimizer.kwargs.betas", torch.tensor([0.5, 0.25]), [0.5, 0.25]),
        ("model.model_extra_configs", {"dtype": torch.float16}, {"dtype": "float16"}),
    ]:
        config = with_value(path, value)
        section, *keys = path.split(".")
        found = config.to_dict()[section]
        for key in keys:
            found = found[key]
        assert found == expected and type(found) is type(expected), path


def test_a_value_that_was_slipped_into_a_table_is_found_before_a_run():
    config = default_ppo_config()
    config.optimizer.kwargs["lr"] = "fast"
    with pytest.raises(CourseError, match="optimizer.kwargs.lr is 'fast'"):
        check(config)
    config = default_ppo_config()
    config.method.gen_kwargs["top_k"] = np.array([1, 2])
    with pytest.raises(CourseError, match="method.gen_kwargs.top_k is .*a list"):
        check(config)


def test_a_section_that_is_none_is_named():
    for section in (None, 5, "x", [], default_ppo_config().train):
        with pytest.raises(CourseError, match="'method'"):
            default_ppo_config().method = section
        with pytest.raises(CourseError, match="'method'"):
            TRLConfig.from_dict(default_ppo_config().to_dict() | {"method": section})
    for config in (5, "ppo.yaml", TRLConfig, [], object()):
        with pytest.raises(CourseError):
            as_config(config)


# ----------------------------------------------------------------------------------------------- YAML


def test_yaml_is_read_in_the_encodings_that_editors_write(tmp_path):
    text = yaml.safe_dump(with_value("train.run_name", "Müller").to_dict(), allow_unicode=True)
    path = tmp_path / "ppo.yaml"
    for mark, encoding in [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ]:
        path.write_bytes(mark + text.encode(encoding))
        assert TRLConfig.load_yaml(path).train.run_name == "Müller"
    for encoding in ("latin-1", "utf-16-le", "utf-32-be"):  # the last two without a mark
        path.write_bytes(text.encode(encoding))
        with pytest.raises(
            CourseError, match="ppo.yaml' cannot be read as YAML: it (is not text in UTF-8|holds)"
        ):
            TRLConfig.load_yaml(path)


@pytest.mark.parametrize(
    "before, after, said",
    [
        ("horizon: 10000", "horizon: 1e4", "method.horizon is '1e4'"),
        ("target: null", "target: 0", "method.target is 0"),
        ("target: null", "target: .nan", "method.target is nan"),
        ("target: null", "target: .inf", "method.target is inf"),
        ("seed: 1000", "seed: 4294967296", "train.seed is 4294967296"),
        ("seed: 1000", "seed:", "train.seed is None"),
        ("seed: 1000", "seed: 2024-01-01", "train.seed is datetime.date"),
        ("seed: 1000", "seed: 7\n  seed: 8", "the key 'seed' stands twice"),
        ("run_name: null", "run_name: 2024-01-01", "put text into quotes"),
        ("run_name: null", "run_name: no", "put text into quotes"),
        ("name: PPOConfig", "name:", "method.name is None"),
        ("seed: 1000", "\tseed: 1000", "indent with spaces, not with tabs"),
        ("seed: 1000", "seed: !!python/object:os.system 1", "could not determine a constructor"),
        ("seed: 1000", "seed: \x07", "is no text"),
    ],
)
def test_what_yaml_reads_otherwise_than_it_looks(tmp_path, before, after, said):
    text = yaml.safe_dump(default_ppo_config().to_dict())
    assert text.count(before) == 1
    (tmp_path / "ppo.yaml").write_text(text.replace(before, after))
    with pytest.raises(CourseError) as error:
        check(TRLConfig.load_yaml(tmp_path / "ppo.yaml"))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_empty_gen_kwargs_in_yaml(tmp_path):
    config = default_ppo_config().to_dict()
    config["method"]["gen_kwargs"] = "HERE"
    (tmp_path / "ppo.yaml").write_text(yaml.safe_dump(config).replace(" HERE", ""))
    with pytest.raises(CourseError, match="method.gen_kwargs is None: expected a table of keys"):
        TRLConfig.load_yaml(tmp_path / "ppo.yaml")


# --------------------------------------------------------------------------------------- runs, refused


def refused(folder, **changes) -> str:
    """The message of a run that is refused before a sample is scored, or a file written."""
    scored = []
    with pytest.raises(CourseError) as error:
        small_run(folder / "run", reward_fn=lambda samples: scored.append(1) or count_the(samples), **changes)
    assert not scored and not list(folder.iterdir())
    str(error.value).encode()
    assert "\n" not in str(error.value)
    return str(error.value)


@both_engines
@pytest.mark.parametrize(
    "changes, said",
    [
        ({"tokenizer": {"tokenizer_extra_configs": {"pad_token": "<pad>"}}}, "has the token '<pad>' (id 2"),
        ({"tokenizer": {"tokenizer_extra_configs": {"eos_token": "<end>"}}}, "has the token '<end>' (id 2"),
        ({"tokenizer": {"tokenizer_extra_configs": {"pad_token": 5}}}, "pad_token"),
        ({"method": {"gen_kwargs": {"eos_token_id": 10**6}}}, "method.gen_kwargs.eos_token_id is 1000000"),
        ({"method": {"gen_kwargs": {"pad_token_id": 10**6}}}, "method.gen_kwargs.pad_token_id is 1000000"),
        ({"method": {"gen_kwargs": {"suppress_tokens": [5, 10**6]}}}, "method.gen_kwargs.suppress_tokens is"),
        (
            {"method": {"gen_kwargs": {"top_h": 0}}},
            "method.gen_kwargs does not work with transformers' generate",
        ),
        ({"method": {"gen_kwargs": {"assistant_early_exit": "x"}}}, "method.gen_kwargs does not work"),
        ({"method": {"gen_kwargs": {"max_new_tokens": 64}}}, "max_new_tokens (64) leaves no room"),
        ({"optimizer": {"kwargs": {"fused": True, "foreach": True}}}, "optimizer.kwargs do not fit adamw"),
        ({"model": {"num_layers_unfrozen": 10**9}}, "model.num_layers_unfrozen is 1000000000"),
        ({"model": {"model_extra_configs": {"n_layer": "many"}}}, "model.model_path"),
        ({"train": {"checkpoint_dir": "a" * 256}}, "train.checkpoint_dir is"),
        ({"train": {"resume_from_checkpoint": f"/x/{HALF}"}}, "train.resume_from_checkpoint is"),
    ],
)
@pytest.mark.filterwarnings("ignore:method.gen_kwargs has")
def test_settings_that_the_model_the_tokenizer_or_torch_cannot_take(tmp_path, changes, said):
    assert said in refused(tmp_path, changes=changes)


@both_engines
@pytest.mark.parametrize("minutes", ["5", True, float("nan"), [1], {}])
def test_minutes_that_are_no_number(tmp_path, minutes):
    assert "minutes is" in refused(tmp_path, minutes=minutes)


TABLE = pd.DataFrame({"prompt": PROMPTS})


@both_engines
@pytest.mark.parametrize(
    "prompts, said",
    [
        ({"prompt": PROMPTS}, "Take one column of a table"),
        (TABLE, "Take one column of a table"),
        (PROMPTS[0], "One prompt is written prompts=[...]."),
        (PROMPTS[0].encode(), "One prompt is written prompts=[...]."),
        (set(PROMPTS), "A set has another order in each run"),
        (5, "prompts is 5"),
        (np.array(5), "prompts is array(5)"),
        (iter([]), "at least one prompt"),
        (pd.Series([PROMPTS[0], None], dtype=object), "prompts[1] is None"),
        (np.array([PROMPTS[:2]]), "prompts[0] is array("),
        ([PROMPTS[0], b"bytes"], "prompts[1] is b'bytes'"),
        ([PROMPTS[0], f"cut {HALF}"], "prompts[1] has half a character ('\\ud83c') at place 4"),
        ([{"prompt": f"cut {HALF}"}], "prompts[0] has half a character"),
        ([{"prompt": "a", "outputs": 1}], "prompts[0] has the key 'outputs'"),
        ([{"prompt": "a", "samples": 1}], "prompts[0] has the key 'samples'"),
        ([{"prompt": "a", "prompts": 1}], "prompts[0] has the key 'prompts'"),
        ([{"prompt": "a", "tokenizer": 1}], "prompts[0] has the key 'tokenizer'"),
        ([{"prompt": "a", "input_ids": 1}], "prompts[0] has the key 'input_ids'"),
        ([{"prompt": "a", "reward_fn": 1}], "prompts[0] has the key 'reward_fn'"),
        ([{"prompt": "a", "function": 1}], "prompts[0] has the key 'function'"),
        ([{"prompt": "a", "self": 1}], "prompts[0] has the key 'self'"),
        ([{"prompt": "a", 5: 1}], "prompts[0] has the key 5"),
        (
            [{"prompt": "a", "topic": 1}, {"prompt": "a"}],
            "prompts[0] has the key 'topic', and prompts[1] has not",
        ),
        (
            [{"prompt": "a"}, {"prompt": "a", "topic": 1}],
            "prompts[1] has the key 'topic', and prompts[0] has not",
        ),
        ([{"prompt": "a", "topic": 1}, "b"], "prompts[0] has the key 'topic', and prompts[1] has not"),
    ],
    ids=range(25),
)
def test_prompts_that_are_none_or_whose_keys_do_not_fit(tmp_path, prompts, said):
    assert said in refused(tmp_path, prompts=prompts)


@both_engines
def test_stop_sequences_that_no_text_has(tmp_path):
    assert "stop_sequences[1] has half a character" in refused(tmp_path, stop_sequences=[".", HALF])
    assert "stop_sequences is 5" in refused(tmp_path, stop_sequences=5)


# ----------------------------------------------------------------------------------------- runs, taken


@pytest.fixture(scope="module")
def from_a_list(engine, tmp_path_factory):
    """The history of one step from a list of prompts."""
    trainer = small_run(tmp_path_factory.mktemp("list"), changes=ONE_STEP)
    return without_times(trainer.history)


FORMS = {
    "Series": lambda: TABLE["prompt"],
    "Series with another index": lambda: pd.Series(PROMPTS, index=[9, 3, 5, 7, 1]),
    "Column": lambda: Dataset.from_pandas(TABLE)["prompt"],
    "Dataset": lambda: Dataset.from_pandas(TABLE),
    "array": lambda: np.array(PROMPTS),
    "array of objects": lambda: np.array(PROMPTS, dtype=object),
    "generator": lambda: (prompt for prompt in PROMPTS),
    "tuple": lambda: tuple(PROMPTS),
    "keys": lambda: dict.fromkeys(PROMPTS).keys(),
    "dictionaries": lambda: [{"prompt": prompt} for prompt in PROMPTS],
}


@pytest.mark.parametrize("form", FORMS)
def test_prompts_in_an_order_of_their_own_are_prompts(tmp_path, form, from_a_list):
    trainer = small_run(tmp_path, changes=ONE_STEP, prompts=FORMS[form](), eval_prompts=FORMS[form]())
    assert without_times(trainer.history) == from_a_list


@both_engines
def test_extra_keys_reach_the_reward_function_whatever_they_hold(tmp_path):
    """Half a character in them harms nothing: they are the reader's own, and go nowhere else."""
    seen = []

    def reward_fn(samples, note, **kwargs):
        seen.extend(note)
        return count_the(samples)

    prompts = [{"prompt": prompt, "note": HALF, f"k{HALF}": 1} for prompt in PROMPTS]
    small_run(tmp_path, changes=ONE_STEP, reward_fn=reward_fn, prompts=prompts, eval_prompts=prompts)
    assert set(seen) == {HALF}


@both_engines
@pytest.mark.filterwarnings("ignore:method.gen_kwargs has")
def test_a_whole_number_is_a_number_for_generate_too(tmp_path):
    """transformers takes a temperature of 2.0 and no 2, a repetition_penalty of 1.0 and no 1."""
    whole, parts = (
        dict(temperature=kind(2), top_p=kind(1), repetition_penalty=kind(1), typical_p=kind(1))
        for kind in (int, float)
    )
    first, second = (
        small_run(
            tmp_path / str(index), changes={**ONE_STEP, "method": ONE_STEP["method"] | {"gen_kwargs": kwargs}}
        )
        for index, kwargs in enumerate([whole, parts])
    )
    assert without_times(first.history) == without_times(second.history)


@both_engines
def test_a_list_of_the_reader_stays_as_it_is(tmp_path):
    prompts = [{"prompt": prompt, "topic": index} for index, prompt in enumerate(PROMPTS)]
    before = json.dumps(prompts)
    small_run(tmp_path, changes=ONE_STEP, prompts=prompts, eval_prompts=prompts)
    assert json.dumps(prompts) == before


@both_engines
def test_the_home_folder_may_be_written_as_in_a_shell(tmp_path, monkeypatch):
    """In model, tokenizer, checkpoints and in what is saved, `~` is no folder of that name."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    (home / "gpt2").symlink_to(MODEL)
    changes = {"model": {"model_path": "~/gpt2"}, "tokenizer": {"tokenizer_path": "~/gpt2"}}
    config = small_config("~/checkpoints", **changes).evolve(**ONE_STEP)
    assert config.train.checkpoint_dir == str(home / "checkpoints")
    arguments = dict(reward_fn=count_the, prompts=PROMPTS, eval_prompts=PROMPTS)
    trainer = engine_train()("~/gpt2", config=config, **arguments)
    assert (home / "checkpoints" / "checkpoint_1" / "state.json").exists()
    AutoModelForCausalLM.from_pretrained(trainer.save_pretrained("~/tuned"))
    assert (home / "tuned" / "model.safetensors").exists()
    again = config.evolve(train=dict(total_steps=2, resume_from_checkpoint="~/checkpoints"))
    assert engine_train()(config=again, **arguments).history.rounds[0]["step"] == 0
    assert not list(tmp_path.glob("~*"))


# ------------------------------------------------------------------------------------------------ LoRA


def test_a_lora_config_is_what_it_says():
    """trlX's example gives an object of peft; a file of peft holds the same in more words."""
    peft = pytest.importorskip("peft", reason="LoRA needs peft: python -m pip install peft")
    given = peft.LoraConfig(r=4, task_type=peft.TaskType.CAUSAL_LM, lora_alpha=8, lora_dropout=0.1)
    plain = dict(peft_type="LORA", r=4, lora_alpha=8, lora_dropout=0.1, task_type="CAUSAL_LM")
    for form in (given, given.to_dict(), plain, json.loads(json.dumps(plain))):
        config = with_value("model.peft_config", form)
        check(config)
        assert {key: config.model.peft_config[key] for key in plain} == plain
        json.dumps(config.to_dict(), allow_nan=False)
    named = with_value("model.peft_config", peft.LoraConfig(target_modules={"c_proj", "c_attn"}))
    assert named.model.peft_config["target_modules"] == ["c_attn", "c_proj"]
    for form in (peft.PromptTuningConfig(), peft.LoraConfig, "LORA", 8, True, ["LORA"], {}):
        assert re.match("model.peft_config (is|has the peft_type)", message("model.peft_config", form))


@both_engines
def test_a_lora_config_trains_as_the_table_does(tmp_path):
    peft = pytest.importorskip("peft", reason="LoRA needs peft: python -m pip install peft")
    forms = [peft.LoraConfig(r=4, lora_alpha=8), dict(peft_type="LORA", r=4, lora_alpha=8)]
    first, second = (
        small_run(tmp_path / str(index), changes=ONE_STEP | {"model": {"peft_config": form}})
        for index, form in enumerate(forms)
    )
    assert without_times(first.history) == without_times(second.history)
    assert any(".lora_A" in name for name in first.policy.trainable())
