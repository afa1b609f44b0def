"""The IR around a problem: the lines of the nodes concerned, with their operands and users."""

from __future__ import annotations

from collections.abc import Iterable

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.text import node_text

#: nodes shown at most
LIMIT = 24


def excerpt(graph: Graph, problems: Iterable[Problem]) -> str:
    """IR lines of the nodes that ``problems`` name, marked ``>``, among their neighbours; "" if they name none."""
    named = concerned(graph, problems)
    shown = set(named)
    for name in named:
        shown |= set(graph.dag.predecessors(name)) | set(graph.dag.successors(name))
    lines = [f"{'>' if n.name in named else ' '} {node_text(n)}" for n in _ordered(graph) if n.name in shown]
    if len(lines) > LIMIT:
        lines = [*lines[:LIMIT], f"  ... and {len(lines) - LIMIT} more"]
    return "\n".join(lines)


def concerned(graph: Graph, problems: Iterable[Problem]) -> set[str]:
    """Names of the nodes that the problems name, as ``%name`` or by module path."""
    places = {part.strip("%(),;") for p in problems for part in p.where.split()}
    return {n.name for n in _ordered(graph) if n.name in places or (n.path and n.path in places)}


def _ordered(graph: Graph) -> tuple[Node, ...]:
    try:
        return graph.nodes
    except LdsnnError:  # an illegal cycle has no order; insertion order is then all there is
        return tuple(graph.node(name) for name in graph.dag.nodes)
