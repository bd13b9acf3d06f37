"""Runs notebooks and stores their outputs in them, for readers on the web."""

import base64
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from helpers import course
from helpers.course import ROOT
from helpers.errors import CourseError
from helpers.files import write_text
from helpers.maintain.publish import metadata, without_stamp
from helpers.notebooks import NOTEBOOKS, code_cells, execute, numbered, parse, read, read_bytes
from helpers.terminal import printable

WIDGET = "application/vnd.jupyter.widget-view+json"
CURSOR = re.compile(
    r"\x1b\[[0-9]*[A-K]"
)  # of the ANSI codes those that move it; nested progress bars use them
FOLDERS = "home|root|tmp|work|Users|content|private|mnt|opt|usr|var"
COVER = "cover.png"
COVER_BYTES = 60_000
"""The first cell shows the cover: a notebook opens with it."""
MACHINE_PATH = re.compile(rf"(?<![\w./-])/(?:{FOLDERS})/\w[^\s'\"]*|\b[A-Z]:\\\w[^\s'\"]*")


def store_outputs(names: Sequence[str] = (), folder: Path = NOTEBOOKS) -> list[Path]:
    """Run the notebooks at tiny scale, in full, and write their outputs into them.

    A notebook is written when all its cells ran, and the file was not changed meanwhile. What is stored is what the run
    gave, less widgets, the passing states of progress bars and timestamps; the metadata holds a hash of the code that ran.
    The first cell shows the figure of the cell tagged `cover`, where there is one.

    Args:
        names: such as ["03_pipeline.ipynb"]; all notebooks when empty.
        folder: where the notebooks are.

    Returns:
        The notebooks written.

    Raises:
        CourseError: an unknown name, a file that is not a notebook, a cell that failed, an output that names a path on this
            machine, a cover that cannot be shown, or a file that was changed while it ran.
    """
    paths = [path for path in numbered(folder) if not names or path.name in names]
    unknown = set(names) - {path.name for path in paths}
    if unknown:
        known = ", ".join(path.name for path in numbered(folder))
        raise CourseError(f"no notebook is called {printable(', '.join(sorted(unknown)))}: there are {known}")
    for path in paths:
        store(path)
    return paths


def store(path: Path) -> None:
    """Run one notebook and write its outputs into it; errors as in `store_outputs`."""
    content = read_bytes(path)
    notebook = parse(path, content)
    run_afresh(notebook, path)
    found = machine_paths(notebook)
    if found:
        raise CourseError(
            f"{path.name}: outputs name paths on this machine ({printable(', '.join(found))}), so they were not stored. "
            "Print them with here.show_path(...)."
        )
    show_cover(notebook, path.name)
    notebook.metadata = nbformat.from_dict(
        metadata() | {"course": {"code_sha256": code_hash(notebook), "scale": "tiny"}}
    )
    if not path.exists() or read_bytes(path) != content:
        raise CourseError(
            f"{path.name} was changed while it ran, so its outputs were not stored and it stays as it was saved. "
            "Close it in Jupyter, and run `make notebooks` again."
        )
    write_text(path, nbformat.writes(notebook) + "\n")


def show_cover(notebook: NotebookNode, name: str) -> None:
    """Put the figure of the cell tagged `cover` at the end of the first cell, as an attachment with its text alternative.

    Raises:
        CourseError: the cell has no figure, or one of more than `COVER_BYTES`.
    """
    if not tagged(notebook, "cover"):
        return
    figure, first = cover(notebook), notebook.cells[0]
    if figure is None:
        raise CourseError(f"{name}: the cell tagged cover shows no figure with a text alternative.")
    png, alt = figure
    size = len(base64.b64decode(png))
    if size > COVER_BYTES:
        raise CourseError(f"{name}: the cover has {size:,} bytes, and at most {COVER_BYTES:,} are shown.")
    shown = re.sub(rf"\n+!\[.*\]\(attachment:{COVER}\)$", "", first.source)
    first.source = f"{shown}\n\n![{alt}](attachment:{COVER})"
    first.attachments = {COVER: {"image/png": png}}


