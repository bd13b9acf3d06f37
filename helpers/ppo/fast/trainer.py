"""PPO's arithmetic with each thing done once.

trainer.py and rollout.py say what is computed; this says how to get the same numbers for less. Held equal by
tests/test_fast.py. What they do more than once, and where it is saved:

- The frozen blocks give the same output for a token however often they run. Sampling has run them: what they gave is
  kept with the rollouts, and reference and update start from there (`Top`).
- Sampling has computed the log-probability and the hidden state of every token it took (`FastSampler.remember`).
- Logits are taken at response tokens only, never at prompts or padding, and not all at once (head.py).
- Micro-batches are made of rollouts of like length, and cut to the longest (`FastPPOTrainer.micro_batches`).
"""

import torch
from torch import Tensor
from transformers.activations import GELUTanh, NewGELUActivation

from helpers.ppo.fast import head
from helpers.ppo.fast.rollout import FastRollouts, FastSampler, spread
from helpers.ppo.fast.trunk import first_unfrozen
from helpers.ppo.parallel.rollout import ParallelSampler
from helpers.ppo.parallel.trainer import ParallelPPOTrainer
from helpers.ppo.policy import Policy
from helpers.ppo.prompts import widen
from helpers.ppo.rollout import Rollouts


class FastPPOTrainer(ParallelPPOTrainer):
    """`ParallelPPOTrainer` that starts from what its rollouts remember; where nothing is frozen, there is nothing to remember."""

    def prepare(self, *args) -> None:
        first = first_unfrozen(self.policy.base_model)
        self.sampler_class = ParallelSampler if first is None else FastSampler
        use_fast_gelu(self.policy)
        super().prepare(*args)

    def forward_pass(self, batch: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
        """As `PPOTrainer.forward_pass`, through the blocks that learn."""
        if not isinstance(batch, FastRollouts):
            return super().forward_pass(batch)
        top, width = self.sampler.top, batch.mask.shape[1]
        batch = batch.trimmed()
        trunk = torch.cat([batch.query_trunk, batch.response_trunk], dim=1)[:, :-1]
        with self.autocast():
            hidden = top.hidden_states(trunk, batch.query_mask, batch.mask)
            tokens = batch.response[batch.mask.bool()]
            logprobs, entropy = head.learnable(hidden, top.head, tokens, self.sampler.temperature)
            values = self.policy.v_head(hidden).squeeze(-1).float()
        return tuple(widen(spread(x, batch.mask), width) for x in (logprobs, values, entropy))

    def micro_batches(self, batch: Rollouts, rows: int) -> tuple[Tensor, ...]:
        """Rows of like length together, so that little padding is computed."""
        lengths = batch.query_mask.sum(1) + batch.mask.sum(1)
        return lengths.argsort(stable=True).split(rows)


def use_fast_gelu(policy: Policy) -> None:
    """GPT-2's activation as one operation of torch; transformers' `gelu_new` is the same formula in eight.

    A saved model says so in its configuration, and gives the same logits to the last bit when it is loaded.
    """
    for module in policy.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())
    for model in (policy.base_model, policy.reference):
        if getattr(model.config, "activation_function", None) == "gelu_new":
            model.config.activation_function = "gelu_pytorch_tanh"
