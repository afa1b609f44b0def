"""True evaluation: the figures of a schedule, and the same figures when a prefix is reused."""

from __future__ import annotations

import pytest
import torch
from graphs import Net, networks
from hypothesis import given, settings
from hypothesis import strategies as st

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.interp.work import count_work
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.types import REAL, SPIKE, Signal, Stream
from ldsnn_compiler.search.cost import COSTS, NodeWork, program_operations, totals
from ldsnn_compiler.search.evaluate import Evaluator, Figures, divergences, predictions_drop
from ldsnn_compiler.search.options import space
from ldsnn_compiler.search.prefix import PART, Digests, StreamCache, signatures, suffix


def residual(timesteps: int = 4) -> Graph:
    """A static image, three IF layers, a shortcut around the second."""
    net = Net(timesteps)
    a = net.neuron(net.conv(net.input((1, 6, 6), "static"), 2))
    b = net.neuron(net.conv(a, 2))
    c = net.neuron(net.op("add", net.conv(b, 2), a))
    return net.output(net.op("readout", net.linear(net.op("flatten", c), 3), mode="mean"))


def samples(graph: Graph, count: int = 5, seed: int = 0) -> torch.Tensor:
    """Dyadic samples as a data set holds them."""
    node = graph.inputs[0]
    shape = node.type.shape if node["time"] == "static" else (node.type.timesteps, *node.type.shape)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 9, (count, *shape), generator=generator).float() / 8


def test_reference_is_the_original_network_with_its_naive_work():
    graph = residual()
    x = samples(graph)
    outputs, work = count_work(graph, x[None])
    reference = Evaluator(graph, x).reference
    assert reference.predictions == tuple(outputs[0].mean(0).argmax(1).tolist()) and reference.loss == 0.0
    found = totals(reference.nodes)
    assert found["synaptic_updates"] == pytest.approx(work.totals()["synaptic_updates"])
    assert found["neurons_evaluated"] == work.totals()["neurons_evaluated"]


def test_the_identity_schedule_predicts_the_same_and_computes_the_first_convolution_once():
    graph = residual()
    evaluator = Evaluator(graph, samples(graph))
    found = evaluator.evaluate(space(graph).schedule((0, 0, 0)))
    assert found.predictions == evaluator.reference.predictions and found.loss == pytest.approx(0.0, abs=1e-12)
    assert found.nodes["conv2d"].synaptic_updates * 4 == evaluator.reference.nodes["conv2d"].synaptic_updates


def test_work_may_be_counted_on_the_first_samples_only():
    graph, few = residual(), 2
    x, schedule = samples(graph), space(graph).schedule((1, 2, 0))
    some = Evaluator(graph, x, counted=few, memory=1 << 15)
    some.remember(space(graph).schedule((1, 0, 0)))
    found, whole = some.evaluate(schedule), Evaluator(graph, x).evaluate(schedule)
    assert found.predictions == whole.predictions and found.nodes != whole.nodes
    assert found.nodes == Evaluator(graph, x[:few]).evaluate(schedule).nodes
    assert some.fingerprint != Evaluator(graph, x).fingerprint


def test_small_batches_change_nothing():
    graph = residual()
    x, schedule = samples(graph), space(graph).schedule((1, 2, 0))
    assert Evaluator(graph, x, memory=1).evaluate(schedule) == Evaluator(graph, x).evaluate(schedule)


@settings(max_examples=20, deadline=None)
@given(networks(), st.data())
def test_reusing_a_prefix_gives_the_same_figures(graph: Graph, data: st.DataObject):
    x = samples(graph, 3)
    found = space(graph, "graded")
    picks = [data.draw(st.integers(0, len(g.choices) - 1)) for g in found.groups]
    base = [data.draw(st.sampled_from((0, p))) for p in picks]
    reusing, plain = Evaluator(graph, x, memory=1 << 12), Evaluator(graph, x)
    reusing.remember(found.schedule(base))
    assert reusing.evaluate(found.schedule(picks)) == plain.evaluate(found.schedule(picks))


def test_only_what_follows_a_change_is_run():
    graph = residual()
    evaluator = Evaluator(graph, samples(graph))
    everything = space(graph)
    evaluator.remember(everything.schedule((0, 0, 0)))
    changed = evaluator.prepare(everything.schedule((0, 0, 1)))
    start = suffix(changed, signatures(changed, evaluator._digests), evaluator._cache)
    assert {n.path for n in start.graph.of("neuron")} == {"sn_3"}
    assert {n.path for n in start.graph.of("conv2d")} == {"conv2d_3"} and len(start.known) == 2


