"""Group nodes into regions, each of which becomes one function with one loop over time.

Before::

    %c = conv2d(%s0) ...     place(event, dense, inside, -)
    %m = resample(%c) ...    place(plain, dense, inside, -)
    %s = neuron(%m) ...      place(event, bits, inside, -)

After::

    %c, %m, %s ...           place(..., inside, sn1)

The maths: none; the same operations, in one pass over memory. A region is a neuron (or, where no neuron follows, a
convolution or linear layer) with the sum of currents before it: convolutions, linear layers, shortcuts, and the
whole-step resamples on the way, each source at its own T. Only nodes without other uses are taken in, so nothing leaves
a region but its root and regions are convex. Time runs inside: a task keeps the membranes of its neurons over all T.
The nodes of a cycle step together, time outside. Every other node is a region of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.passes.select_kernels import cyclic
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass
from ldsnn_compiler.targets.region import regions


@register_pass
@dataclass(frozen=True)
class FuseTimesteps(Pass):
    """Give every placed node its region."""

    name: ClassVar[str] = "fuse-timesteps"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph) -> bool:
        if graph.stage != "placed":
            raise LdsnnError(
                Problem(f"regions are made in a placed graph, this one is {graph.stage}", where=graph.name)
            )
        on_cycle = cyclic(graph)
        region = {**_cycles(graph), **regions(graph, on_cycle)}
        for node in graph.nodes:
            if node.placement is not None:
                graph.place(node, replace(node.placement, region=region.get(node.name, node.name)))
        graph.stage = "fused"
        return True


def _cycles(graph: Graph) -> dict[str, str]:
    """Each cycle is a region named after its first node."""
    rank = {node.name: i for i, node in enumerate(graph.nodes)}
    found: dict[str, str] = {}
    on_cycle = cyclic(graph)
    for component in nx.strongly_connected_components(nx.DiGraph(graph.dag)):
        if component & on_cycle:
            first = min(component, key=rank.__getitem__)
            found.update((name, first) for name in component)
    return found
