"""What the importer knows about a tensor of the model: which stream it is and where its time and batch axes lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ldsnn_compiler.ir.graph import Value

Axis = int | str
TIME: Final = "T"
BATCH: Final = "N"
FOLDED: Final = "TN"
"""Time and batch in one axis, time-major, as ``x.flatten(0, 1)`` of ``[T, N, ...]`` makes it."""
BATCH_FOLDED: Final = "NT"
"""The same, batch-major, made of ``[N, T, ...]``."""

STATIC: Final = (BATCH,)
SEQUENCE: Final = (TIME, BATCH)
BATCH_FIRST: Final = (BATCH, TIME)
FOLDS: Final[Mapping[tuple[Axis, ...], Axis]] = {SEQUENCE: FOLDED, BATCH_FIRST: BATCH_FOLDED}
LAYOUTS: Final[Mapping[str, tuple[Axis, ...]]] = {
    "static": STATIC,
    "sequence": SEQUENCE,
    "batch_first": BATCH_FIRST,
    "folded": (BATCH_FOLDED,),
}
"""Named axes of an input by its ``time``, see :mod:`ldsnn_compiler.ir.layouts`."""


@dataclass(frozen=True)
class Traced:
    """One tensor of the model. ``axes`` names its axes: ``T``, ``N``, ``TN`` or ``NT`` (folded), or the number of one
    of its shape.

    ``stepping``: it is the view of one timestep, as in single-step code: no time axis, but its stream has timesteps.
    """

    value: Value
    axes: tuple[Axis, ...]
    stepping: bool = False

    @property
    def lead(self) -> tuple[Axis, ...]:
        """The named axes before the first axis of the stream's shape."""
        count = next((i for i, a in enumerate(self.axes) if isinstance(a, int)), len(self.axes))
        return self.axes[:count]

    @property
    def is_canonical(self) -> bool:
        """Named axes first, the stream's own axes after them in order."""
        return self.axes == (*self.lead, *range(len(self.value.type.shape)))

    @property
    def has_time(self) -> bool:
        """Time is an axis of the tensor, folded or not."""
        return any(axis in self.axes for axis in (TIME, *FOLDS.values()))

    @property
    def is_static(self) -> bool:
        """One value for the whole run, without a time axis."""
        return not self.has_time and not self.stepping

    def sizes(self, batch: int) -> tuple[int, ...]:
        """The tensor's shape in the model, for the example's batch size."""
        stream = self.value.type
        named = {TIME: stream.timesteps, BATCH: batch, **dict.fromkeys(FOLDS.values(), stream.timesteps * batch)}
        return tuple(stream.shape[a] if isinstance(a, int) else named[a] for a in self.axes)

    def like(self, value: Value, lead: tuple[Axis, ...] | None = None) -> Traced:
        """``value`` seen through the same named axes (or through ``lead``), its own axes after them."""
        lead = self.lead if lead is None else lead
        return Traced(value, (*lead, *range(len(value.type.shape))), self.stepping)

    def with_axes(self, axes: Iterable[Axis], *, stepping: bool | None = None) -> Traced:
        """The same stream with its axes renamed or moved."""
        return replace(self, axes=tuple(axes), stepping=self.stepping if stepping is None else stepping)

    def __str__(self) -> str:
        shape = self.value.type.shape
        text = ", ".join(str(shape[a]) if isinstance(a, int) else a for a in self.axes)
        return f"[{text}]" + (" in each timestep" if self.stepping else "")


class Poison:
    """The result of something that could not be imported; whatever uses it is passed over without another complaint."""

    def __repr__(self) -> str:
        return "POISON"


POISON: Final = Poison()


def contains(structure: Any, kind: type) -> bool:
    """Whether a nest of tuples, lists, dicts and slices holds an object of that type."""
    return any(isinstance(leaf, kind) for leaf in leaves(structure))


def leaves(structure: Any) -> Iterable[Any]:
    """Every object in a nest of tuples, lists, dicts and slices."""
    if isinstance(structure, tuple | list):
        for item in structure:
            yield from leaves(item)
    elif isinstance(structure, dict):
        for item in structure.values():
            yield from leaves(item)
    elif isinstance(structure, slice):
        yield from (structure.start, structure.stop, structure.step)
    else:
        yield structure
