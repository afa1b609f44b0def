"""Dense sources on tensor cores: rows of (position, timestep) times the block's channels, an implicit matrix product.

A warp holds the sums of ``16 * matrices`` rows and all channels of the block in registers. Its lanes read the words of
spikes of their rows and unpack them in registers, into the numbers that the multiplication wants of them; weights come
from the near caches as they lie. So spikes stay packed in memory, and no thread waits for another before the sums are
complete: they end in shared memory, where neurons find the currents of all timesteps.

Which of the columns a lane's weights belong to is free to choose: a lane takes neighbouring channels, so that it loads
several weights at once, and the sums of its columns are those channels'.
"""

from __future__ import annotations

from collections.abc import Iterator

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, Source
from ldsnn_compiler.targets.cpu.kernels.tir import Expr
from ldsnn_compiler.targets.cuda import device
from ldsnn_compiler.targets.cuda.kernels.currents import Visit, Window
from ldsnn_compiler.targets.cuda.kernels.dots import bytes_of, pair_of
from ldsnn_compiler.targets.cuda.kernels.region import Block, registers

#: words of weights that a lane loads at once
_VECTOR = 4


class Matrix(Window):
    """Multiplies every input of ``rows`` warps' rows, the input dealt out to ``splits`` warps of each."""

    def __init__(self, block: Block, source: Source, index: int, is_first: bool) -> None:
        super().__init__(block, source, index, is_first)
        dot = self.spec.dot(source)
        assert dot is not None
        self.multiply = device.mma_half if dot.group == 2 else device.mma_byte
        self.group, self.matrices = dot.group, self.launch.matrices
        self.groups = int(self.weights.shape[2])
        self.left = registers(device.LEFT * self.matrices, "uint32")
        self.right = registers(device.RIGHT * self.columns, "uint32")
        self.open = registers(2 * self.matrices * source.planes, "uint64")
        self.upper = tir.let(tirx.floordiv(self.lane, 4))
        self.lower = tir.let(tirx.floormod(self.lane, 4))

    @property
    def columns(self) -> int:
        """Multiplications side by side along the channels, and neighbouring channels of a lane."""
        return self.spec.block // device.COLUMNS

    def _sums(self) -> int:
        return device.SUMS * self.launch.matrices * self.columns

    def emit(self) -> None:
        """All of the warp's rows at once."""
        visits = [self._visit(i) for i in range(2 * self.matrices)]
        self._begin(visits)
        total = self.source.taps * self.words
        with T.serial(-(-total // self.launch.splits)) as turn:
            number = tir.let(turn * self.launch.splits + self.split)
            is_one = total % self.launch.splits == 0 or number < total
            held = number if is_one is True else tir.let(tirx.min(number, total - 1))
            tap, word = tir.let(tirx.floordiv(held, self.words)), tir.let(tirx.floormod(held, self.words))
            with T.serial(self.parts) as part:
                for i, visit in enumerate(visits):
                    self._open(i, visit, part, tap, word, is_one)
                with T.serial(min(WORD // self.group, self.groups) // device.GROUPS) as step:
                    self._step(tap, word, step)
        self._end(visits)

    def _visit(self, i: int) -> tuple[Visit, Expr]:
        """The i-th row of this lane, and whether it is one."""
        slot = tir.let(self.row * (device.ROWS * self.matrices) + (8 * i + self.upper))
        number = tir.let(tirx.floordiv(slot, self.rate))
        sample, pixel = self.block.position(number)
        width = self.spec.space[1]
        row, column = tir.let(tirx.floordiv(pixel, width)), tir.let(tirx.floormod(pixel, width))
        visit = Visit(sample, row, column, pixel, tir.let(tirx.floormod(slot, self.rate)), slot)
        return visit, tir.both(self._has(slot), self.block.exists(number))

    def _has(self, slot: Expr) -> Expr:
        """Whether the current has that slot."""
        slots = self.launch.tile * self.rate
        return True if slots == self.launch.rows * device.ROWS * self.matrices else slot < slots

    def _open(self, i: int, row: tuple[Visit, Expr], part: Expr, tap: Expr, word: Expr, is_one: Expr) -> None:
        """Read the words of a row; no spikes where there is no input."""
        (visit, exists), planes = row, self.source.planes
        pixel, inside = self._input(visit, tap)
        there = tir.both(exists, inside, is_one)
        for k in range(planes):
            held = self._word(visit, self._time(visit, 0, part), k, pixel, word)
            tir.store(self.open, held if there is True else tirx.if_then_else(there, held, tir.u64(0)), i * planes + k)

    def _step(self, tap: Expr, word: Expr, step: Expr) -> None:
        """Multiply eight groups of a word's inputs."""
        first = tir.let(step * device.GROUPS + self.lower)
        for half in range(2):
            row = tir.let(word * (WORD // self.group) + (first + 4 * half))
            for n in range(0, self.columns, _VECTOR):
                lanes = tir.ramp(self.upper * self.columns + n, _VECTOR)
                weights = self.weights[self.block.channels, tap, row, lanes]
                bits = tirx.reinterpret(f"uint32x{_VECTOR}", weights)
                tir.store(self.right, bits, tir.ramp(half * self.columns + n, _VECTOR))
        for i in range(2 * self.matrices):
            for half in range(2):
                at = device.LEFT * (i // 2) + i % 2 + 2 * half
                tir.store(self.left, self._numbers(i, first + 4 * half), at)
        # unrolled, so that every register has a number
        with T.unroll(self.matrices) as m, T.unroll(self.columns) as n:
            left = [self.left[device.LEFT * m + a] for a in range(device.LEFT)]
            right = [self.right[half * self.columns + n] for half in range(device.RIGHT)]
            self.multiply(self.sums[self._sum(m, n)], *left, *right)

    def _numbers(self, i: int, group: Expr) -> Expr:
        """The counts of a group of channels of a row as the numbers that are multiplied."""
        planes = [self.open[i * self.source.planes + k] for k in range(self.source.planes)]
        if self.group == 4:
            return bytes_of(planes, group)
        counts = pair_of(planes, group)
        # 1 in half precision is 0x3c00
        return counts * tirx.const(0x3C00, "uint32") if len(planes) == 1 else device.halves(counts)

    # ---- sums

    def _sum(self, m: Expr, n: Expr) -> Expr:
        """A lane's first sum of a multiplication."""
        return device.SUMS * (m * self.columns + n)

    def _places(self, visits: list[tuple[Visit, Expr]]) -> Iterator[tuple[Expr, Expr, tuple[Expr, Expr, Expr]]]:
        """(register, slot, place in the current) of every sum of a lane."""
        for m in range(self.matrices):
            for r in range(device.SUMS):
                slot = visits[2 * m + r // 2][0].slot
                with T.unroll(self.columns) as n:
                    channel = (2 * self.lower + r % 2) * self.columns + n
                    yield self._sum(m, n) + r, slot, (self.split, slot, channel)

    def _begin(self, visits: list[tuple[Visit, Expr]]) -> None:
        current, zero = self.block.current(self.source), tir.const(0, 1, self.number)
        for register, slot, place in self._places(visits):
            start = zero
            if not self.is_first:
                has = self._has(slot)
                start = current[place] if has is True else tirx.if_then_else(has, current[place], zero)
            tir.store(self.sums, start, register)

    def _end(self, visits: list[tuple[Visit, Expr]]) -> None:
        current = self.block.current(self.source)
        for register, slot, place in self._places(visits):
            with tir.when(self._has(slot)):
                tir.store(current, self.sums[register], *place)
