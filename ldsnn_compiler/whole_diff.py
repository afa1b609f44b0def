"""What a network of whole numbers was made from, and whether compiled code computes its numbers.

The graph of a network of whole numbers counts; what a count stands for is settled by ``quantize`` and not kept. It is
found again by repeating what led there: the passes that come before ``quantize`` run on the imported model, and the
scales follow from the graph that results. Against that graph, of the same timesteps, differences are due to the whole
numbers alone; against the model, to its schedule too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.passes._scales import Scales, full
from ldsnn_compiler.passes.quantize import Quantize
from ldsnn_compiler.pipeline import Pass, run_pipeline

if TYPE_CHECKING:
    from ldsnn_compiler.runtime import Compiled


@dataclass(frozen=True)
class Origin:
    """The graph of real numbers that a graph of whole numbers was made from, and what its whole numbers stand for."""

    graph: Graph
    scales: Scales

    @classmethod
    def of(cls, imported: Graph, passes: Sequence[Pass]) -> Origin:
        """From the imported model and the passes that made whole numbers of it; ``imported`` stays as it is.

        Raises:
            LdsnnError: no ``quantize`` is among the passes, or one of them fails on this model.
        """
        found = next((i for i, each in enumerate(passes) if isinstance(each, Quantize)), None)
        if found is None:
            hint = "give its bundle, or with --pipeline the passes that made it"
            raise LdsnnError(Problem("the passes that made whole numbers are not known", imported.name, hint=hint))
        graph = run_pipeline(imported.clone(), passes[:found])
        quantize = passes[found]
        assert isinstance(quantize, Quantize)
        return cls(graph, quantize.scales(graph))

    def in_units(self, whole: Graph, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Streams ``[T, N, *shape]`` of the neurons of ``whole``, by node name, as real numbers.

        Raises:
            LdsnnError: ``whole`` was not made from this graph.
        """
        if problems := list(self._misfits(whole)):
            raise LdsnnError(problems)
        values = {node.name: node.result for node in self.graph.of("neuron")}
        return {
            node.name: (seen[node.name].double() * full(self.scales.of(values[node.name]), node.type.shape)).float()
            for node in whole.of("neuron")
        }

    def _misfits(self, whole: Graph) -> Iterator[Problem]:
        hint = "compare it with the model that it was made from"
        mine = {node.name: node for node in self.graph.of("neuron")}
        if self.graph.base_timesteps != whole.base_timesteps or len(self.graph.outputs) != len(whole.outputs):
            sizes = [f"{g.base_timesteps} timesteps and {len(g.outputs)} outputs" for g in (whole, self.graph)]
            yield Problem(f"has {sizes[0]}, the model {sizes[1]}", whole.name, hint=hint)
        for node in whole.of("neuron"):
            real = mine.get(node.name)
            if real is None:
                yield Problem("is not in the model", node.path or node.name, node.op.name, hint=hint)
            elif (real.path, real.type.timesteps, real.type.shape) != (
                node.path, node.type.timesteps, node.type.shape
            ):  # fmt: skip
                yield Problem(f"is {node.type}, in the model {real.type}", node.path, node.op.name, hint=hint)


def unlike_interpreter(compiled: Compiled, x: Tensor) -> tuple[str, ...]:
    """Outputs and state variables of a compiled network of whole numbers that are not the interpreter's, to the bit, on
    samples ``[T, N, *shape]``; a last batch that is not full is left out unless it is the only one, which is filled up
    with copies."""
    size = compiled.settings.batch or x.shape[1]
    filled = x.repeat(1, -(-size // x.shape[1]), *[1] * (x.ndim - 2))[:, :size] if x.shape[1] < size else x
    found: dict[str, None] = {}
    for part in filled.split(size, dim=1):
        if part.shape[1] == size:
            found |= dict.fromkeys(_unlike(compiled, part.contiguous()))
    return tuple(found)


def _unlike(compiled: Compiled, x: Tensor) -> Iterator[str]:
    interpreter = Interpreter(compiled.graph)
    with torch.no_grad():
        expected = interpreter.run(x)
    for node, mine, wanted in zip(compiled.graph.outputs, compiled.run(x), expected, strict=True):
        if not torch.equal(mine, wanted):
            yield node.path or node.name
    compiled.reset()
    compiled.step(x)
    for name, variables in compiled.state.items():
        for variable, value in variables.items():
            if not torch.equal(value.double(), interpreter.state[name][variable].double()):
                yield f"{name}.{variable}"
