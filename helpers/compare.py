"""Before and after: two models on the same prompts with the same seed, and what training did to the weights."""

from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from helpers.errors import CourseError
from helpers.ppo import loss
from helpers.ppo.rollout import pad_rows
from helpers.ppo.run import Run
from helpers.rewards import RewardFn, score


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
    ids, mask = (t.to(model.device) for t in pad_rows(tokenizer(prompts)["input_ids"], pad_id, "left"))
    set_seed(seed)
    with torch.no_grad():
        tokens = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=pad_id, **settings)
    return tokenizer.batch_decode(tokens[:, ids.shape[1] :], skip_special_tokens=True)


def before_after(
    before: PreTrainedModel,
    after: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    reward_fn: RewardFn,
    seed: int = 0,
    **gen_kwargs: Any,
) -> pd.DataFrame:
    """Columns prompt, before, reward_before, after, reward_after, gain: one row per prompt, in order."""
    table = pd.DataFrame({"prompt": prompts})
    for name, model in [("before", before), ("after", after)]:
        outputs = continue_prompts(model, tokenizer, prompts, seed, **gen_kwargs)
        samples = [prompt + output for prompt, output in zip(prompts, outputs, strict=True)]
        table[name] = outputs
        table[f"reward_{name}"] = score(reward_fn, samples, prompts, outputs, tokenizer=tokenizer)
    table["gain"] = table["reward_after"] - table["reward_before"]
    return table


@torch.no_grad()
def token_view(trainer: Run, table: pd.DataFrame) -> list[dict]:
    """Where training moved the policy: KL and advantage of every token of the samples in column `after`.

    The tokens are those of the text, prompt and continuation tokenised each by itself. The ones that were sampled may have
    been others for the same text, and an end-of-text token among them, which a text does not show, is not counted.

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
    prompts, outputs = (
        trainer.tokenizer(table[column].tolist(), add_special_tokens=False)["input_ids"]
        for column in ("prompt", "after")
    )
    pad_id, device = trainer.tokenizer.pad_token_id, trainer.sampler.device
    query, query_mask = (t.to(device) for t in pad_rows(prompts, pad_id, "left"))
    response, mask = (t.to(device) for t in pad_rows(outputs, pad_id, "right"))
    mask = mask.float()
    logprobs, ref_logprobs, values = trainer.sampler.forward_pass(query, query_mask, response, mask)
    kl = loss.kl_per_token(logprobs, ref_logprobs, mask)
    scores = torch.tensor(table["reward_after"].tolist(), dtype=torch.float32, device=mask.device)
    rewards = loss.token_rewards(scores, kl, trainer.kl_coef, mask)
    method = trainer.config.method
    advantages, _ = loss.advantages_and_returns(rewards, values, mask, method.gamma, method.lam)
    rows = table[["prompt", "before", "after", "reward_before", "reward_after"]].to_dict("records")
    for i, row in enumerate(rows):
        length = int(mask[i].sum())
        pieces = [trainer.tokenizer.decode([token]) for token in response[i, :length].tolist()]
        row["tokens"] = list(
            zip(pieces, kl[i, :length].tolist(), advantages[i, :length].tolist(), strict=True)
        )
    return rows


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
