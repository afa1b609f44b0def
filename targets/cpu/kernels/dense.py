"""Dense convolution: a register tile of (timesteps x pixels) times channels over a patch of the input.

The weights of one kernel position and input channel are loaded once for all timesteps and pixels of the register
tile. The patch is a zero-padded private copy of what the tile reads; bits are unpacked and summed steps added while
it is copied. Whole numbers are multiplied in the sums' type, or several inputs at a time by a :class:`~.dot.Dot`;
inputs that are no inputs of its instruction are shifted there, the padding too, and the sums corrected by a constant.
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
    in_block = spec.block // spec.sums(source)[1]
    vectors = max(v for v in range(1, 5) if in_block % v == 0)
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
        (self.number, self.lanes), self.dot = task.spec.sums(source), task.spec.dot(source)
        self.group, self.values = (self.dot.group, self.dot.values) if self.dot else (1, self.number)
        self.shift = task.spec.shift(source)
        self.sums = [tir.scratch((self.width, self.lanes), self.number) for _ in range(self.times * self.columns)]
        self.patch: Buffer = None if self._reads_directly else tir.scratch(self._patch_shape, self.values)

    @property
    def _reads_directly(self) -> bool:
        """The input itself will do: dense, nothing summed, no output reads past its borders."""
        s, spec = self.source, self.task.spec
        inside = all(
            s.padding[a] == 0 and (spec.space[a] - 1) * s.stride[a] + (s.kernel[a] - 1) * s.dilation[a] < s.space[a]
            for a in (0, 1)
        )
        fits = all(spec.space[a] % spec.tuning.tile[a] == 0 for a in (0, 1))
        groups = s.values == self.values and self.rows % self.group == 0 if self.dot else True
        as_it_is = s.form == "dense" and s.groups == 1 and summed(spec, s) == 1 and self.shift == 0
        return as_it_is and inside and fits and groups

    @property
    def _patch_shape(self) -> tuple[int, int, int, int]:
        s, tile, lanes = self.source, self.task.spec.tuning.tile, self.lanes
        rows, columns = ((tile[a] - 1) * s.stride[a] + (s.kernel[a] - 1) * s.dilation[a] + 1 for a in (0, 1))
        return (self.times, rows, columns, ceil(self.rows / lanes) * lanes)

    def emit(self) -> None:
        with T.serial(steps(self.task.spec, self.source) // self.times) as chunk:
            first = tir.let(chunk * self.times)
            if self.patch is not None:
                self._fill(first)
            rows, columns = self.task.spec.tuning.tile
            strips, parts = columns // self.columns, self.task.spec.block // (self.width * self.lanes)
            with T.serial(rows) as dy, T.serial(strips) as strip, T.serial(parts) as part:
                self._register_tile(first, dy, strip * self.columns, part * self.width)

    def _members(self) -> list[tuple[int, int]]:
        return [(t, c) for t in range(self.times) for c in range(self.columns)]

    def _register_tile(self, first: Expr, dy: Expr, dx: Expr, part: Expr) -> None:
        lanes, current = self.lanes, self.task.current(self.source)
        all_, corner = tir.ramp(0, lanes), dy * self.task.spec.tuning.tile[1] + dx

        def place(t: int, c: int, v: int) -> tuple[Expr, Expr, Expr]:
            return self.task.row(self.source, first + t), corner + c, tir.ramp((part + v) * lanes, lanes)

        for sums, (t, c) in zip(self.sums, self._members(), strict=True):
            for v in range(self.width):
                start = self._correction(part + v) if self.shift else tir.const(0, lanes, self.number)
                if not self.is_first:
                    start = start + tir.cast(current[place(t, c, v)], self.number, lanes)
                tir.store(sums, start, v, all_)
        with T.serial(self.source.kernel[0]) as ky, T.serial(self.source.kernel[1]) as kx, ExitStack() as stack:
            channel = 0 if self.is_depthwise else stack.enter_context(T.serial(ceil(self.rows / self.group)))
            self._multiply(first, dy, dx, part, ky, kx, channel)
        for sums, (t, c) in zip(self.sums, self._members(), strict=True):
            for v in range(self.width):
                tir.store(current, tir.cast(sums[v, all_], self.task.spec.accumulator, lanes), *place(t, c, v))

    def _correction(self, vector: Expr) -> Expr:
        """What the shift of the inputs takes from the sums: behind the weights of the last kernel position."""
        numbers = tir.ramp(vector * self.lanes * self.group, self.lanes * self.group)
        held = self.weights[self.task.block, self.source.taps, 0, numbers]
        return tirx.call_intrin(tir.lanes_of("int32", self.lanes), "tirx.reinterpret", held)

    def _multiply(self, first: Expr, dy: Expr, dx: Expr, part: Expr, ky: Expr, kx: Expr, channel: Expr) -> None:
        lanes, group, tap = self.lanes, self.group, ky * self.source.kernel[1] + kx
        spans = [tir.ramp((part + v) * lanes, lanes) for v in range(self.width)]
        wide = [tir.ramp((part + v) * lanes * group, lanes * group) for v in range(self.width)]
        weights = [tir.let(self._weights(tap, channel, span)) for span in wide]
        for sums, (t, c) in zip(self.sums, self._members(), strict=True):
            held: Expr = None
            if not self.is_depthwise:
                held = self._read(first, t, dy, dx + c, ky, kx, tir.ramp(channel * group, group))
                held = tir.let(held if self.dot else tir.broadcast(tir.cast(held, self.number, 1), lanes))
            for v, span in enumerate(spans):
                value = held
                if self.is_depthwise:
                    value = tir.cast(self._read(first, t, dy, dx + c, ky, kx, span), self.number, lanes)
                total, whole = sums[v, tir.ramp(0, lanes)], tir.ramp(0, lanes)
                total = self._dotted(total, value, weights[v]) if self.dot else total + value * weights[v]
                tir.store(sums, total, v, whole)

    def _dotted(self, sums: Expr, values: Expr, weights: Expr) -> Expr:
        """One group of inputs, the same for all lanes, times a group of weights for each."""
        assert self.dot is not None
        one = tirx.call_intrin("int32", "tirx.reinterpret", values)
        signed = tir.lanes_of(f"int{32 // self.group}", self.lanes * self.group)
        spread = tirx.call_intrin(signed, "tirx.reinterpret", tir.broadcast(one, self.lanes))
        wide, name = tir.lanes_of("int32", self.lanes), self.dot.intrinsic[self.lanes]
        if self.dot.adds:
            return sums + tirx.call_llvm_pure_intrin(wide, name, spread, weights)
        return tirx.call_llvm_pure_intrin(wide, name, sums, spread, weights)

    def _weights(self, tap: Expr, channel: Expr, span: Expr) -> Expr:
        found = self.weights[self.task.block, tap, channel, span]
        return found if self.dot else tir.cast(found, self.number, self.lanes)

    def _read(self, first: Expr, t: int, dy: Expr, dx: Expr, ky: Expr, kx: Expr, channel: Expr) -> Expr:
        s, task = self.source, self.task
        if self.patch is not None:
            y, x = dy * s.stride[0] + ky * s.dilation[0], dx * s.stride[1] + kx * s.dilation[1]
            return self.patch[t, y, x, channel]
        y = (task.y0 + dy) * s.stride[0] + ky * s.dilation[0]
        x = (task.x0 + dx) * s.stride[1] + kx * s.dilation[1]
        return self.x[task.batch, first + t, y * s.space[1] + x, channel]

    def _fill(self, first: Expr) -> None:
        """Copy what the tile reads in ``times`` steps, those of no input 0, which is the shift."""
        s, task, (times, rows, columns, padded) = self.source, self.task, self._patch_shape
        (height, width), lanes = s.space, self.lanes
        with T.serial(times) as t, T.serial(rows) as py, T.serial(columns) as px:
            y = tir.let(task.y0 * s.stride[0] - s.padding[0] + py)
            x = tir.let(task.x0 * s.stride[1] - s.padding[1] + px)
            with T.serial(padded // lanes) as v:
                tir.store(self.patch, tir.const(self.shift, lanes, self.values), t, py, px, tir.ramp(v * lanes, lanes))
            inside = tirx.And(tirx.And(y >= 0, y < height), tirx.And(x >= 0, x < width))
            with T.If(inside), T.Then(), T.serial(summed(task.spec, s)) as part:
                time = (first + t) * summed(task.spec, s) + part
                self._copy((t, py, px), time, y * width + x)

    def _copy(self, to: tuple[Expr, ...], time: Expr, pixel: Expr) -> None:
        if self.source.form == "bits":
            self._unpack(to, time, pixel)
            return
        lanes, start, channels = self.lanes, self.first_word * WORD, self.source.channels
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
        s, lanes = self.source, self.lanes
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
                        self._gain(to, w * WORD + first_bit, lanes, total)

    def _gain(self, to: tuple[Expr, ...], channel: Expr, lanes: int, value: Expr) -> None:
        at, value = (*to, tir.ramp(channel, lanes)), tir.cast(value, self.values, lanes)
        if summed(self.task.spec, self.source) > 1:
            value = self.patch[at] + value
        elif self.shift:
            value = value + tir.const(self.shift, lanes, self.values)
        tir.store(self.patch, value, *at)
