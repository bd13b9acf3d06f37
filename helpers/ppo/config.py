"""The configuration of a run: trlX's names, trlX's YAML, and errors that name the key. fields.py says what each field does.

A file that trlX wrote loads here, and the other way round. Three things differ on purpose: `tracker` is None by default
(trlX asks for a wandb login), an unknown key is an error that suggests the nearest known one, and `max_grad_norm` is the course's:
no file and no dictionary has it unless it is set.
"""

import codecs
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from helpers.errors import CourseError
from helpers.ppo.arguments import (
    OPTIMIZERS,
    SCHEDULERS,
    check_arguments,
    check_gen_kwargs,
    check_peft_config,
)
from helpers.ppo.fields import (
    METHODS,
    SECTIONS,
    GroupConfig,
    GRPOConfig,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    PPOConfig,
    RLOOConfig,
    SchedulerConfig,
    Section,
    TokenizerConfig,
    TrainConfig,
    nearest,
)
from helpers.ppo.values import plain, shown

REAL_TRLX = "the course trains causal models with PPO, RLOO and GRPO; trlX (github.com/CarperAI/trlx) offers more, with the libraries of its time"
NEEDS_TRLX = (
    "samples with rewards are learned by ILQL, which needs the real trlX: install it with `python -m helpers trlx`, and leave RLHF_ENGINE "
    "at auto or trlx"
)


@dataclass
class TRLConfig:
    """The whole configuration. Change it with `evolve`, never in a copy of the file."""

    method: MethodConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    tokenizer: TokenizerConfig
    train: TrainConfig

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in SECTIONS:
            raise CourseError(f"unknown section {name!r:.60}.{nearest(name, SECTIONS)}")
        section = SECTIONS[name]
        if not isinstance(value, (Mapping, section)):
            raise CourseError(f"section {name!r} is {shown(value)}: expected a {section.__name__}")
        super().__setattr__(name, section_from(name, value) if isinstance(value, Mapping) else value)

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
            CourseError: a section or key is unknown or missing, or the method is none of METHODS.
        """
        if not isinstance(config, Mapping):
            raise CourseError(
                f"a configuration has the sections {', '.join(SECTIONS)}; this is {shown(config)}"
            )
        for name in config:
            if name not in SECTIONS:
                raise CourseError(f"unknown section {shown(name)}.{nearest(str(name), SECTIONS)}")
        for name in SECTIONS:
            if not isinstance(config.get(name), Mapping):
                found = f"is {shown(config[name])}" if name in config else "is missing"
                raise CourseError(f"section {name!r} {found}: expected a table of keys")
        return cls(**{name: section_from(name, config[name]) for name in SECTIONS})

    @classmethod
    def update(cls, baseconfig: "TRLConfig | dict", config: dict) -> "TRLConfig":
        """A new configuration: `baseconfig` with `config` laid over it, whose keys may have dots: {"method.gamma": 0.9}.

        Raises:
            CourseError: a key does not exist.
        """
        merged = baseconfig if isinstance(baseconfig, Mapping) else baseconfig.to_dict()
        for name, value in config.items():
            for key in reversed(str(name).split(".")):
                value = {key: value}
            merged = merge(merged, value)
        return cls.from_dict(merged)

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


def section_from(name: str, values: Mapping) -> Section:
    """The section `name` with `values` for its fields. The class of the method is the one that its `name` names, in any letters.

    Raises:
        CourseError: the method is none of METHODS, or a key is unknown or missing.
    """
    if name != "method":
        return SECTIONS[name].from_dict(values)
    asked = plain(values.get("name"))
    kinds = {kind.lower(): METHODS[kind] for kind in METHODS}
    kind = kinds.get(asked.lower()) if isinstance(asked, str) else None
    if kind is None:
        raise CourseError(f"method.name is {shown(asked)}, only {one_of(METHODS)} works here: {REAL_TRLX}")
    others = [key for key in values if key in key_names(PPOConfig) | key_names(GRPOConfig)]
    if foreign := [key for key in others if key not in key_names(kind)]:
        start = f"default_{kind.__name__.removesuffix('Config').lower()}_config()"
        raise CourseError(
            f"method.{foreign[0]} is no key of {kind.__name__}, but of another method: leave out {', '.join(foreign)}, or start "
            f"from {start}"
        )
    return kind.from_dict(values)


def key_names(section: type[Section]) -> set[str]:
    """The names of a section's fields."""
    return {each.name for each in fields(section)}


def one_of(names: Iterable[str]) -> str:
    """'a', 'b' or 'c'"""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}"


class PlainLoader(yaml.SafeLoader):
    """YAML with each key once, nested 20 deep at most, and without aliases, by which a few lines can grow to gigabytes."""

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

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """The next table of the file, of which PyYAML would take the last of several values for one key."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r:.60} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node


MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # after UTF-32, which begins alike


def read_yaml(path: str | Path) -> Any:
    """The text, numbers, lists and tables in a file of YAML, in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises:
        CourseError: the file cannot be read, is empty or in another encoding, or is not such YAML.
    """
    try:
        data = Path(path).read_bytes()
        encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), "utf-8")
        if (found := yaml.load(data.decode(encoding), PlainLoader)) is not None:
            return found
        reason = "there is nothing in it"
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "it is not text in UTF-8, nor in UTF-16 with a byte order mark; save it as UTF-8"
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        tab = "; indent with spaces, not with tabs" if r"\t" in str(error.problem) else ""
        reason = f"{error.problem}{line}{tab}"
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


def default_rloo_config() -> TRLConfig:
    """`default_ppo_config` with RLOO in place of PPO: four samples of each prompt, beta 0.05."""
    return with_method(RLOOConfig, init_kl_coef=0.05)


def default_grpo_config() -> TRLConfig:
    """`default_ppo_config` with GRPO in place of PPO: four samples of each prompt, beta 0.04."""
    return with_method(GRPOConfig, init_kl_coef=0.04)


def with_method(kind: type[GroupConfig], **own: Any) -> TRLConfig:
    """`default_ppo_config` with another method, whose fields are PPO's where they have the same name."""
    config = default_ppo_config()
    shared = {key: value for key, value in asdict(config.method).items() if key in key_names(kind)}
    config.method = kind(**(shared | dict(name=kind.__name__, group_size=4) | own))
    return config


