"""One task of a region: a tile of output pixels times a block of output channels, over all timesteps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.spec import RegionSpec, Source
from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Channels, Expr


@dataclass(frozen=True)
class Task:
    """What the emitters of one task share.

    ``currents``: per number of steps at which currents change, scratch ``[parts * steps, pixels of the tile, block]``.
    ``y0``, ``x0``: first output row and column; ``batch``, ``block``: which sample and which block of channels.
    """

    spec: RegionSpec
    buffers: Mapping[str, Buffer]
    batch: Expr
    block: Expr
    y0: Expr
    x0: Expr
    channels: Channels
    currents: Mapping[int, Buffer]

    @property
    def lanes(self) -> int:
        return self.spec.lanes

    @property
    def vectors(self) -> range:
        return range(self.spec.vectors)

    @contextmanager
    def pixels(self) -> Iterator[tuple[Expr, Expr, Expr]]:
        """A loop over the tile's pixels that exist: (output row, output column, number within the tile)."""
        (height, width), (rows, columns) = self.spec.space, self.spec.tuning.tile
        with T.serial(rows) as dy, T.serial(columns) as dx:
            y, x = tir.let(self.y0 + dy), tir.let(self.x0 + dx)
            with tir.when(tir.both(height % rows == 0 or y < height, width % columns == 0 or x < width)):
                yield y, x, dy * columns + dx

    def current(self, source: Source) -> Buffer:
        """Where the source's current goes."""
        return self.currents[steps(self.spec, source)]

    def row(self, source: Source, step: Expr, tap: Expr = 0) -> Expr:
        """Where in the current's first axis a step of the source goes, at that kernel position."""
        part: Expr = source.part
        for cut in source.cuts:
            part = part + tirx.Cast("int32", tap >= cut)
        return step if self.spec.parts == 1 else part * steps(self.spec, source) + step

    def cast(self, value: Expr, dtype: str) -> Expr:
        """A vector of the task in another type."""
        return tir.cast(value, dtype, self.lanes)

    def span(self, vector: int) -> Expr:
        """The lanes of one vector of the block."""
        return tir.ramp(vector * self.lanes, self.lanes)

    def pixel_number(self, y: Expr, x: Expr) -> Expr:
        return y * self.spec.space[1] + x


def steps(spec: RegionSpec, source: Source) -> int:
    """How many different currents the source gives over the region's T timesteps."""
    return min(source.timesteps, spec.timesteps)


def summed(spec: RegionSpec, source: Source) -> int:
    """Input steps that are added into one step."""
    return max(1, source.timesteps // spec.timesteps)


def window(source: Source, axis: int, position: Expr) -> tuple[Expr, Expr]:
    """(first, end) of the kernel positions along ``axis`` that meet the input at an output position."""
    kernel, stride = source.kernel[axis], source.stride[axis]
    padding, dilation, size = source.padding[axis], source.dilation[axis], source.space[axis]
    origin = position * stride - padding
    first = tir.largest(0, tir.ceil_div(0 - origin, dilation)) if padding else 0
    return first, tir.smallest(kernel, tir.ceil_div(size - origin, dilation))


def reached(source: Source, axis: int, tap: Expr, low: Expr, count: int, size: int) -> tuple[Expr, Expr]:
    """(first, end) of the output positions in ``low .. low + count`` (below ``size``) whose input at ``tap`` exists."""
    stride, shift = source.stride[axis], tap * source.dilation[axis] - source.padding[axis]
    first = tir.largest(low, tir.ceil_div(0 - shift, stride)) if source.padding[axis] else low
    end = tir.ceil_div(source.space[axis] - shift, stride)
    return first, tir.smallest(tir.smallest(low + count, size), end)


def unpacked(word: Expr, first_bit: int, lanes: int) -> Expr:
    """Bits ``first_bit ...`` of a word as int32 lanes of 0 and 1."""
    part = tirx.Cast("int32", (word >> tir.u64(first_bit)) & tir.u64((1 << min(lanes, 32)) - 1))
    ones = tirx.Broadcast(tirx.const(1, "int32"), lanes)
    return (tirx.Broadcast(part, lanes) >> tirx.Ramp(tirx.const(0, "int32"), 1, lanes)) & ones
