"""When memory runs out: say so, halve, go on. And the most that was taken."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from helpers.errors import CourseError

Result = TypeVar("Result")


class Fitting:
    """How many rows go through the model at once: as many as asked for, until memory runs out.

    `rows` is then halved and stays so. The numbers stay the same but for rounding, because gradients add up over parts.
    `what` and `setting` name the phase and its field in the warning; `halves=False` makes it an error instead.
    """

    def __init__(self, rows: int, what: str, setting: str, halves: bool = True):
        self.rows, self.what, self.setting, self.halves = rows, what, setting, halves

    def run(self, work: Callable[[int], Result]) -> Result:
        """The result of `work(rows)`, which is called again with half the rows when it runs out of memory.

        Raises:
            CourseError: not even one row fits, or this may not halve.
        """
        while True:
            try:
                return work(self.rows)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                reason = str(error).splitlines()[0]
            # out of the handler, because the error holds on to the tensors of the attempt
            clear_device_cache(garbage_collection=True)
            if self.rows == 1:
                raise CourseError(
                    f"out of memory: not even one rollout fits ({reason}). Take a smaller model, fewer max_new_tokens or shorter "
                    "prompts, or fewer blocks to train (model.num_layers_unfrozen)."
                )
            if not self.halves:
                raise CourseError(
                    f"out of memory with {self.rows} rollouts at a time: set {self.setting}={self.rows // 2}."
                )
            tried, self.rows = self.rows, self.rows // 2
            warnings.warn(
                f"out of memory with {tried} rollouts at a time: going on with {self.rows}, which {self.what} takes "
                f"longer for and nothing else. To begin so next time: {self.setting}={self.rows}.",
                stacklevel=2,
            )


def peak_bytes() -> int:
    """The most memory that was taken so far: on a GPU by torch's tensors, on a CPU by this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:  # not from getrusage, where a new process begins with the memory of the one that started it
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except OSError:
        import psutil

        memory = psutil.Process().memory_info()
        if hasattr(memory, "peak_wset"):  # Windows
            return memory.peak_wset
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, in bytes
