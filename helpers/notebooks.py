"""Running the course's notebooks without a browser, and storing the outputs that readers see on the web."""

import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from helpers.course import ROOT, Course, atomic_write
from helpers.errors import CourseError
from helpers.publish import without_stamp

NOTEBOOKS = ROOT / "notebooks"

# What Colab reads: a T4 is asked for, the table of contents is shown. Versions are left out: they would change in every run.
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

DEAD = "The kernel died. Most often the machine ran out of memory: close other programs and try again."

WIDGET = "application/vnd.jupyter.widget-view+json"
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
CURSOR = re.compile(
    r"\x1b\[[0-9]*[A-K]"
)  # of the ANSI codes those that move it; nested progress bars use them
FOLDERS = "home|root|tmp|work|Users|content|private|mnt|opt|usr|var"
MACHINE_PATH = re.compile(rf"(?<![\w./-])/(?:{FOLDERS})/\w[^\s'\"]*|\b[A-Z]:\\\w[^\s'\"]*")


def numbered(folder: Path = NOTEBOOKS) -> list[Path]:
    """The course's notebooks in reading order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def run(here: Course, folder: Path = NOTEBOOKS) -> list[Path]:
    """Run every notebook in order, each in a kernel of its own, and keep the executed copies.

    Returns:
        The executed copies, in `here.out`/notebooks.

    Raises:
        CourseError: a cell failed; the copy up to there is kept too.
    """
    copies = []
    for path in numbered(folder):
        copy = here.out / "notebooks" / path.name
        copy.parent.mkdir(exist_ok=True)
        notebook = nbformat.read(path, as_version=4)
        try:
            execute(notebook, path, os.environ | {"RLHF_SCALE": here.scale})
        except CourseError as error:
            raise CourseError(f"{error}\n\nWhat ran so far is in {here.show_path(copy)}.") from error
        finally:
            atomic_write(copy, nbformat.writes(notebook) + "\n")
        copies.append(copy)
    return copies


def store_outputs(names: list[str] = (), folder: Path = NOTEBOOKS) -> list[Path]:
    """Run the notebooks at tiny scale, in full, and write their outputs into them.

    A notebook is written when all its cells ran. What is stored is what the run gave, less widgets, the passing states of
    progress bars and timestamps; the metadata holds a hash of the code that ran.

    Args:
        names: such as ["03_pipeline.ipynb"]; all notebooks when empty.
        folder: where the notebooks are.

    Returns:
        The notebooks written.

    Raises:
        CourseError: an unknown name, a cell failed, or an output names a path on this machine.
    """
    paths = [path for path in numbered(folder) if not names or path.name in names]
    unknown = set(names) - {path.name for path in paths}
    if unknown:
        known = ", ".join(path.name for path in numbered(folder))
        raise CourseError(f"no notebook is called {', '.join(sorted(unknown))}: there are {known}")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RLHF_")}
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        execute(notebook, path, plain | {"RLHF_SCALE": "tiny"})
        for cell in code_cells(notebook):
            cell.outputs = clean_outputs(cell.outputs)
        found = machine_paths(notebook)
        if found:
            raise CourseError(
                f"{path.name}: outputs name paths on this machine ({', '.join(found)}), so they were not stored. "
                "Print them with here.show_path(...)."
            )
        notebook.metadata = nbformat.from_dict(
            METADATA | {"course": {"code_sha256": code_hash(notebook), "scale": "tiny"}}
        )
        atomic_write(path, nbformat.writes(notebook) + "\n")
    return paths


class ThisPython(AsyncKernelManager):
    """Starts kernels in the Python that runs this, whatever kernels the machine has under the name python3."""

    @property
    def kernel_spec(self):
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])


def execute(notebook, path: Path, env: dict[str, str]) -> None:
    """Run all cells of a notebook in a fresh kernel, in the notebook's own folder; the outputs land in `notebook`.

    Raises:
        CourseError: names the cell that failed, and shows its source and the error.
    """
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as home, open(Path(home) / "kernel.log", "w+") as log:
        # The reader's own IPython settings and start-up files stay out of it; so does the terminal, whose progress line the
        # kernel's own messages would break.
        env = env | {"IPYTHONDIR": home, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        progress = Progress(path.stem, len(code_cells(notebook)))
        client = WatchedClient(
            notebook,
            progress=progress,
            kernel_name="python3",
            kernel_manager_class=ThisPython,
            startup_timeout=180,
            timeout=None,
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        try:
            client.execute(env=env, stdout=log, stderr=log)
            progress.done = progress.cells
        except CellExecutionError:
            raise CourseError(failure(path, notebook, client.running, error_lines(client.running))) from None
        except RuntimeError:  # a DeadKernelError, or a kernel that never answered
            log.seek(0)
            reason = f"{DEAD}\n{''.join(log.readlines()[-8:])}".strip()
            raise CourseError(failure(path, notebook, client.running, reason)) from None
        finally:
            progress.close()


def error_lines(cell) -> str:
    """The end of a failed cell's traceback, without colours."""
    error = next(output for output in cell.outputs if output.output_type == "error")
    return "\n".join(ANSI.sub("", "\n".join(error.traceback)).strip().splitlines()[-12:])


