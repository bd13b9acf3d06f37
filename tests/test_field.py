"""What users of trlX, TRL and their like reported, tried with each engine. The comment above a test says whose report it is."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from ppo_run import MODEL, PROMPTS, count_the, small_run, without_times
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from helpers.errors import CourseError

pytestmark = pytest.mark.usefixtures("engine")
ONE_ROUND = {"train": {"total_steps": 2}, "method": {"ppo_epochs": 1}}


def refused(folder, **changes) -> tuple[str, int]:
    """The message of a run that is refused, and how many samples were scored before."""
    scored = []
    with pytest.raises(CourseError) as error:
        small_run(folder, reward_fn=lambda samples: scored.extend(samples) or count_the(samples), **changes)
    return str(error.value), len(scored)


# ------------------------------------------------------------------------- what would fail at the end


# any user of Python: `checkpoint_dir=Path(...)`, and numbers from a search over settings
def test_paths_and_numbers_of_other_libraries_are_what_they_mean(tmp_path):
    folder = tmp_path / "checkpoints"
    changes = {
        "train": {
            "checkpoint_dir": folder,
            "total_steps": np.int64(2),
            "seed": torch.tensor(7),
            "tags": {"a"},
        },
        "method": {"ppo_epochs": np.int32(1), "init_kl_coef": np.float32(0.05), "gamma": torch.tensor(1.0)},
        "model": {"model_path": type(folder)(MODEL)},
        "optimizer": {"kwargs": {"lr": np.float64(1e-3), "betas": (0.9, 0.95)}},
    }
    trainer = small_run(tmp_path / "elsewhere", changes=changes)
    config = json.loads((folder / "checkpoint_2" / "state.json").read_text())["config"]
    assert config["train"]["seed"] == 7 and config["method"]["init_kl_coef"] == float(np.float32(0.05))
    assert trainer.step == 2


# a Drive that is gone, with a file of its name left; trlX's own way was to train first
@pytest.mark.parametrize("way", ["a file", "a full disk"])
def test_a_run_that_could_not_be_saved_does_not_begin(tmp_path, way):
    folder = tmp_path / "checkpoints"
    resource = pytest.importorskip("resource")  # Windows has none
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if way == "a file":
        folder.write_text("mine")
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        message, scored = refused(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(folder) in message and scored == 0
    assert [path.name for path in tmp_path.iterdir()] == (["checkpoints"] if way == "a file" else [])


def test_the_trial_leaves_nothing(tmp_path):
    seen = []

    def reward_fn(samples):
        seen.append(sorted(path.name for path in (tmp_path / "new").rglob("*")))
        return count_the(samples)

    small_run(tmp_path / "new", reward_fn=reward_fn, changes=ONE_ROUND)
    assert seen[0] == [] and seen[-1] == ["newest_run.json"]


# trlX #602 and every user of peft: the folder that peft saves holds an adapter
def test_an_adapter_is_no_model(tmp_path):
    shutil.copytree(MODEL, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "gpt2"}))
    message, scored = refused(tmp_path / "run", changes={"model": {"model_path": str(tmp_path / "adapter")}})
    assert "it is an adapter for 'gpt2'" in message and "merge_and_unload" in message and scored == 0


# ------------------------------------------------------------------------------- errors in the middle


class Limit(Exception):
    """What a reward from a service raises."""


def fails_at(sample: int, error: BaseException):
    """A reward function that raises at its `sample`th sample."""
    count = 0

    def reward_fn(samples, **kwargs):
        nonlocal count
        count += len(samples)
        if count > sample:
            raise error
        return count_the(samples)

    return reward_fn


# a reward from a service that answers 429; Ctrl-C; a notebook's kernel that is told to stop
@pytest.mark.parametrize("error", [Limit("HTTP 429"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_carries_the_trainer_and_the_run_goes_on_from_its_checkpoint(tmp_path, error):
    whole = small_run(tmp_path / "whole", changes={"train": {"checkpoint_interval": 100}})
    changes = {"train": {"checkpoint_interval": 100, "resume_from_checkpoint": str(tmp_path / "cut")}}
    with pytest.raises(type(error)) as raised, pytest.warns(UserWarning, match="no checkpoint"):
        # 2 to try the function, 5 to evaluate, 16 and 5 for the first round; then in the second
        small_run(tmp_path / "cut", reward_fn=fails_at(2 + 5 + 16 + 5 + 8, error), changes=changes)
    trainer = raised.value.trainer
    assert trainer.step == 4 and len(trainer.history.updates) == 4 and len(trainer.history.rounds) == 1
    assert (tmp_path / "cut" / "checkpoint_4" / "hf_model").is_dir()
    assert trainer.generate(torch.tensor([[5, 6]])).shape[0] == 1
    on = small_run(tmp_path / "cut", changes=changes)
    assert without_times(on.history) == without_times(whole.history)


def test_an_error_before_the_first_step_writes_no_checkpoint(tmp_path):
    with pytest.raises(Limit) as raised:
        small_run(tmp_path, reward_fn=fails_at(2 + 5, Limit()))
    assert raised.value.trainer.step == 0 and not list(tmp_path.glob("checkpoint*"))


# --------------------------------------------------------------------- shapes and types of what is given


def column(samples) -> torch.Tensor:
    return torch.tensor(count_the(samples))[:, None]


# trlX #602 and its pull request 514: a reward model's logits are (N, 1), and belong to the end of each text
@pytest.mark.parametrize(
    "kind",
    [
        column,
        lambda samples: column(samples).numpy(),
        lambda samples: column(samples).tolist(),
        lambda samples: column(samples)[:, 0],
        lambda samples: pd.Series(count_the(samples), index=range(7, 7 + len(samples))),
        lambda samples: (reward for reward in count_the(samples)),
        lambda samples: list(column(samples)),
        lambda samples: tuple(np.float16(reward) for reward in count_the(samples)),
        lambda samples: Dataset.from_dict({"score": count_the(samples)})["score"],
    ],
    ids=["tensor", "array", "lists", "vector", "Series", "generator", "tensors", "float16", "Column"],
)
def test_a_reward_is_the_same_in_every_form(tmp_path, kind, as_floats):
    trainer = small_run(tmp_path, reward_fn=kind, changes=ONE_ROUND)
    assert without_times(trainer.history) == as_floats


@pytest.fixture(scope="module")
def as_floats(engine, tmp_path_factory):
    """The history of a run whose rewards are a list of floats."""
    return without_times(small_run(tmp_path_factory.mktemp("floats"), changes=ONE_ROUND).history)


# trlX's examples/ppo_dense_sentiments.py: an output that ended at once has no token, and so no reward
def test_an_output_without_tokens_has_no_rewards(tmp_path):
    empty = []

    def reward_fn(outputs, tokenizer):
        empty.extend(output for output in outputs if not output)
        return [[0.1] * len(tokenizer(output).input_ids) for output in outputs]

    full = ["The plot was thin and I left early. I would not watch it again.", "I loved every minute of it."]
    trainer = small_run(
        tmp_path, reward_fn=reward_fn, prompts=full * 4, eval_prompts=full * 4, changes=ONE_ROUND
    )
    assert empty and trainer.step == 2


# h2o-llmstudio's pull request 54: a text where a list was meant. caikit-nlp's 168: a stop that stops everything
def test_one_stop_sequence_is_a_text_or_a_list(tmp_path):
    outputs = {}
    for name, stops in {"text": " the", "list": [" the"], "tuple": (" the",), "none": None}.items():
        rows = small_run(tmp_path / name, stop_sequences=stops, changes=ONE_ROUND).eval_samples
        outputs[name] = [row["output"] for row in rows]
    assert outputs["text"] == outputs["list"] == outputs["tuple"] != outputs["none"]
    for wrong in ([""], "", ["fine", ""], [3], 3, b"the", {"the": 1}):
        message, scored = refused(tmp_path / "run", stop_sequences=wrong)
        assert message.startswith("stop_sequences") and scored == 0


@pytest.mark.parametrize("values", [lambda n: torch.ones(n, 1), lambda n: np.ones(n), lambda n: 1.0])
def test_a_metric_is_the_same_in_every_form(tmp_path, values):
    trainer = small_run(tmp_path, metric_fn=lambda samples: {"ones": values(len(samples))}, changes=ONE_ROUND)
    assert trainer.history.evals[0]["metrics/ones"] == 1.0


# --------------------------------------------------------- shortcuts round the model and the tokenizer


def sentencepiece(folder):
    """A tokenizer of Llama's kind, which drops the space before the first word of what it decodes; and a model for it."""
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    raw.train_from_iterator(["I watched this film and loved the plot of it"] * 9, trainer)
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return dict(vocab_size=raw.get_vocab_size(), num_hidden_layers=2, num_attention_heads=4)


