"""The course from the command line: `python -m helpers --help`."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from helpers import course, files
from helpers.errors import CourseError
from helpers.project.rewards import FORMS
from helpers.terminal import print_whatever_comes, printable


def main(arguments: list[str] | None = None) -> int:
    """Run one command, and return its exit status: 0, 1 (doctor found something) or 2 (something to put right)."""
    print_whatever_comes()
    args = parser().parse_args(with_negative_weights(sys.argv[1:] if arguments is None else arguments))
    course.wait_without_spinning()
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
            f"\nThe Python package {error.name} is missing: `make course`, or README.md's lines without make, install everything; "
            "`python -m helpers doctor` says what is needed.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        if not int(os.environ.get("RANK", 0)):
            print("\nStopped.", file=sys.stderr)
        return 130


def with_negative_weights(arguments: list[str]) -> list[str]:
    """The arguments, with `--reward -0.2*words>=40` as one: argparse takes what begins with a dash for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--reward" and re.match(r"-[\d.]", argument):
            joined[-1] = f"--reward={argument}"
        else:
            joined.append(argument)
    return joined


def let_the_main_process_speak() -> None:
    """Wait, in every process but the main one, so that one process tells of an error that all of them met.

    The launcher ends all when the first has ended. The others speak where the main process had nothing to say.
    """
    if int(os.environ.get("RANK", 0)):
        time.sleep(10)


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    top = argparse.ArgumentParser(
        prog="python -m helpers", description="The RLHF course from the command line."
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(function: Callable, name: str, help: str, more: str | None = None) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=help,
            description=help,
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter if more else argparse.HelpFormatter,
        )
        added.set_defaults(command=function)
        return added

    add_commands_for_learners(command)
    add_commands_for_maintainers(command)
    return top


