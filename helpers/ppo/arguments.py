"""What may stand in the tables that go to a library: how texts are sampled, the optimizer, its schedule, LoRA.

transformers, torch and peft take many more names, and say of a wrong value late or never.
"""

import warnings
from typing import Annotated, Any, Literal, get_args

from helpers.errors import CourseError
from helpers.ppo.fields import nearest
from helpers.ppo.values import (
    Count,
    NotNegative,
    Positive,
    Range,
    Share,
    Table,
    WholeNumber,
    fit,
    shown,
)

# 0 and what float32 takes for 0 would divide by 0 for a weight without a gradient
ADAM = {"lr": NotNegative, "betas": list[Share], "eps": Annotated[float, Range(1e-30)]}
ADAM |= {"weight_decay": NotNegative}
ADAM |= {"amsgrad": bool, "foreach": bool | None, "fused": bool | None}
SGD = {"lr": NotNegative, "momentum": Share, "dampening": NotNegative, "nesterov": bool}
SGD |= {"weight_decay": NotNegative, "foreach": bool | None, "fused": bool | None}
OPTIMIZERS = {"adam": ADAM, "adamw": ADAM, "sgd": SGD}
SCHEDULERS = {
    "cosine_annealing": {"T_max": Annotated[float, Range(1)], "eta_min": NotNegative},
    "linear": {
        "start_factor": Annotated[float, Range(above=0, most=1)],
        "end_factor": Share,
        "total_iters": Count,
    },
}


def check_arguments(where: str, name: str, given: Table, known: dict[str, dict]) -> Table:
    """The `kwargs` of the section `where`, "optimizer" or "scheduler", for the one of this name; `known` has all.

    Raises:
        CourseError: there is none of this name, or it does not take such arguments.
    """
    if name not in known:
        only = " The 8-bit optimizers are trlX's alone." if name.endswith("_bnb") else ""
        raise CourseError(f"{where}.name is {name!r:.60}.{only}{nearest(name, known)}")
    for key in given:
        if key not in known[name]:
            another = any(key in names for names in known.values())
            kept = f" `evolve` keeps what was there: set config.{where}.kwargs anew." if another else ""
            raise CourseError(
                f"unknown key {key!r:.60} in {where}.kwargs of {name}.{nearest(key, known[name])}{kept}"
            )
    fitted = {key: fit(f"{where}.kwargs.{key}", value, known[name][key]) for key, value in given.items()}
    if "betas" in fitted:
        fitted["betas"] = [float(beta) for beta in fitted["betas"]]  # torch takes no 0 for 0.0
        if len(fitted["betas"]) != 2 or 1 in fitted["betas"]:
            raise CourseError(
                f"{where}.kwargs.betas is {shown(given['betas'])}: expected two numbers below 1, such as [0.9, 0.95]"
            )
    if name == "cosine_annealing" and "T_max" not in given:
        raise CourseError("scheduler.kwargs has no T_max: expected the optimizer steps of half a cosine")
    return fitted


# each setting of transformers' generate that must be of one kind, without those that come seldom
GENERATE = {
    "max_new_tokens": Count,
    "min_new_tokens": WholeNumber,
    "temperature": Positive,
    "top_k": WholeNumber,
}
GENERATE |= dict.fromkeys("top_p min_p typical_p top_h epsilon_cutoff eta_cutoff".split(), Share)
GENERATE |= dict.fromkeys("min_length max_length no_repeat_ngram_size max_cache_len".split(), WholeNumber)
GENERATE |= dict.fromkeys("length_penalty diversity_penalty guidance_scale".split(), float)
GENERATE |= {"cache_config": Table, "early_stopping": bool | Literal["never"]}
GENERATE |= dict.fromkeys("do_sample use_cache renormalize_logits remove_invalid_values".split(), bool)
GENERATE |= dict.fromkeys("repetition_penalty encoder_repetition_penalty max_time".split(), Positive)
GENERATE |= {"num_beams": Count, "pad_token_id": WholeNumber, "bos_token_id": WholeNumber}
# trlX's examples write -1 for texts that never end before their time
GENERATE |= {"eos_token_id": Annotated[int, Range(-1)] | list[Annotated[int, Range(-1)]]}
GENERATE |= {"suppress_tokens": list[WholeNumber], "bad_words_ids": list[list[WholeNumber]]}
# by these generate would return something other than one row of ids for each prompt
GENERATE |= {"num_return_sequences": Literal[1], "return_dict_in_generate": Literal[False]}
GENERATE |= dict.fromkeys(
    "output_scores output_logits output_attentions output_hidden_states".split(), Literal[False]
)
# where a list is one value, and not several to try
LISTS = set(
    """bad_words_ids begin_suppress_tokens constraints eos_token_id exponential_decay_length_penalty
    force_words_ids sequence_bias stop_strings suppress_tokens""".split()
)


