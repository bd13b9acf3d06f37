"""What a notebook's first cell needs: scale, device, engine, where things come from and where results go.

Nothing heavy is imported at the top, so `python -m helpers doctor` works in a Python where nothing is installed.
"""

import contextlib
import json
import logging
import math
import os
import platform
import re
import sys
import tempfile
import threading
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from helpers import files
from helpers.errors import CourseError
from helpers.files import write_text as atomic_write  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent

# where `google.colab.drive.mount("/content/drive")` puts a reader's files
DRIVE = Path("/content/drive/MyDrive")

# The three models at full scale: the folder's name under RLHF_ASSETS, and what it stands for on the hub.
MODELS = {
    "gpt2": "openai-community/gpt2",
    "gpt2-imdb": "lvwerra/gpt2-imdb",
    "distilbert-imdb": "lvwerra/distilbert-imdb",
}
REVIEWS = "stanfordnlp/imdb"
# The commits that the course takes from the hub, whatever its owners put there later. Of lvwerra/gpt2-imdb none is known to us.
REVISIONS = {
    "openai-community/gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "lvwerra/gpt2-imdb": "main",
    "lvwerra/distilbert-imdb": "0fc02cd68445b599a9cb2da2368050e7fb31d29a",
    REVIEWS: "e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
}
REVIEW_FILES = {
    split: f"imdb/plain_text/{split}-00000-of-00001.parquet" for split in ("train", "test")
}  # under RLHF_ASSETS

LAYOUT = """  DIR/gpt2/  DIR/gpt2-imdb/  DIR/distilbert-imdb/     each with config.json, model.safetensors and tokenizer.json
  DIR/imdb/plain_text/train-00000-of-00001.parquet    and test-00000-of-00001.parquet"""

GIB = 2**30
INSTALL = "python -m pip install -r requirements.txt"


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
        return find_model("gpt2", self.scale, self.assets)

    @property
    def finetuned_model(self) -> str:
        """The folder of GPT-2 as it writes reviews."""
        return find_model("gpt2-imdb", self.scale, self.assets)

    @property
    def reward_model(self) -> str:
        """The folder of the classifier that judges reviews."""
        return find_model("distilbert-imdb", self.scale, self.assets)

    def steps(self, n: int) -> int:
        """`n` training steps shortened by RLHF_BUDGET, at least one."""
        return max(1, round(n * self.budget))

    def show_path(self, path) -> str:
        """The path from the course's top folder, where it lies inside it: what a notebook prints names no machine."""
        path = Path(path).absolute()
        return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)

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


@dataclass(frozen=True)
class Check:
    """One row of the environment table."""

    name: str
    found: str
    ok: bool
    advice: str = ""


def start(seed: int = 0) -> Course:
    """Choose the scale, quiet the libraries, seed them, and say in one line what was chosen.

    The scale is RLHF_SCALE where it is set; else "full" where RLHF_ASSETS names a folder, or where there is a GPU and the
    hub answers; else "tiny".

    Raises:
        CourseError: a RLHF_ setting that cannot be used, a missing part of the assets folder, or no way to the hub.
    """
    send_nothing_home()
    budget = read_budget()
    scale, assets = choose_scale()
    out = make_out(scale)
    quiet()

    import transformers

    from helpers import engine
    from helpers.ppo.parallel import processes

    process = processes.state()
    here = Course(
        scale=scale,
        device=process.device.type,
        engine=engine.describe(),
        out=out,
        budget=budget,
        assets=assets,
    )
    transformers.set_seed(seed)
    parts = [f"Scale {here.scale}", here.device, here.engine, f"results in {here.show_path(here.out)}"]
    if here.budget != 1:
        parts.append(f"budget {here.budget:g}")
    if process.num_processes > 1:
        parts.append(f"{process.num_processes} processes")
    if process.is_main_process:
        print(" · ".join(parts))
    return here


