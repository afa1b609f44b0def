"""Tensor expressions of the built-in ops: what the plain kernel computes, ``compute`` in the op table.

Every function takes a :class:`~ldsnn_compiler.ir.op.Call` whose ``tensors`` are TVM te placeholders, and data
``[T, N, *shape]`` (N may be symbolic), and gives a te tensor of the same axes. Summation runs over the reduction axes
in their natural order. TVM is imported only when a graph is lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.op import Call

Tensor = Any
Expr = Any


def _te() -> Any:
    from tvm import te

    return te


def _tirx() -> Any:
    from tvm import tirx

    return tirx


def _tensor(call: Call, name: str) -> Any:
    """The placeholder of a tensor attribute, or None if it is unset."""
    return call.tensor(name)


def _f32(value: float) -> Expr:
    return _tirx().const(float(value), "float32")


def _elementwise(x: Tensor, function: Callable[[Expr, tuple[Expr, ...]], Expr], name: str) -> Tensor:
    return _te().compute(x.shape, lambda *i: function(x(*i), i), name=name)


def _broadcast(value: Tensor, index: Sequence[Expr]) -> Expr:
    """A per-channel vector or a per-element tensor read at ``index`` of ``[T, N, *shape]``."""
    return value(index[2]) if len(value.shape) == 1 else value(*index[2:])


def scale(call: Call, x: Tensor) -> Tensor:
    """``by * x``, by a number, per channel or per element."""
    by = _tensor(call, "by")
    return _elementwise(x, lambda v, i: v * (_f32(call["factor"]) if by is None else _broadcast(by, i)), "scale")


def quantize(call: Call, x: Tensor) -> Tensor:
    """The nearest whole multiple of ``scale``, half up, within bounds."""
    tirx, scale = _tirx(), _f32(call["scale"])
    low, high = _f32(call["low"]), _f32(call["high"])

    def nearest(v: Expr, i: tuple[Expr, ...]) -> Expr:
        return tirx.min(tirx.max(tirx.floor(tirx.Div(v, scale) + _f32(0.5)), low), high)

    return _elementwise(x, nearest, "quantize")


def dequantize(call: Call, x: Tensor) -> Tensor:
    """``scale * x``, by a number, per channel or per element."""
    by = _tensor(call, "by")
    return _elementwise(x, lambda v, i: v * (_f32(call["scale"]) if by is None else _broadcast(by, i)), "dequantize")


def add(call: Call, *data: Tensor) -> Tensor:
    """Left to right, as the reference adds."""

    def sum_at(*i: Expr) -> Expr:
        total = data[0](*i)
        for other in data[1:]:
            total = total + other(*i)
        return total

    return _te().compute(data[0].shape, sum_at, name="add")


def multiply(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Element by element."""
    return _te().compute(a.shape, lambda *i: a(*i) * b(*i), name="multiply")


def concat(call: Call, *data: Tensor) -> Tensor:
    """Each index from the operand that it falls into."""
    axis, tirx = 2 + call["axis"] % len(call.types[0].shape), _tirx()
    lengths = [t.shape[axis - 2] for t in call.types]

    def pick(*i: Expr) -> Expr:
        end, chosen = sum(lengths), None
        for part, length in reversed(list(zip(data, lengths, strict=True))):
            end -= length
            read = part(*i[:axis], i[axis] - end, *i[axis + 1 :])
            chosen = read if chosen is None else tirx.if_then_else(i[axis] < end + length, read, chosen)
        return chosen

    shape = [*data[0].shape]
    shape[axis] = sum(lengths)
    return _te().compute(shape, pick, name="concat")


