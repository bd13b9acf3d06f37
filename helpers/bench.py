"""Which engine is how fast, how much memory it takes and how soon it learns: `python -m helpers bench`.

Every engine that is here trains the same model on the same prompts and the same reward: the built-in PPO, the same computed
the plain way, the real trlX, and TRL's RLOO, the nearest thing that TRL still has to PPO. A round is what trlX's defaults
make of it: 128 rollouts of 40 tokens, four epochs of batches of 32, the top two blocks unfrozen. Every response has all of
its 40 tokens, so that all do the same work.

What RLOO does otherwise: two responses to each of 64 prompts in place of one to each of 128, an advantage from the other
response in place of a value head, one ratio for a whole response, and its own AdamW. It unfreezes the same blocks.

Times depend on the machine and on what else it is doing: engines take turns, a ratio is formed within one turn, and the
table has medians. Compare rows of one table, not tables. helpers/floor.py says how fast a round could be.

`--seeds N` trains notebook 06's run with N seeds instead: how reliably it learns.
"""

import functools
import importlib.metadata
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
import transformers
from accelerate import Accelerator, PartialState
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from helpers import course, engine, floor, reviews, trlx_install
from helpers.compare import continue_prompts
from helpers.course import GIB, Course
from helpers.errors import CourseError
from helpers.notebooks import NOTEBOOKS, run_tagged
from helpers.ppo.config import TRLConfig, default_ppo_config
from helpers.ppo.policy import freeze_below
from helpers.ppo.train import train
from helpers.ppo.trainer import HALF, PPOTrainer
from helpers.train_cli import load_reward

PHASES = ("sample", "score", "forward", "update")
COLUMNS = {"sample": "sample, s", "score": "score, s", "forward": "look back, s", "update": "update, s"}
RESPONSE = 40  # tokens
DTYPES = {"no": torch.float32} | HALF

# The course's tiny model as it is, and GPT-2's published shapes, for which random weights will do.
SIZES = {
    "tiny": None,
    "small": dict(n_layer=12, n_embd=768, n_head=12),
    "medium": dict(n_layer=24, n_embd=1024, n_head=16),
    "large": dict(n_layer=36, n_embd=1280, n_head=20),
}


def measure(sizes=("tiny", "small"), repeats: int = 3, rounds: int | None = None) -> pd.DataFrame:
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
    """One round takes long enough to be measured, but where it is over in seconds."""
    return 4 if size == "tiny" or PartialState().device.type != "cpu" else 1


def model_folder(size: str, folder: Path) -> Path:
    """Where the model of that size is; one with random weights is made in `folder`."""
    if SIZES[size] is None:
        return Path(course.find_models("tiny", None)[1])
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
    command = [sys.executable, "-m", "helpers.bench", json.dumps({"engine": name, **task})]
    result = subprocess.run(command, cwd=course.ROOT, capture_output=True, text=True)
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


def run_here(task: dict) -> dict:
    """Train once in this process; the row of `measure`, without size, engine and repeat."""
    course.quiet()
    reward_fn, prompts, held_out = material(task["size"])
    model, watch, length = ENGINES[task["engine"]](task, reward_fn, prompts)
    peak = peak_bytes()
    gain = None
    if held_out:
        untrained = AutoModelForCausalLM.from_pretrained(task["model"])
        before, after = (mean_reward(m, task, reward_fn, held_out) for m in (untrained, model))
        gain = (after - before) / watch.total * 60
    seconds = {phase: spent / task["rounds"] for phase, spent in watch.seconds.items()}
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    return {
        "samples/s": recipe(task).method.num_rollouts * task["rounds"] / watch.total,
        **{COLUMNS[phase]: seconds[phase] for phase in PHASES},
        "peak GiB": peak / GIB,
        "reward/min": gain,
        "length": length,
        "prompt": statistics.mean(map(len, tokenizer(prompts)["input_ids"])),
    }


