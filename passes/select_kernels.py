"""Choose a kernel for every layer and a form for every value, for one target.

Before::

    %c = conv2d(%s0)                       %s0 event(1, 1.0)
    %s = neuron(%c)
    %p = avg_pool(%s)

After::

    %c = conv2d(%s0) ...  place(event, dense, inside, -)
    %s = neuron(%c) ...   place(event, bits, inside, -)
    %p = avg_pool(%s) ... place(event, planes, inside, -)

The maths: a layer that walks spikes costs ``reads * density * (find + rows)``, one that multiplies everything
``reads * channels`` (see ``ldsnn_compiler.targets.cost``); the density of a layer's input is measured, or guessed for
neurons and followed through pools (a window of n is silent with probability ``(1 - d)**n``). An average over timesteps
that no region takes in is such a pool. Layers that fit a GPU's
tensor cores are weighed by the batch as well (``ldsnn_compiler.targets.cuda.cost``). Bounded events travel in
bits (bit planes for counts) where their producer can write them and a consumer reads them; where the others read
numbers, those are unpacked once. Counts that only dense kernels of whole numbers read travel in bytes.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import ClassVar

import networkx as nx

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.placement import Placement
from ldsnn_compiler.ir.store import read_file
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass
from ldsnn_compiler.targets.boards import Board, board
from ldsnn_compiler.targets.cost import GUESSED_DENSITY, POOLS, prefers_events
from ldsnn_compiler.targets.cuda.cost import Layer
from ldsnn_compiler.targets.region import SYNAPSES, fusible, regions, scales_whole, time_change

#: counts of more bits than this travel as numbers
MOST_PLANES = 8


@register_pass
@dataclass(frozen=True)
class SelectKernels(Pass):
    """Place every node on ``target`` (a board's name, or the JSON text of one; default native).

    ``density`` is a JSON file, or JSON text, of the non-zero share of values by node name or module path. ``kernel``
    forces ``event`` or ``dense`` on every layer that has the choice. ``batch`` (default 1) is what the choice is made
    for on a GPU whose tensor cores a layer fits.
    """

    name: ClassVar[str] = "select-kernels"
    exact: ClassVar[bool] = True
    target: str | None = None
    density: str | None = None
    kernel: str | None = None
    batch: int | None = None

    def run(self, graph: Graph) -> bool:
        if graph.stage != "scheduled":
            raise LdsnnError(
                Problem(f"kernels are selected for a scheduled graph, this one is {graph.stage}", graph.name)
            )
        if self.kernel not in (None, "event", "dense"):
            raise LdsnnError(Problem(f"kernel is event or dense, not {self.kernel!r}", where=self.name))
        densities = read_densities(graph, self.density)
        chooser = _Chooser(graph, _board(self.target or "native"), densities, self.kernel, self.batch or 1)
        for node in graph.nodes:
            if node.op.name not in ("input", "output"):
                graph.place(node, chooser.placement(node))
        graph.stage = "placed"
        return True


def _board(text: str) -> Board:
    if not text.startswith("{"):
        return board(text)
    try:
        return Board.of_json(json.loads(text))
    except (ValueError, KeyError) as error:
        raise LdsnnError(Problem(f"not the JSON of a board: {error}", where="select-kernels")) from None


def read_densities(graph: Graph, source: str | None) -> dict[str, float]:
    """Densities by node name, from a file or JSON text keyed by node name or module path; all mistakes at once.

    They may be measured on a graph whose nodes passes have merged since: keys that name nothing are left out.
    """
    if source is None:
        return {}
    content = source.encode() if source.lstrip().startswith("{") else read_file(Path(source))
    try:
        given = json.loads(content)
    except ValueError as error:
        raise LdsnnError(Problem(f"densities are not JSON: {error}", where="select-kernels")) from None
    if not isinstance(given, Mapping):
        raise LdsnnError(Problem("densities are an object of node names or module paths", where="select-kernels"))
    named: dict[str, list[str]] = {}
    for node in graph.nodes:
        named.setdefault(node.path, []).append(node.name)
    problems, found = [], {}
    for key, value in given.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            problems.append(Problem(f"a density is between 0 and 1, not {value!r}", where=key))
        for name in [key] if key in graph else named.get(key, []):
            found[name] = value
    if problems:
        raise LdsnnError(problems)
    return found


class _Chooser:
    def __init__(
        self, graph: Graph, machine: Board, densities: Mapping[str, float], kernel: str | None, batch: int
    ) -> None:
        self.graph, self.board, self.kernel, self.batch = graph, machine, kernel, batch
        self.measured, self.known = densities, dict[str, float]()
        self.cyclic = cyclic(graph)
        taken = self.cyclic | regions(graph, self.cyclic).keys()
        self.pools = frozenset(n.name for n in graph.nodes if n.name not in taken and is_pool(n))

    def placement(self, node: Node) -> Placement:
        """Kernel and form of one node; a node of a cycle is plain, and time is outside."""
        if node.name in self.cyclic:
            return Placement("plain", "dense", order="outside")
        return Placement(self._kernel(node), self._form(node))

    def _kernel(self, node: Node) -> str:
        if node.op.name in SYNAPSES and fusible(node):
            return self._synapse_kernel(node)
        if node.op.name == "neuron":
            return "event" if self._form(node) != "dense" else "dense"
        return "event" if node.name in self.pools and self._form(node) != "dense" else "plain"

    def _synapse_kernel(self, node: Node) -> str:
        source = events_behind(node.operands[0], self.pools)
        depthwise = node.op.name != "linear" and node["groups"] > 1 and node["groups"] == node.operands[0].type.shape[0]
        if source is None or depthwise or source.node.name in self.cyclic:
            return "dense"
        if self.kernel is not None:
            return self.kernel
        density, gpu = self.density(source.node), self.board.gpu
        if gpu is not None and (layer := Layer.of(self.graph, node)).fits(gpu):
            return "event" if layer.prefers_events(gpu, self.batch, density) else "dense"
        return "event" if prefers_events(self.graph, node, source, self.board, density) else "dense"

    def _form(self, node: Node) -> str:
        signal = node.type.signal
        is_small = signal.is_bounded and signal.planes <= MOST_PLANES
        if not is_small or node.name in self.cyclic or not self._writes_bits(node):
            return "dense"
        if not any(self._reads_bits(user, node) for user, _ in self.graph.uses(node.result)):
            return "dense"
        return "bits" if signal.levels == 1 else "planes"

    def _writes_bits(self, node: Node) -> bool:
        if node.op.name == "neuron":
            return True
        source = node.operands[0].node if node.name in self.pools else None
        return source is not None and pools_on_bits(node) and self._form(source) != "dense"

    def _reads_bits(self, user: Node, source: Node) -> bool:
        """Directly, or through ops that fusion will absorb. Of a neuron's whole numbers dense kernels rather read
        bytes."""
        if user.name in self.cyclic:
            return False
        in_bytes = source.op.name == "neuron" and source.type.dtype != "float32" and self.board.gpu is None
        if user.op.name in SYNAPSES:
            return fusible(user) and not (in_bytes and self._synapse_kernel(user) == "dense")
        if user.name in self.pools:
            return pools_on_bits(user)
        if user.op.name in ("resample", "flatten", "add", "readout") or scales_whole(self.graph, user):
            users = [u for u, _ in self.graph.uses(user.result)]
            return any(self._reads_bits(u, source) or (u.op.name == "neuron" and not in_bytes) for u in users)
        return False

    def density(self, node: Node) -> float:
        """Non-zero share of a node's first result."""
        if node.name in self.measured:
            return float(self.measured[node.name])
        if node.name not in self.known:
            self.known[node.name] = 1.0
            self.known[node.name] = self._followed(node)
        return self.known[node.name]

    def _followed(self, node: Node) -> float:
        if not node.type.signal.is_event:
            return 1.0
        if node.name in self.pools:
            return 1.0 - (1.0 - self.density(node.operands[0].node)) ** window_size(node)
        if node.op.name in ("neuron", "encode", "threshold", "delay"):
            return GUESSED_DENSITY
        return min(1.0, sum(self.density(o.node) for o in node.operands)) if node.operands else 1.0


def cyclic(graph: Graph) -> frozenset[str]:
    """Names of the nodes on cycles, and of neurons with a second operand, which share the kernel of a cycle."""
    whole = nx.DiGraph(graph.dag)
    parts = nx.strongly_connected_components(whole)
    fed = frozenset(n.name for n in graph.of("neuron") if len(n.operands) > 1)
    return fed.union(n for part in parts for n in part if len(part) > 1 or whole.has_edge(n, n))


def events_behind(value: Value, pools: Container[str] = ()) -> Value | None:
    """The bounded events that a layer reads, through flattening and whole-step time changes, but not through ``pools``;
    None if there are none."""
    node = value.node
    if node.op.name in ("flatten", "resample", "readout") and node.name not in pools:
        return events_behind(node.operands[0], pools)
    signal = value.type.signal
    return value if signal.is_bounded and signal.planes <= MOST_PLANES else None


def is_pool(node: Node) -> bool:
    """Whether a node pools over space, or over whole timesteps."""
    return node.op.name in POOLS or (node.op.name == "resample" and time_change(node) in ("mean", "sum"))


def window_size(node: Node) -> int:
    """Numbers in one window of a pool."""
    if node.op.name == "resample":
        return int(node.type.dt / node.operands[0].type.dt)
    if node.op.name == "adaptive_avg_pool":
        axes = node.operands[0].type.shape[-len(node["size"]) :]
        return prod(max(1, d // s) for d, s in zip(axes, node["size"], strict=True))
    return prod(node["kernel"])


def pools_on_bits(node: Node) -> bool:
    """Whether a pool can stay in bits: one or two axes of space behind the channels (of time, any), no more planes than
    its type."""
    source, result = node.operands[0].type, node.type
    fits = node.op.name == "resample" or len(source.shape) in (2, 3)
    if not (source.signal.is_bounded and result.signal.is_bounded and fits):
        return False
    if node.op.name == "max_pool":
        return all(d == 1 for d in node["dilation"])
    largest: int = window_size(node) * (2**source.signal.planes - 1)
    return largest.bit_length() == result.signal.planes


__all__ = ["SelectKernels", "cyclic", "events_behind", "pools_on_bits", "read_densities", "window_size"]