def as_config(config: Any) -> TRLConfig:
    """The configuration that `train` was given: ours, trlX's own or a dictionary of sections; trlX's defaults for None.

    Raises:
        CourseError: it is none of these, or one that cannot be read.
    """
    if config is None or isinstance(config, TRLConfig):
        return config or default_ppo_config()
    if isinstance(config, Mapping):
        return TRLConfig.from_dict(config)
    if isinstance(config, type) or not callable(getattr(config, "to_dict", None)):
        raise CourseError(
            f"config is {shown(config)}: expected a TRLConfig. TRLConfig.load_yaml reads one from a file."
        )
    return TRLConfig.from_dict(config.to_dict())


def check(config: TRLConfig) -> None:
    """Refuse a configuration that this engine cannot train, before any time is spent.

    Values that mean the same in another type become those of the declared type, so that a checkpoint can hold them.

    Raises:
        CourseError: a field has a value that does not work; it names the field and what is expected.
    """
    for name in SECTIONS:
        part = getattr(config, name)
        for each in fields(part):
            # set again, because what is inside a table can be changed without the section's knowledge
            setattr(part, each.name, getattr(part, each.name))
    refuse_another_name(config.method)
    refuse_what_only_trlx_offers(config)
    method, train = config.method, config.train
    if train.batch_size % (train.minibatch_size or 1):
        raise CourseError(
            f"train.minibatch_size ({train.minibatch_size}) must divide train.batch_size ({train.batch_size})"
        )
    if isinstance(method, GroupConfig):
        check_groups(config)
    for where, section, known in [
        ("optimizer", config.optimizer, OPTIMIZERS),
        ("scheduler", config.scheduler, SCHEDULERS),
    ]:
        section.kwargs = check_arguments(where, section.name, section.kwargs, known)
    if config.model.peft_config is not None:
        config.model.peft_config = check_peft_config(config.model.peft_config)
    method.gen_kwargs = check_gen_kwargs(method.gen_kwargs, "method.gen_kwargs")
    if method.gen_experience_kwargs:
        where = "method.gen_experience_kwargs"
        method.gen_experience_kwargs = check_gen_kwargs(method.gen_experience_kwargs, where)


def refuse_another_name(method: MethodConfig) -> None:
    """Refuse a method whose name was set to another's afterwards.

    Raises:
        CourseError: it names both.
    """
    kind = type(method).__name__
    if method.name.lower() != kind.lower():  # trlX too takes the names of its classes in any letters
        raise CourseError(
            f"method.name is {method.name!r:.60}, and the other keys are those of {kind}: only {kind!r} works with them. "
            "default_ppo_config(), default_rloo_config() and default_grpo_config() have the keys of each method."
        )


def check_groups(config: TRLConfig) -> None:
    """Refuse what RLOO and GRPO cannot be trained with.

    Raises:
        CourseError: a round or a chunk holds no whole number of groups, or nothing would learn.
    """
    method = config.method
    for name in ("num_rollouts", "chunk_size"):
        if (samples := getattr(method, name)) % method.group_size:
            raise CourseError(
                f"method.group_size ({method.group_size}) must divide method.{name} ({samples}): a group is sampled as a whole"
            )
    if config.model.num_layers_unfrozen == 0 and not config.model.peft_config:
        raise CourseError(
            f"model.num_layers_unfrozen is 0, and {method.name} has no value head that could learn alone: set it to 1 or more, or "
            "to -1 for all blocks"
        )


def refuse_what_trlx_lacks(config: TRLConfig) -> None:
    """Refuse what this engine can do and the real trlX cannot.

    Raises:
        CourseError: the method is not PPO.
    """
    if not isinstance(config.method, PPOConfig):
        raise CourseError(
            f"method.name is {config.method.name!r:.60}, and trlX has no such method: set RLHF_ENGINE=builtin, or start from "
            "default_ppo_config()"
        )


def refuse_what_only_trlx_offers(config: TRLConfig) -> None:
    """Refuse what the real trlX can do and this engine cannot.

    Raises:
        CourseError: it names the field and its only value here.
    """
    wanted = {
        "train.trainer": "AcceleratePPOTrainer",
        "train.pipeline": "PromptPipeline",
        "model.model_arch_type": "causal",
        "method.num_value_layers_unfrozen": 0,
        "train.rollout_logging_dir": None,
        "tokenizer.padding_side": "left",
    }
    for name, only in wanted.items():
        section, key = name.split(".")
        value = getattr(getattr(config, section), key, only)  # only PPO has num_value_layers_unfrozen
        same = value.lower() == only.lower() if isinstance(value, str) and only else value == only
        if not same:
            raise CourseError(f"{name} is {value!r:.60}, only {only!r} works here: {REAL_TRLX}")
