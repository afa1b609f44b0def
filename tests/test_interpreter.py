"""The interpreter: ops against arithmetic, streaming against one run, counted work against brute force."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from zoo import STEPS, ZOO, build, data, dyadic, finished, started

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.interp.work import count_work
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.types import Stream


def run(graph: Graph, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return Interpreter(graph).run(*inputs)


@pytest.mark.parametrize("name", ZOO)
def test_shapes_and_signals(name: str) -> None:
    """Results have their declared type, and event streams hold unit times a whole count within bounds."""
    graph = build(name)
    for node, y in zip(graph.outputs, run(graph, *data(graph)), strict=True):
        type = node.type
        assert y.shape == (type.timesteps, 2, *type.shape)
        if type.signal.is_event:
            counts = y / type.signal.unit
            assert torch.allclose(counts, counts.round(), atol=1e-5)
            assert counts.min() >= 0 and (type.signal.levels == 0 or counts.max().round() <= type.signal.levels)


@pytest.mark.parametrize("name", [n for n in ZOO if n != "slice_time"])
def test_streaming_equals_one_run(name: str) -> None:
    graph = build(name)
    inputs = data(graph)
    whole, streamed = Interpreter(graph), Interpreter(graph)
    with torch.no_grad():
        expected = whole.run(*inputs)
        parts = []
        for first in range(0, STEPS, graph.granule):
            parts.append(streamed.step(*(x[first : first + graph.granule] for x in inputs)))
    for node, y, pieces in zip(graph.outputs, expected, zip(*parts, strict=True), strict=True):
        joined = pieces[-1] if node.operands[0].node.op.name == "readout" else torch.cat(pieces)
        assert torch.equal(joined, y)
    for node_name, state in whole.state.items():
        assert all(torch.equal(state[k], streamed.state[node_name][k]) for k in state)


def test_uneven_resample_conserves_the_mean() -> None:
    graph = Graph("g", 8)
    x = graph.add("input", type=Stream(8, 1, (1,))).result
    finished(graph, graph.add("resample", [x], dt=Fraction(8, 3)).result)
    y = run(graph, torch.arange(8.0).reshape(8, 1, 1))[0].flatten()
    assert torch.allclose(
        y, torch.tensor([(0 + 1 + 2 * 2 / 3) * 3 / 8, (2 / 3 + 3 + 4 + 5 / 3) * 3 / 8, (10 / 3 + 6 + 7) * 3 / 8])
    )
    assert torch.isclose(y.mean(), torch.tensor(3.5))


def test_recurrence_by_hand() -> None:
    graph = build("delay_recurrent")
    (x,) = data(graph)
    spikes, membrane = run(graph, x)
    v, sent = torch.zeros(2, 5), [torch.zeros(2, 5)] * 2
    for t in range(STEPS):
        h = v + ((x[t] + sent[-2]) - v) / 2.0
        s = (h >= 1).float()
        v = h - s
        sent.append(s @ graph.tensors["w"].T)
        assert torch.equal(spikes[t], s) and torch.equal(membrane[t], v)


def test_poisson_is_reproducible_and_has_the_right_rate() -> None:
    graph, x = started((400,))
    finished(graph, graph.add("encode", [x], code="poisson", seed=7).result)
    rates = torch.linspace(0, 1, 400).expand(STEPS, 20, 400)
    first, second = run(graph, rates)[0], run(graph, rates)[0]
    assert torch.equal(first, second)
    assert (first.mean((0, 1)) - rates[0, 0]).abs().max() < 0.2
    assert abs(first.mean() - 0.5) < 0.01


@pytest.mark.parametrize("name", ["conv1d", "conv2d_strided", "conv2d_dilated", "conv2d_grouped", "linear"])
def test_synaptic_updates_by_brute_force(name: str) -> None:
    """Set each non-zero input alone, with every weight 1, and count the outputs that it reaches."""
    graph = build(name)
    (x,) = data(graph, batch=1)
    node = next(n for n in graph.nodes if n.op.weights)
    expected = 0.0
    ones = {k: torch.ones_like(v) if k == "w" else torch.zeros_like(v) for k, v in graph.tensors.items()}
    call = graph.call(node)
    call.tensors = ones
    for index in x[0].nonzero():
        alone = torch.zeros_like(x[:1])
        alone[(0, *index)] = 1.0
        expected += node.op.evaluate(call, alone)[0].sum().item()
    first = torch.cat([x[:1], torch.zeros_like(x[1:])])
    _, work = count_work(graph, first)
    assert work.totals()["synaptic_updates"] == expected


def test_graded_work_and_neurons() -> None:
    graph, x = started((4,))
    cell = graph.add("neuron", [x], neuron=neuron("if", max_count=4), path="sn")
    layer = graph.add("linear", [cell.result], weight=graph.tensor("w", torch.ones(3, 4)), path="fc")
    finished(graph, layer.result)
    current = torch.zeros(STEPS, 1, 4)
    current[0, 0, 0], current[1, 0, 1] = 3.0, 1.0
    _, work = count_work(graph, current)
    assert work.totals() == {
        "synaptic_updates": 6.0,
        "synaptic_updates_weighted": 12.0,
        "multiplications": 6.0,
        "neurons_evaluated": 4.0 * STEPS,
    }


def test_wrong_data_is_refused() -> None:
    graph = build("linear")
    with pytest.raises(LdsnnError, match=r"expected data \[8, N, 3, 5\], found \[8, 2, 3, 6\]"):
        run(graph, torch.zeros(8, 2, 3, 6))
    with pytest.raises(LdsnnError, match="takes 1 input, not 2"):
        run(graph, torch.zeros(8, 2, 3, 5), torch.zeros(1))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (lambda x: x.half(), r"float32 data, found float16 \(x.float\(\)\)"),
        (lambda x: x.bool(), "float32 data, found bool"),
        (lambda x: x.double().numpy(), "float32 data, found float64"),
        (lambda x: x.to_sparse(), r"dense data, found sparse_coo \(x.to_dense\(\)\)"),
        (lambda x: x.tolist(), "a torch tensor or a numpy array, found list"),
    ],
    ids=["half", "bool", "double", "sparse", "list"],
)
def test_other_kinds_of_data_are_refused_with_the_input_named(given: Callable[[torch.Tensor], Any], found: str) -> None:
    graph = build("linear")
    x = torch.zeros(8, 2, 3, 5)
    for called in (Interpreter(graph), Interpreter(graph).run, Interpreter(graph).step):
        with pytest.raises(LdsnnError, match=f"x: expected {found}"):
            called(given(x))
    assert torch.equal(Interpreter(graph)(x.numpy()), Interpreter(graph)(x))


def test_inputs_come_in_the_right_number_and_one_batch() -> None:
    graph = Graph("two", base_timesteps=2)
    x, y = (graph.add("input", type=Stream(2, Fraction(1), (3,)), name=name).result for name in "xy")
    graph.add("output", [graph.add("add", [x, y]).result])
    one, three = torch.zeros(2, 1, 3), torch.zeros(2, 3, 3)
    with pytest.raises(LdsnnError, match="takes 2 inputs, not 3"):
        Interpreter(graph)(one, one, one)
    with pytest.raises(LdsnnError, match="takes 2 inputs, not 0"):
        Interpreter(graph).step()
    with pytest.raises(LdsnnError, match="inputs differ in batch: 1, 3"):
        Interpreter(graph)(one, three)


def test_fine_tuning_through_the_interpreter() -> None:
    """A training step changes the weights, and they go back into a graph."""
    graph = build("conv2d")
    interpreter = Interpreter(graph)
    optimizer = torch.optim.SGD(interpreter.parameters(), lr=0.1)
    (x,) = data(graph)
    interpreter.run(x)[0].pow(2).mean().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert not torch.equal(interpreter.to_graph().tensors["w"], graph.tensors["w"])
    assert torch.equal(dyadic(3), dyadic(3))
