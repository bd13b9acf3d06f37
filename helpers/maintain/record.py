"""Records the runs that notebooks 06 to 11 and docs/sampler-and-trainer.md show and that take too long to make there: `python -m helpers record`."""

import os
import random
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd

from helpers import course, reviews
from helpers.course import Course
from helpers.feedback.reward_model import training_data
from helpers.files import write_text
from helpers.maintain import clinic as gallery
from helpers.maintain import details as one_detail_less
from helpers.maintain import mismatch as apart
from helpers.maintain.bench.seeds import notebook_config
from helpers.maintain.stored_outputs import run_tagged
from helpers.notebooks import NOTEBOOKS
from helpers.ppo.run import Run
from helpers.ppo.train import train
from helpers.rewards import load_reward

BETAS = [0.0, 0.005, 0.02, 0.1, 0.5]
RATINGS = [10, 100, 1000]
DRAWS = 3
"""Reward models for each number of ratings, drawn anew from 1,000; those of 1,000 differ in order and random head only."""
LADDER = {
    "best of four": ("reinforce", "best_of_four", {}),
    "REINFORCE": ("reinforce", "unchanged", {}),
    "with baseline": ("reinforce", "above_mean", {}),
    "four passes": ("reinforce", "above_mean", dict(passes=4)),
    "ratio": ("ratio", "above_mean", dict(passes=4)),
    "clip": ("clipped", "above_mean", dict(passes=4)),
    "clip and price": ("clipped", "above_mean", dict(passes=4, price=0.05)),
}
"""Notebook 07's runs: objective and advantage by their names there, and what else `climb` is given."""
SAMPLED = {
    "rejection sampling": ("best", "fine_tuning"),
    "RLOO": ("rloo", "clipped"),
    "GRPO": ("grpo", "grpo_loss"),
    "GRPO, not divided": ("not_divided", "grpo_loss"),
}
"""Notebook 11's methods that `train` there runs: advantage and loss by their names."""
SEEDS = 5
HEALTHY, HEALTHY_FEEDBACK, NOTHING = 10, 5, 20
"""Seeds of notebook 06's run, of notebook 09's, and of a run that learns nothing."""
SITUATIONS = {
    "gone far: 10 ratings, then 30": (10, 30, 0.0, 96),
    "stayed near: 30 ratings, then 30": (30, 30, 0.05, 72),
}
"""Notebook 10's second rounds: ratings at first and again, the price on KL, and steps."""
SAMPLES = 8
"""Samples kept of each run: those of the first held-out prompts, the same for every run."""


def kl_lab(here: Course) -> dict[str, pd.DataFrame]:
    """Notebook 06's run once for each of `BETAS`, on the built-in engine, which is on every machine.

    Returns:
        The runs (beta, step, reward, kl: one row per evaluation on the held-out prompts, KL in nats a sample) and the samples
        of the last evaluation (beta, prompt, output, reward).
    """
    reward_fn = load_reward(here.reward_model, here.device)
    prompts, held_out = reviews.make_prompts(here)
    runs, samples = [], []
    for beta in BETAS:
        with tempfile.TemporaryDirectory() as folder:
            config = notebook_config(here).evolve(
                method=dict(init_kl_coef=beta),
                train=dict(checkpoint_dir=folder, save_best=False, eval_interval=here.steps(16)),
            )
            trainer = train(reward_fn=reward_fn, prompts=prompts, eval_prompts=held_out, config=config)
        for row in trainer.history.evals:
            runs.append(dict(beta=beta, step=row["step"], reward=row["reward/mean"], kl=row["kl"]))
        samples += [dict(beta=beta, **row) for row in trainer.eval_samples[:SAMPLES]]
        print(f"beta {beta:g}: reward {runs[-1]['reward']:.2f}, KL {runs[-1]['kl']:.1f}", flush=True)
    return {"runs": pd.DataFrame(runs), "samples": pd.DataFrame(samples)}


