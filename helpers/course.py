"""What a notebook's first cell needs: scale, device, engine, where things come from and where results go.

Nothing heavy is imported at the top, so `python -m helpers doctor` works in a Python where nothing is installed.
"""

import contextlib
import functools
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers import assets, files, look, settings
from helpers.errors import CourseError
from helpers.settings import ROOT, from_root, read_budget  # noqa: F401  (all that belongs to a start is found here)
from helpers.terminal import print_whatever_comes

# where `google.colab.drive.mount("/content/drive")` puts a reader's files
DRIVE = Path("/content/drive/MyDrive")

GIB = 2**30


@dataclass(frozen=True)
class Course:
    """Where this run of the course gets things from and puts them; made by `start`."""

    scale: str  # "tiny" or "full"
    device: str  # as Accelerate picks it: "cpu", "cuda", "mps"
    engine: str
    out: Path
    budget: float = 1.0
    assets: Path | None = None  # the folder that stands in for the hub

    @property
    def base_model(self) -> str:
        """The folder of GPT-2, or of what stands for it at this scale, as from_pretrained takes it."""
        return assets.find_model("gpt2", self.scale, self.assets)

    @property
    def finetuned_model(self) -> str:
        """The folder of GPT-2 as it writes reviews."""
        return assets.find_model("gpt2-imdb", self.scale, self.assets)

    @property
    def reward_model(self) -> str:
        """The folder of the classifier that judges reviews."""
        return assets.find_model("distilbert-imdb", self.scale, self.assets)

    def steps(self, n: int, at_least: int = 1) -> int:
        """`n` training steps, or prompts or texts, shortened by RLHF_BUDGET; `at_least` is the fewest that still make sense."""
        return max(at_least, round(n * self.budget))

    def show_path(self, path: str | Path) -> str:
        """The path from the course's top folder, where it lies inside it: what a notebook prints names no machine."""
        return show_path(path)

    def save_result(self, **numbers) -> None:
        """Add numbers (and paths) to this scale's result.json, which `python -m helpers run` tabulates."""
        path = self.out / "result.json"
        with files.locked(path):  # another notebook may be at its end too
            try:
                result = self.load_result()
            except CourseError:
                aside = files.set_aside(path, "damaged")
                print(f"{self.show_path(path)} was damaged. It is {aside.name} now, and a new one begins.")
                result = {}
            result |= {name: self._plain(value) for name, value in numbers.items()}
            files.write_text(path, json.dumps(result, indent=2) + "\n")

    def load_result(self) -> dict:
        """What `save_result` has saved so far; empty before the first.

        Raises:
            CourseError: the file is damaged.
        """
        path = self.out / "result.json"
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise CourseError(
                f"{self.show_path(path)} cannot be read ({files.reason(error)}): rename it, and run the notebooks again."
            ) from error
        if not isinstance(result, dict):
            raise CourseError(
                f"{self.show_path(path)} holds no results: rename it, and run the notebooks again."
            )
        return result

    def _plain(self, value):
        if isinstance(value, Path):
            return self.show_path(value)
        return value.item() if hasattr(value, "item") else value  # numpy's and torch's numbers


def show_path(path: str | Path) -> str:
    """`Course.show_path`, for what runs without a start."""
    path = Path(path).absolute()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def start(seed: int = 0) -> Course:
    """Choose the scale, quiet the libraries, seed them, set how figures and tables look, and say in one line what was chosen.

    The scale is RLHF_SCALE where it is set; else "full" where RLHF_ASSETS names a folder, or where there is a GPU and the
    hub answers; else "tiny".

    Raises:
        CourseError: a RLHF_ setting that cannot be used, a missing part of the assets folder, or no way to the hub.
    """
    print_whatever_comes()
    assets.send_nothing_home()
    settings.tell_of_unknown()
    wait_without_spinning()
    budget = read_budget()
    scale, folder = choose_scale()
    out = make_out(scale)
    choose_threads(scale)
    stay_on_the_cpu(scale)
    quiet()
    look.dress()
    if folder:
        assets.refuse_what_runs(folder)

    from accelerate.utils import set_seed

    from helpers import engine
    from helpers.ppo.parallel import processes

    process = processes.state()
    here = Course(
        scale=scale,
        device=process.device.type,
        engine=engine.describe(),
        out=out,
        budget=budget,
        assets=folder,
    )
    set_seed(seed)
    parts = [f"Scale {here.scale}", here.device, here.engine, f"results in {here.show_path(here.out)}"]
    if here.budget != 1:
        parts.append(f"budget {here.budget:g}")
    if process.num_processes > 1:
        parts.append(f"{process.num_processes} processes")
    if process.is_main_process:
        print(" · ".join(parts))
    return here


