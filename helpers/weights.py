"""Models and tokenizers from a folder or from the hub: nothing found there is run, and no weight is made up.

transformers runs code of a model's author where it is told to, follows an adapter to another model, fetches kernels as
programs, and fills weights that a file lacks with random numbers. Here each of these is an error.
"""

import errno
import json
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Some models fetch programs ("kernels") from the hub as they are made. transformers reads this when it is imported.
os.environ["USE_HUB_KERNELS"] = "NO"

import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import (  # noqa: E402
    cached_file,
    is_flash_attn_2_available,
    is_flash_attn_3_available,
    is_kernels_available,
)

from helpers.errors import CourseError, chain  # noqa: E402
from helpers.files import settle  # noqa: E402

Source = str | os.PathLike  # a folder, or a hub id
EXPECTED = "It must be a folder that save_pretrained wrote, or a name on the Hugging Face hub (which needs a network)."

# where to look for the files
PLACE = {"revision": str, "subfolder": str, "cache_dir": (str, os.PathLike), "local_files_only": bool}
# how a model is made from them; whatever else model_extra_configs has must be a setting of the model's configuration
MAKING = {
    "variant": str,
    "use_safetensors": bool,
    "low_cpu_mem_usage": bool,
    "attn_implementation": (str, dict),
}
TOKENIZER = set(
    """add_bos_token add_eos_token add_prefix_space additional_special_tokens bos_token
    clean_up_tokenization_spaces cls_token do_lower_case eos_token errors extra_special_tokens legacy mask_token
    model_input_names model_max_length pad_token padding_side sep_token split_special_tokens strip_accents
    tokenize_chinese_chars truncation_side unk_token use_fast""".split()
)

ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
EXPERTS = ("eager", "batched_mm", "grouped_mm")
RUNS_CODE = ("auto_map", "custom_pipelines", "configuration_files", "quantization_config")


def load_model(
    kind: type,
    source: Source,
    what: str,
    settings: dict | None = None,
    expected: str = EXPECTED,
    dtype: torch.dtype | str = torch.float32,
) -> PreTrainedModel:
    """The model in `source`, a folder or a hub id, with every weight from there. `kind` is one of transformers' Auto classes.

    `what` says in an error where `source` was given, and `expected` what it should have been. `settings` are a run's
    model.model_extra_configs.

    Raises:
        CourseError: nothing can be loaded from there, it wants code run, or weights are missing or of another shape.
    """
    with errors_about(what, source, expected):
        settings = check_keys(settings, "model.model_extra_configs")
        making = choose(settings, MAKING)
        refuse_code(making, "model.model_extra_configs")
        place = pinned(source, choose(settings, PLACE))
        refuse_untrusted(source, place)
        refuse_adapter(source, place)
        changes = {key: value for key, value in settings.items() if key not in PLACE and key not in MAKING}
        config = load_config(source, place, changes)
        model, found = kind.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that the error names them
            **place,
            **making,
        )
        if model.config.name_or_path != str(source) or getattr(model, "_hf_peft_config_loaded", False):
            raise CourseError("it leads to another model: expected a whole model")
        refuse_unfit(type(model).__name__, found)
        refuse_no_numbers(model)
        return model


def load_tokenizer(
    source: Source, what: str, settings: dict | None = None, expected: str = EXPECTED
) -> PreTrainedTokenizerBase:
    """The tokenizer in `source`, a folder or a hub id. `settings` are a run's tokenizer.tokenizer_extra_configs.

    Raises:
        CourseError: nothing can be loaded from there, or it wants code run.
    """
    with errors_about(what, source, expected):
        settings = check_keys(settings, "tokenizer.tokenizer_extra_configs")
        place = choose(settings, PLACE)
        for key in settings:
            if key not in PLACE and key not in TOKENIZER:
                known = ", ".join(sorted([*PLACE, *TOKENIZER]))
                raise CourseError(
                    f"{key!r:.60} in tokenizer.tokenizer_extra_configs is not passed on. Leave it out; known: {known}."
                )
        place = pinned(source, place)
        refuse_untrusted(source, place)
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **settings | place)


def refuse_what_runs(source: Source, what: str) -> None:
    """Refuse a model that another library is going to load, where it wants code run or leads to another model.

    Raises:
        CourseError: names the file and the key.
    """
    with errors_about(what, source, EXPECTED):
        place = pinned(source, {})
        refuse_untrusted(source, place)
        refuse_adapter(source, place)