def goodhart(here: Course) -> dict[str, pd.DataFrame]:
    """Notebook 09's run without a KL penalty and a third longer, on reward models fitted to few and to many simulated ratings.

    Returns:
        The runs (ratings, draw, accuracy by the true taste, step, kl, proxy, gold: one row per evaluation on the held-out
        prompts) and the samples of the last evaluation (ratings, draw, prompt, output, proxy, gold).
    """
    names = run_tagged(NOTEBOOKS / "09_human_feedback.ipynb", "recipe")
    data, tested = (training_data(rated) for rated in (names["rated"]["train"], names["true_test"]))
    runs, samples = [], []
    for ratings in [n for n in RATINGS if n <= len(data)]:
        for draw in range(DRAWS):
            model = names["fit"](random.Random(draw).sample(data, ratings), seed=draw)
            accuracy = names["accuracy"](names["margins_on"](model, tested), tested).share
            with tempfile.TemporaryDirectory() as folder:
                config = names["config"].evolve(
                    method=dict(init_kl_coef=0.0),
                    train=dict(
                        total_steps=here.steps(96),
                        eval_interval=here.steps(8),
                        seed=draw,
                        checkpoint_dir=folder,
                    ),
                )
                given = {name: names[name] for name in ("prompts", "eval_prompts", "metric_fn")}
                trainer = train(reward_fn=names["normalised"](model), config=config, **given)
            run = dict(ratings=ratings, draw=draw)
            for row in trainer.history.evals:
                numbers = dict(kl=row["kl"], proxy=row["reward/mean"], gold=row["metrics/gold"])
                runs.append(run | dict(accuracy=accuracy, step=row["step"]) | numbers)
            for row in trainer.eval_samples[:SAMPLES]:
                gold = names["gold"]([row["prompt"] + row["output"]])[0]
                texts = dict(prompt=row["prompt"], output=row["output"])
                samples.append(run | texts | dict(proxy=row["reward"], gold=gold))
            print(
                f"{ratings} ratings, draw {draw}: accuracy {accuracy:.2f}, gold {runs[-1]['gold']:.2f}",
                flush=True,
            )
    return {"runs": pd.DataFrame(runs), "samples": pd.DataFrame(samples)}


def ladder(here: Course) -> dict[str, pd.DataFrame]:
    """Notebook 07's first runs with `SEEDS` seeds: run, seed, reward and kl (nats a sample) of the last round's samples."""
    names = run_tagged(NOTEBOOKS / "07_inside_ppo.ipynb", "ladder")
    names["unchanged"] = lambda rewards: rewards
    rows = []
    for seed in range(SEEDS):
        for run, (objective, advantage, more) in LADDER.items():
            history, _ = names["climb"](names[objective], names[advantage], seed=seed, **more)
            reward, kl = history[-1]
            rows.append(dict(run=run, seed=seed, reward=reward, kl=kl))
            print(f"{run}, seed {seed}: reward {reward:.2f}, KL {kl:.1f}", flush=True)
    return {"runs": pd.DataFrame(rows)}


def details(here: Course) -> dict[str, pd.DataFrame]:
    """Notebook 06's run, shorter and with longer texts, on the plain engine with one detail switched off at a time.

    Returns:
        The runs: detail, seed; kl_first (nats a sample) and ratio_first, both before anything was learned; reward and kl of the
        last evaluation on the held-out prompts; entropy (nats a token) of the last update; distinct, a share.
    """
    reward_fn = load_reward(here.reward_model, here.device)
    prompts, held_out = reviews.make_prompts(here)
    given = dict(reward_fn=reward_fn, prompts=prompts, eval_prompts=held_out)
    rows = []
    for seed in range(DRAWS):
        for detail in one_detail_less.DETAILS:
            steps = here.steps(64)
            config = notebook_config(here).evolve(
                train=dict(total_steps=steps, eval_interval=steps, seed=seed),
                method=dict(gen_kwargs=dict(max_new_tokens=48)),
            )
            history = one_detail_less.run(detail, config, **given).history
            first = dict(kl_first=history.rounds[0]["kl"], ratio_first=history.updates[0]["ratio"])
            last = dict(reward=history.evals[-1]["reward/mean"], kl=history.evals[-1]["kl"])
            more = dict(entropy=history.updates[-1]["entropy"], distinct=history.evals[-1]["distinct"])
            rows.append(dict(detail=detail, seed=seed) | first | last | more)
            print(
                f"without {detail}, seed {seed}: reward {last['reward']:.2f}, KL {last['kl']:.1f}", flush=True
            )
    return {"runs": pd.DataFrame(rows)}


