"""Conversions between the forms a value travels in: canonical ``[T, N, C, H, W]``, dense ``[N, T, P, C]``, bits."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.spec import SYMBOLIC, WORD, BufferSpec, bits_shape, words
from ldsnn_compiler.targets.cpu.kernels.task import unpacked
from ldsnn_compiler.targets.cpu.kernels.tir import Expr


def pack(batch: int | None, timesteps: int, pixels: int, channels: int, planes: int, unit: float = 1.0) -> Any:
    """PrimFunc (dense ``unit * count``, bits): counts below ``2**planes`` into bit planes."""
    n = SYMBOLIC if batch is None else batch
    dense = BufferSpec("x", (n, timesteps, pixels, channels))
    bits = BufferSpec("y", bits_shape(n, timesteps, planes, pixels, channels), "uint64", True)

    def body(found: Any, size: Expr) -> None:
        x, y = found["x"], found["y"]
        with T.parallel((batch or size) * (timesteps * pixels)) as i, T.serial(words(channels)) as w:
            sample, step, pixel = _split(i, timesteps, pixels)
            sums = [tir.scratch((1,), "uint64") for _ in range(planes)]
            for total in sums:
                tir.store(total, tir.u64(0), 0)
            with T.serial(tir.smallest(WORD, channels - w * WORD)) as bit:
                level = x[sample, step, pixel, w * WORD + bit] / tirx.const(unit, "float32")
                count = tir.let(tirx.Cast("uint64", tirx.Cast("int32", tirx.round(level))))
                for plane, total in enumerate(sums):
                    one = (count >> tir.u64(plane)) & tir.u64(1)
                    tir.store(total, total[0] | (one << tirx.Cast("uint64", bit)), 0)
            for plane, total in enumerate(sums):
                tir.store(y, total[0], sample, step, plane, pixel, w)

    return tir.function((dense, bits), body)


def unpack(batch: int | None, timesteps: int, pixels: int, channels: int, planes: int, unit: float = 1.0) -> Any:
    """PrimFunc (bits, dense): ``unit * count`` from bit planes."""
    n = SYMBOLIC if batch is None else batch
    bits = BufferSpec("x", bits_shape(n, timesteps, planes, pixels, channels), "uint64")
    dense = BufferSpec("y", (n, timesteps, pixels, channels), is_output=True)
    lanes = 16

    def body(found: Any, size: Expr) -> None:
        x, y = found["x"], found["y"]
        with T.parallel((batch or size) * (timesteps * pixels)) as i, T.serial(words(channels)) as w:
            sample, step, pixel = _split(i, timesteps, pixels)
            values = tir.scratch((WORD,))
            loaded = [tir.let(x[sample, step, k, pixel, w]) for k in range(planes)]
            for first in range(0, WORD, lanes):
                total = unpacked(loaded[0], first, lanes)
                for k, plane in enumerate(loaded[1:], 1):
                    total = total + (unpacked(plane, first, lanes) << tirx.Broadcast(tirx.const(k, "int32"), lanes))
                level = tirx.Cast(f"float32x{lanes}", total)
                value = level if unit == 1.0 else level * tir.const(unit, lanes)
                tir.store(values, value, tir.ramp(first, lanes))
            with T.serial(tir.smallest(WORD, channels - w * WORD)) as c:
                tir.store(y, values[c], sample, step, pixel, w * WORD + c)

    return tir.function((bits, dense), body)


def to_channels_last(batch: int | None, timesteps: int, channels: int, pixels: int) -> Any:
    """PrimFunc (``[T, N, C, P]``, ``[N, T, P, C]``) of float32; a static input ``[N, C, H, W]`` has T = 1."""
    n = SYMBOLIC if batch is None else batch
    first = BufferSpec("x", (timesteps, n, channels, pixels))
    last = BufferSpec("y", (n, timesteps, pixels, channels), is_output=True)
    return _transpose(first, last, batch, timesteps, channels, pixels, time_first=(True, False))


def to_channels_first(batch: int | None, timesteps: int, channels: int, pixels: int) -> Any:
    """PrimFunc (``[N, T, P, C]``, ``[T, N, C, P]``) of float32."""
    n = SYMBOLIC if batch is None else batch
    last = BufferSpec("x", (n, timesteps, pixels, channels))
    first = BufferSpec("y", (timesteps, n, channels, pixels), is_output=True)
    return _transpose(last, first, batch, timesteps, pixels, channels, time_first=(False, True))


def _transpose(
    x: BufferSpec, y: BufferSpec, batch: int | None, steps: int, rows: int, columns: int, time_first: tuple[bool, bool]
) -> Any:
    """``x[..., rows, columns]`` to ``y[..., columns, rows]``, a few columns at a time so that both sides use whole
    lines."""
    tile = 16

    def body(found: Any, size: Expr) -> None:
        strips = -(-columns // tile)
        with T.parallel((batch or size) * (steps * strips)) as i:
            sample, step, strip = _split(i, steps, strips)
            outer = [(step, sample) if first else (sample, step) for first in time_first]
            with T.serial(rows) as row, T.serial(tir.smallest(tile, columns - strip * tile)) as c:
                column = strip * tile + c
                tir.store(found["y"], found["x"][(*outer[0], row, column)], *outer[1], column, row)

    return tir.function((x, y), body)


def _split(index: Expr, steps: int, inner: int) -> tuple[Expr, Expr, Expr]:
    """(sample, step, inner) of a flat index."""
    sample = tir.let(tir.int32(tirx.floordiv(index, steps * inner)))
    rest = tir.let(tir.int32(tirx.floormod(index, steps * inner)))
    return sample, tir.let(tirx.floordiv(rest, inner)), tir.let(tirx.floormod(rest, inner))
