"""RLOO and GRPO as they run by default: their own arithmetic (helpers/ppo/groups.py) on the fast trainer's forward passes."""

from helpers.ppo.fast.trainer import FastPPOTrainer
from helpers.ppo.groups import GRPO, RLOO


class FastRLOO(RLOO, FastPPOTrainer):
    """An `RLOO` in one or several processes, with each thing computed once."""


class FastGRPO(GRPO, FastPPOTrainer):
    """A `GRPO` in one or several processes, with each thing computed once."""
