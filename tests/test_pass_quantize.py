"""Whole-number graphs: every number whole and within its bounds, text that reads back, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from graphs import Net, inputs_of, networks, run
from hypothesis import HealthCheck, Phase, given, settings
from target_harness import check

from ldsnn_compiler.bench.network import build
from ldsnn_compiler.bench.ours import built
from ldsnn_compiler.driver import compile
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.integers import Calibration, Range, calibrate
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.bounds import Bounds
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron, neuron
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.types import Signal, Stream
from ldsnn_compiler.passes.quantize import Quantize
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.runtime import load

BEFORE = (
    "canonicalize,fold-batchnorm,fold-scale,assign-timesteps,"
    "commute-resample,drop-dead-timesteps,canonicalize,dead-code"
)
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


def one_neuron(cell: Neuron, timesteps: int = 16) -> Graph:
    """An image of currents that change in time, a convolution, one layer; spikes and membrane come out."""
    net = Net(timesteps)
    spikes = net.neuron(net.conv(net.input((2, 6, 6)), 4), cell, membrane=True)
    return net.output(spikes, spikes.node.results[1])


@pytest.mark.parametrize("cell", [*NEURONS, neuron("li", beta=0.9)], ids=str)
def test_fine_numbers_come_close_to_real_ones(cell: Neuron) -> None:
    """With 10 bits nearly all spikes are where they were, and so are the membranes."""
    graph = scheduled(one_neuron(cell))
    data = inputs_of(graph, batch=4)
    real, whole = (run(g, data) for g in (graph, quantized(graph, data, weight_bits=10, input_bits=10)))
    differing = (real[0] - whole[0]).abs() > 1e-3 * real[0].abs().max()
    assert differing.float().mean() < 0.02
    if not bool(differing.any()):
        assert (real[1] - whole[1]).abs().max() < 2e-3 * real[1].abs().max()


def test_ratios_have_the_places_that_they_need() -> None:
    fractions = {}
    for beta in (0.9, 0.999, 0.5):
        graph = scheduled(one_neuron(neuron("leaky", beta=beta)))
        whole = quantized(graph, inputs_of(graph))
        (node,) = whole.of("neuron")
        fractions[beta] = node["neuron"].fraction
        assert (Bounds(whole).neuron(node).product < 2**31) == (beta < 0.99)
        assert abs(node["neuron"].params["beta"] - beta) < (1 - beta) / 32
        assert (run(graph, inputs_of(graph))[0] != run(whole, inputs_of(graph))[0]).float().mean() < 0.05
    assert max(fractions[0.5], fractions[0.9]) < fractions[0.999] == 15
    graph = scheduled(one_neuron(neuron("leaky", beta=0.9)))
    assert quantized(graph, inputs_of(graph), fraction=4).of("neuron")[0]["neuron"].params["beta"] == 14 / 16


def test_substeps_are_summed() -> None:
    net = Net(16)
    y = net.resample(net.conv(net.input((2, 6, 6)), 4), 4)
    graph = scheduled(net.output(net.neuron(y, neuron("leaky", beta=0.8, spike_value=2.0).with_(substeps=4))))
    data = inputs_of(graph)
    whole = quantized(graph, data, weight_bits=10, input_bits=10)
    assert [str(n.type.signal) for n in whole.of("neuron")] == ["event(4, 1.0)"]
    assert whole.outputs[0].type == graph.outputs[0].type
    assert (run(graph, data)[0] != run(whole, data)[0]).float().mean() < 0.02


def test_uneven_means_over_time_become_sums_of_a_common_multiple() -> None:
    net = Net(8)
    y = net.resample(net.conv(net.input((2, 6, 6)), 4, bias=False), Fraction(8, 3))
    graph = scheduled(net.output(net.neuron(y, neuron("if", threshold=0.25))))
    data = inputs_of(graph)
    whole = quantized(graph, data, weight_bits=10, input_bits=10)
    assert "resample_sum" not in whole and [n["mode"] for n in whole.of("resample")] == ["sum"]
    assert (run(graph, data)[0] != run(whole, data)[0]).float().mean() < 0.02


def test_batch_norm_that_cannot_be_folded_becomes_a_depthwise_convolution() -> None:
    net = Net(8)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 4))
    y = net.conv(net.batch_norm(x), 4)
    graph = scheduled(net.output(net.neuron(y)))
    assert graph.of("batch_norm")
    data = inputs_of(graph)
    whole = quantized(graph, data, weight_bits=10, input_bits=10)
    assert [n["groups"] for n in whole.of("conv2d")] == [1, 4, 1]
    assert (run(graph, data)[0] != run(whole, data)[0]).float().mean() < 0.02


def test_delays_and_feedback_stay_whole() -> None:
    net = Net(8)
    x = net.linear(net.op("flatten", net.input((2, 3, 3))), 5)
    back = net.graph.add("delay", type=x.type, steps=2)
    spikes = net.op("neuron", x, back.result, neuron=neuron("leaky", beta=0.9, feedback=True), path="cell")
    with net.graph.edit():
        net.graph.set_operand(back, 0, net.linear(spikes, 5))
        net.graph.set_attrs(back, type=x.type)
    graph = scheduled(net.output(spikes))
    data = inputs_of(graph)
    whole = quantized(graph, data, weight_bits=10, input_bits=10)
    assert whole.node("delay").type.dtype == "int32"
    assert (run_checked(whole, data)[0] != run(graph, data)[0]).float().mean() < 0.03


def test_events_that_come_in_are_counted() -> None:
    graph = Graph("events", 4)
    x = graph.add("input", type=Stream(4, Fraction(1), (3,), signal=Signal(2, 0.5)), name="x").result
    graph.add("output", [graph.add("neuron", [x], neuron=neuron("if"), path="sn").result])
    whole = quantized(scheduled(graph), [torch.zeros(4, 1, 3)])
    assert whole.node("x.whole").attrs == {"scale": 0.5, "low": 0, "high": 2}
    assert whole.node("sn")["neuron"].params == {"v_init": 0.0, "threshold": 2.0}
    data = (torch.tensor([0.5, 1.0, 0.0]).repeat(4, 1, 1),)
    assert torch.equal(run(whole, data)[0], run(graph, data)[0])


# ---- what is refused


def refused(graph: Graph, data: Sequence[torch.Tensor] = (), **options: object) -> tuple[str, ...]:
    """The problems, less the runner's."""
    scheduled_graph = scheduled(graph)
    with pytest.raises(LdsnnError) as caught:
        quantized(scheduled_graph, data or inputs_of(scheduled_graph), **options)
    return tuple(str(p) for p in caught.value.problems[:-1])


