"""Recalibration after scheduling: thresholds, initial membranes and biases, without labels and without training.

A layer that runs fewer timesteps answers in coarser steps, and clips what it cannot say. Layer by layer, from the input
on, with what the recalibrated layers before it really emit: the mean output over time is compared with that of the
original network on the same samples, and

1. for integrate-and-fire neurons with a soft reset, threshold, initial membrane and value of a spike are multiplied by
   the one of :data:`SCALES` with the least squared error (the gain stays 1: fewer, larger spikes clip less, smaller
   ones round less); then the initial membrane becomes the best of :data:`STARTS`, in thresholds;
2. what is missing of each channel's mean is added to the bias of the layer that feeds it
   (:mod:`ldsnn_compiler.frontend.bias`).

Where nothing is better, a layer stays as it is.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import torch
from torch import Tensor

from ldsnn_compiler.frontend.bias import add_bias, broadcast, correction, evaluate, feeding, forget
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron

SCALES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.25, 1.5)
STARTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)


class Recalibration:
    """Recalibrates schedules of ``graph`` on ``samples``, ``[T, N, *shape]`` (T = 1 for a static input)."""

    def __init__(self, graph: Graph, samples: Tensor) -> None:
        self.graph, self.samples = graph, samples

    @cached_property
    def name(self) -> str:
        """Tells samples apart, for figures that are kept."""
        return hashlib.blake2b(self.samples.contiguous().numpy().tobytes(), digest_size=8).hexdigest()

    @cached_property
    def wanted(self) -> dict[str, Tensor]:
        """Mean outputs ``[N, *shape]`` of the original network's neuron layers, by path."""
        interpreter, parts = Interpreter(self.graph), dict[str, list[Tensor]]()

        def observe(node: Node, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
            if node.op.name == "neuron":
                parts.setdefault(node.path, []).append(outputs[0].mean(0))

        interpreter.observers.append(observe)
        with torch.no_grad():
            for batch in self.samples.split(8, dim=1):
                interpreter.run(batch)
        return {path: torch.cat(each) for path, each in parts.items()}

    def __call__(self, graph: Graph) -> Graph:
        """Recalibrate a scheduled graph, in place; one with cycles stays as it is, for its layers have no order."""
        if graph.of("delay"):
            return graph
        values: dict[str, Tensor] = {}
        with torch.no_grad():
            for node in graph.nodes:
                if node.op.name == "input":
                    values[node.result.name] = self.samples
                    continue
                inputs = [values[o.name] for o in node.operands]
                if node.op.name == "neuron" and not node["membrane"] and node.path in self.wanted:
                    inputs = [self._layer(graph, node, inputs[0])]
                values[node.result.name] = evaluate(graph, node, inputs)
                forget(graph, node, values)
        graph.prune_tensors()
        return graph

    def _layer(self, graph: Graph, node: Node, current: Tensor) -> Tensor:
        """Change one layer; gives its input current as it now is."""
        wanted = self.wanted[node.path]
        if (best := self._best(graph, node, current, wanted)) != node["neuron"]:
            graph.set_attrs(node, neuron=best)
        feed = feeding(graph, node)
        if feed is None:
            return current
        before = self._error(graph, node, current, wanted)
        shifted = current + broadcast(shift := correction(graph, node, current, wanted), current)
        if self._error(graph, node, shifted, wanted) >= before:
            return current
        add_bias(graph, feed, shift)
        return shifted

    def _best(self, graph: Graph, node: Node, current: Tensor, wanted: Tensor) -> Neuron:
        """The neuron of least squared error among its variants."""
        neuron: Neuron = node["neuron"]
        if not adjustable(neuron):
            return neuron

        def error(candidate: Neuron) -> float:
            graph.set_attrs(node, neuron=candidate)
            return self._error(graph, node, current, wanted)

        scaled = min((neuron, *(_scaled(neuron, s) for s in SCALES)), key=error)
        best = min((scaled, *(scaled.with_(v_init=s * _number(scaled, "threshold")) for s in STARTS)), key=error)
        graph.set_attrs(node, neuron=neuron)
        return best

    @staticmethod
    def _error(graph: Graph, node: Node, current: Tensor, wanted: Tensor) -> float:
        return float((evaluate(graph, node, [current]).mean(0) - wanted).square().mean())


def adjustable(neuron: Neuron) -> bool:
    """Whether threshold, initial membrane and spike value can change together and leave the gain as it is."""
    options = neuron.options
    return (
        neuron.template == "if"
        and options["reset"] == "soft"
        and options["reset_time"] == "now"
        and not options["own_reset_charge"]
        and not options["floor"]
        and all(isinstance(v, float) for v in neuron.params.values())
    )


def _scaled(neuron: Neuron, factor: float) -> Neuron:
    return neuron.with_(None, **{k: factor * _number(neuron, k) for k in ("threshold", "v_init", "spike_value")})


def _number(neuron: Neuron, name: str) -> float:
    value = neuron.params[name]
    assert isinstance(value, float)
    return value
