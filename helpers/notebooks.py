"""Running the course's notebooks without a browser: several at once, since none needs another's results."""

import asyncio
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from tqdm import tqdm

from helpers.course import GIB, ROOT, Course, one_thread
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
    """Run every notebook, each in a kernel of its own, and keep the executed copies. They begin in their order, some at once.

    An earlier copy that a reader has worked in is set aside first, and a line says where it is.

    Returns:
        The executed copies, in `here.out`/notebooks, in the notebooks' order.

    Raises:
        CourseError: a file is not a notebook, before any is run; or a cell failed, which ends all. What each ran is kept.
    """
    notebooks = {path: read(path) for path in numbered(folder)}
    make_folder(here.out / "notebooks")
    env = os.environ | {"RLHF_SCALE": here.scale} | (one_thread() if here.scale == "tiny" else {})
    progress = Progress({path.stem: len(code_cells(notebook)) for path, notebook in notebooks.items()})
    places = asyncio.Semaphore(at_once(env))

    async def run_one(path: Path, notebook: NotebookNode) -> Path:
        copy = here.out / "notebooks" / path.name
        async with places:
            try:
                await run_cells(notebook, path, env, progress)
            except CourseError as error:
                raise CourseError(f"{error}\n\nWhat ran so far is in {here.show_path(copy)}.") from error
            finally:
                keep_copy(notebook, copy, here)
        return copy

    try:
        return in_loop(together([run_one(*each) for each in notebooks.items()]))
    finally:
        progress.close()


async def together(works: list[Coroutine]) -> list:
    """The results of all in their order; the first error, and an interruption, end the others before it goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def in_loop(work: Coroutine):
    """The result of `work`. Ctrl-C cancels it, waits until it has tidied up, and is a KeyboardInterrupt then."""
    # the loop that Windows has by itself cannot watch the kernels' sockets
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(work)


def at_once(env: dict[str, str]) -> int:
    """How many notebooks run at once: one a core where each computes in one thread and memory allows; else one, which takes all."""
    import psutil

    if env["RLHF_SCALE"] != "tiny" or env.get("OMP_NUM_THREADS") != "1":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // GIB))  # a notebook needs less than one


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
        tqdm.write(f"{here.show_path(copy)} had changes of yours: it is {aside.name} now.")
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
    """Run all cells of one notebook, as `run_cells` does, with a line of progress."""
    progress = Progress({path.stem: len(code_cells(notebook))})
    try:
        in_loop(run_cells(notebook, path, env, progress))
    finally:
        progress.close()


async def run_cells(notebook: NotebookNode, path: Path, env: dict[str, str], progress: "Progress") -> None:
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
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        open(Path(home) / "kernel.log", "w+", encoding="utf-8", errors="replace") as log,
    ):
        # The reader's own IPython settings and start-up files stay out of it; so does the terminal, whose progress line the
        # kernel's own messages would break.
        env = env | {"IPYTHONDIR": home, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        client = WatchedClient(notebook, path, progress)
        try:
            await client.async_execute(env=env, stdout=log, stderr=log)
            progress.begin(path.stem, len(code_cells(notebook)))
        except CellExecutionError:
            raise CourseError(failure(path, notebook, client.running, error_lines(client.running))) from None
        except RuntimeError:  # a DeadKernelError, or a kernel that never answered
            if asyncio.current_task().cancelling():  # nbclient takes this for a dead kernel too
                raise asyncio.CancelledError from None
            log.seek(0)
            reason = f"{DEAD}\n{plain(''.join(log.readlines()[-8:]))}".strip()
            raise CourseError(failure(path, notebook, client.running, reason)) from None
        finally:
            progress.end(path.stem)


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
    """Runs a notebook in its folder, and tells the display of progress which cell runs and what it prints."""

    def __init__(self, notebook: NotebookNode, path: Path, progress: "Progress"):
        super().__init__(
            notebook,
            kernel_name="python3",
            kernel_manager_class=ThisPython,
            startup_timeout=600,
            timeout=None,
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        self.name, self.progress = path.stem, progress
        self.running = code_cells(notebook)[0]
        self.on_cell_execute = self._started

    @asynccontextmanager
    async def async_setup_kernel(self, **kwargs) -> AsyncIterator[None]:
        """A kernel while the block runs, and not longer.

        nbclient's own also answers signals, of which only the last of several clients would hear. And where a kernel does not
        start, it leaves behind something to do at exit that then fails.
        """
        self.km = self.create_kernel_manager()
        try:
            await self.async_start_new_kernel(**kwargs)
            await self.async_start_new_kernel_client()
            yield
        except BaseException:
            self.shutdown_kernel = "immediate"  # it may be in the middle of a long cell
            raise
        finally:
            if self.km is not None:
                await self._async_cleanup_kernel()

    async def _started(self, cell, cell_index):
        self.running = cell
        done = sum(cell.cell_type == "code" for cell in self.nb.cells[:cell_index])
        self.progress.begin(self.name, done)

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Take in a message of the kernel, as nbclient does, and tell the display what was printed."""
        if msg["msg_type"] == "stream":
            self.progress.heard(self.name, msg["content"]["text"])
        return super().process_message(msg, cell, cell_index)


