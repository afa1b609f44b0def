"""Weights rounded to a narrower type: what changes, what is refused, and what GPUs then read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from graphs import Net, inputs_of
from target_harness import check

from ldsnn_compiler.driver import DEFAULT_PIPELINE
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.passes.quantize import Quantize
from ldsnn_compiler.passes.round_weights import RoundWeights
from ldsnn_compiler.pipeline import parse_pipeline, passes, run_pipeline
from ldsnn_compiler.targets.boards import board
from ldsnn_compiler.targets.cuda.emulate import emulated
from ldsnn_compiler.targets.narrow import in_halves, rounded

BEFORE = DEFAULT_PIPELINE.split(",select-kernels")[0]
ROUNDED = DEFAULT_PIPELINE.replace("select-kernels", "round-weights,select-kernels")


def network(unit: float = 1.0, places: int = 14) -> Graph:
    """Two convolutions and a linear layer; weights have so many binary places, more than half precision keeps, and
    sums of them are exact in float32."""
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 17), neuron("if", spike_value=unit))
    x = net.pool(net.neuron(net.conv(x, 20)))
    graph = net.output(net.op("readout", net.linear(net.op("flatten", x), 3), mode="mean"))
    for name in [n for n in graph.tensors if n.endswith("weight")]:
        drawn = torch.randint(-(2**places), 2**places, graph.tensors[name].shape, generator=net.generator)
        graph.tensors[name] = drawn.float() / 2**places
    return graph


def scheduled(graph: Graph) -> Graph:
    """The graph as the pass takes it."""
    return run_pipeline(graph.clone(), parse_pipeline(BEFORE))


def weights(graph: Graph) -> dict[str, torch.Tensor]:
    return {name: value for name, value in graph.tensors.items() if name.endswith("weight")}


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_weights_are_the_nearest_numbers_of_the_type(dtype: str, bits: int) -> None:
    before = scheduled(network())
    after = run_pipeline(before.clone(), [RoundWeights(dtype)])
    assert set(after.tensors) == set(before.tensors), "tensors keep their names"
    for name, weight in weights(after).items():
        former = before.tensors[name]
        assert torch.equal(weight.to(getattr(torch, dtype)).float(), weight) and not torch.equal(weight, former)
        assert bool(((weight - former).abs() <= former.abs() * 2.0**-bits).all())
    assert all(torch.equal(after.tensors[k], v) for k, v in before.tensors.items() if k not in weights(before))


def test_a_second_time_changes_nothing() -> None:
    for unit in (1.0, 0.3):
        graph = run_pipeline(scheduled(network(unit)), [RoundWeights()])
        once = graph_text(graph)
        assert not RoundWeights().run(graph) and graph_text(graph) == once


def test_it_says_that_it_approximates() -> None:
    assert not passes()["round-weights"].exact
    assert str(RoundWeights("bfloat16")) == "round-weights{dtype=bfloat16}"


@pytest.mark.parametrize("kernel", ["event", "dense"])
def test_a_gpu_reads_halves_and_computes_the_rounded_network(kernel: str) -> None:
    forced = f"select-kernels{{kernel={kernel}}}"
    machine, graph = emulated(board("h100")), network()
    found = check(graph, target=machine, pipeline=ROUNDED.replace("select-kernels", forced))
    given = [source for kernel in found.plans["run"].kernels for source in getattr(kernel.key, "sources", ())]
    fed_by_spikes = [s for s in given if s.form == "bits"]
    assert fed_by_spikes and {s.weights for s in fed_by_spikes} == {"float16"}
    plain = check(graph, target=machine, pipeline=DEFAULT_PIPELINE.replace("select-kernels", forced))
    plain_given = [source for kernel in plain.plans["run"].kernels for source in getattr(kernel.key, "sources", ())]
    assert {s.weights for s in plain_given} == {"float32"}


def test_a_cpu_computes_the_rounded_network() -> None:
    check(network(), pipeline=ROUNDED)


@pytest.mark.parametrize("unit", [0.25, 0.3, 3.0])
def test_the_value_of_a_spike_counts_as_part_of_the_weight(unit: float) -> None:
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    made = rounded(weight, unit, torch.float16)
    assert in_halves(made, unit) and not in_halves(weight, unit)
    assert torch.allclose((made * unit).half().float(), made * unit, rtol=2.0**-23, atol=0)
    graph = run_pipeline(scheduled(network(unit)), [RoundWeights()])
    readers = [n for n in graph.of("conv2d", "linear") if n.operands[0].type.signal.is_event]
    assert readers and all(in_halves(graph.tensors[n["weight"].name], n.operands[0].type.signal.unit) for n in readers)


def test_two_layers_of_one_tensor_are_rounded_by_what_each_reads() -> None:
    net = Net(4)
    x = net.input((4,))
    shared = net.graph.tensor("w", torch.rand(4, 4, generator=net.generator))
    a = net.neuron(net.op("linear", x, weight=shared), neuron("if", spike_value=0.3))
    graph = scheduled(net.output(net.neuron(net.op("linear", a, weight=shared))))
    run_pipeline(graph, [RoundWeights()])
    for node in graph.of("linear"):
        assert in_halves(graph.tensors[node["weight"].name], node.operands[0].type.signal.unit)


def test_weights_out_of_range_are_refused_by_name() -> None:
    graph = network()
    for name, value in (("conv2d.weight", 1e5), ("linear.weight", float("nan"))):
        graph.tensors[name] = graph.tensors[name].clone()
        graph.tensors[name].view(-1)[3] = value
    with pytest.raises(LdsnnError, match="beyond float16") as caught:
        RoundWeights().run(scheduled(graph))
    where = {p.where: p.message for p in caught.value.problems}
    assert set(where) == {"conv2d", "linear"} and "100000" in where["conv2d"] and "nan" in where["linear"]


def test_what_cannot_be_is_told_at_once() -> None:
    with pytest.raises(LdsnnError, match="float16 or bfloat16, not 'int8'") as caught:
        RoundWeights("int8").run(network())
    assert len(caught.value.problems) == 2 and "scheduled graph" in str(caught.value)


def test_whole_numbers_stay() -> None:
    graph = scheduled(network())
    run_pipeline(graph, [Quantize.of(calibrate(graph, *inputs_of(graph)))])
    once = graph_text(graph)
    assert not replace(RoundWeights(), dtype="bfloat16").run(graph) and graph_text(graph) == once
