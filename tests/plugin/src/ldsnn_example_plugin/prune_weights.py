"""Set small synaptic weights to zero.

Before::

    %c = conv2d(%x) {weight=@w, ...}

After::

    %c = conv2d(%x) {weight=@w', ...}      w' = w where |w| >= below, else 0

The maths: an approximation; the error of a current is at most ``below`` times the sum of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.pipeline import Pass


@dataclass(frozen=True)
class PruneWeights(Pass):
    """Weights with |w| < below become 0. Registered by its entry point, so without ``@register_pass``."""

    name: ClassVar[str] = "prune-weights"
    exact: ClassVar[bool] = False
    below: float = 1e-3

    def run(self, graph: Graph) -> bool:
        changed = False
        for node in graph.nodes:
            for attr in node.op.weights:
                weight = graph.tensors[node[attr].name]
                kept = torch.where(weight.abs() >= self.below, weight, 0.0)
                if not torch.equal(kept, weight):
                    graph.set_attrs(node, **{attr: graph.tensor(node[attr].name, kept)})
                    changed = True
        return changed