class Progress:
    """One line about the notebooks that run: cells done, the time so far, and the last thing that one of them printed.

    On a terminal the line is redrawn twice a second; in a log a new line appears every half minute, so that a long cell is
    seen to be alive in either, and one at the end of each notebook.
    """

    def __init__(self, cells: dict[str, int]):
        self.cells, self.done, self.running, self.last = cells, dict.fromkeys(cells, 0), [], ""
        self.started = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            layout = "{desc} |{bar:20}| {n}/{total} cells, {elapsed}{postfix}"
            self.bar = tqdm(
                total=sum(cells.values()),
                desc=self._names(),
                bar_format=layout,
                dynamic_ncols=True,
                leave=True,
            )
        else:
            print(f"{self._names()}: {sum(cells.values())} cells", flush=True)
        self.closed = threading.Event()
        self.ticker = threading.Thread(target=self._tick, daemon=True)
        self.ticker.start()

    def begin(self, name: str, done: int):
        """The next cell of a notebook begins, after `done` others."""
        self.done[name], self.last = done, ""
        if name not in self.running:
            self.running = sorted([*self.running, name])

    def heard(self, name: str, text: str):
        """The running cell of a notebook printed `text`."""
        lines = [line.strip() for line in re.split(r"[\r\n]", ANSI.sub("", text)) if line.strip()]
        if lines:
            self.last = (
                printable(lines[-1]) if len(self.cells) == 1 else f"{name[:2]}: {printable(lines[-1])}"
            )

    def end(self, name: str):
        """A notebook is done, or has failed."""
        self.running = [other for other in self.running if other != name]
        self.last = ""
        if self.bar is None:
            print(f"{name}: {self.done[name]}/{self.cells[name]} cells, {self._elapsed()}", flush=True)

    def close(self):
        """Nothing runs any more."""
        self.closed.set()
        self.ticker.join()
        if self.bar is not None:
            self._show()
            self.bar.close()

    def _tick(self):
        while not self.closed.wait(0.5 if self.bar is not None else 30):
            self._show()

    def _names(self) -> str:
        if len(self.cells) == 1:
            return next(iter(self.cells))
        return (
            f"{len(self.cells)} notebooks"
            + (": " if self.running else "")
            + ", ".join(name[:2] for name in self.running)
        )

    def _elapsed(self) -> str:
        return tqdm.format_interval(time.monotonic() - self.started)

    def _show(self):
        done, cells = sum(self.done.values()), sum(self.cells.values())
        if self.bar is not None:
            self.bar.n = done
            self.bar.set_description_str(self._names(), refresh=False)
            self.bar.set_postfix_str(self.last)  # redraws
        else:
            print(
                f"{self._names()}: {done}/{cells} cells, {self._elapsed()} {self.last}".rstrip(), flush=True
            )


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The notebook's code cells, as a list of its own nodes."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
