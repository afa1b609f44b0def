"""A pass of your own, in one file: drop synapses whose weights are tiny.

python examples/custom_pass.py                                              # try it
ldsnn opt net.ldir --plugin examples/custom_pass.py --pipeline 'drop-small-weights{below=0.05}'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.pipeline import Pass, register_pass


@register_pass
@dataclass(frozen=True)
class DropSmallWeights(Pass):
    """Weights with ``|w| < below`` become 0. Not exact: spikes may change."""

    name: ClassVar[str] = "drop-small-weights"
    exact: ClassVar[bool] = False
    below: float = 1e-3

    def run(self, graph: Graph) -> bool:
        changed = False
        for node in graph.nodes:
            for attribute in node.op.weights:
                weight = graph.tensors[node[attribute].name]
                kept = torch.where(weight.abs() < self.below, 0.0, weight)
                if not torch.equal(kept, weight):
                    graph.set_attrs(node, **{attribute: graph.tensor(f"{node[attribute].name}.pruned", kept)})
                    changed = True
        graph.prune_tensors()
        return changed


def main() -> None:
    from ldsnn_compiler.ir.types import Stream
    from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline

    graph = Graph("small", base_timesteps=4)
    x = graph.add("input", type=Stream(4, 1, (3,)), name="x")
    weight = graph.tensor("fc.weight", torch.tensor([[0.5, 0.001, -0.02]]))
    layer = graph.add("linear", [x.result], weight=weight, path="fc")
    graph.add("output", [layer.result])
    run_pipeline(graph, parse_pipeline("drop-small-weights{below=0.05}"))
    print("weights kept:", graph.tensors["fc.weight.pruned"].tolist())


if __name__ == "__main__":
    main()
