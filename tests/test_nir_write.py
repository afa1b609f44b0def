"""Graphs become NIR files, and come back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir_nets as nets
import numpy as np
import pytest
import torch

import ldsnn_compiler as ld
from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend.nir import export_nir, import_nir, read_nir, write_nir
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import Neuron, neuron
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.schedule import LayerSchedule, Schedule

pytestmark = pytest.mark.nir

STEPS = 24


def cell(made: Neuron, size: int = 3) -> Graph:
    """Input, the neuron, output."""
    graph, x = nets.started((size,), STEPS)
    graph.add("output", [graph.add("neuron", [x], neuron=made, path="cell").result])
    return graph


def again(graph: Graph, folder: Path, **options: Any) -> Graph:
    """The graph written and read."""
    write_nir(graph, folder / "net.nir", 0.25, **options)
    back = import_nir(folder / "net.nir")
    assert not back.notes
    return back.graph


@pytest.mark.parametrize("method", ["zoh", "euler"])
@pytest.mark.parametrize("kind", ["I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"])
def test_neurons_come_back_bit_for_bit(tmp_path: Path, kind: str, method: Any) -> None:
    """But for the last bit of gain and feed, which are both of one weight."""
    generator = np.random.default_rng(0)
    node = nets.made(kind, 3, v_leak=0.1)
    for name, value in vars(node).items():
        if isinstance(value, np.ndarray) and name != "v_leak":
            setattr(node, name, value * generator.uniform(0.5, 2.0, 3))
    graph = read_nir(nets.chain(node), STEPS, 0.25, discretise=method)
    back = again(graph, tmp_path, discretise=method)
    graph.name = back.name
    assert graph_text(back, hashes=False) == graph_text(graph, hashes=False)
    for name, value in graph.tensors.items():
        allowed = 2e-7 if name.endswith((".gain", ".feed")) and kind.startswith("Cuba") else 0.0
        torch.testing.assert_close(back.tensors[name], value, rtol=allowed, atol=0.0)


@pytest.mark.parametrize(
    "made",
    [
        neuron("if", reset="hard"),
        neuron("if", reset="hard", compare="gt", v_init=0.5, v_reset=-0.25, spike_value=3.0),
        neuron("leaky", reset="hard", beta=0.75, v_init=0.25),
        neuron("leaky", reset="hard", reset_time="next_before_charge", compare="gt", beta=0.5),
        neuron("leaky", reset="hard", beta=1.0),
        neuron("lif", reset="hard", tau=4.0, v_rest=0.25, v_reset=0.125),
        neuron("lif", reset="hard", tau=4.0, decay_input=False),
        neuron("lif", reset="hard", form="fused", decay=0.75),
        neuron("lif_gain", reset="hard", beta=0.5, gain=0.5),
        neuron("cuba_lif", reset="hard", alpha=0.5, beta=0.75),
        neuron("cuba_lif", reset="hard", compare="gt", alpha=0.5, beta=0.75, v_init=0.5),
        neuron("li", beta=0.5, scaled=True, gain=2.0),
    ],
    ids=str,
)  # fmt: skip
def test_other_templates_give_the_same_spikes(tmp_path: Path, made: Neuron) -> None:
    graph, x = cell(made), nets.noise(STEPS, 4, 3)
    assert torch.equal(nets.run(again(graph, tmp_path), x), nets.run(graph, x))


@pytest.mark.parametrize("reset", ["soft", "none"])
def test_other_resets_go_into_the_metadata_with_a_warning(tmp_path: Path, reset: str) -> None:
    graph, x = cell(neuron("if", reset=reset, v_init=0.5)), nets.noise(STEPS, 4, 3)
    with pytest.warns(UserWarning, match=f"cell: IF: has a reset by {reset}"):
        back = again(graph, tmp_path)
    assert torch.equal(nets.run(back, x), nets.run(graph, x))


def network() -> Graph:
    """Convolution, BatchNorm, pooling, a join of two branches, linear layers, a static input and a mean readout."""
    generator = torch.Generator().manual_seed(1)

    def weight(*shape: int) -> torch.Tensor:
        return torch.randint(-4, 5, shape, generator=generator) / 8

    graph, x = nets.started((2, 4, 4), STEPS, static=True)
    x = graph.add("resample", [x], dt=1, mode="repeat", path="input.hold").result
    window = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    a = graph.add("conv2d", [x], path="conv", weight=graph.tensor("a", weight(4, 2, 3, 3)), **window).result
    norm = {"mean": torch.zeros(4), "var": torch.ones(4), "weight": torch.full((4,), 2.0), "bias": torch.ones(4)}
    a = graph.add("batch_norm", [a], path="bn", eps=0.0, **{k: graph.tensor(k, v) for k, v in norm.items()}).result
    a = graph.add("neuron", [a], neuron=neuron("if", reset="hard", compare="gt"), path="first").result
    b = graph.add("scale", [a], factor=0.5, path="half").result
    a = graph.add("add", [a, b, b], path="join").result
    pooled = graph.add("sum_pool", [a], kernel=(2, 2), stride=(2, 2), padding=(0, 0), path="pool").result
    flat = graph.add("flatten", [pooled], path="flat").result
    weights = {"weight": graph.tensor("b", weight(5, 16)), "bias": graph.tensor("c", weight(5))}
    y = graph.add("linear", [flat], path="fc", **weights).result
    y = graph.add("neuron", [y], neuron=neuron("leaky", reset="hard", beta=0.75), path="second").result
    rate = graph.add("resample", [y], dt=STEPS, mode="mean").result
    graph.add("output", [rate], time="squeeze")
    return graph


def test_a_network_comes_back_with_its_schedule(tmp_path: Path) -> None:
    graph, x = network(), nets.noise(5, 2, 4, 4)
    layers = {"first": LayerSchedule(8, 1, "micro"), "second": LayerSchedule(6, 1, "micro")}
    schedule = Schedule(STEPS, layers)
    write_nir(graph, tmp_path / "net.nir", schedule=schedule)
    back = import_nir(tmp_path / "net.nir")
    assert back.schedule == schedule and not back.notes
    with torch.no_grad():
        assert torch.equal(ld.Interpreter(back.graph)(x), ld.Interpreter(graph)(x))


def test_a_compiled_network_is_written_like_the_traced_one(tmp_path: Path) -> None:
    graph, x = network(), nets.noise(1, 2, 4, 4)
    ld.compile(graph).save(tmp_path / "net.ldsnn")
    ld.write(ld.read(tmp_path / "net.ldsnn"), tmp_path / "net.nir")
    with torch.no_grad():
        assert torch.equal(ld.Interpreter(ld.read(tmp_path / "net.nir"))(x), ld.Interpreter(graph)(x))


def test_the_package_nir_reads_and_checks_what_is_written(tmp_path: Path) -> None:
    import nir

    write_nir(network(), tmp_path / "net.nir", 0.5)
    found = nir.read(tmp_path / "net.nir")
    assert found.metadata["ldsnn.dt"] == 0.5 and found.metadata["ldsnn.timesteps"] == STEPS
    assert sorted(type(node).__name__ for node in found.nodes.values()) == [
        "Affine", "Conv2d", "Flatten", "IF", "Input", "LIF", "Output", "Scale", "Scale", "SumPool2d",
    ]  # fmt: skip


def feedback(steps: int) -> Graph:
    """A neuron whose spikes come back after some steps, halved."""
    graph, x = nets.started((3,), STEPS)
    delay = graph.add("delay", [], steps=steps, type=x.type, path="cell.before")
    half = graph.add("scale", [delay.result], factor=0.5, path="half")
    total = graph.add("add", [x, half.result], path="cell.sum")
    made = graph.add("neuron", [total.result], neuron=neuron("if", reset="hard", compare="gt"), path="cell")
    with graph.edit():
        graph.set_attrs(delay, type=made.type)
        graph.set_operand(delay, 0, made.result)
    graph.add("output", [made.result])
    return graph


@pytest.mark.parametrize(("steps", "kinds"), [(1, set()), (3, {"Delay"})])
def test_recurrence_comes_back(tmp_path: Path, steps: int, kinds: set[str]) -> None:
    graph, x = feedback(steps), nets.noise(STEPS, 4, 3)
    written = export_nir(graph, 0.25).graph
    assert {type(node).__name__ for node in written.nodes.values()} == {"Input", "Output", "IF", "Scale"} | kinds
    assert torch.equal(nets.run(again(graph, tmp_path), x), nets.run(graph, x))


def poisson(graph: Graph, x: Any) -> Any:
    return graph.add("encode", [x], code="poisson", path="odd").result


def membrane_read(graph: Graph, x: Any) -> Any:
    return graph.add("neuron", [x], neuron=neuron("if", reset="hard"), membrane=True, path="odd").results[1]


def own_time(graph: Graph, x: Any) -> Any:
    return graph.add("resample", [x], dt=2, path="odd").result


REFUSED = {
    "counts": (neuron("if", reset="hard", max_count=4), "emits counts"),
    "substeps": (neuron("if", reset="hard").retime(2, method="micro"), "emits counts"),
    "late reset": (neuron("leaky", reset="soft", reset_time="next_after_charge"), "its reset comes a step late"),
    "floor": (neuron("if", reset="hard", floor=True, v_min=-1.0), "its membrane has a floor"),
    "reset charge": (neuron("if", own_reset_charge=True, reset_charge=0.5), "subtracts something else"),
    "template": (neuron("izhikevich"), "has no form in NIR"),
    "decay": (neuron("leaky", reset="hard", beta=0.0), "no time constant does that"),
    "start": (neuron("li", v_init=1.0), "starts at another membrane than 0"),
    "encoder": (poisson, "encode: has no form in NIR"),
    "membrane": (membrane_read, "its membrane is read"),
    "time": (own_time, "runs on 12 timesteps of 2 base steps"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    made, text = REFUSED[case]
    if isinstance(made, Neuron):
        graph = cell(made)
    else:
        graph, x = nets.started((3,), STEPS)
        graph.add("output", [made(graph, x)])
    with pytest.raises(ImportRefused, match=text) as caught:
        export_nir(graph)
    assert caught.value.problems[0].where == ("cell" if isinstance(made, Neuron) else "odd")
