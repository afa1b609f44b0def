"""Dense convolution: a register tile of (timesteps x pixels) times channels over a patch of the input.

The weights of one kernel position and input channel are loaded once for all timesteps and pixels of the register
tile. The patch is a zero-padded private copy of what the tile reads; bits are unpacked and summed steps added while
it is copied.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import ceil

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.event import first_block_word
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, RegionSpec, Source, input_range, words
from ldsnn_compiler.targets.cpu.kernels.task import Task, steps, summed, unpacked
from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Expr


def register_tile(spec: RegionSpec, source: Source) -> tuple[int, int, int]:
    """(timesteps, columns, vectors) of the accumulators: as many as the registers hold, each dividing its extent."""
    vectors = max(v for v in range(1, 5) if spec.vectors % v == 0)
    most = max(1, spec.tuning.registers // vectors)
    t_total, columns = steps(spec, source), spec.tuning.tile[1]
    choices = [
        (t, c) for t in range(1, most + 1) if t_total % t == 0 for c in range(1, most // t + 1) if columns % c == 0
    ]
    t, c = max(choices, key=lambda tc: (tc[0] * tc[1], tc[1]))
    return t, c, vectors


class DenseConv:
    """Adds one source's current to the task's; ``is_first``: the current holds nothing yet."""

    def __init__(self, task: Task, source: Source, x: Buffer, weights: Buffer, is_first: bool) -> None:
        self.task, self.source, self.x, self.weights, self.is_first = task, source, x, weights, is_first
        self.is_depthwise = task.spec.is_depthwise(source)
        self.times, self.columns, self.width = register_tile(task.spec, source)
        _, self.rows = input_range(task.spec, source, 0)
        self.first_word = first_block_word(task.spec, source, task.block)
        self.sums = [tir.scratch((self.width, task.lanes)) for _ in range(self.times * self.columns)]
        self.patch: Buffer = None if self._reads_directly else tir.scratch(self._patch_shape)

    @property
    def _reads_directly(self) -> bool:
        """The input itself will do: dense, nothing summed, no output reads past its borders."""
        s, spec = self.source, self.task.spec
        inside = all(
            s.padding[a] == 0 and (spec.space[a] - 1) * s.stride[a] + (s.kernel[a] - 1) * s.dilation[a] < s.space[a]
            for a in (0, 1)
        )
        fits = all(spec.space[a] % spec.tuning.tile[a] == 0 for a in (0, 1))
        return s.form == "dense" and s.groups == 1 and summed(spec, s) == 1 and inside and fits

    @property
    def _patch_shape(self) -> tuple[int, int, int, int]:
        s, tile, lanes = self.source, self.task.spec.tuning.tile, self.task.lanes
        rows, columns = ((tile[a] - 1) * s.stride[a] + (s.kernel[a] - 1) * s.dilation[a] + 1 for a in (0, 1))
        return (self.times, rows, columns, ceil(self.rows / lanes) * lanes)

    def emit(self) -> None:
        with T.serial(steps(self.task.spec, self.source) // self.times) as chunk:
            first = tir.let(chunk * self.times)
            if self.patch is not None:
                self._fill(first)
            rows, columns = self.task.spec.tuning.tile
            strips, parts = columns // self.columns, self.task.spec.vectors // self.width
            with T.serial(rows) as dy, T.serial(strips) as strip, T.serial(parts) as part:
                self._register_tile(first, dy, strip * self.columns, part * self.width)

    def _members(self) -> list[tuple[int, int]]:
        return [(t, c) for t in range(self.times) for c in range(self.columns)]

    def _register_tile(self, first: Expr, dy: Expr, dx: Expr, part: Expr) -> None:
        lanes, current = self.task.lanes, self.task.current(self.source)
        all_, corner = tir.ramp(0, lanes), dy * self.task.spec.tuning.tile[1] + dx

        def place(t: int, c: int, v: int) -> tuple[Expr, Expr, Expr]:
            return first + t, corner + c, tir.ramp((part + v) * lanes, lanes)

        for sums, (t, c) in zip(self.sums, self._members(), strict=True):
            for v in range(self.width):
                tir.store(sums, tir.const(0.0, lanes) if self.is_first else current[place(t, c, v)], v, all_)
        with T.serial(self.source.kernel[0]) as ky, T.serial(self.source.kernel[1]) as kx, ExitStack() as stack:
            channel = 0 if self.is_depthwise else stack.enter_context(T.serial(self.rows))
            self._multiply(first, dy, dx, part, ky, kx, channel)
        for sums, (t, c) in zip(self.sums, self._members(), strict=True):
            for v in range(self.width):
                tir.store(current, sums[v, all_], *place(t, c, v))

    def _multiply(self, first: Expr, dy: Expr, dx: Expr, part: Expr, ky: Expr, kx: Expr, channel: Expr) -> None:
        lanes, tap = self.task.lanes, ky * self.source.kernel[1] + kx
        spans = [tir.ramp((part + v) * lanes, lanes) for v in range(self.width)]
        weights = [tir.let(self.weights[self.task.block, tap, channel, span]) for span in spans]
        for sums, (t, c) in zip(self.sums, self._members(), strict=True):
            held: Expr = None
            if not self.is_depthwise:
                held = tir.let(tir.broadcast(self._read(first, t, dy, dx + c, ky, kx, channel), lanes))
            for v, span in enumerate(spans):
                value = self._read(first, t, dy, dx + c, ky, kx, span) if self.is_depthwise else held
                tir.store(sums, sums[v, tir.ramp(0, lanes)] + value * weights[v], v, tir.ramp(0, lanes))

    def _read(self, first: Expr, t: int, dy: Expr, dx: Expr, ky: Expr, kx: Expr, channel: Expr) -> Expr:
        s, task = self.source, self.task
        if self.patch is not None:
            y, x = dy * s.stride[0] + ky * s.dilation[0], dx * s.stride[1] + kx * s.dilation[1]
            return self.patch[t, y, x, channel]
        y = (task.y0 + dy) * s.stride[0] + ky * s.dilation[0]
        x = (task.x0 + dx) * s.stride[1] + kx * s.dilation[1]
        return self.x[task.batch, first + t, y * s.space[1] + x, channel]

    def _fill(self, first: Expr) -> None:
        """Copy what the tile reads in ``times`` steps, zero where there is no input."""
        s, task, (times, rows, columns, padded) = self.source, self.task, self._patch_shape
        (height, width), lanes = s.space, task.lanes
        with T.serial(times) as t, T.serial(rows) as py, T.serial(columns) as px:
            y = tir.let(task.y0 * s.stride[0] - s.padding[0] + py)
            x = tir.let(task.x0 * s.stride[1] - s.padding[1] + px)
            with T.serial(padded // lanes) as v:
                tir.store(self.patch, tir.const(0.0, lanes), t, py, px, tir.ramp(v * lanes, lanes))
            inside = tirx.And(tirx.And(y >= 0, y < height), tirx.And(x >= 0, x < width))
            with T.If(inside), T.Then(), T.serial(summed(task.spec, s)) as part:
                time = (first + t) * summed(task.spec, s) + part
                self._copy((t, py, px), time, y * width + x)

    def _copy(self, to: tuple[Expr, ...], time: Expr, pixel: Expr) -> None:
        if self.source.form == "bits":
            self._unpack(to, time, pixel)
            return
        lanes, start, channels = self.task.lanes, self.first_word * WORD, self.source.channels
        is_whole = self.source.groups == 1
        vectors = self.rows // lanes if is_whole else 0
        if vectors:
            with T.serial(vectors) as v:
                self._gain(to, v * lanes, lanes, self.x[self.task.batch, time, pixel, tir.ramp(v * lanes, lanes)])
        if self.rows > vectors * lanes:
            with T.serial(self.rows - vectors * lanes) as c:
                at = vectors * lanes + c
                with tir.when(True if is_whole else start + at < channels):
                    self._gain(to, at, 1, self.x[self.task.batch, time, pixel, start + at])

    def _unpack(self, to: tuple[Expr, ...], time: Expr, pixel: Expr) -> None:
        s, lanes = self.source, self.task.lanes
        padded = self._patch_shape[3]
        with T.serial(ceil(padded / WORD)) as w:
            number = self.first_word + w
            with tir.when(True if s.groups == 1 else number < words(s.channels)):
                planes = [tir.let(self.x[self.task.batch, time, k, pixel, number]) for k in range(s.planes)]
                for first_bit in range(0, min(WORD, padded), lanes):
                    total = unpacked(planes[0], first_bit, lanes)
                    for k, plane in enumerate(planes[1:], 1):
                        shift = tirx.Broadcast(tirx.const(k, "int32"), lanes)
                        total = total + (unpacked(plane, first_bit, lanes) << shift)
                    with tir.when(True if padded % WORD == 0 else w * WORD + first_bit < padded):
                        self._gain(to, w * WORD + first_bit, lanes, tirx.Cast(tir.lanes_of("float32", lanes), total))

    def _gain(self, to: tuple[Expr, ...], channel: Expr, lanes: int, value: Expr) -> None:
        at = (*to, tir.ramp(channel, lanes))
        tir.store(self.patch, value if summed(self.task.spec, self.source) == 1 else self.patch[at] + value, *at)
