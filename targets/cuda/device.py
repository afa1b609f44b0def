"""Device functions that kernels call: each with its CUDA, and a plain body that states what it computes.

The bodies are what :mod:`~.emulate` runs in their place. A multiplication of matrices is done by a warp together: every
lane holds a part of each matrix in its registers, and the layouts below, of NVIDIA's PTX ISA ("Matrix fragments for
mma.m16n8k16" and "mma.m16n8k32"), say which.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Expr

WARP = 32
#: rows and columns of the sums that one multiplication adds to
ROWS, COLUMNS = 16, 8
#: groups of numbers, a register each, that it multiplies per row and column
GROUPS = 8
#: registers of a lane: of sums, of the left matrix, of the right one
SUMS, LEFT, RIGHT = 4, 4, 2


@dataclass(frozen=True)
class Function:
    """A function of numbers. ``plain`` makes the expression that it stands for; ``since``: the compute capability that
    it takes, times ten."""

    name: str
    result: str
    cuda: str
    plain: Callable[..., Expr]
    since: int = 0

    def __call__(self, *operands: Expr) -> Expr:
        from tvm import tirx

        return tirx.call_pure_extern(self.result, self.name, *operands)


@dataclass(frozen=True)
class Multiplication:
    """``sums[16, 8] += left[16, 8 group] @ right[8 group, 8]`` by a warp; ``group`` numbers share a register.

    ``left`` and ``right`` make a number of a register's bits, shifted to the lowest place. Called with the place of the
    lane's first sum, its left registers and its right ones.
    """

    name: str
    group: int
    cuda: str
    left: Callable[[Expr], Expr]
    right: Callable[[Expr], Expr]
    since: int = 80

    def __call__(self, sums: Expr, *registers: Expr) -> None:
        from tvm import tirx
        from tvm.tirx.script.builder import ir as T

        T.evaluate(tirx.call_extern("void", self.name, tirx.address_of(sums), *registers))


# ---- layouts: (lane, register) of a number's group or of a sum


def left_place(row: Expr, group: Expr) -> tuple[Expr, Expr]:
    """Of a row's group of numbers, left of the product."""
    return row % 8 * 4 + group % 4, row // 8 + 2 * (group // 4)


def right_place(group: Expr, column: Expr) -> tuple[Expr, Expr]:
    """Of a column's group of numbers, right of the product."""
    return column * 4 + group % 4, group // 4


def sum_place(row: Expr, column: Expr) -> tuple[Expr, Expr]:
    """Of a sum."""
    return row % 8 * 4 + column // 2, row // 8 * 2 + column % 2


@dataclass(frozen=True)
class Held:
    """Where the lanes' numbers lie while they are emulated: register ``r`` at ``buffer[thread, places[r]]``."""

    buffer: Buffer
    places: tuple[Expr, ...]

    def register(self, thread: Expr, number: Expr) -> Expr:
        """What a thread's register of that number holds."""
        from tvm import tirx

        place = self.places[-1]
        for other in reversed(range(len(self.places) - 1)):
            place = tirx.Select(number == other, self.places[other], place)
        return self.buffer[thread, place]


