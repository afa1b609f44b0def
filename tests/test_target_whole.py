"""Networks of whole numbers through the whole pipeline: bit for bit what the interpreter says, state included."""

from __future__ import annotations

import random

import pytest
import torch
from graphs import Net, inputs_of, networks, some_schedule
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from target_harness import check

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.integers import Calibration, Range, calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import Neuron, neuron
from ldsnn_compiler.pipeline import default_pipeline
from ldsnn_compiler.runtime.compiled import Compiled
from ldsnn_compiler.targets import boards
from ldsnn_compiler.targets.cost import Synapses

few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


def check_whole(graph: Graph, **options) -> Compiled:
    """Quantized, compiled, and equal to the interpreter of the quantized graph."""
    network = check(graph, numerics="int", calibration=calibrate(graph, *inputs_of(graph)), **options)
    assert network.graph.numerics == "int"
    return network


def types(network: Compiled) -> list[tuple[str, ...]]:
    """Per region of the whole run: accumulator and parts, then for each convolution its weights and partial words."""
    specs = [k.key for k in network.plans["run"].kernels if hasattr(k.key, "accumulator")]
    return [(f"{s.accumulator} {s.parts}", *(f"{x.weights} {x.partial}" for x in s.sources)) for s in specs]


@few
@given(net=networks(), seed=st.integers(0, 2**16))
def test_random_networks(net: Graph, seed: int) -> None:
    draw = random.Random(seed)
    try:
        check_whole(net, schedule=some_schedule(net, draw) if draw.random() < 0.5 else None)
    except LdsnnError:
        reject()


NEURONS = {
    "if": neuron("if", threshold=0.5),
    "counting": neuron("if", threshold=0.5, max_count=5),
    "leaky": neuron("leaky", threshold=0.75, beta=0.9),
    "hard lif": neuron("lif", threshold=0.5, tau=2.0, reset="hard"),
}


def residual(cell: Neuron, channels: int = 70, groups: int = 1) -> Graph:
    """A stem, a block with an identity shortcut of events, a pool, a head."""
    net = Net(4)
    x = net.neuron(net.conv(net.input((3, 6, 6)), channels), cell)
    y = net.conv(net.neuron(net.conv(x, channels, groups=groups), cell), channels)
    x = net.pool(net.neuron(net.op("add", y, x), cell))
    y = net.linear(net.op("flatten", x), 10)
    return net.output(net.op("readout", y, mode="mean"), x)


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("kernel", ["event", "dense"])
def test_shortcuts(name: str, kernel: str) -> None:
    density = dict.fromkeys(("sn", "sn1"), 0.01 if kernel == "event" else 1.0)
    network = check_whole(residual(NEURONS[name]), density=density)
    assert any(t[0].startswith("int") for t in types(network))


def test_depthwise_and_grouped() -> None:
    for groups in (2, 70):
        check_whole(residual(NEURONS["if"], groups=groups))


def wide(channels: int, inputs: int, **options) -> list[tuple[str, ...]]:
    """Types of a network whose second layer adds up that many inputs."""
    net = Net(4)
    x = net.neuron(net.conv(net.input((3, 4, 4)), inputs), NEURONS["if"])
    graph = net.output(net.neuron(net.conv(x, channels), NEURONS["if"]))
    return types(check_whole(graph, density={"sn": 0.01}, **options))


def test_types_follow_the_proof() -> None:
    """Few inputs are summed in int16, more in parts of int16, 12-bit weights in int32."""
    assert wide(64, 20)[-1] == ("int16 1", "int8 0")
    accumulator, *sources = wide(64, 192)[-1]
    assert accumulator.startswith("int16") and accumulator > "int16 1"
    assert sources == ["int8 0"]
    assert wide(64, 64, weight_bits=12)[-1] == ("int32 1", "int16 0")


def test_counts_are_quotients_in_float32_where_that_is_proved() -> None:
    """A bounded count of any membrane; an unbounded one of small membranes only."""
    unbounded = neuron("if", threshold=0.5, max_count=0)
    for cell, bits, wanted in (
        (NEURONS["counting"], 12, "float32"), (unbounded, 8, "float32"), (unbounded, 12, "float64"),
    ):  # fmt: skip
        net = Net(4)
        network = check_whole(net.output(net.neuron(net.conv(net.input((3, 6, 6)), 20), cell)), weight_bits=bits)
        specs = [k.key for k in network.plans["run"].kernels if getattr(k.key, "neuron", None)]
        assert [s.quotients for s in specs] == [wanted], (cell, bits)


def test_state_is_whole() -> None:
    graph = residual(NEURONS["leaky"])
    network = check_whole(graph)
    values = [v for variables in network.state.values() for v in variables.values()]
    assert values
    assert all(torch.equal(v, v.round()) for v in values)


def test_whole_numbers_have_costs_of_their_own() -> None:
    """Rows of int16 are never dearer, products are cheaper where they are taken several at a time."""
    for board in boards().values():
        real, whole = Synapses(576, 64), Synapses(576, 64, whole=True)
        assert whole.event_ns(board, 0.1) <= real.event_ns(board, 0.1), board.name
        assert whole.dense_ns(board) <= real.dense_ns(board), board.name
        if board.has("avx512vnni") or board.has("dotprod"):
            assert whole.dense_ns(board) <= real.dense_ns(board) / 2, board.name


@pytest.mark.parametrize(("low", "shift"), [(0.0, 0), (-1.0, 127)])
@pytest.mark.parametrize("input_bits", [8, 10])
def test_real_inputs_are_multiplied_in_narrow_numbers(low: float, shift: int, input_bits: int) -> None:
    """Eight bits in bytes, with sign too; more in int16. Numbers beyond the calibrated range are clipped."""
    net = Net(2)
    x = net.neuron(net.conv(net.input((3, 6, 6), "static"), 20), NEURONS["counting"])
    graph = net.output(net.linear(net.op("flatten", x), 5))
    calibration = Calibration({"x": Range(low, 1.0)})
    pipeline = default_pipeline().replace("select-kernels", f"quantize{{input_bits={input_bits}}},select-kernels")
    network = check(graph, calibration=calibration, pipeline=pipeline)
    first = next(k.key for k in network.plans["run"].kernels if hasattr(k.key, "accumulator"))
    (source,) = first.sources
    levels = 2 ** (input_bits - (low < 0)) - 1
    assert (source.least, source.most) == ((-levels if low else 0), levels)
    if "vpdpbusd" in first.tuning.dots:
        group = 4 if input_bits == 8 else 2
        assert first.dot(source).group == group and first.shift(source) == (shift if group == 4 else 0)
