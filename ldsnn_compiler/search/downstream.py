"""What the layers after a neuron layer see of its output: the error that counts when the layer is changed.

Rounding differs from neuron to neuron and averages out where the next layer adds hundreds of them; clipping and early
spikes are shared and do not. So two outputs are compared by the currents they cause in the next neuron layers, in
thresholds of those, and at the ends of the network by their means over time, which is what classes are read from.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from torch import Tensor

from ldsnn_compiler.frontend.bias import evaluate
from ldsnn_compiler.ir.graph import Graph, Node

TRANSPARENT = ("resample",)
"""Ops in time that outputs are compared through, on the grid they have."""


class Downstream:
    """The part of ``graph`` between neuron layer ``node`` and the next ones.

    ``wanted [T, N, *shape]`` is what the layer should emit; T is any grid, 1 for means over time.
    """

    def __init__(self, graph: Graph, node: Node, wanted: Tensor) -> None:
        self._graph, self._node, self._wanted = graph, node, wanted
        self._between, self._ends = _between(graph, node)

    def error(self, output: Tensor) -> float:
        """Squared difference that ``output [T, N, *shape]`` makes, a mean per end, summed over the ends."""
        pairs = zip(self._seen(output), self._reference, strict=True)
        return sum(float((seen - wanted).square().mean()) for seen, wanted in pairs)

    @cached_property
    def _reference(self) -> list[Tensor]:
        return list(self._seen(self._wanted))

    def _seen(self, output: Tensor) -> Iterator[Tensor]:
        """What arrives at each end; operands from elsewhere are 0, for they are the same in both."""
        values = {self._node.result.name: output}
        for node in self._between:
            inputs = [
                values[o.name] if o.name in values else output.new_zeros(*output.shape[:2], *o.type.shape)
                for o in node.operands
            ]
            passed = node.op.name in TRANSPARENT
            values[node.result.name] = inputs[0] if passed else evaluate(self._graph, node, inputs)
        for end, name in self._ends:
            yield values[name].mean(0) if end.op.name in ("output", "readout") else values[name] / _threshold(end)


def _between(graph: Graph, node: Node) -> tuple[list[Node], list[tuple[Node, str]]]:
    """Ops that only hand on what ``node`` emits, in order; and where it ends up: users and the values they read."""
    reached, between, ends = {node.result.name}, list[Node](), list[tuple[Node, str]]()
    for user in graph.nodes:
        read = [o.name for o in user.operands if o.name in reached]
        if read and _hands_on(user):
            between.append(user)
            reached.add(user.result.name)
        else:
            ends += [(user, name) for name in read]
    return between, ends


def _hands_on(node: Node) -> bool:
    """Whether what a node gives can be told from one operand, up to what it gives without it."""
    alone = node.op.kind == "linear" or (node.op.kind == "per_step" and len(node.operands) == 1)
    return alone or node.op.name in TRANSPARENT


def _threshold(end: Node) -> float:
    """What a neuron's current is measured in; 1 for other ops, and where it differs from channel to channel."""
    value = end["neuron"].params.get("threshold", 1.0) if end.op.name == "neuron" else 1.0
    return value if isinstance(value, float) and value > 0 else 1.0
