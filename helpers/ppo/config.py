"""The configuration of a run: trlX's names, trlX's YAML, and errors that name the key. fields.py says what each field does.

A file that trlX wrote loads here, and the other way round. Three things differ on purpose: `tracker` is None by default
(trlX asks for a wandb login), an unknown key is an error that suggests the nearest known one, and `max_grad_norm` is the course's:
no file and no dictionary has it unless it is set.
"""

import json
import warnings
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers.errors import CourseError
from helpers.ppo.fields import (
    SECTIONS,
    ModelConfig,
    OptimizerConfig,
    PPOConfig,
    SchedulerConfig,
    TokenizerConfig,
    TrainConfig,
    nearest,
)

REAL_TRLX = "the course trains causal models with PPO; trlX (github.com/CarperAI/trlx) offers more, with the libraries of its time"


@dataclass
class TRLConfig:
    """The whole configuration. Change it with `evolve`, never in a copy of the file."""

    method: PPOConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    tokenizer: TokenizerConfig
    train: TrainConfig

    @classmethod
    def load_yaml(cls, path: str | Path) -> "TRLConfig":
        """Read a configuration from a file. Nothing in the file can run, and nothing grows as it is read.

        Raises:
            CourseError: the file cannot be read, or a key is unknown or missing; it names them.
        """
        return cls.from_dict(read_yaml(path))

    @classmethod
    def from_dict(cls, config: dict) -> "TRLConfig":
        """The configuration in a dictionary of sections, as `to_dict` gives it.

        Raises:
            CourseError: a section or key is unknown or missing, or the method is not PPO.
        """
        if not isinstance(config, dict):
            raise CourseError(
                f"a configuration has the sections {', '.join(SECTIONS)}; this is {config!r:.60}"
            )
        config = deepcopy(config)
        for name in config:
            if name not in SECTIONS:
                raise CourseError(f"unknown section {name!r:.60}.{nearest(str(name), SECTIONS)}")
        for name in SECTIONS:
            if not isinstance(config.get(name), dict):
                raise CourseError(f"section {name!r} is missing: expected a table of keys")
        method = str(config["method"].get("name")).lower()
        if method != "ppoconfig":
            raise CourseError(f"method {config['method'].get('name')!r:.60}: {REAL_TRLX}")
        return cls(**{name: section.from_dict(config[name]) for name, section in SECTIONS.items()})

    @classmethod
    def update(cls, baseconfig: "TRLConfig | dict", config: dict) -> "TRLConfig":
        """A new configuration: `baseconfig` with `config` laid over it, whose keys may have dots: {"method.gamma": 0.9}.

        Raises:
            CourseError: a key does not exist.
        """
        base = baseconfig if isinstance(baseconfig, dict) else baseconfig.to_dict()
        changes: dict = {}
        for name, value in config.items():
            *path, last = name.split(".")
            place = changes
            for key in path:
                place = place.setdefault(key, {})
            place[last] = merge(place.get(last, {}), value) if isinstance(value, dict) else value
        return cls.from_dict(merge(base, changes))

    def evolve(self, **changes: dict[str, Any]) -> "TRLConfig":
        """A new configuration with these changes: config.evolve(method=dict(gamma=0.99)).

        Raises:
            CourseError: a key does not exist.
        """
        return TRLConfig.from_dict(merge(self.to_dict(), changes))

    def to_dict(self) -> dict[str, dict]:
        """A copy as nested dictionaries: {"method": {"gamma": 1, ...}, ...}, which trlX takes too if `max_grad_norm` is not set."""
        parts = {name: asdict(getattr(self, name)) for name in SECTIONS}
        if self.train.max_grad_norm is None:
            del parts["train"]["max_grad_norm"]
        return parts

    def __str__(self) -> str:
        return json.dumps(self.to_dict(), indent=4)


class PlainLoader(yaml.SafeLoader):
    """YAML that is nested 20 deep at most and has no aliases, by which a few lines can grow to gigabytes."""

    DEPTH = 20
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node of the file, as PyYAML asks for it."""
        if self.check_event(yaml.AliasEvent) or getattr(self.peek_event(), "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors (&) and aliases (*) are not read, write the value out",
                problem_mark=self.peek_event().start_mark,
            )
        if self.depth == self.DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"it is nested more than {self.DEPTH} deep", problem_mark=self.peek_event().start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(path: str | Path) -> Any:
    """The text, numbers, lists and tables in a file of YAML.

    Raises:
        CourseError: the file cannot be read, is not UTF-8, or is not such YAML.
    """
    try:
        return yaml.load(Path(path).read_bytes().decode("utf-8"), PlainLoader)
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = f"{error.problem}{line}"
    except yaml.reader.ReaderError as error:
        reason = f"it holds the character #x{error.character:04x}, which is no text"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error)
    raise CourseError(
        f"{str(path)!r:.200} cannot be read as YAML: {reason:.200}. Expected a configuration as trlX writes it."
    )


def merge(base: dict, changes: dict) -> dict:
    """A new dictionary: `base` with `changes` laid over it, nested dictionaries merged."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if nested else value
    return merged


