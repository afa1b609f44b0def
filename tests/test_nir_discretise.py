"""What one timestep of a NIR neuron does: the exact solution for held input, or one Euler step."""

from __future__ import annotations

import nir_nets as nets
import numpy as np
import pytest
import torch

import ldsnn_compiler as ld
from ldsnn_compiler.errors import ImportRefused, LdsnnError
from ldsnn_compiler.frontend.nir import read_nir
from ldsnn_compiler.frontend.nir.discretise import Step
from ldsnn_compiler.frontend.nir.neurons import held_input

pytestmark = pytest.mark.nir


def solved(tau_syn: float, tau_mem: float, r: float, w_in: float, dt: float, x: np.ndarray) -> np.ndarray:
    """Membranes of ``tau_syn dI/dt = -I + w S; tau_mem dv/dt = -v + R I`` by the matrix exponential, S held."""
    system = torch.tensor(
        [[-1 / tau_syn, 0.0, w_in / tau_syn], [r / tau_mem, -1 / tau_mem, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64
    )
    step, state, found = torch.linalg.matrix_exp(system * dt), torch.zeros(3, dtype=torch.float64), []
    for current in x:
        state[2] = float(current)
        state = step @ state
        found.append(float(state[1]))
    return np.array(found)


@pytest.mark.parametrize("taus", [(1.0, 2.0), (2.0, 1.0), (1.5, 1.5), (0.01, 20.0)])
def test_zoh_solves_current_and_membrane_together(taus: tuple[float, float]) -> None:
    x = nets.noise(40, 1, 1)
    li = nets.made("CubaLI", 1, tau_syn=taus[0], tau_mem=taus[1], r=3.0, w_in=0.5)
    found = nets.run(nets.chain(li), x).flatten().numpy()
    np.testing.assert_allclose(found, solved(*taus, 3.0, 0.5, nets.Dt, x.flatten().numpy()), rtol=2e-6)


@pytest.mark.parametrize("kind", ["LI", "LIF"])
def test_zoh_solves_a_leaky_membrane_that_leaks_to_another_level(kind: str) -> None:
    graph = read_nir(nets.chain(nets.made(kind, 1, tau=3.0, r=2.0, v_leak=0.25, v_threshold=100.0)), 30, nets.Dt)
    x = nets.noise(30, 1, 1)
    node = graph.of("neuron")[0]
    graph.set_attrs(node, membrane=True)
    graph.add("output", [node.results[1]], name="membrane")
    with torch.no_grad():
        found = ld.Interpreter(graph)(x)[1].flatten().numpy()
    v, expected, left = 0.0, [], np.exp(-nets.Dt / 3.0)
    for current in x.flatten().tolist():
        v = 0.25 + 2.0 * current + (v - 0.25 - 2.0 * current) * left
        expected.append(v)
    shift = 0.25 if kind == "LIF" else 0.0  # a spiking membrane is kept relative to v_leak
    np.testing.assert_allclose(found, np.array(expected) - shift, rtol=1e-5, atol=1e-6)


def test_euler_steps_the_current_first_as_snntorch_does() -> None:
    x = nets.noise(50, 3, 2)
    found = nets.run(nets.chain(nets.made("CubaLIF", r=4.0, w_in=2.0)), x, discretise="euler")
    i, v, spikes = torch.zeros(3, 2), torch.zeros(3, 2), []
    for current in x:
        i = 0.5 * i + current  # 1 - dt / tau_syn, and dt / tau_syn * w_in = 1
        v = 0.75 * v + i  # 1 - dt / tau_mem, and dt / tau_mem * r = 1
        spikes.append((v > 1.0).float())
        v = torch.where(v > 1.0, 0.0, v)
    assert torch.equal(found, torch.stack(spikes))


def test_the_two_integrators_of_a_current_agree_with_the_neuron_that_does_not_fire() -> None:
    for method in ("zoh", "euler"):
        x, size = nets.noise(20, 2, 2), {"tau_mem": 3.0, "tau_syn": 0.75}
        emitted = nets.run(nets.chain(nets.made("CubaLI", **size)), x, discretise=method)
        graph = read_nir(nets.chain(nets.made("CubaLIF", v_threshold=1e9, **size)), 20, nets.Dt, discretise=method)
        node = graph.of("neuron")[0]
        graph.set_attrs(node, membrane=True)
        graph.add("output", [node.results[1]], name="membrane")
        torch.testing.assert_close(nets.run(graph, x)[1], emitted)


def test_equal_time_constants_are_the_limit_of_unequal_ones() -> None:
    def adds(tau_syn: float) -> tuple[np.ndarray, np.ndarray]:
        p = {"r": np.ones(1), "w_in": np.ones(1), "tau_mem": np.full(1, 2.0), "tau_syn": np.full(1, tau_syn)}
        return held_input(Step(0.5), p, Step(0.5).decay(p["tau_syn"]), Step(0.5).decay(p["tau_mem"]))

    np.testing.assert_allclose(adds(2.0), adds(2.0 + 1e-9), rtol=1e-8)


@pytest.mark.parametrize("method", ["zoh", "euler"])
def test_decay_and_time_constant_are_inverse(method: str) -> None:
    step, tau = Step(0.1, method), np.array([0.2, 1.0, 50.0])  # type: ignore[arg-type]
    np.testing.assert_allclose(step.time_constant(step.decay(tau)), tau, rtol=1e-10)


@pytest.mark.parametrize(("dt", "method", "text"), [(0.0, "zoh", "positive length"), (1.0, "rk4", "one of zoh, euler")])
def test_timesteps_that_are_none(dt: float, method: str, text: str) -> None:
    with pytest.raises(LdsnnError, match=text):
        Step(dt, method)  # type: ignore[arg-type]


def test_a_time_constant_of_zero_is_too_short_for_euler() -> None:
    graph = nets.chain(nets.made("LIF", tau=0.0))
    assert nets.run(graph, nets.noise(3, 1, 2), discretise="zoh").shape == (3, 1, 2)
    with pytest.raises(ImportRefused, match="not finite for timesteps"):
        read_nir(graph, 3, nets.Dt, discretise="euler")


@pytest.mark.parametrize(
    ("kind", "changed", "text"), [("LIF", {"tau": -2.0}, "is negative"), ("LI", {"tau": 0.1}, "below half a timestep")]
)
def test_states_that_grow_are_imported_but_not_run(kind: str, changed: dict[str, float], text: str) -> None:
    with pytest.warns(UserWarning, match=text):
        graph = read_nir(nets.chain(nets.made(kind, **changed)), 3, nets.Dt, discretise="euler")
    for attempt in (ld.Interpreter, ld.compile):
        with pytest.raises(LdsnnError, match="the state grows without bound"):
            attempt(graph)
