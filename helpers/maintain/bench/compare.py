"""Which engine is how fast, how much memory it takes and how soon it learns: `python -m helpers bench`.

Every engine that is here trains the same model on the same prompts and the same reward: the built-in PPO, the same computed
the plain way, the real trlX, and TRL's RLOO, the nearest thing that TRL still has to PPO. A round is what trlX's defaults
make of it: 128 rollouts of 40 tokens, four epochs of batches of 32, the top two blocks unfrozen. Every response has all of
its 40 tokens, so that all do the same work.

What RLOO does otherwise: two responses to each of 64 prompts in place of one to each of 128, an advantage from the other
response in place of a value head, one ratio for a whole response, and its own AdamW. It unfreezes the same blocks.

Times depend on the machine and on what else it is doing: engines take turns, a ratio is formed within one turn, and the
table has medians. Compare rows of one table, not tables. helpers/maintain/bench/floor.py says how fast a round could be.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
import transformers
from accelerate import PartialState
from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel

from helpers import assets, course
from helpers.errors import CourseError
from helpers.maintain.bench import floor
from helpers.maintain.bench.run import BUILT_IN, COLUMNS, ENGINES, PLAIN, RLOO, SIZES, TRLX
from helpers.ppo.config import default_ppo_config
from helpers.ppo.parallel.processes import precision
from helpers.ppo.parallel.trainer import HALF

DTYPES = {"no": torch.float32} | HALF
OPTIONAL = {TRLX: "trlx", RLOO: "trl"}  # the package that each needs


def measure(
    sizes: Sequence[str] = ("tiny", "small"), repeats: int = 3, rounds: int | None = None
) -> pd.DataFrame:
    """Train with every engine at every size, `repeats` times, each run in a process of its own.

    Args:
        sizes: some of SIZES.
        rounds: rounds of PPO in a run; a few at tiny size and on a GPU, else one, if left out.

    Returns:
        One row per run: size, engine, repeat, samples/s, seconds a round of each of PHASES, peak GiB, reward/min (tiny only),
        length (mean tokens of a response), prompt (the same of a prompt), and a note, which says why where a run failed.

    Raises:
        CourseError: an unknown size, or less than one repeat.
    """
    for size in sizes:
        if size not in SIZES:
            raise CourseError(f"there is no size {size!r}: expected some of {', '.join(SIZES)}")
    if repeats < 1:
        raise CourseError(f"--repeats is {repeats}: expected at least 1")
    missing = {name: not_there(package) for name, package in OPTIONAL.items()}
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            model = model_folder(size, Path(folder))
            tasks = [(repeat, name) for repeat in range(repeats) for name in ENGINES if not missing.get(name)]
            for number, (repeat, name) in enumerate(tasks, start=1):
                print(f"{size} {number}/{len(tasks)}: {name} ... ", end="", flush=True)
                found = run_apart(
                    name, dict(size=size, model=str(model), rounds=rounds or usual_rounds(size))
                )
                rows.append({"size": size, "engine": name, "repeat": repeat, **found})
                print(found.get("note") or f"{found['samples/s']:.2f} samples/s", flush=True)
        absent = {name: note for name, note in missing.items() if note}
        rows += [{"size": size, "engine": name, "repeat": 0, "note": note} for name, note in absent.items()]
    return pd.DataFrame(rows)


def not_there(package: str) -> str | None:
    """What the table says of an engine whose package is not installed."""
    if importlib.util.find_spec(package):
        return None
    return f"not installed ({dict(trlx='python -m helpers trlx', trl='pip install trl')[package]})"


def usual_rounds(size: str) -> int:
    """How many rounds a run has: one, which takes long enough to be measured, or four where a round is over in seconds."""
    return 4 if size == "tiny" or PartialState().device.type != "cpu" else 1


def model_folder(size: str, folder: Path) -> Path:
    """Where the model of that size is; one with random weights is made in `folder`."""
    if SIZES[size] is None:
        return Path(assets.find_model("gpt2-imdb", "tiny", None))
    return random_gpt2(folder / size, **SIZES[size])


def random_gpt2(folder: Path, **shape) -> Path:
    """A GPT-2 with random weights and a tokenizer that has a word, "w0", "w1", ..., for each entry of its vocabulary.

    With fewer words its samples would lose the rest of their tokens where an engine decodes them and tokenises them again.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**shape))
    end, last = "<|endoftext|>", model.config.vocab_size - 1
    model.config.bos_token_id = model.config.eos_token_id = last
    model.generation_config.bos_token_id = model.generation_config.eos_token_id = last
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(last)} | {end: last}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict(eos_token=end, bos_token=end, pad_token=end, unk_token="w0")
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return folder


def run_apart(name: str, task: dict) -> dict:
    """What `run_here` finds, in a fresh process: memory is that run's own, and a run that fails takes no other with it."""
    command = [sys.executable, "-m", "helpers.maintain.bench.run", json.dumps({"engine": name, **task})]
    result = subprocess.run(command, cwd=course.ROOT, capture_output=True, encoding="utf-8", errors="replace")
    if result.returncode == 0:
        return json.loads(result.stdout.splitlines()[-1])
    if result.returncode == -9:
        return {"note": "out of memory (ended by the system)"}
    return {"note": why(result.stderr)}