def test_all_that_has_no_whole_number_form_is_named_at_once() -> None:
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 3), neuron("izhikevich"))
    pools = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "count_include_pad": False}
    y = net.neuron(net.conv(net.op("avg_pool", net.neuron(net.conv(net.graph.node("x").result, 3)), **pools), 2))
    first, second = refused(net.output(x, y))
    assert first.startswith("sn: neuron.izhikevich: ")
    assert "no common divisor" in second and "count_include_pad=True" in second


def test_sums_that_do_not_fit_are_refused() -> None:
    net = Net(8)
    x = net.neuron(net.conv(net.input((1, 6, 6)), 4))
    for _ in range(3):
        x = net.conv(x, 4, bias=False)
    problems = refused(net.output(x), weight_bits=8)
    assert all("not proved to fit int32 (fewer weight_bits" in problem for problem in problems)


def test_a_cycle_of_real_numbers_is_refused() -> None:
    net = Net(8)
    x = net.linear(net.op("flatten", net.input((2, 3, 3))), 5)
    (problem, *_) = refused(net.output(net.recurrent(x, neuron("li", beta=0.9))))
    assert "%scale brings real numbers in units that do not fit this sum's" in problem


def test_only_a_scheduled_graph_of_real_numbers_with_ranges_is_taken() -> None:
    net = Net(4)
    graph = net.output(net.neuron(net.conv(net.input((1, 4, 4)), 2)))
    with pytest.raises(LdsnnError, match="this one is traced"):
        Quantize().run(graph)
    graph = scheduled(graph)
    with pytest.raises(LdsnnError, match="x: input: is a real input without a calibrated range"):
        Quantize().run(graph)
    known = Calibration({"x": Range(0.0, 1.0), "z": Range(0.0, 1.0)})
    with pytest.raises(LdsnnError, match="z: is no real input of the network"):
        Quantize.of(known).run(graph)
    with pytest.raises(LdsnnError, match=r"weight_bits: is from 2 to 16.*\n.*per: is channel or layer"):
        Quantize(weight_bits=1, per="tensor").run(graph)
    run_pipeline(graph, [Quantize.of(Calibration({"x": Range(0.0, 1.0)}))])
    with pytest.raises(LdsnnError, match="computes whole numbers already"):
        Quantize().run(graph)


