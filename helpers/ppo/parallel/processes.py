"""Several processes, one run: what `accelerate launch` starts, one process a GPU.

Data parallel. Every process holds the whole model, samples and scores its share of each chunk, and sends what it got to all
the others; it learns from its share of each batch, and the gradients are added up before the optimizer steps. Everything
else (advantages, whitening, means, KL, the history, the next prompts) each process computes by itself from the same
numbers. So a run of P processes is that of one process with P times the batch, the chunk and the rollouts.

Not DistributedDataParallel: it adds up gradients where a model's `forward` is called, and PPO calls other methods.

In one process every function here does nothing, or the plain thing.
"""

import atexit
import os
import random
import time
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env

from helpers.errors import CourseError

_told_to_shard = False


def told_to_shard() -> bool:
    """Whether `accelerate launch` was told to shard, as configs/zero2.yaml tells it (sharding.py). Known after `check_launch`."""
    return _told_to_shard


def take_over_sharding() -> None:
    """Take the order to shard out of the environment, before an Accelerator or a model reads it.

    accelerate would wrap the whole model, of which PPO calls parts.

    Raises:
        CourseError: it was told to shard in a way that is not known here.
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
    """What accelerate knows of the processes. PartialState by itself overlooks ACCELERATE_USE_CPU, and processes on a CPU."""
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or (several and not torch.accelerator.is_available())
    return PartialState(cpu=on_cpu)


def count() -> int:
    """How many processes there are."""
    return state().num_processes


def device() -> torch.device:
    """This process's device, with its number where there are several."""
    return state().device


def is_main() -> bool:
    """Whether this is the process that writes and shows; of several, only one is."""
    return state().is_main_process


def shard(rows: int) -> slice:
    """Which of `rows` rows are this process's: neighbours, so that the shares in the order of the processes are all rows."""
    number, processes = state().process_index, count()
    return slice(rows * number // processes, rows * (number + 1) // processes)


def gather(work) -> list:
    """What `work()` returns in each process, in their order. All call this; it also makes them wait for each other.

    Raises:
        CourseError: in every process, where one fails; left waiting for it, the others would never end. The process
            that failed raises what it met.
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


def on_main(work):
    """What `work()` returns in the main process, in all of them; errors as `gather` has them."""
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
    """Each number added up over the processes."""
    values = torch.tensor(list(sums.values()), device=device())
    add_up([values])
    return sums if count() == 1 else dict(zip(sums, values.tolist(), strict=True))


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in some process."""
    if count() == 1:
        return flag
    votes = torch.tensor([float(flag)], device=device())
    torch.distributed.all_reduce(votes)
    return bool(votes.item())


def share_random_state() -> None:
    """Go on drawing as the main process does. A reward function may have drawn more numbers in one process than in another."""
    if count() == 1:
        return
    states = [(random.getstate(), np.random.get_state(), torch.get_rng_state())]
    broadcast_object_list(states)
    python, numpy, tensors = states[0]
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(tensors)


@contextmanager
def own_random_numbers():
    """Inside, torch draws other numbers in each process, and afterwards the same again in all."""
    if count() == 1:
        yield
        return
    seed = int(torch.randint(2**31, ())) + state().process_index
    with torch.random.fork_rng(devices=[device()] if device().type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def check_launch() -> None:
    """Before an Accelerator is made: refuse what would train something else than it says.

    Raises:
        CourseError: the model is to be sharded in a way that is not ZeRO-2 by FSDP, or processes that were started together
            would not know of each other, each train by itself and write over the others.
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
    """After an Accelerator is made: see that the processes part in good order at exit.

    Raises:
        CourseError: accelerate is to accumulate gradients, which here would only make them smaller.
    """
    if accelerator.gradient_accumulation_steps != 1:
        raise CourseError(
            f"accelerate was told gradient_accumulation_steps={accelerator.gradient_accumulation_steps}. Leave it at 1 and set "
            "train.minibatch_size instead: gradients then accumulate over the micro-batches of a batch."
        )
    if count() > 1:
        atexit.register(leave)


def leave() -> None:
    """Part from the other processes, else gloo may abort when another process ends first.

    Not at once: gloo's threads need the interpreter to let go of the last tensors that were sent, and abort where it has gone
    (github.com/pytorch/pytorch/pull/179291). FSDP keeps them alive beyond the end of their group.
    """
    time.sleep(0.2)
    state().destroy_process_group()