def batch_norm(call: Call, x: Tensor) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias``, per channel."""
    te = _te()
    mean, var, weight, bias = (_tensor(call, k) for k in ("mean", "var", "weight", "bias"))
    inverse = te.compute(var.shape, lambda c: _f32(1.0) / te.sqrt(var(c) + _f32(call["eps"])), name="inverse")
    gain = inverse if weight is None else te.compute(var.shape, lambda c: weight(c) * inverse(c), name="gain")
    shift = te.compute(
        var.shape,
        lambda c: (_f32(0.0) if bias is None else bias(c)) - mean(c) * gain(c),
        name="shift",
    )
    return _elementwise(x, lambda v, i: v * gain(i[2]) + shift(i[2]), "batch_norm")


def threshold(call: Call, x: Tensor) -> Tensor:
    """``value`` where ``x >= at`` (or ``>``), else 0."""
    tirx, at, value = _tirx(), _f32(call["at"]), _f32(call["value"])
    fires: Callable[[Expr], Expr] = (lambda v: v > at) if call["compare"] == "gt" else (lambda v: v >= at)
    return _elementwise(x, lambda v, i: tirx.Select(fires(v), value, _f32(0.0)), "threshold")


def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Over the last two axes."""
    te, (left, right) = _te(), (t.shape for t in call.types)
    if len(left) != len(right) or len(left) < 2:
        raise LdsnnError(f"matmul needs two operands of equal rank and at least two axes, not {left} and {right}")
    k = te.reduce_axis((0, left[-1]), name="k")
    outer = [max(p, q) for p, q in zip(left[:-2], right[:-2], strict=True)]

    def read(x: Tensor, shape: tuple[int, ...], i: Sequence[Expr], row: Expr, column: Expr) -> Expr:
        return x(*i[:2], *(0 if d == 1 else j for d, j in zip(shape[:-2], i[2:-2], strict=True)), row, column)

    return te.compute(
        (*a.shape[:2], *outer, left[-2], right[-1]),
        lambda *i: te.sum(read(a, left, i, i[-2], k) * read(b, right, i, k, i[-1]), axis=k),
        name="matmul",
    )


def linear(call: Call, x: Tensor) -> Tensor:
    """Over the last axis."""
    te, weight, bias = _te(), _tensor(call, "weight"), _tensor(call, "bias")
    k = te.reduce_axis((0, weight.shape[1]), name="k")
    shape = (*x.shape[:-1], weight.shape[0])
    y = te.compute(shape, lambda *i: te.sum(x(*i[:-1], k) * weight(i[-1], k), axis=k), name="linear")
    return y if bias is None else _elementwise(y, lambda v, i: v + bias(i[-1]), "bias")


def conv(call: Call, x: Tensor) -> Tensor:
    """Of one or two axes, grouped, strided, dilated."""
    te, weight, bias = _te(), _tensor(call, "weight"), _tensor(call, "bias")
    stride, dilation, groups = call["stride"], call["dilation"], call["groups"]
    padded = _padded(x, call["padding"], _f32(0.0))
    out_channels, per_group, *kernel = (int(d) for d in weight.shape)
    space = [
        (int(d) - q * (k - 1) - 1) // s + 1
        for d, k, s, q in zip(padded.shape[3:], kernel, stride, dilation, strict=True)
    ]
    c = te.reduce_axis((0, per_group), name="c")
    window = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(kernel)]

    def total(t: Expr, n: Expr, o: Expr, *p: Expr) -> Expr:
        channel = c if groups == 1 else o // (out_channels // groups) * per_group + c
        at = [q * s + k * d for q, s, k, d in zip(p, stride, window, dilation, strict=True)]
        return te.sum(padded(t, n, channel, *at) * weight(o, c, *window), axis=[c, *window])

    y = te.compute((*x.shape[:2], out_channels, *space), total, name="conv")
    return y if bias is None else _elementwise(y, lambda v, i: v + bias(i[2]), "bias")


def _padded(x: Tensor, padding: Sequence[int], fill: Expr) -> Tensor:
    """``fill`` on both sides of the trailing axes."""
    if not any(padding):
        return x
    te, tirx, first = _te(), _tirx(), len(x.shape) - len(padding)
    shape = [*x.shape[:first], *(int(d) + 2 * p for d, p in zip(x.shape[first:], padding, strict=True))]

    def value(*i: Expr) -> Expr:
        at = [j - p for j, p in zip(i[first:], padding, strict=True)]
        inside = [tirx.all(j >= 0, j < int(d)) for j, d in zip(at, x.shape[first:], strict=True)]
        return tirx.if_then_else(tirx.all(*inside), x(*i[:first], *at), fill)

    return te.compute(shape, value, name="padded")


def _windows(call: Call, x: Tensor, fill: Expr, reduce: Callable[..., Expr], dilation: Sequence[int]) -> Tensor:
    te, kernel, stride = _te(), call["kernel"], call["stride"]
    padded, first = _padded(x, call["padding"], fill), len(x.shape) - len(kernel)
    window = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(kernel)]
    space = [
        (int(d) - q * (k - 1) - 1) // s + 1
        for d, k, s, q in zip(padded.shape[first:], kernel, stride, dilation, strict=True)
    ]

    def value(*i: Expr) -> Expr:
        at = [p * s + k * d for p, s, k, d in zip(i[first:], stride, window, dilation, strict=True)]
        return reduce(padded(*i[:first], *at), axis=window)

    return te.compute((*x.shape[:first], *space), value, name="pool")


