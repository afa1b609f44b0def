"""Ops of a graph as NIR nodes, one maker each; neurons are in :mod:`~ldsnn_compiler.frontend.nir.neurons_out`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from ldsnn_compiler.errors import ImportRefused, Problem
from ldsnn_compiler.frontend.nir.discretise import Step
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.ir.ops.arithmetic import per_channel

Maker = Callable[[Graph, Node, Step], Any]


def refused(node: Node, message: str, hint: str = "") -> ImportRefused:
    """The error for a node that NIR has no form for; raise it."""
    return ImportRefused(Problem(message, node.path or node.name, node.op.name, hint=hint))


def factor(graph: Graph, node: Node) -> npt.NDArray[np.float32]:
    """What a ``scale`` multiplies by, in the shape of its result."""
    if not isinstance(node["by"], TensorRef):
        return np.full(node.type.shape, node["factor"], np.float32)
    return per_channel(graph.tensors[node["by"].name], len(node.type.shape)).broadcast_to(node.type.shape).numpy()


def _tensor(graph: Graph, node: Node, name: str) -> npt.NDArray[np.float32] | None:
    ref = node[name]
    return graph.tensors[ref.name].numpy() if isinstance(ref, TensorRef) else None


def _linear(graph: Graph, node: Node, step: Step) -> Any:
    if len(node.type.shape) != 1:
        raise refused(node, f"acts on the last axis of shape {node.operands[0].type.shape}, NIR's Affine on a vector")
    weight, bias = (_tensor(graph, node, name) for name in ("weight", "bias"))
    return nir.Linear(weight) if bias is None else nir.Affine(weight, bias)


def _conv(graph: Graph, node: Node, step: Step) -> Any:
    weight, bias = (_tensor(graph, node, name) for name in ("weight", "bias"))
    bias = np.zeros(node.type.shape[0], np.float32) if bias is None else bias
    space = node.operands[0].type.shape[1:]
    window = {name: node[name] for name in ("stride", "padding", "dilation")}
    if node.op.name == "conv2d":
        return nir.Conv2d(input_shape=space, weight=weight, bias=bias, groups=node["groups"], **window)
    single = {name: value[0] for name, value in window.items()}
    return nir.Conv1d(input_shape=space[0], weight=weight, bias=bias, groups=node["groups"], **single)


def _flatten(graph: Graph, node: Node, step: Step) -> Any:
    return nir.Flatten({"input": np.array(node.operands[0].type.shape)}, 0, -1)


def _reshape(graph: Graph, node: Node, step: Step) -> Any:
    before, after = node.operands[0].type.shape, node.type.shape
    for start in range(len(before)):
        end = start + len(before) - len(after)
        if end < len(before) and after == (*before[:start], prod(before[start : end + 1]), *before[end + 1 :]):
            return nir.Flatten({"input": np.array(before)}, start, end)
    raise refused(node, f"{before} to {after} flattens no axes, NIR can only flatten")


def _pool(graph: Graph, node: Node, step: Step) -> Any:
    if len(node["kernel"]) != 2:
        raise refused(node, "pools one axis, NIR only two")
    if not node.attrs.get("count_include_pad", True) and any(node["padding"]):
        raise refused(node, "leaves the padding out of its means, NIR counts it")
    kernel, stride, padding = (np.array(node[name]) for name in ("kernel", "stride", "padding"))
    return (nir.SumPool2d if node.op.name == "sum_pool" else nir.AvgPool2d)(kernel, stride, padding)


def _adaptive(graph: Graph, node: Node, step: Step) -> Any:
    space, size = node.operands[0].type.shape[1:], node["size"]
    if len(size) != 2 or any(n % parts for n, parts in zip(space, size, strict=True)):
        raise refused(node, f"{space} to {size} is no pooling by equal windows of two axes")
    kernel = np.array([n // parts for n, parts in zip(space, size, strict=True)])
    return nir.AvgPool2d(kernel, kernel, np.zeros(2, np.int64))


def _threshold(graph: Graph, node: Node, step: Step) -> Any:
    if node["value"] != 1.0:
        raise refused(node, f"emits {node['value']:g}, NIR's Threshold 1")
    at = np.float32(node["at"])
    at = at if node["compare"] == "gt" else np.nextafter(at, np.float32(-np.inf))
    return nir.Threshold(np.full(node.type.shape, at))


MAKERS: Mapping[str, Maker] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "flatten": _flatten,
    "reshape": _reshape,
    "avg_pool": _pool,
    "sum_pool": _pool,
    "adaptive_avg_pool": _adaptive,
    "scale": lambda graph, node, step: nir.Scale(factor(graph, node)),
    "threshold": _threshold,
    "delay": lambda graph, node, step: nir.Delay(np.full(node.type.shape, node["steps"] * step.dt)),
}
