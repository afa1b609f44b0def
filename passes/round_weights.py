"""Round weights to a narrower floating-point type, so that kernels may read them in it.

Before::

    %c = conv2d(%s) {weight=@w}         %s event(1, 1.0), @w any float32

After::

    %c = conv2d(%s) {weight=@w'}        @w' float32 numbers that float16 holds

The maths: a layer of events worth u has ``w' = n / u`` with n the number of the narrow type that is nearest to ``u w``,
halves to even: 11 significant binary digits in float16 (a relative error of 2**-11 at most, from 2**-14 on), 8 in
bfloat16. Approximate; from then on every target computes the same network. Tensors stay float32 and keep their names;
biases and neurons stay as they are.

GPUs read weights in half precision, and multiply them on tensor cores, where no weight changes by that: after this pass
everywhere. It belongs before ``select-kernels``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.passes._weights import WEIGHTED, store
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass
from ldsnn_compiler.targets.narrow import rounded

#: what weights may be rounded to
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@register_pass
@dataclass(frozen=True)
class RoundWeights(Pass):
    """Weights of convolutions and linear layers to ``dtype``: ``float16`` or ``bfloat16``; whole numbers stay."""

    name: ClassVar[str] = "round-weights"
    exact: ClassVar[bool] = False
    dtype: str = "float16"

    def run(self, graph: Graph) -> bool:
        self._check(graph)
        found = {node: self._rounded(graph, node) for node in graph.of(*WEIGHTED)}
        if problems := [p for node, weight in found.items() for p in self._problems(graph, node, weight)]:
            raise LdsnnError(problems)
        changed = {node: w for node, w in found.items() if not torch.equal(w, _weight(graph, node))}
        for node, weight in changed.items():
            store(graph, node, "weight", weight)
        return bool(changed)

    def _check(self, graph: Graph) -> None:
        problems = []
        if self.dtype not in TYPES:
            problems.append(Problem(f"is {' or '.join(TYPES)}, not {self.dtype!r}", self.name, attribute="dtype"))
        if graph.stage != "scheduled":
            hint = "run assign-timesteps before it, select-kernels after it"
            message = f"weights are rounded in a scheduled graph, this one is {graph.stage}"
            problems.append(Problem(message, graph.name, hint=hint))
        if problems:
            raise LdsnnError(problems)

    def _rounded(self, graph: Graph, node: Node) -> torch.Tensor:
        weight, signal = _weight(graph, node), node.operands[0].type.signal
        return rounded(weight, signal.unit, TYPES[self.dtype]) if weight.is_floating_point() else weight

    def _problems(self, graph: Graph, node: Node, weight: torch.Tensor) -> list[Problem]:
        """A weight that the type does not hold, by the name of its layer."""
        beyond = _weight(graph, node)[~torch.isfinite(weight)]
        if not beyond.numel():
            return []
        worst = beyond[beyond.abs().argmax()].item()
        message = f"{beyond.numel()} of its weights are beyond {self.dtype}, such as {worst:g}"
        at = {"where": node.path or f"%{node.name}", "kind": node.op.name, "attribute": "weight"}
        return [Problem(message, hint="train or scale the network to smaller weights, or leave the pass out", **at)]


def _weight(graph: Graph, node: Node) -> torch.Tensor:
    return graph.tensors[node["weight"].name]
