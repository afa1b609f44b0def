"""Isotonic regression on a partial order: the nearest values that do not contradict it.

Of a set of values the mean is best if no part that the order lets lie lower would gain from lying lower. Else the set
falls into two parts that may be fitted apart, and the part that gains most is a minimum cut (Spouge, Wan and Wilbur,
"Least squares isotonic regression in two dimensions", Journal of Optimization Theory and Applications 117, 2003).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import networkx as nx

SOURCE, SINK = "source", "sink"
ROUNDING = 1e-12
"""Share of the largest value below which a gain is none."""


def isotonic(values: Sequence[float], order: Collection[tuple[int, int]]) -> list[float]:
    """The values of least squared distance from ``values`` with ``fitted[i] <= fitted[j]`` for every (i, j) of
    ``order``."""
    fitted = list(values)
    smallest = ROUNDING * max(map(abs, values), default=0.0)
    pending = [list(range(len(values)))] if values else []
    while pending:
        members = pending.pop()
        mean = sum(values[i] for i in members) / len(members)
        lower = _lower(values, order, members, mean)
        if sum(mean - values[i] for i in lower) > smallest:
            pending += [lower, [i for i in members if i not in set(lower)]]
        else:
            for i in members:
                fitted[i] = mean
    return fitted


def _lower(
    values: Sequence[float], order: Collection[tuple[int, int]], members: list[int], mean: float
) -> list[int]:  # fmt: skip
    """The members that lie farthest below the mean in sum, with all that must not lie above them."""
    graph, inside = nx.DiGraph(), set(members)
    graph.add_nodes_from((SOURCE, SINK))
    for i in members:
        below = mean - values[i]
        graph.add_edge(*((SOURCE, i) if below > 0 else (i, SINK)), capacity=abs(below))
    graph.add_edges_from((j, i) for i, j in order if i in inside and j in inside)  # of unlimited capacity
    _, (kept, _) = nx.minimum_cut(graph, SOURCE, SINK)
    return [i for i in members if i in kept]
