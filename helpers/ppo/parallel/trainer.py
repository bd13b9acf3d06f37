"""The plain trainer in several processes, in half precision, and where memory runs out."""

from types import MethodType

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.nn.functional import linear

from helpers.errors import CourseError
from helpers.ppo.config import TRLConfig
from helpers.ppo.load import load_policy, load_tokenizer, make_scheduler
from helpers.ppo.parallel import processes, sharding
from helpers.ppo.parallel.memory import Fitting
from helpers.ppo.parallel.rollout import ParallelSampler
from helpers.ppo.policy import Policy
from helpers.ppo.rollout import Rollouts
from helpers.ppo.trainer import PPOTrainer
from helpers.rewards import RewardFn

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


class ParallelPPOTrainer(PPOTrainer):
    """A `PPOTrainer` for one or several processes, which `accelerate launch` starts, at the precision that it sets.

    Every process has all rollouts of a round, computes advantages as one process would, and learns from its share of each
    batch. The gradients are added up.
    """

    sampler_class = ParallelSampler

    def make_parts(self, config: TRLConfig) -> None:
        """As `PPOTrainer.make_parts`, by way of Accelerate. Each process holds the whole policy.

        Raises:
            CourseError: the processes were launched in a way that is not known here, or fp16 is asked of a CPU.
        """
        processes.check_launch()
        AcceleratorState._reset_state()  # else the precision of this kernel's first run would be that of all
        # split_batches: the scheduler counts optimizer steps, however many processes take them
        self.accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(split_batches=True))
        self.device, self.autocast = self.accelerator.device, self.accelerator.autocast
        processes.join(self.accelerator)
        self.num_rollouts *= processes.count()
        self.chunk_size *= processes.count()
        self.batch_size *= processes.count()
        self.tokenizer = load_tokenizer(config)
        policy = load_policy(config)
        precision = self.accelerator.mixed_precision
        if precision == "fp16" and self.device.type == "cpu":
            raise CourseError("mixed precision fp16 needs a GPU: use bf16 where the CPU has it, or no")
        if precision in HALF:
            store_frozen_in(policy, HALF[precision])
            logits_in_float32(policy)
        # evaluation_mode: on its device and in its precision, but not wrapped (processes.py says why)
        self.policy = self.accelerator.prepare_model(policy, evaluation_mode=True)
        self.blocks = sharding.split(policy) if processes.told_to_shard() else ()
        optimizer = self.setup_optimizer()
        scheduler = make_scheduler(config, optimizer)
        self.optimizer, self.scheduler = self.accelerator.prepare(optimizer, scheduler)
        self.updating = Fitting(
            config.train.minibatch_size or config.train.batch_size,
            "an update",
            "train.minibatch_size",
            halves=not self.blocks,  # sharded, each micro-batch is one of all processes together
        )

    def learn(self) -> None:
        """As `PPOTrainer.learn`; afterwards all weights are in float32."""
        try:
            super().learn()
        finally:
            # `trainer.model` is a reader's to call, without autocast
            store_frozen_in(self.policy, torch.float32)

    def make_sampler(self, reward_fn: RewardFn, stop_sequences: list[str]) -> ParallelSampler:
        """As `Run.make_sampler`, of the class `sampler_class`."""
        return self.sampler_class(
            self.policy, self.tokenizer, reward_fn, self.config, stop_sequences, self.accelerator
        )

    def optimizer_step(self, batch: Rollouts, advantages: Tensor, returns: Tensor) -> dict:
        """As `PPOTrainer.optimizer_step`. Each process has its share of the batch, and all take the same step."""
        tokens = batch.mask.sum()
        share = processes.shard(len(batch))
        own = (batch.rows(share), advantages[share], returns[share])
        totals = processes.total(self.updating.run(lambda rows: self.gradients(*own, tokens, rows)))
        with sharding.in_shards(self.blocks):
            learning = self.policy.trainable().values()
            processes.add_up([p.grad for p in learning if p.grad is not None and not sharding.is_split(p)])
            self.accelerator.unscale_gradients()  # in float16 they are scaled up, lest small ones vanish
            norm = sharding.clip_gradients(learning, self.config.train.max_grad_norm)
            self.optimizer.step()
        return self.step_done(totals, tokens, norm)

    def gradients(
        self, batch: Rollouts, advantages: Tensor, returns: Tensor, tokens: Tensor, rows: int
    ) -> dict[str, float]:
        """Add up the gradients of the loss divided by `tokens`, over micro-batches of `rows`; returns the sums for the history."""
        self.optimizer.zero_grad()
        totals: dict[str, float] = {}
        for micro in self.micro_batches(batch, rows):
            objective, sums = self.losses(batch.rows(micro), advantages[micro], returns[micro])
            self.accelerator.backward(objective / tokens)
            totals = {name: totals.get(name, 0.0) + value for name, value in sums.items()}
        return totals

    def micro_batches(self, batch: Rollouts, rows: int) -> tuple[Tensor, ...]:
        """The rows of each micro-batch."""
        return torch.arange(len(batch)).split(rows)

    def forward_pass(self, batch: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
        """As `PPOTrainer.forward_pass`, in the precision of the run."""
        with self.autocast():
            return super().forward_pass(batch)


def store_frozen_in(policy: Policy, dtype: torch.dtype) -> None:
    """Store in `dtype` what policy and reference share. What learns, and what it started as, stay in float32."""
    for parameter in policy.base_model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def logits_in_float32(policy: Policy) -> None:
    """Make the output layers of policy and reference compute in float32, whatever the precision around them.

    bfloat16 has steps of 0.5 where GPT-2 has its logits, around -90: rounding alone would move ratios by up to 28%.
    """
    for model in (policy.base_model, policy.reference):
        layer = model.get_output_embeddings()
        layer = getattr(layer, "base_layer", layer)  # LoRA adds its own to that
        layer.forward = MethodType(float32_forward, layer)


def float32_forward(layer: nn.Linear, hidden: Tensor) -> Tensor:
    """The logits (..., V) of hidden states (..., hidden), in float32."""
    with torch.autocast(hidden.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return linear(hidden.float(), layer.weight.float(), bias)
