"""NIR's neurons as neuron programs, one importer each.

Membranes and currents start at 0 (NIR has no initial state), neurons fire on strict ``>`` and are then set to v_reset.
A spiking neuron that leaks to ``v_leak`` is kept relative to it: with w = v - v_leak the equations are those of
``v_leak = 0``, with threshold, reset and initial value less v_leak.

A constant factor of the input is a ``scale`` before the neuron, where it can be folded into weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ldsnn_compiler.frontend.nir.builder import Builder
from ldsnn_compiler.frontend.nir.discretise import Array, Step
from ldsnn_compiler.frontend.nir.metadata import entry
from ldsnn_compiler.frontend.nir.source import Unit
from ldsnn_compiler.ir.graph import Value
from ldsnn_compiler.ir.neuron import Neuron, Number, neuron

FIRING = ("v_threshold", "v_reset")
CUBA = ("tau_syn", "tau_mem", "r", "v_leak", "w_in")
Parameters = dict[str, Array]


def integrate_and_fire(b: Builder, unit: Unit, x: Value) -> Value:
    """IF, ``dv/dt = R I``: ``h = v + (dt R) x``."""
    p = b.fitted(unit, ("r", *FIRING), x.type.shape)
    return _fire(b, unit, b.scaled(unit, x, b.step.dt * p["r"]), "if", p, np.zeros_like(p["r"]))


def leaky(b: Builder, unit: Unit, x: Value) -> Value:
    """LIF, ``tau dv/dt = (v_leak - v) + R I``: ``h = beta v + (1 - beta) R x``, v relative to v_leak."""
    p = _timed(b, unit, ("tau", "r", "v_leak", *FIRING), x)
    beta = b.step.decay(p["tau"])
    return _fire(b, unit, b.scaled(unit, x, (1.0 - beta) * p["r"]), "leaky", p, p["v_leak"], beta=beta)


def current_based(b: Builder, unit: Unit, x: Value) -> Value:
    """CubaLIF, ``tau_syn dI/dt = -I + w_in S; tau_mem dv/dt = (v_leak - v) + R I``, v relative to v_leak.

    ``zoh`` solves both together (template ``cuba_lif_exact``). ``euler`` steps the current first and the membrane with
    the new current, as snnTorch's Synaptic does (template ``cuba_lif``): ``I = alpha I + (1 - alpha) w_in x;
    h = beta v + (1 - beta) R I``.
    """
    p = _timed(b, unit, (*CUBA, *FIRING), x)
    alpha, beta = b.step.decay(p["tau_syn"]), b.step.decay(p["tau_mem"])
    gain, feed = held_input(b.step, p, alpha, beta)
    if b.step.method == "euler":
        return _fire(b, unit, b.scaled(unit, x, gain), "cuba_lif", p, p["v_leak"], alpha=alpha, beta=beta)
    return _fire(b, unit, x, "cuba_lif_exact", p, p["v_leak"], alpha=alpha, beta=beta, gain=gain, feed=feed)


def integrator(b: Builder, unit: Unit, x: Value) -> Value:
    """I, ``dv/dt = R I``: ``v = v + (dt R) x``, emitted."""
    p = b.fitted(unit, ("r",), x.type.shape)
    return _emit(b, unit, b.scaled(unit, x, b.step.dt * p["r"]), neuron("li", beta=1.0))


def leaky_integrator(b: Builder, unit: Unit, x: Value) -> Value:
    """LI, ``tau dv/dt = (v_leak - v) + R I``: ``v = beta v + (1 - beta)(R x + v_leak)``, emitted."""
    p = _timed(b, unit, ("tau", "r", "v_leak"), x)
    beta = b.step.decay(p["tau"])
    charged = b.scaled(unit, x, (1.0 - beta) * p["r"])
    return _emit(b, unit, charged, neuron("li", **b.numbers(unit, beta=beta), **_drive(b, unit, p, beta)))


def current_based_integrator(b: Builder, unit: Unit, x: Value) -> Value:
    """CubaLI: the membrane of a CubaLIF that never fires, emitted."""
    p = _timed(b, unit, CUBA, x)
    alpha, beta = b.step.decay(p["tau_syn"]), b.step.decay(p["tau_mem"])
    gain, feed = held_input(b.step, p, alpha, beta)
    numbers = b.numbers(unit, alpha=alpha, beta=beta, gain=gain, feed=feed)
    return _emit(b, unit, x, neuron("cuba_li", **numbers, **_drive(b, unit, p, beta)))


def threshold(b: Builder, unit: Unit, x: Value) -> Value:
    """Threshold, 1 where x > threshold; thresholds that differ are those of neurons without memory."""
    at = b.number(unit, "threshold", b.fitted(unit, ("threshold",), x.type.shape)["threshold"])
    if isinstance(at, float):
        return b.add("threshold", unit, [x], at=at, compare="gt").result
    return _emit(b, unit, x, neuron("leaky", beta=0.0, threshold=at, compare="gt", reset="none"))


def _timed(b: Builder, unit: Unit, names: Iterable[str], x: Value) -> Parameters:
    """Parameters in the input's shape; time constants with which a state grows are noted."""
    found = b.fitted(unit, names, x.type.shape)
    for name, tau in found.items():
        if name.startswith("tau"):
            wrong = np.abs(b.step.decay(tau)) > 1.0
            if wrong.any():
                why = "is negative" if (tau < 0).any() else f"is below half a timestep of {b.step.dt:g}"
                count = f"{np.count_nonzero(wrong)} of {wrong.size}"
                b.note(unit, f"{why} ({count}): the state grows without bound, so the network will not run", name)
    return found


