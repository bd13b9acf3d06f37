"""The real trlX on today's transformers, by its own extension points.

trlX's loop, losses, rollout store and configuration run as they are. What no longer works is replaced in a trainer of our
own, which trlX finds by `config.train.trainer`, and in the model which that trainer gives it. What is mended, in the order in
which a run meets it, with the place that mends it:

1. the import, where peft is installed                              import_trlx
2. a wandb login; progress bars that stay hidden                    settings_for_trlx; helpers/monitor.py
3. folders that hold only model.safetensors                         CourseTrainer.get_arch
4. the reference: without a causal mask, wrong for 0 and -1         PolicyForTrlx
5. a reward that reads "<|endoftext|>" in training only             CourseTrainer.judge
6. evaluation that draws other samples each time and has no KL      Run.evaluate
7. saves that load as random weights                                Run.save_pretrained
8. checkpoints that cannot be written, and begin again at step 0    CourseTrainer.learn, Run.save_checkpoint_if_due
9. several processes: a model that trlX cannot use once wrapped     CourseTrainer.get_arch, step_together

"Until" says at each place how to see that trlX no longer needs it. `python -m helpers trlx` installs the commit this was tried
with.
"""

import logging
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from transformers import BatchEncoding

from helpers.errors import CourseError
from helpers.ppo import loss
from helpers.ppo.config import TRLConfig, check, default_ppo_config
from helpers.ppo.load import load_policy, load_tokenizer, make_scheduler
from helpers.ppo.parallel import processes, sharding
from helpers.ppo.parallel.rollout import ParallelSampler
from helpers.ppo.policy import Policy, hidden_states
from helpers.ppo.run import Run, refuse_other_methods, round_row
from helpers.rewards import score


