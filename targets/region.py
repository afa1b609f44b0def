"""What a fused region is in a graph: a root (a neuron, a convolution or a linear layer) and the addends of its current.

.. code-block:: text

    value -> [resample | readout mean, sum]* -> [flatten] -> conv | linear -> [resample]* -.
    value -> [resample | scale]* ------------------------------------------------------+-> add* -> root

Passes use this to find regions, lowering to take them apart again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ldsnn_compiler.ir.graph import Graph, Node, Value

SYNAPSES = ("conv1d", "conv2d", "linear")
Inside = Callable[[Node], bool]


@dataclass(frozen=True)
class Addend:
    """One addend: ``value`` through ``synapse`` (None: as it is). ``nodes`` are the region's nodes on the way.

    ``time`` is how the steps of ``value`` meet the region's: ``same``, ``mean``, ``sum`` or ``repeat``. ``flattened``:
    the value's axes were one at the synapse. ``scale``: what multiplies whole numbers that no synapse does.
    """

    value: Value
    synapse: Node | None = None
    nodes: tuple[Node, ...] = ()
    time: str = "same"
    flattened: bool = False
    scale: Node | None = None


def addends(root: Node, inside: Inside) -> tuple[Addend, ...]:
    """The addends of a region's current; ``inside`` says which nodes belong to it (the root does)."""
    start = Addend(root.operands[0])
    if root.op.name in SYNAPSES:
        return (_before_synapse(replace(start, synapse=root), inside),)
    return _behind_synapse(start, inside)


def _behind_synapse(at: Addend, inside: Inside) -> tuple[Addend, ...]:
    node = at.value.node
    if not inside(node):
        return (at,)
    through = replace(at, value=node.operands[0], nodes=(*at.nodes, node)) if node.operands else at
    if node.op.name == "add":
        return tuple(
            found for operand in node.operands for found in _behind_synapse(replace(through, value=operand), inside)
        )
    if node.op.name in SYNAPSES and at.scale is None:
        return (_before_synapse(replace(through, synapse=node), inside),)
    if node.op.name == "scale" and at.scale is None:
        return _behind_synapse(replace(through, scale=node), inside)
    if (time := joined(at.time, node)) is not None:
        return _behind_synapse(replace(through, time=time), inside)
    return (at,)


def _before_synapse(at: Addend, inside: Inside) -> Addend:
    node = at.value.node
    if not inside(node) or not node.operands:
        return at
    through = replace(at, value=node.operands[0], nodes=(*at.nodes, node))
    if node.op.name == "flatten" and not at.flattened and at.synapse is not None and at.synapse.op.name == "linear":
        return _before_synapse(replace(through, flattened=True), inside)
    if (time := joined(at.time, node)) is not None:
        return _before_synapse(replace(through, time=time), inside)
    return at


def joined(time: str, node: Node) -> str | None:
    """How steps meet after one more op that moves time, or None if no single source can do that."""
    kind = time_change(node)
    if kind is None or (kind != "same" and time not in ("same", kind)):
        return None
    return time if kind == "same" else kind


def time_change(node: Node) -> str | None:
    """``same``, ``mean``, ``sum`` or ``repeat`` for an op that averages, sums or holds whole steps; else None."""
    if node.op.name == "readout":
        return node["mode"] if node["mode"] in ("mean", "sum") else None
    if node.op.name != "resample":
        return None
    ratio = node.type.dt / node.operands[0].type.dt
    if ratio == 1:
        return "same"
    if ratio.denominator == 1:
        return "sum" if node["mode"] == "sum" else "mean"
    return "repeat" if ratio.numerator == 1 else None


def fusible(node: Node) -> bool:
    """Whether the synapse (or neuron) is one that a region can hold: channels first, weights on them."""
    return node.op.name != "linear" or len(node.operands[0].type.shape) == 1


def scales_whole(graph: Graph, node: Node) -> bool:
    """Whether a node multiplies whole numbers by a whole number, or by one for each channel."""
    if node.op.name != "scale" or node.type.dtype == "float32":
        return False
    by = node["by"]
    return bool(graph.tensors[by.name].ndim == 1) if by is not None else float(node["factor"]).is_integer()


def regions(graph: Graph, cyclic: frozenset[str]) -> dict[str, str]:
    """The root of every node that a region takes in, by name; ``cyclic`` nodes are in none.

    Neurons come first, then what synapses they leave.
    """
    found: dict[str, str] = {}
    alone = single_use(graph, cyclic)
    roots = [n for n in graph.nodes if n.op.name == "neuron" and n.name not in cyclic]
    roots += [n for n in graph.nodes if n.op.name in SYNAPSES and fusible(n) and n.name not in cyclic]
    for root in roots:
        if root.name not in found:
            taken = addends(root, lambda node: alone(node) and node.name not in found)
            found[root.name] = root.name
            found.update((node.name, root.name) for addend in taken for node in addend.nodes)
    return found


def single_use(graph: Graph, cyclic: frozenset[str]) -> Inside:
    """``inside`` of a region still to be made: nodes whose only use it is, outside cycles, and of a kind that fits."""

    def inside(node: Node) -> bool:
        fits = node.op.name in ("add", "flatten") or node.op.name in SYNAPSES or time_change(node) is not None
        fits = fits or scales_whole(graph, node)
        return fits and fusible(node) and node.name not in cyclic and sum(len(graph.uses(r)) for r in node.results) == 1

    return inside