def refuse_unreadable(kind: type, folder: Source, what: str) -> None:
    """Refuse a model's folder whose weights are not those of its architecture. Only their names and shapes are read.

    Raises:
        CourseError: names the weights that are missing or have another shape.
    """
    with errors_about(what, folder, EXPECTED):
        arguments = dict(device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True)
        _, found = kind.from_pretrained(folder, **arguments)
        refuse_unfit(kind.__name__, found)


def refuse_wrong_weights(model: PreTrainedModel, folder: Source, what: str) -> None:
    """Refuse a model that was made from `folder` and has random numbers in place of weights that the folder lacks.

    A model that was trained since is let through: then its weights are no longer those of the folder.

    Raises:
        CourseError: names the weights that are missing or have another shape.
    """
    refuse_what_runs(folder, what)
    with errors_about(what, folder, EXPECTED):
        arguments = dict(config=model.config, dtype=model.dtype, output_loading_info=True)
        arguments |= dict(ignore_mismatched_sizes=True)
        _, found = type(model).from_pretrained(folder, device_map="meta", **arguments)
        if found["missing_keys"] or found["mismatched_keys"]:
            again, _ = type(model).from_pretrained(folder, **arguments)
            made_up = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
            mine = model.state_dict()
            kept = {name: tensor for name, tensor in again.state_dict().items() if name not in made_up}
            if all(torch.equal(tensor, mine[name].cpu()) for name, tensor in kept.items()):
                refuse_unfit(type(model).__name__, found)


# ------------------------------------------------------------------------------------------- errors


@contextmanager
def errors_about(what: str, source: Source, expected: str) -> Iterator[None]:
    """While the block runs, every way in which `source` cannot be loaded becomes one sentence, which begins with `what`.

    Raises:
        CourseError: that sentence; it ends with what was `expected`.
    """
    named = f"{what} {str(source)!r:.200}"
    try:
        yield
    except CourseError as error:
        raise CourseError(f"{named}: {error}") from error.__cause__
    except ImportError as error:
        raise CourseError(f"{named} needs a Python package that is not here: {first_line(error)}") from error
    except Exception as error:  # what a damaged file leads to is any of many kinds
        if lacks_memory(error):
            raise CourseError(
                f"{named} does not fit into memory: {first_line(error)} Choose a smaller model or close other programs."
            ) from error
        raise CourseError(f"{named} cannot be loaded: {first_line(error)} {expected}") from error


def first_line(error: Exception) -> str:
    """What an error of a library says, short enough for a sentence."""
    if any(isinstance(one, pickle.UnpicklingError) for one in chain(error)):
        return "its weights are a pickle that holds more than tensors, which is not opened."
    if isinstance(error, RecursionError):
        return "a file in it is nested too deep."
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    said = said if len(said) <= 300 else f"{said[:297]}..."
    return said if said.endswith((".", "!", "?")) else f"{said}."


def lacks_memory(error: Exception) -> bool:
    """Whether an error, or one it came from, says that the memory ran out."""
    return any(
        isinstance(one, (MemoryError, torch.OutOfMemoryError))
        or getattr(one, "errno", None) == errno.ENOMEM
        or re.search("can(no|')t allocate memory|not enough memory|os error 12", str(one), re.IGNORECASE)
        for one in chain(error)
    )


# ------------------------------------------------------------------------------------------ settings


def check_keys(settings: object, where: str) -> dict:
    """The settings, a table with text as its keys; an empty one where there are none.

    Raises:
        CourseError: they are no such table.
    """
    if not isinstance(settings or {}, dict) or not all(isinstance(key, str) for key in settings or {}):
        raise CourseError(f"{where} is {settings!r:.60}: expected a table of keys")
    return settings or {}


def choose(settings: dict, known: dict) -> dict:
    """The `settings` that are `known`, a table of {key: type or types}.

    Raises:
        CourseError: one is of another type, or its path leads out of the model.
    """
    chosen = {key: value for key, value in settings.items() if key in known and value is not None}
    for key, value in chosen.items():
        if not isinstance(value, known[key]):
            kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
            raise CourseError(
                f"{key} is {value!r:.60}: expected {' or '.join(kind.__name__ for kind in kinds)}"
            )
    for key in ("revision", "subfolder", "variant"):
        if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", chosen.get(key) or "x") or ".." in chosen.get(key, ""):
            raise CourseError(f"{key} is {chosen[key]!r:.60}: expected a plain name inside the model")
    if "/" in chosen.get("variant", ""):
        raise CourseError(f"variant is {chosen['variant']!r:.60}: expected a plain name inside the model")
    return chosen


