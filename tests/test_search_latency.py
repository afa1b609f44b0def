"""The latency model: kernels timed once, kept on disk, and added up to about what the network takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graphs import Net
from search_worker import EFFORT, data, network
from test_search_evaluate import residual, samples

from ldsnn_compiler.evaluate import as_input
from ldsnn_compiler.search import latency
from ldsnn_compiler.search.evaluate import Evaluator
from ldsnn_compiler.search.latency import DENSITIES, LatencyModel
from ldsnn_compiler.search.optimize import optimize
from ldsnn_compiler.search.options import space
from ldsnn_compiler.targets.boards import board


def test_kernels_are_timed_once_and_remembered(tmp_path: Path) -> None:
    graph = residual(8)
    evaluator, where = Evaluator(graph, samples(graph)), space(graph, "graded")
    model = LatencyModel(board("native"), tmp_path)
    one, two = (evaluator.prepare(where.schedule(p)) for p in [(0, 0, 0), (0, 0, 1)])
    first = model.latencies(one, {})
    assert set(first) <= {n.name for n in one.nodes} and all(v > 0 for v in first.values())
    fresh = model.measured
    model.latencies(two, {})
    assert 0 < model.measured - fresh < fresh, "layers that did not change need no new measurement"
    again = LatencyModel(board("native"), tmp_path)
    assert again.latencies(one, {}) == first and again.measured == 0
    assert LatencyModel(board("native"), None).latencies(one, {}).keys() == first.keys()


def test_the_model_is_checked_against_the_whole_network(tmp_path: Path) -> None:
    graph = residual(8)
    x = samples(graph)
    evaluator = Evaluator(graph, x)
    schedule = space(graph).schedule((0, 1, 0))
    prepared, work = evaluator.prepare(schedule), evaluator.evaluate(schedule).nodes
    found = LatencyModel(board("native"), tmp_path).check(prepared, work, as_input(prepared.inputs[0], x[:1]))
    assert found.modelled_ms > 0 and found.measured_ms > 0
    assert found.error == pytest.approx(found.modelled_ms / found.measured_ms - 1)


def test_what_counts_is_the_share_of_updates_not_of_spikes() -> None:
    """A spike in the middle of an image causes more updates than one at its border, so it counts for more."""
    net = Net(1)
    graph = net.output(net.neuron(net.conv(net.neuron(net.input((1, 3, 3))), 2)))
    first, last = graph.of("neuron")
    (conv,) = graph.of("conv2d")
    x = torch.zeros(1, 1, 1, 3, 3)
    x[..., 1, 1] = 1.0
    work = Evaluator(graph, x.transpose(0, 1)).evaluate(space(graph).schedule((0, 0))).nodes
    share = latency._share(graph, work, (conv.name, last.name), (first.name,))
    assert share == pytest.approx(9 / 49) and share > work[first.name].density == pytest.approx(1 / 9)
    assert latency._share(graph, work, (last.name,), (first.name,)) == pytest.approx(1 / 9)
    assert latency._share(graph, {}, (conv.name,), (first.name,)) == DENSITIES[0]


def test_a_search_may_minimise_measured_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDSNN_CACHE", str(tmp_path))
    found = optimize(network(), data(), 0.5, cost="latency", effort=EFFORT)
    assert list(tmp_path.glob("latency/*.json"))
    figures = found.report.details["figures"]
    assert figures["per layer, binary"]["work"]["latency_ms"] > 0
    checked = found.report.details["latency"]
    assert checked.keys() == found.report.details["schedules"].keys()
    for each in checked.values():
        assert each["measured_ms"] > 0 and each["error"] == pytest.approx(each["modelled_ms"] / each["measured_ms"] - 1)
    again = optimize(network(), data(), 0.5, cost="latency", effort=EFFORT)
    assert again.schedule == found.schedule, "times are kept, so the same search finds the same"


def test_times_between_the_measured_densities_lie_on_a_line() -> None:
    low, high = DENSITIES
    assert latency._line((1.0, 3.0), low) == 1.0 and latency._line((1.0, 3.0), high) == pytest.approx(3.0)
    assert latency._line((1.0, 3.0), (low + high) / 2) == pytest.approx(2.0)
    assert latency._line((1.0, 9.0), 0.0) >= 0.1
