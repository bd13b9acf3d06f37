"""Rollouts: prompts go in; scored continuations come out, with everything that the update needs."""

import time
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from helpers.ppo import loss
from helpers.ppo.config import TRLConfig
from helpers.ppo.ending import end_response, end_tokens
from helpers.ppo.policy import Policy
from helpers.ppo.prompts import PromptSet, pad_rows, widen
from helpers.ppo.sampling import SETTINGS, sample, temperature_of
from helpers.ppo.scores import scores_tensor
from helpers.rewards import RewardFn, score


@dataclass
class Rollouts:
    """N prompts and sampled responses. Q prompt tokens padded on the left, R response tokens padded on the right."""

    query: Tensor  # (N, Q) token ids
    query_mask: Tensor  # (N, Q), 1 on prompt tokens
    response: Tensor  # (N, R) token ids
    mask: Tensor  # (N, R), 1 on response tokens, the EOS among them
    logprobs: Tensor  # (N, R) under the policy that sampled them, nats
    ref_logprobs: Tensor  # (N, R) under the reference, nats
    values: Tensor  # (N, R) predicted when they were sampled
    scores: Tensor  # (N,) one reward per sample, or (N, R) one per token

    def __len__(self) -> int:
        return len(self.query)

    def rows(self, index: Tensor) -> "Rollouts":
        """The rollouts at `index`, in that order."""
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def total_scores(self) -> Tensor:
        """The reward of each sample (N,)."""
        return self.scores if self.scores.dim() == 1 else (self.scores * self.mask).sum(1)

    def kl(self) -> Tensor:
        """log pi - log pi_ref at each response token (N, R), in nats."""
        return loss.kl_per_token(self.logprobs, self.ref_logprobs, self.mask)


def concatenate(parts: list[Rollouts]) -> Rollouts:
    """Several rollouts as one: prompts are padded on the left, the rest on the right, to the longest."""
    whole = {}
    for name in (f.name for f in fields(parts[0])):
        tensors = [getattr(part, name) for part in parts]
        if tensors[0].dim() > 1:
            width = max(t.shape[1] for t in tensors)
            tensors = [widen(t, width, left=name.startswith("query")) for t in tensors]
        whole[name] = torch.cat(tensors)
    return type(parts[0])(**whole)


