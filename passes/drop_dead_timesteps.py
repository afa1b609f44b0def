"""Do not compute steps that nothing reads: liveness per timestep.

Before::

    %s = neuron(%x)                      stream<64, 1, ...>
    %y = linear(%s)                      stream<64, 1, ...>
    %o = slice_time(%y) {steps=10}       stream<10, 1, ...>

After::

    %i = slice_time(%x) {steps=10}
    %s = neuron(%i)                      stream<10, 1, ...>
    %y = linear(%s)                      stream<10, 1, ...>

The maths: ops are causal, so the first t steps of a result need the first t steps of the operands; the first t steps
of a resample need those that its first t windows touch, rounded up to where both grids meet. Every other use reads
all steps: a readout (the last step is not a prefix of anything), a latency code, an output. What a value must hold is
the most that any user needs, found backwards; around a cycle until it no longer grows. Then each value is cut where
it is made, or, where another user needs more of it, where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.passes._grids import settle_delays
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass


@register_pass
@dataclass(frozen=True)
class DropDeadTimesteps(Pass):
    """Cut streams to the leading steps that are read."""

    name: ClassVar[str] = "drop-dead-timesteps"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph) -> bool:
        if not graph.of("slice_time"):  # only a slice leaves steps unread
            return False
        live = _Liveness(graph)
        with graph.edit():
            changed = live.apply()
            if changed:
                delays = graph.of("delay")
                settle_delays(graph, {d.name: (live.steps[d.result], d.type.dt) for d in delays})
        return changed


@dataclass
class _Liveness:
    """``steps``: how many leading steps each value will have; ``reads``: how many each operand is read for."""

    graph: Graph
    needed: dict[Value, int] = field(default_factory=dict)
    reads: dict[tuple[Node, int], int] = field(default_factory=dict)
    steps: dict[Value, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        nodes = self.graph.nodes
        self.needed = {value: 1 for node in nodes for value in node.results}
        growing = True
        while growing:
            growing = any([self._look_back(node) for node in reversed(nodes)])

    def _look_back(self, node: Node) -> bool:
        grown = False
        for i, operand in enumerate(node.operands):
            self.reads[node, i] = count = self._read(node, operand)
            if count > self.needed[operand]:
                self.needed[operand], grown = count, True
        return grown

    def _read(self, node: Node, operand: Value) -> int:
        """Leading steps of ``operand`` that the needed results of ``node`` depend on."""
        wanted = max((self.needed[value] for value in node.results), default=1)
        if node.op.name == "resample":
            return self._touched(node, wanted)
        if node.op.name == "slice_time":
            return wanted
        if node.op.acts_per_step or node.op.name in ("neuron", "delay"):
            return wanted
        if node.op.name == "encode" and node["code"] != "latency":
            return wanted
        return operand.type.timesteps

    def _touched(self, node: Node, wanted: int) -> int:
        ratio = node["dt"] / node.operands[0].type.dt
        while (wanted * ratio).denominator != 1:
            wanted += 1
        return int(wanted * ratio)

    def apply(self) -> bool:
        changed = False
        cuts: dict[tuple[Value, int], Node] = {}
        nodes = self.graph.nodes
        for node in nodes:
            if node.op.name == "delay":
                self.steps[node.result] = self.needed[node.result]
        for node in nodes:
            for i, operand in enumerate(node.operands):
                count = self.reads[node, i]
                if node.op.name in ("slice_time", "delay") or self.steps[operand] == count:
                    continue
                if (operand, count) not in cuts:
                    cuts[operand, count] = self.graph.add("slice_time", [operand], steps=count, before=node)
                self.graph.set_operand(node, i, cuts[operand, count].result)
                changed = True
            changed |= self._settle(node)
        return self._cut_delays(nodes, cuts) or changed

    def _settle(self, node: Node) -> bool:
        """Note how many steps the results have; a slice is shortened, or goes where its operand is short enough."""
        if node.op.name == "slice_time":
            return self._slice(node)
        for value in node.results:
            self.steps.setdefault(value, self._made(node, value))
        return False

    def _slice(self, node: Node) -> bool:
        operand, count = node.operands[0], self.needed[node.result]
        self.steps[node.result] = count
        if self.steps[operand] == count:
            self.graph.remove(node)
            return True
        if count == node["steps"]:
            return False
        self.graph.set_attrs(node, steps=count)
        return True

    def _made(self, node: Node, value: Value) -> int:
        if not node.operands or node.op.name == "readout":
            return value.type.timesteps
        if node.op.name == "resample":
            return int(self.reads[node, 0] * node.operands[0].type.dt / node["dt"])
        return self.reads[node, 0]

    def _cut_delays(self, nodes: tuple[Node, ...], cuts: dict[tuple[Value, int], Node]) -> bool:
        """A delay comes before its operand, so its operand is cut last."""
        changed = False
        for node in nodes:
            if node.op.name != "delay":
                continue
            operand, count = node.operands[0], self.steps[node.result]
            if self.steps[operand] != count:
                if (operand, count) not in cuts:
                    cuts[operand, count] = self.graph.add("slice_time", [operand], steps=count)
                self.graph.set_operand(node, 0, cuts[operand, count].result)
                changed = True
        return changed
