"""The course from the command line: `python -m helpers --help`."""

import argparse
import errno
import os
import sys
import time
from pathlib import Path

from helpers import course, files
from helpers.errors import CourseError, chain
from helpers.terminal import printable

REVIEWS_PART = "imdb/plain_text"

# errors of the machine, which say nothing about the file
NOT_ITS_OWN = {errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EIO}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 (doctor found something), 2 (something to put right)."""
    args = parser().parse_args(arguments)
    try:
        return args.command(args) or 0
    except CourseError as error:
        let_the_main_process_speak()
        print(f"\n{printable(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name.startswith("helpers"):
            raise
        print(
            f"\nThe Python package {error.name} is missing: `make course` installs everything, `python -m helpers doctor` "
            "says what is needed.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def let_the_main_process_speak() -> None:
    """Of several processes that met the same error one is to say so; the launcher ends the others when it does.

    The first to end would silence the rest, so the others wait, and speak where the main process had nothing to say.
    """
    if int(os.environ.get("RANK", 0)):
        time.sleep(10)


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    top = argparse.ArgumentParser(
        prog="python -m helpers", description="The RLHF course from the command line."
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(function, name, help):
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(command=function)
        return added

    command(doctor, "doctor", "Check that everything the course needs is here.")
    command(trlx, "trlx", "Install the real trlX beside what is there, replacing nothing.")
    command(run, "run", "Run all notebooks in order and end with a table of what was learned.")
    add = command(
        config, "config", "Print the configuration of notebook 06 as YAML, each setting explained."
    ).add_argument
    add(
        "--scale", choices=["tiny", "full"], help="whose numbers: those of the course's own scale if left out"
    )
    add = command(train, "train", "Fine-tune a language model by PPO, without a notebook.").add_argument
    add("--config", required=True, metavar="FILE", help="a TRLConfig as YAML")
    add("--prompts", required=True, metavar="FILE", help="one prompt a line")
    add(
        "--reward",
        required=True,
        metavar="MODEL",
        help="a text classifier: P(POSITIVE) of a sample is its reward",
    )
    add("--out", metavar="DIR", help="where the tuned model goes")
    add(
        "--minutes",
        type=float,
        metavar="M",
        help="end in time, with a checkpoint to go on from (train.resume_from_checkpoint)",
    )
    add = command(
        bench, "bench", "Compare the engines: samples a second, seconds by phase, memory, reward a minute."
    ).add_argument
    add("--sizes", default="tiny,small", help="some of tiny, small, medium, large, xl (tiny,small)")
    add("--repeats", type=int, default=3, metavar="N", help="runs of each, of which the median counts (3)")
    add(
        "--seeds", type=int, default=0, metavar="N", help="train with N seeds instead: how reliably it learns"
    )
    command(
        record,
        "record",
        "Train the runs that notebook 06's KL lab and notebook 08's Goodhart curves show, and store them.",
    )
    add = command(
        prefetch, "prefetch", "Fill a folder that stands in for the hub (RLHF_ASSETS)."
    ).add_argument
    add("folder", metavar="DIR", type=Path)
    add = command(
        store, "notebooks", "Run the notebooks at tiny scale and store their outputs in them."
    ).add_argument
    add("names", nargs="*", metavar="NAME", help="such as 03_pipeline.ipynb; all where none is given")
    publishing = command(
        publish, "publish", "Write where the course lives into every notebook and README.md."
    )
    where = publishing.add_mutually_exclusive_group(required=True)
    where.add_argument("repository", nargs="?", metavar="OWNER/NAME", help="the GitHub repository")
    where.add_argument("--unpublish", action="store_true", help="take it out again")
    publishing.add_argument("--branch", default="main", help="the branch that readers get (main)")
    return top


def doctor(args) -> int:
    checks = course.environment()
    rows = [("OK" if check.ok else "FAIL", check.name, check.found, check.advice) for check in checks]
    print_table(rows)
    failed = sum(not check.ok for check in checks)
    print(f"\n{failed} of {len(checks)} need something done." if failed else "\nEverything needed is here.")
    return 1 if failed else 0


def trlx(args) -> int:
    from helpers import trlx_install

    return 0 if trlx_install.install() else 1


def run(args) -> None:
    here = course.start()
    from helpers import notebooks

    path = here.out / "result.json"
    if path.exists():  # so that the table cannot show an earlier run
        print(f"The results so far are kept in {files.set_aside(path, 'before').name}.")
    started = time.monotonic()
    copies = notebooks.run(here)
    minutes = (time.monotonic() - started) / 60
    result = here.load_result()
    wanted = ("reward_before", "reward_after", "kl", "minutes", "distinct", "model_path", "curve_path")
    wanted += ("feedback_rater", "feedback_accuracy", "feedback_gold_before", "feedback_gold_after")
    lacking = [name for name in wanted if name not in result]
    if lacking:
        raise CourseError(
            f"All notebooks ran, but left no {', '.join(lacking)} in {here.show_path(here.out / 'result.json')}: the last "
            "cells of 06_train.ipynb and 08_human_feedback.ipynb save them with here.save_result(...)."
        )
    print()
    print_table(
        [
            ("Reward, held-out prompts", f"{result['reward_before']:.2f} -> {result['reward_after']:.2f}"),
            ("KL to the reference", f"{result['kl']:.1f} nats a sample"),
            ("Distinct samples", f"{result['distinct']:.0%}"),
            ("Training", f"{result['minutes']:.1f} minutes (all notebooks: {minutes:.1f})"),
            (
                "Human feedback",
                f"{result['feedback_rater']}: reward model right on {result['feedback_accuracy']:.0%} of held-out pairs, "
                f"simulated taste {result['feedback_gold_before']:.2f} -> {result['feedback_gold_after']:.2f}",
            ),
            ("Engine", here.engine),
            (
                "Scale",
                f"{here.scale}, on {here.device}" + (f", budget {here.budget:g}" if here.budget != 1 else ""),
            ),
            ("Executed notebooks", f"{here.show_path(copies[0].parent)}/"),
            ("Tuned model", result["model_path"]),
            ("Reward curve", result["curve_path"]),
        ]
    )


def config(args) -> None:
    from helpers import config_cli

    config_cli.main(args.scale)


def train(args) -> None:
    from helpers import train_cli

    train_cli.main(args.config, args.prompts, args.reward, args.out, args.minutes)


def bench(args) -> None:
    from helpers import bench, seeds

    if args.seeds:
        seeds.main(args.seeds)
    else:
        bench.main(args.sizes, args.repeats)


def record(args) -> None:
    from helpers import record

    record.main()


def store(args) -> None:
    from helpers import notebooks

    for path in notebooks.store_outputs(args.names):
        print(f"stored outputs in {path.relative_to(course.ROOT)}")


def publish(args) -> None:
    from helpers import publish

    if not args.unpublish and not args.repository:
        raise CourseError("Which repository? make publish REPO=owner/name")
    place = publish.Place() if args.unpublish else publish.Place(args.repository, args.branch)
    changed = publish.publish(place)
    for path in changed:
        print(f"stamped {path.relative_to(course.ROOT)}")
    if not changed:
        print("everything was stamped so already")


def prefetch(args) -> None:
    """Fill an assets folder. Each part appears whole or not at all, so this can be stopped and run again."""
    course.send_nothing_home()
    course.quiet()
    folder = args.folder.expanduser().absolute()
    for name, hub_id in [*course.MODELS.items(), (REVIEWS_PART, course.REVIEWS)]:
        if is_there(folder, name):
            print(f"{name}: already there", flush=True)
            continue
        files.check_folder(folder / name)
        if not course.hub_answers() and not course.all_cached():
            raise CourseError(
                f"{name} has to come from huggingface.co, which does not answer. Run this where it does."
            )
        print(f"{name}: fetching {hub_id} at {course.REVISIONS[hub_id]} ...", flush=True)
        fetch_part(folder / name, name, hub_id)
    course.check_assets(folder)
    print(f"\nComplete. To use it at full scale: RLHF_ASSETS={folder} make course")


def is_there(folder: Path, name: str) -> bool:
    """Whether a part is complete and can be loaded. What is damaged is renamed: it may be somebody's all the same.

    Raises:
        CourseError: it could not be loaded for a reason that is not its own, such as a package or memory that is lacking.
    """
    place = folder / name
    if any(part.startswith(f"{name}/") for part in course.missing_parts(folder)):
        return False
    try:
        load_part(name, str(place))
    except Exception as error:  # the libraries have many kinds for what is damaged, and few for the rest
        if any(
            isinstance(cause, (ImportError, MemoryError))
            or getattr(cause, "errno", None) in NOT_ITS_OWN
            or "memory" in str(cause).lower()
            for cause in chain(error)
        ):
            raise CourseError(
                f"{place} could not be loaded, and may be whole: {files.reason(error)}. It is as it was."
            ) from error
        aside = files.set_aside(place, "damaged")
        print(f"{name}: could not be loaded ({files.reason(error)}). It is {aside} now.", flush=True)
        return False
    return True


def fetch_part(target: Path, name: str, hub_id: str) -> None:
    """Fetch one part into its place; files of other names that are there stay.

    Raises:
        CourseError: it could not be fetched, or not be written.
    """
    try:
        pieces = load_part(name, hub_id)
    except Exception as error:  # the hub's client raises many kinds
        raise CourseError(
            f"{name} could not be fetched from huggingface.co ({hub_id}): {files.reason(error)}\n"
            "The parts fetched so far are kept: run the same command again where there is a network."
        ) from error

    def write(place: Path) -> None:
        for kind, piece in pieces.items():
            if hasattr(piece, "to_parquet"):
                piece.to_parquet(place / Path(course.REVIEW_FILES[kind]).name)
            else:
                piece.save_pretrained(place)

    files.write_folder(target, write)


def load_part(name: str, source: str) -> dict:
    """A model and its tokenizer, or the reviews' two splits, from the hub or a folder; nothing in it is run."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from helpers import weights

    if name == REVIEWS_PART:
        revision = None if Path(source).is_dir() else course.REVISIONS[source]
        return {
            split: datasets.load_dataset(source, split=split, revision=revision)
            for split in course.REVIEW_FILES
        }
    if not Path(source).is_dir():
        source = course.fetch_model(source)
    head = AutoModelForSequenceClassification if name == "distilbert-imdb" else AutoModelForCausalLM
    return {
        "model": weights.load_model(head, source, "the model", dtype="auto"),
        "tokenizer": weights.load_tokenizer(source, "the tokenizer"),
    }


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as their widest cell."""
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
