"""Remove what no output depends on.

Before::

    %s, %s#1 = neuron(%x) {membrane=true}      nobody reads %s#1
    %y = conv2d(%s) {weight=@w, ...}           nobody reads %y
    %o = output(%s)

After::

    %s = neuron(%x)
    %o = output(%s)

The maths: none; a value that reaches no output does not matter. Inputs stay, since they are the caller's signature.
Tensors that nothing refers to go as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import networkx as nx

from ldsnn_compiler.ir.graph import Graph, tensor_refs
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass


@register_pass
@dataclass(frozen=True)
class DeadCode(Pass):
    """Remove nodes that no output depends on, membranes that nobody reads, tensors without a user."""

    name: ClassVar[str] = "dead-code"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph) -> bool:
        nodes, membranes, tensors = _unused_nodes(graph), _unused_membranes(graph), _unused_tensors(graph)
        return nodes or membranes or tensors


def _unused_nodes(graph: Graph) -> bool:
    needed = {n.name for n in (*graph.inputs, *graph.outputs)}
    for node in graph.outputs:
        needed |= nx.ancestors(graph.dag, node.name)
    dead = [n for n in graph.nodes if n.name not in needed]
    graph.erase(*dead)
    return bool(dead)


def _unused_membranes(graph: Graph) -> bool:
    changed = False
    for node in graph.of("neuron"):
        if node["membrane"] and not graph.uses(node.results[1]):
            graph.set_attrs(node, membrane=False)
            changed = True
    return changed


def _unused_tensors(graph: Graph) -> bool:
    used = {ref.name for node in graph.nodes for ref in tensor_refs(node)}
    if used >= graph.tensors.keys():
        return False
    graph.prune_tensors()
    return True
