"""NIR's neurons as neuron programs, one importer each.

Membranes and currents start at 0 (NIR has no initial state), neurons fire on strict ``>`` and are then set to v_reset.
A neuron that leaks to ``v_leak`` is kept relative to it: with w = v - v_leak the equations are those of ``v_leak = 0``,
with threshold, reset and initial value less v_leak.
"""

from __future__ import annotations

import numpy as np

from ldsnn_compiler.frontend.nir.builder import Builder
from ldsnn_compiler.frontend.nir.discretise import Array
from ldsnn_compiler.frontend.nir.source import Unit
from ldsnn_compiler.ir.graph import Value
from ldsnn_compiler.ir.neuron import Number, neuron

FIRING = ("v_threshold", "v_reset")


def integrate_and_fire(b: Builder, unit: Unit, x: Value) -> Value:
    """IF, ``dv/dt = R I``: ``h = v + (dt R) x``."""
    p = b.fitted(unit, ("r", *FIRING), x.type.shape)
    charged = gain(b, unit, x, b.step.dt * p["r"])
    return _fire(b, unit, charged, "if", p, np.zeros_like(p["r"]))


def leaky(b: Builder, unit: Unit, x: Value) -> Value:
    """LIF, ``tau dv/dt = (v_leak - v) + R I``: ``h = beta v + (1 - beta) R x``, v relative to v_leak."""
    p = b.fitted(unit, ("tau", "r", "v_leak", *FIRING), x.type.shape)
    beta = b.step.decay(p["tau"])
    charged = gain(b, unit, x, (1.0 - beta) * p["r"])
    return _fire(b, unit, charged, "leaky", p, p["v_leak"], beta=b.number(unit, "beta", beta))


def gain(b: Builder, unit: Unit, x: Value, factor: Array) -> Value:
    """The input times a factor, unless that is 1."""
    number = b.number(unit, "gain", factor)
    if number == 1.0:
        return x
    if isinstance(number, float):
        return b.add("scale", unit, [x], "gain", factor=number).result
    return b.add("scale", unit, [x], "gain", by=number).result


def _fire(b: Builder, unit: Unit, x: Value, template: str, p: dict[str, Array], rest: Array, **charge: Number) -> Value:
    """The neuron node: strict comparison, hard reset, everything relative to ``rest``."""
    firing = {"threshold": p["v_threshold"] - rest, "v_reset": p["v_reset"] - rest, "v_init": -rest}
    numbers = {name: b.number(unit, name, value + 0.0) for name, value in firing.items()}
    made = neuron(template, compare="gt", reset="hard", **numbers, **charge)
    return b.add("neuron", unit, [x], neuron=made).result
