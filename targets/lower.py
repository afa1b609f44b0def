"""Lowering: a graph, placed or not, to a :class:`~ldsnn_compiler.targets.plan.Plan`.

Two entries exist: ``run``, the whole window from the initial state, and ``step``, one granule with state in and out.
Nodes of one region become one kernel, the nodes of a cycle another, every other node its plain kernel. A value travels
in the form its producer writes and is converted, once, where a consumer reads another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.bounds import Bounds
from ldsnn_compiler.ir.graph import Graph, Node, Value, tensor_refs
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.cpu import forms
from ldsnn_compiler.targets.plan import BATCH, Buffer, Kernel, Plan

if TYPE_CHECKING:
    from ldsnn_compiler.targets.cpu.kernels import Tuning

COUNTER = "base_step"


class Lowering:
    """The state of one lowering; :func:`plan` is the way in. Emitters add kernels through its methods."""

    def __init__(self, graph: Graph, board: Board, entry: str, tunings: Mapping[str, Tuning]) -> None:
        self.graph, self.board, self.plan, self.tunings = graph, board, Plan(entry), tunings
        self.carried, self._granule = entry == "step", graph.granule
        self._after_readout: set[str] = set()
        for node in graph.of("readout"):
            self._after_readout |= {node.name} | nx.descendants(graph.dag, node.name)
        self._forms: dict[str, dict[str, str]] = {}

    # ---- what emitters ask

    def steps(self, value: Value) -> int:
        """Timesteps of a value in this entry: all, or those of one granule."""
        whole = self._granule == self.graph.base_timesteps
        if not self.carried or value.node.name in self._after_readout or whole:
            return value.type.timesteps
        return int(self._granule / value.type.dt)

    def canonical(self, value: Value) -> Buffer:
        """The buffer ``[T, N, *shape]`` of a value."""
        return Buffer((self.steps(value), BATCH, *value.type.shape), value.type.dtype)

    def read(self, value: Value, form: str = forms.CANONICAL) -> str:
        """The buffer of a value in a form, converting it (once) if it exists in another only."""
        found = self._forms[value.name]
        if form not in found:
            source = next(iter(found))
            name = self.write(value, form)
            conversion = forms.conversion(value.type, self.steps(value), source, form)
            self.kernel(f"{source}_to_{form}", conversion.key, conversion.build, [found[source]], [name], ())
        return found[form]

    def has(self, value: Value, form: str) -> bool:
        """Whether a value exists in that form already."""
        return form in self._forms[value.name]

    def write(self, value: Value, form: str = forms.CANONICAL) -> str:
        """Declare the buffer in which a value is produced."""
        name = value.name if form == forms.CANONICAL else f"{value.name}:{form}"
        self._forms.setdefault(value.name, {})[form] = name
        return self.plan.buffer(name, forms.buffer(value.type, self.steps(value), form))

    def tensor(self, name: str) -> str:
        """A tensor of the graph as an argument: float32, or int32 for whole numbers."""
        value, buffer = self.graph.tensors[name], self.tensor_buffer(name)
        return self.plan.argument(f"@{name}", buffer, lambda: value.to(getattr(torch, buffer.dtype)))

    def tensor_buffer(self, name: str) -> Buffer:
        """The buffer of a tensor of the graph."""
        value = self.graph.tensors[name]
        return Buffer(tuple(value.shape), "float32" if value.is_floating_point() else "int32")

    @cached_property
    def bounds(self) -> Bounds:
        """What is proved of the numbers of a whole-number graph."""
        return Bounds(self.graph)

    def number(self, value: float) -> str:
        """A number as an argument of one element, so that layers that differ in it share their code."""
        return self.plan.argument(f"#{value!r}", Buffer((1,)), lambda: torch.tensor([value]))

    def counter(self) -> str:
        """The argument that holds the base steps done."""
        self.plan.counter = COUNTER
        return self.plan.buffer(COUNTER, Buffer((1,), "int32"))

    def kernel(
        self,
        name: str,
        key: Hashable,
        build: Callable[[int | None], Any],
        operands: Iterable[str],
        results: Iterable[str],
        nodes: Iterable[Node],
    ) -> None:
        """Add a kernel behind those added before."""
        names = tuple(n.name for n in nodes)
        self.plan.kernels.append(Kernel(name, key, build, tuple(operands), tuple(results), names))

    # ---- the walk

    def lower(self) -> Plan:
        """All groups in order."""
        from ldsnn_compiler.targets.cpu import emit

        for group in groups(self.graph):
            emit.group(self, group)
        return self.plan


def plan(graph: Graph, board: Board, entry: str = "run", tunings: Mapping[str, Tuning] = MappingProxyType({})) -> Plan:
    """Lower ``graph`` for ``board``; ``entry`` is ``run`` or ``step``.

    ``tunings`` are measured loop structures by region (:func:`~.cpu.kernels.tune.region_key`); a region that is not
    among them gets what the rules of thumb say.
    """
    return Lowering(graph, board, entry, tunings).lower()


def groups(graph: Graph) -> tuple[tuple[Node, ...], ...]:
    """Nodes that become one kernel together, in an order that respects data: regions, cycles, single nodes."""
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    together: nx.Graph = nx.Graph()
    together.add_nodes_from(order)
    for component in nx.strongly_connected_components(nx.DiGraph(graph.dag)):
        nx.add_path(together, component)
    regions: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.placement and node.placement.region:
            regions.setdefault(node.placement.region, []).append(node.name)
    for members in regions.values():
        nx.add_path(together, members)
    owner = {name: i for i, part in enumerate(nx.connected_components(together)) for name in part}
    quotient: nx.DiGraph = nx.DiGraph()
    quotient.add_nodes_from(owner.values())
    quotient.add_edges_from((owner[a], owner[b]) for a, b in graph.dag.edges() if owner[a] != owner[b])
    members_of: dict[int, list[str]] = {}
    for name in order:
        members_of.setdefault(owner[name], []).append(name)
    try:
        ranked = list(nx.lexicographical_topological_sort(quotient, key=lambda g: order[members_of[g][0]]))
    except nx.NetworkXUnfeasible:
        stuck = [members_of[g] for g, _ in nx.find_cycle(quotient) if len(members_of[g]) > 1]
        problems = [Problem("region is not convex: data leaves it and comes back", where=", ".join(g)) for g in stuck]
        raise LdsnnError(problems) from None
    return tuple(tuple(graph.node(n) for n in members_of[g]) for g in ranked)


def tensors_of(nodes: Iterable[Node]) -> tuple[str, ...]:
    """Names of the tensors these nodes use, each once, in order."""
    return tuple(dict.fromkeys(ref.name for node in nodes for ref in tensor_refs(node)))