def material(size: str) -> tuple:
    """(reward function, prompts, held-out prompts): film reviews and their judge, or random words, a count and none."""
    if SIZES[size] is None:
        models = course.find_models("tiny", None)
        here = Course("tiny", PartialState().device.type, "", *models, out=Path())
        return load_reward(here.reward_model, here.device), *reviews.make_prompts(here)
    draw = random.Random(0)
    prompts = [" ".join(f"w{draw.randrange(50_000)}" for _ in range(draw.randint(4, 9))) for _ in range(640)]
    return (lambda samples, **_: [sample.count("7") / 50 for sample in samples]), prompts, []


def mean_reward(model, task: dict, reward_fn, prompts: list[str]) -> float:
    """The mean reward on held-out prompts, with the same seed for every model."""
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    length = dict(max_new_tokens=RESPONSE, min_new_tokens=RESPONSE)
    outputs = continue_prompts(model.to(PartialState().device), tokenizer, prompts, **length)
    return statistics.mean(reward_fn([a + b for a, b in zip(prompts, outputs, strict=True)]))


def recipe(task: dict) -> TRLConfig:
    """trlX's defaults; the tiny model learns at notebook 06's rate."""
    steps_per_round = 16  # four epochs of four batches
    config = default_ppo_config().evolve(
        model=dict(model_path=task["model"]),
        tokenizer=dict(tokenizer_path=task["model"]),
        train=dict(total_steps=steps_per_round * task["rounds"], seq_length=64, save_best=False),
        method=dict(gen_kwargs=dict(max_new_tokens=RESPONSE, min_new_tokens=RESPONSE)),
    )
    # no evaluation but the first and the last
    config = config.evolve(train=dict(eval_interval=config.train.total_steps))
    if SIZES[task["size"]] is None:
        rate = 25 / AutoConfig.from_pretrained(task["model"]).hidden_size ** 2
        config = config.evolve(
            optimizer=dict(kwargs=dict(lr=rate)), scheduler=dict(kwargs=dict(eta_min=rate))
        )
    return config


class Stopwatch:
    """Seconds of training, in all and by phase. What the phases do not name, such as the optimizer, counts as update."""

    def __init__(self):
        self.total = 0.0
        self.named = {"sample": 0.0, "score": 0.0, "forward": 0.0}
        self.went_on: float | None = None  # when it last began to run

    def go(self) -> None:
        self.went_on = now()

    def pause(self) -> None:
        if self.went_on is not None:
            self.total += now() - self.went_on
        self.went_on = None

    @property
    def seconds(self) -> dict[str, float]:
        return self.named | {"update": self.total - sum(self.named.values())}


def now() -> float:
    """Seconds, when the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Listener(Stopwatch):
    """A stopwatch for PPO: it rests while a run evaluates or tries its reward function, and nothing is saved."""

    def start(self, trainer) -> None:
        trainer.evaluate, trainer.resume = (
            self.not_counted(trainer.evaluate),
            self.not_counted(trainer.resume),
        )
        trainer.save_checkpoint_if_due = lambda over: None
        self.go()

    def not_counted(self, method):
        @functools.wraps(method)
        def wrapper(*args, **kwargs):
            self.pause()
            try:
                return method(*args, **kwargs)
            finally:
                self.go()

        return wrapper

    def progress(self, trainer) -> None: ...

    def end(self, trainer) -> None:
        self.pause()
        for row in trainer.history.rounds:
            for phase in self.named:
                self.named[phase] += row[f"seconds_{phase}"]


def ppo(run, task: dict, reward_fn, prompts, **options) -> tuple:
    """(model, stopwatch, mean length of a response) of a run of PPO with trlX's interface."""
    watch = Listener()
    with tempfile.TemporaryDirectory() as folder:
        config = recipe(task).evolve(train=dict(checkpoint_dir=folder))
        trainer = run(
            reward_fn=reward_fn,
            prompts=prompts,
            eval_prompts=prompts[:2],
            config=config,
            listeners=[watch],
            **options,
        )
    return trainer.model, watch, statistics.mean(row["length"] for row in trainer.history.rounds)


def plain(task: dict, *args) -> tuple:
    return ppo(train, task, *args, trainer_class=PPOTrainer)


def built_in(task: dict, *args) -> tuple:
    return ppo(train, task, *args)