def test_without_room_for_streams_everything_is_run_again():
    graph = residual()
    found, evaluator = space(graph), Evaluator(graph, samples(graph), cache=0)
    evaluator.remember(found.schedule((0, 0, 0)))
    assert evaluator._cache.bytes == 0
    assert evaluator.evaluate(found.schedule((0, 0, 1))) == Evaluator(graph, samples(graph)).evaluate(
        found.schedule((0, 0, 1))
    )


def test_samples_of_half_precision_are_those_of_full_precision_in_half_the_memory():
    graph = residual()
    half = samples(graph).half()
    few, many = Evaluator(graph, half), Evaluator(graph, half.float())
    assert few.fingerprint == many.fingerprint
    schedule = space(graph).schedule((0, 0, 1))
    assert few.evaluate(schedule) == many.evaluate(schedule)


def test_signatures_tell_weights_apart_and_not_names():
    one, two = residual(), residual()
    digests = Digests()
    assert signatures(one, digests) == signatures(two, digests)
    two.tensors["conv2d_2.weight"] = two.tensors["conv2d_2.weight"] + 1
    a, b = signatures(one, digests), signatures(two, digests)
    assert a["sn"] == b["sn"] and a["sn_2"] != b["sn_2"] and a["sn_3"] != b["sn_3"]


@pytest.mark.parametrize("signal", [SPIKE, Signal(5, 0.25), Signal(0, 0.5), REAL], ids=str)
def test_streams_come_back_as_they_were(signal: Signal):
    stream = Stream(3, 1, (2, 5), signal=signal)
    counts = torch.randint(0, 300 if signal.levels == 0 else (signal.levels or 9) + 1, (3, 4, 2, 5)).float()
    data = counts * signal.unit if signal.is_event else counts / 3
    cache = StreamCache(4, 1 << 20)
    cache.put("s", stream, 0, data[:, :3])
    cache.put("s", stream, 3, data[:, 3:])
    assert torch.equal(cache.get("s", 1, 4), data[:, 1:4])
    assert cache.bytes == 4 * {1: 4, 5: 3 * 4, 0: 30 * 2, None: 30 * 4}[signal.levels]


def test_tensors_larger_than_a_part_are_told_apart_by_any_element():
    whole = torch.zeros(3 * PART + 1, 2)
    other = whole.clone()
    other[-1, 1] = 1.0
    assert Digests().of(whole) == Digests().of(whole.clone()) != Digests().of(other)
    assert Digests().of(torch.tensor(1.0)) != Digests().of(torch.tensor([1.0]))


def test_figures_survive_json():
    graph = residual()
    figures = Evaluator(graph, samples(graph)).evaluate(space(graph).schedule((1, 1, 1)))
    assert Figures.from_json(figures.to_json()) == figures


def test_divergence_is_of_what_tells_classes_apart():
    """Rates that fall alike lose nothing; classes that come nearer to each other do, and more do more."""
    scores = torch.rand(50, 4, generator=torch.Generator().manual_seed(1))
    assert divergences(scores, 0.25 * scores).abs().max() < 1e-6
    noise = torch.rand(50, 4, generator=torch.Generator().manual_seed(2))
    losses = [float(divergences(scores, 0.25 * (scores + share * noise)).mean()) for share in (0.1, 0.3, 1.0)]
    assert 0 < losses[0] < losses[1] < losses[2]
    assert torch.isfinite(divergences(scores, torch.zeros(50, 4))).all()


def test_losses_and_wins_are_paired():
    assert predictions_drop([1, 2, 3, 4], [1, 0, 3, 5], [1, 2, 0, 5]) == (1, 1)
    assert predictions_drop([1, 2, 3, 4], [1, 0, 3, 5], None) == (2, 0)


def test_costs_and_program_operations():
    assert program_operations(neuron("if")) == (3, 2)
    work = NodeWork("conv2d", "c", 4, synaptic_updates=1000.0, neurons_evaluated=10.0)
    assert COSTS["synaptic"](work) == pytest.approx(1000.01) and COSTS["neurons"](work) == pytest.approx(11.0)
    assert totals({"c": work})["additions"] == 1000.0


def test_samples_that_do_not_fit_are_refused():
    graph = residual()
    with pytest.raises(LdsnnError, match="do not fit"):
        Evaluator(graph, torch.zeros(2, 1, 5, 5))
    assert Interpreter(graph).graph.stage == "traced"