def default_ppo_config() -> TRLConfig:
    """trlX's defaults (trlx/data/default_configs.py), except that there is no tracker."""
    return TRLConfig(
        train=TrainConfig(
            seq_length=1024,
            epochs=100,
            total_steps=10000,
            batch_size=32,
            checkpoint_interval=10000,
            eval_interval=100,
        ),
        model=ModelConfig(model_path="lvwerra/gpt2-imdb", num_layers_unfrozen=2),
        tokenizer=TokenizerConfig(tokenizer_path="gpt2"),
        optimizer=OptimizerConfig("adamw", dict(lr=3e-5, betas=(0.9, 0.95), eps=1.0e-8, weight_decay=1.0e-6)),
        scheduler=SchedulerConfig("cosine_annealing", dict(T_max=1e12, eta_min=3e-5)),
        method=PPOConfig(
            name="PPOConfig",
            num_rollouts=128,
            chunk_size=128,
            ppo_epochs=4,
            init_kl_coef=0.001,
            target=None,
            horizon=10000,
            gamma=1,
            lam=0.95,
            cliprange=0.2,
            cliprange_value=0.2,
            vf_coef=1,
            scale_reward="ignored",
            ref_mean=None,
            ref_std=None,
            cliprange_reward=10,
            gen_kwargs=dict(max_new_tokens=40, top_k=0, top_p=1.0, do_sample=True),
        ),
    )


def check(config: TRLConfig) -> None:
    """Refuse a configuration that this engine cannot train, before any time is spent. Warn of one that trains badly.

    Raises:
        CourseError: a field has a value that does not work; it names the field and what is expected.
    """
    refuse_what_only_trlx_offers(config)
    positive = [
        "train.total_steps",
        "train.seq_length",
        "train.epochs",
        "train.batch_size",
        "train.eval_interval",
    ]
    positive += ["train.checkpoint_interval", "method.ppo_epochs", "method.num_rollouts", "method.chunk_size"]
    for name in positive:
        value = look_up(config, name)
        if not isinstance(value, int) or value < 1:
            raise CourseError(f"{name} is {value!r:.60}: expected a whole number of at least 1")
    for name in ["gamma", "lam", "init_kl_coef", "cliprange", "cliprange_value", "vf_coef"]:
        check_number(f"method.{name}", getattr(config.method, name))
    for section in [config.optimizer, config.scheduler]:
        for name, value in section.kwargs.items():
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(number, str):
                    check_number(f"{type(section).__name__}.kwargs.{name}", number)
    size = config.train.minibatch_size
    if size and config.train.batch_size % size:
        raise CourseError(
            f"train.minibatch_size ({size}) must divide train.batch_size ({config.train.batch_size})"
        )
    if config.train.tracker:
        warnings.warn(
            f"train.tracker={config.train.tracker!r:.60} is ignored: this engine keeps its numbers in trainer.history",
            stacklevel=3,
        )
    if (longest := config.train.max_grad_norm) is not None:
        check_number("train.max_grad_norm", longest)
        if not longest > 0:
            raise CourseError(
                f"train.max_grad_norm is {longest}: expected a number above 0, or null for no limit"
            )
    check_peft_config(config.model.peft_config)
    check_gen_kwargs(config.method.gen_kwargs, "method.gen_kwargs")
    if config.method.gen_experience_kwargs:
        check_gen_kwargs(config.method.gen_experience_kwargs, "method.gen_experience_kwargs")
    if config.method.scale_reward not in (None, False, "ignored", "ref", "running"):
        raise CourseError(
            f"method.scale_reward is {config.method.scale_reward!r:.60}: expected ignored, ref or running"
        )


def refuse_what_only_trlx_offers(config: TRLConfig) -> None:
    """Refuse what the real trlX can do and this engine cannot.

    Raises:
        CourseError: it names the field and its only value here.
    """
    wanted = {
        "train.trainer": (config.train.trainer.lower(), "accelerateppotrainer"),
        "train.pipeline": (config.train.pipeline.lower(), "promptpipeline"),
        "model.model_arch_type": (config.model.model_arch_type, "causal"),
        "method.num_value_layers_unfrozen": (config.method.num_value_layers_unfrozen, 0),
        "train.rollout_logging_dir": (config.train.rollout_logging_dir, None),
        "tokenizer.padding_side": (config.tokenizer.padding_side, "left"),
    }
    for name, (value, only) in wanted.items():
        if value != only:
            raise CourseError(
                f"{name} is {look_up(config, name)!r:.60}, only {only!r} works here: {REAL_TRLX}"
            )
    for name, value in config.method.gen_kwargs.items():
        if isinstance(value, list) and name not in ("bad_words_ids", "suppress_tokens", "eos_token_id"):
            raise CourseError(
                f"method.gen_kwargs.{name} is a list: a sweep over values is trlX's; {REAL_TRLX}"
            )


