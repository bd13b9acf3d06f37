"""ZeRO-2 over the processes of a run, by torch's FSDP: gradients and Adam's memory are split, the weights are not.

Adam keeps two numbers for each weight that learns, and its gradient is a third. Each of P processes needs them for 1/P of the
weights alone, if all send each other the weights they have stepped (Rajbhandari et al. 2019, arxiv.org/abs/1910.02054, sec. 5).
FSDP keeps that part of the weights a second time: 16/P bytes for each weight in place of 12.

Between steps every process has the whole model: sampling runs it once for each new token, and no two processes write texts
of the same length. Only blocks that learn as a whole are split; norms, value head and embeddings stay whole.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor, init_device_mesh
from torch.nn.utils import get_total_norm

from helpers.errors import CourseError
from helpers.ppo.blocks import decoder_blocks
from helpers.ppo.parallel import processes
from helpers.ppo.policy import Policy


def split(policy: Policy) -> list[nn.Module]:
    """Split the blocks that learn as a whole, and return them; none in a single process. `gather` makes them whole.

    Raises:
        CourseError: no block learns as a whole, or the precision is float16, whose loss scaling knows no shards.
    """
    if processes.count() == 1:
        return []
    if processes.precision() == "fp16":
        raise CourseError("mixed precision fp16 cannot be had with configs/zero2.yaml: use bf16, or no")
    blocks, _ = decoder_blocks(policy.base_model)
    blocks = [block for block in blocks if all(p.requires_grad for p in block.parameters())]
    if not blocks:
        raise CourseError(
            "there is nothing to split: no block learns as a whole (LoRA, or model.num_layers_unfrozen=0). Launch with "
            "configs/two_gpus.yaml."
        )
    device = next(policy.parameters()).device
    mesh = init_device_mesh(device.type, (processes.count(),))
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=False)
        block.set_reshard_after_backward(False)
        # gradients are those of a loss that is divided by the tokens of all processes: they add up
        block.set_gradient_divide_factor(1.0)
        block.set_force_sum_reduction_for_comms(True)
    return blocks


def gather(blocks: Sequence[nn.Module]) -> None:
    """Make the blocks whole in every process. All processes call this."""
    for block in blocks:
        block.unshard()


@contextmanager
def in_shards(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside the context, parameters are this process's shards, as the optimizer has them; afterwards the blocks are whole again.

    They stay split after an error: the other processes may be elsewhere, and would never join in.
    """
    for block in blocks:
        block.reshard()
    yield
    gather(blocks)


def one_by_one(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Make the optimizer step its tensors one by one. On a GPU torch takes many at once, but shards and whole tensors do not mix.

    Raises:
        CourseError: optimizer.kwargs asks for the fused kind, which takes them at once too.
    """
    if any(group.get("fused") for group in optimizer.param_groups):
        raise CourseError("optimizer.kwargs has fused=True, which cannot be had with configs/zero2.yaml")

    def before_each_step(optimizer, *_):  # a checkpoint that is loaded brings its own settings
        for group in optimizer.param_groups:
            group["foreach"] = False

    optimizer.register_step_pre_hook(before_each_step)
    return optimizer


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> float:
    """Scale all gradients down to the joint length `limit` if they are longer, or not at all; returns their length before that.

    torch's `clip_grad_norm_` takes shards or whole tensors, but not both. Every process calls this.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    kinds = [[g for g in gradients if is_split(g) is split] for split in (True, False)]
    norm = torch.stack([whole(get_total_norm(kind)) for kind in kinds if kind]).norm().item()
    if limit and norm > limit:
        for gradient in gradients:
            gradient *= limit / norm
    return norm


def is_split(tensor: Tensor) -> bool:
    """Whether this process has only a part of the tensor."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be split. Every process calls this."""
    return tensor.full_tensor() if is_split(tensor) else tensor


@torch.no_grad()
def local_sum(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The sum of weights, of shards this process's: no number where one of them is none."""
    return torch.stack([(p.to_local() if isinstance(p, DTensor) else p).sum() for p in parameters]).sum()


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's shard of a whole tensor if `parameter` is split and has its shape; else the tensor as it is."""
    if not is_split(parameter) or tensor.shape != parameter.shape:
        return tensor
    tensor = tensor.to(parameter.device)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