def of(folder) -> dict:
    return {**ONE_ROUND, "model": {"model_path": str(folder)}, "tokenizer": {"tokenizer_path": str(folder)}}


# transformers #22710 and #28776: samples came as "I watched this filmand loved"
def test_the_space_between_prompt_and_output_is_there(tmp_path):
    sizes = sentencepiece(tmp_path)
    torch.manual_seed(1)
    config = LlamaConfig(**sizes, hidden_size=32, intermediate_size=64)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    seen = []

    def reward_fn(samples, prompts, outputs, tokenizer):
        seen.extend(zip(samples, prompts, outputs, strict=True))
        return [1.0 * len(sample) for sample in samples]

    prompts = ["I watched this film"] * 2
    with pytest.warns(UserWarning, match="cliprange_reward"):
        small_run(
            tmp_path / "run", reward_fn=reward_fn, prompts=prompts, eval_prompts=prompts, changes=of(tmp_path)
        )
    assert all(sample == prompt + output for sample, prompt, output in seen)
    assert any(output.startswith(" ") for _, _, output in seen)


# trl #1017: the generation_config.json of an instruct model says temperature 0.2 and top_k 2, and gen_kwargs nothing of it
@pytest.mark.parametrize("extra", [{}, {"no_repeat_ngram_size": 8}])
def test_a_file_beside_the_model_does_not_choose_how_texts_are_sampled(tmp_path, extra):
    shutil.copytree(MODEL, tmp_path / "model")
    few = 20  # ids that the file leaves, of 2,000
    hidden = dict(
        eos_token_id=0, do_sample=True, temperature=0.2, top_k=2, suppress_tokens=[*range(few, 2000)]
    )
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(hidden))
    gen_kwargs = dict(max_new_tokens=16, **extra)
    changes = {
        "train": {"total_steps": 1},
        "method": {"num_rollouts": 16, "ppo_epochs": 1, "gen_kwargs": gen_kwargs},
    }
    changes["model"] = {"model_path": str(tmp_path / "model")}
    trainer = small_run(tmp_path / "run", prompts=["The"], eval_prompts=["The"], changes=changes)
    assert trainer.history.rounds[0]["distinct"] > 0.9
    ids = trainer.tokenizer(["The"] * 16, return_tensors="pt")["input_ids"]
    generated = trainer.generate(ids)[:, ids.shape[1] :]
    assert len(set(map(tuple, generated.tolist()))) > 14 and (generated >= few).any()


