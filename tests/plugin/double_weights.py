"""A plug-in of one file, for ``--plugin double_weights.py``: the pass ``double-weights``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.pipeline import Pass, register_pass


@register_pass
@dataclass(frozen=True)
class DoubleWeights(Pass):
    """Every synaptic weight times ``by``."""

    name: ClassVar[str] = "double-weights"
    exact: ClassVar[bool] = False
    by: float = 2.0

    def run(self, graph: Graph) -> bool:
        for node in graph.nodes:
            for attr in node.op.weights:
                weight = graph.tensors[node[attr].name]
                graph.set_attrs(node, **{attr: graph.tensor(node[attr].name, weight * self.by)})
        return any(node.op.weights for node in graph.nodes)
