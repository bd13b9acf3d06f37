"""What a round of PPO cannot do without: its floating-point operations and bytes, and the time they take on this machine.

Each thing is counted once, for a GPT-2 whose top blocks learn and whose output layer does not. A multiplication with the
addition after it is two operations. Embeddings, norms, activations, softmax and biases are left out, so that the floor lies
a few per cent too low rather than too high. Bytes are those that no order of work keeps in a processor's cache, where the
model does not fit into it: weights once for each pass over them, keys and values, what the optimizer remembers.

A phase's floor is the longer of two times: its operations at the rate at which this machine multiplies matrices of the
phase's shapes, and its bytes at the rate at which it copies memory.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from transformers import GPT2Config

from helpers.errors import CourseError
from helpers.ppo.config import TRLConfig
from helpers.ppo.fast import head

# the phases as `History.rounds` names them; the reward function is the reader's own, and has no floor here
PHASES = ("sample", "forward", "update")


@dataclass(frozen=True)
class Round:
    """A round of PPO in numbers. Prompt and response are mean lengths in tokens."""

    layers: int
    hidden: int
    vocabulary: int
    unfrozen: int  # blocks that learn, the top ones
    rollouts: int
    prompt: float
    response: float
    epochs: int  # passes of the update over the rollouts
    batch: int  # rollouts in one optimizer step

    @property
    def fed(self) -> float:
        """Tokens of a rollout that go into the network: the last one predicts nothing."""
        return self.prompt + self.response - 1

    @property
    def block_weights(self) -> int:
        """Weights of one block: queries, keys, values and their output 4 H^2, the two layers after them 8 H^2."""
        return 12 * self.hidden**2

    @property
    def head_weights(self) -> int:
        """Weights of the output layer, which are those of the token embeddings."""
        return self.vocabulary * self.hidden


@dataclass(frozen=True)
class Work:
    """What a phase cannot do without."""

    blocks: float  # floating-point operations in the blocks and the value head
    head: float  # floating-point operations in the output layer
    bytes: float

    @property
    def flops(self) -> float:
        """All floating-point operations."""
        return self.blocks + self.head


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second, at most."""

    blocks: dict[str, float]  # floating-point operations, by phase, at the shapes of its blocks
    head: dict[str, float]  # the same for the output layer
    bandwidth: float  # bytes read and written

    def seconds(self, phase: str, work: Work) -> float:
        """The floor of a phase."""
        computing = work.blocks / self.blocks[phase] + work.head / self.head[phase]
        return max(computing, work.bytes / self.bandwidth)


def round_shape(model_config: GPT2Config, config: TRLConfig, prompt: float, response: float) -> Round:
    """The numbers of a round from a GPT-2's configuration, a `TRLConfig`, and mean lengths in tokens.

    Raises:
        CourseError: all of the model learns, or nothing but the value head: the formulas are for something in between.
    """
    unfrozen = config.model.num_layers_unfrozen
    if not 0 < unfrozen <= model_config.num_hidden_layers:
        raise CourseError(
            f"model.num_layers_unfrozen is {unfrozen}: the floor is known for 1 to {model_config.num_hidden_layers}"
        )
    return Round(
        layers=model_config.num_hidden_layers,
        hidden=model_config.hidden_size,
        vocabulary=model_config.vocab_size,
        unfrozen=unfrozen,
        rollouts=config.method.num_rollouts,
        prompt=prompt,
        response=response,
        epochs=config.method.ppo_epochs,
        batch=config.train.batch_size,
    )


def round_work(shape: Round, width: int = 4) -> dict[str, Work]:
    """The work of each phase of a round; `width` is the bytes of a number (2 in half precision)."""
    return {
        "sample": sample_work(shape, width),
        "forward": forward_work(shape, width),
        "update": update_work(shape, width),
    }


def block_flops(shape: Round, blocks: int) -> float:
    """Operations of the top `blocks` blocks over all rollouts, forwards.

    The topmost block has to give an output from the last prompt token on; before that, only keys and values.
    """
    silent = shape.prompt - 1
    matrices = 2 * shape.block_weights * blocks * shape.fed - 20 * shape.hidden**2 * silent
    # a token attends to itself and those before: H multiplications for each score, and H to weigh each value
    pairs = blocks * shape.fed * (shape.fed + 1) / 2 - silent * (silent + 1) / 2
    return shape.rollouts * (matrices + 4 * shape.hidden * pairs)


def head_flops(shape: Round) -> float:
    """Operations of the output layer at every response token."""
    return 2 * shape.head_weights * shape.rollouts * shape.response


def value_flops(shape: Round) -> float:
    """Operations of the value head at every response token, forwards."""
    return 2 * (2 * shape.hidden**2 + 2 * shape.hidden) * shape.rollouts * shape.response