# ---- the artefact


def test_a_calibration_reads_back(tmp_path: Path) -> None:
    graph = one_neuron(neuron("if"))
    found = calibrate(graph, torch.linspace(-0.5, 2.0, 16 * 3 * 72).reshape(16, 3, 2, 6, 6))
    assert found == Calibration({"x": Range(-0.5, 2.0)}, 3)
    found.write(tmp_path / "calibration.json")
    assert Calibration.open(tmp_path / "calibration.json") == found == Calibration.open(found.text())
    clipped = calibrate(graph, torch.linspace(-0.5, 2.0, 16 * 3 * 72).reshape(16, 3, 2, 6, 6), percentile=50.0)
    assert clipped.inputs["x"].low == -0.5 and 0.7 < clipped.inputs["x"].high < 0.8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "object of version, samples and inputs"),
        ('{"version": 2, "samples": 1, "inputs": {}}', "version 2 cannot be read"),
        ('{"version": 1, "samples": -1, "inputs": {}}', "number of samples"),
        ('{"version": 1, "samples": 1, "inputs": {"x": {"low": 1, "high": 0}}}', "x: has low and high"),
        ('{"version": 1, "samples": 1, "inputs": {"x": {"low": 0}}}', "x: has low and high"),
        ("{", "not JSON"),
    ],
)
def test_a_calibration_that_cannot_be_read_says_why(text: str, said: str) -> None:
    with pytest.raises(LdsnnError) as caught:
        Calibration.parse(text)
    assert said in str(caught.value)


# ---- compiled


def test_every_family_is_compiled_to_the_same_bits(tmp_path: Path) -> None:
    """One network with a layer of each, spikes, membranes and state; and what a bundle of it holds."""
    net = Net(4)
    x, ends = net.input((2, 4, 4)), []
    for cell in (*NEURONS, neuron("li", beta=0.9)):
        spikes = net.neuron(net.conv(x, 3), cell, membrane=True)
        ends += [spikes, spikes.node.results[1]]
    graph = net.output(*ends)
    found = check(graph, numerics="int", calibration=calibrate(graph, *inputs_of(graph)))
    found.save(tmp_path / "net.ldsnn")
    loaded = load(tmp_path / "net.ldsnn")
    data = inputs_of(graph)
    assert loaded.settings.numerics == "int" and loaded.graph.tensors["conv2d.weight"].dtype == torch.int8
    for a, b in zip(found.run(*data), loaded.run(*data), strict=True):
        assert torch.equal(a, b)


def test_options_that_nothing_takes_are_errors() -> None:
    net = Net(4)
    graph = net.output(net.neuron(net.conv(net.input((1, 4, 4)), 2)))
    with pytest.raises(LdsnnError, match="weight_bits: needs numerics int"):
        compile(graph, weight_bits=4)
    with pytest.raises(LdsnnError, match="no pass of the pipeline makes whole numbers"):
        compile(graph, numerics="int", pipeline="canonicalize,assign-timesteps")
    with pytest.raises(LdsnnError, match="asks for fp32 of whole numbers"):
        compile(quantized(scheduled(graph), inputs_of(graph)), numerics="fp32")


def test_a_channel_whose_weights_all_but_vanished_fits_int32() -> None:
    network = build("mlp", 2, 0.1)
    network.layers[0].weight[3] *= 1e-9
    made = quantized(scheduled(built(network)), [network.images[None]])
    weights = [t for name, t in made.tensors.items() if t.dtype == torch.int8 and t.shape == (128, 64)]
    assert len(weights) == 1 and not weights[0][3].any() and weights[0].abs().amax(1).median() == 127
