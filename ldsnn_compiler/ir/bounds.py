"""Bounds of the numbers in a whole-number graph, proved from its weights, its signals and the length of its run.

A current is bounded by the sum of its positive and the sum of its negative contributions, each input at its largest
count: every partial sum, in any order, lies between the two. Neurons are in :mod:`ldsnn_compiler.ir.neuron_bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import torch

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.intervals import UNKNOWN, ZERO, Interval, hull, product, times
from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.ir.neuron_bounds import NeuronBounds, neuron_bounds

INT16, INT32, FLOAT32 = 2**15, 2**31, 2**24
"""What the sums of a type stay below: int16, int32, and whole numbers that float32 holds exactly."""


@dataclass
class Bounds:
    """Bounds of a graph's values, worked out as they are asked for."""

    graph: Graph
    _values: dict[str, Interval] = field(default_factory=dict)
    _neurons: dict[str, NeuronBounds] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    def value(self, value: Value) -> Interval:
        """Of every number in the stream; far beyond int32 where nothing is known, as in a cycle of sums."""
        if value.name not in self._values:
            if value.name in self._open:
                return UNKNOWN
            self._open.add(value.name)
            self._values[value.name] = self._found(value)
            self._open.discard(value.name)
        return self._values[value.name]

    def neuron(self, node: Node) -> NeuronBounds:
        """Of a neuron's state and results."""
        if node.name not in self._neurons:
            neuron: Neuron = node["neuron"]
            given = dict(zip(neuron.program.inputs, map(self.value, node.operands), strict=True))
            self._neurons[node.name] = neuron_bounds(self.graph, node, given)
        return self._neurons[node.name]

    def _found(self, value: Value) -> Interval:
        node, signal = value.node, value.type.signal
        if signal.is_bounded:
            return Interval.of(0.0, float(signal.levels or 0) * signal.unit)
        if node.op.name == "neuron":
            bounds = self.neuron(node)
            emitted = times(bounds.emitted, node["neuron"].substeps)
            return bounds.state[node["neuron"].program.membrane] if value.index else emitted
        if node.op.name in _RULES:
            return _RULES[node.op.name](self.graph, node, [self.value(o) for o in node.operands])
        return UNKNOWN


def overflows(graph: Graph, bounds: Bounds | None = None) -> list[Problem]:
    """Every value of a whole-number graph that is not proved to fit int32."""
    known, problems = bounds or Bounds(graph), []
    for node in graph.nodes:
        peaks = [known.value(v).peak for v in node.results if v.type.dtype != "float32"]
        if node.op.name == "neuron" and peaks:
            peaks.append(known.neuron(node).peak)
        if max(peaks, default=0.0) >= INT32:
            message = f"sums of up to {max(peaks):.3g} are not proved to fit int32"
            hint = "fewer weight_bits, fewer timesteps, or a floor under the membrane (v_min)"
            problems.append(Problem(message, node.path or f"%{node.name}", node.op.name, hint=hint))
    return problems


# ---- values


def _synapse(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    weight = graph.tensors[node["weight"].name].double()
    groups = node["groups"] if node.op.name != "linear" else 1
    x = given[0]
    if node.op.name != "linear" and any(node["padding"]):
        x = x.hull(ZERO)
    taps = weight.flatten(2).clamp(min=0).sum(2) if weight.ndim > 2 else weight.clamp(min=0)
    drops = weight.flatten(2).clamp(max=0).sum(2) if weight.ndim > 2 else weight.clamp(max=0)
    if node.op.name == "linear" and len(node.type.shape) != 1:
        x = _spread(x)
    high, low = (end.expand(weight.shape[1] * groups) for end in (x.high, x.low))
    most = _grouped(taps, high, groups) + _grouped(drops, low, groups)
    least = _grouped(taps, low, groups) + _grouped(drops, high, groups)
    bias = graph.tensors[node["bias"].name].double() if node["bias"] is not None else torch.zeros(())
    total = Interval(least + bias, most + bias)
    return total if node.op.name != "linear" or len(node.type.shape) == 1 else _spread(total)


def _grouped(weight: torch.Tensor, x: torch.Tensor, groups: int) -> torch.Tensor:
    """``[out, in / groups]`` times ``[in]``: output o reads the inputs of its group."""
    return torch.flatten(weight.unflatten(0, (groups, -1)) @ x.reshape(groups, -1, 1))


def _spread(x: Interval) -> Interval:
    """One interval for all channels."""
    return Interval.of(*x.whole)


def _quantize(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    return Interval.of(node["low"], node["high"])


def _scale(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    if node["by"] is None:
        return times(given[0], node["factor"])
    by = graph.tensors[node["by"].name].double()
    return times(given[0], by) if by.ndim == 1 else _spread(times(_spread(given[0]), by))


def _add(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    low, high = given[0].low, given[0].high
    for other in given[1:]:
        low, high = low + other.low, high + other.high
    return Interval(low, high)


def _sum_pool(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    x = given[0].hull(ZERO) if any(node["padding"]) else given[0]
    return times(x, prod(node["kernel"]))


def _summed(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    source = node.operands[0].type
    if node["mode"] != "sum":
        return given[0]
    return times(given[0], (node.type.dt / source.dt).numerator)


def _flatten(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    shape = node.operands[0].type.shape
    return given[0].map(lambda end: end.repeat_interleave(prod(shape[1:])) if end.ndim else end)


def _slice(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    if node["axis"] % len(node.type.shape):
        return given[0]
    part = slice(node["start"], node["stop"], node["step"])
    return given[0].map(lambda end: end[part] if end.ndim else end)


def _pad(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    wide = node["low"][0] or node["high"][0]
    return (_spread(given[0]) if wide else given[0]).hull(ZERO)


def _concat(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    if node["axis"] % len(node.type.shape):
        return hull(map(_spread, given))
    sizes = [o.type.shape[0] for o in node.operands]
    return Interval(
        torch.cat([x.low.expand(n) for x, n in zip(given, sizes, strict=True)]),
        torch.cat([x.high.expand(n) for x, n in zip(given, sizes, strict=True)]),
    )


def _matmul(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    return times(product(_spread(given[0]), _spread(given[1])), node.operands[0].type.shape[-1])


def _constant(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    value = graph.tensors[node["value"].name].double()
    return Interval(value.min(), value.max())


Rule = Callable[[Graph, Node, list[Interval]], Interval]
_RULES: Mapping[str, Rule] = {
    "conv1d": _synapse, "conv2d": _synapse, "linear": _synapse,
    "quantize": _quantize, "scale": _scale, "add": _add, "sum_pool": _sum_pool, "constant": _constant,
    "resample": _summed, "readout": _summed, "flatten": _flatten, "slice": _slice, "pad": _pad, "concat": _concat,
    "multiply": lambda graph, node, given: product(*given), "matmul": _matmul,
    "reshape": lambda graph, node, given: _spread(given[0]),
    "delay": lambda graph, node, given: given[0].hull(ZERO),
    "max_pool": lambda graph, node, given: given[0],
    "slice_time": lambda graph, node, given: given[0],
}  # fmt: skip

__all__ = ["FLOAT32", "INT16", "INT32", "Bounds", "Interval", "NeuronBounds", "overflows"]
