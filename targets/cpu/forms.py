"""The forms in which values travel between CPU kernels, and the conversions between them.

``canonical``  ``[T, N, *shape]`` float32, as the interpreter and the user see it; int32 for whole numbers
``dense``      ``[N, T, P, C]`` of the same, channels last, P = product of the space; counts up to 255 are uint8
``bits``       ``[N, T, planes, P, ceil(C / 64)]`` uint64: bit c % 64 of word c // 64 is channel c, plane k weighs 2**k
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.targets.cpu.kernels.spec import count_number
from ldsnn_compiler.targets.cpu.plain import tensor_function
from ldsnn_compiler.targets.plan import BATCH, Buffer

CANONICAL, DENSE, BITS = "canonical", "dense", "bits"
WORD = 64


def channels_space(shape: tuple[int, ...]) -> tuple[int, int]:
    """(C, P) of a per-sample shape: the first axis and all the others."""
    return (shape[0], prod(shape[1:])) if shape else (1, 1)


def buffer(type: Stream, steps: int, form: str) -> Buffer:
    """The buffer of a value of that type in that form."""
    channels, pixels = channels_space(type.shape)
    if form == CANONICAL:
        return Buffer((steps, BATCH, *type.shape), type.dtype)
    if form == DENSE:
        number = type.dtype if type.dtype == "float32" else count_number(type.signal)
        return Buffer((BATCH, steps, pixels, channels), number)
    return Buffer((BATCH, steps, type.signal.planes, pixels, ceil(channels / WORD)), "uint64")


@dataclass(frozen=True)
class Conversion:
    """A kernel that copies a value from one form to another."""

    key: tuple[Any, ...]
    build: Callable[[int | None], Any]


def conversion(type: Stream, steps: int, source: str, target: str) -> Conversion:
    """From form ``source`` to form ``target``; counts of events are exact."""

    def compute(x: Any) -> list[Any]:
        from tvm import te, tirx

        n, wanted = x.shape[1] if source == CANONICAL else x.shape[0], buffer(type, steps, target)
        shape, read = wanted.sized(n), _reader(type, source, x)

        def number(*at: Any) -> Any:
            value = read(*at)
            return value if str(value.ty) == wanted.dtype else tirx.Cast(wanted.dtype, value)

        if target == CANONICAL:
            return [te.compute(shape, lambda t, b, *i: number(b, t, *_pixel_channel(type, i)), name="canonical")]
        if target == DENSE:
            return [te.compute(shape, lambda b, t, p, c: number(b, t, p, c), name="dense")]
        return [_packed(type, shape, read)]

    key = ("convert", source, target, steps, type.shape, type.dtype, type.signal)
    return Conversion(key, lambda batch: tensor_function([buffer(type, steps, source)], batch, compute))


Read = Callable[..., Any]


def _reader(type: Stream, form: str, x: Any) -> Read:
    """``read(sample, step, pixel, channel)`` of data in a form, as a number."""
    if form == CANONICAL:
        return lambda n, t, p, c: x(t, n, *_index(type.shape, p, c))
    if form == DENSE:
        return lambda n, t, p, c: x(n, t, p, c)
    return lambda n, t, p, c: _count(type, x, n, t, p, c)


def _index(shape: tuple[int, ...], pixel: Any, channel: Any) -> list[Any]:
    if not shape:
        return []
    at: list[Any] = []
    for d in reversed(shape[1:]):
        at.insert(0, pixel % d)
        pixel = pixel // d
    return [channel, *at]


def _pixel_channel(type: Stream, index: tuple[Any, ...]) -> tuple[Any, Any]:
    pixel: Any = 0
    for i, d in zip(index[1:], type.shape[1:], strict=True):
        pixel = pixel * d + i
    return pixel, index[0] if index else 0


def _count(type: Stream, x: Any, n: Any, t: Any, p: Any, c: Any) -> Any:
    from tvm import tirx

    total: Any = None
    is_real = type.dtype == "float32"
    for plane in range(type.signal.planes):
        bit = (x(n, t, plane, p, c // WORD) >> tirx.Cast("uint64", c % WORD)) & tirx.const(1, "uint64")
        part = tirx.Cast("int32", bit)
        part = tirx.Cast("float32", part) * tirx.const(float(2**plane), "float32") if is_real else part << plane
        total = part if total is None else total + part
    return total if type.signal.unit == 1.0 else total * tirx.const(type.signal.unit, "float32")


def _packed(type: Stream, shape: tuple[Any, ...], read: Read) -> Any:
    from tvm import te, tirx

    channels, unit = channels_space(type.shape)[0], type.signal.unit
    bit = te.reduce_axis((0, WORD), name="bit")

    def word(n: Any, t: Any, plane: Any, p: Any, w: Any) -> Any:
        c = w * WORD + bit
        value = read(n, t, p, tirx.min(c, channels - 1))
        if type.dtype == "float32":
            value = tirx.nearbyint(value / tirx.const(unit, "float32"))
        count = tirx.Cast("int32", value)
        on = tirx.Cast("uint64", (count >> plane) & 1) << tirx.Cast("uint64", bit)
        return te.sum(tirx.Select(c < channels, on, tirx.const(0, "uint64")), axis=bit)

    return te.compute(shape, word, name="bits")
