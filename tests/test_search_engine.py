"""Candidates through shared kernels: the figures of the interpreter, and kernels that are made once."""

from __future__ import annotations

import pytest
from graphs import Net
from search_worker import data, network
from test_search_evaluate import residual, samples

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.search.engine import CompiledEngine, dense_work, engine
from ldsnn_compiler.search.evaluate import Evaluator, InterpreterRunner
from ldsnn_compiler.search.optimize import Effort, optimize
from ldsnn_compiler.search.options import space
from ldsnn_compiler.targets.boards import board


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
    compiled.remember(where.schedule((1, 2, 0)))
    assert compiled.evaluate(where.schedule((1, 2, 1))) == plain.evaluate(where.schedule((1, 2, 1)))
    assert compiled.fingerprint != plain.fingerprint


def test_a_whole_search_runs_compiled() -> None:
    effort = Effort(width=2, rounds=1, moves=1, counted_compiled=4, verified=16, engine="compiled")
    found = optimize(network(), data(), 0.3, effort=effort)
    assert found.report.details["engine"] == "compiled"
    assert found.report.details["data"]["work_counted_on"] == 4
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
