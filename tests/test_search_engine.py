"""Candidates through shared kernels: the figures of the interpreter, and kernels that are made once."""

from __future__ import annotations

import pytest
from graphs import Net
from search_worker import data, network
from test_search_evaluate import residual, samples
from zoo import ZOO, build
from zoo import data as data_of

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.work import count_work
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.search.engine import CompiledEngine, dense_work, engine
from ldsnn_compiler.search.evaluate import Evaluator, InterpreterRunner
from ldsnn_compiler.search.optimize import Effort, optimize
from ldsnn_compiler.search.options import space
from ldsnn_compiler.targets.boards import board

SHARED = CompiledEngine(board("native"))


def mixed() -> Graph:
    """Convolution, pool, shortcut, and a flattened readout, of eight steps."""
    net = Net(8)
    a = net.neuron(net.conv(net.input((1, 8, 8), "static"), 3))
    b = net.neuron(net.conv(net.pool(a), 3))
    c = net.neuron(net.op("add", net.conv(b, 3), net.pool(a)))
    return net.output(net.op("readout", net.linear(net.op("flatten", c), 3), mode="mean"))


def test_compiled_figures_are_the_interpreters() -> None:
    """Dyadic weights and samples: nothing is rounded, so nothing may differ; work is that of the counted samples."""
    graph, shared = residual(), CompiledEngine(board("native"))
    x, where = samples(graph, 9), space(graph, "graded")
    compiled = Evaluator(graph, x, counted=2, engine=shared, memory=1 << 15)
    plain = Evaluator(graph, x, counted=2)
    assert compiled.reference == plain.reference
    for picks in [(0, 0, 0), (1, 2, 0), (3, 1, 2)]:
        assert compiled.evaluate(where.schedule(picks)) == plain.evaluate(where.schedule(picks))
    made = shared.kernels
    assert made > 0
    compiled.evaluate(where.schedule((1, 2, 0)))
    assert shared.kernels == made, "a known candidate needs no new kernel"
    assert compiled.fingerprint != plain.fingerprint


def test_compiled_figures_are_the_same_after_a_remembered_base() -> None:
    """Means and shortcuts around known streams, samples counted in part, and one base after the other."""
    graph = mixed()
    x, where = samples(graph, 5), space(graph, "graded")
    for counted in (2, None):
        remembering = Evaluator(graph, x, counted=counted, engine=SHARED, memory=1 << 14)
        plain = Evaluator(graph, x, counted=counted, engine=SHARED)
        for base, near in [((2, 0, 1), (2, 3, 1)), ((2, 3, 1), (2, 3, 4)), ((2, 3, 1), (2, 3, 1))]:
            assert remembering.remember(where.schedule(base)) == plain.evaluate(where.schedule(base))
            assert remembering.evaluate(where.schedule(near)) == plain.evaluate(where.schedule(near))


@pytest.mark.parametrize("name", sorted(ZOO))
def test_work_counted_from_buffers_is_the_interpreters(name: str) -> None:
    graph = build(name)
    x = data_of(graph)
    runner = SHARED(graph)
    runner(dict(zip((n.name for n in graph.inputs), x, strict=True)), frozenset(), True)
    assert dict(runner.work) == count_work(graph, *x)[1].layers


def test_work_of_every_kind_of_time_change() -> None:
    """Means and repeats in front of synapses and shortcuts, pooled and flattened, of spikes and of counts."""
    graph = mixed()
    x, where = samples(graph, 3), space(graph, "graded")
    compiled, plain = Evaluator(graph, x, engine=SHARED), Evaluator(graph, x)
    assert compiled.reference == plain.reference
    for picks in [(0, 3, 1), (2, 0, 5), (4, 1, 0), (1, 4, 3)]:
        assert compiled.evaluate(where.schedule(picks)) == plain.evaluate(where.schedule(picks))


def test_a_whole_search_runs_compiled() -> None:
    effort = Effort(width=2, rounds=1, moves=1, verified=16, engine="compiled")
    found = optimize(network(), data(), 0.3, effort=effort)
    assert found.report.details["engine"] == "compiled"
    assert found.report.details["data"]["work_counted_on"] == len(data().report[0])
    assert found.report.details["data"]["verified"] == 16


def test_the_engine_is_chosen_by_the_work() -> None:
    graph = residual()
    assert engine("auto", graph, 1000) is InterpreterRunner
    assert engine("auto", graph, 10**9).name == "compiled"
    with pytest.raises(LdsnnError, match="engine is one of"):
        engine("fast", graph, 1)


def test_dense_work_counts_every_synapse_in_every_step() -> None:
    net = Net(4)
    graph = net.output(net.linear(net.neuron(net.linear(net.input((3,)), 5)), 2))
    assert dense_work(graph) == 4 * (3 * 5 + 5 * 2)
