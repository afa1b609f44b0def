"""Ops that move numbers without changing them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ldsnn_compiler.ir.op import Attr, Call, keep_signal, per_step_op
from ldsnn_compiler.ir.ops import lowered


def _flatten(call: Call, x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)


def _reshape(call: Call, x: torch.Tensor) -> torch.Tensor:
    return x.reshape(x.shape[0], *call["shape"])


def _slice(call: Call, x: torch.Tensor) -> torch.Tensor:
    keep = slice(call["start"], call["stop"], call["step"])
    return x[(slice(None),) * (1 + call["axis"]) + (keep,)]


def _pad(call: Call, x: torch.Tensor) -> torch.Tensor:
    if len(call["low"]) != x.ndim - 1 or len(call["high"]) != x.ndim - 1:
        raise ValueError(f"low and high need one number for each of {x.ndim - 1} axes")
    pairs = list(zip(call["low"], call["high"], strict=True))
    return F.pad(x, [n for pair in reversed(pairs) for n in pair])


FLATTEN = per_step_op(
    "flatten",
    "all axes into one, row-major",
    _flatten,
    signal=keep_signal,
    compute=lowered.flatten,
)
RESHAPE = per_step_op(
    "reshape",
    "the same numbers in another shape, row-major",
    _reshape,
    signal=keep_signal,
    attrs={"shape": Attr(tuple)},
    compute=lowered.reshape,
)
SLICE = per_step_op(
    "slice",
    "x[start:stop:step] along one axis (0 is the channel)",
    _slice,
    signal=keep_signal,
    attrs={"axis": Attr(int), "start": Attr(int, 0), "stop": Attr(int, None), "step": Attr(int, 1)},
    compute=lowered.slice_,
)
PAD = per_step_op(
    "pad",
    "zeros before and after each axis",
    _pad,
    signal=keep_signal,
    attrs={"low": Attr(tuple, doc="zeros before, per axis"), "high": Attr(tuple, doc="zeros after, per axis")},
    compute=lowered.pad,
)
