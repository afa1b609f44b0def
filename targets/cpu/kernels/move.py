"""Slices and padding, one kernel for a run of them, of values channels last ``[N, T, P, C]``.

Along each axis a run of slices and padding picks every so manieth number of the input and puts zeros around. Channels
are copied in vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.numbers import BYTES, Number
from ldsnn_compiler.targets.cpu.kernels.spec import SYMBOLIC, BufferSpec
from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Expr
from ldsnn_compiler.targets.cpu.kernels.work import worth_threads
from ldsnn_compiler.targets.emitting import tasks

#: bytes that are copied at a time
_WIDEST = 64


@dataclass(frozen=True)
class Reach:
    """Along one axis: of ``size`` results, those from ``first`` to before ``end`` are the inputs ``start``,
    ``start + step`` and so on; the others are 0."""

    size: int
    first: int
    end: int
    start: int = 0
    step: int = 1

    @classmethod
    def whole(cls, size: int) -> Reach:
        """All of an axis, as it is."""
        return cls(size, 0, size)

    def sliced(self, start: int, stop: int, step: int) -> Reach:
        """Its results ``start``, ``start + step`` and so on, up to before ``stop``; 0 <= start, 0 < step."""
        size = len(range(start, stop, step))
        first = max(0, -(-(self.first - start) // step))
        end = min(size, -(-(self.end - start) // step))
        if end <= first:
            return Reach(size, 0, 0)
        return Reach(size, first, end, self.start + (start + first * step - self.first) * self.step, self.step * step)

    def padded(self, before: int, after: int) -> Reach:
        """So many zeros around it."""
        return Reach(self.size + before + after, self.first + before, self.end + before, self.start, self.step)

    def holds(self, at: Expr) -> Expr:
        """Whether result ``at`` is an input."""
        return tir.both(self.first == 0 or at >= self.first, self.end == self.size or at < self.end)

    def source(self, at: Expr) -> Expr:
        """Which one."""
        return (at - self.first) * self.step + self.start


@dataclass(frozen=True)
class MoveSpec:
    """``axes``: channels (whose step is 1), rows and columns; ``shape``: those of the input; ``number``: its type."""

    batch: int | None
    timesteps: int
    number: Number
    axes: tuple[Reach, Reach, Reach]
    shape: tuple[int, int, int]


def move(spec: MoveSpec) -> object:
    """PrimFunc (input, result)."""
    n = SYMBOLIC if spec.batch is None else spec.batch
    (channels, height, width), (c, h, w) = spec.shape, (axis.size for axis in spec.axes)
    x = BufferSpec("x", (n, spec.timesteps, height * width, channels), spec.number)
    y = BufferSpec("y", (n, spec.timesteps, h * w, c), spec.number, True)

    def body(found: Mapping[str, Buffer], size: Expr) -> None:
        count = (spec.batch or size) * (spec.timesteps * h)
        ns = spec.timesteps * h * w * (1.0 + c * BYTES[spec.number] / _WIDEST)
        with tasks(count, w, dealt=worth_threads(ns, spec.batch)) as (i, column):
            sample, step, row = tir.split(i, spec.timesteps, h)
            _pixel(spec, found["x"], found["y"], (sample, step), (row, column))

    return tir.function((x, y), body)


def _pixel(spec: MoveSpec, x: Buffer, y: Buffer, prefix: tuple[Expr, Expr], at: tuple[Expr, Expr]) -> None:
    channels, rows, columns = spec.axes
    to = (*prefix, at[0] * columns.size + at[1])
    inside = tir.both(rows.holds(at[0]), columns.holds(at[1]))
    with tir.when(inside):
        given = (*prefix, rows.source(at[0]) * spec.shape[2] + columns.source(at[1]))
        for first, lanes in _vectors(channels.first, channels.end, spec.number):
            tir.store(y, x[(*given, tir.ramp(channels.source(first), lanes))], *to, tir.ramp(first, lanes))
        _zeros(spec, y, to, 0, channels.first)
        _zeros(spec, y, to, channels.end, channels.size)
    if inside is not True:
        with T.If(tirx.Not(inside)), T.Then():
            _zeros(spec, y, to, 0, channels.size)


def _zeros(spec: MoveSpec, y: Buffer, to: tuple[Expr, ...], first: int, end: int) -> None:
    for at, lanes in _vectors(first, end, spec.number):
        tir.store(y, tir.const(0, lanes, spec.number), *to, tir.ramp(at, lanes))


def _vectors(first: int, end: int, number: Number) -> Iterator[tuple[int, int]]:
    """(first, lanes) of vectors that cover a range."""
    while first < end:
        lanes = min(_WIDEST // BYTES[number], 1 << (end - first).bit_length() - 1)
        yield first, lanes
        first += lanes
