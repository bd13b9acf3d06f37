"""The fast path gives what the plain one gives: log-probabilities, losses, gradients, whole runs."""

import pytest
import torch
from ppo_run import small_run, without_times

from helpers.ppo.fast import FastPPOTrainer, FastRollouts
from helpers.ppo.trainer import PPOTrainer

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    """The same few steps, taken by the plain trainer and by the fast one."""
    return [
        small_run(tmp_path_factory.mktemp(kind.__name__), trainer_class=kind)
        for kind in (PPOTrainer, FastPPOTrainer)
    ]


def close(a, b) -> bool:
    return torch.allclose(a, b, atol=TOLERANCE, rtol=0)


def test_a_whole_run_is_the_same(trainers):
    plain, fast = (without_times(trainer.history) for trainer in trainers)
    for kind in plain:
        assert len(fast[kind]) == len(plain[kind])
        for ours, theirs in zip(fast[kind], plain[kind], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4), kind
    assert fast["rounds"][-1]["kl"] > 0.01  # they have learned something


def test_rollouts_remember_what_the_plain_path_computes_again(trainers):
    _, fast = trainers
    rollouts, _ = fast.sampler.rollouts(fast.prompts, [0, 1, 2, 3, 4])
    assert isinstance(rollouts, FastRollouts)
    again = fast.sampler.look_back(rollouts.query, rollouts.query_mask, rollouts.response, rollouts.mask)
    for ours, theirs in zip((rollouts.logprobs, rollouts.ref_logprobs, rollouts.values), again, strict=True):
        assert close(ours, theirs)