def sample_work(shape: Round, width: int) -> Work:
    """Each token through every block once, and through the output layer; all weights are read for each new token."""
    weights = shape.layers * shape.block_weights + shape.head_weights
    # the tokens already there, summed over all steps but the first
    attended = (shape.response - 1) * (2 * shape.prompt + shape.response - 2) / 2
    cache = 2 * shape.layers * shape.hidden * shape.rollouts * attended
    return Work(
        block_flops(shape, shape.layers), head_flops(shape), width * (weights * shape.response + cache)
    )


def forward_work(shape: Round, width: int) -> Work:
    """The forward pass of a round: the reference's top blocks and output layer once, and the values. Sampling gave all the rest."""
    weights = shape.unfrozen * shape.block_weights + shape.head_weights
    trunk = shape.rollouts * shape.fed * shape.hidden
    return Work(
        block_flops(shape, shape.unfrozen) + value_flops(shape), head_flops(shape), width * (weights + trunk)
    )


def update_work(shape: Round, width: int) -> Work:
    """In each epoch: top blocks and value head forwards and backwards, the output layer forwards and to its input.

    Backwards is twice forwards, one time for the weights and one for the inputs; the lowest of these blocks needs its too,
    because its first norm learns. Adam reads and writes a trained weight and its two moments in every step, in float32.
    """
    blocks = 3 * (block_flops(shape, shape.unfrozen) + value_flops(shape))
    trained = shape.unfrozen * shape.block_weights + 2 * shape.hidden**2
    steps = math.ceil(shape.rollouts / shape.batch)
    trunk = shape.rollouts * shape.fed * shape.hidden
    moved = steps * (6 * 4 * trained + width * shape.head_weights) + width * trunk
    return Work(shape.epochs * blocks, shape.epochs * 2 * head_flops(shape), shape.epochs * moved)


def measure_rates(shape: Round, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Rates:
    """The rates of this machine: the best of several tries, at the shapes of the round.

    Sampling takes a token of every rollout at a time, the forward pass and the update all tokens of a batch.
    """
    H, V = shape.hidden, shape.vocabulary
    rows = min(shape.batch, shape.rollouts)
    tokens, responses = round(rows * shape.fed), round(rows * shape.response)
    part = min(V, max(512, head.AT_ONCE // responses))  # the logits that head.py takes at a time
    sampling = matmul_rate(shape.rollouts, H, 4 * H, device, dtype)
    batch = matmul_rate(tokens, H, 4 * H, device, dtype)
    batch_head = matmul_rate(responses, H, part, device, dtype)
    return Rates(
        blocks={"sample": sampling, "forward": batch, "update": batch},
        head={
            "sample": matmul_rate(shape.rollouts, H, min(V, head.ROWS), device, dtype),
            "forward": batch_head,
            "update": batch_head,
        },
        bandwidth=copy_rate(device),
    )


def matmul_rate(n: int, k: int, m: int, device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second in (n, k) @ (k, m)."""
    a = torch.randn(n, k, device=device, dtype=dtype)
    b = torch.randn(k, m, device=device, dtype=dtype)
    out = torch.empty(n, m, device=device, dtype=dtype)
    return 2 * n * k * m / best_seconds(lambda: torch.mm(a, b, out=out), device)


def copy_rate(device: str, size: int = 2**28) -> float:
    """Bytes a second, read and written, when `size` bytes are copied: more than a cache holds."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / best_seconds(lambda: target.copy_(source), device)


def best_seconds(work: Callable, device: str, tries: int = 10, at_least: float = 0.02) -> float:
    """Seconds of one call, the best of several tries; each try repeats it for about `at_least` seconds."""
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def timed(count: int) -> float:
        wait()
        began = time.perf_counter()
        for _ in range(count):
            work()
        wait()
        return (time.perf_counter() - began) / count

    timed(1)  # the first call takes memory and chooses a kernel
    count = max(1, math.ceil(at_least / timed(1)))
    return min(timed(count) for _ in range(tries))


def table(shape: Round, rates: Rates, measured: dict[str, float], width: int = 4) -> pd.DataFrame:
    """One row per phase and one for the round, without the reward function: the work, its floor, and what was measured.

    Args:
        measured: seconds of each of PHASES.
    """
    rows = {}
    for phase, work in round_work(shape, width).items():
        rows[phase] = {
            "GFLOP": work.flops / 1e9,
            "GB": work.bytes / 1e9,
            "floor, s": rates.seconds(phase, work),
            "measured, s": measured[phase],
        }
    found = pd.DataFrame(rows).T
    found.loc["round"] = found.sum()
    found["measured / floor"] = found["measured, s"] / found["floor, s"]
    return found.rename(index={"forward": "forward pass"})


def describe(rates: Rates) -> str:
    """The measured rates in one line."""
    giga = {name: rate / 1e9 for name, rate in (rates.blocks | {"bandwidth": rates.bandwidth}).items()}
    return (
        f"{giga['sample']:,.0f} GFLOP/s in the blocks when sampling and {giga['update']:,.0f} in the update, "
        f"{rates.head['sample'] / 1e9:,.0f} and {rates.head['update'] / 1e9:,.0f} in the output layer; "
        f"{giga['bandwidth']:,.1f} GB/s copied"
    )
