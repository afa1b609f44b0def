"""Ops with synaptic weights: convolutions and linear layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.ir.op import Attr, Call, per_step_op
from ldsnn_compiler.ir.ops import lowered

_CONV_ATTRS = {
    "weight": Attr(TensorRef, doc="[out, in / groups, *kernel]"),
    "bias": Attr(TensorRef, None, "[out], added in every step"),
    "stride": Attr(tuple, doc="per axis"),
    "padding": Attr(tuple, doc="zeros on both sides, per axis"),
    "dilation": Attr(tuple, doc="per axis"),
    "groups": Attr(int, 1),
}


def _conv(call: Call, x: torch.Tensor) -> torch.Tensor:
    conv = F.conv2d if len(call["stride"]) == 2 else F.conv1d
    weight, bias = call.tensor("weight"), call.tensor("bias")
    assert weight is not None
    return conv(x, weight, bias, call["stride"], call["padding"], call["dilation"], call["groups"])


def _linear(call: Call, x: torch.Tensor) -> torch.Tensor:
    weight = call.tensor("weight")
    assert weight is not None
    return F.linear(x, weight, call.tensor("bias"))


CONV1D = per_step_op(
    "conv1d",
    "y[o, p] = b[o] + sum_{c,k} w[o, c, k] x[c, p s - pad + k d]",
    _conv,
    attrs=_CONV_ATTRS,
    weights=("weight",),
    compute=lowered.conv,
)
CONV2D = per_step_op(
    "conv2d",
    "y[o, p, q] = b[o] + sum_{c,k,l} w[o, c, k, l] x[c, p s - pad + k d, q s - pad + l d]",
    _conv,
    attrs=_CONV_ATTRS,
    weights=("weight",),
    compute=lowered.conv,
)
LINEAR = per_step_op(
    "linear",
    "y[..., o] = b[o] + sum_i w[o, i] x[..., i]",
    _linear,
    weights=("weight",),
    attrs={"weight": Attr(TensorRef, doc="[out, in]"), "bias": Attr(TensorRef, None, "[out], added in every step")},
    compute=lowered.linear,
)
