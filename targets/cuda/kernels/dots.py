"""Dense sources on CUDA cores, four inputs at a time: counts and weights as bytes of a register."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, Source
from ldsnn_compiler.targets.cpu.kernels.tir import Expr
from ldsnn_compiler.targets.cuda import device
from ldsnn_compiler.targets.cuda.kernels.currents import Convolution, Visit
from ldsnn_compiler.targets.cuda.kernels.region import Block, registers


class Dots(Convolution):
    """Multiplies every input; the weights of four inputs serve several timesteps."""

    def __init__(self, block: Block, source: Source, index: int, is_first: bool) -> None:
        super().__init__(block, source, index, is_first)
        self.held = registers(self.launch.width, "uint32")
        self.open = registers(self.times * source.planes, "uint64")

    @property
    def times(self) -> int:
        """Timesteps at once."""
        return self.launch.times if self.rate % self.launch.times == 0 else 1

    def _add_word(self, visit: Visit, pixel: Expr, tap: Expr, word: Expr) -> None:
        planes, groups = self.source.planes, self.weights.shape[2]
        with T.serial(self.parts) as part:
            for t in range(self.times):
                for k in range(planes):
                    held = self._word(visit, self._time(visit, t, part), k, pixel, word)
                    tir.store(self.open, held, t * planes + k)
            with T.serial(WORD // 4) as group:
                row = tir.let(word * (WORD // 4) + group)
                with tir.when(int(groups) % (WORD // 4) == 0 or row < groups):
                    self._add_group(tap, row, group)

    def _add_group(self, tap: Expr, row: Expr, group: Expr) -> None:
        width, planes = self.launch.width, self.source.planes
        for v in range(width):
            weights = self.weights[self.block.channels, tap, row, self._channel(v)]
            tir.store(self.held, tirx.reinterpret("uint32", weights), v)
        for t in range(self.times):
            counts = tir.let(bytes_of([self.open[t * planes + k] for k in range(planes)], group))
            for v in range(width):
                at = t * width + v
                tir.store(self.sums, device.dp4a(counts, self.held[v], self.sums[at]), at)


def bytes_of(planes: list[Expr], group: Expr) -> Expr:
    """The counts of four channels of a word, ``4 group ..``, as the bytes of a uint32."""
    return _gathered(planes, group, 4, spread=0x00204081, ones=0x01010101)


def pair_of(planes: list[Expr], group: Expr) -> Expr:
    """The counts of two channels of a word, ``2 group ..``, 16 bits each of a uint32."""
    return _gathered(planes, group, 2, spread=0x00008001, ones=0x00010001)


def _gathered(planes: list[Expr], group: Expr, size: int, spread: int, ones: int) -> Expr:
    """The product with ``spread`` brings every bit to the lowest place of a number of its own."""
    total: Expr = None
    for k, plane in enumerate(planes):
        bits = tirx.Cast("uint32", (plane >> tirx.Cast("uint64", group * size)) & tir.u64(2**size - 1))
        digits = (bits * tirx.const(spread, "uint32")) & tirx.const(ones, "uint32")
        total = digits if k == 0 else total | (digits << tirx.const(k, "uint32"))
    return total
