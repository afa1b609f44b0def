"""Intervals of numbers, one or one per channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Interval:
    """``low <= x <= high``, float64 tensors, one number or one per channel."""

    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, low: float | torch.Tensor, high: float | torch.Tensor) -> Interval:
        """From numbers or tensors."""
        return cls(torch.as_tensor(low, dtype=torch.float64), torch.as_tensor(high, dtype=torch.float64))

    @property
    def peak(self) -> float:
        """Largest magnitude."""
        return max(float(self.high.max()), -float(self.low.min()))

    @property
    def whole(self) -> tuple[float, float]:
        """Lowest and highest over all channels."""
        return float(self.low.min()), float(self.high.max())

    def hull(self, other: Interval) -> Interval:
        """The smallest that holds both."""
        return Interval(torch.minimum(self.low, other.low), torch.maximum(self.high, other.high))

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Interval:
        """Both ends through a function that keeps their order."""
        return Interval(change(self.low), change(self.high))


ZERO, UNKNOWN = Interval.of(0.0, 0.0), Interval.of(-(2.0**60), 2.0**60)


def times(x: Interval, factor: float | torch.Tensor) -> Interval:
    """Every number times a factor."""
    ends = x.low * factor, x.high * factor
    return Interval(torch.minimum(*ends), torch.maximum(*ends))


def hull(intervals: Iterable[Interval]) -> Interval:
    """The smallest that holds all."""
    first, *others = intervals
    for other in others:
        first = first.hull(other)
    return first


def product(a: Interval, b: Interval) -> Interval:
    """Of any two numbers."""
    ends = torch.stack(torch.broadcast_tensors(a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high))
    return Interval(ends.amin(0), ends.amax(0))
