"""Sources of current on CUDA cores: spikes that are walked, inputs that are multiplied, shortcuts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.event import first_block_word
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, Source, input_range, words
from ldsnn_compiler.targets.cpu.kernels.task import steps, summed
from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Expr
from ldsnn_compiler.targets.cuda import device
from ldsnn_compiler.targets.cuda.kernels.region import Block, registers


@dataclass(frozen=True)
class Visit:
    """A position (sample, row, column, pixel) and the first of the timesteps that one thread works on at once."""

    sample: Expr
    row: Expr
    column: Expr
    pixel: Expr
    step: Expr
    slot: Expr


class Adder(ABC):
    """Adds one source's current; ``is_first``: the current holds nothing yet. Sums are kept in registers."""

    def __init__(self, block: Block, source: Source, index: int, is_first: bool) -> None:
        self.block, self.source, self.is_first = block, source, is_first
        self.spec, self.launch = block.spec, block.launch
        self.x: Buffer = block.buffers[f"x{index}"]
        self.weights: Buffer = block.buffers.get(f"w{index}")
        self.lanes = self.launch.lanes(self.spec)
        self.rate, self.parts = steps(self.spec, source), summed(self.spec, source)
        self.lane = tir.let(tirx.floormod(block.thread, self.lanes))
        rest = tirx.floordiv(block.thread, self.lanes)
        self.row = tir.let(tirx.floormod(rest, self.launch.rows))
        self.split = tir.let(tirx.floordiv(rest, self.launch.rows))
        self.number = self.spec.number
        self.sums = registers(self._sums(), self.number)

    @abstractmethod
    def _sums(self) -> int:
        """Registers for sums."""

    @abstractmethod
    def emit(self) -> None:
        """All that this thread adds."""

    def _time(self, visit: Visit, t: int, part: Expr) -> Expr:
        return (visit.step + t) * self.parts + part

    def _cast(self, value: Expr) -> Expr:
        return tir.cast(value, self.number, 1)

    def _weight(self, *at: Expr) -> Expr:
        """One weight, as a number of the sums' type."""
        held = self.weights[at]
        return device.half(held) if self.source.weights == "float16" else self._cast(held)

    def _value(self, visit: Visit, time: Expr, pixel: Expr, channel: Expr) -> Expr:
        """The input of one channel, a number or a count."""
        if self.source.form == "dense":
            return self._cast(self.x[visit.sample, time, pixel, channel])
        word, bit = tirx.floordiv(channel, WORD), tirx.floormod(channel, WORD)
        return self._cast(count([self.x[visit.sample, time, k, pixel, word] for k in range(self.source.planes)], bit))

    @property
    def is_within(self) -> bool:
        """Whether all channels of a block are some."""
        return self.spec.channels % self.spec.block == 0