def find_model(name: str, scale: str, assets: Path | None) -> str:
    """The folder of a model, by its name in MODELS; from the hub it is fetched the first time.

    Raises:
        CourseError: the hub does not give it.
    """
    if scale == "tiny":
        from helpers.tiny import TINY

        return str(TINY / name.replace("imdb", "reviews"))
    return str(assets / name) if assets else fetch_model(MODELS[name])


def fetch_model(hub_id: str) -> str:
    """The folder with a model's files, out of the Hugging Face cache, or fetched into it at the commit in REVISIONS."""
    from huggingface_hub import HfApi, snapshot_download

    revision = REVISIONS[hub_id]
    if cached := cached_model(hub_id):
        return cached
    try:
        names = HfApi().list_repo_files(hub_id, revision=revision, token=False)
        weights = "model*.safetensors"  # some repositories have the same weights in four formats
        if not any(fnmatch(name, weights) for name in names):
            weights = "pytorch_model*.bin"
        wanted = [
            name
            for name in names
            if "/" not in name and (name.endswith((".json", ".txt")) or fnmatch(name, weights))
        ]
        return snapshot_download(hub_id, revision=revision, allow_patterns=wanted, token=False)
    except Exception as error:  # the hub's client raises many kinds
        raise CourseError(
            f"{hub_id} could not be fetched from huggingface.co: {files.reason(error)}. Try again, or set RLHF_ASSETS to a folder "
            "that holds it (`python -m helpers prefetch DIR`), or RLHF_SCALE=tiny, which needs no network."
        ) from error


def cached_model(hub_id: str) -> str | None:
    """The folder in the Hugging Face cache where an earlier run left a model."""
    from huggingface_hub import snapshot_download

    with contextlib.suppress(Exception):  # not there, in whatever way
        folder = Path(snapshot_download(hub_id, revision=REVISIONS[hub_id], local_files_only=True))
        weights = [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]
        if weights and (folder / "config.json").is_file() and any(folder.glob("*token*")):
            return str(folder)
    return None


def read_budget() -> float:
    """RLHF_BUDGET: the fraction of the training to do, 1 where it is not set."""
    text = os.environ.get("RLHF_BUDGET") or "1"
    try:
        budget = float(text)
    except ValueError:
        budget = math.nan
    if not (0 < budget < math.inf):
        raise CourseError(
            f"RLHF_BUDGET is {text!r}: expected a number above 0, such as 0.1 for a tenth of the training. "
            "Leave it unset for all of it."
        )
    return budget


def choose_scale() -> tuple[str, Path | None]:
    """The scale, and the assets folder where one is used.

    Raises:
        CourseError: as `start` says.
    """
    asked = os.environ.get("RLHF_SCALE") or None
    if asked not in (None, "tiny", "full"):
        raise CourseError(
            f"RLHF_SCALE is {asked!r}: expected tiny or full. Leave it unset to let the course choose."
        )
    if asked == "tiny":
        return "tiny", None
    if os.environ.get("RLHF_ASSETS"):
        return "full", check_assets(from_root(os.environ["RLHF_ASSETS"]))
    if asked == "full":
        if not hub_answers():
            use_cache()
        return "full", None
    return ("full" if has_gpu() and hub_answers() else "tiny"), None


def check_assets(folder: Path) -> Path:
    """The folder, when every part is there.

    Raises:
        CourseError: names what is missing, the layout, and the command that fills the folder.
    """
    missing = missing_parts(folder)
    if missing:
        what = f"lacks {', '.join(missing)}" if folder.is_dir() else "is not a folder"
        raise CourseError(
            f"RLHF_ASSETS={folder} {what}. Expected, with DIR for that folder:\n{LAYOUT}\n"
            "`python -m helpers prefetch DIR` fetches the missing parts where there is a network."
        )
    return folder