def import_trlx():
    """Import trlX, with the one name that it misses in peft.

    trlX imports `prepare_model_for_int8_training`, which peft has renamed; PPO without adapters never calls it.
    Until: `import trlx` works beside today's peft.
    """
    try:
        import peft

        if not hasattr(peft, "prepare_model_for_int8_training"):
            peft.prepare_model_for_int8_training = peft.prepare_model_for_kbit_training
    except ImportError:
        pass  # trlX does without peft where there is none
    # what ray and deepspeed have to say is about parts that no run here uses
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import trlx
            from trlx.trainer import accelerate_base_trainer
    except ImportError as error:
        raise CourseError(
            f"trlX is installed but cannot be imported: {error}. Install it again with `python -m helpers trlx`, "
            "or set RLHF_ENGINE=builtin to train with the course's own PPO."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    # trlX asks git for a name for its wandb runs, and git complains where there is no repository
    accelerate_base_trainer.get_git_tag = lambda: ("", "")
    trlx.logging.set_verbosity(trlx.logging.ERROR)
    trlx.logging.disable_progress_bar()  # helpers/monitor.py shows progress, that of the rollouts too
    return trlx


trlx = import_trlx()

from trlx.data.configs import TRLConfig as TrlxConfig  # noqa: E402
from trlx.trainer import register_trainer  # noqa: E402
from trlx.trainer.accelerate_ppo_trainer import AcceleratePPOTrainer  # noqa: E402


class Output(NamedTuple):
    """What trlX takes apart as a tuple when it samples and by name when it updates."""

    logits: Tensor  # (B, T, V)
    value: Tensor | None  # (B, T)


class PolicyForTrlx(nn.Module):
    """Our `Policy` with the methods that trlX calls on its models.

    trlX's own reference is refused by today's transformers; made to run, it gets no causal mask and so reads ahead, and for
    `num_layers_unfrozen` 0 and -1 it is another model. Ours is the policy as it was.
    Until: trlX's `forward` and `forward_hydra` agree to the last bit before the first update, for -1, 0 and 2.
    """

    peft_type = None

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = policy
        self.ref_logprobs: list[Tensor] = []  # (T - 1,) for each rollout of this round

    @property
    def base_model(self):
        return self.policy.base_model

    @property
    def frozen_head(self):
        return self.policy.reference

    def forward(self, input_ids, attention_mask, position_ids=None, return_dict=True) -> Output:
        limit = self.base_model.config.max_position_embeddings
        if input_ids.shape[1] > limit:
            raise CourseError(
                f"a prompt and its response have {input_ids.shape[1]} tokens, and the model has {limit} positions. trlX tokenises "
                "responses anew, which can make them longer: lower max_new_tokens, or shorten the prompts."
            )
        hidden = hidden_states(self.base_model, input_ids, attention_mask)
        logits = self.base_model.get_output_embeddings()(hidden)
        return Output(logits, self.policy.v_head(hidden).squeeze(-1))

    def forward_hydra(self, input_ids, attention_mask, position_ids=None, return_dict=True) -> Output:
        hidden = hidden_states(self.frozen_head, input_ids, attention_mask)
        logits = self.frozen_head.get_output_embeddings()(hidden)
        distribution = loss.log_distribution(logits[:, :-1])
        self.ref_logprobs += loss.token_logprobs(distribution, input_ids[:, 1:]).cpu()
        return Output(logits, None)

    def generate(self, *args, **kwargs):
        return self.base_model.generate(*args, **kwargs)


@register_trainer
class CourseTrainer(Run, AcceleratePPOTrainer):
    """trlX's PPO trainer; what `Run` defines (evaluate, generate, save_pretrained, setup_optimizer) comes before trlX's.

    Until, for evaluate: two trlX evaluations of one policy give the same rewards. Until, for save_pretrained:
    `AutoModelForCausalLM.from_pretrained` gives back the logits of a model that trlX saved (CarperAI/trlx issue 600).
    """

    engine = "trlX"

    def __init__(
        self, config, reward_fn, prompts, eval_prompts, metric_fn, stop_sequences, listeners, minutes
    ):
        self.iter_count = self.resumed_at = self.micro_batches = 0
        self.learning = False
        with nccl_on_a_cpu():
            super().__init__(config, reward_fn=self.judge, stop_sequences=stop_sequences)
        sharding.gather(self.blocks)  # trlX has moved the model to its device, which takes them apart
        config.train.trainer_kwargs = {}  # read by now, and nothing that a checkpoint could hold
        processes.join(self.accelerator)
        self.opt.step = partial(self.step_together, self.opt.step)
        self.scheduler.split_batches = True  # it counts optimizer steps, however many processes take them
        # where Accelerate would send trlX's numbers to wandb, from the main process alone
        self.accelerator.log = lambda stats, step=None: self.record(stats)
        # trlX's own has a made-up <sep>, which would be saved with the model
        self.tokenizer = load_tokenizer(config)
        self.scores, self.outputs = [], []  # of this round's rollouts
        self.device, self.autocast = self.accelerator.device, self.accelerator.autocast
        self.prepare(reward_fn, prompts, eval_prompts, metric_fn, stop_sequences, listeners, minutes)
        self.refuse_padding_in_prompts()
        self.sampler.temperature = 1.0  # that of trlX's log-probabilities, however it samples
        config.train.save_best = False  # `Run` does; trlX forgets the best reward when it resumes

    step = property(lambda self: self.iter_count, lambda self, step: setattr(self, "iter_count", step))
    optimizer = property(lambda self: self.opt)
    kl_coef = property(lambda self: self.kl_ctl.value, lambda self, beta: setattr(self.kl_ctl, "value", beta))

    def get_arch(self, config) -> PolicyForTrlx:
        """The model, loaded by transformers. trlX looks for pytorch_model.bin and, finding none, asks the hub.

        Until: `trlx.train` starts from a folder with model.safetensors alone.

        Of several processes trlX seeds each otherwise, and has accelerate wrap the model, which hides `forward_hydra` and the
        rest. Ours start with the same value head, unwrapped; `step_together` adds up what they learn.
        Until: trlX's PPO trains in two processes without DeepSpeed.
        """
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        processes.share_random_state()
        self.policy = load_policy(config)
        if processes.told_to_shard():
            self.blocks = sharding.split(self.policy.to(self.accelerator.device))
        return PolicyForTrlx(self.policy)

    def make_sampler(self, reward_fn, stop_sequences: list[str]) -> ParallelSampler:
        return ParallelSampler(
            self.policy, self.tokenizer, reward_fn, self.config, stop_sequences, self.accelerator
        )

    def refuse_padding_in_prompts(self) -> None:
        """trlX takes the padding token for padding wherever it stands: it would sample from one text and learn another."""
        for name, prompts in [("prompts", self.prompts), ("eval_prompts", self.eval_prompts)]:
            for index, tokens in enumerate(prompts.tokens):
                if self.tokenizer.pad_token_id in tokens:
                    raise CourseError(
                        f"{name}[{index}] holds {self.tokenizer.pad_token!r}, which trlX takes for padding (without prompts it "
                        "starts from just that). Give prompts of ordinary words, or set RLHF_ENGINE=builtin."
                    )

    def step_together(self, step) -> None:
        """An optimizer step on the mean of the processes' gradients, as DistributedDataParallel has it."""
        with sharding.in_shards(self.blocks):
            gradients = [p.grad for p in self.policy.trainable().values() if p.grad is not None]
            processes.add_up([gradient for gradient in gradients if not sharding.is_split(gradient)])
            for gradient in gradients:
                gradient /= processes.count()
            step()

    def setup_scheduler(self):
        return make_scheduler(self.config, self.opt)

    def learn(self) -> None:
        """trlX's loop. Where a checkpoint is found, go on from it: trlX would count from 0 again.

        Until: a resumed trlX run ends with the history of a run that was never interrupted.
        """
        processes.share_random_state()
        with self.told():
            if self.resume():
                self.resumed_at = self.step
            if self.step < self.total_steps:
                self.learning = True
                self.learn_in_memory()
                self.save_checkpoint_if_due(over=False)
        self.learning = False
        self.model = self.policy.base_model  # as transformers knows it: what readers expect of trainer.model

    def learn_in_memory(self) -> None:
        """trlX's loop, and what to do where its memory runs out."""
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

    def evaluate(self) -> dict:
        """`Run.evaluate`; but trlX's first one comes when it has just set its counter to 0, resumed or not."""
        if self.iter_count < self.resumed_at:
            self.iter_count = self.resumed_at
            return {}
        return super().evaluate()

    def add_prompt_pipeline(self, pipeline) -> None:
        """Not needed: prompts are dealt by `Run.prompts`, whose place a checkpoint remembers."""

    def make_experience(self, num_rollouts: int, iter_count: int = 0) -> None:
        """trlX's sampling of one round, and its row in the history."""
        self.scores, self.outputs, self.model.ref_logprobs = [], [], []
        self.prompt_iterator = self.prompt_batches(num_rollouts)
        with nccl_on_a_cpu():
            super().make_experience(num_rollouts, self.step)
        processes.share_random_state()
        kl, lengths = (
            torch.cat(parts)
            for parts in zip(*processes.gather(self.kl_of_rollouts), strict=True)  # each has its own
        )
        # the main process has judged them all
        self.scores, self.outputs = processes.on_main(lambda: (self.scores, self.outputs))
        if not any(self.outputs):
            raise CourseError(
                "every sample of this round is empty: the policy ends its texts at once. Does the reward pay for silence, or do "
                "stop_sequences cut everything? gen_kwargs=dict(min_new_tokens=1) forbids an early end."
            )
        scores = torch.tensor(self.scores)
        self.history.rounds.append(
            round_row(self.step, scores, kl, self.kl_coef, lengths, self.outputs, self.seconds)
        )
        self.tell("progress")

    def prompt_batches(self, count: int):
        """Prompts for `count` rollouts, in the batches that trlX's own data loader gives; to each process its share."""
        for start in range(0, count, self.config.method.chunk_size):
            size = min(self.config.method.chunk_size, count - start) * processes.count()
            ids, mask, metadata = self.prompts.batch(self.prompts.deal(size))
            share = processes.shard(size)
            metadata = {name: values[share] for name, values in metadata.items()}
            yield BatchEncoding({"input_ids": ids[share], "attention_mask": mask[share], **metadata})

    def judge(self, samples, prompts, outputs, tokenizer, **metadata):
        """The reward function, its answer checked, on text without the EOS that trlX shows it in training only.

        Until: trlX's `make_experience` and `evaluate` give the reward function the same text.
        """
        tokens = tokenizer(outputs)["input_ids"]
        samples, outputs = (
            [text.removesuffix(tokenizer.eos_token) for text in texts] for texts in (samples, outputs)
        )
        given = score(self.sampler.reward_fn, samples, prompts, outputs, tokenizer=tokenizer, **metadata)
        totals = [sum(reward) if isinstance(reward, list) else reward for reward in given]
        self.refuse_to_scale_by_nothing(totals)
        self.scores += totals
        self.outputs += outputs
        if processes.count() == 1:  # of several trlX asks only the main one, and stopping takes all
            self.tell("progress")
        # trlX has no place for more rewards than tokens: the last token gets the rest
        if isinstance(given[0], list):
            given = [fold(rewards, max(1, len(ids))) for rewards, ids in zip(given, tokens, strict=True)]
        return given

    def refuse_to_scale_by_nothing(self, scores: list[float]) -> None:
        """trlX divides by the deviation of the first rewards; where there is none, every weight would be lost."""
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

    def loss(self, batch):
        """trlX's loss; the entropy, for the monitor, comes from the same logits.

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
            return 0.0 * (seen[0].logits.sum() + seen[0].value.sum()), dict.fromkeys([*stats, "entropy"], 0.0)
        self.micro_batches += 1
        self.lr = self.opt.param_groups[0]["lr"]  # trlX logs that of the next step
        distribution = loss.log_distribution(seen[0].logits.detach()[:, start : start + length])
        return objective, stats | {"entropy": loss.masked_mean(loss.entropy(distribution), mask)}

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
            names |= dict(approx_kl="policy/approx_kl")
            # trlX divides by the micro-batches of a whole batch, also where the last batch has fewer
            share = self.num_mb / max(1, self.micro_batches)
            sums = processes.total({name: share * stats[theirs] for name, theirs in names.items()})
            means = {name: value / processes.count() for name, value in sums.items()}
            self.history.updates.append({"step": self.step, **means, "lr": self.lr})
            self.micro_batches = 0
            self.tell("progress")
        if "reward/mean" in stats:
            ours = ("reward/mean", "kl", "length", "distinct")
            self.record_evaluation({k: v for k, v in stats.items() if k in ours or k.startswith("metrics/")})

    def post_epoch_callback(self) -> None:
        """The end of a round, where a checkpoint is exact."""
        self.end_round()
        super().post_epoch_callback()

    def save_pretrained(self, directory=None, **kwargs):
        """`Run`'s; but not where trlX's loop would put a model into a checkpoint that is not whole."""
        if self.learning and directory and Path(directory).parent.name.startswith("checkpoint_"):
            return None
        return super().save_pretrained(directory)

    def save(self, directory=None, **kwargs) -> None:
        """Not trlX's, which fails on GPT-2's tied embedding and could not be resumed: see `post_epoch_callback`.

        Until: `accelerator.save_state` writes a model with tied weights.
        """

    def load(self, directory=None, **kwargs) -> None:
        """`learn` does it, when everything else is in place."""

    def progress(self) -> dict:
        moments = self.running_moments
        return super().progress() | {
            "running_moments": [float(x) for x in (moments.mean, moments.std, moments.var, moments.count)],
            "ref_scores": [None if x is None else float(x) for x in (self.ref_mean, self.ref_std)],
        }

    def restore(self, progress: dict) -> None:
        super().restore(progress)
        device, moments = self.accelerator.device, self.running_moments
        *numbers, moments.count = progress["running_moments"]
        moments.mean, moments.std, moments.var = (torch.tensor(x, device=device) for x in numbers)
        self.ref_mean, self.ref_std = (
            None if x is None else torch.tensor(x, device=device) for x in progress["ref_scores"]
        )


@contextmanager
def nccl_on_a_cpu():
    """Inside, gloo takes two calls of trlX's that only NCCL knows: a barrier with a device, and a reduction to the mean.

    Until: trlX's PPO starts in two processes on a CPU.
    """
    distributed = torch.distributed
    if not distributed.is_initialized() or distributed.get_backend() != "gloo":
        yield
        return
    barrier, all_reduce = distributed.barrier, distributed.all_reduce

    def all_reduce_or_mean(tensor, op=distributed.ReduceOp.SUM, *args, **kwargs):
        if op != distributed.ReduceOp.AVG:
            return all_reduce(tensor, op, *args, **kwargs)
        all_reduce(tensor)
        tensor /= distributed.get_world_size()

    distributed.barrier, distributed.all_reduce = lambda **kwargs: barrier(), all_reduce_or_mean
    try:
        yield
    finally:
        distributed.barrier, distributed.all_reduce = barrier, all_reduce


def fold(rewards: list[float], tokens: int) -> list[float]:
    """At most one reward per token, what exceeds them added to the last."""
    return (
        rewards[:tokens] if len(rewards) <= tokens else [*rewards[: tokens - 1], sum(rewards[tokens - 1 :])]
    )


def train(
    model_path=None,
    reward_fn=None,
    dataset=None,
    samples=None,
    rewards=None,
    prompts=None,
    eval_prompts=None,
    metric_fn=None,
    config=None,
    stop_sequences=None,
    minutes=None,
    listeners=(),
) -> CourseTrainer:
    """`trlx.train`, the real one; arguments, result and errors as in helpers/ppo/train.py.

    `config` may be ours or trlX's own `TRLConfig`.
    """
    refuse_other_methods(reward_fn, dataset, samples, rewards)
    config = TRLConfig.from_dict(config.to_dict()) if config else default_ppo_config()
    if model_path:
        config = config.evolve(model=dict(model_path=model_path))
    check(config)
    processes.check_launch()
    settings = settings_for_trlx(config)
    settings["train"]["trainer_kwargs"] = dict(
        prompts=prompts, eval_prompts=eval_prompts, listeners=listeners, minutes=minutes
    )
    # the prompts go to our trainer alone: trlX's pipeline would take "prompt" out of the reader's own dictionaries
    return trlx.train(
        prompts=["-"],
        reward_fn=reward_fn,
        metric_fn=metric_fn,
        config=TrlxConfig.from_dict(settings),
        stop_sequences=list(stop_sequences or []),
    )


def settings_for_trlx(config: TRLConfig) -> dict:
    """The configuration as trlX takes it: our trainer, no login, a padding token that exists.

    Until, for the login: trlX's default for `train.tracker` asks for none.
    """
    settings = config.to_dict()
    settings["train"] |= dict(trainer="CourseTrainer", tracker=None)
    settings["tokenizer"]["tokenizer_extra_configs"] |= dict(pad_token=load_tokenizer(config).pad_token)
    return settings
