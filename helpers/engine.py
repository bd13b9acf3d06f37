"""The one door to training: `from helpers import engine as trlx`, then `trlx.train(...)` as trlX's documentation has it.

Behind it stands the real trlX where it is installed (helpers/real_trlx), and the course's own PPO elsewhere
(helpers/ppo). RLHF_ENGINE chooses: auto, trlx or builtin.
"""

from helpers import settings
from helpers.errors import CourseError
from helpers.ppo.config import (  # noqa: F401  (trlX's names, for `from helpers.engine import ...`)
    NEEDS_TRLX,
    GRPOConfig,
    ModelConfig,
    OptimizerConfig,
    PPOConfig,
    RLOOConfig,
    SchedulerConfig,
    TokenizerConfig,
    TrainConfig,
    TRLConfig,
    default_grpo_config,
    default_ppo_config,
    default_rloo_config,
)
from helpers.real_trlx import install
from helpers.terminal import print_whatever_comes

VERSION = "1.0"


def describe() -> str:
    """Which engine trains, and its version.

    Raises:
        CourseError: RLHF_ENGINE asks for an engine that is not here.
    """
    return with_version("trlX" if uses_trlx() else "built-in PPO")


def with_version(engine: str) -> str:
    """An engine's name, as a trainer's `engine` has it, and its version."""
    return f"{engine} {install.installed() if engine == 'trlX' else VERSION}"


def uses_trlx() -> bool:
    """Whether the real trlX trains: it is asked for, or simply there."""
    asked = settings.read_engine()
    found = install.installed()
    if asked == "trlx" and not found:
        raise CourseError(
            "RLHF_ENGINE=trlx, but trlX is not installed here. Install it with `python -m helpers trlx`, or set "
            "RLHF_ENGINE=builtin: the same interface, the course's own PPO."
        )
    return asked != "builtin" and found is not None


def default_ilql_config():
    """trlX's own configuration of ILQL, its second method, which learns from samples with rewards: `train(samples=, rewards=)`.

    Raises:
        CourseError: the real trlX is not here, or is not the engine.
    """
    if not uses_trlx():
        raise CourseError(NEEDS_TRLX)
    from helpers.real_trlx.ilql import default_config

    return default_config()


def train(*args, **kwargs):
    """Train with live progress; the arguments are those of `helpers.ppo.train.train`, whichever engine trains."""
    # torch and matplotlib load when training starts, not when a notebook opens
    from helpers.monitor import Monitor, Progress
    from helpers.ppo.parallel import processes

    print_whatever_comes()
    if uses_trlx():
        from helpers.real_trlx.train import train as run
    else:
        from helpers.ppo.train import train as run
    watching = Monitor() if kwargs.get("samples") is None else Progress()  # ILQL has no rounds to judge
    return run(*args, listeners=[watching] if processes.is_main() else [], **kwargs)
