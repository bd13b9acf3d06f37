"""Sampling in several processes: each samples and scores its share, and all have all of it."""

from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from helpers.ppo.config import TRLConfig
from helpers.ppo.parallel import processes
from helpers.ppo.parallel.memory import Fitting
from helpers.ppo.policy import Policy
from helpers.ppo.prompts import PromptSet, widen
from helpers.ppo.rollout import Rollouts, Sampler, concatenate
from helpers.rewards import RewardFn


class ParallelSampler(Sampler):
    """A sampler that shares the work with other processes, and takes fewer rows at a time where memory runs out."""

    def __init__(
        self,
        policy: Policy,
        tokenizer: PreTrainedTokenizerBase,
        reward_fn: RewardFn,
        config: TRLConfig,
        stop_sequences: list[str],
        accelerator: Accelerator,
    ):
        super().__init__(policy, tokenizer, reward_fn, config, stop_sequences, accelerator.device)
        self.autocast = accelerator.autocast
        self.sampling = Fitting(config.method.chunk_size, "sampling", "method.chunk_size")
        self.passing = Fitting(self.rows_at_once, "the forward pass", "train.minibatch_size")
        self.whole, self.share = 0, slice(0)  # prompts of all processes, and which of them are this one's

    def rollouts(
        self, prompts: PromptSet, indices: list[int], evaluation: bool = False
    ) -> tuple[Rollouts, dict]:
        """As `Sampler.rollouts`; every process gets all rollouts, so it whitens, permutes and averages as one process does.

        A round of rollouts is fewer bytes than the gradients of one step (GPT-2, 128 rollouts of 48 tokens: 20 MB and 60 MB).
        """
        self.whole, self.share = len(indices), processes.shard(len(indices))
        parts = processes.gather(lambda: self.share_of_rollouts(prompts, indices[self.share], evaluation))
        processes.share_random_state()
        if len(parts) == 1:
            return parts[0]
        rollouts, texts = zip(*[part for part in parts if part], strict=True)
        merged = {name: [text for each in texts for text in each[name]] for name in texts[0]}
        return concatenate([moved(part, self.device) for part in rollouts]), merged

    def share_of_rollouts(
        self, prompts: PromptSet, indices: list[int], evaluation: bool
    ) -> tuple[Rollouts, dict] | None:
        """This process's rollouts and their texts; None if it has no prompts, of which there may be fewer than processes."""
        if not indices:
            return None
        rollouts, texts = super().rollouts(prompts, indices, evaluation)
        if processes.count() > 1:
            # a tensor that is sent remembers its GPU, which is another process's
            rollouts = moved(rollouts, "cpu")
        return rollouts, texts

    def sample(self, query: Tensor, query_mask: Tensor, settings: dict) -> Tensor:
        """As `Sampler.sample`. Each process draws the same numbers for the prompts of all, and uses its share."""
        uniform = torch.rand(self.whole, settings["max_new_tokens"])[self.share].to(self.device)
        with self.autocast():
            return self.sampling.run(
                lambda count: self.sample_in_parts(query, query_mask, settings, uniform, count)
            )

    def sample_in_parts(
        self, query: Tensor, query_mask: Tensor, settings: dict, uniform: Tensor, count: int
    ) -> Tensor:
        """Token ids (N, R), sampled for `count` prompts at a time."""
        parts = [
            self.continued(query[rows], query_mask[rows], settings, uniform[rows])
            for rows in torch.arange(len(query)).split(count)
        ]
        width = max(part.shape[1] for part in parts)
        return torch.cat([widen(part, width, value=self.tokenizer.pad_token_id) for part in parts])

    def continued(self, query: Tensor, query_mask: Tensor, settings: dict, uniform: Tensor) -> Tensor:
        """As `Sampler.continued`. If transformers samples, it draws other numbers in each process."""
        # `sampling.sample` draws nothing: its numbers are those of all processes
        own = nullcontext if self.samples_by_itself(settings) else processes.own_random_numbers
        with own():
            return super().continued(query, query_mask, settings, uniform)

    def remember(self, *arguments: Any) -> Rollouts:
        """As `Sampler.remember`, with fewer rows at a time if memory runs out."""

        def at_once(rows: int) -> Rollouts:
            self.rows_at_once = rows
            with self.autocast():
                return self.remember_once(*arguments)

        return self.passing.run(at_once)

    def remember_once(self, *arguments: Any) -> Rollouts:
        """`Sampler.remember` itself; a subclass may do it in another way."""
        return super().remember(*arguments)


def moved(rollouts: Rollouts, device: torch.device | str) -> Rollouts:
    """The rollouts on another device."""
    return replace(rollouts, **{f.name: getattr(rollouts, f.name).to(device) for f in fields(rollouts)})
