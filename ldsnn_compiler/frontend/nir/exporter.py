"""From the nodes of a graph to NIR nodes and edges.

Sums are several edges into one node. Ops that only say when values are there (a static input that is held, the readout
before an output) leave no node, and neither does the timestep that recurrence takes, where the reader puts it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import networkx as nx
import nir
import numpy as np

from ldsnn_compiler.errors import ImportRefused, LdsnnError, Problem
from ldsnn_compiler.frontend.nir.cycles import waiting_edges
from ldsnn_compiler.frontend.nir.discretise import Step
from ldsnn_compiler.frontend.nir.makers import MAKERS, factor, refused
from ldsnn_compiler.frontend.nir.metadata import entries, schedule_entries
from ldsnn_compiler.frontend.nir.neurons_out import Source, written
from ldsnn_compiler.frontend.nir.nodes import keeps_state
from ldsnn_compiler.frontend.nir.source import Edge, Net, Unit
from ldsnn_compiler.frontend.nir.times import CONSTANT, RUN, time_roles
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.schedule import LayerSchedule, neuron_layers

SILENT = ("resample", "readout", "add")
"""Ops that become no node: what reads them gets edges from what they read."""


class Exporter:
    """One export. ``notes`` hold what other readers will miss.

    With ``explicit`` every delay of the graph is a Delay node; else those of one step in a cycle are left to the
    reader, and :meth:`faithful` says whether it puts them where they were.
    """

    def __init__(self, graph: Graph, step: Step, layers: Mapping[str, LayerSchedule], explicit: bool = False) -> None:
        self.graph, self.step = graph, step
        self.layers = {node.name: layers.get(path) for path, node in neuron_layers(graph).items()}
        self.notes: list[Problem] = []
        self.nodes: dict[str, Any] = {}
        self.reads: dict[str, tuple[Value | str, ...]] = {}
        self.names: dict[Value, str] = {}
        self.edges: list[Edge] = []
        self.waiting: set[Edge] = set()
        self.gains = {node for node in graph.of("scale") if self._is_gain(node)}
        self.looped = set[Node]() if explicit else set(self._loops())

    def export(self) -> None:
        """Fill ``nodes`` and ``edges``.

        Raises:
            ImportRefused: everything that NIR has no form for.
        """
        self.roles, problems = time_roles(self.graph)
        for node in self.graph.nodes:
            if node.op.name not in SILENT and node not in self.gains and node not in self.looped:
                try:
                    self._add(node)
                except LdsnnError as error:
                    problems += error.problems
        if problems:
            raise ImportRefused(problems)
        for name in list(self.reads):
            self._join(name)

    def faithful(self) -> bool:
        """Whether the reader delays the very edges that the graph delays."""
        net = Net({name: Unit(name, type(made).__name__, {}) for name, made in self.nodes.items()}, self.edges, {})
        waits = {name for name, unit in net.units.items() if unit.kind == "Delay"}
        found = waiting_edges(net, lambda name: keeps_state(net.units[name]), waits.__contains__)
        return found == self.waiting

    def _is_gain(self, node: Node) -> bool:
        """A factor that only one neuron reads, as its input: it becomes the neuron's resistance."""
        uses = self.graph.uses(node.result)
        return len(uses) == 1 and uses[0][0].op.name == "neuron" and len(uses[0][0].operands) == 1

    def _loops(self) -> Iterator[Node]:
        """Delays of one step in cycles."""
        for part in nx.strongly_connected_components(self.graph.dag):
            for node in (self.graph.node(name) for name in part if len(part) > 1):
                if node.op.name == "delay" and node["steps"] == 1:
                    yield node

    # ---- nodes

    def _add(self, node: Node) -> None:
        if any(self.graph.uses(value) for value in node.results[1:]):
            raise refused(node, "its membrane is read, NIR's neurons give spikes only")
        if node.op.name == "neuron":
            self._neuron(node)
        elif node.op.name == "input":
            time = "static" if node["time"] == "static" else None
            shape = {"input": np.array(node.type.shape)}
            self._put(node, nir.Input(shape, metadata=entries(time=time)))
        elif node.op.name == "output":
            role = self.roles[node.operands[0]]
            if role == CONSTANT:
                raise refused(node, "is computed of static inputs alone, no spike is involved")
            metadata = entries(readout=None if role == RUN else role)
            self._put(node, nir.Output({"output": np.array(node.type.shape)}, metadata=metadata), *node.operands)
        elif node.op.name in MAKERS:
            self._put(node, MAKERS[node.op.name](self.graph, node, self.step), *node.operands)
        else:
            raise refused(node, "has no form in NIR")

    def _neuron(self, node: Node) -> None:
        x = node.operands[0]
        gain = np.ones(node.type.shape)
        if x.node in self.gains:
            gain, x = factor(self.graph, x.node).astype(np.float64), x.node.operands[0]
        made = written(Source(self.graph, node, self.step, gain))
        metadata = {**made.metadata, **schedule_entries(self.layers[node.name])}
        self.notes += [Problem(message, node.path or node.name, made.kind) for message in made.notes]
        self._put(node, getattr(nir, made.kind)(**made.values, metadata=metadata), x, *node.operands[1:])
        if made.value is not None:
            spikes = self.names[node.result]
            self._put(node, nir.Scale(made.value), spikes, suffix=".value")

    def _put(self, node: Node, made: Any, *reads: Value | str, suffix: str = "") -> None:
        """A NIR node that gives the node's result."""
        name = self._fresh((node.path or node.name).replace("/", "_") + suffix)
        self.nodes[name], self.reads[name] = made, reads
        self.names[node.result] = name

    def _fresh(self, wanted: str) -> str:
        name, n = wanted, 1
        while name in self.nodes:
            n += 1
            name = f"{wanted}#{n}"
        return name

    # ---- edges

    def _join(self, name: str) -> None:
        """Edges into a node; a source that counts twice goes through a Scale by 1 the second time."""
        for source, late in [end for read in self.reads[name] for end in self._ends(read, ())]:
            edge = (source, name)
            if edge in self.edges:
                again = self._fresh(f"{name}.again")
                self.nodes[again] = nir.Scale(np.ones(self.nodes[source].output_type["output"], np.float32))
                self.edges.append(edge := (source, again))
                self.edges.append((again, name))
            else:
                self.edges.append(edge)
            if late:
                self.waiting.add(edge)

    def _ends(self, read: Value | str, trail: tuple[Node, ...]) -> list[tuple[str, bool]]:
        """The NIR nodes whose outputs add up to a value, and whether they come one timestep late."""
        if isinstance(read, str):
            return [(read, False)]
        if read in self.names:
            return [(self.names[read], False)]
        if read.node in trail:
            raise refused(read.node, "is fed with nothing but itself")
        ends = [end for operand in read.node.operands for end in self._ends(operand, (*trail, read.node))]
        return [(name, True) for name, _ in ends] if read.node in self.looped else ends