def why(errors: str) -> str:
    """The reason out of what a failed process wrote."""
    if "MemoryError" in errors or "can't allocate memory" in errors:  # torch.OutOfMemoryError among them
        return "out of memory"
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith(" ")]
    return f"failed: {lines[-1] if lines else 'no reason given'}"[:200]


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per size and engine: medians over the repeats of what `measure` gave.

    The column after samples/s is the ratio to the samples/s of trlX, or of the plain engine where trlX is not here. It is
    formed within each repeat, and the column has the median.
    """
    runs = runs.copy()
    numbers = ["samples/s", *COLUMNS.values(), "peak GiB", "reward/min", "length"]
    for name in numbers:
        runs[name] = pd.to_numeric(runs[name]) if name in runs else float("nan")
    base = TRLX if runs.loc[runs["engine"] == TRLX, "samples/s"].notna().any() else PLAIN
    against = runs[runs["engine"] == base].set_index(["size", "repeat"])["samples/s"]
    ratio = f"x {base}"
    keys = pd.MultiIndex.from_frame(runs[["size", "repeat"]])
    runs[ratio] = runs["samples/s"].to_numpy() / against.reindex(keys).to_numpy()
    runs["note"] = runs["note"].fillna("") if "note" in runs else ""
    order = ["samples/s", ratio, *numbers[1:]]
    groups = runs.groupby(["size", "engine"], sort=False)
    found = groups[order].median()
    found["note"] = groups["note"].agg(lambda notes: "; ".join(dict.fromkeys(note for note in notes if note)))
    in_order = [(size, name) for size in runs["size"].unique() for name in ENGINES]
    return found.reindex([key for key in in_order if key in found.index])


def gpt2_config(size: str) -> GPT2Config:
    """The configuration of the model of that size."""
    if SIZES[size] is None:
        return AutoConfig.from_pretrained(assets.find_model("gpt2-imdb", "tiny", None))
    return GPT2Config(**SIZES[size])


def floors(runs: pd.DataFrame) -> dict[str, tuple[floor.Round, floor.Rates]]:
    """For each size: the round that the built-in PPO ran, and this machine's rates at its shapes, measured now."""
    found = {}
    runs = runs.reindex(columns=runs.columns.union(["samples/s", "prompt", "length"]))
    ours = runs[runs["engine"] == BUILT_IN].dropna(subset="samples/s")
    for size, rows in ours.groupby("size", sort=False):
        lengths = rows[["prompt", "length"]].mean()
        shape = floor.round_shape(gpt2_config(size), default_ppo_config(), *lengths)
        found[size] = shape, floor.measure_rates(shape, PartialState().device.type, DTYPES[precision()])
    return found


def report(runs: pd.DataFrame) -> str:
    """The table of all engines, and for each size the floor of a round beside what the built-in PPO took."""
    table = tabulate(runs)
    width = DTYPES[precision()].itemsize
    texts = []
    for size, (shape, rates) in floors(runs).items():
        phases = table.loc[size, [COLUMNS[phase] for phase in floor.PHASES]]
        least = sum(rates.seconds(phase, work) for phase, work in floor.round_work(shape, width).items())
        table.loc[size, "round / floor"] = (phases.sum(axis=1, skipna=False) / least).to_numpy()
        measured = dict(zip(floor.PHASES, phases.loc[BUILT_IN], strict=True))
        texts.append(
            f"Floor of a round, {size}, and the built-in PPO. This machine: {floor.describe(rates)}.\n"
            + floor.table(shape, rates, measured, width).to_string(float_format="{:,.2f}".format)
        )
    table = table[[*table.columns.drop("note"), "note"]]
    return "\n\n".join([table.to_string(float_format="{:,.2f}".format, na_rep="-"), *texts])


def caption(repeats: int) -> str:
    """What the numbers of a table depend on, in one line."""
    device = PartialState().device.type
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{device}, {course.threads_at_first()} threads"
    )
    number = {"no": "float32"}.get(precision(), f"mixed precision {precision()}")
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return (
        f"{where}, {number}, {versions}; medians of {repeats}; seconds are those of a round of 128 samples."
    )


def main(sizes: str = "tiny,small", repeats: int = 3) -> None:
    """Measure, write every run to bench.csv among the results, and print the table.

    Args:
        sizes: some of SIZES, separated by commas.
    Raises:
        CourseError: as in `measure`.
    """
    here = course.start()
    heading = caption(repeats)
    runs = measure(list(dict.fromkeys(size.strip() for size in sizes.split(","))), repeats)
    runs.to_csv(here.out / "bench.csv", index=False)
    print(f"\n{heading}\n\n{report(runs)}\n\nEvery run: {here.show_path(here.out / 'bench.csv')}")
