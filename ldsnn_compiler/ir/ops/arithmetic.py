"""Elementwise ops, joins, BatchNorm and products of streams."""

from __future__ import annotations

import torch

from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.ir.op import Attr, Call, per_step_op
from ldsnn_compiler.ir.ops import lowered
from ldsnn_compiler.ir.types import REAL, Signal


def per_channel(value: torch.Tensor, ndim: int) -> torch.Tensor:
    """A per-channel vector made to broadcast over ``[channel, *space]`` of that many axes; other tensors unchanged."""
    return value.reshape(-1, *[1] * (ndim - 1)) if value.ndim == 1 else value


def _scale(call: Call, x: torch.Tensor) -> torch.Tensor:
    factor = call.tensor("by")
    return x * (call["factor"] if factor is None else per_channel(factor, x.ndim - 1))


def _scale_signal(call: Call) -> Signal:
    signal = call.types[0].signal
    if signal.levels is None or call["by"] is not None or call["factor"] <= 0:
        return REAL
    return Signal(signal.levels, signal.unit * call["factor"])


def _add(call: Call, *data: torch.Tensor) -> torch.Tensor:
    shapes = {t.shape for t in call.types}
    if len(shapes) > 1:
        raise ValueError(f"operands differ in shape: {', '.join(map(str, sorted(shapes)))}")
    total = data[0]
    for other in data[1:]:
        total = total + other
    return total


def _multiply(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if call.types[0].shape != call.types[1].shape:
        raise ValueError(f"operands differ in shape: {call.types[0].shape}, {call.types[1].shape}")
    return a * b


def _multiply_signal(call: Call) -> Signal:
    """Counts multiply, and so do their units."""
    a, b = (t.signal for t in call.types)
    if a.levels is None or b.levels is None:
        return REAL
    return Signal(a.levels * b.levels, a.unit * b.unit)


def _common_unit(call: Call) -> float | None:
    units = {t.signal.unit if t.signal.is_event else None for t in call.types}
    return units.pop() if len(units) == 1 else None


def _add_signal(call: Call) -> Signal:
    unit = _common_unit(call)
    if unit is None:
        return REAL
    levels = [t.signal.levels or 0 for t in call.types]
    return Signal(sum(levels) if all(levels) else 0, unit)


def _concat_signal(call: Call) -> Signal:
    unit = _common_unit(call)
    if unit is None:
        return REAL
    levels = [t.signal.levels or 0 for t in call.types]
    return Signal(max(levels) if all(levels) else 0, unit)


def _add_fan_out(call: Call, operand: int) -> torch.Tensor | None:
    """A shortcut that carries events delivers each of them once; a current was counted where it arose."""
    return torch.ones(call.types[operand].shape) if call.types[operand].signal.is_event else None


def _concat(call: Call, *data: torch.Tensor) -> torch.Tensor:
    return torch.cat(data, dim=1 + call["axis"])


def _batch_norm(call: Call, x: torch.Tensor) -> torch.Tensor:
    mean, var, weight, bias = (call.tensor(k) for k in ("mean", "var", "weight", "bias"))
    return torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.0, call["eps"])


def _matmul(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


def _matmul_fan_out(call: Call, operand: int) -> torch.Tensor | None:
    shape, other = call.types[operand].shape, call.types[1 - operand].shape
    return torch.full(shape, float(other[-1] if operand == 0 else other[-2]))


def _threshold(call: Call, x: torch.Tensor) -> torch.Tensor:
    from ldsnn_compiler.interp.surrogate import heaviside

    fired = heaviside(x - call["at"], call["compare"] == "gt")
    return torch.mul(fired, call["value"])


SCALE = per_step_op(
    "scale",
    "y = by * x, by a number (factor) or a tensor per channel or per element",
    _scale,
    signal=_scale_signal,
    attrs={"factor": Attr(float, 1.0), "by": Attr(TensorRef, None, "in place of factor")},
    compute=lowered.scale,
)
ADD = per_step_op(
    "add",
    "elementwise sum, left to right",
    _add,
    operands=(2, None),
    signal=_add_signal,
    fan_out=_add_fan_out,
    compute=lowered.add,
)
MULTIPLY = per_step_op(
    "multiply",
    "elementwise product of two streams",
    _multiply,
    kind="per_step",
    operands=(2, 2),
    signal=_multiply_signal,
    compute=lowered.multiply,
)
CONCAT = per_step_op(
    "concat",
    "operands one after another along axis (0 is the channel)",
    _concat,
    operands=(1, None),
    signal=_concat_signal,
    attrs={"axis": Attr(int, 0)},
    compute=lowered.concat,
)
BATCH_NORM = per_step_op(
    "batch_norm",
    "y = (x - mean) / sqrt(var + eps) * weight + bias, per channel (evaluation mode)",
    _batch_norm,
    attrs={
        "mean": Attr(TensorRef),
        "var": Attr(TensorRef),
        "weight": Attr(TensorRef, None),
        "bias": Attr(TensorRef, None),
        "eps": Attr(float, 1e-5),
    },
    compute=lowered.batch_norm,
)
MATMUL = per_step_op(
    "matmul",
    "y = a b over the last two axes, both streams",
    _matmul,
    kind="per_step",
    operands=(2, 2),
    fan_out=_matmul_fan_out,
    compute=lowered.matmul,
)
THRESHOLD = per_step_op(
    "threshold",
    "value where x >= at (or x > at), else 0; no state",
    _threshold,
    kind="per_step",
    attrs={"at": Attr(float, 1.0), "compare": Attr(str, "ge", values=("ge", "gt")), "value": Attr(float, 1.0)},
    signal=lambda call: Signal(1, call["value"]) if call["value"] > 0 else REAL,
    compute=lowered.threshold,
)
