"""The bench, and the floor under it. No test asks how long anything took."""

import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from common import ROOT
from ppo_run import small_run
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from helpers import engine
from helpers.__main__ import main as command_line
from helpers.errors import CourseError
from helpers.maintain.bench import compare as bench
from helpers.maintain.bench import floor, methods
from helpers.maintain.bench import run as bench_run
from helpers.ppo.blocks import freeze_below
from helpers.ppo.config import default_ppo_config
from helpers.ppo.policy import make_value_head
from helpers.tiny import TINY

LENGTH = 12  # tokens that are fed, where the prompt has one


def shape(**changes) -> floor.Round:
    numbers = dict(layers=4, hidden=128, vocabulary=600, unfrozen=2, rollouts=8, prompt=1, response=LENGTH)
    return floor.Round(**numbers | dict(epochs=1, batch=8) | changes)


def a_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    numbers = dict(n_layer=4, n_embd=128, n_head=4, vocab_size=600)
    return GPT2LMHeadModel(GPT2Config(**numbers, attn_implementation="eager")).eval()


def operations(work) -> int:
    """As torch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def future(blocks: int) -> float:
    """The operations of attention to later tokens, which torch counts and the floor does not."""
    return blocks * shape().rollouts * 4 * shape().hidden * (LENGTH**2 - LENGTH * (LENGTH + 1) / 2)


# the floor


def test_forwards_is_what_torch_counts():
    ids = torch.zeros(shape().rollouts, LENGTH, dtype=torch.long)
    model = a_model()
    counted = operations(lambda: model(ids)) - future(blocks=4)
    assert floor.block_flops(shape(), 4) + floor.head_flops(shape()) == pytest.approx(counted)
    assert floor.sample_work(shape(), 4).flops == pytest.approx(counted)


def test_an_epoch_of_the_update_is_what_torch_counts():
    model, value_head = a_model(), make_value_head(128)
    freeze_below(model, 2)
    hidden = torch.randn(shape().rollouts, LENGTH, 128)

    def update():
        states = hidden
        for block in model.transformer.h[-2:]:
            states = block(states)
        (model.lm_head(states).sum() + value_head(states).sum()).backward()

    counted = operations(update) - 3 * future(blocks=2)
    assert floor.update_work(shape(), 4).flops == pytest.approx(counted)
    assert floor.update_work(shape(epochs=4), 4).flops == pytest.approx(4 * counted)


def test_prompts_cost_the_topmost_block_keys_and_values_only():
    # of the same tokens two more are prompt: the block is spared queries, attention, their output and the layers after it
    more, fewer = shape(prompt=1, response=12), shape(prompt=3, response=10)
    spared = 2 * 10 * 128**2 * 2 + 4 * 128 * (1 + 2)
    assert floor.block_flops(more, 1) - floor.block_flops(fewer, 1) == 8 * spared


def test_the_built_in_engine_does_little_more_than_it_has_to(tmp_path):
    """The floor lies below what the engine does, and not far: the rest is prompts in the topmost block, and later tokens."""
    changes = dict(train=dict(eval_interval=100), method=dict(gen_kwargs=dict(min_new_tokens=8)))
    trainer = small_run(tmp_path, prompts=["I watched this film"] * 16, changes=changes)
    trainer.total_steps += 100
    tokens = len(trainer.prompts.tokens[0])
    this = floor.round_shape(trainer.model.config, trainer.config, prompt=tokens, response=8)
    work = floor.round_work(this)
    sampled = []
    collecting = operations(lambda: sampled.append(trainer.collect()))
    updating = operations(lambda: trainer.update(sampled[0]))
    assert 1 <= collecting / (work["sample"].flops + work["forward"].flops) < 1.15
    assert 1 <= updating / work["update"].flops < 1.15


def test_bytes_of_a_round():
    this = shape(layers=2, hidden=4, vocabulary=10, unfrozen=1, rollouts=3, prompt=2, response=3)
    weights = 2 * 12 * 16 + 10 * 4
    cache = 2 * 2 * 4 * 3 * (2 + 3)  # keys and values of two blocks, for two tokens and then for three
    assert floor.sample_work(this, 4).bytes == 4 * (3 * weights + cache)
    assert floor.sample_work(this, 2).bytes == 2 * (3 * weights + cache)


def test_a_floor_is_the_longer_of_computing_and_moving():
    rates = floor.Rates(blocks={"sample": 10.0}, head={"sample": 5.0}, bandwidth=2.0)
    assert rates.seconds("sample", floor.Work(blocks=20, head=20, bytes=2)) == 6
    assert rates.seconds("sample", floor.Work(blocks=20, head=20, bytes=20)) == 10


def test_the_table_of_a_floor():
    this = shape()
    rates = floor.measure_rates(this)
    assert min(*rates.blocks.values(), *rates.head.values(), rates.bandwidth) > 0
    found = floor.table(this, rates, {"sample": 3.0, "forward": 2.0, "update": 1.0})
    assert list(found.index) == ["sample", "forward pass", "update", "round"]
    assert list(found) == ["GFLOP", "GB", "floor, s", "measured, s", "measured / floor"]
    assert found.loc["round", "measured, s"] == 6
    assert found.loc["round", "measured / floor"] == pytest.approx(6 / found["floor, s"].iloc[:3].sum())
    assert "GB/s copied" in floor.describe(rates)


@pytest.mark.parametrize("unfrozen", [-1, 0, 13])
def test_the_floor_says_what_it_does_not_know(unfrozen):
    config = default_ppo_config().evolve(model=dict(num_layers_unfrozen=unfrozen))
    with pytest.raises(CourseError, match="the floor is known for 1 to 12"):
        floor.round_shape(GPT2Config(), config, 6, 40)


# the bench


@pytest.fixture
def one_round(monkeypatch):
    """A run is a single round, and so is over soon."""
    monkeypatch.setattr(bench, "usual_rounds", lambda size: 1)


def test_bench(capsys, one_round, tmp_path):
    bench.main(sizes="tiny", repeats=1)
    said = capsys.readouterr().out
    runs = pd.read_csv(tmp_path / "out" / "tiny" / "bench.csv")
    assert set(runs["engine"]) == set(bench_run.ENGINES)
    ran = runs.dropna(subset="samples/s").set_index("engine")
    assert {bench.BUILT_IN, bench.PLAIN} <= set(ran.index)
    for name, package in bench.OPTIONAL.items():
        assert (name in ran.index) == (bench.not_there(package) is None)
    assert (ran["peak GiB"] > 0.1).all()
    assert ran["reward/min"].notna().all()
    seconds = ran[[*bench_run.COLUMNS.values()]]
    assert (seconds > 0).all(axis=None)
    assert (seconds.sum(axis=1) * ran["samples/s"]).tolist() == pytest.approx([128] * len(ran))
    # trlX tokenises its samples anew
    assert ran.drop("trlX", errors="ignore")["length"].eq(40).all()
    base = "trlX" if "trlX" in ran.index else bench.PLAIN
    for part in [
        f"x {base}",
        "peak GiB",
        "reward/min",
        "round / floor",
        "forward pass",
        "GB/s copied",
        "float32",
    ]:
        assert part in said
    table = bench.tabulate(runs)
    assert table.loc[("tiny", base), f"x {base}"] == 1
    assert table.loc[("tiny", bench.BUILT_IN), f"x {base}"] > 0


def test_the_stopwatch_rests_while_a_run_evaluates(monkeypatch):
    clock = iter([0, 10, 15, 30])
    monkeypatch.setattr(bench_run, "now", lambda: next(clock))
    rounds = [dict(seconds_sample=4, seconds_score=1, seconds_forward=2)]
    trainer = SimpleNamespace(evaluate=lambda: 0.5, resume=None, history=SimpleNamespace(rounds=rounds))
    watch = bench_run.Listener()
    watch.start(trainer)
    assert trainer.evaluate() == 0.5
    watch.end(trainer)
    assert watch.total == 25
    assert watch.seconds == {"sample": 4, "score": 1, "forward": 2, "update": 18}


def test_an_engine_has_one_name_everywhere(monkeypatch):
    monkeypatch.setenv("RLHF_ENGINE", "builtin")
    assert engine.describe() == f"{bench.BUILT_IN} {engine.VERSION}"
    assert list(bench_run.ENGINES) == ["built-in PPO", "built-in PPO, plain", "trlX", "TRL RLOO"]
    measured = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    for name in bench_run.ENGINES:
        assert f"\n| {name} | " in measured


def test_engines_take_turns_and_one_that_fails_is_a_note(monkeypatch, capsys):
    order = []

    def run(name, task):
        order.append(name)
        return {"note": "out of memory"} if name == bench.BUILT_IN else {"samples/s": 1.0, "length": 40.0}

    monkeypatch.setattr(bench, "run_apart", run)
    monkeypatch.setattr(bench, "not_there", lambda package: f"no {package}")
    table = bench.tabulate(bench.measure(["tiny"], repeats=2))
    assert order == [bench.BUILT_IN, bench.PLAIN] * 2
    assert table["note"].to_dict() == {
        ("tiny", bench.BUILT_IN): "out of memory",
        ("tiny", bench.PLAIN): "",
        ("tiny", "trlX"): "no trlx",
        ("tiny", "TRL RLOO"): "no trl",
    }
    assert "tiny 1/4: built-in PPO ... out of memory" in capsys.readouterr().out


def test_a_table_without_the_built_in_engine(monkeypatch):
    runs = pd.DataFrame([{"size": "tiny", "engine": bench.BUILT_IN, "repeat": 0, "note": "out of memory"}])
    assert "out of memory" in bench.report(runs)


def test_an_engine_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert bench.not_there("trl") == "not installed (pip install trl)"
    assert bench.not_there("trlx") == "not installed (python -m helpers trlx)"


def test_ratios_are_formed_within_a_repeat():
    runs = pd.DataFrame(
        [
            {"size": "tiny", "engine": name, "repeat": repeat, "samples/s": speed}
            for repeat, speeds in enumerate([(30, 10), (20, 2), (8, 4)])
            for name, speed in zip([bench.BUILT_IN, bench.TRLX], speeds, strict=True)
        ]
    )
    table = bench.tabulate(runs)
    assert table.loc[("tiny", bench.BUILT_IN), "x trlX"] == 3  # the median of 3, 10 and 2
    assert table.loc[("tiny", bench.BUILT_IN), "samples/s"] == 20


@pytest.mark.parametrize(
    "errors, reason",
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried ...", "out of memory"),
        (
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried",
            "out of memory",
        ),
        ("Traceback\n  File\nValueError: no\n", "failed: ValueError: no"),
        ("", "failed: no reason given"),
    ],
)
def test_why_a_run_failed(errors, reason):
    assert bench.why(errors) == reason


def test_a_run_that_fails_in_its_own_process(tmp_path):
    found = bench.run_apart(bench.BUILT_IN, dict(size="small", model=str(tmp_path / "none"), rounds=1))
    assert set(found) == {"note"} and "cannot be loaded" in found["note"]


def test_a_model_with_random_weights_has_a_word_for_every_token(tmp_path):
    folder = bench.random_gpt2(tmp_path, n_layer=1, n_embd=8, n_head=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = [5, 700, 50_000, 50_255]
    assert tokenizer(tokenizer.decode(tokens))["input_ids"] == tokens
    assert (
        tokenizer.eos_token_id == json.loads((folder / "config.json").read_text())["eos_token_id"] == 50_256
    )
    _, prompts, _ = bench_run.material("small")
    assert {len(ids) for ids in tokenizer(prompts)["input_ids"]} == {4, 5, 6, 7, 8, 9}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("--sizes", "tiny,huge"),
            "there is no size 'huge': expected some of tiny, small, medium, large, xl",
        ),
        (("--repeats", "0"), "--repeats is 0: expected at least 1"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    assert command_line(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux alone")
@pytest.mark.parametrize("method", methods.METHODS)
def test_what_a_method_needs_is_counted(method):
    """The embedded model is 112 wide. A block has 12 H^2 weights and 13 H biases and norms; the final norm learns too."""
    H, model = 112, str(TINY / "gpt2-reviews")
    row = methods.run_here(dict(size="tiny", model=model, unfrozen=2, method=method, texts=32))
    blocks, head = 2 * (12 * H**2 + 13 * H) + 2 * H, 2 * H**2 + 4 * H + 1
    assert row["value head"] == (head if method == "PPO" else 0)
    assert row["learns"] == blocks + row["value head"]
    held = method in ("RLOO", "GRPO", "PPO")
    assert row["reference, MB"] == pytest.approx(held * 4 * blocks / methods.MB)
    assert row["optimizer, MB"] == pytest.approx(
        8 * row["learns"] / methods.MB, rel=1e-3
    )  # and a count of steps
    assert row["gradient, MB"] == 4 * row["learns"] / methods.MB
    assert row["before the update, s/1000"] > 0 and row["update, s/1000"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux alone")
def test_a_peak_begins_anew():
    for million in (200, 100):  # bytes, the larger first
        resident = methods.forget_peak(torch.nn.Module())
        torch.ones(million * methods.MB // 4).sum()
        assert bench_run.peak_bytes() - resident == pytest.approx(million * methods.MB, rel=0.1)
