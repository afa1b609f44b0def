"""Borders of the whole-number part of a network: real numbers in, real numbers out.

Between them every stream is ``int32``, its events have unit 1, and its sums are exact whatever their order.
"""

from __future__ import annotations

import torch

from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.ir.op import Attr, Call, per_step_op
from ldsnn_compiler.ir.ops import lowered
from ldsnn_compiler.ir.ops.arithmetic import per_channel
from ldsnn_compiler.ir.types import REAL, Signal

WHOLE = "int32"


def _quantize(call: Call, x: torch.Tensor) -> torch.Tensor:
    """float32 arithmetic; the whole numbers are then held in float64, which sums them exactly."""
    if call["scale"] <= 0 or call["low"] > call["high"]:
        raise ValueError(f"needs a positive scale and low <= high, not {call['scale']}, {call['low']}, {call['high']}")
    return torch.floor(x / x.new_tensor(call["scale"]) + 0.5).clamp(call["low"], call["high"]).double()


def _quantize_signal(call: Call) -> Signal:
    """Counts where events come in, in their own unit."""
    signal = call.types[0].signal
    return Signal(signal.levels) if signal.levels is not None and signal.unit == call["scale"] else REAL


def _dequantize(call: Call, x: torch.Tensor) -> torch.Tensor:
    by = call.tensor("by")
    x = x.to(torch.float32)
    return x * (x.new_tensor(call["scale"]) if by is None else per_channel(by.to(x), x.ndim - 1))


def _dequantize_signal(call: Call) -> Signal:
    signal = call.types[0].signal
    if signal.levels is None or call["by"] is not None or call["scale"] <= 0:
        return REAL
    return Signal(signal.levels, signal.unit * call["scale"])


QUANTIZE = per_step_op(
    "quantize",
    "y = clamp(floor(x / scale + 0.5), low, high), whole numbers; IEEE division in float32",
    _quantize,
    kind="per_step",
    dtype=WHOLE,
    takes="float32",
    attrs={"scale": Attr(float), "low": Attr(int), "high": Attr(int)},
    signal=_quantize_signal,
    compute=lowered.quantize,
)
DEQUANTIZE = per_step_op(
    "dequantize",
    "y = float32(x) * scale, scale a number or, as by, a tensor per channel or per element",
    _dequantize,
    dtype="float32",
    takes=WHOLE,
    attrs={"scale": Attr(float, 1.0), "by": Attr(TensorRef, None, "in place of scale")},
    signal=_dequantize_signal,
    compute=lowered.dequantize,
)
