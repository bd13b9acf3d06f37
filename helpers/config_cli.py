"""A configuration that explains itself: `python -m helpers config > ppo.yaml`."""

import json
from pathlib import Path

import yaml

from helpers import assets, course, settings
from helpers.ppo.config import TRLConfig, default_grpo_config, default_ppo_config, default_rloo_config
from helpers.ppo.fields import SECTIONS, WORDS

HEAD = """\
# {what} at {scale} scale, and what each setting does. Train with it, changed as you like:
#
#   python -m helpers config --scale {scale}{option} > {method}.yaml
#   python -m helpers train --config {method}.yaml --prompts PROMPTS --reward REWARD
"""

DEFAULTS = {"ppo": default_ppo_config, "rloo": default_rloo_config, "grpo": default_grpo_config}
BETAS = {"ppo": 0.02, "rloo": 0.02, "grpo": 0.04}

NARROW = 256  # units; the embedded model has 112, GPT-2 768
LEARNING_RATES = {"tiny": 0.001992984693877551, "full": 1.4e-5}  # notebook 06's


def main(scale: str | None = None, method: str = "ppo") -> None:
    """Print the configuration of notebook 06 at this scale ("tiny" or "full"), or at the one that the course chooses.

    With `method` "rloo" or "grpo" it is that with another method in place of PPO.

    Raises:
        CourseError: the settings RLHF_SCALE and RLHF_ASSETS name no scale that can be had.
    """
    scale = scale or course.choose_scale()[0]
    what, option = "What notebook 06 trains with", ""
    if method != "ppo":
        what, option = f"Notebook 06 with {method.upper()}", f" --method {method}"
    head = HEAD.format(scale=scale, method=method, what=what, option=option)
    print(f"{head}\n{explained(notebook_config(scale, method))}", end="")


def notebook_config(scale: str, method: str = "ppo", model: str | None = None) -> TRLConfig:
    """The configuration of notebook 06, but with checkpoints in a folder of their own, so that none of its are replaced.

    With `model`, a folder or hub id, it is for that: at the rate of the course's model that is more like it in width.
    """
    tiny = scale == "tiny"
    lr = LEARNING_RATES[scale if model is None else scale_of(model)]
    model = model or model_path(scale)
    config = DEFAULTS[method]().evolve(
        model=dict(model_path=model, num_layers_unfrozen=2),
        tokenizer=dict(tokenizer_path=model),
        train=dict(
            total_steps=160 if tiny else 400,
            seq_length=128,
            eval_interval=40,
            checkpoint_interval=80,
            checkpoint_dir=from_here(course.results() / scale / "train" / "checkpoints"),
            minibatch_size=32 if tiny or course.has_gpu() else 4,
            seed=2,
        ),
        optimizer=dict(kwargs=dict(lr=lr)),
        scheduler=dict(kwargs=dict(eta_min=lr)),
        method=dict(init_kl_coef=BETAS[method], ppo_epochs=2, gen_kwargs=dict(max_new_tokens=24)),
    )
    return TRLConfig.from_dict(json.loads(str(config)))  # YAML has lists, no tuples


def scale_of(model: str) -> str:
    """The scale whose model is more like this one, a folder or hub id: "tiny" for a network of fewer than 256 units, else "full".

    Raises:
        CourseError: it has no configuration that transformers knows.
    """
    from transformers import AutoConfig

    from helpers import weights

    with assets.cache_alone(model), weights.errors_about("the model", model, weights.EXPECTED):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    return "tiny" if getattr(config, "hidden_size", NARROW) < NARROW else "full"


def model_path(scale: str) -> str:
    """GPT-2 as it writes reviews: its folder, or its name on the hub, from which nothing is fetched yet."""
    given = settings.read("RLHF_ASSETS")
    if scale == "full" and not given:
        return assets.MODELS["gpt2-imdb"]
    folder = settings.from_root(given) if scale == "full" else None
    return from_here(Path(assets.find_model("gpt2-imdb", scale, folder)))


def from_here(path: Path) -> str:
    """A path that holds in the current folder: relative where it lies inside, else absolute."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def explained(config: TRLConfig) -> str:
    """The whole configuration as YAML, with the words of fields.py above each key."""
    lines, parts = [], config.to_dict()
    for name in SECTIONS:
        section = type(getattr(config, name))
        summary = section.__doc__.split("\n\n")[0]
        lines += ["", *comment(summary, ""), f"{name}:"]
        values = parts[name]
        for key, words in WORDS[section.__name__].items():
            lines += ["", *comment(words, "  ")]
            # the course's own field stands there as a comment, so that trlX takes the file
            lines += (
                [f"  {line}" for line in to_yaml({key: values[key]})]
                if key in values
                else [f"  # {key}: null"]
            )
    return "\n".join(lines[1:]) + "\n"


def comment(words: str, indent: str) -> list[str]:
    """The lines of a text as comments."""
    return [f"{indent}# {line}".rstrip() for line in words.splitlines()]


class Writer(yaml.SafeDumper):
    """YAML with a line for each key, and a list in one line."""


Writer.add_representer(
    list, lambda writer, values: writer.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
)


def to_yaml(values: dict) -> list[str]:
    """The lines of a table in YAML, in its own order, ASCII only, since trlX reads files in the system's encoding."""
    text = yaml.dump(values, Dumper=Writer, sort_keys=False, width=1_000_000, default_flow_style=False)
    return text.splitlines()
