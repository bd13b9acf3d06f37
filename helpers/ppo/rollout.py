"""Sampling: prompts in, scored continuations out, with everything the update needs to remember."""

import time
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from helpers.errors import CourseError
from helpers.ppo import generate, loss, processes
from helpers.ppo.generate import Sampled, widen
from helpers.ppo.memory import Fitting
from helpers.ppo.policy import Policy
from helpers.rewards import score


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

    def to(self, device) -> "Rollouts":
        """The rollouts on another device."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def total_scores(self) -> Tensor:
        """(N,) the reward of each sample, whether it came per sample or per token."""
        return self.scores if self.scores.dim() == 1 else (self.scores * self.mask).sum(1)

    def kl(self) -> Tensor:
        """(N, R) log pi - log pi_ref at each response token, nats."""
        return loss.kl_per_token(self.logprobs, self.ref_logprobs, self.mask)


def join(parts: list[Rollouts]) -> Rollouts:
    """One batch of several: prompts padded on the left, the rest on the right, to the longest."""
    joined = {}
    for name in (f.name for f in fields(parts[0])):
        tensors = [getattr(part, name) for part in parts]
        if tensors[0].dim() > 1:
            width = max(t.shape[1] for t in tensors)
            tensors = [widen(t, width, left=name.startswith("query")) for t in tensors]
        joined[name] = torch.cat(tensors)
    return type(parts[0])(**joined)


def pad_rows(rows: list[list[int]], pad_id: int, side: str) -> tuple[Tensor, Tensor]:
    """(N, T) token ids padded on that side ("left", "right") to the longest row, and their mask, 1 on tokens.

    Where every row is empty there is one column of padding, because nothing downstream takes none.
    """
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    ids = pad_sequence(tensors, batch_first=True, padding_value=pad_id, padding_side=side)
    ones = [torch.ones_like(row) for row in tensors]
    mask = pad_sequence(ones, batch_first=True, padding_side=side)
    return (ids, mask) if ids.shape[1] else (pad(ids, (0, 1), value=pad_id), pad(mask, (0, 1)))


class PromptSet:
    """Tokenised prompts, dealt in shuffled passes; what else came with a prompt stays with it."""

    def __init__(self, prompts, tokenizer, max_tokens: int, name: str):
        if not isinstance(prompts, (list, tuple)) or not prompts:
            raise CourseError(f"{name} is {prompts!r:.60}: expected a list with at least one prompt")
        entries = [prompt if isinstance(prompt, dict) else {"prompt": prompt} for prompt in prompts]
        self.texts = [entry.get("prompt") for entry in entries]
        self.metadata = [{key: entry[key] for key in entry if key != "prompt"} for entry in entries]
        for index, text in enumerate(self.texts):
            if not isinstance(text, str) or not text.strip():
                raise CourseError(f"{name}[{index}] is {text!r}: expected a text with at least one word")
        self.tokens = tokenizer(self.texts, add_special_tokens=False)["input_ids"]
        for index, tokens in enumerate(self.tokens):
            if len(tokens) > max_tokens:
                raise CourseError(
                    f"{name}[{index}] has {len(tokens)} tokens, but only {max_tokens} fit beside the continuation "
                    f"(context minus max_new_tokens). Shorten it: {self.texts[index][:60]!r}..."
                )
        self.pad_id = tokenizer.pad_token_id
        self.order: list[int] = []

    def __len__(self) -> int:
        return len(self.texts)

    def deal(self, count: int) -> list[int]:
        """The next `count` prompts of a shuffled pass; a new pass begins where one ends."""
        while len(self.order) < count:
            self.order += torch.randperm(len(self)).tolist()
        dealt, self.order = self.order[:count], self.order[count:]
        return dealt

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor, dict]:
        """(N, Q) left-padded ids, their mask, and the metadata as one list per key."""
        ids, mask = pad_rows([self.tokens[i] for i in indices], self.pad_id, "left")
        keys = self.metadata[indices[0]].keys()
        return ids, mask, {key: [self.metadata[i].get(key) for i in indices] for key in keys}


class Sampler:
    """Samples from a policy and scores what it wrote."""

    watched = None  # a block whose input sampling keeps; helpers/ppo/fast.py has a use for it

    def __init__(self, policy: Policy, tokenizer, reward_fn, config, stop_sequences: list[str], accelerator):
        self.policy, self.tokenizer, self.reward_fn = policy, tokenizer, reward_fn
        self.stop_sequences = stop_sequences
        self.device, self.autocast = accelerator.device, accelerator.autocast
        self.seconds = {"sample": 0.0, "score": 0.0, "forward": 0.0}
        fixed = dict(do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
        self.eval_kwargs = {**fixed, **config.method.gen_kwargs}
        self.gen_kwargs = {**fixed, **(config.method.gen_experience_kwargs or config.method.gen_kwargs)}
        self.temperature = self.gen_kwargs.get("temperature") or 1.0
        self.sampling = Fitting(config.method.chunk_size, "sampling", "method.chunk_size")
        self.looking = Fitting(
            config.train.minibatch_size or config.train.batch_size, "looking back", "train.minibatch_size"
        )

    @torch.no_grad()
    def rollouts(
        self, prompts: PromptSet, indices: list[int], evaluation: bool = False
    ) -> tuple[Rollouts, dict]:
        """Sample one continuation per prompt, score it, and remember log-probabilities and values.

        Returns the rollouts and their texts: samples, prompts, outputs, metadata. Of several processes each samples and scores
        its share, and all return all of it: whoever holds every rollout can whiten, permute and average as one process does.
        A round of rollouts is fewer bytes than the gradients of one step (GPT-2, 128 rollouts of 48 tokens: 20 MB and 60 MB).
        """
        share = processes.shard(len(indices))
        parts = processes.gather(lambda: self.share_of_rollouts(prompts, indices, share, evaluation))
        processes.share_random_state()
        if len(parts) == 1:
            return parts[0]
        rollouts, texts = zip(*[part for part in parts if part], strict=True)
        merged = {name: [text for each in texts for text in each[name]] for name in texts[0]}
        return join(list(rollouts)).to(self.device), merged

    def share_of_rollouts(
        self, prompts: PromptSet, indices: list[int], share: slice, evaluation: bool
    ) -> tuple[Rollouts, dict] | None:
        """The rollouts of the prompts `indices[share]`; None where there are fewer prompts than processes."""
        whole, indices = len(indices), indices[share]
        if not indices:
            return None
        gen_kwargs = self.eval_kwargs if evaluation else self.gen_kwargs
        began = time.perf_counter()
        query, query_mask, metadata = prompts.batch(indices)
        query, query_mask = query.to(self.device), query_mask.to(self.device)
        sampled = self.sample(query, query_mask, gen_kwargs, whole, share)
        response, mask, outputs = self.finish(sampled.tokens)
        texts = [prompts.texts[i] for i in indices]
        samples = [text + output for text, output in zip(texts, outputs, strict=True)]
        written = time.perf_counter()
        given = score(self.reward_fn, samples, texts, outputs, tokenizer=self.tokenizer, **metadata)
        scores = scores_tensor(given, mask)
        judged = time.perf_counter()
        batch = self.looking.run(
            lambda rows: self.remember(query, query_mask, response, mask, scores, sampled)
        )
        for phase, seconds in [
            ("sample", written - began),
            ("score", judged - written),
            ("forward", time.perf_counter() - judged),
        ]:
            self.seconds[phase] += seconds
        if processes.count() > 1:
            batch = batch.to("cpu")  # a tensor that is sent remembers its GPU, which is another process's
        return batch, {"samples": samples, "prompts": texts, "outputs": outputs, **metadata}

    def sample(self, query: Tensor, query_mask: Tensor, settings: dict, whole: int, share: slice) -> Sampled:
        """One continuation per prompt: by `generate.sample`, or by transformers where a setting asks for more than it knows.

        The prompts are the rows `share` of `whole`; numbers are drawn for all of them, the same in every process.
        """
        model = self.policy.base_model
        uniform = torch.rand(whole, settings["max_new_tokens"])[share].to(self.device)

        def continued(rows: Tensor) -> Sampled:
            ids, mask = query[rows], query_mask[rows]
            ends_as_here = settings["eos_token_id"] == self.tokenizer.eos_token_id  # `finish` cuts there
            if set(settings) <= generate.SETTINGS and ends_as_here:
                return generate.sample(model, ids, mask, settings, uniform[rows], self.watched)
            with processes.own_random_numbers():
                tokens = model.generate(input_ids=ids, attention_mask=mask, **settings)
            return Sampled(tokens[:, query.shape[1] :])

        def all_continued(count: int) -> Sampled:
            parts = [continued(rows) for rows in torch.arange(len(query)).split(count)]
            return generate.join(parts, self.tokenizer.pad_token_id)

        with self.autocast():
            return self.sampling.run(all_continued)

    def finish(self, response: Tensor) -> tuple[Tensor, Tensor, list[str]]:
        """End each response at its EOS or stop sequence: ids, mask and text without special tokens.

        The sampled ids are kept as they are, so log-probabilities belong to the tokens that were sampled; trlX decodes
        and tokenises again, which can give other tokens for the same text. Only a response cut at a stop sequence is
        tokenised again, and gets an EOS, as in trlX.
        """
        eos = self.tokenizer.eos_token_id
        kept, outputs = [], []
        for row in response.tolist():
            tokens = row[: row.index(eos) + 1] if eos in row else row
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            stops = [text.find(stop) for stop in self.stop_sequences if stop in text]
            if stops:
                text = text[: min(stops)].rstrip()
                tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"] + [eos]
            kept.append(tokens)
            outputs.append(text)
        ids, mask = pad_rows(kept, self.tokenizer.pad_token_id, "right")
        return ids.to(self.device), mask.float().to(self.device), outputs

    def remember(self, query, query_mask, response, mask, scores, sampled: Sampled) -> Rollouts:
        """The rollouts, with what the update needs to know about them."""
        looked = self.look_back(query, query_mask, response, mask)
        return Rollouts(query, query_mask, response, mask, *looked, scores)

    def look_back(self, query, query_mask, response, mask) -> tuple[Tensor, Tensor, Tensor]:
        """(N, R) log-probabilities under policy and reference, and values, 0 on padding.

        In slices, because the logits of one token are as many numbers as the vocabulary has entries.
        """
        ids = torch.cat([query, response], dim=1)
        attention = torch.cat([query_mask, mask.long()], dim=1)
        width = response.shape[1]
        slices = []
        for rows in torch.arange(len(ids)).split(self.looking.rows):
            with self.autocast():
                logits, values = self.policy(ids[rows], attention[rows], width)
                ref_logits = self.policy.reference_logits(ids[rows], attention[rows], width)
            logprobs, ref_logprobs = (
                loss.token_logprobs(loss.log_distribution(scores, self.temperature), response[rows])
                for scores in (logits, ref_logits)
            )
            slices.append((logprobs, ref_logprobs, values.float()))
        logprobs, ref_logprobs, values = (torch.cat(parts) * mask for parts in zip(*slices, strict=True))
        return logprobs, ref_logprobs, values


def scores_tensor(scores: list, mask: Tensor) -> Tensor:
    """(N,) from one number per sample; (N, R) from one list per sample, what exceeds the response on its last token."""
    if not isinstance(scores[0], list):
        return torch.tensor(scores, device=mask.device)
    dense = torch.zeros_like(mask)
    for row, values in enumerate(scores):
        last = int(mask[row].sum()) - 1
        for t, value in enumerate(values):
            dense[row, min(t, last)] += value
    return dense


def distinct_share(outputs: list[str]) -> float:
    """Share of distinct texts among `outputs`, from 1/len (all the same) to 1."""
    return len(set(outputs)) / len(outputs)