def load_config(source: Source, place: dict, changes: dict) -> PretrainedConfig:
    """The model's configuration with `changes`.

    Raises:
        CourseError: a change is none of its settings, or would run code.
    """
    raw = read_json(source, "config.json", place)
    config = AutoConfig.from_pretrained(source, trust_remote_code=False, **place)
    refuse_code(changes, "model.model_extra_configs")
    settings = config.to_dict()
    for key in changes:
        fixed = ("model_type", "architectures", "transformers_version", "transformers_weights")
        if key in ("num_labels", "torch_dtype"):  # settings too, under another name
            continue
        if key not in settings or key in fixed or key.startswith("_"):
            raise CourseError(
                f"{key!r:.60} in model.model_extra_configs is not passed on: it is neither a setting of a "
                f"{type(config).__name__} nor one of {', '.join(sorted([*PLACE, *MAKING]))}. Leave it out."
            )
    if changes:
        config = type(config).from_dict(raw, name_or_path=str(source), **changes)
    return config


# ---------------------------------------------------------------------------------- what lies there


def refuse_untrusted(source: Source, place: dict) -> None:
    """Refuse a folder or hub id, before anything of it is loaded, that wants code run or points elsewhere.

    Raises:
        CourseError: names the file and the key.
    """
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        refuse_code(read_json(source, name, place) or {}, name)
    if os.path.isdir(source):
        folder = Path(source, place.get("subfolder", ""))
        if (folder / "custom_generate").exists():
            raise CourseError(
                "it has code of its own in custom_generate, which is not run. Use a model without it."
            )
        for path in sorted(folder.glob("*.index.json")):
            refuse_leaving(folder, path)


def refuse_adapter(source: Source, place: dict) -> None:
    """Refuse an adapter: transformers would follow it to the model it was made for, wherever that is.

    Raises:
        CourseError: names that model.
    """
    root = {key: value for key, value in place.items() if key != "subfolder"}
    for where in [place] if place == root else [place, root]:
        adapter = read_json(source, "adapter_config.json", where)
        if adapter is not None:
            raise CourseError(
                f"it is an adapter for {adapter.get('base_model_name_or_path')!r:.100}, not a whole model: merge it "
                "first with peft's merge_and_unload and save the result"
            )


def refuse_code(settings: object, where: str) -> None:
    """Walk through settings, however nested, and refuse those that would run or fetch code.

    Raises:
        CourseError: names the key.
    """
    if isinstance(settings, (list, tuple)):
        for value in settings:
            refuse_code(value, where)
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        if key in RUNS_CODE and value:
            raise CourseError(
                f"{where} has {key!r}, with which code or weights of another kind would be loaded. "
                "Use a model that transformers knows by itself, in plain weights."
            )
        if key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
            refuse_attention(value, where)
        if key in ("experts_implementation", "_experts_implementation") and value not in (None, *EXPERTS):
            raise CourseError(f"{where} has {key} {value!r:.60}: expected one of {', '.join(EXPERTS)}")
        if key == "transformers_weights" and value is not None:
            if not isinstance(value, str) or not re.fullmatch(r"[\w.-]+", value):
                raise CourseError(f"{where} has {key} {value!r:.60}: expected the name of a file beside it")
        refuse_code(value, where)


def refuse_attention(value: object, where: str) -> None:
    """Refuse an attention that is none of ATTENTION: transformers would take its name for a program on the hub, and run that.

    Raises:
        CourseError: names it.
    """
    for name in value.values() if isinstance(value, dict) else [value]:
        if name is None:
            continue
        if name not in ATTENTION:
            raise CourseError(
                f"{where} has attn_implementation {name!r:.60}: expected one of {', '.join(ATTENTION)}"
            )
        there = {
            "flash_attention_2": is_flash_attn_2_available,
            "flash_attention_3": is_flash_attn_3_available,
        }
        # with the package kernels, transformers fetches a program in place of one that is missing or does not fit
        if name in there and (is_kernels_available() or not there[name]()):
            raise CourseError(
                f"{where} has attn_implementation {name!r}, for which flash_attn is not here or would be fetched "
                "from the hub by the package kernels: use sdpa or eager"
            )