def clinic(here: Course) -> dict[str, pd.DataFrame]:
    """The runs of notebook 08, to which `helpers.verdict` is held: the gallery, cured runs, healthy ones with several seeds, and runs
    that learn nothing.

    Returns:
        Their histories without times (run, seed and a column for each number: rounds, updates, evals); of the gallery the
        samples of the last evaluation (run, seed, prompt, output, reward), and what each sick run's card says (cases).
    """
    tables: dict[str, list[dict]] = {"rounds": [], "updates": [], "evals": [], "samples": []}

    def keep(run: str, seed: int, trainer: Run, samples: int = 0) -> None:
        rows = vars(trainer.history) | {"samples": trainer.eval_samples[:samples]}
        for name, table in rows.items():
            table = [{k: v for k, v in row.items() if not k.startswith("seconds_")} for row in table]
            tables[name] += [dict(run=run, seed=seed) | row for row in table]
        print(f"{run}, seed {seed}: reward {trainer.history.rounds[-1]['reward']:.2f}", flush=True)

    for run in (*gallery.HEALTHY, *gallery.CASES):
        keep(run, 2, gallery.run(here, run), SAMPLES)
    for seed in range(HEALTHY):
        keep("notebook 06", seed, gallery.run(here, "healthy", seed, notebook_config(here).train.total_steps))
    for seed in range(NOTHING):
        keep("learns nothing", seed, gallery.run(here, "learns nothing", seed))
    for seed in range(HEALTHY_FEEDBACK):
        keep("notebook 09", seed, gallery.feedback_run(None, seed), SAMPLES)
    cards = [
        {"run": run} | {name: getattr(case, name) for name in ("what", "sure", "cure", "after", "tell")}
        for run, case in gallery.CASES.items()
    ]
    return {name: pd.DataFrame(rows) for name, rows in (tables | {"cases": cards}).items()}


def ensemble(here: Course) -> dict[str, pd.DataFrame]:
    """Notebook 10's run with `SEEDS` seeds on each of its three reward models of ten ratings, on the minimum and the mean of the three,
    and on one model fitted to the thirty ratings.

    Returns:
        The runs (reward, seed, step, KL, proxy, gold: one row per evaluation on the held-out prompts).
    """
    names = run_tagged(NOTEBOOKS / "10_goodhart.ipynb", "goodhart")
    rewards = {f"draw {draw}": member for draw, member in enumerate(names["members"])}
    thirty = [row for ten in names["tens"] for row in ten]
    rewards |= dict(minimum=names["least"], mean=names["average"])
    rewards["all thirty"] = names["normalised"](names["fitted"](thirty))
    rows = []
    for seed in range(SEEDS):
        for reward, reward_fn in rewards.items():
            table = names["curve"](names["train"](reward_fn, seed))
            rows += [dict(reward=reward, seed=seed) | row for row in table.to_dict("records")]
            print(f"{reward}, seed {seed}: gold {rows[-1]['gold']:.2f}", flush=True)
    return {"runs": pd.DataFrame(rows)}


def rated_again(names: dict, data: list, again: str, ratings: list, settings: dict) -> tuple[Run, list[dict]]:
    """The trainer of a run on a reward model of `data` and of `ratings` that came later, and a row for each of its looks."""
    data = data + (training_data(ratings) if ratings else [])
    model = names["fitted"](data, settings["seed"])
    trainer = names["train"](names["normalised"](model), **settings)
    about = {"rated again": again, "ties": sum(rating.choice == "tie" for rating in ratings)}
    return trainer, [about | row for row in names["curve"](trainer).to_dict("records")]