def real_trlx(task: dict, *args) -> tuple:
    from helpers import trlx_bridge

    return ppo(trlx_bridge.train, task, *args)


def rloo(task: dict, reward_fn, prompts) -> tuple:
    """(model, stopwatch, mean length of a response) of TRL's RLOO, as near to `recipe` as it can be set."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import RLOOConfig, RLOOTrainer

    config, watch, lengths = recipe(task), Stopwatch(), []
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    freeze_below(model, config.model.num_layers_unfrozen)
    tokenizer = AutoTokenizer.from_pretrained(task["model"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    generate, sampled_at = model.generate, 0.0

    def timed_generate(*args, **kwargs):
        nonlocal sampled_at
        began = now()
        try:
            return generate(*args, **kwargs)
        finally:
            sampled_at = now()
            watch.named["sample"] += sampled_at - began

    def timed_reward(prompts, completions, completion_ids, **_):
        began = now()  # between sampling and the reward RLOO looks back
        watch.named["forward"] += began - sampled_at
        lengths.extend(map(len, completion_ids))
        rewards = reward_fn([a + b for a, b in zip(prompts, completions, strict=True)])
        watch.named["score"] += now() - began
        return rewards

    class Watched(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            watch.go()

        def on_train_end(self, *args, **kwargs):
            watch.pause()

    method, precision = config.method, os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    adam = config.optimizer.kwargs
    with tempfile.TemporaryDirectory() as folder:
        settings = RLOOConfig(
            output_dir=folder,
            per_device_train_batch_size=config.train.batch_size,
            generation_batch_size=method.num_rollouts,
            num_generations=2,
            num_iterations=method.ppo_epochs,
            max_steps=config.train.total_steps,
            max_completion_length=RESPONSE,
            generation_kwargs=dict(min_new_tokens=RESPONSE),
            beta=method.init_kl_coef,
            epsilon=method.cliprange,
            learning_rate=adam["lr"],
            lr_scheduler_type="constant",
            adam_beta1=adam["betas"][0],
            adam_beta2=adam["betas"][1],
            weight_decay=adam["weight_decay"],
            disable_dropout=True,
            gradient_checkpointing=False,  # it would save memory and cost time; trlX does without
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            use_cpu=PartialState().device.type == "cpu",
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = RLOOTrainer(
            model,
            timed_reward,
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            callbacks=[Watched()],
        )
        model.generate = timed_generate
        trainer.train()
    del model.generate
    return model.eval(), watch, statistics.mean(lengths)


OPTIONAL = {"trlX": "trlx", "TRL RLOO": "trl"}  # the package that each needs
ENGINES = {"built-in": built_in, "built-in, plain": plain, "trlX": real_trlx, "TRL RLOO": rloo}


def peak_bytes() -> int:
    """The most memory that was taken so far: on a GPU by torch's tensors, on a CPU by this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:  # not from getrusage, where a new process begins with the memory of the one that started it
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except OSError:
        import psutil

        memory = psutil.Process().memory_info()
        if hasattr(memory, "peak_wset"):  # Windows
            return memory.peak_wset
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, in bytes


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per size and engine: medians over the repeats of what `measure` gave.

    The column after samples/s is the ratio to trlX's, or to the plain way's where trlX is not here: of each repeat, then the
    median.
    """
    runs = runs.copy()
    numbers = ["samples/s", *COLUMNS.values(), "peak GiB", "reward/min", "length"]
    for name in numbers:
        runs[name] = pd.to_numeric(runs[name]) if name in runs else float("nan")
    base = "trlX" if runs.loc[runs["engine"] == "trlX", "samples/s"].notna().any() else "built-in, plain"
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
        return AutoConfig.from_pretrained(course.find_models("tiny", None)[1])
    return GPT2Config(**SIZES[size])


def floors(runs: pd.DataFrame) -> dict[str, tuple[floor.Round, floor.Rates]]:
    """For each size: the round that the built-in PPO ran, and this machine's rates at its shapes, measured now."""
    found = {}
    runs = runs.reindex(columns=runs.columns.union(["samples/s", "prompt", "length"]))
    ours = runs[runs["engine"] == "built-in"].dropna(subset="samples/s")
    for size, rows in ours.groupby("size", sort=False):
        lengths = rows[["prompt", "length"]].mean()
        shape = floor.round_shape(gpt2_config(size), default_ppo_config(), *lengths)
        found[size] = shape, floor.measure_rates(shape, PartialState().device.type, DTYPES[precision()])
    return found


