"""The configuration: trlX's names and YAML, and errors that name the key."""

import pytest
import yaml

from helpers.engine import TRLConfig, default_ppo_config
from helpers.errors import CourseError
from helpers.ppo.config import check


def test_yaml_round_trip(tmp_path):
    config = default_ppo_config().evolve(method=dict(target=6.0), train=dict(seed=3))
    path = tmp_path / "ppo.yml"
    path.write_text(yaml.safe_dump(config.to_dict()))
    loaded = TRLConfig.load_yaml(path)
    assert loaded.method.target == 6.0 and loaded.train.seed == 3
    assert loaded.to_dict()["optimizer"]["kwargs"]["lr"] == 3e-5
    check(loaded)


def test_evolve_leaves_the_original_alone():
    config = default_ppo_config()
    changed = config.evolve(method=dict(gamma=0.5, gen_kwargs=dict(max_new_tokens=7)))
    assert (changed.method.gamma, changed.method.gen_kwargs["max_new_tokens"]) == (0.5, 7)
    assert changed.method.gen_kwargs["top_k"] == 0
    assert (config.method.gamma, config.method.gen_kwargs["max_new_tokens"]) == (1, 40)
    changed.to_dict()["method"]["gen_kwargs"]["top_k"] = 9
    assert changed.method.gen_kwargs["top_k"] == 0


def test_the_course_s_own_field_is_in_a_file_only_where_it_is_set():
    """So that trlX takes every file that does without it."""
    plain, limited = default_ppo_config(), default_ppo_config().evolve(train=dict(max_grad_norm=2))
    assert "max_grad_norm" not in plain.to_dict()["train"]
    assert limited.to_dict()["train"]["max_grad_norm"] == 2
    assert TRLConfig.from_dict(limited.to_dict()) == limited != plain
    assert limited.evolve(train=dict(max_grad_norm=None)) == plain
    check(limited)


def test_update_takes_dotted_names():
    config = TRLConfig.update(
        default_ppo_config(), {"method.gamma": 0.9, "train.seed": 5, "method.gen_kwargs.top_k": 3}
    )
    assert (config.method.gamma, config.train.seed, config.method.gen_kwargs["top_k"]) == (0.9, 5, 3)
    assert TRLConfig.update(default_ppo_config().to_dict(), {}).to_dict() == default_ppo_config().to_dict()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": {"gama": 1}}, "unknown key 'gama' in PPOConfig. Did you mean 'gamma'?"),
        ({"train": {"batchsize": 1}}, "Did you mean 'batch_size'?"),
        ({"trian": {}}, "unknown section 'trian'. Did you mean 'train'?"),
        ({"method": {"name": "ilqlconfig"}}, "github.com/CarperAI/trlx"),
    ],
)
def test_unknown_keys_are_named_with_the_nearest(changes, message):
    with pytest.raises(CourseError) as error:
        default_ppo_config().evolve(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": {"gen_kwargs": {"max_new_token": 4}}}, "Did you mean 'max_new_tokens'?"),
        ({"method": {"gen_kwargs": {"max_new_tokens": 0}}}, "at least 1"),
        ({"method": {"gen_kwargs": {"temperature": 0}}}, "above 0"),
        ({"method": {"gen_kwargs": {"top_k": [0, 5]}}}, "sweep"),
        ({"method": {"init_kl_coef": None}}, "method.init_kl_coef is None: expected a number"),
        ({"method": {"scale_reward": "max"}}, "expected ignored, ref or running"),
        ({"optimizer": {"kwargs": {"lr": "3e-5"}}}, "write 3.0e-5"),
        ({"train": {"batch_size": 0}}, "train.batch_size is 0"),
        ({"train": {"minibatch_size": 5}}, "must divide"),
        ({"train": {"max_grad_norm": 0}}, "train.max_grad_norm is 0: expected a number above 0"),
        ({"train": {"max_grad_norm": float("nan")}}, "expected a number above 0"),
        ({"train": {"max_grad_norm": "1"}}, "train.max_grad_norm is '1': expected a number"),
        ({"train": {"trainer": "AccelerateILQLTrainer"}}, "trlX (github.com/CarperAI/trlx) offers more"),
        ({"model": {"model_arch_type": "seq2seq"}}, "trlX (github.com/CarperAI/trlx) offers more"),
        ({"tokenizer": {"padding_side": "right"}}, "only 'left' works here"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, message):
    with pytest.raises(CourseError) as error:
        check(default_ppo_config().evolve(**changes))
    assert message in str(error.value)


def test_a_file_that_is_no_configuration(tmp_path):
    for text, message in [
        ("[1, 2]", "sections"),
        ("a: [", "read as YAML"),
        ("method: {name: PPOConfig}", "missing"),
    ]:
        path = tmp_path / "bad.yml"
        path.write_text(text)
        with pytest.raises(CourseError, match=message):
            TRLConfig.load_yaml(path)


def test_a_missing_key_is_named():
    config = default_ppo_config().to_dict()
    del config["train"]["total_steps"]
    with pytest.raises(CourseError, match="total_steps"):
        TRLConfig.from_dict(config)


# each name in transformers' GenerationConfig with a value that makes it act, or with one that does not
CHANGING = dict(top_k=1, top_p=0.9, min_p=0.1, top_h=0.4, typical_p=0.5, epsilon_cutoff=1e-3, eta_cutoff=1e-3)
CHANGING |= dict(repetition_penalty=1.2, no_repeat_ngram_size=1, bad_words_ids=[[5]], suppress_tokens=[5])
CHANGING |= dict(min_new_tokens=1, min_length=5, do_sample=False, num_beams=2, penalty_alpha=0.6)
CHANGING |= dict(force_words_ids=[[5]], forced_eos_token_id=5, begin_suppress_tokens=[5], guidance_scale=2.0)
CHANGING |= dict(sequence_bias=[[[5], 1.0]], exponential_decay_length_penalty=[5, 1.1], dola_layers="low")
IDLE = dict(top_k=0, top_p=1.0, typical_p=1.0, epsilon_cutoff=0.0, repetition_penalty=1.0, min_p=None)
IDLE |= dict(no_repeat_ngram_size=0, bad_words_ids=None, suppress_tokens=[], min_new_tokens=0, num_beams=1)
IDLE |= dict(do_sample=True, temperature=0.7, max_length=99, use_cache=False, eos_token_id=[5, 6])


@pytest.mark.parametrize("name", CHANGING)
def test_what_changes_the_sampled_distribution_is_warned_of(name):
    value = CHANGING[name]
    config = default_ppo_config()
    config.method.gen_experience_kwargs = {"max_new_tokens": 8, name: value}
    with pytest.warns(UserWarning, match=f"method.gen_experience_kwargs has {name}=") as told:
        check(config)
    assert len(told) == 1 and "not the policy's" in str(told[0].message)


@pytest.mark.parametrize("name", IDLE)
def test_what_leaves_the_distribution_alone_is_not_warned_of(name, recwarn):
    config = default_ppo_config()
    config.method.gen_experience_kwargs = {"max_new_tokens": 8, name: IDLE[name]}
    check(config)
    assert not recwarn.list


def test_a_cut_distribution_is_warned_of():
    with pytest.warns(UserWarning, match="top_k=0 and top_p=1.0"):
        check(default_ppo_config().evolve(method=dict(gen_kwargs=dict(top_p=0.9))))
    with pytest.warns(UserWarning, match="gen_experience_kwargs"):
        check(default_ppo_config().evolve(method=dict(gen_experience_kwargs=dict(top_k=5, max_new_tokens=8))))