def missing_parts(folder: Path) -> list[str]:
    """The files that an assets folder lacks, by their paths in it."""
    wanted = [f"{name}/{file}" for name in MODELS for file in ("config.json", "tokenizer.json")]
    missing = [part for part in [*wanted, *REVIEW_FILES.values()] if not (folder / part).is_file()]
    for name in MODELS:
        if not any(folder.glob(f"{name}/model*.safetensors")):  # a big model is saved in several files
            missing.append(f"{name}/model.safetensors")
    return sorted(missing)


def on_colab() -> bool:
    """Whether this is one of Google Colab's machines; the Setup cell, which comes before any import, asks the same."""
    return "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ


def has_gpu() -> bool:
    """Whether there is a CUDA device."""
    import torch

    return torch.cuda.is_available()


def hub_answers(seconds: float = 5) -> bool:
    """Whether the hub can be asked, found out within `seconds` whatever the network does; no where HF_HUB_OFFLINE is set."""
    from huggingface_hub import HfApi

    answers = []

    def ask():
        with contextlib.suppress(Exception):  # offline, no network, a wifi login page: all mean no
            HfApi().model_info(MODELS["gpt2"], timeout=seconds, token=False)
            answers.append(True)

    # A thread, because looking up a host name heeds no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)


def use_cache() -> None:
    """Take everything from the Hugging Face cache, where an earlier run left it.

    Raises:
        CourseError: something is not there.
    """
    if not all_cached():
        raise CourseError(
            "RLHF_SCALE=full needs models and reviews from huggingface.co, which does not answer. "
            "Set RLHF_ASSETS to a folder that holds them (`python -m helpers prefetch DIR` fills one where there is "
            "a network), or set RLHF_SCALE=tiny, which needs no network."
        )
    import datasets
    import huggingface_hub.constants

    # Otherwise the hub would be asked for each file all the same, several times over.
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True


def all_cached() -> bool:
    """Whether an earlier run left the models and the reviews in the Hugging Face cache."""
    from datasets.config import HF_DATASETS_CACHE

    reviews = Path(HF_DATASETS_CACHE, REVIEWS.replace("/", "___")).glob("*/*/*/dataset_info.json")
    return all(map(cached_model, MODELS.values())) and any(reviews)


def make_out(scale: str) -> Path:
    """This scale's folder for results, made where it is missing: that of `results`, for this scale."""
    out = results() / scale
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise CourseError(
            f"Results cannot be written to {out}: {error.strerror}. Set RLHF_OUT to a folder you can write to."
        ) from error
    return out


def results() -> Path:
    """Where results go: RLHF_OUT; on Colab the reader's Drive where it is mounted, since all else is lost with the session; out/."""
    drive = DRIVE if on_colab() and DRIVE.is_dir() else None
    return from_root(os.environ.get("RLHF_OUT") or (drive / "rlhf-course" if drive else "out"))


def from_root(path: str) -> Path:
    """A path out of a setting. A relative one counts from the course's top folder, for notebooks and commands alike."""
    return Path(os.path.normpath(ROOT / Path(path).expanduser()))


def send_nothing_home() -> None:
    """Turn off, before the first request, what the libraries would tell their makers, and their search for a login.

    The environment is for libraries that are imported later and for kernels and processes that start later.
    """
    for name in (
        "HF_HUB_DISABLE_TELEMETRY",
        "DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    ):
        os.environ[name] = "1"
    # transformers would ask a server to convert weights of the old format, in a thread of its own
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    os.environ["USE_HUB_KERNELS"] = "NO"  # nor would it fetch code for the GPU from the hub
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # these two come with trlX
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    # Everything the course needs is public; looking for a token would make Colab ask the reader for one.
    huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_UPDATE_DOWNLOAD_COUNTS = False


def quiet() -> None:
    """Turn off what the libraries say that a reader need not read."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import huggingface_hub.constants
    import pandas
    import transformers

    pandas.set_option("display.html.use_mathjax", False)  # "$5 and $7" in a review is no formula
    huggingface_hub.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    huggingface_hub.utils.enable_progress_bars()  # a download takes minutes: that the reader should see
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    for name in ("accelerate", "matplotlib.font_manager"):
        logging.getLogger(name).setLevel(logging.ERROR)


def environment() -> list[Check]:
    """The environment table: one row for each thing the course needs, with what to do where it is not right."""
    needed = requirements()
    shown = ("torch", "transformers", "datasets", "accelerate", "ipywidgets", "matplotlib")
    return [
        check_python(),
        *[check_package(name, needed[name]) for name in shown],
        check_packages({name: ranges for name, ranges in needed.items() if name not in shown}),
        check_engine(),
        check_device(),
        check_memory(),
        check_disk(),
    ]


def requirements() -> dict[str, str]:
    """Each package of requirements.txt with its range, for instance {"torch": ">=2.11,<2.14"}."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w-]+)(.*)$", text, re.MULTILINE))


