"""Several processes, one run: what `accelerate launch` starts, one process a GPU.

This is data parallel. Every process holds the whole model, samples and scores its share of each chunk, and sends the result
to all others. It learns from its share of each batch, and the gradients are added up before the optimizer steps. Each
process computes everything else by itself from the same numbers: advantages, whitening, means, KL, the history, the next
prompts. So a run of P processes is that of one process with P times the batch, the chunk and the rollouts.

DistributedDataParallel would not do: it adds up gradients where a model's `forward` is called, and PPO calls other methods.

In one process every function here does nothing, or the plain thing.
"""

import atexit
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env

from helpers.errors import CourseError

Result = TypeVar("Result")

_told_to_shard = False


def told_to_shard() -> bool:
    """Whether `accelerate launch` was told to shard, as configs/zero2.yaml tells it (sharding.py). Known after `check_launch`."""
    return _told_to_shard


def take_over_sharding() -> None:
    """Take the order to shard out of the environment, before an Accelerator or a model reads it.

    accelerate would wrap the whole model, but PPO calls parts of it.

    Raises:
        CourseError: the order is for a way of sharding that is not known here.
    """
    global _told_to_shard
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return
    if os.environ.get("FSDP_VERSION") != "2" or parse_flag_from_env("FSDP_OFFLOAD_PARAMS"):
        raise CourseError(
            "of FSDP the engine knows version 2 without offloading: launch with configs/zero2.yaml"
        )
    if parse_flag_from_env("FSDP_RESHARD_AFTER_FORWARD", True):
        raise CourseError(
            "fsdp_reshard_after_forward: true would take the weights apart after each forward pass, and sampling needs all of them "
            "for every token. Set it to false, as configs/zero2.yaml has it: gradients and Adam's memory are split."
        )
    del os.environ["ACCELERATE_USE_FSDP"]
    _told_to_shard = True


def precision() -> str:
    """Accelerate's word for the precision of a run: no, fp16 or bf16."""
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def state() -> PartialState:
    """accelerate's state of the processes. PartialState by itself overlooks ACCELERATE_USE_CPU, and processes on a CPU."""
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or (several and not torch.accelerator.is_available())
    return PartialState(cpu=on_cpu)


def count() -> int:
    """The number of processes."""
    return state().num_processes


def device() -> torch.device:
    """This process's device, with its number where there are several."""
    return state().device


def is_main() -> bool:
    """Whether this is the process that writes and shows; of several, only one is."""
    return state().is_main_process


def shard(rows: int) -> slice:
    """This process's share of `rows` rows. The shares in the order of the processes are all rows in their order."""
    number, processes = state().process_index, count()
    return slice(rows * number // processes, rows * (number + 1) // processes)


def gather(work: Callable[[], Result]) -> list[Result]:
    """The results of `work()` in all processes, in their order. All call this, and wait for each other.

    Raises:
        CourseError: `work` fails in one of them; else the others would wait for it for ever. The process that failed raises
            its own error.
    """
    if count() == 1:
        return [work()]
    try:
        result, error = work(), None
    except Exception as caught:
        result, error = None, caught
    said = None if error is None else str(error) or type(error).__name__
    parts = gather_object([(result, said)])
    if error is not None:
        raise error
    for number, (_, said) in enumerate(parts):
        if said is not None:
            raise CourseError(f"process {number}: {said}")
    return [result for result, _ in parts]


def on_main(work: Callable[[], Result]) -> Result:
    """The result of `work()`, which only the main process calls. All get it; errors are those of `gather`."""
    return gather(lambda: work() if is_main() else None)[0]


def add_up(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in one message."""
    if count() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    torch.distributed.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def total(sums: dict[str, float]) -> dict[str, float]:
    """The sum of each number over the processes."""
    values = torch.tensor(list(sums.values()), device=device())
    add_up([values])
    return sums if count() == 1 else dict(zip(sums, values.tolist(), strict=True))


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in at least one process."""
    if count() == 1:
        return flag
    votes = torch.tensor([float(flag)], device=device())
    torch.distributed.all_reduce(votes)
    return bool(votes.item())


def share_random_state() -> None:
    """Set all random states to the main process's. A reward function may have drawn more numbers in one than in another."""
    if count() == 1:
        return
    states = [(random.getstate(), np.random.get_state(), torch.get_rng_state())]
    broadcast_object_list(states)
    python, numpy, tensors = states[0]
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(tensors)


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Inside the context, torch draws other numbers in each process; afterwards it draws the same in all again."""
    if count() == 1:
        yield
        return
    seed = int(torch.randint(2**31, ())) + state().process_index
    with torch.random.fork_rng(devices=[device()] if device().type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def check_launch() -> None:
    """Refuse a launch that would train something else than it says. Call this before an Accelerator is made.

    Raises:
        CourseError: the launch shards in another way than ZeRO-2 by FSDP, or starts processes that would not know of each
            other: each would train by itself and write over the others.
    """
    take_over_sharding()
    for kind in ("DEEPSPEED", "MEGATRON_LM"):
        if parse_flag_from_env(f"ACCELERATE_USE_{kind}"):
            raise CourseError(
                f"accelerate was told to use {kind}. Here a model is whole on each GPU (configs/two_gpus.yaml), or its gradients and "
                "Adam's memory are split by FSDP (configs/zero2.yaml): launch with `accelerate launch --config_file` and one of these."
            )
    # `accelerate launch --cpu` leaves an address for others to meet at, and starts none (accelerate/utils/launch.py,
    # prepare_simple_launcher_cmd_env)
    if (
        parse_flag_from_env("ACCELERATE_USE_CPU")
        and "MASTER_PORT" in os.environ
        and "WORLD_SIZE" not in os.environ
    ):
        raise CourseError(
            "`accelerate launch --cpu` starts one process, whatever --num_processes says. For several on a CPU put "
            "`ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N` in its place; for one leave "
            "--num_processes out."
        )
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started > count():
        raise CourseError(
            f"{started} processes were started, and accelerate runs each by itself. With a GPU for each they find each other; on a "
            "CPU set ACCELERATE_USE_CPU=true, and make no PartialState() before training starts."
        )


def join(accelerator: Accelerator) -> None:
    """Make the processes part in good order at exit. Call this after an Accelerator is made.

    Raises:
        CourseError: accelerate is told to accumulate gradients, which here would only make them smaller.
    """
    if accelerator.gradient_accumulation_steps != 1:
        raise CourseError(
            f"accelerate was told gradient_accumulation_steps={accelerator.gradient_accumulation_steps}. Leave it at 1 and set "
            "train.minibatch_size instead: gradients then accumulate over the micro-batches of a batch."
        )
    if count() > 1:
        atexit.register(leave)


def leave() -> None:
    """Part from the other processes; else gloo may abort when another process ends first.

    It waits a moment, because gloo's threads need the interpreter to let go of the last tensors that were sent, and abort if
    it has gone (github.com/pytorch/pytorch/pull/179291). FSDP keeps these tensors alive beyond the end of their group.
    """
    time.sleep(0.2)
    state().destroy_process_group()