def second_round(here: Course) -> dict[str, pd.DataFrame]:
    """Notebook 10's second round in each of `SITUATIONS`, with `SEEDS` draws of the first ratings.

    Returns:
        The runs (situation, draw, rated again, ties among the new ratings, step, KL, proxy, gold: one row per evaluation on the held-out
        prompts).
    """
    names = run_tagged(NOTEBOOKS / "10_goodhart.ipynb", "goodhart")
    rows = []
    for situation, (first, more, beta, total) in SITUATIONS.items():
        for draw in range(SEEDS):
            drawn = random.Random(draw).sample(names["data"], first)
            settings = dict(seed=draw, beta=beta, total=total)
            about = {"situation": situation, "draw": draw}
            trainer, looks = rated_again(names, drawn, "nothing", [], settings)
            rows += [about | look for look in looks]
            new = trainer.model.eval()
            asked = dict(count=more, seed=100 + draw)
            for again, policy in {"old": names["reference"], "new": new, "old and new": new}.items():
                ratings = names["rate"](policy, pairs_of="old and new" if " " in again else "new", **asked)
                rows += [about | look for look in rated_again(names, drawn, again, ratings, settings)[1]]
                print(f"{situation}, draw {draw}, {again}: gold {rows[-1]['gold']:.2f}", flush=True)
    return {"runs": pd.DataFrame(rows)}


def methods(here: Course) -> dict[str, pd.DataFrame]:
    """Notebook 11's methods with `SEEDS` seeds, on one set of ratings and one reward model.

    Returns:
        The runs: method, seed; look, its number; KL (nats a sample) and gold of the held-out samples.
    """
    names = run_tagged(NOTEBOOKS / "11_beyond_ppo.ipynb", "methods")
    calls = {
        method: partial(names["train"], names[advantage], names[loss])
        for method, (advantage, loss) in SAMPLED.items()
    } | {"PPO": names["ppo"], "DPO": names["dpo"]}
    rows = []
    for seed in range(SEEDS):
        for method, call in calls.items():
            looks = call(seed=seed)[1]
            run = dict(method=method, seed=seed)
            rows += [
                run | dict(look=i, KL=look["KL"].mean(), gold=look["gold"].mean())
                for i, look in enumerate(looks)
            ]
            print(f"{method}, seed {seed}: gold {rows[-1]['gold']:.2f}, KL {rows[-1]['KL']:.1f}", flush=True)
    return {"runs": pd.DataFrame(rows)}


def mismatch(here: Course) -> dict[str, pd.DataFrame]:
    """How far sampler and trainer are apart where one thing differs (gaps), and RLOO from such samplers with `SEEDS` seeds, with
    and without importance weights (sampler, weights, seed, and what `mismatch.run` gives): docs/sampler-and-trainer.md.
    """
    gaps, runs = apart.gaps(here), []
    for seed in range(SEEDS):
        for sampler, weights in apart.RUNS:
            runs.append(
                dict(sampler=sampler, weights=weights, seed=seed) | apart.run(here, sampler, weights, seed)
            )
            reward, kl = runs[-1]["reward"], runs[-1]["kl"]
            print(f"{sampler}, weights {weights}, seed {seed}: reward {reward:.2f}, KL {kl:.1f}", flush=True)
    return {"gaps": pd.DataFrame(gaps), "runs": pd.DataFrame(runs)}


def main(folder: Path = NOTEBOOKS / "data") -> None:
    """Write {kl_lab,goodhart}_{runs,samples}.csv, {ladder,details,ensemble,second_round,methods,mismatch}_runs.csv, mismatch_gaps.csv and
    clinic_*.csv into `folder`, each whole or not at all.

    Raises:
        CourseError: a file cannot be written.
    """
    os.environ["RLHF_SCALE"] = "tiny"  # the scale of all outputs that are stored with the course, and in full
    os.environ.pop("RLHF_BUDGET", None)
    here = course.start()
    folder.mkdir(parents=True, exist_ok=True)
    for recording in (kl_lab, goodhart, ladder, details, clinic, ensemble, second_round, methods, mismatch):
        for name, table in recording(here).items():
            path = folder / f"{recording.__name__}_{name}.csv"
            write_text(path, table.round(4).to_csv(index=False, lineterminator="\n"))
            print(f"recorded {here.show_path(path)}")
