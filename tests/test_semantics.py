"""Where libraries disagree with NIR, with each other, or with themselves: what docs/semantics.md says, in numbers.

Each test shows the disagreement on the libraries' own runs, and that the import keeps to the library it came from.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nir_nets as nets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ldsnn_compiler as ld
from ldsnn_compiler.frontend.nir import read_nir
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron

ROOT = Path(__file__).parent.parent


def series(*values: float) -> Tensor:
    """Input ``[T, 1, 1]``."""
    return torch.tensor(values).reshape(-1, 1, 1)


def emitted(graph: Graph, x: Tensor) -> list[float]:
    """What a graph of one neuron gives."""
    with torch.no_grad():
        return ld.Interpreter(graph).run(x)[0].flatten().tolist()  # type: ignore[no-any-return]


def imported(module: nn.Module, x: Tensor, **options: Any) -> list[float]:
    """What the imported module gives."""
    return emitted(ld.trace(module, x, x.shape[0], sequence=True, **options), x)


def snntorch_run(module: Any, x: Tensor) -> tuple[list[float], list[float]]:
    """Spikes and membranes of snnTorch's own run."""
    module.reset_mem()
    with torch.no_grad():
        steps = [module(now) for now in x]
    return [float(s[0]) for s in steps], [float(s[-1]) for s in steps]


class Spikes(nn.Module):
    """A snnTorch neuron with its state inside: spikes of each step."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x)  # type: ignore[no-any-return]


# ---- at the threshold


@pytest.mark.snntorch
@pytest.mark.spikingjelly
@pytest.mark.norse
@pytest.mark.sinabs
@pytest.mark.nir
def test_a_membrane_that_just_reaches_the_threshold() -> None:
    import norse.torch as norse
    import sinabs.layers as sl
    import snntorch as snn
    from sinabs.activation import SingleSpike
    from spikingjelly.activation_based import neuron as jelly

    x = series(0.5, 0.5, 0.0)
    assert imported(jelly.IFNode(v_threshold=1.0, step_mode="m"), x) == [0, 1, 0]
    sinabs = sl.IAF(spike_threshold=1.0, spike_fn=SingleSpike)
    assert emitted(ld.trace(sinabs, x.transpose(0, 1)), x) == [0, 1, 0]
    assert imported(Spikes(snn.Leaky(beta=1.0, threshold=1.0, init_hidden=True)), x) == [0, 0, 0]
    iaf = norse.IAF(norse.IAFParameters(v_th=torch.tensor(1.0)))
    with torch.no_grad():
        assert iaf(x)[0].flatten().tolist() == [0, 0, 0]
    assert emitted(read_nir(nets.chain(nets.made("IF", 1)), 3, 1.0), x) == [0, 0, 0]


# ---- when a reset acts


@pytest.mark.snntorch
def test_a_reset_to_zero_loses_the_input_of_its_step_or_not() -> None:
    """snnTorch: ``zero`` of Leaky keeps the next step's input, that of Synaptic and Lapicque loses it."""
    import snntorch as snn

    x, kept = series(1.5, 0.75, 0.75), {"reset_mechanism": "zero", "init_hidden": True, "output": True}
    leaky = snn.Leaky(beta=1.0, **kept)
    synaptic = snn.Synaptic(alpha=0.0, beta=1.0, **kept)
    assert snntorch_run(leaky, x) == ([1, 0, 1], [1.5, 0.75, 1.5])
    assert snntorch_run(synaptic, x) == ([1, 0, 0], [1.5, 0.0, 0.75])
    without = {"reset_mechanism": "zero", "init_hidden": True}
    assert imported(Spikes(snn.Leaky(beta=1.0, **without)), x) == [1, 0, 1]
    assert imported(Spikes(snn.Synaptic(alpha=0.0, beta=1.0, **without)), x) == [1, 0, 0]


@pytest.mark.snntorch
def test_a_delayed_reset_lets_the_membrane_leak_first() -> None:
    """``subtract`` of snnTorch comes one step late, off a membrane that has decayed: as at once, threshold / beta."""
    import snntorch as snn

    x = series(1.5, 0.0, 0.0, 1.0)
    late = snn.Leaky(beta=0.5, init_hidden=True, output=True)
    assert snntorch_run(late, x)[1] == [1.5, -0.25, -0.125, 0.9375]
    graph, at = nets.started((1,), 4)
    cell = neuron("leaky", beta=0.5, compare="gt", own_reset_charge=True, reset_charge=2.0)
    node = graph.add("neuron", [at], neuron=cell, membrane=True)
    graph.add("output", [node.results[1]])
    after = emitted(graph, x)  # after the reset; snnTorch shows the membrane before it
    assert after == [-0.5, -0.25, -0.125, 0.9375]


