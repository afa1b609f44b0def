"""Finding the turns of a loop in a graph that ``torch.fx`` has unrolled, without knowing any module in it.

Each turn runs the same lines of the user's code, so that the sequence of (operation, line, module) repeats. Nodes at
the same place of each turn correspond. Parameters do not count, nor tensors of zeros: they may be there in
the first turn only.
"""

from __future__ import annotations

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


def turns(graph: fx.Graph) -> Turns | None:
    """The loop that covers most nodes, None if nothing repeats."""
    nodes = [n for n in graph.nodes if n.op not in ("placeholder", "get_attr", "output") and filled(n) is None]
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
