"""The report of a run: one HTML file that needs nothing else, to read, to keep and to send.

Everything in it follows from the run and its configuration but the footer: when it was written, and how long the run took.
"""

import base64
import hashlib
import html
import importlib.metadata
import json
import platform
import re
import time
from io import StringIO
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from helpers import files, palette
from helpers.compare import mean_gain, token_kl, win_rate
from helpers.config_cli import DEFAULTS
from helpers.engine import with_version
from helpers.errors import CourseError
from helpers.figures import describe
from helpers.monitor import draw_history
from helpers.ppo.config import TRLConfig, as_config
from helpers.ppo.parallel import processes
from helpers.ppo.run import Run
from helpers.seal import check_own, sealed
from helpers.verdict import verdict
from helpers.widgets.design import strip
from helpers.widgets.html import cell, escape, number, plain

HERE = Path(__file__).parent
STRIPS = 5
"""Samples whose tokens are shown."""
INK, RULE = "#1b1f24", "#d3d9df"
"""What matplotlib draws in; the page's colours take their place, which a dark page changes."""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src '{digest}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<main>
{sections}
</main>
<footer id="times">{times}</footer>
<script>{script}</script>
</body>
</html>
"""


def write_report(
    trainer: Run, compared: pd.DataFrame, path: str | Path, *, reward: str, prompts: str, repeat: str
) -> Path:
    """Write the report of a run: result, verdict, curves, samples, tokens, numbers, settings, and how to repeat it.

    The same run gives the same file up to `<footer id="times">`, whether it was resumed or not.

    Args:
        trainer: a finished run of either engine.
        compared: what `compare.before_after` gave for held-out prompts.
        path: the file; a report that is there is replaced.
        reward: what the reward pays, in words.
        prompts: where the prompts come from, in words.
        repeat: the command or the call that repeats the run, of one line or several.
    Returns:
        The path of the file.
    Raises:
        CourseError: there is nothing to report yet, another file is at `path`, or it cannot be written.
    """
    path = files.expand(path)
    check_own(path)
    refuse_unfinished(trainer, compared)
    moves = token_kl(trainer, compared)
    script = read("report.js")
    sections = [
        head(trainer, compared),
        section("Verdict", verdict_lines(trainer)),
        section("Curves", curves(trainer)),
        section("Samples before and after", samples(compared, moves)),
        section("Where the policy moved most", strips(compared, moves)),
        section("Reward and KL by round", rounds(trainer)),
        section("Settings", settings(trainer)),
        section("To repeat it", how(trainer, reward, prompts, repeat)),
    ]
    page = PAGE.format(
        digest=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        title=html.escape(plain(title(trainer))),
        css=re.sub("%([A-Z]+)%", lambda name: getattr(palette, name[1]), read("report.css")),
        sections="\n".join(sections),
        times=times(trainer),
        script=script,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, sealed(page))
    return path


def read(name: str) -> str:
    """A file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def refuse_unfinished(trainer: Run, compared: pd.DataFrame) -> None:
    """Refuse a run of which there is nothing to say.

    Raises:
        CourseError: it was never evaluated, or no samples were compared.
    """
    if not trainer.history.evals or not trainer.history.rounds:
        raise CourseError("this run has made no round and no evaluation yet: train first, then report on it")
    if not len(compared):
        raise CourseError(
            "no samples were compared: give what compare.before_after returns for at least one prompt"
        )


def base_name(trainer: Run) -> str:
    """The model that the run started from: its name on the hub, or the name of its folder, without the way there."""
    model = trainer.config.model.model_path
    return Path(model).name if Path(model).is_dir() else model


def method_name(trainer: Run) -> str:
    """PPO, RLOO or GRPO."""
    return trainer.config.method.name.removesuffix("Config")


def title(trainer: Run) -> str:
    """What the run made."""
    return f"{base_name(trainer)}, tuned with {method_name(trainer)}"