def sum_pool(call: Call, x: Tensor) -> Tensor:
    """Zeros at the borders."""
    return _windows(call, x, _f32(0.0), _te().sum, [1] * len(call["kernel"]))


def max_pool(call: Call, x: Tensor) -> Tensor:
    """Minus infinity at the borders."""
    dilation = call["dilation"] or [1] * len(call["kernel"])
    return _windows(call, x, _te().min_value("float32"), _te().max, dilation)


def avg_pool(call: Call, x: Tensor) -> Tensor:
    """Divided by the whole window, or by the part of it that lies inside."""
    total, kernel, tirx = sum_pool(call, x), call["kernel"], _tirx()
    if call["count_include_pad"] or not any(call["padding"]):
        return _elementwise(total, lambda v, i: v / _f32(prod(kernel)), "mean")
    first = len(x.shape) - len(kernel)

    def mean(v: Expr, i: Sequence[Expr]) -> Expr:
        count = tirx.const(1, "int32")
        for j, k, s, p, d in zip(i[first:], kernel, call["stride"], call["padding"], x.shape[first:], strict=True):
            low, high = tirx.max(j * s - p, 0), tirx.min(j * s - p + k, int(d))
            count = count * (high - low)
        return v / count.astype("float32")

    return _elementwise(total, mean, "mean")


def adaptive_avg_pool(call: Call, x: Tensor) -> Tensor:
    """Windows from ``floor(i n / m)`` to ``ceil((i + 1) n / m)``."""
    te, tirx, size = _te(), _tirx(), call["size"]
    first = len(x.shape) - len(size)
    axes = [int(d) for d in x.shape[first:]]
    longest = [
        max((i + 1) * d // s + bool((i + 1) * d % s) - i * d // s for i in range(s))
        for d, s in zip(axes, size, strict=True)
    ]
    window = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(longest)]

    def bounds(i: Sequence[Expr]) -> list[tuple[Expr, Expr]]:
        pairs = zip(i[first:], axes, size, strict=True)
        return [(tirx.floordiv(j * d, s), tirx.floordiv((j + 1) * d + s - 1, s)) for j, d, s in pairs]

    def total(*i: Expr) -> Expr:
        low_high = bounds(i)
        at = [low + k for (low, _), k in zip(low_high, window, strict=True)]
        inside = tirx.all(*(p < high for p, (_, high) in zip(at, low_high, strict=True)))
        return te.sum(tirx.if_then_else(inside, x(*i[:first], *at), _f32(0.0)), axis=window)

    def mean(v: Expr, i: Sequence[Expr]) -> Expr:
        count = tirx.const(1, "int32")
        for low, high in bounds(i):
            count = count * (high - low)
        return v / count.astype("float32")

    return _elementwise(te.compute((*x.shape[:first], *size), total, name="pool"), mean, "mean")


def flatten(call: Call, x: Tensor) -> Tensor:
    """All axes into one, row-major."""
    return _renumbered(call, x, (call.types[0].size,))


