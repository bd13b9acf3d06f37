"""trlX's PPO trainer with what the course replaces in it. To import this file is to import trlX (train.py says when that happens)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchEncoding, PreTrainedTokenizerBase

from helpers.errors import CourseError
from helpers.ppo import loss
from helpers.ppo.ending import end_response
from helpers.ppo.load import load_policy, load_tokenizer, make_scheduler
from helpers.ppo.parallel import processes, sharding
from helpers.ppo.parallel.rollout import ParallelSampler
from helpers.ppo.parallel.trainer import HALF, logits_in_float32
from helpers.ppo.run import Run
from helpers.real_trlx.model import Output, PolicyForTrlx
from helpers.real_trlx.patches import import_trlx, nccl_on_a_cpu, tokenizer_for_trlx
from helpers.rewards import score

import_trlx()

from trlx.data.configs import TRLConfig as TrlxConfig  # noqa: E402
from trlx.data.ppo_types import PPORLBatch  # noqa: E402
from trlx.pipeline.offline_pipeline import PromptPipeline  # noqa: E402
from trlx.trainer import register_trainer  # noqa: E402
from trlx.trainer.accelerate_ppo_trainer import AcceleratePPOTrainer  # noqa: E402


@register_trainer
class CourseTrainer(Run, AcceleratePPOTrainer):
    """trlX's PPO trainer inside the course's `Run`. trlX makes it, since `config.train.trainer` names it, and calls `learn`.

    A method that `Run` defines (evaluate, generate, save_pretrained, setup_optimizer) comes before trlX's of the same name.
    Until, for evaluate: two trlX evaluations of one policy give the same rewards. Until, for save_pretrained:
    `AutoModelForCausalLM.from_pretrained` gives back the logits of a model that trlX saved (CarperAI/trlx issue 600).

    Attributes beside those of a `Run`:
        scores, outputs: the rewards and the texts of this round's rollouts.
        resumed_at: the step of the checkpoint that the run goes on from, or 0.
        micro_batches: how many a step has added up so far.
        learning: whether trlX's loop runs.

    Raises:
        CourseError: the model or the tokenizer cannot be loaded, or a prompt or setting does not fit (`Run.prepare`).
    """

    engine = "trlX"

    def __init__(
        self,
        config: TrlxConfig,
        reward_fn: Callable,
        prompts: list | None,
        eval_prompts: list | None,
        metric_fn: Callable | None,
        stop_sequences: list[str],
        listeners: Sequence,
        minutes: float | None,
        max_grad_norm: float | None,
    ):
        self.iter_count = self.resumed_at = self.micro_batches = 0
        self.learning = False
        tokenizer = load_tokenizer(config)
        config.tokenizer.tokenizer_extra_configs["pad_token"] = tokenizer.pad_token  # as checkpoints have it
        with nccl_on_a_cpu(), tokenizer_for_trlx(tokenizer):
            super().__init__(config, reward_fn=self.judge, stop_sequences=stop_sequences)
        sharding.gather(self.blocks)  # trlX has moved the model to its device, which takes them apart
        config.train.trainer_kwargs = {}  # read by now, and nothing that a checkpoint could hold
        config.train.max_grad_norm = (
            max_grad_norm  # which trlX's own class would refuse, and a checkpoint holds
        )
        processes.join(self.accelerator)
        self.opt.step = partial(self.step_together, self.opt.step)
        self.scheduler.split_batches = True  # it counts optimizer steps, however many processes take them
        # where Accelerate would send trlX's numbers to wandb, from the main process alone
        self.accelerator.log = lambda stats, step=None: self.record(stats)
        self.tokenizer = tokenizer  # not the copy with trlX's <sep>, which would be saved with the model
        self.scores, self.outputs = [], []
        self.device, self.autocast = self.accelerator.device, self.accelerator.autocast
        self.prepare(reward_fn, prompts, eval_prompts, metric_fn, stop_sequences, listeners, minutes)
        self.refuse_padding_in_prompts()
        self.refuse_added_tokens()
        # what is not set is transformers' own: 50 for top_k
        self.generate_kwargs |= self.sampler.eval_kwargs
        if self.generate_experience_kwargs is not None:
            self.generate_experience_kwargs |= self.sampler.gen_kwargs
        self.sampler.temperature = 1.0  # that of trlX's log-probabilities, however it samples
        config.train.save_best = False  # `Run` does; trlX forgets the best reward when it resumes

    # ------------------------------------------------------------------ What trlX calls and we replace
    # In the order of a run: what trlX makes, its loop, one round, one update, the end of a round.

    def get_arch(self, config: TrlxConfig) -> PolicyForTrlx:
        """The model, loaded once and by `load_policy`. trlX looks for pytorch_model.bin and, finding none, asks the hub.

        trlX's own loading follows adapters and opens pickles; here it is never called, and so `model_extra_configs` reach
        helpers/weights.py alone.
        Until: `trlx.train` starts from a folder with model.safetensors alone.

        Of several processes trlX seeds each differently, and has accelerate wrap the model, which hides `forward_hydra` and the
        rest. Ours start with the same value head, unwrapped; `step_together` adds up what they learn.
        Until: trlX's PPO trains in two processes without DeepSpeed.

        Raises:
            CourseError: the model cannot be loaded whole and without running code that comes with it.
        """
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        processes.share_random_state()
        self.policy = load_policy(config)
        if self.accelerator.mixed_precision in HALF:
            logits_in_float32(self.policy)
        if processes.told_to_shard():
            self.blocks = sharding.split(self.policy.to(self.accelerator.device))
        return PolicyForTrlx(self.policy)

    def setup_scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the learning rate that `config` names."""
        return make_scheduler(self.config, self.opt)

    def add_prompt_pipeline(self, pipeline: PromptPipeline) -> None:
        """Not needed: `Run.prompts` deals the prompts, and a checkpoint remembers its place."""

    def load(self, directory: str | None = None, **kwargs) -> None:
        """Not needed: `learn` loads a checkpoint, when everything else is in place."""

    def learn(self) -> None:
        """Run trlX's loop. Where there is a checkpoint, go on from it: trlX would count from 0 again.

        Until: a resumed trlX run ends with the history of a run that was never interrupted.

        Raises:
            CourseError: the checkpoint does not fit, a round gives nothing to learn from, or the memory runs out.
        """
        processes.share_random_state()
        with self.told():
            if self.resume():
                self.resumed_at = self.step
            self.keep_state()
            try:
                if self.step < self.total_steps:
                    self.learning = True
                    self.learn_in_memory()
                    self.keep_state()
                    self.save_checkpoint_if_due(over=False)
            finally:
                self.learning = False
                # as transformers knows it: what readers expect of trainer.model
                self.model = self.policy.base_model

    def evaluate(self) -> dict:
        """`Run.evaluate`; but trlX's first one comes when it has just set its counter to 0, resumed or not."""
        if self.iter_count < self.resumed_at:
            self.iter_count = self.resumed_at
            return {}
        return super().evaluate()

    def make_experience(self, num_rollouts: int, iter_count: int = 0) -> None:
        """Let trlX sample the rollouts of one round, and add a row to the history.

        Raises:
            CourseError: every response is empty, or the reward function breaks its contract.
        """
        self.scores, self.outputs, self.model.ref_logprobs = [], [], []
        self.prompt_iterator = self.prompt_batches(num_rollouts)
        with nccl_on_a_cpu():
            super().make_experience(num_rollouts, self.step)
        processes.share_random_state()
        kl, lengths = joined(self.kl_of_rollouts)
        # the main process has judged them all
        self.scores, self.outputs = processes.on_main(lambda: (self.scores, self.outputs))
        if not any(self.outputs):
            raise CourseError(
                "every sample of this round is empty: the policy ends its texts at once. Does the reward pay for silence, or do "
                "stop_sequences cut everything? gen_kwargs=dict(min_new_tokens=1) forbids an early end."
            )
        # one score a sample, or one a token
        scores = pad_sequence(
            [torch.tensor(each, dtype=torch.float).reshape(-1) for each in self.scores], True
        )
        self.record_round(scores, kl, lengths, self.outputs, self.seconds)
        self.history.rounds[-1]["padding_whitened"] = True  # trlX's way: its policy loss does not begin at 0
        self.refuse_divergence(kl, "log-probabilities")
        values, returns = joined(self.values_and_returns)
        explained = loss.explained_variance(values, returns, torch.ones_like(values))
        self.history.rounds[-1]["explained_variance"] = explained
        self.tell("progress")

    def decode(
        self,
        prompts: Tensor,
        samples: Tensor,
        prompt_sizes: Tensor | None = None,
        append_eos_token: bool = False,
    ) -> tuple[list[str], list[str], list[str]]:
        """The texts of samples, prompts and outputs, with the EOS as text where trlX asks for it and an output ended.

        trlX decodes prompts and outputs apart, and a tokenizer of Llama's kind then loses the space between them.
        Until: trlX gives "I watched this film" and " and" for a sample of both under such a tokenizer.
        """
        tokenizer = self.tokenizer
        ends = torch.as_tensor(self.sampler.gen_kwargs["eos_token_id"]).reshape(-1).tolist()
        sizes = [prompts.shape[1]] * len(prompts) if prompt_sizes is None else prompt_sizes
        texts, asked, outputs = [], [], []
        for prompt, sample, size in zip(prompts.tolist(), samples.tolist(), sizes, strict=True):
            prompt, response = prompt[:size], sample[size:]
            tokens, output = end_response(prompt, response, tokenizer, ends, self.stop_sequences)
            ended = tokens != response or response[-1] in (*ends, tokenizer.pad_token_id)
            output += tokenizer.eos_token if append_eos_token and ended else ""
            asked.append(tokenizer.decode(prompt, skip_special_tokens=True))
            outputs.append(output)
            texts.append(asked[-1] + output)
        return texts, asked, outputs

    def loss(self, batch: PPORLBatch) -> tuple[Tensor, dict]:
        """trlX's loss of a micro-batch and its statistics, and for the verdict entropy and log-probabilities.

        A micro-batch of empty responses has a loss of 0: trlX divides by its tokens, and every weight would be NaN.
        """
        start, length = batch.query_tensors.shape[1] - 1, batch.rewards.shape[1]
        mask = (batch.response_tensors != self.tokenizer.pad_token_id)[:, :length].to(self.accelerator.device)
        seen: list[Output] = []
        hook = self.model.register_forward_hook(lambda model, given, output: seen.append(output))
        try:
            objective, stats = super().loss(batch)
        finally:
            hook.remove()
        if not mask.any():
            return 0.0 * (seen[0].logits.sum() + seen[0].value.sum()), dict.fromkeys(
                [*stats, "entropy", "logprob"], 0.0
            )
        self.refuse_divergence(objective.detach(), "the loss")
        self.micro_batches += 1
        self.lr = self.opt.param_groups[0]["lr"]  # trlX logs that of the next step
        distribution = loss.log_distribution(seen[0].logits.detach()[:, start : start + length])
        means = dict(entropy=loss.entropy(distribution), logprob=batch.logprobs.to(mask.device))
        return objective, stats | {name: loss.masked_mean(each, mask) for name, each in means.items()}

    def save(self, directory: str | None = None, **kwargs) -> None:
        """Not trlX's, which fails on GPT-2's tied embedding and could not be resumed: see `post_epoch_callback`.

        Until: `accelerator.save_state` writes a model with tied weights.
        """

    def save_pretrained(self, directory: str | Path | None = None, **kwargs) -> Path | None:
        """`Run`'s; but not where trlX's loop would put a model into a checkpoint that is not whole.

        Raises:
            CourseError: the folder cannot take the model, or the disk is full.
        """
        if self.learning and directory and Path(directory).parent.name.startswith("checkpoint_"):
            return None
        return super().save_pretrained(directory)

    def post_epoch_callback(self) -> None:
        """The end of a round, where a checkpoint is exact; then trlX samples the next round."""
        self.end_round()
        super().post_epoch_callback()

    # ------------------------------------------------------------------ What Run calls and we replace
    # `Run` reads and sets these three by its own names.

    step = property(lambda self: self.iter_count, lambda self, step: setattr(self, "iter_count", step))
    optimizer = property(lambda self: self.opt)
    kl_coef = property(lambda self: self.kl_ctl.value, lambda self, beta: setattr(self.kl_ctl, "value", beta))

    def make_sampler(self, reward_fn: Callable, stop_sequences: list[str]) -> ParallelSampler:
        """What samples for evaluation, and for `Run.resume`'s trial of the reward function."""
        return ParallelSampler(
            self.policy, self.tokenizer, reward_fn, self.config, stop_sequences, self.accelerator
        )

    def progress(self) -> dict:
        """What a checkpoint remembers, with the running moments of trlX's rewards."""
        moments = self.running_moments
        return super().progress() | {
            "running_moments": [float(x) for x in (moments.mean, moments.std, moments.var, moments.count)],
            "ref_scores": [None if x is None else float(x) for x in (self.ref_mean, self.ref_std)],
        }

    def restore(self, progress: dict) -> None:
        """Take up what `progress` gave.

        Raises:
            CourseError: the checkpoint was made with other prompts, or by another number of processes.
        """
        super().restore(progress)
        device, moments = self.accelerator.device, self.running_moments
        *numbers, moments.count = progress["running_moments"]
        moments.mean, moments.std, moments.var = (torch.tensor(x, device=device) for x in numbers)
        self.ref_mean, self.ref_std = (
            None if x is None else torch.tensor(x, device=device) for x in progress["ref_scores"]
        )

    # ------------------------------------------------------------------ Our own
    # What the methods above, `__init__` and trlX (by `reward_fn`, `opt.step` and `accelerator.log`) make use of.

    def refuse_padding_in_prompts(self) -> None:
        """Refuse prompts with the padding token: trlX would sample from one text and learn another.

        trlX takes the padding token for padding wherever it stands.

        Raises:
            CourseError: names the prompt.
        """
        for name, prompts in [("prompts", self.prompts), ("eval_prompts", self.eval_prompts)]:
            for index, tokens in enumerate(prompts.tokens):
                if self.tokenizer.pad_token_id in tokens:
                    raise CourseError(
                        f"{name}[{index}] holds {self.tokenizer.pad_token!r}, which trlX takes for padding (without prompts it "
                        "starts from just that). Give prompts of ordinary words, or set RLHF_ENGINE=builtin."
                    )

    def refuse_added_tokens(self) -> None:
        """Refuse a tokenizer that begins every text with a special token: trlX tokenises outputs anew, and would learn that token.

        Raises:
            CourseError: names the tokens.
        """
        word = self.prompts.texts[0]
        plain = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        if (ids := self.tokenizer(word)["input_ids"]) != plain:
            added = [token for token in ids if token not in plain]
            raise CourseError(
                f"this tokenizer adds {self.tokenizer.convert_ids_to_tokens(added)} to every text, and trlX tokenises outputs anew: it "
                "would learn them in the middle of a text. Set RLHF_ENGINE=builtin, which keeps the tokens that were sampled."
            )

    def learn_in_memory(self) -> None:
        """Run trlX's loop, and say what to do where its memory runs out.

        Raises:
            CourseError: the memory ran out; names smaller settings.
        """
        try:
            super().learn()
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            rows = self.config.train.minibatch_size or self.config.train.batch_size
            raise CourseError(
                f"out of memory ({str(error).splitlines()[0]}). trlX does not try again with less: set train.minibatch_size="
                f"{max(1, rows // 2)} (the same batch in smaller parts), a smaller method.chunk_size, or RLHF_ENGINE=builtin, "
                "which halves them by itself."
            ) from error

    def prompt_batches(self, count: int) -> Iterator[BatchEncoding]:
        """Prompts for `count` rollouts, in the batches that trlX's own data loader gives; to each process its share."""
        for start in range(0, count, self.config.method.chunk_size):
            size = min(self.config.method.chunk_size, count - start) * processes.count()
            ids, mask, metadata = self.prompts.batch(self.prompts.deal(size))
            share = processes.shard(size)
            metadata = {name: values[share] for name, values in metadata.items()}
            yield BatchEncoding({"input_ids": ids[share], "attention_mask": mask[share], **metadata})

    def judge(
        self,
        samples: list[str],
        prompts: list[str],
        outputs: list[str],
        tokenizer: PreTrainedTokenizerBase,
        **metadata,
    ) -> list[float] | list[list[float]]:
        """The reward function, its answer checked, on text without the EOS that trlX shows it in training only.

        Until: trlX's `make_experience` and `evaluate` give the reward function the same text.

        Raises:
            CourseError: the reward function breaks its contract, or all its first rewards are equal and to be scaled.
        """
        tokens = tokenizer(outputs)["input_ids"]
        samples, outputs = (
            [text.removesuffix(tokenizer.eos_token) for text in texts] for texts in (samples, outputs)
        )
        given = score(self.sampler.reward_fn, samples, prompts, outputs, tokenizer=tokenizer, **metadata)
        totals = [sum(reward) if isinstance(reward, list) else reward for reward in given]
        self.refuse_to_scale_by_nothing(totals)
        self.scores += given
        self.outputs += outputs
        if processes.count() == 1:  # of several trlX asks only the main one, and stopping takes all
            self.tell("progress")
        # trlX has no place for more rewards than tokens: the last token gets the rest
        if isinstance(given[0], list):
            given = [fold(rewards, max(1, len(ids))) for rewards, ids in zip(given, tokens, strict=True)]
        return given

    def refuse_to_scale_by_nothing(self, scores: list[float]) -> None:
        """Refuse to divide by the deviation of the first rewards where there is none: every weight would be lost.

        Raises:
            CourseError: the rewards of the first chunk are equal, and `scale_reward` asks for their deviation.
        """
        scaled = self.config.method.scale_reward in ("ref", "running")
        if scaled and not self.history.rounds and not self.scores and len(set(scores)) == 1:
            raise CourseError(
                f"all {len(scores)} rewards of the first chunk are {scores[0]}: there is no spread to scale by. "
                'Set method.scale_reward to "ignored", or look at the reward function.'
            )

    def kl_of_rollouts(self) -> tuple[Tensor, Tensor]:
        """(N,) KL in nats and (N,) length in tokens of the rollouts in the store.

        trlX reports another estimator (k3) over prompt and response. The history has the one whose mean is penalised (k1),
        over the response, as the built-in engine has it.
        """
        kl, lengths = [], []
        for rollout, reference in zip(self.store.history, self.model.ref_logprobs, strict=True):
            start = len(rollout.query_tensor) - 1
            tokens = int((rollout.response_tensor != self.tokenizer.pad_token_id).sum()) + 1  # and its EOS
            logprobs = rollout.logprobs[:tokens]
            kl.append((logprobs - reference[start : start + len(logprobs)]).sum())
            lengths.append(len(logprobs))
        return torch.stack(kl), torch.tensor(lengths)

    def values_and_returns(self) -> tuple[Tensor, Tensor]:
        """The values and the returns (n,) of the n response tokens in the store, as trlX's update will have them."""
        method, values, returns = self.config.method, [], []
        for rollout in self.store.history:
            rewards, foreseen = rollout.rewards[None], rollout.values[None]
            each = torch.ones_like(foreseen)
            found = loss.advantages_and_returns(rewards, foreseen, each, method.gamma, method.lam)[1]
            values.append(rollout.values)
            returns.append(found[0])
        return torch.cat(values), torch.cat(returns)

    def step_together(self, step: Callable[[], None]) -> None:
        """Take an optimizer step on the mean of the processes' gradients, as DistributedDataParallel has it."""
        with sharding.in_shards(self.blocks):
            gradients = [p.grad for p in self.policy.trainable().values() if p.grad is not None]
            processes.add_up([gradient for gradient in gradients if not sharding.is_split(gradient)])
            for gradient in gradients:
                gradient /= processes.count()
            self.accelerator.unscale_gradients()
            learning = self.policy.trainable().values()
            self.grad_norm = sharding.clip_gradients(learning, self.config.train.max_grad_norm)
            step()
        self.refuse_diverged_weights()

    def record(self, stats: dict) -> None:
        """Put what trlX logs into the history: a round's times, an update, an evaluation."""
        stats = {name: torch.as_tensor(value).detach().item() for name, value in stats.items()}
        if "time/rollout_generate" in stats:
            chunks = -(-self.config.method.num_rollouts // self.config.method.chunk_size)
            sample, judged, whole = (
                chunks * stats.get(f"time/rollout_{part}", 0.0) for part in ("generate", "score", "time")
            )
            self.seconds = {"sample": sample, "score": judged, "forward": whole - sample - judged}
        if "losses/total_loss" in stats:
            seconds = self.num_mb * (stats["time/forward"] + stats["time/backward"])
            self.history.rounds[-1]["seconds_update"] += seconds
            names = dict(loss="losses/total_loss", policy_loss="losses/policy_loss", ratio="ratio")
            names |= dict(value_loss="losses/value_loss", clipfrac="policy/clipfrac", entropy="entropy")
            names |= dict(approx_kl="policy/approx_kl", logprob="logprob")
            # trlX divides by the micro-batches of a whole batch, also where the last batch has fewer
            share = self.num_mb / max(1, self.micro_batches)
            sums = processes.total({name: share * stats[theirs] for name, theirs in names.items()})
            means = {name: value / processes.count() for name, value in sums.items()}
            row = {"step": self.step, **means, "grad_norm": self.grad_norm, "lr": self.lr}
            self.history.updates.append(row)
            self.micro_batches = 0
            self.tell("progress")
        if "reward/mean" in stats:
            ours = ("reward/mean", "kl", "length", "distinct")
            self.record_evaluation({k: v for k, v in stats.items() if k in ours or k.startswith("metrics/")})


def fold(rewards: list[float], tokens: int) -> list[float]:
    """At most one reward for each of `tokens` tokens; the last one gets what is left over."""
    return (
        rewards[:tokens] if len(rewards) <= tokens else [*rewards[: tokens - 1], sum(rewards[tokens - 1 :])]
    )


def joined(work: Callable[[], tuple[Tensor, ...]]) -> list[Tensor]:
    """Each tensor that `work` returns, joined over the processes, of which each has its own."""
    return [torch.cat(parts) for parts in zip(*processes.gather(work), strict=True)]