# several tokens end a text: of Llama 3's instruct models <|eot_id|> too, which generation_config.json alone says
def test_every_end_token_ends(tmp_path):
    shutil.copytree(MODEL, tmp_path / "model")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL)
    (end,) = tokenizer(" the")["input_ids"]
    ends = dict(eos_token_id=[tokenizer.eos_token_id, end])
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(ends))
    seen = []

    def reward_fn(samples, outputs):
        seen.extend(outputs)
        return [float(len(output) % 3) for output in outputs]

    small_run(
        tmp_path / "run",
        reward_fn=reward_fn,
        changes={**ONE_ROUND, "model": {"model_path": str(tmp_path / "model")}},
    )
    assert any(output.endswith(" the") for output in seen)
    assert not any(" the " in output for output in seen)


CAPPED = {
    "a cap": lambda sizes: Gemma2ForCausalLM(
        Gemma2Config(
            **sizes,
            hidden_size=32,
            intermediate_size=64,
            head_dim=8,
            num_key_value_heads=4,
            final_logit_softcapping=0.5,
        )
    ),
    "a scale": lambda sizes: GraniteForCausalLM(
        GraniteConfig(
            **sizes, hidden_size=32, intermediate_size=64, num_key_value_heads=4, logits_scaling=8.0
        )
    ),
}


# Gemma 2 caps its logits and Granite scales them, after the output layer that the engine calls by itself
@pytest.mark.parametrize("kind", CAPPED)
def test_a_model_that_changes_its_logits_is_refused(tmp_path, kind):
    sizes = sentencepiece(tmp_path)
    torch.manual_seed(1)
    model = CAPPED[kind](sizes)
    for parameter in model.parameters():  # so that log-probabilities are far from even
        parameter.data *= 4
    model.save_pretrained(tmp_path)
    prompts = ["I watched this film", "the plot of it"]
    message, scored = refused(tmp_path / "run", prompts=prompts, eval_prompts=prompts, changes=of(tmp_path))
    assert (
        "nats a token from those that the model itself gives" in message
        and "logit" in message
        and scored == 2
    )


# ------------------------------------------------------------------------------------- weights


# trlX #480 and #577: the names of a trlX or DDP checkpoint fit none of the model's, and all of it was random
@pytest.mark.parametrize("prefix", ["base_model.", "module.", "model.module."])
def test_weights_of_other_names_are_no_weights(tmp_path, prefix):
    shutil.copytree(MODEL, tmp_path / "model")
    found = load_file(tmp_path / "model" / "model.safetensors")
    save_file(
        {prefix + name: tensor for name, tensor in found.items()}, tmp_path / "model" / "model.safetensors"
    )
    message, scored = refused(tmp_path / "run", changes={"model": {"model_path": str(tmp_path / "model")}})
    assert "it lacks weights" in message and f"Its names begin with {prefix!r}" in message and scored == 0


