"""Recalibration after scheduling: thresholds, initial membranes and biases, without labels and without training.

A layer that runs fewer timesteps answers in coarser steps, and clips what it cannot say. One half of the samples is for
changes, layer by layer, from the input on, with what the recalibrated layers before it really emit; its output is held
against that of the original network on the same samples, a static input's as a mean over time, a sequence's step by
step:

1. the neuron becomes the one of its variants (:mod:`ldsnn_compiler.search.variants`) with the least error in what the
   next layers see (:mod:`ldsnn_compiler.search.downstream`);
2. what is missing of each channel's mean is added to the bias of the layer that feeds it
   (:mod:`ldsnn_compiler.frontend.bias`), unless that error rises.

The other half is for judging: the recalibrated network, or else one with step 2 alone, replaces the plain one only if
its divergence from the original's classes is lower by more than one standard error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from ldsnn_compiler.frontend.bias import add_bias, broadcast, correction, evaluate, feeding, forget
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.ir.ops.time import resample_weights
from ldsnn_compiler.search.downstream import Downstream
from ldsnn_compiler.search.engine import dense_work
from ldsnn_compiler.search.evaluate import bytes_per_sample, divergences
from ldsnn_compiler.search.variants import best

VERSION = 2
"""Of the method: raised when it would give another network."""
AFFORDABLE, ROOM, LEAST = 2e11, 1 << 31, 64
"""Multiply-accumulates of the original network, and bytes of its values, that samples are taken for; samples that are
taken all the same."""
NUDGE = 0.1
"""By how many standard deviations of its current a leaky layer's gain is measured."""

Grids = Mapping[str, tuple[int, Fraction]]
"""Steps and duration of layers, by path."""


class Recalibration:
    """Recalibrates schedules of ``graph`` on ``samples [T, N, *shape]`` (T = 1 for a static input), on some of them
    where the network is large."""

    def __init__(self, graph: Graph, samples: Tensor) -> None:
        affordable = min(AFFORDABLE / max(1.0, dense_work(graph)), ROOM / max(1, bytes_per_sample(graph)))
        count = min(samples.shape[1], max(LEAST, int(affordable)))
        chosen = samples[:, torch.div(torch.arange(count) * samples.shape[1], count, rounding_mode="floor")]
        self.graph, self.fit, self.judge = graph, chosen[:, ::2], chosen[:, 1::2]
        self._wanted: dict[tuple[tuple[str, tuple[int, Fraction]], ...], dict[str, Tensor]] = {}

    @cached_property
    def name(self) -> str:
        """Tells methods and samples apart, for figures that are kept."""
        halves = (h.contiguous().numpy().tobytes() for h in (self.fit, self.judge))
        return hashlib.blake2b(b"".join((bytes([VERSION]), *halves)), digest_size=8).hexdigest()

    def __call__(self, graph: Graph) -> Graph:
        """A scheduled graph recalibrated, or as it is; one with cycles stays, for its layers have no order."""
        if graph.of("delay") or self.judge.shape[1] < 2:
            return graph
        wanted, before = self.wanted(graph), self._divergences(graph)
        for neurons in (True, False):
            changed = self.changed(graph.clone(), wanted, neurons)
            if _falls(before, self._divergences(changed)):
                return changed
        return graph

    def wanted(self, graph: Graph) -> dict[str, Tensor]:
        """Outputs of the original network's neuron layers ``[T, N, *shape]`` on the first half, by path, on the grids
        of a scheduled graph (T = 1 for a static input)."""
        grids = {path: self._grid(node) for path, node in _layers(graph)}
        key = tuple(sorted(grids.items()))
        if key not in self._wanted:
            self._wanted[key] = _outputs(self.graph, self.fit, grids)
        return self._wanted[key]

    def changed(self, graph: Graph, wanted: Mapping[str, Tensor], neurons: bool = True) -> Graph:
        """Change all layers of a scheduled graph, in place; ``neurons`` or only biases."""
        values: dict[str, Tensor] = {}
        with torch.no_grad():
            for node in graph.nodes:
                if node.op.name == "input":
                    values[node.result.name] = self.fit
                    continue
                inputs = [values[o.name] for o in node.operands]
                if node.op.name == "neuron" and node.path in wanted:
                    inputs = [_recalibrated(graph, node, inputs[0], wanted[node.path], neurons)]
                values[node.result.name] = evaluate(graph, node, inputs)
                forget(graph, node, values)
        graph.prune_tensors()
        return graph

    def _grid(self, node: Node) -> tuple[int, Fraction]:
        static = self.graph.inputs[0]["time"] == "static"
        return 1 if static else node.type.timesteps, node.type.duration

    def _divergences(self, graph: Graph) -> Tensor:
        return divergences(self._original, _scores(graph, self.judge))

    @cached_property
    def _original(self) -> Tensor:
        return _scores(self.graph, self.judge)