def reshape(call: Call, x: Tensor) -> Tensor:
    """The same numbers, row-major."""
    size, known = call.types[0].size, prod(d for d in call["shape"] if d != -1)
    return _renumbered(call, x, [size // known if d == -1 else d for d in call["shape"]])


def _renumbered(call: Call, x: Tensor, shape: Sequence[int]) -> Tensor:
    """The same numbers, row-major, in another shape."""
    source = call.types[0].shape

    def value(t: Expr, n: Expr, *i: Expr) -> Expr:
        flat: Expr = 0
        for j, d in zip(i, shape, strict=True):
            flat = flat * d + j
        at: list[Expr] = []
        for d in reversed(source):
            at.insert(0, flat % d)
            flat = flat // d
        return x(t, n, *at)

    return _te().compute((*x.shape[:2], *shape), value, name="reshape")


def slice_(call: Call, x: Tensor) -> Tensor:
    """``x[start:stop:step]`` along one axis."""
    axis, length = call["axis"] % len(call.types[0].shape), call.types[0].shape[call["axis"]]
    start, stop, step = slice(call["start"], call["stop"], call["step"]).indices(length)

    def value(t: Expr, n: Expr, *i: Expr) -> Expr:
        return x(t, n, *i[:axis], i[axis] * step + start, *i[axis + 1 :])

    shape = [*call.types[0].shape]
    shape[axis] = len(range(start, stop, step))
    return _te().compute((*x.shape[:2], *shape), value, name="slice")


def pad(call: Call, x: Tensor) -> Tensor:
    """Zeros before and after each axis."""
    tirx, before = _tirx(), call["low"]

    def value(t: Expr, n: Expr, *i: Expr) -> Expr:
        at = [j - b for j, b in zip(i, before, strict=True)]
        inside = [tirx.all(j >= 0, j < d) for j, d in zip(at, call.types[0].shape, strict=True)]
        return tirx.if_then_else(tirx.all(*inside), x(t, n, *at), _f32(0.0))

    shape = [b + d + a for b, d, a in zip(before, call.types[0].shape, call["high"], strict=True)]
    return _te().compute((*x.shape[:2], *shape), value, name="pad")


def encode(call: Call, x: Tensor) -> Tensor:
    """Spikes of an intensity: poisson by the reference's hash, latency by the step that the intensity names."""
    tirx = _tirx()
    if call["code"] == "direct":
        return _elementwise(x, lambda v, i: v, "direct")
    if call["code"] == "latency":
        last = _f32(call.types[0].timesteps - 1)

        def fires(v: Expr, i: Sequence[Expr]) -> Expr:
            step = (i[0] + call.first_step).astype("float32")
            return tirx.Select(tirx.nearbyint((_f32(1.0) - v) * last) == step, _f32(1.0), _f32(0.0))

        return _elementwise(x, fires, "latency")

    def spike(v: Expr, i: Sequence[Expr]) -> Expr:
        element: Expr = 0
        for j, d in zip(i[2:], call.types[0].shape, strict=True):
            element = element * d + j
        uniform = hash_uniform(call["seed"], i[0] + call.first_step, i[1], element)
        return tirx.Select(uniform < v, _f32(1.0), _f32(0.0))

    return _elementwise(x, spike, "poisson")


def hash_uniform(seed: int, step: Expr, sample: Expr, element: Expr) -> Expr:
    """:func:`ldsnn_compiler.ir.ops.io.hash_uniform` in unsigned 32-bit arithmetic."""
    tirx = _tirx()
    value = tirx.const(seed & 0xFFFFFFFF, "uint32")
    for counter in (step, sample, element):
        value = _mix(value ^ tirx.Cast("uint32", counter))
    return (value >> tirx.const(8, "uint32")).astype("float32") * _f32(1.0 / (1 << 24))


def _mix(value: Expr) -> Expr:
    tirx = _tirx()
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = (value ^ (value >> tirx.const(shift, "uint32"))) * tirx.const(factor, "uint32")
    return value ^ (value >> tirx.const(16, "uint32"))


def resample(call: Call, x: Tensor) -> Tensor:
    """Steps of ``dt``; their number follows from the data, so that a block of a stream resamples like the whole."""
    te, tirx, ratio = _te(), _tirx(), call["dt"] / call.types[0].dt
    steps = int(x.shape[0])
    if (1 / ratio).denominator == 1:
        held = int(1 / ratio)
        return te.compute((steps * held, *x.shape[1:]), lambda t, *i: x(t // held, *i), name="repeat")
    if ratio.denominator == 1:
        r = int(ratio)
        k = te.reduce_axis((0, r), name="k")
        total = te.compute((steps // r, *x.shape[1:]), lambda t, *i: te.sum(x(t * r + k, *i), axis=k), name="total")
        return total if call["mode"] == "sum" else _elementwise(total, lambda v, i: v / _f32(r), "mean")
    made = int(steps / ratio)
    k = te.reduce_axis((0, steps), name="k")

    whole = steps / ratio.numerator if call["mode"] == "sum" else steps

    def share(t: Expr) -> Expr:
        low, high = tirx.max(t * steps, k * made), tirx.min((t + 1) * steps, (k + 1) * made)
        return tirx.max(high - low, 0).astype("float64") / tirx.const(float(whole), "float64")

    return te.compute(
        (made, *x.shape[1:]), lambda t, *i: te.sum(share(t).astype("float32") * x(k, *i), axis=k), name="resample"
    )


def slice_time(call: Call, x: Tensor) -> Tensor:
    """The first steps."""
    return _te().compute((call["steps"], *x.shape[1:]), lambda t, *i: x(t, *i), name="slice_time")


def copy(call: Call, x: Tensor) -> Tensor:
    """As it is."""
    return _elementwise(x, lambda v, i: v, "copy")


def constant(call: Call) -> Tensor:
    """The stored steps, the same for every sample."""
    value = _tensor(call, "value")
    return _te().compute(
        (value.shape[0], call.batch, *value.shape[1:]),
        lambda t, n, *i: value(t, *i),
        name="constant",
    )
