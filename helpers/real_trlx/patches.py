"""What broke in trlX and where the course mends it, and the patches that reach into libraries.

trlX's loop, losses, rollout store and configuration run as they are. A trainer of our own, which trlX finds by
`config.train.trainer`, replaces what no longer works; so does the model which that trainer gives to trlX. The list follows the
order in which a run meets each point, and names the place that mends it:

1. the import, where peft is installed                              import_trlx
2. a wandb login; progress bars that stay hidden                    train.settings_for_trlx; helpers/monitor.py
3. a second tokenizer, loaded without our checks                    tokenizer_for_trlx
4. folders that hold only model.safetensors                         CourseTrainer.get_arch
5. the reference: without a causal mask, wrong for 0 and -1         model.PolicyForTrlx
6. a reward that reads "<|endoftext|>" in training only             CourseTrainer.judge
7. evaluation that draws other samples each time and has no KL      Run.evaluate (helpers/ppo/run.py)
8. saves that load as random weights                                Run.save_pretrained
9. checkpoints that cannot be written, and begin again at step 0    CourseTrainer.learn, Run.save_checkpoint_if_due
10. several processes: a model that trlX cannot use once wrapped    CourseTrainer.get_arch, step_together
11. several processes on a CPU: calls that only NCCL knows          nccl_on_a_cpu

CourseTrainer is in trainer.py; ilql.py has a list of its own. "Until" says at each place how to see that trlX no longer needs it. `python -m helpers trlx`
installs the commit that this was tried with.

Nothing here acts when it is imported: each patch waits for its call.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import torch
from transformers import PreTrainedTokenizerBase

from helpers.errors import CourseError


def import_trlx() -> ModuleType:
    """Import trlX, with the one name that it misses in peft, and quieten it. A second call changes nothing.

    trlX imports `prepare_model_for_int8_training`, which peft has renamed; PPO without adapters never calls it.
    Until: `import trlx` works beside today's peft.

    Raises:
        CourseError: trlX, or a package that it imports, cannot be imported.
    """
    try:
        import peft

        if not hasattr(peft, "prepare_model_for_int8_training"):
            peft.prepare_model_for_int8_training = peft.prepare_model_for_kbit_training
    except ImportError:
        pass  # trlX does without peft where there is none
    # ray and deepspeed warn about parts that no run here uses
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
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
        logging.disable(before)
    # trlX asks git for a name for its wandb runs, and git complains where there is no repository
    accelerate_base_trainer.get_git_tag = lambda: ("", "")
    trlx.logging.set_verbosity(trlx.logging.ERROR)
    trlx.logging.disable_progress_bar()  # helpers/monitor.py shows progress, that of the rollouts too
    return trlx


@contextmanager
def tokenizer_for_trlx(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Inside, trlX's trainers take a copy of `tokenizer` where they would load one.

    trlX would load from `tokenizer_path` a second time, at the hub's newest commit rather than the one that helpers/weights.py
    looked at, and would let transformers ask on the terminal whether to run code from there. It also gives its tokenizer a made-up
    <sep>, hence the copy.
    Until: trlX takes a tokenizer, or a commit and `trust_remote_code=False`.
    """
    from trlx.trainer import accelerate_base_trainer

    theirs = accelerate_base_trainer.AutoTokenizer
    ours = SimpleNamespace(from_pretrained=lambda *args, **kwargs: copy.deepcopy(tokenizer))
    accelerate_base_trainer.AutoTokenizer = ours
    try:
        yield
    finally:
        accelerate_base_trainer.AutoTokenizer = theirs


@contextmanager
def nccl_on_a_cpu() -> Iterator[None]:
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
