"""A sampler that differs from the trainer: by how much, and what importance weights do about it (docs/sampler-and-trainer.md).
`python -m helpers record` measures both."""

import copy
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from helpers import reviews
from helpers.course import Course
from helpers.maintain.bench.seeds import notebook_config
from helpers.maintain.details import positions_with_padding
from helpers.ppo import loss, policy, sampling
from helpers.ppo.config import TRLConfig, default_rloo_config
from helpers.ppo.fast.groups import FastRLOO
from helpers.ppo.fast.rollout import FastSampler
from helpers.ppo.groups import RLOO
from helpers.ppo.rollout import Rollouts, Sampler
from helpers.ppo.train import train
from helpers.rewards import load_reward

CAP = 2.0
STALE = 4  # rounds


@dataclass(frozen=True)
class Difference:
    """One thing in which sampler and trainer differ; what is left out is the same in both.

    dtype: of the sampler's weights and of all that it computes.
    settings: what the sampler does to the distribution, by the names of transformers' `generate`.
    trainer: what is done to the trainer's model, and what it computes in.
    """

    dtype: torch.dtype = torch.float32
    settings: dict = field(default_factory=dict)
    trainer: Callable[[PreTrainedModel], AbstractContextManager] = lambda model: nullcontext()


def dropout(model: PreTrainedModel) -> AbstractContextManager:
    """Switches on a dropout of 0.1 in the model; its own rate is 0."""
    for module in model.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    return nullcontext()


def in_bfloat16(model: PreTrainedModel) -> AbstractContextManager:
    """Everything in bfloat16: what the trainer computes for one whole text is rounded otherwise than token by token."""
    model.to(torch.bfloat16)
    return nullcontext()


def padding_is_read(model: PreTrainedModel) -> AbstractContextManager:
    """A context in which the trainer's attention sees the padding before a prompt too, though positions leave it out."""
    forward = model.base_model.forward
    return patch.object(
        model.base_model,
        "forward",
        lambda attention_mask, **given: forward(attention_mask=torch.ones_like(attention_mask), **given),
    )


DIFFERENCES = {
    "none": Difference(),
    "sampler in float16": Difference(torch.float16),
    "sampler in bfloat16": Difference(torch.bfloat16),
    "both in bfloat16": Difference(torch.bfloat16, trainer=in_bfloat16),
    "dropout 0.1 in the trainer": Difference(trainer=dropout),
    "positions count padding": Difference(
        trainer=lambda model: patch.object(policy, "positions", positions_with_padding)
    ),
    "padding is read": Difference(trainer=padding_is_read),
    "top_p 0.9": Difference(settings=dict(top_p=0.9)),
    "top_k 5": Difference(settings=dict(top_k=5)),
    "temperature 0.7": Difference(settings=dict(temperature=0.7)),
}


@contextmanager
def watched_draws() -> Iterator[list[Tensor]]:
    """A list that receives the log-probability (N,) with which each token is drawn inside the context, in nats: after temperature,
    top_k and top_p, and in the precision of the sampler."""
    draw, seen = sampling.draw, []

    def watched(weights: Tensor, uniform: Tensor) -> Tensor:
        tokens = draw(weights, uniform)
        seen.append((weights.gather(-1, tokens[:, None]).squeeze(-1) / weights.sum(-1)).log())
        return tokens

    with patch.object(sampling, "draw", watched):
        yield seen


