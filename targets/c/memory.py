"""Memory planning: buffers that never live at the same time share bytes of one arena."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: every buffer starts at a multiple of this many bytes: a cache line, and the widest vector register
ALIGNMENT = 64


@dataclass(frozen=True)
class Lifetime:
    """A buffer of ``size`` bytes that is written in step ``first`` and last used in step ``last``."""

    name: str
    size: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Whether both live in some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where each buffer starts, in bytes, and how many bytes all of them need."""

    offsets: Mapping[str, int]
    size: int


def arena(lifetimes: Iterable[Lifetime]) -> Arena:
    """Offsets such that buffers alive in the same step never overlap.

    Greedy by size (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020): the largest
    buffer first, each at the lowest offset that is free over its whole life.
    """
    placed: list[tuple[Lifetime, int]] = []
    for each in sorted(lifetimes, key=lambda b: (-b.size, b.first, b.name)):
        taken = sorted((at, at + aligned(b.size)) for b, at in placed if b.meets(each))
        placed.append((each, _lowest_gap(taken, aligned(each.size))))
    return Arena({b.name: at for b, at in placed}, max((at + aligned(b.size) for b, at in placed), default=0))


def _lowest_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    """The lowest offset at which ``size`` bytes fit between ranges, which are sorted and may overlap."""
    free = 0
    for start, end in taken:
        if start - free >= size:
            break
        free = max(free, end)
    return free


def aligned(size: int) -> int:
    """The next multiple of :data:`ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT
