"""Whole-number graphs: every number whole and within its bounds, text that reads back, what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from graphs import inputs_of, networks
from hypothesis import HealthCheck, Phase, given, settings

from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.bounds import Bounds
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron, neuron
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.passes.quantize import Quantize
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline

BEFORE = "canonicalize,fold-batchnorm,fold-scale,assign-timesteps,commute-resample,drop-dead-timesteps,canonicalize,dead-code"
random_networks = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)

#: the families and forms that have a whole-number program
NEURONS: tuple[Neuron, ...] = (
    neuron("if", threshold=0.7),
    neuron("if", reset="hard", v_reset=0.25, compare="gt"),
    neuron("if", max_count=4, threshold=0.3, spike_value=0.3),
    neuron("if", max_count=0, floor=True, v_min=-1.0),
    neuron("lif", tau=2.0),
    neuron("lif", tau=3.0, decay_input=False, reset="hard"),
    neuron("lif", form="rate", k=0.3, v_rest=0.125),
    neuron("lif", form="fused", decay=0.8),
    neuron("leaky", beta=0.9, compare="gt", reset_time="next_before_charge"),
    neuron("leaky", beta=0.9, compare="gt", reset="hard"),
    neuron("cuba_lif", alpha=0.7, beta=0.9, compare="gt", reset_time="next_after_charge", reset="hard"),
    neuron("lif_gain", beta=0.8, gain=0.5, synapse=True),
    neuron("lif_euler", mem_rate=0.3),
    neuron("alif", beta=0.9),
)


def scheduled(graph: Graph) -> Graph:
    """The graph as ``quantize`` takes it."""
    return run_pipeline(graph.clone(), parse_pipeline(BEFORE))


def quantized(graph: Graph, data: Sequence[torch.Tensor], **options: object) -> Graph:
    """The scheduled graph in whole numbers, calibrated on ``data``."""
    return run_pipeline(graph.clone(), [Quantize.of(calibrate(graph, *data), **options)])


def run_checked(graph: Graph, data: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The interpreter's outputs; every whole number is one, and within its bounds."""
    bounds, interpreter = Bounds(graph), Interpreter(graph)

    def check(node: Node, inputs: object, outputs: tuple[torch.Tensor, ...]) -> None:
        for value, x in zip(node.results, outputs, strict=True):
            if value.type.dtype == "int32":
                assert x.dtype == torch.float64 and torch.equal(x, x.round()), node
                assert within(bounds.value(value).low, x, bounds.value(value).high), node

    interpreter.observers.append(check)
    with torch.no_grad():
        found = interpreter.run(*data)
    for name, variables in interpreter.state.items():
        if name in graph and graph.node(name).op.name == "neuron":
            for variable, x in variables.items():
                known = bounds.neuron(graph.node(name)).state[variable]
                assert torch.equal(x, x.round()) and within(known.low, x[None], known.high), (name, variable)
    return found


def within(low: torch.Tensor, x: torch.Tensor, high: torch.Tensor) -> bool:
    """Whether data ``[T, N, *shape]`` lies between bounds per channel."""
    ends = [b.reshape(-1, *[1] * (x.ndim - 3)) if b.ndim else b for b in (low, high)]
    return bool((ends[0] <= x).all() and (x <= ends[1]).all())


@random_networks
@given(net=networks(neurons=NEURONS))
def test_every_number_is_whole_and_within_its_bounds(net: Graph) -> None:
    data = inputs_of(net)
    run_checked(quantized(scheduled(net), data), data)


@random_networks
@given(net=networks(neurons=NEURONS))
def test_text_reads_back(net: Graph) -> None:
    graph = quantized(scheduled(net), inputs_of(net), per="layer", weight_bits=6)
    assert graph_text(parse_graph(graph_text(graph), graph.tensors)) == graph_text(graph)
    assert {str(t.dtype) for t in graph.tensors.values()} <= {"torch.int8", "torch.int32", "torch.float32"}