def held_input(step: Step, p: Parameters, alpha: Array, beta: Array) -> tuple[Array, Array]:
    """What an input adds to the membrane in its own timestep, and through the current in the next one.

    ``euler``: the current is stepped first, the membrane with the new one. ``zoh``: exact for input held in a timestep.

    A current I at the start of a step adds R k I to the membrane at its end, k = beta (dt / tau_mem) (e^z - 1) / z,
    z = dt / tau_mem - dt / tau_syn. That is (alpha - beta) tau_syn / (tau_syn - tau_mem), but holds also where both
    time constants are equal.
    """
    charge = p["r"] * p["w_in"]
    if step.method == "euler":
        gain = charge * (1.0 - beta) * (1.0 - alpha)
        return gain, alpha * gain
    rate = step.dt / p["tau_mem"]
    z = rate - step.dt / p["tau_syn"]
    k = beta * rate * np.divide(np.expm1(z), z, out=np.ones_like(z), where=z != 0)
    return charge * (1.0 - beta - k), charge * k * (1.0 - alpha)


def _drive(b: Builder, unit: Unit, p: Parameters, beta: Array) -> dict[str, bool | Number]:
    """The settings of an integrator that leaks to v_leak, where that is not 0."""
    drive = b.number(unit, "drive", (1.0 - beta) * p["v_leak"])
    return {} if drive == 0.0 else {"driven": True, "drive": drive}


def _fire(b: Builder, unit: Unit, x: Value, template: str, p: Parameters, rest: Array, **charge: Array) -> Value:
    """The node of a spiking neuron: strict comparison, hard reset, everything relative to ``rest``."""
    reset, compare, start = (entry(unit.metadata, name) for name in ("reset", "compare", "v_init"))
    begin = 0.0 if start is None else np.broadcast_to(np.asarray(start, np.float64), rest.shape)
    firing = {"threshold": p["v_threshold"] - rest, "v_init": begin - rest}
    if reset is None:
        firing["v_reset"] = p["v_reset"] - rest
    settings = {"compare": compare or "gt", "reset": reset or "hard", **b.numbers(unit, **firing, **charge)}
    return _emit(b, unit, x, neuron(template, **settings))


def _emit(b: Builder, unit: Unit, x: Value, made: Neuron) -> Value:
    return b.add("neuron", unit, [x], neuron=made).result
