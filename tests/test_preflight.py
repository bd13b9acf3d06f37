"""The round on trial before a run: what it says, and that the run does not notice it."""

import pytest
import torch

from helpers.errors import CourseError
from helpers.ppo.config import default_grpo_config, default_ppo_config
from helpers.ppo.parallel import processes
from helpers.ppo.train import train
from helpers.project.preflight import in_words, preflight, seconds
from helpers.tiny import TINY

PROMPTS = [
    f"{start} {genre}"
    for start in ("This", "The", "A", "I saw a")
    for genre in ("film", "western", "thriller", "comedy", "drama")
]
HELD_OUT = ["Go and see", "My aunt took me", "On Monday night we"]


def letters(samples, **kwargs):
    """A reward that every sample has another of."""
    return [sample.count("e") / len(sample) for sample in samples]


def config_of(folder, default=None, train_settings=None, **method):
    return (default or default_ppo_config()).evolve(
        model=dict(model_path=str(TINY / "gpt2-reviews"), num_layers_unfrozen=1),
        tokenizer=dict(tokenizer_path=str(TINY / "gpt2-reviews")),
        optimizer=dict(kwargs=dict(lr=1e-3)),
        train=dict(checkpoint_dir=str(folder), total_steps=8, eval_interval=4, batch_size=32, seq_length=64)
        | (train_settings or {}),
        method=dict(num_rollouts=128, chunk_size=64, ppo_epochs=2, gen_kwargs=dict(max_new_tokens=12))
        | method,
    )


def found(result, what):
    return dict(result.table.itertuples(index=False))[what]


def test_says_what_the_prompts_and_rewards_are_like(tmp_path):
    seen = []
    result = preflight(
        lambda samples, **kwargs: seen.extend(samples) or letters(samples),
        [*PROMPTS, PROMPTS[0]],
        HELD_OUT,
        config_of(tmp_path / "run"),
    )
    assert found(result, "prompts") == "21, 1 of them repeats; 3 more held out"
    assert found(result, "length of a prompt").endswith("with 12 new ones 16 of the 128 that the model takes")
    first = [sample for sample in seen if sample.startswith(tuple(HELD_OUT))][
        2:66
    ]  # after the two that are tried
    rewards = torch.tensor(letters(first))
    assert found(result, "reward of 64 samples").startswith(f"mean {rewards.mean():.3g}, ")
    assert f"and {rewards.max():.3g} (" in found(result, "lowest and highest")
    assert str(result).splitlines()[-1].startswith("ok:   nothing in this round")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "reward, prompts, held_out, said",
    [
        (lambda samples, **k: [1.0] * len(samples), PROMPTS, HELD_OUT, "all 64 samples of this round have the same reward, 1"),
        (lambda samples, **k: [float(s.startswith("My aunt")) for s in samples], PROMPTS, HELD_OUT,
         "all 64 samples of this round have the same reward, 0"),
        (lambda samples, **k: [float("zebra" not in s and not s.endswith("q")) for s in samples[:-1]] + [0.0], PROMPTS, HELD_OUT,
         "of the 64 samples on held-out prompts have the highest reward already, 1"),
        (letters, PROMPTS, [*HELD_OUT, PROMPTS[3]], "1 of the held-out prompts are among those to train on"),
        (letters, PROMPTS[:4], HELD_OUT, "4 different prompts"),
        (lambda samples, **k: [100 * x for x in letters(samples)], PROMPTS, HELD_OUT, "the penalty has no say"),
    ],
    ids=["constant", "seldom", "nothing to gain", "leak", "few prompts", "large"],
)  # fmt: skip
def test_says_what_will_go_wrong(tmp_path, reward, prompts, held_out, said):
    result = preflight(reward, prompts, held_out, config_of(tmp_path / "run"))
    assert [sign for sign in result.signs if said in sign.text and not sign.fine]


def test_a_model_whose_texts_have_no_end(tmp_path):
    from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(TINY / "gpt2-reviews")
    ends = dict(bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id)
    shape = dict(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4)
    BloomForCausalLM(BloomConfig(**shape, **ends)).save_pretrained(tmp_path / "bloom")
    tokenizer.save_pretrained(tmp_path / "bloom")
    folder = str(tmp_path / "bloom")
    config = config_of(tmp_path / "run").evolve(
        model=dict(model_path=folder, num_layers_unfrozen=-1), tokenizer=dict(tokenizer_path=folder)
    )
    result = preflight(letters, PROMPTS, HELD_OUT, config)
    assert found(result, "length of a prompt").endswith("16 of as many as one likes that the model takes")


def test_groups_stay_whole(tmp_path):
    result = preflight(
        letters,
        PROMPTS,
        HELD_OUT,
        config_of(tmp_path / "run", default_grpo_config(), group_size=6, num_rollouts=120, chunk_size=60),
    )
    assert result.signs


def test_the_run_after_it_is_the_same(tmp_path):
    def history(before):
        config = config_of(tmp_path / before)
        if before == "tried":
            preflight(letters, PROMPTS, HELD_OUT, config)
        run = train(reward_fn=letters, prompts=PROMPTS, eval_prompts=HELD_OUT, config=config).history
        rounds = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in run.rounds]
        return rounds, run.updates, run.evals

    assert history("tried") == history("untried")


def test_bad_input_is_what_train_refuses(tmp_path):
    with pytest.raises(CourseError, match="fit beside the continuation"):
        preflight(letters, ["word " * 200], HELD_OUT, config_of(tmp_path / "run"))
    with pytest.raises(CourseError, match="2 rewards for|1 rewards for"):
        preflight(lambda samples, **k: [0.5], PROMPTS, HELD_OUT, config_of(tmp_path / "run"))


def test_time_is_that_of_the_rounds_and_of_the_evaluations(tmp_path, monkeypatch):
    config = config_of(tmp_path / "run", train_settings=dict(total_steps=24))
    one_round = config_of(tmp_path / "one", train_settings=dict(total_steps=4, epochs=1), num_rollouts=64)
    trial = train(reward_fn=letters, prompts=PROMPTS, eval_prompts=HELD_OUT, config=one_round)
    row = trial.history.rounds[0]
    row |= {
        name: 16.0 for name in row if name.startswith("seconds_")
    }  # four phases of 64 samples: a second a sample
    trial.evaluation_seconds = 3.0
    # 24 steps are three rounds of 128 samples; evaluations after 0, 4, ..., 24 steps, each of twice as many prompts
    assert seconds(trial, config, 2 * len(HELD_OUT)) == 3 * 128 * 1.0 + 7 * 6.0
    monkeypatch.setattr(processes, "count", lambda: 2)  # each of which makes 128 samples a round
    assert seconds(trial, config, 2 * len(HELD_OUT)) == 3 * 256 * 1.0 + 7 * 6.0


@pytest.mark.parametrize(
    "duration, words", [(7, "about 7 seconds"), (600, "about 10 minutes"), (9000, "about 2.5 hours")]
)
def test_durations_in_words(duration, words):
    assert in_words(duration) == words
