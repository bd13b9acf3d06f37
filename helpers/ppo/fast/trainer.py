"""PPO's arithmetic with each thing done once.

The plain trainer.py and rollout.py say what is computed; this gets the same numbers for less, and tests/test_fast.py holds
them equal. The plain files do these things more than once:

- The frozen blocks give the same output for a token however often they run. Sampling has run them: the rollouts keep what
  they gave, and reference and update start from there (`Top`).
- Sampling has computed the log-probability and the hidden state of every token (`FastSampler.remember_once`).
- Only response tokens need logits, not prompts and padding, and not all at once (head.py).
- Padding costs as much as tokens: a micro-batch has rollouts of like length (`FastPPOTrainer.micro_batches`), and is cut to
  the longest (`FastRollouts.trimmed`).
"""

from typing import Any

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
    """A `ParallelPPOTrainer` whose updates start from what its rollouts remember. If no block is frozen, they remember nothing."""

    def prepare(self, *args: Any) -> None:
        """As `Run.prepare`, after it has chosen the sampler and the fast activation."""
        first = first_unfrozen(self.policy.base_model)
        self.sampler_class = ParallelSampler if first is None else FastSampler
        use_fast_gelu(self.policy)
        super().prepare(*args)

    def forward_pass(self, batch: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
        """As `PPOTrainer.forward_pass`, through the blocks that learn alone."""
        if not isinstance(batch, FastRollouts):
            return super().forward_pass(batch)
        # start from what the frozen blocks gave for the tokens, without columns of padding
        top, width = self.sampler.top, batch.mask.shape[1]
        batch = batch.trimmed()
        trunk = torch.cat([batch.query_trunk, batch.response_trunk], dim=1)[:, :-1]
        with self.autocast():
            # the blocks that learn, then log-probabilities, entropy and values of the response tokens alone
            hidden = top.hidden_states(trunk, batch.query_mask, batch.mask)
            tokens = batch.response[batch.mask.bool()]
            logprobs, entropy = head.learnable(hidden, top.head, tokens, self.sampler.temperature)
            values = self.policy.v_head(hidden).squeeze(-1).float()
        # back to one number for each place of the batch
        return tuple(widen(spread(x, batch.mask), width) for x in (logprobs, values, entropy))

    def micro_batches(self, batch: Rollouts, rows: int) -> tuple[Tensor, ...]:
        """The rows of each micro-batch; rows of like length are together, so that there is little padding."""
        lengths = batch.query_mask.sum(1) + batch.mask.sum(1)
        return lengths.argsort(stable=True).split(rows)


def use_fast_gelu(policy: Policy) -> None:
    """Replace GPT-2's activation by one operation of torch; transformers' `gelu_new` is the same formula in eight.

    The configuration of a saved model names the new one, so that a loaded model gives the same logits to the last bit.
    """
    for module in policy.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())
    for model in (policy.base_model, policy.reference):
        for name in ("activation_function", "hidden_act"):  # GPT-2's word for it, and Phi's
            if getattr(model.config, name, None) == "gelu_new":
                setattr(model.config, name, "gelu_pytorch_tanh")
