"""Pools on bits, over space and time: 64 channels at a time with bitwise logic, never unpacked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from tvm import tirx

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.spec import SYMBOLIC, BufferSpec, Pair, bits_shape, words
from ldsnn_compiler.targets.cpu.kernels.tir import Expr
from ldsnn_compiler.targets.cpu.kernels.work import worth_threads
from ldsnn_compiler.targets.emitting import tasks

Number = list[Expr]
"""64 counts side by side, one word a bit plane, lowest first."""


@dataclass(frozen=True)
class PoolSpec:
    """A pool of counts in ``planes`` bit planes; ``padding`` adds zeros. Sum pools write :attr:`sum_planes` planes.

    A window covers ``steps`` timesteps as well, of which ``timesteps`` are left. An average pool is a sum pool whose
    divisor sits in the signal's unit (all windows count alike, padding included).
    """

    batch: int | None
    timesteps: int
    channels: int
    space: Pair
    planes: int
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    steps: int = 1

    @property
    def out_space(self) -> Pair:
        h, w = ((self.space[a] + 2 * self.padding[a] - self.kernel[a]) // self.stride[a] + 1 for a in (0, 1))
        return h, w

    @property
    def sum_planes(self) -> int:
        """Planes that hold a window's largest sum."""
        most: int = self.steps * prod(self.kernel) * (2**self.planes - 1)
        return most.bit_length()


def sum_pool(spec: PoolSpec) -> Any:
    """PrimFunc (bits, bits with :attr:`PoolSpec.sum_planes` planes): sums by bitwise adders."""
    return _pool(spec, spec.sum_planes, _sum)


def max_pool(spec: PoolSpec) -> Any:
    """PrimFunc (bits, bits with equally many planes): the largest count; for binary spikes an OR."""
    return _pool(spec, spec.planes, _largest)


def _pool(spec: PoolSpec, planes: int, combine: Any) -> Any:
    n = SYMBOLIC if spec.batch is None else spec.batch
    (height, width), (rows, columns) = spec.space, spec.out_space
    given = bits_shape(n, spec.timesteps * spec.steps, spec.planes, height * width, spec.channels)
    x = BufferSpec("x", given, "uint64")
    y = BufferSpec("y", bits_shape(n, spec.timesteps, planes, rows * columns, spec.channels), "uint64", True)

    def body(found: Any, size: Expr) -> None:
        count = (spec.batch or size) * (spec.timesteps * rows)
        dealt = worth_threads(_ns(spec), spec.batch)
        with tasks(count, columns, words(spec.channels), dealt=dealt) as (i, column, w):
            sample, step, row = tir.split(i, spec.timesteps, rows)
            taken = [_read(spec, found["x"], (sample, step), (row, column), at, w) for at in _window(spec)]
            result = combine(taken)
            for plane in range(planes):
                value = result[plane] if plane < len(result) else tir.u64(0)
                tir.store(found["y"], value, sample, step, plane, row * columns + column, w)

    return tir.function((x, y), body)


def _ns(spec: PoolSpec) -> float:
    """Of one sample on one core: a nanosecond for each bit plane of each word that is read."""
    window = spec.steps * prod(spec.kernel)
    return float(spec.timesteps * prod(spec.out_space) * words(spec.channels) * window * spec.planes)


Place = tuple[int, int, int]
"""Step, row and column within a window."""


def _window(spec: PoolSpec) -> list[Place]:
    return list(product(range(spec.steps), range(spec.kernel[0]), range(spec.kernel[1])))


def _read(spec: PoolSpec, x: Any, prefix: tuple[Expr, Expr], out: tuple[Expr, Expr], at: Place, word: Expr) -> Number:
    (height, width), (py, px) = spec.space, spec.padding
    step = prefix[1] * spec.steps + at[0] if spec.steps > 1 else prefix[1]
    row, column = out[0] * spec.stride[0] + (at[1] - py), out[1] * spec.stride[1] + (at[2] - px)
    planes = [x[prefix[0], step, k, row * width + column, word] for k in range(spec.planes)]
    if py or px:
        inside = tirx.And(tirx.And(row >= 0, row < height), tirx.And(column >= 0, column < width))
        planes = [tirx.if_then_else(inside, plane, tir.u64(0)) for plane in planes]
    return [tir.let(plane) for plane in planes]


def _held(value: Expr) -> Expr:
    """Computed once. TVM inlines integer bindings, and a chain of adders would grow without bound; it keeps loads."""
    slot = tir.scratch((1,), "uint64")
    tir.store(slot, value, 0)
    return slot[0]


def _sum(numbers: list[Number]) -> Number:
    """Pairwise, so that short numbers meet short ones."""
    while len(numbers) > 1:
        pairs = [_add(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=False)]
        numbers = pairs + (numbers[-1:] if len(numbers) % 2 else [])
    return numbers[0]


def _add(a: Number, b: Number) -> Number:
    """Ripple-carry addition, 64 lanes of one bit."""
    a, b = (a, b) if len(a) >= len(b) else (b, a)
    result, carry = [], None
    for k, bit in enumerate(a):
        addends = [bit, *(b[k : k + 1]), *([carry] if carry is not None else [])]
        result.append(_held(_xor(addends)))
        carry = _held(_majority(addends)) if len(addends) > 1 else None
    return result if carry is None else [*result, carry]


def _xor(bits: list[Expr]) -> Expr:
    result = bits[0]
    for bit in bits[1:]:
        result = result ^ bit
    return result


def _majority(bits: list[Expr]) -> Expr:
    if len(bits) == 2:
        return bits[0] & bits[1]
    a, b, c = bits
    return (a & b) | (c & (a ^ b))


def _largest(numbers: list[Number]) -> Number:
    result = numbers[0]
    for number in numbers[1:]:
        result = _larger(result, number)
    return result


def _larger(a: Number, b: Number) -> Number:
    """Per lane the larger of two numbers of equal length."""
    if len(a) == 1:
        return [_held(a[0] | b[0])]
    b_wins, open_ = tir.u64(0), tirx.bitwise_not(tir.u64(0))
    for x, y in zip(reversed(a), reversed(b), strict=True):
        b_wins = _held(b_wins | (open_ & y & tirx.bitwise_not(x)))
        open_ = _held(open_ & tirx.bitwise_not(x ^ y))
    return [_held(x ^ ((x ^ y) & b_wins)) for x, y in zip(a, b, strict=True)]