@pytest.mark.snntorch
def test_reset_delay_false_is_not_a_prompt_reset_above_twice_the_threshold() -> None:
    """A membrane that is above the threshold after its reset does not fire in the next step unless it is charged by
    another threshold: snnTorch takes the next step's delayed reset back after it has decided about the spike."""
    import snntorch as snn

    x = series(2.5, 0.5, 0.0, 0.25)
    made = {"beta": 0.5, "reset_delay": False, "init_hidden": True}
    spikes, membranes = snntorch_run(snn.Leaky(**made, output=True), x)
    assert spikes == [1, 0, 0, 0] and membranes == [1.5, 1.25, 0.625, 0.5625]
    assert imported(Spikes(snn.Leaky(**made)), x) == spikes
    graph, at = nets.started((1,), 4)
    textbook = graph.add("neuron", [at], neuron=neuron("leaky", beta=0.5, compare="gt"))
    graph.add("output", [textbook.result])
    assert emitted(graph, x) == [1, 1, 0, 0]


# ---- current and membrane


@pytest.mark.snntorch
@pytest.mark.norse
@pytest.mark.nir
def test_when_a_current_reaches_the_membrane() -> None:
    """The same synapse and membrane (both halve in a step), one input: four answers."""
    import norse.torch as norse
    import snntorch as snn

    x = series(1.0, 0.0, 0.0)
    synaptic = snn.Synaptic(alpha=0.5, beta=0.5, threshold=9.0, init_hidden=True, output=True)
    assert snntorch_run(synaptic, x)[1] == [1.0, 1.0, 0.75]
    rates = {"tau_mem_inv": torch.tensor(500.0), "tau_syn_inv": torch.tensor(500.0)}  # dt = 1 ms
    lif = norse.LIF(norse.LIFParameters(**rates, v_th=torch.tensor(9.0)), record_states=True)
    lsnn = norse.LSNN(norse.LSNNParameters(**rates, v_th=torch.tensor(9.0)), record_states=True)
    with torch.no_grad():
        now, later = ([float(v) for v in cell(x)[1].v] for cell in (lif, lsnn))
    assert now == pytest.approx([0.5, 0.5, 0.375]) and later == pytest.approx([0.0, 0.5, 0.5])
    cuba = nets.made("CubaLI", 1, tau_syn=2.0, tau_mem=2.0)
    euler = emitted(read_nir(nets.chain(cuba), 3, 1.0, discretise="euler"), x)
    assert euler == pytest.approx([0.25, 0.25, 0.1875])  # snnTorch's order, gains of NIR's equations
    left = float(np.exp(-0.5))  # equal time constants: v = 1 - exp(-t/tau) (1 + t/tau) while the input is held
    exact = emitted(read_nir(nets.chain(cuba), 3, 1.0), x)
    assert exact[0] == pytest.approx(1 - left * 1.5)


# ---- where a state starts


@pytest.mark.norse
@pytest.mark.nir
def test_where_membranes_start() -> None:
    """Norse: IAF at v_reset, LIF at v_leak. NIR has no initial state: 0 here."""
    import norse.torch as norse

    x = series(0.75, 0.75, 0.75)
    raised = {"v_reset": torch.tensor(0.5), "v_th": torch.tensor(1.0)}
    iaf = norse.Lift(norse.IAFCell(norse.IAFParameters(**raised)))
    with torch.no_grad():
        assert iaf(x)[0].flatten().tolist() == [1, 1, 1]
    assert emitted(read_nir(nets.chain(nets.made("IF", 1, v_reset=0.5)), 3, 1.0), x) == [0, 1, 1]
    (node,) = ld.trace(norse.LIF(norse.LIFParameters(v_leak=torch.tensor(0.25))), x).of("neuron")
    assert node["neuron"].params["v_init"] == 0.25