def choose_scale() -> tuple[str, Path | None]:
    """The scale, and the assets folder where one is used.

    Raises:
        CourseError: as `start` says.
    """
    asked = settings.read_scale()
    if asked == "tiny":
        return "tiny", None
    if folder := settings.read_assets():
        return "full", folder
    if asked == "full":
        if not assets.hub_answers():
            assets.use_cache()
        return "full", None
    return ("full" if has_gpu() and assets.hub_answers() else "tiny"), None


def on_colab() -> bool:
    """Whether this is one of Google Colab's machines. Kaggle's are none, though they are made from Colab's."""
    return ("google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ) and (
        "KAGGLE_KERNEL_RUN_TYPE" not in os.environ
    )


def has_gpu() -> bool:
    """Whether there is a CUDA device."""
    import torch

    return torch.cuda.is_available()


def make_out(scale: str) -> Path:
    """This scale's folder for results, made where it is missing: that of `results`, for this scale."""
    out = results() / scale
    with errors_about_results(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    return out


def check_out(scale: str) -> None:
    """Refuse a folder that `make_out` could not make or write to; nothing is made here."""
    out = results() / scale
    with errors_about_results(out):
        with contextlib.suppress(FileNotFoundError):
            os.stat(out)  # a name may be too long, or lead through a file
        with tempfile.TemporaryFile(dir=next(path for path in (out, *out.parents) if os.path.lexists(path))):
            pass


@contextlib.contextmanager
def errors_about_results(out: Path) -> Iterator[None]:
    """While the block runs, an error of the disk becomes a sentence about the folder for results."""
    try:
        yield
    except OSError as error:
        raise CourseError(
            f"Results cannot be written to {out}: {error.strerror}. Set RLHF_OUT to a folder you can write to."
        ) from error


def results() -> Path:
    """Where results go: RLHF_OUT; on Colab the reader's Drive where it is mounted, since all else is lost with the session; out/."""
    return settings.read_out() or from_root(DRIVE / "rlhf-course" if on_colab() and drive_works() else "out")


def drive_works() -> bool:
    """Whether the reader's Drive is mounted and takes files. Where it is mounted and does not, a line on stderr says why."""
    try:
        with tempfile.TemporaryFile(dir=DRIVE):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        print(
            f"Your Drive is mounted and cannot be written to ({error.strerror}): results go to out/, which ends with the session.",
            file=sys.stderr,
        )
        return False


def wait_without_spinning() -> None:
    """Let the threads that compute wait for each other asleep. This counts where torch is loaded later, and in processes started later.

    They spin otherwise, and take from whatever else runs the time in which it would let go of a core they wait for.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choose_threads(scale: str) -> None:
    """Have torch compute in one thread at tiny scale, and elsewhere in as many as it takes by itself, unless the reader has said.

    The embedded models are so small that more threads mostly wait for each other; and sums in one thread are the same everywhere.
    """
    torchs_own = threads_at_first()
    if not threads_are_set():
        import torch

        torch.set_num_threads(1 if scale == "tiny" else torchs_own)


def threads_are_set() -> bool:
    """Whether the reader has said in how many threads to compute."""
    return any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def one_thread() -> dict[str, str]:
    """What a new process's environment needs to compute in one thread; nothing where the reader has said in how many."""
    return {} if threads_are_set() else {"OMP_NUM_THREADS": "1"}


@functools.cache
def threads_at_first() -> int:
    """In how many threads torch computes before the course has chosen."""
    import torch

    return torch.get_num_threads()


def stay_on_the_cpu(scale: str) -> None:
    """Have Accelerate take the CPU of a Mac and not its GPU at tiny scale, unless the reader has said.

    To start an operation on a GPU takes longer than these small models take to do it.
    """
    if scale == "tiny" and sys.platform == "darwin":
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")


def quiet() -> None:
    """Turn off what the libraries say that a reader need not read."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import huggingface_hub.constants
    import transformers

    huggingface_hub.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    huggingface_hub.utils.enable_progress_bars()  # a download takes minutes: that the reader should see
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    for name in ("accelerate", "matplotlib.font_manager"):
        logging.getLogger(name).setLevel(logging.ERROR)