def precision() -> str:
    """Accelerate's word for the precision: no, fp16 or bf16."""
    return Accelerator().mixed_precision


def report(runs: pd.DataFrame) -> str:
    """The table of all engines, and for each size the floor of a round beside what the built-in PPO took."""
    table = tabulate(runs)
    width = DTYPES[precision()].itemsize
    texts = []
    for size, (shape, rates) in floors(runs).items():
        phases = table.loc[size, [COLUMNS[phase] for phase in floor.PHASES]]
        least = sum(rates.seconds(phase, work) for phase, work in floor.round_work(shape, width).items())
        table.loc[size, "round / floor"] = (phases.sum(axis=1, skipna=False) / least).to_numpy()
        measured = dict(zip(floor.PHASES, phases.loc["built-in"], strict=True))
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
        torch.cuda.get_device_name() if device == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    )
    number = {"no": "float32"}.get(precision(), f"mixed precision {precision()}")
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return (
        f"{where}, {number}, {versions}; medians of {repeats}; seconds are those of a round of 128 samples."
    )


def seeds(count: int) -> pd.DataFrame:
    """Notebook 06's run with `count` seeds on each engine here: reward before and after, KL, distinct, seconds."""
    here = course.start()
    reward_fn = load_reward(here.reward_model, here.device)
    prompts, held_out = reviews.make_prompts(here)
    rows = []
    for engine_name, run in engines().items():
        for seed in range(count):
            folder = here.out / "bench" / engine_name / f"seed{seed}"
            config = notebook_config(here).evolve(train=dict(seed=seed, checkpoint_dir=str(folder)))
            began = time.perf_counter()
            history = run(reward_fn=reward_fn, prompts=prompts, eval_prompts=held_out, config=config).history
            row = {"engine": engine_name, "seed": seed, **outcome(history)}
            rows.append({**row, "seconds": time.perf_counter() - began})
            print(f"{engine_name}, seed {seed}: {row['before']:.2f} -> {row['after']:.2f}", flush=True)
    return pd.DataFrame(rows).set_index(["engine", "seed"])


def engines() -> dict:
    """The engines that are here, and how each trains: the built-in PPO, and trlX where it is installed."""
    found = {"built-in": train}
    if trlx_install.installed():
        from helpers import trlx_bridge

        found["trlX"] = trlx_bridge.train
    return found


def outcome(history) -> dict:
    """What a run came to, in the numbers that two runs are compared by."""
    first, last = history.evals[0], history.evals[-1]
    return {
        "before": first["reward/mean"],
        "after": last["reward/mean"],
        "KL": last["kl"],
        "largest KL": max(row["kl"] for row in history.rounds),
        "distinct": last["distinct"],
    }


def notebook_config(here: Course) -> TRLConfig:
    """What notebook 06 calls `config`: its cell tagged so is run, so that there is one recipe and not two."""
    names = run_tagged(NOTEBOOKS / "06_train.ipynb", "config", here=here, AutoConfig=AutoConfig, trlx=engine)
    return names["config"]


def main(seed_count: int = 0, sizes: str = "tiny,small", repeats: int = 3) -> None:
    if seed_count:
        print(seeds(seed_count).round(2).to_string())
        return
    here = course.start()
    heading = caption(repeats)
    runs = measure(list(dict.fromkeys(size.strip() for size in sizes.split(","))), repeats)
    runs.to_csv(here.out / "bench.csv", index=False)
    print(f"\n{heading}\n\n{report(runs)}\n\nEvery run: {here.show_path(here.out / 'bench.csv')}")


if __name__ == "__main__":
    print(json.dumps(run_here(json.loads(sys.argv[1]))))
