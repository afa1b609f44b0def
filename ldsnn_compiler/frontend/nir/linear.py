"""NIR's linear nodes and those that only move numbers, one importer each."""

from __future__ import annotations

from math import prod

import numpy as np

from ldsnn_compiler.frontend.nir.builder import Builder, Shape
from ldsnn_compiler.frontend.nir.discretise import Array
from ldsnn_compiler.frontend.nir.source import Unit
from ldsnn_compiler.ir.graph import Value


def affine(b: Builder, unit: Unit, x: Value) -> Value:
    """Affine and Linear, ``y = W x + b`` over the last axis; axes of W before its last two are those of x.

    A flattening that was left out is put in, transposed weights are turned, where nothing else fits.
    """
    weight = b.array(unit, "weight")
    if weight.ndim < 2:
        raise b.refuse(unit, f"has {weight.ndim} axes, expected [..., out, in]", "weight")
    if weight.ndim > 2:
        return _stacked(b, unit, x, weight)
    shape, bias_size = x.type.shape, np.size(unit.values.get("bias", 0.0))
    if weight.shape[1] == prod(shape) != shape[-1]:
        b.note(unit, f"takes {weight.shape[1]} numbers, its input of shape {shape} is flattened")
        x = b.add("flatten", unit, [x], "flatten").result
    elif weight.shape[0] == shape[-1] != weight.shape[1] and bias_size in (1, weight.shape[1]):
        b.note(unit, f"shape {weight.shape} is [in, out] for an input of shape {shape}, turned to [out, in]", "weight")
        weight = weight.T
    elif weight.shape[1] != shape[-1]:
        raise b.refuse(unit, f"takes {weight.shape[1]} numbers, its input has shape {shape}", "weight")
    given = _bias(b, unit, (weight.shape[0],))
    bias = b.tensor(unit, "bias", given) if given is not None else None
    return b.add("linear", unit, [x], weight=b.tensor(unit, "weight", weight), bias=bias).result


def _stacked(b: Builder, unit: Unit, x: Value, weight: Array) -> Value:
    """One matrix for each index of the leading axes: a grouped convolution over a single position."""
    *lead, out, taken = weight.shape
    if x.type.shape != (*lead, taken):
        raise b.refuse(unit, f"takes shape {(*lead, taken)}, its input has shape {x.type.shape}", "weight")
    given, groups = _bias(b, unit, (*lead, out)), prod(lead)
    bias = b.tensor(unit, "bias", given.reshape(-1)) if given is not None else None
    column = b.add("reshape", unit, [x], "column", shape=(groups * taken, 1)).result
    matrix = b.tensor(unit, "weight", weight.reshape(groups * out, taken, 1))
    product = b.add(
        "conv1d", unit, [column], "product", weight=matrix, bias=bias, stride=1, padding=0, dilation=1, groups=groups
    ).result
    return b.add("reshape", unit, [product], shape=(*lead, out)).result


def _bias(b: Builder, unit: Unit, shape: Shape) -> Array | None:
    """The bias, None if it adds nothing; a single number holds for all outputs."""
    if "bias" not in unit.values:
        return None
    value = b.array(unit, "bias")
    if value.size == 1 and value.shape != shape:
        b.note(unit, f"one number, {value.item():g}, taken for all outputs {shape}", "bias")
        value = np.broadcast_to(value, shape)
    if value.shape != shape:
        raise b.refuse(unit, f"shape {value.shape} does not fit outputs of shape {shape}", "bias")
    return value if value.any() else None


def convolution(b: Builder, unit: Unit, x: Value) -> Value:
    """Conv1d and Conv2d, cross-correlation as in PyTorch, weight [out, in / groups, *kernel]."""
    axes = 1 if unit.kind == "Conv1d" else 2
    weight = b.array(unit, "weight")
    if weight.ndim != 2 + axes:
        raise b.refuse(unit, f"has {weight.ndim} axes, expected {2 + axes}", "weight")
    if "input_shape" not in unit.values:
        b.note(unit, f"has no input_shape, taken from its input: {x.type.shape[1:]}")
    elif (declared := b.integers(unit, "input_shape", axes)) != x.type.shape[1:]:
        raise b.refuse(unit, f"is {declared}, its input has shape {x.type.shape}", "input_shape")
    stride, dilation = (b.integers(unit, name, axes) for name in ("stride", "dilation"))
    x, padding = _padded(b, unit, x, [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)])
    given = _bias(b, unit, (weight.shape[0],))
    return b.add(
        f"conv{axes}d", unit, [x], weight=b.tensor(unit, "weight", weight),
        bias=b.tensor(unit, "bias", given) if given is not None else None,
        stride=stride, padding=padding, dilation=dilation, groups=b.integers(unit, "groups", 1)[0],
    ).result  # fmt: skip


def _padded(b: Builder, unit: Unit, x: Value, reach: list[int]) -> tuple[Value, Shape]:
    """The input and the padding on both sides; ``same`` puts the odd zero of an even kernel behind, as PyTorch does."""
    word = unit.values["padding"] if isinstance(unit.values["padding"], str) else ""
    if word == "same":
        low, high = [n // 2 for n in reach], [n - n // 2 for n in reach]
        if low == high:
            return x, tuple(low)
        return b.add("pad", unit, [x], "pad", low=(0, *low), high=(0, *high)).result, (0,) * len(reach)
    return x, (0,) * len(reach) if word == "valid" else b.integers(unit, "padding", len(reach))


def pool(b: Builder, unit: Unit, x: Value) -> Value:
    """SumPool2d and AvgPool2d; zeros of the padding count."""
    op = {"SumPool2d": "sum_pool", "AvgPool2d": "avg_pool"}[unit.kind]
    kernel, stride, padding = (b.integers(unit, name, 2) for name in ("kernel_size", "stride", "padding"))
    return b.add(op, unit, [x], kernel=kernel, stride=stride, padding=padding).result


def flatten(b: Builder, unit: Unit, x: Value) -> Value:
    """Flatten: axes start_dim to end_dim of one sample into one (its declared input_type may be stale)."""
    shape = x.type.shape
    start, end = (b.integers(unit, name, 1)[0] for name in ("start_dim", "end_dim"))
    if not (-len(shape) <= start < len(shape) and -len(shape) <= end < len(shape)):
        if len(shape) == 1:
            return x
        raise b.refuse(unit, f"flattens axes {start} to {end} of an input of shape {shape}")
    start, end = start % len(shape), end % len(shape)
    merged = (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])
    if len(merged) == 1:
        return b.add("flatten", unit, [x]).result
    return b.add("reshape", unit, [x], shape=merged).result


def scale(b: Builder, unit: Unit, x: Value) -> Value:
    """Scale, ``y = s x`` number by number."""
    factor = b.number(unit, "scale", b.fitted(unit, ("scale",), x.type.shape)["scale"])
    by = {"factor": factor} if isinstance(factor, float) else {"by": factor}
    return b.add("scale", unit, [x], **by).result
