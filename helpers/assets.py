"""Models and reviews: embedded, from the hub and its cache, or out of a folder that stands in for it (RLHF_ASSETS)."""

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from helpers import files
from helpers.errors import CourseError, chain

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

REVIEWS_PART = "imdb/plain_text"

LAYOUT = """  DIR/gpt2/  DIR/gpt2-imdb/  DIR/distilbert-imdb/     each with config.json, model.safetensors and tokenizer.json
  DIR/imdb/plain_text/train-00000-of-00001.parquet    and test-00000-of-00001.parquet"""


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
    """The folder with a model's files, out of the Hugging Face cache, or fetched into it at the commit in REVISIONS.

    Raises:
        CourseError: the hub does not give it.
    """
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


def refuse_what_runs(folder: Path) -> None:
    """Refuse an assets folder whose models want code run or lead elsewhere: notebooks hand them to transformers as they are.

    Raises:
        CourseError: names the model, the file and the key.
    """
    from helpers import weights

    for name in MODELS:
        weights.refuse_what_runs(folder / name, f"{name} in RLHF_ASSETS")


def missing_parts(folder: Path) -> list[str]:
    """The files that an assets folder lacks, by their paths in it."""
    wanted = [f"{name}/{file}" for name in MODELS for file in ("config.json", "tokenizer.json")]
    missing = [part for part in [*wanted, *REVIEW_FILES.values()] if not (folder / part).is_file()]
    for name in MODELS:
        if not any(folder.glob(f"{name}/model*.safetensors")):  # a big model is saved in several files
            missing.append(f"{name}/model.safetensors")
    return sorted(missing)


def hub_answers(seconds: float = 5) -> bool:
    """Whether the hub answers within `seconds`, whatever the network does; False where HF_HUB_OFFLINE is set."""
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


@contextlib.contextmanager
def cache_alone(hub_id: str) -> Iterator[bool]:
    """While the block runs, models and data sets come from the Hugging Face cache alone, if the hub does not answer for `hub_id`.

    The libraries would ask for each file several times over. For a folder nothing is asked.

    Yields:
        Whether the hub was found not to answer.
    """
    import datasets
    import huggingface_hub.constants

    silent = not files.expand(hub_id).exists() and not hub_answers()
    places = (huggingface_hub.constants, datasets.config)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places if silent else ():
            place.HF_HUB_OFFLINE = True
        yield silent
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def all_cached() -> bool:
    """Whether an earlier run left the models and the reviews in the Hugging Face cache."""
    from datasets.config import HF_DATASETS_CACHE

    reviews = Path(HF_DATASETS_CACHE, REVIEWS.replace("/", "___")).glob("*/*/*/dataset_info.json")
    return all(map(cached_model, MODELS.values())) and any(reviews)


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


# errors of the machine, which say nothing about the file
NOT_ITS_OWN = {errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EIO}


def prefetch(folder: Path) -> None:
    """Fill an assets folder. Each part appears whole or not at all, so this can be stopped and run again.

    Raises:
        CourseError: a part could not be fetched, read or written; the parts fetched so far are kept.
    """
    send_nothing_home()
    from helpers.course import quiet

    quiet()
    folder = files.expand(folder).absolute()
    for name, hub_id in [*MODELS.items(), (REVIEWS_PART, REVIEWS)]:
        if is_there(folder, name):
            print(f"{name}: already there", flush=True)
            continue
        files.check_folder(folder / name)
        if not hub_answers() and not all_cached():
            raise CourseError(
                f"{name} has to come from huggingface.co, which does not answer. Run this where it does."
            )
        print(f"{name}: fetching {hub_id} at {REVISIONS[hub_id]} ...", flush=True)
        fetch_part(folder / name, name, hub_id)
    check_assets(folder)
    print(f"\nComplete. To use it at full scale: RLHF_ASSETS={folder} make course")


def is_there(folder: Path, name: str) -> bool:
    """Whether a part is complete and can be loaded. What is damaged is renamed: it may be somebody's all the same.

    Raises:
        CourseError: it could not be loaded for a reason that is not its own, such as a package or memory that is lacking.
    """
    place = folder / name
    if any(part.startswith(f"{name}/") for part in missing_parts(folder)):
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
                piece.to_parquet(place / Path(REVIEW_FILES[kind]).name)
            else:
                piece.save_pretrained(place)

    files.write_folder(target, write)


def load_part(name: str, source: str) -> dict:
    """A model and its tokenizer, or the reviews' two splits, from the hub or a folder; nothing in it is run."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from helpers import weights

    if name == REVIEWS_PART:
        revision = None if Path(source).is_dir() else REVISIONS[source]
        return {
            split: datasets.load_dataset(source, split=split, revision=revision) for split in REVIEW_FILES
        }
    if not Path(source).is_dir():
        source = fetch_model(source)
    head = AutoModelForSequenceClassification if name == "distilbert-imdb" else AutoModelForCausalLM
    return {
        "model": weights.load_model(head, source, "the model", dtype="auto"),
        "tokenizer": weights.load_tokenizer(source, "the tokenizer"),
    }