class PerThread(Adder):
    """Every thread adds for itself: ``times`` steps of ``width`` channels at once."""

    @property
    def times(self) -> int:
        """Timesteps at once."""
        return 1

    def _sums(self) -> int:
        return self.times * self.launch.width

    @abstractmethod
    def _add(self, visit: Visit) -> None:
        """Add what the source gives to the registers."""

    def emit(self) -> None:
        """All visits of this thread, one after the other."""
        current = self.block.current(self.source)
        with self._visits() as visit:
            for at, slot in self._slots(visit):
                tir.store(self.sums, tir.const(0, 1, self.number) if self.is_first else current[slot], at)
            self._add(visit)
            for at, slot in self._slots(visit):
                tir.store(current, self.sums[at], *slot)

    @contextmanager
    def _visits(self) -> Iterator[Visit]:
        groups = self.launch.tile * self.rate // self.times
        with T.serial(ceil(groups / self.launch.rows)) as turn:
            group = tir.let(turn * self.launch.rows + self.row)
            within = True if groups % self.launch.rows == 0 else group < groups
            number = tirx.floordiv(group, self.rate // self.times)
            with tir.when(tir.both(within, self.block.exists(number))):
                sample, pixel = self.block.position(number)
                width = self.spec.space[1]
                step = tirx.floormod(group, self.rate // self.times) * self.times
                yield Visit(
                    sample,
                    tir.let(tirx.floordiv(pixel, width)),
                    tir.let(tirx.floormod(pixel, width)),
                    pixel,
                    tir.let(step),
                    tir.let(group * self.times),
                )

    def _slots(self, visit: Visit) -> list[tuple[int, tuple[Expr, Expr, Expr]]]:
        """(register, place in the current) of every step and channel that a thread holds."""
        members = [(t, v) for t in range(self.times) for v in range(self.launch.width)]
        return [(t * self.launch.width + v, (self.split, visit.slot + t, self._channel(v))) for t, v in members]

    def _channel(self, v: int) -> Expr:
        """Channel within the block; neighbours belong to neighbouring threads."""
        return v * self.lanes + self.lane


class Shortcut(PerThread):
    """Identity shortcuts and currents computed elsewhere: ``current += scale * value``."""

    def _add(self, visit: Visit) -> None:
        with T.If(self.split == 0), T.Then(), T.serial(self.parts) as part:
            for v in range(self.launch.width):
                channel = tir.let(self.block.first_channel + self._channel(v))
                with tir.when(self.is_within or channel < self.spec.channels):
                    value = self._value(visit, self._time(visit, 0, part), visit.pixel, channel)
                    tir.store(self.sums, self.sums[v] + self._scaled(value, channel), v)

    def _scaled(self, value: Expr, channel: Expr) -> Expr:
        if self.source.per_channel:
            return tir.fence(value * self._weight(channel), 1)
        if self.source.scale == 1.0:
            return value
        return tir.fence(value * tir.const(self.source.scale, 1, self.number), 1)


class Window(Adder):
    """Knows which words of input a position reads."""

    def __init__(self, block: Block, source: Source, index: int, is_first: bool) -> None:
        super().__init__(block, source, index, is_first)
        self.first_word = first_block_word(self.spec, source, block.channels)
        self.rows = 1 if self.spec.is_depthwise(source) else input_range(self.spec, source, 0)[1]
        self.words = words(self.rows)

    def _input(self, visit: Visit, tap: Expr) -> tuple[Expr, Expr]:
        """The input pixel under a kernel position, and whether there is one."""
        s = self.source
        places = (
            visit.row * s.stride[0] - s.padding[0] + tirx.floordiv(tap, s.kernel[1]) * s.dilation[0],
            visit.column * s.stride[1] - s.padding[1] + tirx.floormod(tap, s.kernel[1]) * s.dilation[1],
        )
        row, column = tir.let(places[0]), tir.let(places[1])
        inside = [True if s.padding[a] == 0 else place >= 0 for a, place in enumerate((row, column))]
        inside += [True if self._last(a) < s.space[a] else place < s.space[a] for a, place in enumerate((row, column))]
        return row * s.space[1] + column, tir.both(*inside)

    def _last(self, axis: int) -> int:
        """The last input row (column) that any output reads."""
        s = self.source
        outputs = (self.spec.space[axis] - 1) * s.stride[axis]
        return outputs - s.padding[axis] + (s.kernel[axis] - 1) * s.dilation[axis]

    def _word(self, visit: Visit, time: Expr, plane: int, pixel: Expr, word: Expr) -> Expr:
        held = self.x[visit.sample, time, plane, pixel, self.first_word + word]
        if self.source.groups == 1:
            return held
        # a block's range may reach past the last word, where its weights are 0
        return tirx.if_then_else(self.first_word + word < words(self.source.channels), held, tir.u64(0))


class Convolution(Window, PerThread):
    """Loops over the words of input that a position reads, dealt out to the splits."""

    def _add(self, visit: Visit) -> None:
        splits, total = self.launch.splits, self.source.taps * self.words
        with T.serial(ceil(total / splits)) as turn:
            number = tir.let(turn * splits + self.split)
            tap, word = tir.let(tirx.floordiv(number, self.words)), tir.let(tirx.floormod(number, self.words))
            pixel, inside = self._input(visit, tap)
            with tir.when(tir.both(total % splits == 0 or number < total, inside)):
                self._add_word(visit, tir.let(pixel), tap, word)

    @abstractmethod
    def _add_word(self, visit: Visit, pixel: Expr, tap: Expr, word: Expr) -> None:
        """Add what 64 inputs of a pixel give through a kernel position."""


class Events(Convolution):
    """Walks the set bits of a word; all threads of a warp that stand side by side along the channels walk together.

    A few spikes at a time, so that their weights are on their way together.
    """

    def __init__(self, block: Block, source: Source, index: int, is_first: bool) -> None:
        super().__init__(block, source, index, is_first)
        self.open = registers(self.launch.unroll, "uint64")
        self.taken = registers(self.launch.unroll * self.launch.width, self.number)

    def _add_word(self, visit: Visit, pixel: Expr, tap: Expr, word: Expr) -> None:
        with T.serial(self.parts) as part:
            time = self._time(visit, 0, part)
            planes = [tir.let(self._word(visit, time, k, pixel, word)) for k in range(self.source.planes)]
            union = planes[0]
            for plane in planes[1:]:
                union = union | plane
            tir.store(self.open, union, 0)
            with T.While(self.open[0] != tir.u64(0)):
                self._take(planes, tap, word)

    def _take(self, planes: list[Expr], tap: Expr, word: Expr) -> None:
        """The lowest bits of the word, as many as are unrolled: all loads, then all additions."""
        unroll, width, zero = self.launch.unroll, self.launch.width, tir.const(0, 1, self.number)
        for u in range(1, unroll):
            tir.store(self.open, _without_lowest(self.open[u - 1]), u)
        for u in range(unroll):
            for v in range(width):
                value = self._added(planes, tap, word, self.open[u], v)
                # the first bit is there, or the loop would have ended
                some = value if u == 0 else tirx.if_then_else(self.open[u] != tir.u64(0), value, zero)
                tir.store(self.taken, some, u * width + v)
        for u in range(unroll):
            for v in range(width):
                tir.store(self.sums, self.sums[v] + self.taken[u * width + v], v)
        tir.store(self.open, _without_lowest(self.open[unroll - 1]), 0)

    def _added(self, planes: list[Expr], tap: Expr, word: Expr, open_: Expr, v: int) -> Expr:
        """What the lowest bit adds to a channel."""
        bit = tir.trailing_zeros(open_)
        weight = self._weight(self.block.channels, tap, word * WORD + bit, self._channel(v))
        return weight if len(planes) == 1 else weight * self._cast(count(planes, bit))


class Dense(Convolution):
    """Multiplies every input; the weights of one input serve several timesteps."""

    def __init__(self, block: Block, source: Source, index: int, is_first: bool) -> None:
        super().__init__(block, source, index, is_first)
        self.held = registers(self.launch.width, self.number)

    @property
    def times(self) -> int:
        """Timesteps at once."""
        return self.launch.times if self.rate % self.launch.times == 0 else 1

    def _add_word(self, visit: Visit, pixel: Expr, tap: Expr, word: Expr) -> None:
        depthwise = self.spec.is_depthwise(self.source)
        with T.serial(self.parts) as part, T.serial(1 if depthwise else min(WORD, self.rows)) as bit:
            row = tir.let(word * WORD + bit)
            channel = self.first_word * WORD + row
            with tir.when(depthwise or self._whole or tirx.And(row < self.rows, channel < self.source.channels)):
                for v in range(self.launch.width):
                    tir.store(self.held, self._weight(self.block.channels, tap, row, self._channel(v)), v)
                for t in range(self.times):
                    self._multiply(visit, t, part, pixel, channel)

    @property
    def _whole(self) -> bool:
        """Every bit of every word is an input."""
        return self.source.groups == 1 and (self.rows % WORD == 0 or self.rows < WORD)

    def _multiply(self, visit: Visit, t: int, part: Expr, pixel: Expr, channel: Expr) -> None:
        width, time = self.launch.width, self._time(visit, t, part)
        depthwise = self.spec.is_depthwise(self.source)
        value = None if depthwise else tir.let(self._value(visit, time, pixel, channel))
        for v in range(width):
            at = t * width + v
            if not depthwise:
                tir.store(self.sums, multiply_add(value, self.held[v], self.sums[at]), at)
                continue
            own = tir.let(self.block.first_channel + self._channel(v))
            with tir.when(self.is_within or own < self.spec.channels):
                x = self._value(visit, time, pixel, own)
                tir.store(self.sums, multiply_add(x, self.held[v], self.sums[at]), at)


def _without_lowest(word: Expr) -> Expr:
    return word & (word - tir.u64(1))


def count(planes: list[Expr], bit: Expr) -> Expr:
    """The count of channel ``bit`` of a word, from its planes, as int32."""
    total = tirx.const(0, "int32")
    for k, plane in enumerate(planes):
        digit = tirx.Cast("int32", (plane >> tirx.Cast("uint64", bit)) & tir.u64(1))
        total = digit if k == 0 else total + digit * 2**k
    return total


def multiply_add(a: Expr, b: Expr, c: Expr) -> Expr:
    """``a * b + c``, rounded once."""
    if tir.element(c) != "float32":
        return a * b + c
    return tirx.call_llvm_pure_intrin("float32", "llvm.fma", a, b, c)