def refuse_leaving(folder: Path, index: Path) -> None:
    """Refuse an index of weights that names a file outside its folder.

    Raises:
        CourseError: names the file.
    """
    listed = read_json(folder, index.name, {})
    names = listed.get("weight_map")
    if not isinstance(names, dict):
        raise CourseError(f"{index.name} is damaged: it has no weight_map")
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent  # the hub's cache: the files are links to blobs/ beside snapshots/
    for name in {str(name): name for name in names.values()}.values():
        plain = isinstance(name, str) and not re.search(r"[\\:\0]", name) and not Path(name).is_absolute()
        if not plain or ".." in Path(name).parts or not (folder / name).resolve().is_relative_to(root):
            raise CourseError(
                f"{index.name} names the file {name!r:.100}, which is not in the folder: expected the names of files "
                "beside it"
            )


def pinned(source: Source, place: dict) -> dict:
    """`place` with the commit that a hub id stands at now, so that what is looked at is what is loaded.

    Raises:
        OSError: there is no such model, or no network to look for it.
    """
    if not isinstance(source, (str, os.PathLike)) or not str(source).strip():
        raise CourseError("it is no text: expected the name of a folder or of a model on the hub")
    if os.path.isfile(source):
        raise NotADirectoryError("it is a file.")
    if os.path.isdir(source):
        for folder in (
            Path(source),
            Path(source).parent,
        ):  # a checkpoint's hf_model waits with the checkpoint
            settle(folder)
        if not Path(source, "config.json").exists() and Path(source, "hf_model", "config.json").exists():
            raise CourseError("it is a checkpoint, and its model is in the folder hf_model there: give that")
    path = None if os.path.isdir(source) else cached_file(source, "config.json", **place)
    commit = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(path))
    return place | {"revision": commit[1]} if commit else place


def read_json(source: Source, name: str, place: dict) -> dict | None:
    """The table in a model's file of this name; None where there is no such file.

    Raises:
        CourseError: the file is damaged.
    """
    problems = ("missing_entries", "connection_errors", "gated_repo")
    path = cached_file(
        source, name, **place, **{f"_raise_exceptions_for_{problem}": False for problem in problems}
    )
    if path is None:
        return None
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CourseError(f"{name} is damaged: {first_line(error)} Copy or save the model again.") from error
    if not isinstance(table, dict):
        raise CourseError(
            f"{name} is damaged: it holds a {type(table).__name__}. Copy or save the model again."
        )
    return table


# ------------------------------------------------------------------------------------------- weights


def refuse_unfit(model: str, found: dict) -> None:
    """Refuse weights that `found`, transformers' account of loading them, calls missing or mismatched.

    Raises:
        CourseError: names the first of them.
    """
    missing, unexpected = sorted(found["missing_keys"]), set(found["unexpected_keys"])
    if missing:
        raise CourseError(
            f"it lacks weights of a {model}: {first_of(missing)}. {begins_otherwise(missing, unexpected)}"
            "They would be random numbers; use a model that was saved whole, as save_pretrained does."
        )
    if found["mismatched_keys"]:
        shapes = [
            f"{key} ({tuple(there)} in place of {tuple(wanted)})"
            for key, there, wanted in sorted(found["mismatched_keys"])
        ]
        raise CourseError(
            f"it has weights of another shape than its config.json says: {first_of(shapes)}. Use the config.json that was "
            "saved with these weights, and no model_extra_configs that change the size."
        )


def refuse_no_numbers(model: PreTrainedModel) -> None:
    """Refuse weights that are infinite or NaN, as a run that diverged leaves them.

    Raises:
        CourseError: names the first of them.
    """
    wrong = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if wrong:
        raise CourseError(
            f"it has weights that are infinite or no numbers: {first_of(wrong)}. Use the model from before they were."
        )


def first_of(names: list[str], count: int = 3) -> str:
    """The first `count` names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(f"{name:.120}" for name in names[:count]) + more


def begins_otherwise(missing: list[str], unexpected: set[str]) -> str:
    """A sentence that says so where the names in the file are the missing ones behind a common beginning; else ""."""
    for name in missing:
        for key in unexpected:
            if key.endswith(f".{name}"):
                return (
                    f"Its names begin with {key.removesuffix(name)!r:.60}, as in a checkpoint that trlX or a wrapper such as "
                    "DDP wrote around the model. "
                )
    return ""
