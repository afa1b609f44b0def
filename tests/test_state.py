"""State between steps: saved and loaded, reset for single samples, at another batch; interpreted and compiled alike.

One network holds every neuron template, a recurrence, a delay and running readouts. Streams that are interrupted are
held against runs of their own that are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from target_harness import assert_equal
from test_cli import as_json, errors
from torch import Tensor
from zoo import STEPS, build, dyadic, started

import ldsnn_compiler as ld
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron, templates
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.runtime import Compiled

Network = ld.Interpreter | Compiled
BATCH = 3


def everything() -> Graph:
    """Every template, a neuron of initial membranes per channel, a recurrence, a delay and a running maximum."""
    graph, x = started((4, 2, 2))
    inits = graph.tensor("v_init", torch.tensor([0.5, 0.0, 0.25, -0.5]))
    cells = {name: neuron(name) for name in templates()} | {"own": neuron("if", v_init=inits)}
    for name, cell in cells.items():
        node = graph.add("neuron", [x], neuron=cell, path=name, membrane=True, name=name)
        graph.add("output", [node.result])
        graph.add("output", [node.results[1]])
    graph.add("output", [graph.add("delay", [x], type=x.type, steps=2).result])
    graph.add("output", [graph.add("readout", [graph.node("own").result], mode="max").result])
    flat = graph.add("flatten", [x]).result
    back = graph.add("delay", type=Stream(STEPS, 1, (16,)))
    cell = graph.add("neuron", [graph.add("add", [flat, back.result]).result], neuron=neuron("lif"), path="cell")
    graph.set_operand(back, 0, graph.add("linear", [cell.result], weight=graph.tensor("w", dyadic(16, 16))).result)
    graph.add("output", [cell.result])
    return graph


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return ld.compile(everything(), batch=None, threads=1)


@pytest.fixture(params=["interpreter", "compiled"])
def network(request: pytest.FixtureRequest, compiled: Compiled) -> Network:
    compiled.reset()
    return compiled if request.param == "compiled" else ld.Interpreter(everything())


def steps(network: Network, x: Tensor) -> tuple[Tensor, ...]:
    """The answers of a stream."""
    with torch.no_grad():
        return tuple(y.clone() for y in network.step(x))


def alone(network: Network, x: Tensor) -> tuple[Tensor, ...]:
    """A stream of its own."""
    kept, at = network.state, network.base_step
    network.reset()
    found = steps(network, x)
    network.reset()
    network.state = kept
    network.base_step = at
    return found


def of(samples: Sequence[int], answers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(y[:, list(samples)] for y in answers)


X = dyadic(STEPS, BATCH, 4, 2, 2, seed=5) * 2


def test_a_saved_stream_goes_on_as_if_it_had_not_stopped(network: Network, tmp_path: Path) -> None:
    whole = alone(network, X)
    steps(network, X[:3])
    network.save_state(tmp_path / "now.state")
    steps(network, X[3:5])
    network.load_state(tmp_path / "now.state")
    assert network.base_step == 3
    rest = steps(network, X[3:])
    for node, y, wanted in zip(network.graph.outputs, rest, whole, strict=True):
        running = node.operands[0].node.op.name == "readout"
        assert torch.equal(y, wanted if running else wanted[3:]), node.name


def test_compiled_code_goes_on_where_the_interpreter_stopped(compiled: Compiled, tmp_path: Path) -> None:
    interpreter = ld.Interpreter(compiled.graph)
    steps(interpreter, X[:3])
    interpreter.save_state(tmp_path / "now.state")
    compiled.load_state(tmp_path / "now.state")
    assert_equal("rest", steps(compiled, X[3:]), steps(interpreter, X[3:]))


def test_a_bundle_goes_on_where_its_network_stopped(compiled: Compiled, tmp_path: Path) -> None:
    compiled.reset()
    steps(compiled, X[:3])
    compiled.save_state(tmp_path / "now.state")
    compiled.save(tmp_path / "net.ldsnn")
    loaded = ld.load(tmp_path / "net.ldsnn")
    loaded.load_state(tmp_path / "now.state")
    assert_equal("rest", steps(loaded, X[3:]), steps(compiled, X[3:]))


def test_a_state_before_the_first_step_is_one_too(network: Network, tmp_path: Path) -> None:
    network.save_state(tmp_path / "now.state")
    steps(network, X[:2, :1])
    network.load_state(tmp_path / "now.state")
    assert_equal("anew", steps(network, X), alone(network, X))


@pytest.mark.parametrize("samples", [[1], [0, 2], [2, 0, 2], [0, 1, 2], []])
def test_samples_begin_anew_and_the_others_go_on(network: Network, samples: list[int]) -> None:
    whole, others = alone(network, X), [i for i in range(BATCH) if i not in samples]
    anew = alone(network, X[3:])
    steps(network, X[:3])
    network.reset(samples=samples)
    found = steps(network, X[3:])
    for node, y, went_on, began in zip(network.graph.outputs, found, whole, anew, strict=True):
        running = node.operands[0].node.op.name == "readout"
        assert torch.equal(y[:, others], (went_on if running else went_on[3:])[:, others]), node.name
        assert torch.equal(y[:, sorted(set(samples))], began[:, sorted(set(samples))]), node.name


def test_samples_join_and_leave(network: Network) -> None:
    """The batch of a symbolic network changes in the middle of a stream, by its state."""
    whole = alone(network, X)
    steps(network, X[:4])
    state, at = network.state, network.base_step
    axis = {n.name: 0 if n.op.name == "neuron" else 1 for n in network.graph.nodes}
    fewer = {n: {k: v.index_select(axis[n], torch.tensor([2])) for k, v in s.items()} for n, s in state.items()}
    network.reset()
    network.state = fewer
    network.base_step = at
    left = steps(network, X[4:, 2:])
    for node, y, wanted in zip(network.graph.outputs, left, of([2], whole), strict=True):
        assert torch.equal(y, wanted if node.operands[0].node.op.name == "readout" else wanted[4:])


def test_samples_that_are_not_there(network: Network) -> None:
    steps(network, X[:1])
    with pytest.raises(LdsnnError, match="the batch has samples 0 to 2, not 3, -1"):
        network.reset(samples=[0, 3, -1])


@pytest.mark.parametrize("name", ["readout_mean", "encode_poisson", "encode_latency", "constant", "slice_time"])
def test_what_counts_steps_for_all_samples_is_not_reset_for_some(name: str) -> None:
    interpreter = ld.Interpreter(build(name))
    inputs = [dyadic(interpreter.graph.granule, 2, *n.type.shape) for n in interpreter.graph.inputs]
    interpreter.reset(samples=[0])
    interpreter.step(*inputs)
    if interpreter.base_step < STEPS:
        with pytest.raises(LdsnnError, match="counts the steps since the start, for all samples"):
            interpreter.reset(samples=[0])


def test_files_that_are_no_state_of_this_network(network: Network, tmp_path: Path) -> None:
    other = ld.Interpreter(build("neuron_if"))
    other.save_state(tmp_path / "other.state")
    steps(network, X[:2])
    before = network.state
    (tmp_path / "text.state").write_text("hello")
    ld.write(build("linear"), tmp_path / "g.ldir")
    for name, text in (
        ("other.state", "is the state of another network"),
        ("text.state", "not a safetensors file"),
        ("g.safetensors", "is no state of a network"),
        ("absent.state", "cannot be read"),
    ):
        with pytest.raises(LdsnnError, match=text) as error:
            network.load_state(tmp_path / name)
        assert name in str(error.value)
    after = network.state
    assert all(torch.equal(before[n][k], after[n][k]) for n in before for k in before[n])


def test_a_state_whose_tensors_do_not_fit(network: Network, tmp_path: Path) -> None:
    from safetensors.torch import load, save

    from ldsnn_compiler.streaming import FORMAT, graph_hash

    steps(network, X[:1])
    network.save_state(tmp_path / "now.state")
    tensors = load((tmp_path / "now.state").read_bytes())
    tensors["own.v"], tensors["ghost.v"] = torch.zeros(3, 4), torch.zeros(3)
    told = {"format": FORMAT, "graph": graph_hash(network.graph), "base_step": "1"}
    (tmp_path / "now.state").write_bytes(save(tensors, told))
    with pytest.raises(LdsnnError) as error:
        network.load_state(tmp_path / "now.state")
    assert sorted(str(p).split(": ")[1] for p in error.value.problems) == [
        "holds ghost.v of shape [3], which does not fit",
        "holds own.v of shape [3, 4], which does not fit",
    ]


def test_a_batch_that_was_compiled_so(tmp_path: Path) -> None:
    graph = build("neuron_lif")
    interpreter, fixed = ld.Interpreter(graph), ld.compile(graph, batch=2, threads=1, pipeline="")
    assert fixed.graph.stage == "traced"
    x = dyadic(1, 3, 4, 3, 3)
    steps(interpreter, x)
    interpreter.save_state(tmp_path / "three.state")
    with pytest.raises(LdsnnError, match="compiled for batch 2, found 3"):
        fixed.load_state(tmp_path / "three.state")


# ---- from the command line


@pytest.mark.parametrize("how", [[], ["--interpreter"]])
def test_streams_that_go_on_from_one_command_to_the_next(tmp_path: Path, how: list[str]) -> None:
    ld.write(build("delay_recurrent"), tmp_path / "net.ldir")
    parts = [dyadic(4, STEPS, 5, seed=s) for s in (1, 2)]
    with torch.no_grad():
        interpreter = ld.Interpreter(build("delay_recurrent"))
        wanted = [interpreter.step(x.transpose(0, 1))[0].mean(0) for x in parts]
    for n, x in enumerate(parts):
        np.savez(tmp_path / f"{n}.npz", x_train=1 + x.numpy(), x_test=x.numpy())
        model, state = tmp_path / "net.ldir", tmp_path / "now.state"
        before = ["--state-in", state] if n else []
        found = as_json("stream", model, "--data", tmp_path / f"{n}.npz", *before, "--state-out", state, *how)
        assert (found["first_step"], found["base_step"], found["samples"]) == (n * STEPS, (n + 1) * STEPS, 4)
        assert torch.equal(torch.tensor(found["scores"]), wanted[n])
    (line,) = errors("stream", model, "--data", tmp_path / "0.npz", "--state-in", tmp_path / "none.state", *how)
    assert "none.state: cannot be read" in line