def failure(path: Path, notebook, cell, error: str) -> str:
    """What to tell a reader whose notebook stopped at `cell`."""
    cells = code_cells(notebook)
    number = next(n for n, one in enumerate(cells, 1) if one is cell)
    source = "\n".join(f"    {line}" for line in cell.source.splitlines())
    return (
        f"{path.name} stopped at code cell {number} of {len(cells)}:\n\n{source}\n\n{error}\n\n"
        "`make lab` opens the notebook, to try the cell by hand; `make course` runs all of them again."
    )


class WatchedClient(NotebookClient):
    """A NotebookClient that tells its progress display which cell runs and what it prints."""

    def __init__(self, notebook, progress, **settings):
        super().__init__(notebook, **settings)
        self.progress = progress
        self.running = code_cells(notebook)[0]
        self.on_cell_execute = self._started

    async def _started(self, cell, cell_index):
        self.running = cell
        self.progress.begin(sum(cell.cell_type == "code" for cell in self.nb.cells[:cell_index]))

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "stream":
            self.progress.heard(msg["content"]["text"])
        return super().process_message(msg, cell, cell_index)


class Progress:
    """One line about a running notebook: cells done, the time so far, and the last thing the running cell printed.

    On a terminal the line is redrawn twice a second; in a log a new line appears every half minute, so that a long cell is
    seen to be alive in either.
    """

    def __init__(self, name: str, cells: int):
        self.name, self.cells, self.done, self.last = name, cells, 0, ""
        self.started = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            layout = "{desc} |{bar:20}| {n}/{total} cells, {elapsed}{postfix}"
            self.bar = tqdm(total=cells, desc=name, bar_format=layout, dynamic_ncols=True, leave=True)
        else:
            print(f"{name}: {cells} cells", flush=True)
        self.closed = threading.Event()
        self.ticker = threading.Thread(target=self._tick, daemon=True)
        self.ticker.start()

    def begin(self, done: int):
        """The next cell begins, after `done` others."""
        self.done, self.last = done, ""

    def heard(self, text: str):
        """The running cell printed `text`."""
        lines = [line.strip() for line in re.split(r"[\r\n]", ANSI.sub("", text)) if line.strip()]
        if lines:
            self.last = lines[-1]

    def close(self):
        """The notebook is done, or has failed."""
        self.closed.set()
        self.ticker.join()
        self.last = ""
        self._show()
        if self.bar is not None:
            self.bar.close()

    def _tick(self):
        while not self.closed.wait(0.5 if self.bar is not None else 30):
            self._show()

    def _show(self):
        if self.bar is not None:
            self.bar.n = self.done
            self.bar.set_postfix_str(self.last)  # redraws
        else:
            elapsed = tqdm.format_interval(time.monotonic() - self.started)
            print(f"{self.name}: {self.done}/{self.cells} cells, {elapsed} {self.last}".rstrip(), flush=True)


def run_tagged(path: Path, tag: str, **names) -> dict:
    """Run here the code cells that carry a tag, and return what they define: a recipe that a notebook teaches is not written twice.

    Args:
        names: what the cells find defined.

    Raises:
        CourseError: no cell has the tag.
    """
    cells = [
        cell for cell in code_cells(nbformat.read(path, as_version=4)) if tag in cell.metadata.get("tags", [])
    ]
    if not cells:
        raise CourseError(f"{path.name} has no cell tagged {tag}, which holds the recipe that is run here")
    for cell in cells:
        exec(compile(cell.source, path.name, "exec"), names)
    return names


def code_cells(notebook) -> list:
    """The notebook's code cells, as a list of its own nodes."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_hash(notebook) -> str:
    """SHA-256 of the code cells' sources. The stamped repository and branch do not count."""
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
    """The text as it stands at the end on a terminal: of a progress bar drawn over and over, the last state or none."""
    lines = []
    for line in CURSOR.sub("", text).replace("\r\n", "\n").split("\n"):
        states = [state.rstrip() for state in line.split("\r") if state] if "\r" in line else [line]
        lines.append(states[-1] if states else "")
    return "\n".join(lines)


def machine_paths(notebook) -> list[str]:
    """Paths in the outputs that mean nothing to a reader: under home, temporary and installation folders."""
    own = "|".join(
        re.escape(str(path)) for path in {ROOT, Path.home(), Path(sys.prefix)} if len(path.parts) > 1
    )
    pattern = re.compile(f"{MACHINE_PATH.pattern}|(?:{own})(?=/|\\b)")
    return sorted({match[0] for text in output_texts(notebook) for match in pattern.finditer(text)})


def output_texts(notebook):
    """Every text in the outputs: streams, tracebacks, and the text, HTML and JSON of displays."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield output.get("text", "")
            yield "\n".join(output.get("traceback", []))
            for kind, data in output.get("data", {}).items():
                if kind not in ("image/png", "image/jpeg"):
                    yield data if isinstance(data, str) else json.dumps(data)