def result(trainer: Run, compared: pd.DataFrame) -> str:
    """What the run did, in one sentence."""
    before, after = compared["reward_before"].mean(), compared["reward_after"].mean()
    return (
        f"On held-out prompts the mean reward went from {before:.2f} to {after:.2f} ({mean_gain(compared):+.2f}), with a KL of "
        f"{trainer.history.evals[-1]['kl']:.1f} nats a sample; the tuned model's win rate over the model before is "
        f"{win_rate(compared):.0%}."
    )


def section(name: str, content: str) -> str:
    """A part of the page with its heading."""
    return f"<section>\n<h2>{name}</h2>\n{content}\n</section>"


def head(trainer: Run, compared: pd.DataFrame) -> str:
    """The title, the result in a sentence, and its three numbers with what each means."""
    before, after = compared["reward_before"].mean(), compared["reward_after"].mean()
    gain, wins = mean_gain(compared), win_rate(compared)
    interval = f"{wins:.0%}".partition(",")[2]  # the share itself stands above it
    tiles = [
        ("Reward on held-out prompts", f"{number(before)} → {number(after)}", f"gain {gain:+.2f}"),
        (
            "KL to the reference",
            f"{trainer.history.evals[-1]['kl']:.1f} nats a sample",
            "how far the policy is from the model before training: the sum of log π − log π_ref over a sample's tokens",
        ),
        (
            "Win rate",
            f"{wins.mean:.0%}",
            f"the share of comparisons in which the text after has the higher reward;{interval}",
        ),
    ]
    boxes = "".join(
        f'<div><dt>{name}</dt><dd class="big">{escape(value)}</dd><dd class="small">{escape(note)}</dd></div>'
        for name, value, note in tiles
    )
    return (
        f'<p class="kind">Report of a training run</p>\n<h1>{escape(title(trainer))}</h1>\n'
        f'<p class="lead">{escape(result(trainer, compared))}</p>\n<dl class="tiles">{boxes}</dl>\n'
        '<p class="note">The intervals are over other prompts of the same kind, not over another training.</p>'
    )


def verdict_lines(trainer: Run) -> str:
    """The verdict, each line with its badge."""
    items = []
    for line in verdict(trainer.history):
        word, said = line.split(":", 1)
        items.append(
            f'<li><span class="badge {word}">{"✓" if word == "ok" else "▲"} {word}</span><span>{escape(said.strip())}</span></li>'
        )
    note = "The verdict reads the rounds of training, whose samples are others than those of the held-out prompts above."
    return f'<p class="note">{note}</p>\n<ul class="verdict">{"".join(items)}</ul>'


