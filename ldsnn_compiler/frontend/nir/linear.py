"""NIR's linear nodes and those that only move numbers, one importer each."""

from __future__ import annotations

from math import prod

import numpy as np

from ldsnn_compiler.frontend.nir.builder import Builder
from ldsnn_compiler.frontend.nir.discretise import Array
from ldsnn_compiler.frontend.nir.source import Unit
from ldsnn_compiler.ir.graph import Value
from ldsnn_compiler.ir.neuron import TensorRef


def affine(b: Builder, unit: Unit, x: Value) -> Value:
    """Affine and Linear, ``y = W x + b`` over the last axis."""
    weight = b.array(unit, "weight")
    if weight.ndim != 2:
        raise b.refuse(unit, f"has {weight.ndim} axes, expected [out, in]", "weight")
    x = _taken(b, unit, x, weight)
    bias = _bias(b, unit, weight.shape[0])
    return b.add("linear", unit, [x], weight=b.tensor(unit, "weight", weight), bias=bias).result


def _taken(b: Builder, unit: Unit, x: Value, weight: Array) -> Value:
    """The input in a shape that the weights take: a flattening that was left out is put in."""
    shape, wanted = x.type.shape, weight.shape[1]
    if shape[-1] == wanted:
        return x
    if prod(shape) != wanted:
        raise b.refuse(unit, f"takes {wanted} numbers, its input has shape {shape}", "weight")
    b.note(unit, f"takes {wanted} numbers, its input of shape {shape} is flattened")
    return b.add("flatten", unit, [x], "flatten").result


def _bias(b: Builder, unit: Unit, count: int) -> TensorRef | None:
    """The bias, None if it adds nothing."""
    if "bias" not in unit.values:
        return None
    value = b.array(unit, "bias")
    if value.size == 1 and value.shape != (count,):
        b.note(unit, f"one number, {value.item():g}, taken for all {count} outputs", "bias")
        value = np.broadcast_to(value, (count,))
    if value.shape != (count,):
        raise b.refuse(unit, f"shape {value.shape} does not fit {count} outputs", "bias")
    return b.tensor(unit, "bias", value) if value.any() else None


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
    return b.add(
        f"conv{axes}d", unit, [x], weight=b.tensor(unit, "weight", weight), bias=_bias(b, unit, weight.shape[0]),
        stride=stride, padding=b.integers(unit, "padding", axes), dilation=dilation,
        groups=b.integers(unit, "groups", 1)[0],
    ).result  # fmt: skip


def pool(b: Builder, unit: Unit, x: Value) -> Value:
    """SumPool2d and AvgPool2d; zeros of the padding count."""
    op = {"SumPool2d": "sum_pool", "AvgPool2d": "avg_pool"}[unit.kind]
    kernel, stride, padding = (b.integers(unit, name, 2) for name in ("kernel_size", "stride", "padding"))
    return b.add(op, unit, [x], kernel=kernel, stride=stride, padding=padding).result


def flatten(b: Builder, unit: Unit, x: Value) -> Value:
    """Flatten: axes start_dim to end_dim of one sample into one."""
    shape = x.type.shape
    start, end = (b.integers(unit, name, 1)[0] % len(shape) for name in ("start_dim", "end_dim"))
    merged = (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])
    if len(merged) == 1:
        return b.add("flatten", unit, [x]).result
    return b.add("reshape", unit, [x], shape=merged).result


def scale(b: Builder, unit: Unit, x: Value) -> Value:
    """Scale, ``y = s x`` number by number."""
    factor = b.number(unit, "scale", b.fitted(unit, ("scale",), x.type.shape)["scale"])
    if isinstance(factor, float):
        return b.add("scale", unit, [x], factor=factor).result
    return b.add("scale", unit, [x], by=factor).result