def _falls(before: Tensor, after: Tensor) -> bool:
    """Whether the mean of paired samples falls by more than its standard error."""
    saved = before - after
    return bool(saved.mean() > saved.std() / len(saved) ** 0.5)


def _layers(graph: Graph) -> Iterator[tuple[str, Node]]:
    """Neuron layers that may change, by path: those of one operand whose membrane nobody reads."""
    for node in graph.of("neuron"):
        if node.path and not node["membrane"] and len(node.operands) == 1:
            yield node.path, node


def _outputs(graph: Graph, samples: Tensor, grids: Grids) -> dict[str, Tensor]:
    """What neuron layers emit, averaged over the steps of their grids."""
    interpreter, parts = Interpreter(graph), dict[str, list[Tensor]]()

    def observe(node: Node, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        if node.op.name == "neuron" and node.path in grids:
            steps, duration = grids[node.path]
            covered = outputs[0][: int(duration / node.type.dt)]
            weights = resample_weights(len(covered), steps).to(covered)
            parts.setdefault(node.path, []).append(torch.tensordot(weights, covered, dims=1))

    interpreter.observers.append(observe)
    _run(interpreter, samples)
    return {path: torch.cat(each, dim=1) for path, each in parts.items()}


def _scores(graph: Graph, samples: Tensor) -> Tensor:
    return torch.cat([output.mean(0).flatten(1) for output in _run(Interpreter(graph), samples)])


def _run(interpreter: Interpreter, samples: Tensor) -> list[Tensor]:
    """First outputs, a few samples at a time."""
    with torch.no_grad():
        return [interpreter.run(batch)[0] for batch in samples.split(8, dim=1)]


def _recalibrated(graph: Graph, node: Node, current: Tensor, wanted: Tensor, neurons: bool) -> Tensor:
    """Change one layer; gives its input current as it now is."""
    after = Downstream(graph, node, wanted)

    def error(neuron: Neuron, x: Tensor = current) -> float:
        output = evaluate(graph, node, [x], neuron=neuron)
        return after.error(output if len(wanted) > 1 else output.mean(0, keepdim=True))

    neuron: Neuron = node["neuron"]
    before = error(neuron)
    if before and neurons and neuron.family.spiking:
        neuron = best(neuron, error)
        graph.set_attrs(node, neuron=neuron)
        before = error(neuron)
    feed = feeding(graph, node)
    if feed is None or not before:
        return current
    shift = correction(graph, node, current, wanted.mean(0), _gain(graph, node, current))
    shifted = current + broadcast(shift, current)
    if error(neuron, shifted) >= before:
        return current
    add_bias(graph, feed, shift)
    return shifted


def _gain(graph: Graph, node: Node, current: Tensor) -> float:
    """What an active neuron's mean output rises by per current: known of integrate-and-fire, else measured."""
    neuron: Neuron = node["neuron"]
    unit, charge = neuron.params.get("spike_value"), neuron.params.get("threshold")
    if neuron.template == "if" and isinstance(unit, float) and isinstance(charge, float):
        return unit / charge
    nudge = NUDGE * float(current.std())
    more, less = (evaluate(graph, node, [current + sign * nudge]).mean(0) for sign in (1, -1))
    active = float((more != 0).float().mean())
    rise = float((more - less).mean()) / (2 * nudge * active) if nudge and active else 0.0
    return rise if rise > 0 else 1.0
