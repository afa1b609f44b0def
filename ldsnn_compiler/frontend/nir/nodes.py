"""The table of NIR node types that can be imported: parameters, their defaults, and the importer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.frontend.nir import delays, linear, neurons
from ldsnn_compiler.frontend.nir.builder import Builder, stripped
from ldsnn_compiler.frontend.nir.source import IDENTITY, Unit
from ldsnn_compiler.ir.graph import Value

Importer = Callable[[Builder, Unit, Value], Value]


@dataclass(frozen=True)
class Kind:
    """A NIR node type. ``optional`` parameters may be left out of a file; None: they have no value then."""

    importer: Importer
    required: tuple[str, ...] = ()
    optional: Mapping[str, Any] = field(default_factory=dict)
    stateful: bool = False


_CONV = ("weight", "stride", "padding", "dilation", "groups")
_CONV_OPTIONAL = {"bias": None, "input_shape": None}
_POOL = ("kernel_size", "stride", "padding")
_CUBA = ("tau_syn", "tau_mem", "r", "v_leak")
_RESET = {"v_reset": 0.0}

KINDS: Mapping[str, Kind] = {
    IDENTITY: Kind(lambda b, unit, x: x, (), {"shape": None}),
    "Affine": Kind(linear.affine, ("weight", "bias")),
    "Linear": Kind(linear.affine, ("weight",)),
    "Scale": Kind(linear.scale, ("scale",)),
    "Conv1d": Kind(linear.convolution, _CONV, _CONV_OPTIONAL),
    "Conv2d": Kind(linear.convolution, _CONV, _CONV_OPTIONAL),
    "SumPool2d": Kind(linear.pool, _POOL),
    "AvgPool2d": Kind(linear.pool, _POOL),
    "Flatten": Kind(linear.flatten, (), {"start_dim": 1, "end_dim": -1, "input_type": None}),
    "Delay": Kind(delays.delay, ("delay",)),
    "Threshold": Kind(neurons.threshold, ("threshold",)),
    "I": Kind(neurons.integrator, ("r",), stateful=True),
    "IF": Kind(neurons.integrate_and_fire, ("r", "v_threshold"), _RESET, stateful=True),
    "LI": Kind(neurons.leaky_integrator, ("tau", "r", "v_leak"), stateful=True),
    "LIF": Kind(neurons.leaky, ("tau", "r", "v_leak", "v_threshold"), _RESET, stateful=True),
    "CubaLI": Kind(neurons.current_based_integrator, _CUBA, {"w_in": 1.0}, stateful=True),
    "CubaLIF": Kind(neurons.current_based, (*_CUBA, "v_threshold"), {"w_in": 1.0, **_RESET}, stateful=True),
}
"""Type -> how it is imported. Input and Output are read by the reader itself, nested NIRGraphs are made flat before."""


def faults(unit: Unit, where: str) -> Iterator[Problem]:
    """Unknown type, missing and unknown parameters."""
    if unit.kind in ("Input", "Output"):
        return
    if unit.kind not in KINDS:
        hint = f"known are Input, Output, NIRGraph, {', '.join(sorted(KINDS.keys() - {IDENTITY}))}"
        yield Problem("is no type of NIR node that can be imported", where, unit.kind, hint=hint)
        return
    kind = KINDS[unit.kind]
    for name in kind.required:
        if name not in unit.values:
            yield Problem("is missing", where, unit.kind, name)
    for name in sorted(unit.values.keys() - {*kind.required, *kind.optional}):
        yield Problem("is no parameter of this type", where, unit.kind, name)


def complete(unit: Unit) -> None:
    """Fill in the parameters that a file may leave out."""
    optional = KINDS[unit.kind].optional if unit.kind in KINDS else {}
    absent = {name: value for name, value in optional.items() if value is not None and name not in unit.values}
    unit.values.update(absent)
    unit.defaults = frozenset(absent)


def keeps_state(unit: Unit) -> bool:
    """Whether what a unit gives depends on the past; an Input counts as well."""
    return unit.kind == "Input" or (unit.kind in KINDS and KINDS[unit.kind].stateful)


def shape_in(unit: Unit) -> tuple[int, ...] | None:
    """The shape that a unit takes, where its parameters say so."""
    weight = np.shape(unit.values.get("weight", ()))
    if unit.kind in ("Affine", "Linear") and len(weight) >= 2:
        return (*weight[:-2], weight[-1])
    return shape_out(unit)


def shape_out(unit: Unit) -> tuple[int, ...] | None:
    """The shape that a unit gives, where its parameters say so."""
    if unit.kind in ("Affine", "Linear"):
        return np.shape(unit.values["weight"])[:-1] or None
    for name in ("v_threshold", "r", "scale", "threshold", "delay"):
        if np.ndim(unit.values.get(name, 0.0)):
            return stripped(np.shape(unit.values[name]))
    return None
