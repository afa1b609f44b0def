"""Nested NIR graphs made flat: one set of units, edges between them, and what is wrong or repaired with either.

Repaired, with a note, because only one meaning is possible:

- edges that name one node that does not exist, beside one node that no edge names: taken to be that node;
- a graph without Input (Output): every node that nothing feeds (that feeds nothing) gets one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ldsnn_compiler.errors import ImportRefused, Problem
from ldsnn_compiler.frontend.nir.source import IDENTITY, Edge, Net, Unit, plain


def flat(node: Mapping[str, Any], file: str) -> tuple[Net, list[Problem]]:
    """The root graph with nested graphs in place of the nodes that hold them, and notes of repairs.

    ``file`` is named in both.

    Raises:
        ImportRefused: with every fault of the graph's structure.
    """
    problems = list(_faults(node, file, ""))
    if problems:
        raise ImportRefused(problems)
    flattener = _Flattener(file, Net({}, [], dict(node.get("metadata", {}))))
    flattener.unfold(node, "")
    if flattener.problems:
        raise ImportRefused(flattener.problems)
    flattener.add_ends()
    return flattener.net, flattener.notes


def _faults(node: Mapping[str, Any], file: str, prefix: str) -> Iterator[Problem]:
    """What makes a graph unreadable: no nodes, no edges, a node without type."""
    at = _at(file, prefix)
    nodes, edges = node.get("nodes"), node.get("edges")
    if not isinstance(nodes, Mapping) or not nodes:
        yield Problem("holds no nodes: its export did not finish", where=at)
        return
    if edges is None or len(edges) == 0:
        yield Problem(f"has {len(nodes)} nodes and no edges: its export did not finish", where=at)
    for name, each in nodes.items():
        if not isinstance(each, Mapping) or not isinstance(plain(each.get("type")), str):
            yield Problem("has no type", where=_at(file, f"{prefix}{name}."))
        elif plain(each["type"]) == "NIRGraph":
            yield from _faults(each, file, f"{prefix}{name}.")


def _at(file: str, prefix: str) -> str:
    return f"{file}: {prefix[:-1]}" if prefix else file


class _Flattener:
    """Collects units, edges, notes and problems."""

    def __init__(self, file: str, net: Net) -> None:
        self.file, self.net = file, net
        self.notes: list[Problem] = []
        self.problems: list[Problem] = []

    def unfold(self, node: Mapping[str, Any], prefix: str) -> None:
        """Add a graph's units and edges; edges to and from a nested graph go to its Input and Output."""
        entry: dict[str, str] = {}
        leave: dict[str, str] = {}
        for name, each in node["nodes"].items():
            full, kind = f"{prefix}{name}", str(plain(each["type"]))
            if kind == "NIRGraph":
                self.unfold(each, f"{full}.")
                entry[name], leave[name] = (self._end(each, full, end) for end in ("Input", "Output"))
                continue
            entry[name] = leave[name] = full
            kind = IDENTITY if prefix and kind in ("Input", "Output") else kind
            values = {k: plain(v) for k, v in each.items() if k not in ("type", "metadata") and v is not None}
            self.net.units[full] = Unit(full, kind, values, dict(each.get("metadata", {})))
        for source, target in self._edges(node, prefix, entry):
            self.net.edges.append((leave[source], entry[target]))

    def _end(self, node: Mapping[str, Any], name: str, kind: str) -> str:
        """The one Input or Output of a nested graph."""
        inner = [n for n, each in node["nodes"].items() if plain(each["type"]) == kind]
        if len(inner) != 1:
            message = f"has {len(inner)} nodes of type {kind}; an edge to or from it needs one"
            self.problems.append(Problem(message, _at(self.file, f"{name}."), "NIRGraph"))
        return f"{name}.{inner[0] if inner else kind}"

    def _edges(self, node: Mapping[str, Any], prefix: str, known: Iterable[str]) -> list[Edge]:
        """The graph's edges between nodes that it has."""
        at, known = _at(self.file, prefix), set(known)
        edges = [(str(plain(a)), str(plain(b))) for a, b in node["edges"]]
        for edge in sorted({e for e in edges if edges.count(e) > 1}):
            self.problems.append(Problem(f"edge {edge[0]} -> {edge[1]} is given twice: once, or doubled?", at))
        named = {name for edge in edges for name in edge}
        missing, idle = sorted(named - known), sorted(known - named)
        if len(missing) == 1 and len(idle) == 1:
            message = f"its edges name {missing[0]!r}, which is no node; taken for {idle[0]!r}, which they leave out"
            self.notes.append(Problem(message, at))
            return [(idle[0] if a in missing else a, idle[0] if b in missing else b) for a, b in edges]
        for name in missing:
            hint = f"its nodes are {', '.join(sorted(known))}"
            self.problems.append(Problem(f"its edges name {name!r}, which is no node", at, hint=hint))
        return [edge for edge in edges if known.issuperset(edge)]

    def add_ends(self) -> None:
        """An Input and an Output, where the file has none at all."""
        net = self.net
        for kind, place in (("Input", 1), ("Output", 0)):
            if any(unit.kind == kind for unit in net.units.values()):
                continue
            joined = {edge[place] for edge in net.edges}
            for name in [name for name in net.units if name not in joined]:
                end = f"{kind.lower()}_{name}"
                net.units[end] = Unit(end, kind, {})
                net.edges.append((end, name) if kind == "Input" else (name, end))
                self.notes.append(Problem(f"there is no {kind}; {name} is given one", self.file))
