"""Before and after: two models on the same prompts with the same seed, how sure the difference is, and what training did to the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from helpers.errors import CourseError
from helpers.ppo import loss
from helpers.ppo.policy import most_tokens
from helpers.ppo.prompts import pad_rows, prompt_ids
from helpers.ppo.run import Run
from helpers.rewards import RewardFn, score

# With fewer prompts the interval is too narrow: of 2,000 simulated comparisons of equal models it held the true difference, 0, in
# 93 to 95% with 64 prompts, in 92% with 20, in 86 to 90% with 10 and in 82% with 5.
FEWEST_PROMPTS = 20
RESAMPLES = 5_000
BATCH = 128
"""Prompts that are continued at once."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, to be printed with the format of a number: f"{estimate:+.2f}".

    Args:
        mean: the mean; None where there is nothing to average.
        low, high: the interval; None where there are fewer than FEWEST_PROMPTS prompts.
        prompts: how many different prompts.
    """

    mean: float | None
    low: float | None
    high: float | None
    prompts: int

    def __format__(self, spec: str) -> str:
        if self.mean is None:
            return "nothing to compare yet"
        if self.low is None:
            return f"{self.mean:{spec}}, no interval: {self.prompts} of the {FEWEST_PROMPTS} prompts that it needs"
        return f"{self.mean:{spec}}, 95% interval {self.low:{spec}} to {self.high:{spec}}, {self.prompts} prompts"


def continue_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    seed: int = 0,
    **gen_kwargs: Any,
) -> list[str]:
    """One sampled continuation per prompt, without the prompt; the same seed gives the same texts."""
    settings = dict(max_new_tokens=24, do_sample=True, top_k=0, top_p=1.0) | gen_kwargs
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids, mask = (t.to(model.device) for t in pad_rows(prompt_ids(prompts, tokenizer), pad_id, "left"))
    set_seed(seed)
    with torch.no_grad():
        tokens = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=pad_id, **settings)
    return tokenizer.batch_decode(tokens[:, ids.shape[1] :], skip_special_tokens=True)


def continue_each(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], count: int, seed: int = 0
) -> list[list[str]]:
    """`count` sampled continuations of each prompt, in the prompts' order; the same seed gives the same texts. A bar shows how far it is."""
    repeated = [prompt for prompt in prompts for _ in range(count)]
    parts = [repeated[start : start + BATCH] for start in range(0, len(repeated), BATCH)]
    drawn = [continue_prompts(model, tokenizer, part, seed + i) for i, part in enumerate(tqdm(parts))]
    outputs = [output for part in drawn for output in part]
    return [outputs[start : start + count] for start in range(0, len(outputs), count)]


def before_after(
    before: PreTrainedModel,
    after: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    reward_fn: RewardFn,
    seed: int = 0,
    samples: int = 1,
    **gen_kwargs: Any,
) -> pd.DataFrame:
    """Both models' continuations of the same prompts, with rewards.

    Args:
        seed: of the first sample of each prompt, in both models; the second has seed + 1, and so on.
        samples: how many continuations of each prompt each model writes.
    Returns:
        Columns prompt, before, reward_before, after, reward_after, gain: one row per prompt, in order, then one per prompt with
        the second sample, and so on.
    Raises:
        CourseError: fewer than one sample.
    """
    if samples < 1:
        raise CourseError(f"samples is {samples}: expected 1 or more, the number of texts for each prompt")
    table = pd.DataFrame({"prompt": prompts * samples})
    for name, model in [("before", before), ("after", after)]:
        drawn = (continue_prompts(model, tokenizer, prompts, seed + i, **gen_kwargs) for i in range(samples))
        outputs = [output for texts in drawn for output in texts]
        written = [prompt + output for prompt, output in zip(table["prompt"], outputs, strict=True)]
        table[name] = outputs
        table[f"reward_{name}"] = score(
            reward_fn, written, table["prompt"].tolist(), outputs, tokenizer=tokenizer
        )
    table["gain"] = table["reward_after"] - table["reward_before"]
    return table


def mean_gain(table: pd.DataFrame) -> Estimate:
    """How much higher the reward is after than before on the same prompt, on average; `table` is from `before_after`."""
    return bootstrap(table["gain"], table["prompt"])


def win_rate(table: pd.DataFrame, tie_margin: float = 0.0) -> Estimate:
    """The share of a table's rows in which the text after has the higher reward; a tie counts half.

    Args:
        table: what `before_after` gave.
        tie_margin: in units of the reward; texts that differ by less are a tie. The same text twice always is one.
    """
    tie = (table["before"] == table["after"]) | (table["gain"] == 0) | (table["gain"].abs() < tie_margin)
    return share_of_wins(np.where(tie, 0.5, table["gain"] > 0), table["prompt"])


def share_of_wins(outcomes: Sequence[float], prompts: Sequence[str]) -> Estimate:
    """The mean of outcomes, each 1 for a win, 0.5 for a tie, 0 for a loss, with its interval.

    Where all of 20 comparisons were won, drawing from them would give 100% to 100%. So one prompt won and one lost are added to
    those that are drawn from, as Agresti and Coull add two of each (The American Statistician 52 (1998), 119-126,
    doi.org/10.1080/00031305.1998.10480550). Of 1,000 simulated intervals each, for win rates from 0.5 to 0.98 and 20 to 64 prompts,
    95 to 99% then held the true one; without, at 0.98, 47 to 85%.
    """
    return bootstrap(outcomes, prompts, added=(0.0, 1.0))