def curves(trainer: Run) -> str:
    """The run's curves, each a picture of its own with its text alternative, so that a narrow page can stack them."""
    drawn_in = {"text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK}
    drawn_in |= {"ytick.color": INK, "grid.color": RULE, "axes.grid": True, "axes.grid.axis": "y"}
    drawn_in |= {"svg.fonttype": "none", "axes.titlelocation": "left", "lines.linewidth": 2}
    colours = {INK: "--ink", RULE: "--rule", palette.BLUE: "--first", palette.ORANGE: "--second"}
    colours |= {palette.GREEN: "--third"}
    pictures = []
    with mpl.rc_context(drawn_in):
        panels = [Figure(figsize=(5, 3), layout="constrained", facecolor="none") for _ in range(4)]
        draw_history(trainer.history, [panel.add_subplot(facecolor="none") for panel in panels])
        for place, panel in enumerate(panels):
            # the same names inside each time, and no two alike
            mpl.rcParams["svg.hashsalt"] = f"picture {place}"
            file = StringIO()
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            panel.savefig(file, format="svg", metadata=nothing, transparent=True)
            drawing = file.getvalue()[file.getvalue().index("<svg") :]
            drawing = re.sub(r' id="[\w.]+_\d+"', "", drawing)  # the same in each picture
            for colour, name in colours.items():
                drawing = re.sub(colour, f"var({name})", drawing, flags=re.IGNORECASE)
            words = html.escape(describe(panel))
            pictures.append(drawing.replace("<svg", f'<svg role="img" aria-label="{words}"', 1))
    return f'<div class="charts">{"".join(pictures)}</div>'


def samples(compared: pd.DataFrame, moves: list[list[tuple[str, float]]]) -> str:
    """Every sample before and after, the largest gain first, with buttons that sort them otherwise.

    The roles are those that the elements have by themselves; some browsers forget them where report.css lays a table out otherwise.
    """
    numbers = {"reward_before": "reward before", "reward_after": "reward after", "gain": "gain"}
    numbers |= {"tokens": "tokens after"}
    rows = compared.assign(tokens=[len(tokens) for tokens in moves])
    rows = rows.sort_values("gain", ascending=False, kind="stable").to_dict("records")
    texts = {"prompt": "prompt", "before": "text", "after": "text"}
    head = '<th role="columnheader" scope="col"'
    heads = "".join(f'{head} class="{kind}">{name}</th>' for name, kind in texts.items())
    heads += "".join(
        f'{head} class="n"{" aria-sort=descending" * (name == "gain")}><button type="button">{words}</button></th>'
        for name, words in numbers.items()
    )
    lines = []
    for row in rows:
        cells = [
            f'<td role="cell" class="{kind}" data-label="{name}">{escape(row[name])}</td>'
            for name, kind in texts.items()
        ]
        cells += [
            f'<td role="cell" class="n" data-label="{words}" data-value="{row[name]!r}">{cell(row[name])}</td>'
            for name, words in numbers.items()
        ]
        lines.append(f'<tr role="row">{"".join(cells)}</tr>\n')
    note = f"{len(rows)} samples: each prompt continued by the model before training and by the tuned one, with the same seed."
    return (
        f'<p class="note">{note} A press on the name of a column of numbers sorts by it.</p>\n'
        '<div class="scroll samples" tabindex="0" role="region" aria-label="Samples before and after">'
        f'<table role="table"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>\n'
        f'<tbody role="rowgroup">{"".join(lines)}</tbody></table></div>'
    )


def strips(compared: pd.DataFrame, moves: list[list[tuple[str, float]]]) -> str:
    """The tokens of the samples in which one token moved most, each under its log pi - log pi_ref, with one scale of colour."""
    largest = [max((abs(kl) for _, kl in tokens), default=0.0) for tokens in moves]
    scale = max(largest) or 1.0
    chosen = sorted(range(len(moves)), key=lambda i: -largest[i])[:STRIPS]
    shown = []
    for i in chosen:
        row = compared.iloc[i]
        said = f"reward {number(row['reward_before'])} → {number(row['reward_after'])}, KL {number(sum(kl for _, kl in moves[i]))} nats"
        pieces = [(text, unsigned(kl)) for text, kl in moves[i]]
        tokens = strip(pieces, ("nats",), said, (scale,))
        shown.append(f'<h3>{escape(row["prompt"])}</h3>\n<div class="strip">{tokens}</div>')
    note = (
        "The samples of the tuned model in which one token moved most. Over each token stands log π − log π_ref in nats: above 0, "
        "and blue, where training made the token likelier; below 0, and orange, where it made it less likely."
    )
    return f'<p class="note">{note}</p>\n{"".join(shown)}'


def unsigned(value: float) -> float:
    """A number to two decimals, without the minus sign that -0.001 would leave before its zeros."""
    return round(value, 2) + 0.0


def rounds(trainer: Run) -> str:
    """Reward and KL by round and evaluation, as a table."""
    history = trainer.history
    training = {
        row["step"]: {
            "round": place,
            "reward in training": row["reward"],
            "KL in training": unsigned(row["kl"]),
        }
        for place, row in enumerate(history.rounds, start=1)
    }
    held_out = {
        row["step"]: {"reward held out": row["reward/mean"], "KL held out": unsigned(row["kl"])}
        for row in history.evals
    }
    steps = sorted(training | held_out)
    rows = [{"step": step} | training.get(step, {}) | held_out.get(step, {}) for step in steps]
    columns = ["step", "round", "reward in training", "reward held out", "KL in training", "KL held out"]
    note = "KL is in nats a sample. Evaluations on held-out prompts are rarer than rounds."
    table = numbers_table([{name: row.get(name) for name in columns} for row in rows])
    return (
        f'<p class="note">{note}</p>\n<div class="scroll rounds" tabindex="0" role="region" aria-label="Reward and KL by round">'
        f"{table}</div>"
    )


def numbers_table(rows: list[dict[str, float | None]]) -> str:
    """Rows of numbers as a table, aligned at the right; the columns are those of the first row."""
    heads = "".join(f'<th scope="col" class="n">{name}</th>' for name in rows[0])
    lines = "".join(
        "<tr>" + "".join(f'<td class="n">{cell(value)}</td>' for value in row.values()) + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{lines}</tbody></table>"


def settings(trainer: Run) -> str:
    """Every setting: first those that differ from the method's default, then the others."""
    ours = flat(run_config(trainer))
    default = flat(DEFAULTS[method_name(trainer).lower()]())
    differing = [
        (name, value, default.get(name, "")) for name, value in ours.items() if value != default.get(name)
    ]
    alike = [(name, value) for name, value in ours.items() if value == default.get(name)]
    return (
        settings_table("setting value default".split(), differing)
        + f"<details><summary>{len(alike)} more that are at their default</summary>"
        + settings_table("setting value".split(), alike)
        + "</details>"
    )


def settings_table(names: list[str], rows: list[tuple[str, ...]]) -> str:
    """Settings with their values as a table; roles as in `samples`."""
    heads = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in names)
    lines = "".join(
        f'<tr role="row"><th role="rowheader" scope="row">{escape(name)}</th>'
        + "".join(
            f'<td role="cell" data-label="{word}">{escape(value)}</td>'
            for word, value in zip(names[1:], values)
        )
        + "</tr>\n"
        for name, *values in rows
    )
    return (
        f'<div class="settings"><table role="table"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>\n'
        f'<tbody role="rowgroup">{lines}</tbody></table></div>'
    )


def run_config(trainer: Run) -> TRLConfig:
    """The run's configuration as it was asked for, whichever engine trained: trlX's is made to call the course."""
    asked = as_config(trainer.config)
    return asked.evolve(train=dict(save_best=trainer.save_best, trainer="AcceleratePPOTrainer"))


def flat(config: TRLConfig) -> dict[str, str]:
    """Every setting by its name with a dot, its value as JSON; but not where a run was resumed from, which changes no number."""
    parts = config.to_dict()
    return {
        f"{section}.{name}": json.dumps(value, default=str, ensure_ascii=False)
        for section, values in parts.items()
        for name, value in values.items()
        if name != "resume_from_checkpoint"
    }


def how(trainer: Run, reward: str, prompts: str, repeat: str) -> str:
    """What the run was made of, and the command or call that repeats it."""
    lines = "".join(
        f'<tr><th scope="row">{name}</th><td>{escape(text)}</td></tr>\n'
        for name, text in facts(trainer, reward, prompts).items()
    )
    command = "\n".join(escape(line) for line in repeat.splitlines())
    return f'<table class="facts"><tbody>{lines}</tbody></table>\n<pre><code>{command}</code></pre>'


def facts(trainer: Run, reward: str, prompts: str) -> dict[str, str]:
    """What the run's numbers depend on beside its settings: model, reward, prompts, seed, engine, devices and versions."""
    count = processes.count()
    return {
        "base model": base_name(trainer),
        "reward": reward,
        "prompts": f"{prompts} ({len(trainer.prompts)} to train on, {len(trainer.eval_prompts)} held out)",
        "steps": f"{trainer.step} of {trainer.total_steps}",
        "seed": str(trainer.config.train.seed),
        "engine": with_version(trainer.engine),
        "device": f"{trainer.device} ({platform.machine()})" + (f", {count} processes" if count > 1 else ""),
        "Python": platform.python_version(),
    } | {name: importlib.metadata.version(name) for name in ("torch", "transformers")}


def times(trainer: Run) -> str:
    """When the report was written and how long the rounds took: all that the same run does not give again."""
    seconds = sum(
        value for row in trainer.history.rounds for name, value in row.items() if name.startswith("seconds_")
    )
    return f"Written {time.strftime('%Y-%m-%d %H:%M')}. The rounds took {seconds:.0f} seconds."