# trl #229 and #1941, MedicalGPT #440: "probability tensor contains inf or nan", or an index out of bounds, and no word why
def test_a_run_that_diverges_ends_at_its_last_good_state(tmp_path):
    fast = {"optimizer": {"kwargs": {"lr": 1e4}}, "scheduler": {"kwargs": {"eta_min": 1e4}}}
    with pytest.raises(
        CourseError, match=r"at step \d .* the run has diverged.*learning rate was 10000"
    ) as error:
        small_run(tmp_path, changes=fast)
    trainer = error.value.trainer
    assert all(p.isfinite().all() for p in trainer.policy.parameters())
    assert trainer.step in (0, 4) and (tmp_path / "checkpoint_4").exists() == (trainer.step == 4)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    model.transformer.h[1].mlp.c_fc.weight.data[3, 4] = float("nan")
    model.save_pretrained(tmp_path / "model")
    message, scored = refused(tmp_path / "run", changes={"model": {"model_path": str(tmp_path / "model")}})
    assert "transformer.h.1.mlp.c_fc.weight" in message and scored == 0


# ------------------------------------------------------------------------------------- whose checkpoint


def less(samples, **kwargs):
    return [-1.0 - reward for reward in count_the(samples)]


# trlX #252 and #480: a second run with the folder of a first one went on from the first one's last step
def test_a_run_goes_on_from_its_own_checkpoints(tmp_path):
    small_run(tmp_path)
    resume = {"train": {"resume_from_checkpoint": str(tmp_path)}}
    with pytest.raises(Limit):
        small_run(tmp_path, reward_fn=lambda samples, count=[0]: later(samples, count))
    with pytest.warns(UserWarning, match="also holds checkpoint_8 of earlier runs"):
        trainer = small_run(tmp_path, reward_fn=less, changes=resume)
    assert all(row["reward"] < 0 for row in trainer.history.rounds) and trainer.step == 8


def later(samples, count):
    """Rewards below 0 until the second round."""
    count[0] += len(samples)
    if count[0] > 2 + 5 + 16 + 5:
        raise Limit
    return less(samples)


def test_a_run_goes_on_only_with_its_model_and_its_prompts(tmp_path):
    small_run(tmp_path / "run", changes={"train": {"total_steps": 4}})
    resume = {"train": {"resume_from_checkpoint": str(tmp_path / "run")}}
    message, _ = refused(tmp_path / "run", prompts=[*PROMPTS[1:], "Another prompt"], changes=resume)
    assert "the prompts are others" in message
    # another model in the same folder, as where it was tuned again in between
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    model.transformer.wte.weight.data[7] += 0.01
    shutil.copytree(MODEL, tmp_path / "model")
    first = {"model": {"model_path": str(tmp_path / "model")}, "train": {"total_steps": 4}}
    small_run(tmp_path / "second", changes=first)
    model.save_pretrained(tmp_path / "model")
    first["train"] = {"resume_from_checkpoint": str(tmp_path / "second")}
    message, _ = refused(tmp_path / "second", changes=first)
    assert "has other weights than model.model_path has now" in message


# Explorer's and Drive's copies are named like that; it was a ValueError
@pytest.mark.parametrize(
    "name", ["checkpoint_4 - Copy", "checkpoint_4 (1)", "checkpoint_", "checkpoint_x", "Copy of checkpoint_4"]
)
def test_folders_of_other_names_are_left_alone(tmp_path, name):
    small_run(tmp_path, changes={"train": {"total_steps": 4}})
    shutil.copytree(tmp_path / "checkpoint_4", tmp_path / name)
    trainer = small_run(tmp_path, changes={"train": {"resume_from_checkpoint": str(tmp_path)}})
    assert trainer.step == 8 and (tmp_path / name / "state.json").exists()


@pytest.mark.parametrize("where", ["hf_model", "the model", "a file"])
def test_a_model_is_no_checkpoint(tmp_path, where):
    small_run(tmp_path / "run", changes={"train": {"total_steps": 4}})
    model = tmp_path / "run" / "checkpoint_4" / "hf_model"
    place = {"hf_model": model, "the model": MODEL, "a file": model / "config.json"}[where]
    message, scored = refused(tmp_path / "new", changes={"train": {"resume_from_checkpoint": str(place)}})
    expected = "is a file" if where == "a file" else "holds a model and no checkpoint"
    assert expected in message and str(place) in message
