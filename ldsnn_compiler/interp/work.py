"""Counting work: synaptic updates (exact at borders), neurons evaluated, densities - per layer, per sample.

A *synaptic update* is one non-zero input meeting one synapse: non-zero inputs times fan-out, first layer, shortcuts
that carry events and the readout included. *Weighted* counts each graded event as many times as its count. A *neuron
evaluation* is one run of a neuron program for one neuron (substeps count).

What is looked at are events and what meets synapses; other real numbers count as not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from ldsnn_compiler.interp.module import Data, Interpreter
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.types import Signal


@dataclass(frozen=True)
class Activity:
    """What one value holds over all steps and samples: ``numbers`` of them, of which ``active`` are not zero, and, of
    events, the sum of their ``counts``; both by place, ``[*shape]``, or summed over the first axis, which keeps length
    one. Without ``active`` nothing is known, and no number is zero."""

    numbers: int
    active: torch.Tensor | None = None
    counts: torch.Tensor | None = None

    @classmethod
    def of(cls, x: torch.Tensor, signal: Signal, places: bool = True) -> Activity:
        """Of data ``[T, N, *shape]``; without ``places`` only their number."""
        if not places:
            # NumPy counts booleans by the vector, PyTorch one by one
            return cls(x.numel(), torch.tensor(float(np.count_nonzero((x != 0).cpu().numpy())), dtype=torch.float64))
        # float32 sums of ones are exact to 2**24 and much faster than float64 ones
        exact = torch.float32 if x.shape[0] * x.shape[1] < 1 << 24 else torch.float64
        active = (x != 0).to(exact).flatten(0, 1).sum(0).double()
        if signal.levels in (None, 1):
            return cls(x.numel(), active, active if signal.is_event else None)
        return cls(x.numel(), active, (x / signal.unit).round().sum((0, 1), dtype=torch.float64))

    def map(self, change: Callable[[torch.Tensor], torch.Tensor], times: int = 1) -> Activity:
        """Changed alike: what is active and the counts; and ``times`` as many numbers."""
        active, counts = (None if x is None else change(x) for x in (self.active, self.counts))
        return Activity(self.numbers * times, active, counts)

    @property
    def nonzero(self) -> float:
        """Numbers that are not zero."""
        return float(self.numbers) if self.active is None else float(self.active.sum())


def fan_outs(graph: Graph, node: Node) -> list[torch.Tensor | None]:
    """Synaptic updates that a non-zero number causes, by place ``[*shape]``, for each operand; None for none."""
    if node.op.fan_out is None:
        return [None] * len(node.operands)
    call = graph.call(node)
    return [node.op.fan_out(call, i) for i in range(len(node.operands))]


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

    def add(
        self,
        node: Node,
        fan_outs: Sequence[torch.Tensor | None],
        activity: Callable[[Value, bool], Activity],
        numbers: Callable[[Value], int],
    ) -> None:
        """Add a run of ``node``: ``activity`` is asked about events and about what meets synapses, about that by place;
        ``numbers`` tells how many a value holds."""
        for value, fan_out in zip(node.operands, fan_outs, strict=True):
            if fan_out is not None:
                self._add_synapses(activity(value, True), fan_out, value.type.signal)
        if node.operands:
            given, is_met = node.operands[0], fan_outs[0] is not None
            is_seen = is_met or given.type.signal.is_event
            first = activity(given, is_met) if is_seen else Activity(numbers(given))
            self.input_nonzero += first.nonzero
            self.input_numbers += first.numbers
        if node.results:
            is_seen = node.type.signal.is_event
            result = activity(node.result, False) if is_seen else Activity(numbers(node.result))
            self.nonzero += result.nonzero
            self.numbers += result.numbers
        if node.op.name == "neuron":
            self.neurons_evaluated += numbers(node.operands[0]) * node["neuron"].substeps

    def _add_synapses(self, given: Activity, fan_out: torch.Tensor, signal: Signal) -> None:
        assert given.active is not None
        reach = fan_out[: len(given.active)] if fan_out.ndim else fan_out
        updates = float((given.active * reach).sum())
        self.synaptic_updates += updates
        self.synaptic_updates_weighted += updates if given.counts is None else float((given.counts * reach).sum())
        if signal.levels != 1:
            self.multiplications += updates


@dataclass
class WorkCounter:
    """An interpreter observer. ``totals()`` are per sample."""

    graph: Graph
    layers: dict[str, LayerWork] = field(default_factory=dict)
    samples: int = 0
    _fan_outs: dict[str, list[torch.Tensor | None]] = field(default_factory=dict)

    def __call__(self, node: Node, inputs: Data, outputs: Data) -> None:
        if node.op.name == "input" and node is self.graph.inputs[0]:
            self.samples += int(outputs[0].shape[1])
        if node.op.name in ("input", "output"):
            return
        if node.name not in self._fan_outs:
            self._fan_outs[node.name] = fan_outs(self.graph, node)
        data = {value.name: x for value, x in zip((*node.operands, *node.results), (*inputs, *outputs), strict=True)}
        with torch.no_grad():
            layer(self.layers, node).add(
                node,
                self._fan_outs[node.name],
                lambda value, places: Activity.of(data[value.name], value.type.signal, places),
                lambda value: data[value.name].numel(),
            )

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


def layer(layers: dict[str, LayerWork], node: Node) -> LayerWork:
    """The node's entry, made if it has none yet."""
    return layers.setdefault(node.name, LayerWork(node.name, node.op.name, node.path, node.type.timesteps))


def count_work(graph: Graph, *inputs: torch.Tensor) -> tuple[Data, WorkCounter]:
    """Run the graph once on ``[T, N, *shape]`` data; gives its outputs and the work."""
    interpreter, counter = Interpreter(graph), WorkCounter(graph)
    interpreter.observers.append(counter)
    with torch.no_grad():
        return interpreter.run(*inputs), counter