class Sampler:
    """Samples from a policy, scores the samples, and keeps the log-probabilities and values of their tokens."""

    def __init__(
        self,
        policy: Policy,
        tokenizer: PreTrainedTokenizerBase,
        reward_fn: RewardFn,
        config: TRLConfig,
        stop_sequences: list[str],
        device: torch.device,
    ):
        self.policy, self.tokenizer, self.reward_fn = policy, tokenizer, reward_fn
        self.stop_sequences, self.device = stop_sequences, device
        self.seconds = {"sample": 0.0, "score": 0.0, "forward": 0.0}
        ends = end_tokens(policy.reference, tokenizer)
        fixed = dict(eos_token_id=ends if len(ends) > 1 else ends[0], pad_token_id=tokenizer.pad_token_id)
        fixed |= dict(do_sample=True, top_k=0)  # transformers' own top_k is 50
        self.eval_kwargs = {**fixed, **config.method.gen_kwargs}
        self.gen_kwargs = {**fixed, **(config.method.gen_experience_kwargs or config.method.gen_kwargs)}
        self.temperature = temperature_of(self.gen_kwargs)
        self.rows_at_once = config.train.minibatch_size or config.train.batch_size

    @torch.no_grad()
    def rollouts(
        self, prompts: PromptSet, indices: list[int], evaluation: bool = False
    ) -> tuple[Rollouts, dict]:
        """One rollout for each of the prompts at `indices`, and their texts: samples, prompts, outputs, metadata."""
        settings = self.eval_kwargs if evaluation else self.gen_kwargs
        began = time.perf_counter()

        # Stage 1: sample a continuation of each prompt, and end it at its EOS or stop sequence
        query, query_mask, metadata = prompts.batch(indices)
        query, query_mask = query.to(self.device), query_mask.to(self.device)
        response = self.sample(query, query_mask, settings)
        response, mask, outputs = self.finish([prompts.tokens[i] for i in indices], response, settings)
        texts = [prompts.texts[i] for i in indices]
        samples = [text + output for text, output in zip(texts, outputs, strict=True)]
        sampled = time.perf_counter()

        # Stage 2: score the samples
        given = score(self.reward_fn, samples, texts, outputs, tokenizer=self.tokenizer, **metadata)
        scores = scores_tensor(given, mask)
        scored = time.perf_counter()

        # Stage 3: log-probabilities of policy and reference at the temperature of these samples, and values
        rollouts = self.remember(query, query_mask, response, mask, scores, temperature_of(settings))
        times = dict(sample=sampled - began, score=scored - sampled, forward=time.perf_counter() - scored)
        for phase, seconds in times.items():
            self.seconds[phase] += seconds
        return rollouts, {"samples": samples, "prompts": texts, "outputs": outputs, **metadata}

    def sample(self, query: Tensor, query_mask: Tensor, settings: dict) -> Tensor:
        """One continuation per prompt, as token ids (N, R)."""
        uniform = torch.rand(len(query), settings["max_new_tokens"]).to(self.device)
        return self.continued(query, query_mask, settings, uniform)

    def continued(self, query: Tensor, query_mask: Tensor, settings: dict, uniform: Tensor) -> Tensor:
        """Token ids (N, R) from `sampling.sample`, or from transformers where `sample` does not know a setting."""
        model = self.policy.base_model
        if self.samples_by_itself(settings):
            return sample(model, query, query_mask, settings, uniform)
        return model.generate(input_ids=query, attention_mask=query_mask, **settings)[:, query.shape[1] :]

    def samples_by_itself(self, settings: dict) -> bool:
        """Whether `sampling.sample` knows all the settings."""
        return set(settings) <= SETTINGS

    def finish(
        self, prompts: list[list[int]], response: Tensor, settings: dict
    ) -> tuple[Tensor, Tensor, list[str]]:
        """End each response (ending.py) to its prompt's ids: ids (N, R), mask (N, R), and texts."""
        ends = torch.as_tensor(settings["eos_token_id"]).reshape(-1).tolist()
        kept, outputs = [], []
        for prompt, row in zip(prompts, response.tolist(), strict=True):
            tokens, text = end_response(prompt, row, self.tokenizer, ends, self.stop_sequences)
            kept.append(tokens)
            outputs.append(text)
        ids, mask = pad_rows(kept, self.tokenizer.pad_token_id, "right")
        return ids.to(self.device), mask.float().to(self.device), outputs

    def remember(
        self,
        query: Tensor,
        query_mask: Tensor,
        response: Tensor,
        mask: Tensor,
        scores: Tensor,
        temperature: float,
    ) -> Rollouts:
        """The rollouts with their log-probabilities and values."""
        known = self.forward_pass(query, query_mask, response, mask, temperature)
        return Rollouts(query, query_mask, response, mask, *known, scores)

    def forward_pass(
        self,
        query: Tensor,
        query_mask: Tensor,
        response: Tensor,
        mask: Tensor,
        temperature: float | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities under policy and reference, at the rollouts' temperature or another; values: each (N, R), 0 on padding."""
        temperature = temperature or self.temperature
        ids = torch.cat([query, response], dim=1)
        attention = torch.cat([query_mask, mask.long()], dim=1)
        width = response.shape[1]
        slices = []  # a few rows at a time, because each token has as many logits as the vocabulary has entries
        for rows in torch.arange(len(ids)).split(self.rows_at_once):
            logits, values = self.policy(ids[rows], attention[rows], width)
            ref_logits = self.policy.reference_logits(ids[rows], attention[rows], width)
            logprobs, ref_logprobs = (
                loss.token_logprobs(loss.log_distribution(scores, temperature), response[rows])
                for scores in (logits, ref_logits)
            )
            slices.append((logprobs, ref_logprobs, values.float()))
        logprobs, ref_logprobs, values = (torch.cat(parts) * mask for parts in zip(*slices, strict=True))
        return logprobs, ref_logprobs, values