def multiplied(how: Multiplication, warp: Expr, sums: Held, left: Held, right: Held) -> Any:
    """The statement that a multiplication stands for, over the registers of all threads."""
    from tvm import tirx

    row, column, group = (tirx.Var(name, "int32") for name in ("row", "column", "group"))
    lane, register = sum_place(row, column)
    at = [warp * WARP + lane, sums.places[0] + register]
    total = sums.buffer[tuple(at)]
    for place in range(how.group):
        bits = tirx.const(32 // how.group * place, "uint32")
        a, b = (
            each.register(warp * WARP + of, number) >> bits
            for each, (of, number) in ((left, left_place(row, group)), (right, right_place(group, column)))
        )
        total = total + how.left(a) * how.right(b)
    body = tirx.BufferStore(sums.buffer, total, at)
    for variable, extent in ((group, GROUPS), (column, COLUMNS), (row, ROWS)):
        body = tirx.For(variable, 0, extent, tirx.ForKind.SERIAL, body)
    return body


# ---- numbers in registers


def _half(bits: Expr) -> Expr:
    """The lower 16 bits as a number of half precision, widened."""
    from tvm import tirx

    return tirx.Cast("float32", tirx.call_intrin("float16", "tirx.reinterpret", tirx.Cast("uint16", bits)))


def _byte(bits: Expr) -> Expr:
    from tvm import tirx

    return tirx.Cast("int32", bits & tirx.const(255, "uint32"))


def _signed_byte(bits: Expr) -> Expr:
    from tvm import tirx

    return tirx.Cast("int32", tirx.Cast("int8", bits & tirx.const(255, "uint32")))


def _halves(pair: Expr) -> Expr:
    from tvm import tirx

    def half(count: Expr) -> Expr:
        number = tirx.Cast("float16", tirx.Cast("int32", count & tirx.const(0xFFFF, "uint32")))
        return tirx.Cast("uint32", tirx.call_intrin("uint16", "tirx.reinterpret", number))

    sixteen = tirx.const(16, "uint32")
    return half(pair) | (half(pair >> sixteen) << sixteen)


def _dotted(counts: Expr, weights: Expr, total: Expr) -> Expr:
    from tvm import tirx

    for place in range(4):
        bits = tirx.const(8 * place, "uint32")
        total = total + _byte(counts >> bits) * _signed_byte(weights >> bits)
    return total


#: the number of half precision that 16 bits stand for
half = Function(
    "ldsnn_half",
    "float32",
    """static __device__ __forceinline__ float ldsnn_half(short bits) {
  float number;
  asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(bits));
  return number;
}""",
    _half,
)
#: two counts below 1024, 16 bits each, as two numbers of half precision: under the exponent of 1024 a count is the
#: mantissa
halves = Function(
    "ldsnn_halves",
    "uint32",
    """static __device__ __forceinline__ unsigned int ldsnn_halves(unsigned int counts) {
  unsigned int numbers;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(numbers) : "r"(counts | 0x64006400u), "r"(0x64006400u));
  return numbers;
}""",
    _halves,
    since=53,
)
#: ``total`` plus the products of four counts (bytes) with four weights (signed bytes)
dp4a = Function(
    "ldsnn_dp4a",
    "int32",
    """static __device__ __forceinline__ int ldsnn_dp4a(unsigned int counts, unsigned int weights, int total) {
  asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(total) : "r"(counts), "r"((int)weights));
  return total;
}""",
    _dotted,
    since=61,
)


def _mma(name: str, kind: str, number: str, letter: str) -> str:
    """CUDA of a multiplication; ``kind`` is PTX's shape and types."""
    left, right = (", ".join(f"unsigned int {side}{i}" for i in range(n)) for side, n in (("a", LEFT), ("b", RIGHT)))
    return f"""static __device__ __forceinline__ void {name}({number}* c, {left}, {right}) {{
  asm volatile("mma.sync.aligned.{kind} {{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
      : "+{letter}"(c[0]), "+{letter}"(c[1]), "+{letter}"(c[2]), "+{letter}"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}}"""


#: half precision, summed in float32
mma_half = Multiplication(
    "ldsnn_mma_half",
    2,
    _mma("ldsnn_mma_half", "m16n8k16.row.col.f32.f16.f16.f32", "float", "f"),
    left=_half,
    right=_half,
)
#: counts in bytes times weights in signed bytes, summed in int32, which wraps around as everywhere
mma_byte = Multiplication(
    "ldsnn_mma_byte",
    4,
    _mma("ldsnn_mma_byte", "m16n8k32.row.col.s32.u8.s8.s32", "int", "r"),
    left=_byte,
    right=_signed_byte,
)

FUNCTIONS: Mapping[str, Function] = {f.name: f for f in (half, halves, dp4a)}
MULTIPLICATIONS: Mapping[str, Multiplication] = {m.name: m for m in (mma_half, mma_byte)}


def used(source: str) -> tuple[Function | Multiplication, ...]:
    """Those that CUDA source calls."""
    named = set(re.findall(r"ldsnn_\w+", source))
    known: list[Function | Multiplication] = [*FUNCTIONS.values(), *MULTIPLICATIONS.values()]
    return tuple(f for f in known if f.name in named)


def completed(source: str) -> str:
    """CUDA source with the functions that it calls in front."""
    return "\n".join([*(f.cuda for f in used(source)), source])


def since(source: str) -> int:
    """The lowest compute capability, times ten, that has all that the source calls."""
    return max((f.since for f in used(source)), default=0)