def cover(notebook: NotebookNode) -> tuple[str, str] | None:
    """The last figure of the cells tagged `cover`: PNG in base64, and its text alternative as Markdown has it; None without one."""
    outputs = [output for cell in tagged(notebook, "cover") for output in cell.outputs]
    alts = [
        (output.data.get("image/png"), output.metadata.get("image/png", {}).get("alt"))
        for output in outputs
        if "data" in output
    ]
    figures = [(png, re.sub(r"([\\\[\]])", r"\\\1", alt)) for png, alt in alts if png and alt]
    return figures[-1] if figures else None


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """The code cells that carry a tag."""
    return [cell for cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def run_afresh(notebook: NotebookNode, path: Path) -> None:
    """Run a notebook at tiny scale as for a reader who has no results yet and no settings; its outputs are as they are stored.

    Raises:
        CourseError: a cell failed.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("RLHF_")}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as out:
        execute(notebook, path, own | {"RLHF_SCALE": "tiny", "OMP_NUM_THREADS": "1", "RLHF_OUT": out})
        for cell in code_cells(notebook):
            cell.outputs = [with_out(output, out) for output in clean_outputs(cell.outputs)]


def with_out(output: NotebookNode, folder: str) -> NotebookNode:
    """An output in which a folder for results is called out, as a reader's is."""
    text = json.dumps(output, ensure_ascii=False)
    return nbformat.from_dict(json.loads(text.replace(json.dumps(folder, ensure_ascii=False)[1:-1], "out")))


def run_tagged(path: Path, tag: str, **names) -> dict:
    """Run, in this process, the code cells that carry a tag, and return what they define.

    So a recipe that a notebook teaches is not written twice.

    Args:
        names: what the cells find defined; `here`, which the Setup cell makes, is made where it is not among them.

    Raises:
        CourseError: the file is not a notebook, or no cell has the tag.
    """
    cells = tagged(read(path), tag)
    if not cells:
        raise CourseError(f"{path.name} has no cell tagged {tag}, which holds the recipe that is run here")
    if "here" not in names:
        names["here"] = course.start()
    for cell in cells:
        exec(compile(cell.source, path.name, "exec"), names)
    return names


def code_hash(notebook: NotebookNode) -> str:
    """SHA-256 of the code cells' sources. What is stamped does not count."""
    sources = [without_stamp(cell.source) for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def clean_outputs(outputs: list) -> list:
    """The outputs without widgets (their state is not stored, so they would show nothing) and as a terminal shows text.

    Neighbouring pieces of one stream become one; of a line redrawn with carriage returns the last state stays.
    """
    kept = []
    for output in outputs:
        if WIDGET in output.get("data", {}):
            continue
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = last_state(output.text)
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def last_state(text: str) -> str:
    """The text as a terminal shows it in the end: a progress bar drawn over and over leaves its last state, or nothing."""
    lines = []
    for line in CURSOR.sub("", text).replace("\r\n", "\n").split("\n"):
        states = [state.rstrip() for state in line.split("\r") if state] if "\r" in line else [line]
        lines.append(states[-1] if states else "")
    return "\n".join(lines)


def machine_paths(notebook: NotebookNode) -> list[str]:
    """Paths in the outputs that mean nothing to a reader: under home, temporary and installation folders."""
    own = "|".join(
        re.escape(str(path)) for path in {ROOT, Path.home(), Path(sys.prefix)} if len(path.parts) > 1
    )
    pattern = re.compile(f"{MACHINE_PATH.pattern}|(?:{own})(?=/|\\b)")
    return sorted({match[0] for text in output_texts(notebook) for match in pattern.finditer(text)})


def output_texts(notebook: NotebookNode) -> Iterator[str]:
    """Every text in the outputs: streams, tracebacks, and the text, HTML and JSON of displays."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield output.get("text", "")
            yield "\n".join(output.get("traceback", []))
            for kind, data in output.get("data", {}).items():
                if kind not in ("image/png", "image/jpeg"):
                    yield data if isinstance(data, str) else json.dumps(data)