def bootstrap(values: Sequence[float], prompts: Sequence[str], added: tuple[float, ...] = ()) -> Estimate:
    """The mean of values and its 95% interval, where several values may be of one prompt.

    Samples of one prompt resemble each other, so it is prompts that are drawn: as many as there are, with replacement, each with
    all its values, 5,000 times. The interval is the middle 95% of the means (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13). It is of other prompts of the same kind, not of another training. The same values give the same interval.

    Args:
        values: the values, (N,).
        prompts: the prompt of each, (N,).
        added: values that are drawn too, each as a prompt with as many values as the others have; they are not in the mean.
    """
    found = pd.DataFrame({"prompt": list(prompts), "value": np.asarray(values, dtype=float)})
    groups = found.groupby("prompt", sort=False)["value"].agg(["sum", "count"])
    n = len(groups)
    if n < FEWEST_PROMPTS:
        return Estimate(float(found["value"].mean()) if n else None, None, None, n)
    each = groups["count"].mean()
    sums = np.append(groups["sum"], [value * each for value in added])
    counts = np.append(groups["count"], [each for _ in added])
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return Estimate(float(found["value"].mean()), float(low), float(high), n)


def token_view(trainer: Run, table: pd.DataFrame) -> list[dict]:
    """Where training moved the policy: KL and advantage of every token of the samples in column `after`.

    The tokens are those that `token_kl` finds in a text.

    Args:
        trainer: a finished run of either engine. Its policy, reference, value head, beta, gamma and lam are used.
        table: what `before_after` gave, with one reward per sample.

    Returns:
        One dictionary per row: prompt, before, after, reward_before, reward_after, and tokens, a list of (text, KL in nats,
        advantage in units of the reward: not scaled, clipped or whitened as an update may have it).

    Raises:
        CourseError: the run was not PPO's. RLOO and GRPO give all tokens of a sample one advantage.
    """
    if not hasattr(trainer.config.method, "gamma"):
        raise CourseError(
            f"token_view shows what the value head makes of each token, and {trainer.config.method.name} has none: give it a run "
            "of PPO"
        )
    pieces, kl, values, mask = look_at_tokens(trainer, table)
    scores = torch.tensor(table["reward_after"].tolist(), dtype=torch.float32, device=mask.device)
    rewards = loss.token_rewards(scores, kl, trainer.kl_coef, mask)
    method = trainer.config.method
    advantages, _ = loss.advantages_and_returns(rewards, values, mask, method.gamma, method.lam)
    rows = table[["prompt", "before", "after", "reward_before", "reward_after"]].to_dict("records")
    for i, row in enumerate(rows):
        length = len(pieces[i])
        row["tokens"] = list(
            zip(pieces[i], kl[i, :length].tolist(), advantages[i, :length].tolist(), strict=True)
        )
    return rows


def token_kl(trainer: Run, table: pd.DataFrame) -> list[list[tuple[str, float]]]:
    """log pi - log pi_ref of every token of the samples in column `after`, in nats: above 0 where training made it likelier.

    The tokens are those of the text, prompt and continuation tokenised each by itself. The ones that were sampled may have
    been others for the same text, and an end-of-text token among them, which a text does not show, is not counted.

    Args:
        trainer: a finished run of either engine and any method.
        table: what `before_after` gave.

    Returns:
        For each row the tokens' texts with their numbers.
    """
    pieces, kl, _, _ = look_at_tokens(trainer, table)
    return [list(zip(texts, numbers[: len(texts)])) for texts, numbers in zip(pieces, kl.tolist())]


@torch.no_grad()
def look_at_tokens(trainer: Run, table: pd.DataFrame) -> tuple[list[list[str]], Tensor, Tensor, Tensor]:
    """(each token's text, KL in nats (N, R), values (N, R), mask (N, R)) of the samples in column `after`."""
    prompts = prompt_ids(table["prompt"].tolist(), trainer.tokenizer)
    outputs = trainer.tokenizer(table["after"].tolist(), add_special_tokens=False)["input_ids"]
    # tokenised again a text may have more tokens than were sampled, and more than the model takes
    most = most_tokens(trainer.policy.base_model)
    outputs = [
        row[: int(min(most - len(prompt), len(row)))] for prompt, row in zip(prompts, outputs, strict=True)
    ]
    pad_id, device = trainer.tokenizer.pad_token_id, trainer.sampler.device
    query, query_mask = (t.to(device) for t in pad_rows(prompts, pad_id, "left"))
    response, mask = (t.to(device) for t in pad_rows(outputs, pad_id, "right"))
    mask = mask.float()
    logprobs, ref_logprobs, values = trainer.sampler.forward_pass(query, query_mask, response, mask)
    pieces = [[trainer.tokenizer.decode([token]) for token in tokens] for tokens in outputs]
    return pieces, loss.kl_per_token(logprobs, ref_logprobs, mask), values, mask


def weight_changes(before: PreTrainedModel, after: PreTrainedModel) -> pd.DataFrame:
    """How far each part of the network moved: |after - before| / |before|, by block; 0 means bit-equal."""
    rows: dict[str, list[float]] = {}
    for (name, old), (_, new) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        squares = rows.setdefault(part_of(name), [0.0, 0.0])
        squares[0] += (new.detach().cpu() - old.detach().cpu()).square().sum().item()
        squares[1] += old.detach().square().sum().item()
    return pd.DataFrame([{"part": part, "relative_change": (d / n) ** 0.5} for part, (d, n) in rows.items()])


def part_of(name: str) -> str:
    """transformer.h.2.attn.c_attn.weight -> block 2; transformer.wte.weight -> wte."""
    parts = name.split(".")
    for before, part in zip(parts, parts[1:], strict=False):
        if before in ("h", "layers"):
            return f"block {part}"
    return parts[-2]
