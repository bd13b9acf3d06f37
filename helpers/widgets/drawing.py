"""What pictures share: axes with round numbers, and which numbers have a place on them."""

import math

LARGEST = 1e100
"""Numbers beyond are in the tables only: a diverged run has them, and next to them all others would be one dot."""


def drawable(value: float) -> bool:
    """Whether a number has a place in a picture; NaN has none, and fails every comparison."""
    return abs(value) < LARGEST


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from the one at or below `low` to the one at or above `high`."""
    rough, size = (high - low) / 5, max(abs(low), abs(high))
    if rough <= max(1e-9 * size, 1e-100):  # all the same but for rounding, which is finer than ticks can be
        rough = max(size, 1.0)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * n for n in range(first, max(last, first + 1) + 1)]


class Axis:
    """Numbers along one side of the picture, and where they are drawn."""

    def __init__(self, values: list[float], start: float, end: float):
        self.ticks = ticks(min(values), max(values))
        self.start, self.end = start, end

    def place(self, value: float) -> float:
        """The pixel at which `value` stands."""
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return round(self.start + share * (self.end - self.start), 1)
