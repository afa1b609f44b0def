"""Pooling over the trailing spatial axes. Sums and averages are linear and keep event counts exact."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F

from ldsnn_compiler.ir.op import Attr, Call, keep_signal, per_step_op
from ldsnn_compiler.ir.ops import lowered
from ldsnn_compiler.ir.types import REAL, Signal

_WINDOW = {"kernel": Attr(tuple, doc="window, per axis"), "stride": Attr(tuple, doc="per axis"), "padding": Attr(tuple)}


def _avg(call: Call, x: torch.Tensor) -> torch.Tensor:
    pool: Callable[..., torch.Tensor] = F.avg_pool2d if len(call["kernel"]) == 2 else F.avg_pool1d
    return pool(x, call["kernel"], call["stride"], call["padding"], False, call["count_include_pad"])


def _sum(call: Call, x: torch.Tensor) -> torch.Tensor:
    kernel, stride, padding = call["kernel"], call["stride"], call["padding"]
    if len(kernel) == 2:
        return F.avg_pool2d(x, kernel, stride, padding, divisor_override=1)
    row = F.avg_pool2d(x[..., None, :], (1, *kernel), (1, *stride), (0, *padding), divisor_override=1)
    return row.squeeze(-2)


def _max(call: Call, x: torch.Tensor) -> torch.Tensor:
    pool: Callable[..., torch.Tensor] = F.max_pool2d if len(call["kernel"]) == 2 else F.max_pool1d
    return pool(x, call["kernel"], call["stride"], call["padding"], call["dilation"])


def _adaptive_avg(call: Call, x: torch.Tensor) -> torch.Tensor:
    pool: Callable[..., torch.Tensor] = F.adaptive_avg_pool2d if len(call["size"]) == 2 else F.adaptive_avg_pool1d
    return pool(x, call["size"])


def _summed(call: Call, area: int, mean: bool) -> Signal:
    signal = call.types[0].signal
    if signal.levels is None:
        return REAL
    return Signal(signal.levels * area, signal.unit / area if mean else signal.unit)


def _avg_signal(call: Call) -> Signal:
    even = call["count_include_pad"] or not any(call["padding"])
    return _summed(call, prod(call["kernel"]), True) if even else REAL


def _adaptive_signal(call: Call) -> Signal:
    axes = call.types[0].shape[-len(call["size"]) :]
    if any(axis % size for axis, size in zip(axes, call["size"], strict=True)):
        return REAL
    return _summed(call, prod(axis // size for axis, size in zip(axes, call["size"], strict=True)), True)


AVG_POOL = per_step_op(
    "avg_pool",
    "mean over windows; padding counts as zeros if count_include_pad",
    _avg,
    signal=_avg_signal,
    attrs={**_WINDOW, "count_include_pad": Attr(bool, True)},
    compute=lowered.avg_pool,
)
SUM_POOL = per_step_op(
    "sum_pool",
    "sum over windows",
    _sum,
    attrs=_WINDOW,
    signal=lambda call: _summed(call, prod(call["kernel"]), False),
    compute=lowered.sum_pool,
)
MAX_POOL = per_step_op(
    "max_pool",
    "largest value of each window",
    _max,
    kind="per_step",
    signal=keep_signal,
    attrs={**_WINDOW, "dilation": Attr(tuple)},
    compute=lowered.max_pool,
)
ADAPTIVE_AVG_POOL = per_step_op(
    "adaptive_avg_pool",
    "mean over windows that divide the input into size parts",
    _adaptive_avg,
    signal=_adaptive_signal,
    attrs={"size": Attr(tuple, doc="output, per axis")},
    compute=lowered.adaptive_avg_pool,
)