def check_python() -> Check:
    """Python itself: 3.11, 3.12 or 3.13."""
    ok = (3, 11) <= tuple(map(int, platform.python_version_tuple()[:2])) <= (3, 13)
    return Check("Python", platform.python_version(), ok, "" if ok else "use Python 3.11, 3.12 or 3.13")


def check_package(name: str, ranges: str) -> Check:
    """One installed package against its range; reads its metadata, imports nothing."""
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "missing", False, INSTALL)
    ok = in_range(found, ranges)
    return Check(name, found, ok, "" if ok else f"wanted {ranges}: {INSTALL}")


def check_packages(needed: dict[str, str]) -> Check:
    """The packages that get no row of their own, in one."""
    wrong = [check for check in (check_package(*item) for item in needed.items()) if not check.ok]
    if not wrong:
        return Check("other packages", f"{len(needed)} found", True)
    advice = ", ".join(f"{check.name} ({check.found})" for check in wrong)
    return Check("other packages", f"{len(wrong)} not right", False, f"{advice}: {INSTALL}")


def in_range(version: str, ranges: str) -> bool:
    """Whether a version lies in a range like ">=2.11,<2.14", the only two signs requirements.txt uses."""

    def numbers(text):
        return [int(number) for number in re.findall(r"\d+", re.match(r"[\d.]*", text)[0])]

    for clause in filter(None, ranges.split(",")):
        sign, limit = re.match(r"\s*(>=|<)\s*(.+)", clause).groups()
        if (numbers(version) >= numbers(limit)) != (sign == ">="):
            return False
    return True


def check_engine() -> Check:
    """What does the reinforcement learning; trlX can be installed and yet not start."""
    try:
        from helpers import engine

        if engine.uses_trlx():
            import helpers.real_trlx.train  # noqa: F401
        return Check("engine", engine.describe(), True)
    except (ImportError, CourseError) as error:
        return Check("engine", "cannot start", False, str(error))


def check_device() -> Check:
    """What the numbers are crunched on; a CPU is enough for tiny scale."""
    try:
        import torch
    except ImportError as error:
        return Check("device", "unknown", False, str(error))
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found = f"{torch.cuda.get_device_name()}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
        return Check("device", found, True)
    found = f"CPU, {os.cpu_count()} cores"
    return Check("device", found, True, "enough for tiny scale; full scale wants a GPU")


def check_memory(needed: float = 2) -> Check:
    """Main memory in GiB: tiny scale needs 2 free."""
    try:
        import psutil
    except ImportError as error:
        return Check("memory", "unknown", False, str(error))
    memory = psutil.virtual_memory()
    ok = memory.available >= needed * GIB
    found = f"{memory.available / GIB:.0f} of {memory.total / GIB:.0f} GiB free"
    return Check("memory", found, ok, "" if ok else f"close other programs: {needed} GiB should be free")


def check_disk(needed: float = 1) -> Check:
    """Disk space in GiB where results go: tiny scale needs 1."""
    free = files.free_space(results())
    ok = free >= needed * GIB
    advice = f"{needed} GiB is needed, 8 at full scale: free some space, or set RLHF_OUT to another disk"
    return Check("disk", f"{free / GIB:.0f} GiB free", ok, "" if ok else advice)
