"""Recalibration: layers come nearer to the original's mean outputs, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from graphs import Net
from search_worker import EFFORT, data, network

from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.search.evaluate import Evaluator
from ldsnn_compiler.search.optimize import RECALIBRATED, optimize
from ldsnn_compiler.search.options import space
from ldsnn_compiler.search.recalibrate import Recalibration, adjustable


def samples() -> torch.Tensor:
    return data().calibration[0][None]


def error(graph: Graph, recalibration: Recalibration) -> dict[str, float]:
    """Squared error of every layer's mean output."""
    found: dict[str, float] = {}

    def observe(node, inputs, outputs) -> None:
        if node.op.name == "neuron":
            found[node.path] = float((outputs[0].mean(0) - recalibration.wanted[node.path]).square().mean())

    interpreter = Interpreter(graph)
    interpreter.observers.append(observe)
    with torch.no_grad():
        interpreter.run(recalibration.samples)
    return found


@pytest.mark.parametrize("picks", [(1, 1, 1), (2, 2, 2), (0, 2, 1)])
def test_layers_come_nearer_to_the_original(picks: tuple[int, ...]) -> None:
    graph, evaluator = network(), Evaluator(network(), data().calibration[0])
    recalibration = Recalibration(graph, samples())
    plain = evaluator.prepare(space(graph).schedule(picks))
    before, after = error(plain.clone(), recalibration), error(recalibration(plain.clone()), recalibration)
    assert after.keys() == before.keys() and sum(after.values()) <= sum(before.values())
    first = next(iter(before))
    assert after[first] <= before[first]


def test_a_threshold_and_a_bias_that_are_wrong_are_found() -> None:
    """One layer, one binary step in place of 8: what clips gets a larger spike, what is lost a larger bias."""
    net = Net(8)
    graph = net.output(net.neuron(net.op("scale", net.linear(net.input((6,), "static"), 4), factor=0.25)))
    x = torch.rand(64, 6, generator=torch.Generator().manual_seed(0))
    plain = Evaluator(graph, x).prepare(space(graph).schedule((3,)))
    recalibration = Recalibration(graph, x[None])
    changed = recalibration(plain.clone())
    (before,), (after,) = error(plain, recalibration).values(), error(changed, recalibration).values()
    assert after < 0.8 * before
    assert str(changed.of("neuron")[0]["neuron"]) != str(plain.of("neuron")[0]["neuron"])


def test_what_is_perfect_stays_as_it_is() -> None:
    graph = network()
    recalibration = Recalibration(graph, samples())
    plain = Evaluator(graph, data().calibration[0]).prepare(space(graph).schedule((0, 0, 0)))
    assert graph_text(recalibration(plain.clone())) == graph_text(plain)


def test_timesteps_and_levels_do_not_change() -> None:
    graph = network()
    plain = Evaluator(graph, data().calibration[0]).prepare(space(graph, "graded").schedule((2, 3, 1)))
    changed = Recalibration(graph, samples())(plain.clone())
    assert [(n.type.timesteps, n.type.signal.levels) for n in changed.of("neuron")] == [
        (n.type.timesteps, n.type.signal.levels) for n in plain.of("neuron")
    ]


def test_only_soft_reset_integrate_and_fire_may_change_its_threshold() -> None:
    assert adjustable(neuron("if", threshold=0.3))
    others = [neuron("if", reset="hard"), neuron("lif", tau=2.0), neuron("if", floor=True, v_min=-1.0)]
    assert not any(map(adjustable, others))


def test_a_network_with_a_cycle_stays_as_it_is() -> None:
    net = Net(4)
    x = net.input((3,))
    late = net.graph.add("delay", type=Stream(4, 1, (3,)), steps=1)
    total = net.op("add", x, late.result)
    net.graph.set_operands(late, [total])
    graph = net.output(net.neuron(total))
    assert Recalibration(graph, torch.rand(4, 2, 3))(graph) is graph


def test_rows_of_a_search() -> None:
    found = optimize(network(), data(labels=True), 0.3, recalibrate=True, effort=EFFORT)
    names = [row.name for row in found.rows]
    again = [name for name in names if name.startswith(RECALIBRATED)]
    assert [name.removeprefix(RECALIBRATED) for name in again] == names[1 : 1 + len(again)]
    rows = {row.name: row for row in found.rows}
    for name in again:
        assert rows[name].neurons_evaluated == rows[name.removeprefix(RECALIBRATED)].neurons_evaluated
    assert not any("per layer" in name for name in found.baselines)
    assert found.report.details["figures"].keys() == set(names)
