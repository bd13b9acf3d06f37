"""PPO's arithmetic against second implementations and hand-computed numbers."""

import math

import pytest
import torch

from helpers.ppo import loss


def random_batch(seed: int = 0, rows: int = 5, width: int = 7):
    """Rewards, values and a mask whose rows have 1 to `width` response tokens."""
    torch.manual_seed(seed)
    mask = (torch.arange(width) < torch.tensor([width, 1, 3, 6, 4])[:rows, None]).float()
    return torch.randn(rows, width), torch.randn(rows, width), mask


def advantage_by_definition(rewards, values, gamma, lam):
    """Eq. 16 of the GAE paper written as its double sum, for one response without padding."""
    length = len(rewards)
    delta = [
        rewards[t] + gamma * (values[t + 1] if t + 1 < length else 0.0) - values[t] for t in range(length)
    ]
    return [sum((gamma * lam) ** k * delta[t + k] for k in range(length - t)) for t in range(length)]


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (1.0, 0.0)])
def test_advantages_equal_the_definition_row_by_row(gamma, lam):
    rewards, values, mask = random_batch()
    advantages, returns = loss.advantages_and_returns(rewards, values, mask, gamma, lam)
    for row in range(len(mask)):
        n = int(mask[row].sum())
        expected = advantage_by_definition(rewards[row, :n].tolist(), values[row, :n].tolist(), gamma, lam)
        assert advantages[row, :n].tolist() == pytest.approx(expected, abs=1e-5)
        assert returns[row, :n].tolist() == pytest.approx(
            [a + v for a, v in zip(expected, values[row, :n].tolist(), strict=True)], abs=1e-5
        )
        assert advantages[row, n:].abs().sum() == 0


def test_padding_changes_nothing():
    rewards, values, mask = random_batch()
    padded = [torch.cat([t, torch.full((5, 4), 9.0)], 1) for t in (rewards, values)]
    wide_mask = torch.cat([mask, torch.zeros(5, 4)], 1)
    advantages, _ = loss.advantages_and_returns(rewards, values, mask, 0.9, 0.95)
    wide, _ = loss.advantages_and_returns(*padded, wide_mask, 0.9, 0.95)
    assert torch.allclose(wide[:, :7], advantages)
    assert torch.allclose(loss.masked_whiten(wide, wide_mask)[:, :7], loss.masked_whiten(advantages, mask))


def test_whitening_gives_mean_0_and_variance_1_over_response_tokens():
    values, _, mask = random_batch()
    white = loss.masked_whiten(values * 3 + 5, mask)
    tokens = white[mask.bool()]
    assert tokens.mean().item() == pytest.approx(0, abs=1e-6)
    assert tokens.var().item() == pytest.approx(1, abs=1e-5)
    assert white[mask == 0].abs().sum() == 0


def test_whitening_of_full_rows_is_the_plain_one():
    values = torch.randn(4, 6)
    plain = (values - values.mean()) * torch.rsqrt(values.var() + 1e-8)
    assert torch.allclose(loss.masked_whiten(values, torch.ones(4, 6)), plain, atol=1e-6)


def test_the_score_lands_on_the_last_response_token():
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    kl = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0, 0]])
    rewards = loss.token_rewards(torch.tensor([5.0, 7.0]), kl, beta=2.0, mask=mask)
    assert torch.allclose(rewards, torch.tensor([[-0.2, -0.4, 4.4], [6.2, 0, 0]]))


def test_scores_per_token_are_added_where_they_belong():
    mask = torch.tensor([[1.0, 1, 0]])
    rewards = loss.token_rewards(torch.tensor([[1.0, 2, 9]]), torch.zeros(1, 3), beta=1.0, mask=mask)
    assert rewards.tolist() == [[1, 2, 0]]


def test_log_probabilities_and_entropy_at_a_temperature():
    logits = torch.tensor([[[0.0, math.log(3.0)]]])
    distribution = loss.log_distribution(logits)
    assert loss.token_logprobs(distribution, torch.tensor([[1]])).item() == pytest.approx(math.log(0.75))
    assert loss.entropy(distribution).item() == pytest.approx(
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    )
    hot = loss.log_distribution(logits, temperature=2.0)
    assert loss.token_logprobs(hot, torch.tensor([[1]])).item() == pytest.approx(
        math.log(3**0.5 / (1 + 3**0.5))
    )


@pytest.mark.parametrize(
    "ratio, advantage, expected, clipped",
    [
        (1.0, 2.0, -2.0, 0),
        (1.5, 2.0, -2.4, 1),  # rising too far with a good token: no more than 1.2 counts
        (0.5, 2.0, -1.0, 0),  # falling with a good token: the full loss
        (1.5, -2.0, 3.0, 0),
        (0.5, -2.0, 1.6, 1),
    ],
)
def test_the_clipped_objective_by_hand(ratio, advantage, expected, clipped):
    one = torch.ones(1, 1)
    per_token, rho, clips = loss.policy_loss(
        one * math.log(ratio), one * 0, one * advantage, one, cliprange=0.2
    )
    assert per_token.item() == pytest.approx(expected, abs=1e-6)
    assert rho.item() == pytest.approx(ratio, abs=1e-6)
    assert clips.item() == clipped


@pytest.mark.parametrize("value, expected", [(0.1, 0.5 * 0.9**2), (0.5, 0.5 * 0.8**2), (1.0, 0.5 * 0.8**2)])
def test_the_value_step_is_clipped_around_the_old_value(value, expected):
    one = torch.ones(1, 1)
    assert loss.value_loss(one * value, one * 0, one * 1.0, one, cliprange=0.2).item() == pytest.approx(
        expected
    )


def test_explained_variance_by_hand():
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    returns = torch.tensor([[1.0, 2, 3], [4, 99, 99]])  # variance 1.25
    assert loss.explained_variance(returns, returns, mask) == 1
    assert loss.explained_variance(returns * 0 + 7, returns, mask) == 0
    assert loss.explained_variance(-returns, returns, mask) == -3
    # errors 0, 0, 0, 1: their variance is 0.1875
    values = torch.tensor([[1.0, 2, 3], [3, 0, 0]])
    assert loss.explained_variance(values, returns, mask) == pytest.approx(1 - 0.1875 / 1.25)
    assert math.isfinite(loss.explained_variance(values, returns * 0, mask))


def test_padding_adds_no_loss():
    mask = torch.tensor([[1.0, 0]])
    wild = torch.tensor([[0.0, 50.0]])
    assert loss.policy_loss(wild, wild * 0, wild, mask, 0.2)[0][0, 1] == 0
    assert loss.value_loss(wild, wild * 0, wild * 3, mask, 0.2)[0, 1] == 0
    assert loss.kl_per_token(wild, wild * 0, mask)[0, 1] == 0


def test_adaptive_kl_moves_beta_towards_the_target():
    assert loss.next_kl_coef(0.1, kl=12, target=None, horizon=100, n_steps=10) == 0.1
    assert loss.next_kl_coef(0.1, kl=12, target=6, horizon=100, n_steps=10) == pytest.approx(
        0.1 * 1.02
    )  # clipped to +0.2
    assert loss.next_kl_coef(0.1, kl=0, target=6, horizon=100, n_steps=10) == pytest.approx(0.1 * 0.98)
    assert loss.next_kl_coef(0.1, kl=6.6, target=6, horizon=100, n_steps=10) == pytest.approx(0.1 * 1.01)
