"""Running the course's notebooks without a browser."""

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
from nbformat import NotebookNode
from tqdm import tqdm

from helpers.course import ROOT, Course
from helpers.errors import CourseError
from helpers.files import write_text
from helpers.terminal import ANSI, plain, printable

NOTEBOOKS = ROOT / "notebooks"

# A copy, such as Jupyter's 03_pipeline-Copy1.ipynb, is the reader's.
COURSE_NOTEBOOK = re.compile(r"[0-9][0-9]_\w+\.ipynb")
DEAD = "The kernel died. Most often the machine ran out of memory: close other programs and try again."


def numbered(folder: Path = NOTEBOOKS) -> list[Path]:
    """The course's notebooks in reading order; other notebooks beside them, such as copies, are the reader's."""
    return sorted(path for path in folder.glob("*.ipynb") if COURSE_NOTEBOOK.fullmatch(path.name))


def read(path: Path) -> NotebookNode:
    """A notebook.

    Raises:
        CourseError: the file cannot be read, or is not a notebook.
    """
    return parse(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """A notebook's file; errors as in `read`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CourseError(
            f"{path.name} cannot be read ({error.strerror}): expected a notebook in {path.parent}."
        ) from error


def parse(path: Path, content: bytes) -> NotebookNode:
    """The notebook that a file's content is; errors as in `read`."""
    try:
        notebook = nbformat.reads(content.decode("utf-8"), as_version=4)
        nbformat.validate(notebook)
        return notebook
    except Exception as error:  # nbformat raises many kinds
        reason = printable((str(error).strip() or type(error).__name__).splitlines()[0][:200])
        raise CourseError(
            f"{path.name} is not a whole notebook ({reason}). If it has work of yours in it, move it to another "
            "folder; then fetch the course's own again."
        ) from error


def run(here: Course, folder: Path = NOTEBOOKS) -> list[Path]:
    """Run every notebook in order, each in a kernel of its own, and keep the executed copies.

    An earlier copy that a reader has worked in is set aside first, and a line says where it is.

    Returns:
        The executed copies, in `here.out`/notebooks.

    Raises:
        CourseError: a file is not a notebook, before any is run; or a cell failed, and the copy up to there is kept too.
    """
    copies = []
    for path in numbered(folder):
        read(path)
    for path in numbered(folder):
        copy = here.out / "notebooks" / path.name
        make_folder(copy.parent)
        notebook = read(path)
        try:
            execute(notebook, path, os.environ | {"RLHF_SCALE": here.scale})
        except CourseError as error:
            raise CourseError(f"{error}\n\nWhat ran so far is in {here.show_path(copy)}.") from error
        finally:
            keep_copy(notebook, copy, here)
        copies.append(copy)
    return copies


def make_folder(folder: Path) -> None:
    """Make the folder for the copies.

    Raises:
        CourseError: it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CourseError(
            f"{folder} should be a folder for the executed notebooks, and could not be made: {error.strerror}. "
            "Move what is there, or choose another folder (RLHF_OUT)."
        ) from error


def keep_copy(notebook: NotebookNode, copy: Path, here: Course) -> None:
    """Write an executed copy. What a reader has changed at its place is kept, as 03_pipeline.yours.ipynb.

    Raises:
        CourseError: what is there could not be renamed, or the copy not be written.
    """
    if os.path.lexists(copy) and is_the_readers(copy, notebook):
        number, aside = 1, copy.with_name(f"{copy.stem}.yours.ipynb")
        while os.path.lexists(aside):
            number += 1
            aside = copy.with_name(f"{copy.stem}.yours{number}.ipynb")
        try:
            os.rename(copy, aside)
        except OSError as error:
            raise CourseError(
                f"{copy} has changes of yours and could not be renamed ({error.strerror}). It is as it was: move it away."
            ) from error
        print(f"{here.show_path(copy)} had changes of yours: it is {aside.name} now.")
    notebook.metadata.setdefault("course", {})["copy_sha256"] = sources_hash(notebook)
    write_text(copy, nbformat.writes(notebook) + "\n")


def is_the_readers(copy: Path, notebook: NotebookNode) -> bool:
    """Whether an executed copy has other cells than it was written with, and than `notebook` has; or cannot be read."""
    try:
        earlier = read(copy)
        written = earlier.metadata.get("course", {}).get("copy_sha256")
    except (CourseError, AttributeError):
        return True
    return sources_hash(earlier) not in (written, sources_hash(notebook))


def sources_hash(notebook: NotebookNode) -> str:
    """SHA-256 of all cells, without outputs. Unlike `code_hash` it changes with every change that a reader makes."""
    cells = [(cell.cell_type, cell.source, cell.get("attachments")) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


class ThisPython(AsyncKernelManager):
    """Starts kernels in the Python that runs this, whatever kernels the machine has under the name python3."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """What jupyter_client starts."""
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])


def execute(notebook: NotebookNode, path: Path, env: dict[str, str]) -> None:
    """Run all cells of a notebook in a fresh kernel, in the notebook's own folder; the outputs land in `notebook`.

    What the cells print reaches the terminal without the characters that it would obey.

    Raises:
        CourseError: names the cell that failed, and shows its source and the error.
    """
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    if not code_cells(notebook):
        return
    with (
        tempfile.TemporaryDirectory() as home,
        open(Path(home) / "kernel.log", "w+", encoding="utf-8", errors="replace") as log,
    ):
        # The reader's own IPython settings and start-up files stay out of it; so does the terminal, whose progress line the
        # kernel's own messages would break.
        env = env | {"IPYTHONDIR": home, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        progress = Progress(path.stem, len(code_cells(notebook)))
        client = WatchedClient(notebook, path.parent, progress)
        try:
            client.execute(env=env, stdout=log, stderr=log)
            progress.done = progress.cells
        except CellExecutionError:
            raise CourseError(failure(path, notebook, client.running, error_lines(client.running))) from None
        except RuntimeError:  # a DeadKernelError, or a kernel that never answered
            log.seek(0)
            reason = f"{DEAD}\n{plain(''.join(log.readlines()[-8:]))}".strip()
            raise CourseError(failure(path, notebook, client.running, reason)) from None
        finally:
            progress.close()


def error_lines(cell: NotebookNode) -> str:
    """The end of a failed cell's traceback, without colours."""
    error = next(output for output in cell.outputs if output.output_type == "error")
    return "\n".join(plain("\n".join(error.traceback)).strip().splitlines()[-12:])


def failure(path: Path, notebook: NotebookNode, cell: NotebookNode, error: str) -> str:
    """What to tell a reader whose notebook stopped at `cell`."""
    cells = code_cells(notebook)
    number = next(n for n, one in enumerate(cells, 1) if one is cell)
    source = "\n".join(f"    {line}" for line in printable(cell.source).splitlines())
    return (
        f"{path.name} stopped at code cell {number} of {len(cells)}:\n\n{source}\n\n{error}\n\n"
        "`make lab` opens the notebook, to try the cell by hand; `make course` runs all of them again."
    )


class WatchedClient(NotebookClient):
    """Runs a notebook in `folder`, and tells its progress display which cell runs and what it prints."""

    def __init__(self, notebook: NotebookNode, folder: Path, progress: "Progress"):
        super().__init__(
            notebook,
            kernel_name="python3",
            kernel_manager_class=ThisPython,
            startup_timeout=180,
            timeout=None,
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
        )
        self.progress = progress
        self.running = code_cells(notebook)[0]
        self.on_cell_execute = self._started

    async def _started(self, cell, cell_index):
        self.running = cell
        self.progress.begin(sum(cell.cell_type == "code" for cell in self.nb.cells[:cell_index]))

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Take in a message of the kernel, as nbclient does, and tell the display what was printed."""
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
            self.last = printable(lines[-1])

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


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The notebook's code cells, as a list of its own nodes."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
