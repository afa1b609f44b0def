"""A thin layer over TVM's IR builder: vectors, guarded channel tails, and the frame of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels.spec import SYMBOLIC, BufferSpec
from ldsnn_compiler.targets.emitting import private_scope

# TVM's expressions and buffers carry no Python types worth naming.
Expr = Any
Buffer = Any


def function(args: tuple[BufferSpec, ...], body: Callable[[Mapping[str, Buffer], Expr], None]) -> Any:
    """A PrimFunc (no global symbol) over ``args``; ``body(buffers, batch)`` emits it, ``batch`` None if no arg is
    symbolic."""
    n = tirx.Var(SYMBOLIC, "int64")
    is_symbolic = any(SYMBOLIC in a.shape for a in args)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        found = {}
        for a in args:
            shape = tuple(n if d == SYMBOLIC else d for d in a.shape)
            found[a.name] = T.arg(a.name, T.buffer(shape, a.dtype, layout=None))
        T.func_attr({"tirx.noalias": True})
        with T.sblock("root"):
            T.reads()
            T.writes()
            body(found, n if is_symbolic else None)
    return builder.get()


def scratch(shape: tuple[int, ...], dtype: str = "float32") -> Buffer:
    """Memory private to the task whose loop body uses it; below 1 KiB it can live in registers."""
    return T.sblock_alloc_buffer(shape, dtype, scope=private_scope(), layout=None)


def store(buffer: Buffer, value: Expr, *index: Expr) -> None:
    T.buffer_store(buffer, value, list(index))


def prefetch(buffer: Buffer, *index: Expr) -> None:
    """Ask for a cache line; an address past the buffer's end is harmless."""
    read, keep, data = (tirx.const(value, "int32") for value in (0, 3, 1))
    T.evaluate(tirx.call_intrin("void", "tirx.prefetch", tirx.address_of(buffer[index]), read, keep, data))


def let(value: Expr) -> Expr:
    """Evaluate once, here."""
    return T.Bind(value)


def ramp(start: Expr, lanes: int) -> Expr:
    return tirx.Ramp(start, 1, lanes) if lanes > 1 else start


def broadcast(value: Expr, lanes: int) -> Expr:
    return tirx.Broadcast(value, lanes) if lanes > 1 else value


def const(value: float, lanes: int, dtype: str = "float32") -> Expr:
    """A vector of equal numbers."""
    return broadcast(tirx.const(value if dtype == "float32" else int(value), dtype), lanes)


def cast(value: Expr, dtype: str, lanes: int) -> Expr:
    """A vector in another type; whole numbers wrap around where that is narrower."""
    wanted = lanes_of(dtype, lanes)
    return value if str(value.ty) == wanted else tirx.Cast(wanted, value)


def u64(value: int) -> Expr:
    return tirx.const(value, "uint64")


def lanes_of(dtype: str, lanes: int) -> str:
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def element(value: Expr) -> str:
    """Type of one lane."""
    return str(value.ty).partition("x")[0]


def fence(value: Expr, lanes: int) -> Expr:
    """Keep the rounding of a float's product: without it LLVM contracts ``a * b + c`` into one operation."""
    if element(value) != "float32":
        return value
    return tirx.call_llvm_pure_intrin(lanes_of("float32", lanes), "llvm.arithmetic.fence", value)


def trailing_zeros(word: Expr) -> Expr:
    """Index (int32) of the lowest set bit of a word that is not 0."""
    zeros = tirx.call_llvm_pure_intrin("uint64", "llvm.cttz", word, tirx.const(True, "bool"))
    return tirx.Cast("int32", zeros)


def mask_word(mask: Expr, lanes: int) -> Expr:
    """The bits of a vector comparison, lane 0 lowest, as uint64."""
    return tirx.Cast("uint64", tirx.call_intrin(f"uint{lanes}", "tirx.reinterpret", mask))


def int32(value: Expr) -> Expr:
    """Index arithmetic stays in 32 bits with a symbolic batch too."""
    return value if isinstance(value, int) else tirx.Cast("int32", value)


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """``if condition:``; nothing is emitted for a condition that is always true."""
    if condition is True:
        yield
        return
    with T.If(condition), T.Then():
        yield


def both(*conditions: Expr) -> Expr:
    """Conjunction of conditions some of which are known now (Python bools)."""
    open_ = [c for c in conditions if c is not True]
    if not open_:
        return True
    result = open_[0]
    for c in open_[1:]:
        result = tirx.And(result, c)
    return result


def ceil_div(value: Expr, divisor: int) -> Expr:
    """Ceiling division, right for negative values too."""
    if isinstance(value, int):
        return -(-value // divisor)
    return value if divisor == 1 else tirx.floordiv(value + (divisor - 1), divisor)


def largest(a: Expr, b: Expr) -> Expr:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.max(a, b)


def smallest(a: Expr, b: Expr) -> Expr:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.min(a, b)


class Channels:
    """Vector access to the channel axis of unpadded buffers from a block of channels that may reach past their end."""

    def __init__(self, channels: int, block: int, lanes: int, base: Expr) -> None:
        self.channels, self.block, self.lanes, self.base = channels, block, lanes, base
        self._tails: dict[str, Buffer] = {}

    def _tail(self, dtype: str) -> Buffer:
        if dtype not in self._tails:
            self._tails[dtype] = scratch((self.lanes,), dtype)
        return self._tails[dtype]

    def load(self, buffer: Buffer, prefix: tuple[Expr, ...], offset: int) -> Expr:
        """Lanes ``base + offset ...`` of the last axis, 0 past the end."""
        start = self.base + offset
        if self.channels % self.block == 0:
            return buffer[(*prefix, ramp(start, self.lanes))]
        tail, all_ = self._tail(str(buffer.dtype)), ramp(0, self.lanes)
        with T.If(start + self.lanes <= self.channels):
            with T.Then():
                store(tail, buffer[(*prefix, ramp(start, self.lanes))], all_)
            with T.Else(), T.serial(self.lanes) as lane:
                zero = const(0, 1, str(buffer.dtype))
                value = tirx.if_then_else(start + lane < self.channels, buffer[(*prefix, start + lane)], zero)
                store(tail, value, lane)
        return let(tail[all_])

    def save(self, buffer: Buffer, prefix: tuple[Expr, ...], offset: int, value: Expr) -> None:
        """Write the lanes that exist."""
        start, value = self.base + offset, cast(value, str(buffer.dtype), self.lanes)
        if self.channels % self.block == 0:
            store(buffer, value, *prefix, ramp(start, self.lanes))
            return
        tail = self._tail(str(buffer.dtype))
        with T.If(start + self.lanes <= self.channels):
            with T.Then():
                store(buffer, value, *prefix, ramp(start, self.lanes))
            with T.Else():
                store(tail, value, ramp(0, self.lanes))
                with T.serial(self.lanes) as lane, when(start + lane < self.channels):
                    store(buffer, tail[lane], *prefix, start + lane)


def split(index: Expr, steps: int, inner: int) -> tuple[Expr, Expr, Expr]:
    """(sample, step, inner) of a flat index over the batch, ``steps`` and ``inner``."""
    sample = let(int32(tirx.floordiv(index, steps * inner)))
    rest = let(int32(tirx.floormod(index, steps * inner)))
    return sample, let(tirx.floordiv(rest, inner)), let(tirx.floormod(rest, inner))