def add_commands_for_learners(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what runs, trains and looks after the course; `command` adds one and returns its parser."""
    command(doctor, "doctor", "Check that everything the course needs is here.")
    command(trlx, "trlx", "Install the real trlX beside what is there, replacing nothing.")
    adding = command(install, "install", "Install packages that are missing, replacing none that is here.")
    which = "such as trl; what the course needs where none is given"
    adding.add_argument("requirements", nargs="*", metavar="NAME", help=which)
    command(run, "run", "Run all notebooks in order and end with a table of what was learned.")
    command(test, "test", "Run every test, and every notebook with a tenth of the training.")
    add = command(
        config, "config", "Print the configuration of notebook 06 as YAML, each setting explained."
    ).add_argument
    whose = "whose numbers: those of the course's own scale if left out"
    add("--scale", choices=["tiny", "full"], help=whose)
    add("--method", choices=["ppo", "rloo", "grpo"], default="ppo", help="what takes PPO's place (ppo)")
    by_method = "Fine-tune a language model by PPO, RLOO or GRPO, without a notebook."
    add = command(train, "train", by_method, FORMS).add_argument
    prompts = (
        "a file: .txt with one prompt a line; or .csv, .tsv, .jsonl, .json, .parquet with a column prompt or text; or a data set "
        "on the hub, NAME or NAME:COLUMN"
    )
    add("--prompts", required=True, metavar="PROMPTS", help=prompts)
    add(
        "--words",
        type=int,
        metavar="N",
        help="the first N words of each text are a prompt, as for whole reviews",
    )
    reward = "what is paid, see below; given several times, their sum"
    add("--reward", required=True, action="append", metavar="REWARD", help=reward)
    whose = "what notebook 06 trains with, where left out"
    add("--config", metavar="FILE", help=f"a TRLConfig as YAML; {whose}")
    add(
        "--model",
        metavar="MODEL",
        help="the model to fine-tune, a folder or a name on the hub: the configuration's if left out",
    )
    add("--out", metavar="DIR", help="where the tuned model goes")
    add("--resume", action="store_true", help="go on from the newest checkpoint of this run")
    in_time = "end in time, with a checkpoint to go on from"
    add("--minutes", type=float, metavar="M", help=in_time)
    add = command(
        verdict, "verdict", "Say in words whether a run was healthy, from its checkpoint or history."
    ).add_argument
    add("run", metavar="FOLDER|FILE", type=Path, help="the folder of its checkpoints, or its history as JSON")
    add = command(
        progress,
        "progress",
        "Say which exercises are solved, from out/progress.json; of yourself, or of a class.",
    ).add_argument
    add("--page", metavar="FILE.html", type=Path, help="write a page to print, too")
    add("--name", default="", metavar="NAME", help="whose page it is")
    of = "the table of a class in place of your own: a folder with each student's progress.json, of any name"
    add("--class", dest="students", metavar="DIR", type=Path, help=of)
    pooling = command(
        pool,
        "pool",
        "Put the ratings of a class together: who rated how many, how far they agree, what most chose, and one file for a reward model.",
    )
    of = "a folder with each student's ratings.jsonl, of any names that end in .jsonl; pooled.jsonl is written there"
    pooling.add_argument("folder", metavar="DIR", type=Path, help=of)
    add = command(
        prefetch,
        "prefetch",
        "Fill a folder for machines without a network: with models and reviews for full scale (RLHF_ASSETS), or with the Python "
        "packages (make course FROM=DIR). Tiny scale needs the packages alone.",
    ).add_argument
    add("folder", metavar="DIR", type=Path)
    add("--packages", action="store_true", help="the packages, into DIR/packages, and no models or reviews")
    for_whom = (
        "such as win_amd64, macosx_14_0_arm64 or manylinux_2_28_x86_64: packages for other machines than this"
    )
    add("--platform", metavar="TAG", help=for_whom)
    add("--python-version", metavar="X.Y", help="packages for another Python than this")


def add_commands_for_maintainers(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what helpers/maintain does; `command` adds one and returns its parser."""
    add = command(
        bench, "bench", "Compare the engines: samples a second, seconds by phase, memory, reward a minute."
    ).add_argument
    add("--sizes", default="tiny,small", help="some of tiny, small, medium, large, xl (tiny,small)")
    add("--repeats", type=int, default=3, metavar="N", help="runs of each, of which the median counts (3)")
    reliably = "train with N seeds instead: how reliably it learns"
    add("--seeds", type=int, default=0, metavar="N", help=reliably)
    command(
        record,
        "record",
        "Train the runs that notebook 06's KL lab, notebook 07's tables, notebook 08's patients, notebook 10's Goodhart curves and second rounds and notebook 11's methods show, and store them.",
    )
    storing = command(store, "notebooks", "Run the notebooks at tiny scale and store their outputs in them.")
    which = "such as 03_pipeline.ipynb; all where none is given"
    storing.add_argument("names", nargs="*", metavar="NAME", help=which)
    add = command(
        editions,
        "editions",
        "Write the notebooks for a class: FOLDER/student without solutions, FOLDER/instructor with the solutions run.",
    ).add_argument
    add("folder", metavar="FOLDER", type=Path, help="new, empty, or made by this command before")
    publishing = command(
        publish, "publish", "Write where the course lives into every notebook and README.md."
    )
    where = publishing.add_mutually_exclusive_group()
    whose = "the GitHub repository: that of git's remote origin if left out or empty"
    where.add_argument("repository", nargs="?", default="", metavar="OWNER/NAME", help=whose)
    where.add_argument("--unpublish", action="store_true", help="take it out again")
    publishing.add_argument("--branch", default="main", help="the branch that readers get (main)")
    for_all = "for every reader whose environment names none: {} (the course chooses)"
    publishing.add_argument("--scale", default="", help=for_all.format("tiny or full"))
    publishing.add_argument("--engine", default="", help=for_all.format("trlx or builtin"))
    trying = command(
        test_colab,
        "test-colab",
        "Try the course on Colab's packages, on the oldest that it allows, and on the newest.",
    )
    trying.add_argument("folder", metavar="FOLDER", type=Path, help="where an environment for each is made")
    sets = "some of colab, oldest, newest; all where none is given"
    trying.add_argument("rows", nargs="*", metavar="ROW", help=sets)
    drifting = command(drift, "drift", "Say what changed since the versions that were tested.")
    for added in (trying, drifting):
        whose = "Colab's list of packages, as pip freeze prints it; from GitHub where none is given"
        added.add_argument("--list", metavar="FILE", default="", help=whose)


def doctor(args: argparse.Namespace) -> int:
    """Print the environment table."""
    from helpers.doctor import environment

    checks = environment()
    rows = [("OK" if check.ok else "FAIL", check.name, check.found, check.advice) for check in checks]
    print_table(rows)
    failed = sum(not check.ok for check in checks)
    print(f"\n{failed} of {len(checks)} need something done." if failed else "\nEverything needed is here.")
    return 1 if failed else 0


def trlx(args: argparse.Namespace) -> int:
    """Install the real trlX."""
    from helpers.real_trlx.install import install

    return 0 if install() else 1


def install(args: argparse.Namespace) -> int:
    """Install what is missing."""
    from helpers import packages

    wanted = args.requirements or packages.read_requirements(course.ROOT / "requirements.txt")
    return 0 if packages.add(wanted) else 1


def run(args: argparse.Namespace) -> None:
    """Run all notebooks, and print what was learned."""
    here = course.start()
    from helpers import notebooks

    path = here.out / "result.json"
    if path.exists():  # so that the table cannot show an earlier run
        print(f"The results so far are kept in {files.set_aside(path, 'before').name}.")
    started = time.monotonic()
    copies = notebooks.run(here)
    minutes = (time.monotonic() - started) / 60
    print_results(here, minutes, copies[0].parent)


def test(args: argparse.Namespace) -> int:
    """Run the tests and the notebooks in two processes at once; their results are thrown away."""
    options = "-rs -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env".split()
    options += "--nbval-cell-timeout 600 --ignore tests/colab_gpu.ipynb --ignore tests/browser".split()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as out:
        env = {"OMP_NUM_THREADS": "1"} | os.environ
        env |= {"RLHF_SCALE": "tiny", "RLHF_BUDGET": "0.1", "RLHF_OUT": out}
        command = [sys.executable, "-m", "pytest", *options, "tests", "notebooks"]
        return subprocess.run(command, cwd=course.ROOT, env=env).returncode


def print_results(here: course.Course, minutes: float, copies: Path) -> None:
    """Print the table of what the notebooks saved.

    Args:
        minutes: that all of them took.
        copies: the folder of the executed notebooks.
    Raises:
        CourseError: they saved less than the table shows.
    """
    result = here.load_result()
    wanted = ("reward_before", "reward_after", "kl", "minutes", "distinct", "model_path", "curve_path")
    wanted += ("feedback_rater", "feedback_accuracy", "feedback_gold_before", "feedback_gold_after")
    lacking = [name for name in wanted if name not in result]
    if lacking:
        raise CourseError(
            f"All notebooks ran, but left no {', '.join(lacking)} in {here.show_path(here.out / 'result.json')}: the last "
            "cells of 06_train.ipynb and 09_human_feedback.ipynb save them with here.save_result(...)."
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
            ("Executed notebooks", f"{here.show_path(copies)}{os.sep}"),
            ("Tuned model", result["model_path"]),
            ("Reward curve", result["curve_path"]),
        ]
    )


