"""The one door to training: `from helpers import engine as trlx`, then `trlx.train(...)` as trlX's documentation has it.

Behind the door stands the course's own PPO. The real trlX cannot be imported beside today's transformers; until the course
has a bridge to it, asking for it by RLHF_ENGINE=trlx says so.
"""

import os

from helpers.errors import CourseError
from helpers.ppo.config import (  # noqa: F401  (trlX's names, for `from helpers.engine import ...`)
    ModelConfig,
    OptimizerConfig,
    PPOConfig,
    SchedulerConfig,
    TokenizerConfig,
    TrainConfig,
    TRLConfig,
    default_ppo_config,
)

VERSION = "1.0"
TRLX_COMMIT = "3340c2f3a56d1d14fdd5f13ad575121fa26b6d92"


def describe() -> str:
    """Which engine trains, and its version.

    Raises:
        CourseError: RLHF_ENGINE asks for an engine this course does not have.
    """
    asked = os.environ.get("RLHF_ENGINE", "auto")
    if asked == "trlx":
        raise CourseError(
            f"RLHF_ENGINE=trlx: the real trlX (github.com/CarperAI/trlx, commit {TRLX_COMMIT[:7]}, January 2024) cannot be "
            "imported beside today's transformers and peft, and this version of the course has no bridge to it. "
            "Use RLHF_ENGINE=builtin: the same interface, our own PPO."
        )
    if asked not in ("auto", "builtin"):
        raise CourseError(f"RLHF_ENGINE is {asked!r}: expected auto, builtin or trlx")
    return f"built-in PPO {VERSION}"


def train(*args, **kwargs):
    """`helpers.ppo.trainer.train` with live progress; see there for the arguments."""
    describe()
    # torch and matplotlib load when training starts, not when a notebook opens
    from helpers.monitor import Monitor
    from helpers.ppo.trainer import train as train_ppo

    return train_ppo(*args, listeners=[Monitor()], **kwargs)