@pytest.mark.norse
def test_norse_s_iaf_is_imported_with_its_start() -> None:
    import norse.torch as norse

    x = series(0.75, 0.75, 0.75)
    made = norse.Lift(norse.IAFCell(norse.IAFParameters(v_reset=torch.tensor(0.5), v_th=torch.tensor(1.0))))
    assert imported(made, x) == [1, 1, 1]


# ---- what comes back


@pytest.mark.snntorch
@pytest.mark.sinabs
def test_the_bias_of_a_recurrent_layer_in_the_first_step() -> None:
    """A recurrent layer of bias only: snnTorch has it from the first step on, Sinabs from the second."""
    import sinabs.layers as sl
    import snntorch as snn
    from sinabs.activation import SingleSpike

    x, bias = series(0.0, 0.0, 0.0), nn.Linear(1, 1)
    with torch.no_grad():
        bias.weight.fill_(0.0)
        bias.bias.fill_(1.5)
    rleaky = snn.RLeaky(beta=0.0, linear_features=1, init_hidden=True, reset_mechanism="none")
    rleaky.recurrent = bias
    found = imported(Spikes(rleaky), x)
    rleaky.reset_mem()
    with torch.no_grad():
        spikes = [float(rleaky(now)) for now in x]
    assert found == spikes == [1, 1, 1]
    sinabs = sl.IAFRecurrent(rec_connect=bias, spike_threshold=1.0, spike_fn=SingleSpike)
    found = emitted(ld.trace(sinabs, x.transpose(0, 1)), x)
    with torch.no_grad():
        spikes = sinabs(x.transpose(0, 1)).flatten().tolist()
    assert found == spikes == [0, 1, 1]


# ---- Sinabs


@pytest.mark.sinabs
def test_a_sinabs_reset_value_is_added_to_every_neuron_in_every_step() -> None:
    import sinabs.layers as sl
    from sinabs.activation import MembraneReset, SingleSpike

    layer = sl.IAF(spike_threshold=1.0, spike_fn=SingleSpike, reset_fn=MembraneReset(0.25))
    x = series(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    found = emitted(ld.trace(layer, x.transpose(0, 1)), x)
    with torch.no_grad():
        theirs = layer(x.transpose(0, 1)).flatten().tolist()
    assert found == theirs == [0, 0, 0, 0, 1, 0]  # it fires without any input


@pytest.mark.sinabs
@pytest.mark.norse
def test_adaptive_thresholds_rise_by_different_amounts() -> None:
    """A spike raises Norse's threshold by ``beta``, Sinabs' by ``adapt_scale * (1 - exp(-1/tau_adapt))``."""
    import norse.torch as norse
    import sinabs.layers as sl
    from sinabs.activation import SingleSpike

    x, tau = series(2.0, 0.0), 10.0
    alif = sl.ALIF(
        tau_mem=5.0, tau_adapt=tau, adapt_scale=2.0, spike_threshold=1.0, spike_fn=SingleSpike, norm_input=False
    )
    alif.record_states = True
    with torch.no_grad():
        alif(x.transpose(0, 1))
    assert float(alif.recordings["b"].flatten()[-1]) == pytest.approx((1 - np.exp(-1 / tau)) * np.exp(-1 / tau))
    lsnn = norse.LSNN(
        norse.LSNNParameters(
            tau_mem_inv=torch.tensor(1000.0), tau_adapt_inv=torch.tensor(10.0), beta=torch.tensor(0.5),
            v_th=torch.tensor(1.0),
        ),
        record_states=True,
    )  # fmt: skip
    with torch.no_grad():
        spikes, states = lsnn(x)
    rises = [float(b) - 1.0 for b in states.b]
    assert spikes.flatten().tolist() == [0, 1] and rises == pytest.approx([0.0, 0.5])


# ---- the page


def test_every_test_that_the_page_names_exists() -> None:
    """docs/semantics.md links each statement to what pins it."""
    page = (ROOT / "docs" / "semantics.md").read_text()
    named = re.findall(r"\(\.\./tests/(\w+)\.py\).{0,3}`(test_\w+)`", page)
    assert len(named) >= 12
    missing = [f"{file}.{test}" for file, test in named if f"def {test}(" not in _source(file)]
    assert not missing


def _source(file: str) -> str:
    return (ROOT / "tests" / f"{file}.py").read_text()
