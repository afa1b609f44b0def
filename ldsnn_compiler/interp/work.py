"""Counting work: synaptic updates (exact at borders), neurons evaluated, densities - per layer, per sample.

A *synaptic update* is one non-zero input meeting one synapse: non-zero inputs times fan-out, first layer, shortcuts
that carry events and the readout included. *Weighted* counts each graded event as many times as its count. A *neuron
evaluation* is one run of a neuron program for one neuron (substeps count).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch

from ldsnn_compiler.interp.module import Data, Interpreter
from ldsnn_compiler.ir.graph import Graph, Node


@dataclass
class LayerWork:
    """Work of one node for all samples seen; ``density`` is the non-zero share of its first result."""

    name: str
    op: str
    path: str
    timesteps: int
    synaptic_updates: float = 0.0
    synaptic_updates_weighted: float = 0.0
    multiplications: float = 0.0
    neurons_evaluated: float = 0.0
    nonzero: float = 0.0
    numbers: float = 0.0
    input_nonzero: float = 0.0
    input_numbers: float = 0.0

    @property
    def density(self) -> float:
        """Non-zero share of the first result."""
        return self.nonzero / self.numbers if self.numbers else 0.0

    @property
    def input_density(self) -> float:
        """Non-zero share of the first operand."""
        return self.input_nonzero / self.input_numbers if self.input_numbers else 0.0


@dataclass
class WorkCounter:
    """An interpreter observer. ``totals()`` are per sample."""

    graph: Graph
    layers: dict[str, LayerWork] = field(default_factory=dict)
    samples: int = 0
    _fan_out: dict[tuple[str, int], torch.Tensor | None] = field(default_factory=dict)

    def __call__(self, node: Node, inputs: Data, outputs: Data) -> None:
        if node.op.name == "input" and node is self.graph.inputs[0]:
            self.samples += int(outputs[0].shape[1])
        if node.op.name in ("input", "output"):
            return
        work = self.layers.setdefault(node.name, LayerWork(node.name, node.op.name, node.path, node.type.timesteps))
        with torch.no_grad():
            for i, x in enumerate(inputs):
                self._count_synapses(work, node, i, x)
            if outputs and outputs[0].numel():
                work.nonzero += float(torch.count_nonzero(outputs[0]))
                work.numbers += outputs[0].numel()
            if inputs:
                work.input_nonzero += float(torch.count_nonzero(inputs[0]))
                work.input_numbers += inputs[0].numel()
        if node.op.name == "neuron":
            work.neurons_evaluated += inputs[0].numel() * node["neuron"].substeps

    def _count_synapses(self, work: LayerWork, node: Node, operand: int, x: torch.Tensor) -> None:
        if node.op.fan_out is None:
            return
        key = (node.name, operand)
        if key not in self._fan_out:
            self._fan_out[key] = node.op.fan_out(self.graph.call(node), operand)
        fan_out = self._fan_out[key]
        if fan_out is None:
            return
        signal = node.operands[operand].type.signal
        # float32 sums of ones are exact to 2**24 and much faster than float64 ones
        exact = torch.float32 if x.shape[0] * x.shape[1] < 1 << 24 else torch.float64
        active = (x != 0).to(exact).flatten(0, 1).sum(0).double()
        updates = float((active * fan_out).sum())
        work.synaptic_updates += updates
        if not signal.is_event:
            work.synaptic_updates_weighted += updates
            work.multiplications += updates
            return
        if signal.levels == 1:
            work.synaptic_updates_weighted += updates
            return
        counts = (x / signal.unit).round().sum((0, 1), dtype=torch.float64)
        work.synaptic_updates_weighted += float((counts * fan_out).sum())
        work.multiplications += updates

    def totals(self) -> dict[str, float]:
        """``synaptic_updates``, ``synaptic_updates_weighted``, ``multiplications``, ``neurons_evaluated``, per
        sample."""
        names = ("synaptic_updates", "synaptic_updates_weighted", "multiplications", "neurons_evaluated")
        return {n: sum(getattr(w, n) for w in self.layers.values()) / max(1, self.samples) for n in names}

    def densities(self) -> dict[str, float]:
        """Non-zero share of every node's first result, by node name."""
        return {name: work.density for name, work in self.layers.items()}

    def to_json(self) -> list[dict[str, object]]:
        """One row per node, work per sample."""
        rows = []
        for work in self.layers.values():
            row: dict[str, object] = {**asdict(work), "density": work.density, "input_density": work.input_density}
            for key in ("synaptic_updates", "synaptic_updates_weighted", "multiplications", "neurons_evaluated"):
                row[key] = getattr(work, key) / max(1, self.samples)
            for key in ("nonzero", "numbers", "input_nonzero", "input_numbers"):
                del row[key]
            rows.append(row)
        return rows


def count_work(graph: Graph, *inputs: torch.Tensor) -> tuple[Data, WorkCounter]:
    """Run the graph once on ``[T, N, *shape]`` data; gives its outputs and the work."""
    interpreter, counter = Interpreter(graph), WorkCounter(graph)
    interpreter.observers.append(counter)
    with torch.no_grad():
        return interpreter.run(*inputs), counter
