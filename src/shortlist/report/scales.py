"""Data -> places on paper: linear and logarithmic axes with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shortlist.errors import ShapeError

Tick = tuple[float, str]  # where, and what stands there
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_ROUND_LOG = (1, 2, 5)


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows, from where to where, and its ticks.

    Raises ShapeError where it has no length, or a logarithmic one does not start above 0
    """

    title: str  # with the unit
    low: float
    high: float
    ticks: tuple[Tick, ...]
    is_log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.is_log and self.low <= 0):
            raise ShapeError(f"axis {self.title!r} must rise{', from above 0' if self.is_log else ''}: got {self.low} to {self.high}")

    def place(self, value: float) -> float:
        """Where `value` lies, 0 = the low end, 1 = the high end."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(title: str, values: Sequence[float], *, from_zero: bool = False, about: int = 5) -> Axis:
    """A linear axis that holds all values and ends at round numbers, with about so many steps."""
    low, high = (0.0 if from_zero else min(values)), max(values)
    if low == high:
        low, high = (0.0, high or 1.0) if high >= 0 else (high, 0.0)
    step = _round_step((high - low) / about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple((number * step, _text(number * step, step)) for number in range(first, last + 1))
    return Axis(title, first * step, last * step, ticks)


def log_axis(title: str, low: float, high: float) -> Axis:
    """A logarithmic axis from `low` to `high`, both above 0, with ticks at 1, 2, 5, 10, 20 ... within and at both ends."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    within = [digit * 10.0**power for power in range(first, last + 1) for digit in _ROUND_LOG]
    ticks = tuple((value, f"{value:,.15g}") for value in within if low <= value <= high)
    return Axis(title, low, high, ticks, is_log=True)


def named_axis(title: str, names: Sequence[str], places: Sequence[float] | None = None) -> Axis:
    """An axis of names: name n stands at n, counted from 0, or at places[n], which must rise."""
    at = places or [float(place) for place in range(len(names))]
    return Axis(title, at[0] - 0.5, at[-1] + 0.5, tuple(zip(at, names, strict=True)))


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in _ROUND if factor * power >= least * (1 - 1e-9))


def _text(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:  # steps of .25 or 2.5 need one more
        decimals += 1
    return f"{value + 0.0:,.{decimals}f}"
