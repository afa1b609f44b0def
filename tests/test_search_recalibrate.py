"""Recalibration: what comes nearer to the original is kept, judged on samples of its own, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from graphs import Net
from search_worker import EFFORT, data, network

from ldsnn_compiler.frontend.bias import correction, evaluate
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron, TensorRef, neuron
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.search.downstream import Downstream
from ldsnn_compiler.search.evaluate import Evaluator
from ldsnn_compiler.search.optimize import RECALIBRATED, optimize
from ldsnn_compiler.search.options import space
from ldsnn_compiler.search.recalibrate import Recalibration, _gain, _layers
from ldsnn_compiler.search.variants import VARIANTS, best

LEAKY = [
    neuron("lif", tau=2.0),
    neuron("lif", tau=2.0, decay_input=False, reset="hard"),
    neuron("lif", form="rate", k=0.5),
    neuron("leaky", beta=0.5, compare="gt", reset_time="next_before_charge"),
    neuron("if", reset="hard"),
]


def samples(count: int = 24) -> torch.Tensor:
    return data(count=count).calibration[0][None]


def layered(program: Neuron, time: str = "static") -> tuple[Graph, torch.Tensor]:
    """A layer of a neuron that fires often, eight timesteps, and samples ``[T, N, 6]`` for it."""
    net = Net(8)
    spikes = net.neuron(net.linear(net.input((6,), time), 12), program)
    graph = net.output(net.op("readout", net.linear(spikes, 3), mode="mean"))
    generator = torch.Generator().manual_seed(1)
    return graph, 2 * torch.rand(1 if time == "static" else 8, 48, 6, generator=generator)


def scheduled(graph: Graph, x: torch.Tensor, picks: tuple[int, ...], spikes: str = "binary") -> Graph:
    given = x[0] if len(x) == 1 else x.transpose(0, 1)
    return Evaluator(graph, given).prepare(space(graph, spikes).schedule(picks))


def error(graph: Graph, recalibration: Recalibration) -> float:
    """Squared error in what the end sees of the one neuron layer, on the first half."""
    (node,), interpreter, found = graph.of("neuron"), Interpreter(graph), list[torch.Tensor]()
    interpreter.observers.append(lambda at, _, outputs: found.append(outputs[0]) if at is node else None)
    with torch.no_grad():
        interpreter.run(recalibration.fit)
    wanted = recalibration.wanted(graph)[node.path]
    return Downstream(graph, node, wanted).error(found[0] if len(wanted) > 1 else found[0].mean(0, keepdim=True))


@pytest.mark.parametrize("picks", [(1, 1, 1), (2, 2, 2), (0, 2, 1)])
def test_the_divergence_on_samples_of_their_own_never_rises(picks: tuple[int, ...]) -> None:
    graph = network()
    recalibration = Recalibration(graph, samples(64))
    plain = scheduled(graph, samples(64), picks)
    found = recalibration(plain.clone())
    assert recalibration._divergences(found).mean() <= recalibration._divergences(plain).mean()


@pytest.mark.parametrize("program", LEAKY, ids=str)
@pytest.mark.parametrize("time", ["static", "sequence"])
def test_leaky_and_hard_reset_layers_come_nearer_to_the_original(program: Neuron, time: str) -> None:
    graph, x = layered(program, time)
    recalibration, plain = Recalibration(graph, x), scheduled(graph, x, (2,))
    changed = recalibration.changed(plain.clone(), recalibration.wanted(plain))
    assert error(changed, recalibration) < error(plain, recalibration)


def test_a_threshold_and_a_bias_that_are_wrong_are_found() -> None:
    """One layer, one binary step in place of 8: what clips gets a larger spike, what is lost a larger bias."""
    net = Net(8)
    graph = net.output(net.neuron(net.op("scale", net.linear(net.input((6,), "static"), 4), factor=0.5)))
    x = 2 * torch.rand(1, 64, 6, generator=torch.Generator().manual_seed(0))
    plain, recalibration = scheduled(graph, x, (3,)), Recalibration(graph, x)
    changed = recalibration.changed(plain.clone(), recalibration.wanted(plain))
    assert error(changed, recalibration) < 0.8 * error(plain, recalibration)
    assert str(changed.of("neuron")[0]["neuron"]) != str(plain.of("neuron")[0]["neuron"])


def test_what_is_perfect_stays_as_it_is() -> None:
    graph = network()
    plain = scheduled(graph, samples(), (0, 0, 0))
    assert graph_text(Recalibration(graph, samples())(plain.clone())) == graph_text(plain)


def test_the_same_samples_give_the_same_network() -> None:
    graph, x = layered(neuron("lif", tau=2.0))
    plain = scheduled(graph, x, (2,))
    first, second = (Recalibration(graph, x)(plain.clone()) for _ in range(2))
    assert graph_text(first) == graph_text(second)
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert Recalibration(graph, x).name == Recalibration(graph, x).name != Recalibration(graph, x[:, 1:]).name


def test_timesteps_and_levels_do_not_change() -> None:
    graph = network()
    plain = scheduled(graph, samples(), (2, 3, 1), "graded")
    recalibration = Recalibration(graph, samples())
    changed = recalibration.changed(plain.clone(), recalibration.wanted(plain))
    assert [(n.type.timesteps, n.type.signal.levels) for n in changed.of("neuron")] == [
        (n.type.timesteps, n.type.signal.levels) for n in plain.of("neuron")
    ]


@pytest.mark.parametrize(("time", "steps"), [("sequence", 2), ("static", 1)])
def test_a_sequence_is_compared_step_by_step_on_the_grid_of_the_schedule(time: str, steps: int) -> None:
    graph, x = layered(neuron("if"), time)
    (wanted,) = Recalibration(graph, x).wanted(scheduled(graph, x, (2,))).values()
    assert len(wanted) == steps


def test_networks_that_cannot_be_recalibrated_stay_as_they_are() -> None:
    net = Net(4)
    x = net.input((3,))
    late = net.graph.add("delay", type=Stream(4, 1, (3,)), steps=1)
    total = net.op("add", x, late.result)
    net.graph.set_operands(late, [total])
    cyclic = net.output(net.neuron(total))
    assert Recalibration(cyclic, torch.rand(4, 8, 3))(cyclic) is cyclic
    graph = network()
    plain = scheduled(graph, samples(), (2, 2, 2))
    assert Recalibration(graph, samples()[:, :2])(plain) is plain, "one sample judges nothing"


def test_layers_whose_membrane_is_read_are_left() -> None:
    net = Net(4)
    graph = net.output(net.neuron(net.linear(net.input((3,)), 4), membrane=True))
    assert not list(_layers(graph))


# ---- variants


def rate(program: Neuron, current: float, steps: int = 64) -> float:
    """Mean output at constant input."""
    net = Net(steps)
    graph = net.output(net.neuron(net.input((1,)), program))
    return float(evaluate(graph, graph.of("neuron")[0], [torch.full((steps, 1, 1), current)]).mean())


def test_larger_spikes_leave_the_gain_and_a_gain_changes_it() -> None:
    program = neuron("if", threshold=0.5, v_init=0.25, spike_value=0.5)
    larger, weaker = VARIANTS["size"](program, 1.0), VARIANTS["gain"](program, 1.0)
    assert larger is not None and weaker is not None
    assert (larger.params["threshold"], larger.params["v_init"], larger.params["spike_value"]) == (1.0, 0.5, 1.0)
    assert rate(larger, 0.25) == rate(program, 0.25) == 0.25
    assert rate(weaker, 0.25) == 0.125
    assert VARIANTS["size"](larger, -1.0) == program


def test_variants_only_where_they_mean_something() -> None:
    plain, rested = neuron("if"), neuron("lif", tau=2.0, v_rest=0.5)
    channels = neuron("if", threshold=TensorRef("t"))
    hard = neuron("if", reset="hard", v_reset=-0.5)
    assert VARIANTS["charge"](plain, 0.2) is None, "what resets is the threshold"
    assert VARIANTS["charge"](neuron("lif", tau=2.0).retime(4, 1, "oneshot"), 0.2) is not None
    assert all(VARIANTS[name](each, 0.2) is None for name in ("size", "gain") for each in (rested, channels, hard))
    assert VARIANTS["start"](channels, 0.2) is None
    assert VARIANTS["start"](plain, -0.2) is None and VARIANTS["start"](plain, 1.0) is None
    moved = VARIANTS["start"](neuron("if", threshold=2.0), 0.2)
    assert moved is not None and moved.params["v_init"] == 0.4


def test_climbing_finds_the_least_error_and_changes_nothing_in_vain() -> None:
    program = neuron("if", v_init=0.5)
    assert best(program, lambda n: 1.0) == program
    found = best(program, lambda n: abs(float(n.params["threshold"]) - 1.5))  # type: ignore[arg-type]
    assert float(found.params["threshold"]) == pytest.approx(1.5, abs=0.05)  # type: ignore[arg-type]


# ---- what the next layers see


def ends(graph: Graph, wanted: torch.Tensor, output: torch.Tensor) -> float:
    return Downstream(graph, graph.of("neuron")[0], wanted).error(output)


def test_errors_are_those_of_the_next_currents_in_thresholds() -> None:
    net = Net(2)
    first = net.neuron(net.input((4,)))
    mixed = net.linear(first, 3)
    graph = net.output(net.neuron(mixed, neuron("if", threshold=0.5)))
    wanted, output = torch.rand(2, 5, 4), torch.rand(2, 5, 4)
    weight = graph.tensors["linear.weight"]
    assert ends(graph, wanted, output) == pytest.approx(float(((output - wanted) @ weight.T / 0.5).square().mean()))
    assert ends(graph, wanted, wanted) == 0


def test_every_branch_counts_and_an_end_of_the_network_by_its_mean() -> None:
    net = Net(2)
    first = net.neuron(net.input((4,)))
    shortcut = net.op("add", net.linear(first, 4), first)
    net.output(net.neuron(shortcut))
    graph = net.output(first)
    wanted = torch.zeros(2, 5, 4)
    output = torch.stack([torch.ones(5, 4), -torch.ones(5, 4)])
    weight = graph.tensors["linear.weight"] + torch.eye(4)
    assert ends(graph, wanted, output) == pytest.approx(float((output @ weight.T).square().mean()))
    assert ends(graph, wanted, output.abs()) == pytest.approx(float((output.abs() @ weight.T).square().mean()) + 1.0)


def test_pools_are_seen_through() -> None:
    net = Net(1)
    graph = net.output(net.neuron(net.pool(net.neuron(net.input((1, 2, 2))), "max")))
    wanted = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 2, 2)
    assert ends(graph, wanted, wanted.flip(-1)) == 0
    assert ends(graph, wanted, torch.zeros_like(wanted)) == 1


# ---- biases


def test_a_leaky_layers_gain_is_measured() -> None:
    net = Net(64)
    graph = net.output(net.neuron(net.input((4,)), neuron("lif", tau=2.0, decay_input=False, reset="soft")))
    (node,) = graph.of("neuron")
    current = torch.rand(64, 16, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    gain = _gain(graph, node, current)
    assert gain == pytest.approx(
        float((_mean(graph, node, current + 0.1) - _mean(graph, node, current)) / 0.1), rel=0.3
    )
    wanted = evaluate(graph, node, [current + 0.2]).mean(0)
    shift = correction(graph, node, current, wanted, gain)
    after = evaluate(graph, node, [current + shift]).mean(0)
    assert (after - wanted).mean().abs() < 0.2 * (evaluate(graph, node, [current]).mean(0) - wanted).mean().abs()


def _mean(graph: Graph, node: Node, current: torch.Tensor) -> torch.Tensor:
    return evaluate(graph, node, [current]).mean()


def test_few_samples_of_a_large_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from ldsnn_compiler.search import recalibrate

    graph, x = network(), samples(96)
    assert Recalibration(graph, x).fit.shape[1] == 48
    monkeypatch.setattr(recalibrate, "AFFORDABLE", 1.0)
    assert Recalibration(graph, x).fit.shape[1] == recalibrate.LEAST // 2


def test_rows_of_a_search() -> None:
    found = optimize(network(), data(labels=True), 0.3, recalibrate=True, effort=EFFORT)
    names = [row.name for row in found.rows]
    again = [name for name in names if name.startswith(RECALIBRATED)]
    assert [name.removeprefix(RECALIBRATED) for name in again] == names[1 : 1 + len(again)]
    rows = {row.name: row for row in found.rows}
    for name in again:
        assert rows[name].synaptic_updates <= rows[name.removeprefix(RECALIBRATED)].synaptic_updates * 1.1  # type: ignore[operator]
    chosen = found.report.details["recalibrated_schedules"]
    assert (
        list(chosen) == again
        and chosen[again[0]] == found.report.details["schedules"][again[0].removeprefix(RECALIBRATED)]
    )
    assert not any("per layer" in name for name in found.baselines)
    assert found.report.details["figures"].keys() == set(names)
