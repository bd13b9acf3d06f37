"""ZeRO-2 over the processes of a run, by torch's FSDP: gradients and Adam's memory are split, the weights are not.

For each weight that learns Adam keeps two numbers, and its gradient is a third. Of P processes each needs them for 1/P of the
weights alone, if all send each other the weights they have stepped (Rajbhandari et al. 2019, arxiv.org/abs/1910.02054, sec. 5).

Between steps every process has the whole model: sampling runs it once for each new token, and no two processes write texts
of the same length. Only blocks of which everything learns are split; norms, value head and embeddings stay whole.
"""

import functools
import os
from contextlib import contextmanager

import torch
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor, init_device_mesh

from helpers.errors import CourseError
from helpers.ppo.policy import Policy, decoder_blocks


@functools.cache
def asked() -> bool:
    """Whether `accelerate launch` was told to shard, as configs/zero2.yaml tells it.

    That is taken out of the environment here: accelerate would wrap the whole model, of which PPO calls parts.

    Raises:
        CourseError: it was told to shard in another way.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
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
    return True


def split(policy: Policy) -> list[nn.Module]:
    """The blocks of which everything learns, now in shards (`in_shards` gathers them).

    Raises:
        CourseError: there are none.
    """
    blocks, _ = decoder_blocks(policy.base_model)
    blocks = [block for block in blocks if all(p.requires_grad for p in block.parameters())]
    if not blocks:
        raise CourseError(
            "there is nothing to split: no block learns as a whole (LoRA, or model.num_layers_unfrozen=0). Launch with "
            "configs/two_gpus.yaml."
        )
    device = next(policy.parameters()).device
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=False)
        block.set_reshard_after_backward(False)
        # gradients are those of a loss that is divided by the tokens of all processes: they add up
        block.set_gradient_divide_factor(1.0)
        block.set_force_sum_reduction_for_comms(True)
    return blocks


@contextmanager
def in_shards(blocks: list[nn.Module]):
    """Inside, parameters are this process's shards, as the optimizer has them; afterwards all processes have all of them again."""
    for block in blocks:
        block.reshard()
    yield
    for block in blocks:
        block.unshard()


def is_split(tensor: Tensor) -> bool:
    """Whether this process has a part of it."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be split; every process calls this."""
    return tensor.full_tensor() if is_split(tensor) else tensor


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's shard of a tensor, if `parameter` is split and has the same shape; each process has all of it."""
    if not is_split(parameter) or tensor.shape != parameter.shape:
        return tensor
    tensor = tensor.to(parameter.device)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