def config(args: argparse.Namespace) -> None:
    """Print a configuration that explains itself."""
    from helpers import config_cli

    config_cli.main(args.scale, args.method)


def train(args: argparse.Namespace) -> None:
    """Train without a notebook."""
    from helpers import train_cli

    train_cli.main(
        args.config, args.prompts, args.reward, args.out, args.minutes, args.model, args.resume, args.words
    )


def verdict(args: argparse.Namespace) -> None:
    """Judge a run after the fact."""
    from helpers import verdict

    for line in verdict.verdict(verdict.read_history(args.run)):
        print(line)


def progress(args: argparse.Namespace) -> None:
    """Print what is solved, by notebook; or by student."""
    from helpers import progress
    from helpers.exercise_cells import of_course

    exercises = of_course()
    if args.students and args.page:
        raise CourseError("--page is about your own exercises, --class about a class: give one of the two")
    if args.students:
        table, skipped = progress.of_class(files.expand(args.students), exercises)
        print_table(table)
        print("".join(f"\n{printable(sentence)}" for sentence in skipped), end="\n" if skipped else "")
        return
    names = progress.mine()
    rows = progress.rows(names, exercises)
    print_table([tuple(rows[0]), *(tuple(row.values()) for row in rows)])
    for sentence in progress.notes(names, exercises):
        print(f"\n{sentence}")
    if args.page:
        print(f"\nWritten: {progress.write_page(args.page, args.name)}")


