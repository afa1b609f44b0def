"""Finding the turns of a loop in a graph that ``torch.fx`` has unrolled, without knowing any module in it.

Each turn runs the same lines of the user's code, so that the sequence of (operation, line, module) repeats. Nodes at
the same place of each turn correspond. Parameters do not count, nor tensors of zeros: they may be there in
the first turn only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import fx

from ldsnn_compiler.frontend.elementwise import filled

_TRIES = 6
"""Distances to later occurrences of a node that are tried as the length of a turn."""


@dataclass(frozen=True)
class Turns:
    """``nodes[t][j]`` is node j of turn t. ``whole``: the loop ends with a turn, not within one, as it does where the
    first turn is unlike the others."""

    graph: fx.Graph
    nodes: tuple[tuple[fx.Node, ...], ...]
    whole: bool

    @property
    def count(self) -> int:
        """How often the loop runs."""
        return len(self.nodes)

    def places(self) -> dict[fx.Node, tuple[int, int]]:
        """Every node's turn and place in it."""
        return {node: (t, j) for t, turn in enumerate(self.nodes) for j, node in enumerate(turn)}


def turns(graph: fx.Graph, done: Collection[fx.Node] = ()) -> Turns | None:
    """The loop that covers most nodes, those that are ``done`` left out; None if nothing repeats."""
    nodes = _steps(graph, done)
    keys = [_key(n) for n in nodes]
    found: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    best = (0, 0, 0)
    for where in found.values():
        for later in where[1 : 1 + _TRIES]:
            best = max(best, _covered(keys, where[0], later - where[0]))
    covered, start, length = best[0], -best[1], -best[2]
    if not covered:
        return None
    end = start + covered
    whole = end == len(keys) or keys[end] != keys[end - length]
    return Turns(graph, tuple(tuple(nodes[i : i + length]) for i in range(start, end, length)), whole)


def laid_over(found: Turns, done: Collection[fx.Node] = ()) -> tuple[Turns, dict[int, fx.Node]]:
    """The turns counted from where the loop ends, and which nodes before them are those of a first turn, by place.

    The first turn may lack some nodes of the others, so that the turns found begin within it and end within the last.
    """
    nodes = _steps(found.graph, done)
    keys = [_key(n) for n in nodes]
    length, start = len(found.nodes[0]), nodes.index(found.nodes[0][0])
    end = start + length * found.count
    while end < len(keys) and keys[end] == keys[end - length]:
        end += 1
    begin = start + (end - start) % length
    later = Turns(found.graph, tuple(tuple(nodes[i : i + length]) for i in range(begin, end, length)), True)
    same, i = dict[int, fx.Node](), begin - 1
    for j in reversed(range(length)):
        if i >= 0 and keys[i] == keys[begin + j]:
            same[j], i = nodes[i], i - 1
    return later, same


def _steps(graph: fx.Graph, done: Collection[fx.Node]) -> list[fx.Node]:
    """The nodes that may belong to a turn."""
    own = (n for n in graph.nodes if n.op not in ("placeholder", "get_attr", "output") and filled(n) is None)
    return [n for n in own if n not in done]


def _key(node: fx.Node) -> Any:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return (node.op, str(node.target) if node.op != "call_function" else node.target, node.meta.get("line"), str(stack))


def _covered(keys: list[Any], start: int, length: int) -> tuple[int, int, int]:
    """(nodes in whole turns, -start, -length) of a loop that starts there, so that the largest is the shortest turn of
    the longest loop; nothing if it runs once."""
    end = start + length
    while end < len(keys) and keys[end] == keys[end - length]:
        end += 1
    whole = (end - start) // length
    return (whole * length, -start, -length) if whole > 1 else (0, 0, 0)
