"""Notebook 07: what the reader builds learns, and its pieces are the engine's, and trlX's where trlX is installed."""

import warnings
from dataclasses import replace

import pytest
import torch

from helpers.maintain.stored_outputs import run_tagged
from helpers.notebooks import NOTEBOOKS
from helpers.ppo import loss
from helpers.real_trlx import install

NOTEBOOK = NOTEBOOKS / "07_inside_ppo.ipynb"
LENGTHS = [9, 4, 7, 1, 5]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the notebook's cells define. Its runs on the way take one round."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RLHF_BUDGET", "0.01")
        environment.setenv("RLHF_OUT", str(tmp_path_factory.mktemp("out")))
        return run_tagged(NOTEBOOK, "loop", **run_tagged(NOTEBOOK, "ladder"))


@pytest.fixture
def batch():
    torch.manual_seed(0)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).float()
    draws = {name: torch.randn(mask.shape) for name in ("values", "kl", "advantages")}
    return {"mask": mask, "scores": torch.randn(len(LENGTHS)), **draws}


def rows(names, batch, beta=0.1, lam=0.9, gamma=0.95):
    """The notebook's token rewards and advantages, sample by sample."""
    for row, length in enumerate(LENGTHS):
        values = batch["values"][row, :length].tolist()
        earned = names["token_rewards"](batch["scores"][row].item(), batch["kl"][row, :length].tolist(), beta)
        yield torch.tensor(earned), torch.tensor(names["gae"](earned, values, lam, gamma))


def test_token_rewards_and_advantages_are_the_engines(names, batch):
    rewards = loss.token_rewards(batch["scores"], batch["kl"] * batch["mask"], 0.1, batch["mask"])
    advantages, _ = loss.advantages_and_returns(rewards, batch["values"], batch["mask"], 0.95, 0.9)
    for row, (earned, ours) in enumerate(rows(names, batch)):
        torch.testing.assert_close(earned, rewards[row, : LENGTHS[row]], atol=1e-5, rtol=0)
        torch.testing.assert_close(ours, advantages[row, : LENGTHS[row]], atol=1e-5, rtol=0)


def test_the_clipped_objective_is_the_engines(names, batch):
    log_ratio = batch["kl"]
    theirs, *_ = loss.policy_loss(
        log_ratio, torch.zeros_like(log_ratio), batch["advantages"], batch["mask"], 0.2
    )
    ours = names["clipped"](log_ratio, batch["advantages"]) * batch["mask"]
    torch.testing.assert_close(ours, -theirs, atol=1e-5, rtol=0)


@pytest.mark.skipif(not install.installed(), reason="trlX is not installed here")
def test_advantages_and_loss_are_those_of_trlx(names, batch):
    from helpers.real_trlx.patches import import_trlx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_trlx()
        from trlx.data.default_configs import default_ppo_config
    method = default_ppo_config().method
    method.gamma, method.lam, method.vf_coef = 0.95, 0.9, 0.0
    for row, (earned, ours) in enumerate(rows(names, batch)):
        values = batch["values"][row : row + 1, : LENGTHS[row]]
        theirs, _ = method.get_advantages_and_returns(values, earned[None], LENGTHS[row], use_whitening=False)
        torch.testing.assert_close(ours, theirs[0], atol=1e-5, rtol=0)
    mask, zeros = batch["mask"], torch.zeros_like(batch["mask"])
    theirs, _ = method.loss(batch["kl"], zeros, zeros, zeros, batch["advantages"], zeros, mask)
    ours = -(names["clipped"](batch["kl"], batch["advantages"]) * mask).sum() / mask.sum()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_readers_loop_learns(names):
    """0.35 was seen; other machines round otherwise."""
    before = names["held_out_reward"](names["new_policy"]())
    names["here"] = replace(names["here"], budget=1.0)
    model, _ = names["ppo"]()
    assert names["held_out_reward"](model) - before >= 0.3