def draw_from(
    model: PreTrainedModel, query: Tensor, query_mask: Tensor, settings: dict, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """As `sampling.sample`: token ids, and the log-probabilities with which they were drawn, each (N, R)."""
    with watched_draws() as seen:
        tokens = sampling.sample(model, query, query_mask, settings, uniform)
    return tokens, torch.stack(seen, dim=1)


def importance_weights(logprobs: Tensor, drawn: Tensor, mask: Tensor, cap: float) -> Tensor:
    """pi_trainer / pi_sampler of each token, at most `cap`; 1 on padding: (N, R) -> (N, R)."""
    return ((logprobs - drawn) * mask).exp().clamp(max=cap)


def effective_share(log_weights: Tensor) -> float:
    """Kish's effective sample size of weights (n,), as a share of n: (sum w)^2 / (n sum w^2). 1 where all are equal."""
    weights = (log_weights.double() - log_weights.max()).exp()
    return (weights.sum() ** 2 / (len(weights) * (weights**2).sum())).item()


@torch.no_grad()
def trainer_logprobs(
    model: PreTrainedModel, query: Tensor, query_mask: Tensor, ids: Tensor, mask: Tensor
) -> Tensor:
    """log pi of each response token (N, R) from one forward pass over the whole text, at temperature 1."""
    texts, attention = torch.cat([query, ids], dim=1), torch.cat([query_mask, mask.long()], dim=1)
    parts = []
    for rows in torch.arange(len(texts)).split(128):
        hidden = policy.hidden_states(model, texts[rows], attention[rows])[:, query.shape[1] - 1 : -1]
        distribution = loss.log_distribution(model.get_output_embeddings()(hidden))
        parts.append(loss.token_logprobs(distribution, ids[rows]))
    return torch.cat(parts)


def gaps(here: Course, samples: int = 1024) -> list[dict]:
    """For each of DIFFERENCES, how far the two log-probabilities of the same tokens are apart, on one sample for each of so many prompts.

    Returns:
        Rows: difference; tokens; mean, p99 and largest of |log pi_trainer - log pi_sampler|, nats a token; ess_tokens and
        ess_samples, the effective shares with one weight for each token, and one for each sample.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = fresh(rloo_config(here).evolve(train=dict(checkpoint_dir=folder)), here)
    sampler, policy_model = trainer.sampler, trainer.policy.base_model
    count = min(samples, len(trainer.prompts))
    query, query_mask, _ = trainer.prompts.batch(list(range(count)))
    rows = []
    for name, difference in DIFFERENCES.items():
        model, other = copy.deepcopy(policy_model), copy.deepcopy(policy_model).to(difference.dtype)
        settings = sampler.gen_kwargs | difference.settings
        uniform = torch.rand(count, settings["max_new_tokens"], generator=torch.Generator().manual_seed(0))
        response, drawn = draw_from(other, query, query_mask, settings, uniform)
        ids, mask, _ = sampler.finish(trainer.prompts.tokens[:count], response, settings)
        torch.manual_seed(0)
        with difference.trainer(model):
            logprobs = trainer_logprobs(model, query, query_mask, ids, mask)
        rows.append(dict(difference=name) | measures((logprobs - drawn[:, : mask.shape[1]]) * mask, mask))
        print(f"{name}: {rows[-1]['mean']:.5f} nats a token", flush=True)
    return rows


def measures(log_ratio: Tensor, mask: Tensor) -> dict:
    """What `gaps` says of log pi_trainer - log pi_sampler (N, R), 0 on padding."""
    of_tokens = log_ratio[mask.bool()]
    apart = of_tokens.abs()
    return {
        "tokens": len(apart),
        "mean": apart.mean().item(),
        "p99": apart.quantile(0.99).item(),
        "largest": apart.max().item(),
        "ess_tokens": effective_share(of_tokens),
        "ess_samples": effective_share(log_ratio.sum(1)),
    }


def fresh(config: TRLConfig, here: Course) -> RLOO:
    """A trainer before its first step, on notebook 06's prompts, whose rewards are 0."""
    prompts, held_out = reviews.make_prompts(here)
    return RLOO(config, lambda samples, **_: [0.0] * len(samples), prompts, held_out)


def rloo_config(here: Course) -> TRLConfig:
    """Notebook 06's configuration with RLOO in place of PPO, at RLOO's own beta."""
    sections = notebook_config(here).evolve(train=dict(save_best=False)).to_dict()
    method = sections.pop("method")
    kept = {name: method[name] for name in ("num_rollouts", "chunk_size", "ppo_epochs", "gen_kwargs")}
    return default_rloo_config().evolve(**sections, method=kept)


class OtherSampler(FastSampler):
    """A sampler whose rollouts come from a policy like `other`, drawn with `changed` settings; evaluation is the policy's own."""

    other: PreTrainedModel | None = None  # the policy itself, where None
    changed: dict = {}

    def sample_in_parts(
        self, query: Tensor, query_mask: Tensor, settings: dict, uniform: Tensor, count: int
    ) -> Tensor:
        """As `FastSampler.sample_in_parts`, all at once; keeps with which log-probability each token was drawn.

        It keeps nothing else, so that the trainer computes the log-probabilities of the tokens by itself.
        """
        if settings is not self.gen_kwargs:
            return super().sample_in_parts(query, query_mask, settings, uniform, count)
        self.sampled = None
        model = self.other or self.policy.base_model
        tokens, self.drawn = draw_from(model, query, query_mask, settings | self.changed, uniform)
        return tokens


class OtherSamplerRLOO(FastRLOO):
    """RLOO that is told nothing of how its sampler differs, or weighs its advantages by what it is told.

    sampler_of: from the policy's model and the earlier ones, newest last, to what samples.
    changed: the sampler's settings, beside its own.
    weights: what has an importance weight: "tokens" or "none".
    """

    sampler_of: Callable[[PreTrainedModel, Any], PreTrainedModel | None] = staticmethod(
        lambda model, past: None
    )
    changed: dict = {}
    weights = "none"

    def make_sampler(self, reward_fn: Any, stop_sequences: list[str]) -> Sampler:
        """As `Run.make_sampler`."""
        self.past: deque[PreTrainedModel] = deque(maxlen=STALE + 1)
        self.apart: list[dict] = []
        self.sampler_class = OtherSampler
        return super().make_sampler(reward_fn, stop_sequences)

    def collect(self) -> Rollouts:
        """As `PPOTrainer.collect`, from the sampler that differs."""
        self.past.append(copy.deepcopy(self.policy.base_model))
        self.sampler.other, self.sampler.changed = (
            self.sampler_of(self.policy.base_model, self.past),
            self.changed,
        )
        rollouts = super().collect()
        drawn = self.sampler.drawn[:, : rollouts.mask.shape[1]]
        self.apart.append(measures((rollouts.logprobs - drawn) * rollouts.mask, rollouts.mask))
        return rollouts

    def credit(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """As `Groups.credit`, each advantage times its importance weight."""
        advantages, _ = super().credit(rollouts)
        if self.weights == "tokens":
            drawn = self.sampler.drawn[:, : rollouts.mask.shape[1]]
            advantages = advantages * importance_weights(rollouts.logprobs, drawn, rollouts.mask, CAP)
        return advantages, advantages


def bfloat16(model: PreTrainedModel, past: Any) -> PreTrainedModel:
    """The policy, in bfloat16."""
    return copy.deepcopy(model).to(torch.bfloat16)


def oldest(model: PreTrainedModel, past: Any) -> PreTrainedModel:
    """The policy of `STALE` rounds ago."""
    return past[0]


SAMPLERS: dict[str, dict] = {
    "the policy": {},
    "bfloat16": dict(sampler_of=staticmethod(bfloat16)),
    "temperature 0.7": dict(changed=dict(temperature=0.7)),
    f"{STALE} rounds old": dict(sampler_of=staticmethod(oldest)),
}
RUNS = [
    ("the policy", "none"),
    ("bfloat16", "none"),
    *[(sampler, weights) for sampler in list(SAMPLERS)[2:] for weights in ("none", "tokens")],
]
"""A sampler, and what has an importance weight."""


def run(here: Course, sampler: str, weights: str, seed: int) -> dict:
    """RLOO on notebook 06's recipe with one of RUNS.

    Returns:
        reward and kl (nats a sample) of the last evaluation, whose samples are the policy's own, in float32 and at temperature 1;
        of what `gaps` measures, the largest over the run, and the means over its rounds of mean and ess_samples.
    """
    kind = type("Trainer", (OtherSamplerRLOO,), SAMPLERS[sampler] | dict(weights=weights))
    prompts, held_out = reviews.make_prompts(here)
    reward_fn = load_reward(here.reward_model, here.device)
    with tempfile.TemporaryDirectory() as folder:
        config = rloo_config(here).evolve(train=dict(seed=seed, checkpoint_dir=folder))
        given = dict(reward_fn=reward_fn, prompts=prompts, eval_prompts=held_out)
        trainer = train(**given, config=config, trainer_class=kind)
    last, apart = trainer.history.evals[-1], pd.DataFrame(trainer.apart)
    means = dict(mean=apart["mean"].mean(), ess_samples=apart["ess_samples"].mean())
    return dict(reward=last["reward/mean"], kl=last["kl"], largest=apart["largest"].max()) | means


def rows_of_page(gaps: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """The rows of the two tables in docs/sampler-and-trainer.md, from what `record` wrote."""
    rows = []
    for row in gaps.to_dict("records"):
        apart = f"{row['mean']:.4f} | {row['p99']:.3f} | {row['largest']:.2f}"
        rows.append(f"| {row['difference']} | {apart} | {row['ess_tokens']:.1%} | {row['ess_samples']:.1%} |")
    for (sampler, weights), group in runs.groupby(["sampler", "weights"], sort=False):
        shown = " | ".join(
            f"{group[name].mean():.{digits}f} ({group[name].min():.{digits}f} to {group[name].max():.{digits}f})"
            for name, digits in (("reward", 2), ("kl", 1))
        )
        rows.append(f"| {sampler} | {weights} | {shown} | {group['ess_samples'].mean():.0%} |")
    return rows