def check_gen_kwargs(given: Table, where: str) -> Table:
    """The settings of sampling without those that are None; `where` is the field that has them, such as "method.gen_kwargs".

    Raises:
        CourseError: a setting is unknown to transformers, or its value does not work.
    """
    from transformers import GenerationConfig

    known = [name for name in GenerationConfig().to_dict() if not name.startswith("_")]
    for name, value in given.items():
        if name not in known:
            raise CourseError(f"unknown key {name!r:.60} in {where}.{nearest(name, known)}")
        if isinstance(value, list) and name not in LISTS:
            raise CourseError(
                f"{where}.{name} is {shown(value)}, a list: a sweep over values is trlX's alone, write one value"
            )
    given = {name: value for name, value in given.items() if value is not None}
    if "max_new_tokens" not in given:
        more = ""
        if "max_length" in given:
            more = " max_length, which counts the prompt too, does not replace it, here or in trlX."
        raise CourseError(
            f"{where} has no max_new_tokens: expected the most tokens of a continuation, a whole number of at least 1.{more}"
        )
    given = {name: fit(f"{where}.{name}", value, GENERATE.get(name, Any)) for name, value in given.items()}
    for name, value in given.items():
        if float in (GENERATE.get(name), *get_args(GENERATE.get(name))):
            given[name] = float(value)  # generate refuses a temperature of 2 for 2.0
    if given.get("min_new_tokens", 0) > given["max_new_tokens"]:
        raise CourseError(
            f"{where}.min_new_tokens ({given['min_new_tokens']}) is more than max_new_tokens ({given['max_new_tokens']})"
        )
    if "stop_strings" in given:
        raise CourseError(f"{where}.stop_strings does not work here: give `train` stop_sequences instead")
    warn_of_other_samples(given, where)
    return given


def warn_of_other_samples(gen_kwargs: Table, where: str) -> None:
    """Warn where samples would follow another distribution than the policy that is scored."""
    if changing := what_changes_sampling(gen_kwargs):
        warnings.warn(
            f"{where} has {', '.join(changing)}: samples are then not the policy's as it is scored, and the reported KL and ratio are "
            "wrong, by no means always negative (with top_k=4 notebook 06's run reported a KL of 6.5 where 6.0 was true). Train with max_new_tokens "
            "and temperature alone, top_k=0 and top_p=1.0.",
            stacklevel=4,
        )


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


# what these are where they say nothing, beside None, false and an empty list or table
IDLE_LORA = {"megatron_core": "megatron.core", "qalora_group_size": 16}
LORA_KINDS = {"r": Count, "lora_alpha": NotNegative, "lora_dropout": Share}
LORA_KINDS |= dict.fromkeys("fan_in_fan_out inference_mode lora_bias use_dora use_rslora".split(), bool)


def check_peft_config(given: Table) -> Table:
    """The configuration of LoRA without what says nothing. lora.py checks the rest when it makes the matrices.

    Raises:
        CourseError: it is of another kind of adapter, a key is not one of LORA, or a value is of another kind.
    """
    if str(given.get("peft_type")).upper() != "LORA":
        raise CourseError(
            f"model.peft_config has the peft_type {given.get('peft_type')!r:.60}: expected LoRA as a dictionary, such as "
            'dict(peft_type="LORA", r=8, lora_alpha=16), or a peft.LoraConfig'
        )
    # what peft writes holds all its names, among them some that no LORA of ours has
    idle = {name for name in given if name not in LORA and is_idle(name, given[name])}
    kept = {name: value for name, value in given.items() if name not in idle and value is not None}
    for name in kept:
        if name not in LORA:
            raise CourseError(f"unknown key {name!r:.60} in model.peft_config.{nearest(name, LORA)}")
    return {name: fit(f"model.peft_config.{name}", kept[name], LORA_KINDS.get(name, Any)) for name in kept}


def is_idle(name: str, value: Any) -> bool:
    """Whether a key of peft has a value by which it does nothing."""
    return not value or value == IDLE_LORA.get(name) or name == "peft_version"