def pool(args: argparse.Namespace) -> None:
    """Put the ratings of a class together."""
    from helpers.feedback import pool as ratings_of_a_class

    pooled, path = ratings_of_a_class.pool(args.folder)
    print_table(ratings_of_a_class.raters_table(pooled))
    print()
    print_table(ratings_of_a_class.pairs_table(pooled.ratings))
    print(f"\n{ratings_of_a_class.agreement_in_words(pooled.ratings)}")
    for note in pooled.notes:
        print(f"\n{printable(note)}")
    print(f"\nWritten: {printable(str(path))}, {len(pooled.ratings)} ratings by {len(pooled.files)} people")


def bench(args: argparse.Namespace) -> None:
    """Compare the engines, or train with several seeds."""
    from helpers.maintain.bench import compare as bench
    from helpers.maintain.bench import seeds

    if args.seeds:
        seeds.main(args.seeds)
    else:
        bench.main(args.sizes, args.repeats)


def record(args: argparse.Namespace) -> None:
    """Record the runs that notebooks show."""
    from helpers.maintain import record

    record.main()


def prefetch(args: argparse.Namespace) -> None:
    """Fill a folder with models and reviews, or with packages."""
    if args.packages:
        from helpers import offline

        offline.prefetch(args.folder, args.platform, args.python_version)
    elif args.platform or args.python_version:
        raise CourseError(
            "--platform and --python-version are about packages: python -m helpers prefetch DIR --packages ..."
        )
    else:
        from helpers import assets

        assets.prefetch(args.folder)


def store(args: argparse.Namespace) -> None:
    """Store the outputs that readers see on the web."""
    from helpers.maintain import stored_outputs

    for path in stored_outputs.store_outputs(args.names):
        print(f"stored outputs in {path.relative_to(course.ROOT)}")


def editions(args: argparse.Namespace) -> None:
    """Write the student's and the instructor's edition."""
    from helpers.maintain import editions

    folder = editions.make(args.folder)
    print(
        f"Written: {folder / 'student'}, without solutions, and {folder / 'instructor'}, with the solutions run."
    )


def publish(args: argparse.Namespace) -> None:
    """Stamp where the course lives, or take it out again."""
    from helpers.maintain import publish

    if args.unpublish:
        place = publish.Place()
    else:
        repository = args.repository or publish.read_remote()
        place = publish.Place(repository, args.branch, args.scale, args.engine)
        print(f"repository {repository}" + ("" if args.repository else ", which git calls origin"))
        chosen = [
            f"{name} {value or 'as the course chooses'}"
            for name, value in (("scale", place.scale), ("engine", place.engine))
        ]
        print(f"branch {place.branch}, {', '.join(chosen)}")
    changed = publish.publish(place)
    for path in changed:
        print(f"stamped {path.relative_to(course.ROOT)}")
    if not changed:
        print("everything was stamped so already")


def test_colab(args: argparse.Namespace) -> int:
    """Try the course on three sets of packages."""
    from helpers.maintain import colab

    unknown = [row for row in args.rows if row not in colab.PYTHONS]
    if unknown:
        raise CourseError(f"{unknown[0]!r:.60} is no set of packages: expected {', '.join(colab.PYTHONS)}")
    table, well = colab.main(args.folder, Path(args.list) if args.list else None, args.rows or colab.PYTHONS)
    print()
    print_table(table)
    return 0 if well else 1


def drift(args: argparse.Namespace) -> None:
    """Print what changed since the versions that were tested."""
    from helpers.maintain import drift

    print_table(drift.table(Path(args.list) if args.list else None))


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as their widest cell."""
    rows = [tuple(printable(cell).replace("\n", "\\n") for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