def check_gen_kwargs(gen_kwargs: dict, where: str) -> None:
    """Check settings of sampling; `where` is the field that has them, such as "method.gen_kwargs".

    Raises:
        CourseError: a setting is unknown to transformers, or its value does not work.
    """
    from transformers import GenerationConfig

    known = [name for name in GenerationConfig().to_dict() if not name.startswith("_")]
    for name in gen_kwargs:
        if name not in known:
            raise CourseError(f"unknown key {name!r:.60} in {where}.{nearest(str(name), known)}")
    tokens = gen_kwargs.get("max_new_tokens")
    if not isinstance(tokens, int) or tokens < 1:
        raise CourseError(f"{where}.max_new_tokens is {tokens!r:.60}: expected a whole number of at least 1")
    if changing := what_changes_sampling(gen_kwargs):
        warnings.warn(
            f"{where} has {', '.join(changing)}: samples are then not the policy's as it is scored, and the reported KL and ratio are "
            "wrong, by no means always negative (with top_k=4 notebook 06's run reported a KL of 6.5 where 6.0 was true). Train with max_new_tokens "
            "and temperature alone, top_k=0 and top_p=1.0.",
            stacklevel=3,
        )
    temperature = gen_kwargs.get("temperature", 1.0)
    if temperature is not None and not temperature > 0:
        raise CourseError(f"{where}.temperature is {temperature!r:.60}: expected a number above 0")


# the settings of transformers' generate that leave alone how likely each token is: how long, at what temperature, how fast,
# and what comes back
HARMLESS = set(
    """max_new_tokens max_length max_time stop_strings temperature eos_token_id pad_token_id bos_token_id
    decoder_start_token_id use_cache cache_implementation cache_config max_cache_len compile_config disable_compile
    prefill_chunk_size continuous_batching_config low_memory num_return_sequences output_attentions
    output_hidden_states output_scores output_logits return_dict_in_generate renormalize_logits
    remove_invalid_values early_stopping length_penalty use_mtp is_assistant num_assistant_tokens
    num_assistant_tokens_schedule assistant_confidence_threshold assistant_early_exit assistant_lookbehind
    target_lookbehind prompt_lookup_num_tokens max_matching_ngram_size speculation_type transformers_version""".split()
)
# what the others are where they do nothing, if that is not 0, nothing or false
IDLE = dict.fromkeys("top_p top_h typical_p repetition_penalty encoder_repetition_penalty".split(), 1)
IDLE |= dict.fromkeys("guidance_scale num_beams num_beam_groups".split(), 1) | {"do_sample": True}


def what_changes_sampling(gen_kwargs: dict) -> list[str]:
    """The settings, as "top_k=4", by which samples follow another distribution than the policy's softmax at the temperature."""
    return [
        f"{name}={value!r:.40}"
        for name, value in gen_kwargs.items()
        if name not in HARMLESS and value is not None and value != IDLE.get(name, 0) and value not in ([], {})
    ]


# peft knows more, some of which imports a Python module by name (megatron_core) or opens a file (corda_config)
LORA = set(
    """alpha_pattern bias exclude_modules fan_in_fan_out inference_mode init_lora_weights layers_pattern
    layers_to_transform lora_alpha lora_bias lora_dropout modules_to_save peft_type r rank_pattern target_modules
    task_type use_dora use_rslora""".split()
)


def check_peft_config(peft_config: Any) -> None:
    """Check the keys of a configuration of LoRA. lora.py checks the rest when it makes the matrices.

    Raises:
        CourseError: a key is not one of LORA.
    """
    for name in peft_config if isinstance(peft_config, dict) else {}:
        if name not in LORA:
            raise CourseError(f"unknown key {name!r:.60} in model.peft_config.{nearest(str(name), LORA)}")


def check_number(name: str, value: Any) -> None:
    """Check that the field `name` is a number.

    Raises:
        CourseError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        hint = " YAML reads 3e-5 as text: write 3.0e-5." if isinstance(value, str) else ""
        raise CourseError(f"{name} is {value!r:.60}: expected a number.{hint}")


def look_up(config: TRLConfig, name: str) -> Any:
    """The value of a field by its dotted name, such as "train.seed"."""
    section, key = name.split(".")
    return getattr(getattr(config, section), key)
