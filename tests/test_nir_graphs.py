"""NIR graphs: sums of edges, nesting, recurrence and delays."""

from __future__ import annotations

import nir_nets as nets
import numpy as np
import pytest
import torch

import ldsnn_compiler as ld
from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend.nir import read_nir

pytestmark = pytest.mark.nir

try:
    import nir
except ModuleNotFoundError:  # the marker skips every test of this file
    nir = None

WEIGHT, BIAS = np.array([[0.0, 0.5], [-0.25, 0.5]]), np.array([0.25, 0.0])


def back() -> object:
    """The synapse of the recurrent networks here."""
    return nir.Affine(WEIGHT, BIAS)


def recurrent(x: torch.Tensor, wait: int = 1) -> torch.Tensor:
    """IF neurons at dt = 0.5 whose spikes come back ``wait`` steps later, through :func:`back`."""
    weight, bias = torch.from_numpy(WEIGHT).float(), torch.from_numpy(BIAS).float()
    v, spikes = torch.zeros_like(x[0]), [torch.zeros_like(x[0])] * wait
    for current in x:
        v = v + 0.5 * (current + (spikes[-wait] @ weight.T + bias))
        spikes.append((v > 1.0).float())
        v = torch.where(v > 1.0, 0.0, v)
    return torch.stack(spikes[wait:])


def test_edges_into_a_node_add_up() -> None:
    graph = nets.joined("input a, input b, a output, b output, input output", a=nir.Scale(np.full(2, 2.0)),
                        b=nir.Scale(np.full(2, 4.0)), **nets.ends())  # fmt: skip
    x = nets.noise(3, 1, 2)
    assert torch.equal(nets.run(graph, x), 7 * x)


def test_what_comes_back_comes_one_step_later_and_its_bias_from_the_start() -> None:
    graph = nets.joined("input lif, lif rec, rec lif, lif output", lif=nets.made("IF"), rec=back(), **nets.ends())
    net = read_nir(graph, 40, nets.Dt)
    assert [(d.path, d.operands[0].node.path, d["type"].signal.levels) for d in net.of("delay")] == [
        ("lif.before", "lif", 1)
    ]
    x = nets.noise(40, 2, 2)
    assert torch.equal(nets.run(net, x), recurrent(x))


def test_a_nested_graph_is_the_flat_one() -> None:
    inner = nets.joined("input lif, lif rec, rec lif, lif output", lif=nets.made("IF"), rec=back(), **nets.ends())
    outer = nir.NIRGraph({"cell": inner, "out": nir.Scale(np.full(2, 3.0)), **nets.ends()},
                         [("input", "cell"), ("cell", "out"), ("out", "output")], type_check=False)  # fmt: skip
    net = read_nir(outer, 40, nets.Dt)
    assert [n.path for n in net.of("neuron", "linear")] == ["cell.rec", "cell.lif"]
    x = nets.noise(40, 2, 2)
    assert torch.equal(nets.run(net, x), 3 * recurrent(x))


def test_a_delay_in_a_cycle_is_all_that_waits() -> None:
    graph = nets.joined("input lif, lif wait, wait rec, rec lif, lif output", lif=nets.made("IF"), rec=back(),
                        wait=nir.Delay(np.full(2, 1.5)), **nets.ends())  # fmt: skip
    net = read_nir(graph, 40, nets.Dt)
    assert [(d.path, d["steps"]) for d in net.of("delay")] == [("wait", 3)]
    x = nets.noise(40, 2, 2)
    assert torch.equal(nets.run(net, x), recurrent(x, wait=3))


def test_a_cycle_that_no_input_reaches() -> None:
    graph = nets.joined("i rec, rec i, i output, input output", i=nets.made("LI"), rec=back(), **nets.ends())
    assert nets.run(graph, nets.noise(5, 1, 2)).shape == (5, 1, 2)


def test_delays_that_differ_compile_and_stream() -> None:
    graph = nets.joined("input d, d output", d=nir.Delay(np.array([1.0, 0.0, 0.5])), **nets.ends(3))
    x = torch.arange(18.0).view(6, 1, 3)
    net = read_nir(graph, 6, nets.Dt)
    expected = torch.stack([torch.cat([torch.zeros(k), x[: 6 - k, 0, i]]) for i, k in enumerate((2, 0, 1))], 1)[:, None]
    assert torch.equal(nets.run(net, x), expected)
    compiled = ld.compile(net)
    assert torch.equal(torch.cat([compiled.step(part)[0] for part in x.split(2)]), expected)


def test_current_based_neurons_compile_to_the_interpreters_numbers() -> None:
    """A recurrent network of all current-based templates, whole and streamed."""
    lif, li = nets.made("CubaLIF", r=3.0, w_in=1.5), nets.made("CubaLI", v_leak=0.5)
    graph = nets.joined("input lif, lif rec, rec lif, lif li, li output", lif=lif, rec=back(), li=li, **nets.ends())
    net, x = read_nir(graph, 32, nets.Dt), nets.noise(32, 3, 2)
    expected = nets.run(net, x)
    compiled = ld.compile(net, batch=3)
    assert torch.equal(compiled(x), expected)
    compiled.reset()
    assert torch.equal(torch.cat([compiled.step(part)[0] for part in x.split(8)]), expected)


@pytest.mark.parametrize(
    ("delay", "text"), [(0.75, "1.5 timesteps of 0.5, not a whole number"), (-0.5, "-1 timesteps")]
)
def test_delays_that_are_no_whole_number_of_timesteps(delay: float, text: str) -> None:
    with pytest.raises(ImportRefused, match=text):
        read_nir(nets.joined("input d, d output", d=nir.Delay(np.full(2, delay)), **nets.ends()), 4, nets.Dt)


def test_names_stay_as_module_paths() -> None:
    ends = {"in put": nir.Input(np.array([2])), "out": nir.Output(np.array([2]))}
    graph = nir.NIRGraph({"lif.1": nets.made("IF"), **ends}, [("in put", "lif.1"), ("lif.1", "out")])
    assert [n.path for n in read_nir(graph, 3, nets.Dt).of("input", "neuron")] == ["in put", "lif.1"]
