"""Stream types: time belongs to the edge.

Every value is a stream of ``timesteps`` steps, each ``dt`` base steps long (the base step is the source model's). The
batch is a separate leading axis of the data, ``[T, N, *shape]``, and not part of the type. Values are *levels*: a
constant x is x in every step whatever dt is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

DTYPES = ("float32", "float16", "int32", "int16", "int8", "uint8")


@dataclass(frozen=True)
class Signal:
    """What the numbers in a stream are.

    ``levels is None``: real numbers. Otherwise events: every value is ``unit * n`` with an integer 0 <= n <= levels;
    ``levels == 0`` means the count has no upper bound. A binary spike train is ``Signal(1, 1.0)``.
    """

    levels: int | None = None
    unit: float = 1.0

    @property
    def is_event(self) -> bool:
        """Whether the numbers are counts of a unit."""
        return self.levels is not None

    @property
    def is_bounded(self) -> bool:
        """Events whose count has an upper bound, so that they fit in that many bit planes."""
        return self.levels is not None and self.levels > 0

    @property
    def planes(self) -> int:
        """Bit planes that hold a bounded count: 1 for binary spikes."""
        return (self.levels or 0).bit_length()

    def __str__(self) -> str:
        return "real" if self.levels is None else f"event({self.levels}, {self.unit!r})"


REAL = Signal()
SPIKE = Signal(1, 1.0)


@dataclass(frozen=True)
class Stream:
    """``stream<T, dt, shape, dtype, signal>``; ``shape`` leaves out time and batch."""

    timesteps: int
    dt: Fraction
    shape: tuple[int, ...]
    dtype: str = "float32"
    signal: Signal = REAL

    def __post_init__(self) -> None:
        object.__setattr__(self, "dt", Fraction(self.dt))
        object.__setattr__(self, "shape", tuple(int(d) for d in self.shape))
        if self.timesteps < 1 or self.dt <= 0:
            raise ValueError(
                f"a stream needs at least one timestep and a positive dt, not T={self.timesteps} dt={self.dt}"
            )
        if any(d < 1 for d in self.shape):
            raise ValueError(f"a stream's dimensions are positive, not {self.shape}")
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}, expected one of {', '.join(DTYPES)}")

    @property
    def duration(self) -> Fraction:
        """Base steps covered."""
        return self.timesteps * self.dt

    @property
    def size(self) -> int:
        """Numbers in one timestep of one sample."""
        size = 1
        for d in self.shape:
            size *= d
        return size

    def with_(self, **changes: Any) -> Stream:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        return f"stream<{self.timesteps}, {self.dt}, [{shape}], {self.dtype}, {self.signal}>"
