"""The table of NIR node types that can be imported: parameters, their defaults, and the importer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ldsnn_compiler.frontend.nir import linear, neurons
from ldsnn_compiler.frontend.nir.builder import Builder
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
_POOL = ("kernel_size", "stride", "padding")

KINDS: Mapping[str, Kind] = {
    IDENTITY: Kind(lambda b, unit, x: x, (), {"shape": None}),
    "Affine": Kind(linear.affine, ("weight", "bias")),
    "Linear": Kind(linear.affine, ("weight",)),
    "Scale": Kind(linear.scale, ("scale",)),
    "Conv1d": Kind(linear.convolution, _CONV, {"bias": None, "input_shape": None}),
    "Conv2d": Kind(linear.convolution, _CONV, {"bias": None, "input_shape": None}),
    "SumPool2d": Kind(linear.pool, _POOL),
    "AvgPool2d": Kind(linear.pool, _POOL),
    "Flatten": Kind(linear.flatten, ("start_dim", "end_dim"), {"input_type": None}),
    "IF": Kind(neurons.integrate_and_fire, ("r", "v_threshold"), {"v_reset": 0.0}, stateful=True),
    "LIF": Kind(neurons.leaky, ("tau", "r", "v_leak", "v_threshold"), {"v_reset": 0.0}, stateful=True),
}
"""Type -> how it is imported. Input and Output are read by the reader itself."""
