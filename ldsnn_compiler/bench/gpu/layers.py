"""A network of integrate-and-fire neurons as PyTorch runs it best: layer by layer, all timesteps of a layer at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import neuron


@dataclass(frozen=True)
class Fires:
    """What an integrate-and-fire neuron with a soft reset is: its threshold, what a spike is worth, where it begins."""

    threshold: float
    value: float
    begins: float


class Layers(nn.Module):
    """``graph`` as PyTorch modules: one static input ``[N, *shape]`` to scores ``[N, classes]``.

    ``neurons`` makes the module of a neuron layer, which maps ``[T, N, *shape]`` to the same. ``in_time`` False: time
    is left out, T is 1 everywhere, and ``neurons`` gives activations. Other ops are those of the interpreter.
    """

    def __init__(self, graph: Graph, neurons: Callable[[Fires], nn.Module], in_time: bool = True) -> None:
        super().__init__()
        layers = fires(graph)
        self.graph, self.in_time = graph, in_time
        self.names = {name: f"t{i}" for i, name in enumerate(sorted(graph.tensors))}
        for name, attribute in self.names.items():
            self.register_buffer(attribute, graph.tensors[name].clone())
        self.numbers = {name: i for i, name in enumerate(layers)}
        self.neurons = nn.ModuleList(neurons(each) for each in layers.values())
        self.last = {value.name: i for i, node in enumerate(graph.nodes) for value in (*node.operands, *node.results)}

    def forward(self, x: Tensor) -> Tensor:
        """Class scores. A value is dropped after its last use."""
        tensors = {name: getattr(self, attribute) for name, attribute in self.names.items()}
        values: dict[str, Tensor] = {}
        for i, node in enumerate(self.graph.nodes):
            given = [values[o.name] for o in node.operands]
            if node.op.name == "input":
                values[node.result.name] = x[None]
            elif node.op.name == "output":
                return given[0][-1]
            else:
                values[node.result.name] = self._evaluated(node, given, tensors)
            for name in [name for name in values if self.last[name] <= i]:
                del values[name]
        raise LdsnnError("a network without an output has no scores")

    def _evaluated(self, node: Node, given: list[Tensor], tensors: dict[str, Tensor]) -> Tensor:
        if node.op.name == "neuron":
            found: Tensor = self.neurons[self.numbers[node.name]](given[0])
            return found
        if node.op.kind == "time" and not self.in_time:
            return given[0]
        call = self.graph.call(node, batch=given[0].shape[1], steps=len(given[0]))
        call.tensors = tensors
        return node.op.evaluate(call, *given)[0]


def fires(graph: Graph) -> dict[str, Fires]:
    """The neurons of every layer by node; an error names every node that other libraries' rows cannot have."""
    found, problems = {}, list[Problem]()
    for node in graph.nodes:
        if node.op.name == "neuron" and (each := _fires(node)) is not None:
            found[node.name] = each
        elif node.op.kind == "scan":
            what = "is not an integrate-and-fire neuron with a soft reset, binary spikes and one threshold a layer"
            problems.append(Problem(what, where=node.path or node.name, kind=node.op.name))
    if problems:
        raise LdsnnError(problems)
    return found


def _fires(node: Node) -> Fires | None:
    params = node["neuron"].params if node["neuron"].template == "if" else {}
    numbers = [params.get(name) for name in ("threshold", "spike_value", "v_init")]
    if node["membrane"] or not all(isinstance(number, int | float) for number in numbers):
        return None
    threshold, value, begins = (float(number) for number in numbers)  # type: ignore[arg-type]
    plain = neuron("if", threshold=threshold, spike_value=value, v_init=begins)
    return Fires(threshold, value, begins) if plain == node["neuron"] else None


class Loop(nn.Module):
    """The neurons in a Python loop over time."""

    def __init__(self, fires: Fires) -> None:
        super().__init__()
        self.fires = fires

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, *shape]`` of currents of that shape: ``h = v + x; s = [h >= threshold]; v = h - s
        threshold``."""
        v, out = torch.full_like(x[0], self.fires.begins), []
        for current in x:
            v = v + current
            s = (v >= self.fires.threshold).to(v.dtype)
            v = v - s * self.fires.threshold
            out.append(s)
        return torch.stack(out) * self.fires.value


class SpikingJelly(nn.Module):
    """SpikingJelly's neurons, which know no value of a spike: that is multiplied to them."""

    def __init__(self, fires: Fires) -> None:
        from spikingjelly.activation_based import neuron as library

        super().__init__()
        self.value = fires.value
        self.node = library.IFNode(v_threshold=fires.threshold, v_reset=None, step_mode="m")
        self.node.set_reset_value("v", fires.begins)
        self.node.reset()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, *shape]`` of currents of that shape."""
        spikes: Tensor = self.node(x) * self.value
        return spikes
