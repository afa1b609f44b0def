"""Neurons of a graph as NIR nodes: the inverse of :mod:`~ldsnn_compiler.frontend.nir.neurons`.

A NIR neuron starts at 0, fires on strict ``>`` and is set to v_reset. So one that starts elsewhere is written relative
to where it starts, and one that fires on ``>=`` with the next smaller float32 as threshold: the spikes are the same,
bit for bit. A soft reset has no form in NIR: it goes into the metadata, with a note, since other readers will miss it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ldsnn_compiler.errors import ImportRefused, Problem
from ldsnn_compiler.frontend.nir.discretise import Array, Step
from ldsnn_compiler.frontend.nir.metadata import entries
from ldsnn_compiler.frontend.nir.neurons import held_input
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.ir.ops.arithmetic import per_channel

_AGREES = 1e-4
"""How far gain and feed of a current may be, relative, from those of one differential equation: both are float32."""


@dataclass
class Written:
    """A neuron as a NIR node: its type, parameters and metadata; ``value`` of its spikes, notes."""

    kind: str
    values: dict[str, Array]
    metadata: dict[str, Any] = field(default_factory=dict)
    value: Array | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Charged:
    """How a membrane charges in NIR's terms: ``v_leak`` None for a membrane that does not leak."""

    kind: str
    values: dict[str, Array]
    v_leak: Array | None = None


class Source:
    """A neuron node's parameters as float64 arrays of its shape. ``gain`` is what its input is multiplied by before."""

    def __init__(self, graph: Graph, node: Node, step: Step, gain: Array) -> None:
        self.graph, self.node, self.step, self.gain = graph, node, step, gain
        self.neuron: Neuron = node["neuron"]
        self.shape = node.type.shape

    def __getitem__(self, name: str) -> Array:
        value = self.neuron.params[name]
        if isinstance(value, TensorRef):
            tensor = per_channel(self.graph.tensors[value.name], len(self.shape))
            return tensor.broadcast_to(self.shape).to(torch.float64).numpy()
        return np.full(self.shape, float(np.float32(value)))

    def get(self, name: str, default: float) -> Array:
        """A parameter, or the default if the program does not read it."""
        return self[name] if name in self.neuron.params else np.full(self.shape, default)

    def refuse(self, message: str, hint: str = "") -> ImportRefused:
        """The error for a neuron that NIR cannot express; raise it."""
        return ImportRefused(Problem(message, self.node.path or self.node.name, self.neuron.template, hint=hint))


def written(source: Source) -> Written:
    """The neuron as a NIR node.

    Raises:
        ImportRefused: with what NIR has no form for.
    """
    options, template = source.neuron.options, source.neuron.template
    if template not in _CHARGES:
        raise source.refuse("has no form in NIR", f"known are {', '.join(sorted(_CHARGES))}")
    if source.neuron.substeps != 1 or options.get("max_count", 1) != 1:
        raise source.refuse("emits counts, NIR's neurons single spikes", "export the network before it is scheduled")
    if options.get("floor", False) is not False:
        raise source.refuse("its membrane has a floor, NIR has none")
    charged = _CHARGES[template](source)
    return _spiking(source, charged) if source.neuron.family.spiking else _integrating(source, charged)


def _integrating(source: Source, charged: Charged) -> Written:
    if source.get("v_init", 0.0).any():
        raise source.refuse("starts at another membrane than 0 and emits it")
    leak = {} if charged.v_leak is None else {"v_leak": charged.v_leak}
    return Written(charged.kind, {**charged.values, **leak})


def _spiking(source: Source, charged: Charged) -> Written:
    options, start = source.neuron.options, source.get("v_init", 0.0)
    late = options.get("reset_time", "now")
    if late == "next_after_charge" or (late != "now" and options["reset"] == "soft"):
        raise source.refuse("its reset comes a step late, in NIR at once", "snnTorch: reset_delay=False")
    if options.get("own_reset_charge", False) is not False or options["reset"] == "offset":
        raise source.refuse("its reset subtracts something else than the threshold")
    value = source.get("spike_value", 1.0)
    result = Written(charged.kind, dict(charged.values), value=None if (value == 1.0).all() else value)
    threshold, strict = source["threshold"], options["compare"] == "gt"
    if options["reset"] == "hard":
        threshold = threshold - start
        result.values["v_threshold"] = threshold if strict else _below(threshold)
        result.values["v_reset"] = source["v_reset"] - start
        leak = start
    else:
        result.values |= {"v_threshold": threshold, "v_reset": np.zeros(source.shape)}
        compare, begin = (None if strict else "ge"), (start if start.any() else None)
        result.metadata = entries(reset=options["reset"], compare=compare, v_init=begin)
        result.notes.append(f"has a reset by {options['reset']}: in the metadata, other readers will set it to 0")
        leak = np.zeros(source.shape)
    if charged.v_leak is not None:
        result.values["v_leak"] = charged.v_leak - leak
    return result


def _below(threshold: Array) -> Array:
    """The next smaller float32: h >= threshold is h > that."""
    return np.nextafter(threshold.astype(np.float32), np.float32(-np.inf)).astype(np.float64)


# ---- templates


def _leaks(source: Source, beta: Array, gain: Array, v_leak: Array, kind: str = "LIF") -> Charged:
    """``v = beta v + gain x + (1 - beta) v_leak`` as (leaky) integration, IF and I where nothing leaks."""
    if (beta == 1.0).all():
        return Charged({"LIF": "IF", "LI": "I"}[kind], {"r": gain / source.step.dt})
    return Charged(kind, {"tau": _tau(source, beta), "r": gain / (1.0 - beta)}, v_leak)


def _tau(source: Source, decay: Array) -> Array:
    if (decay == 1.0).any() or (source.step.method == "zoh" and (decay <= 0.0).any()):
        raise source.refuse(f"decays by {decay.min():g} to {decay.max():g} a timestep: no time constant does that")
    return source.step.time_constant(decay)


def _if(source: Source) -> Charged:
    return _leaks(source, np.ones(source.shape), source.gain, np.zeros(source.shape))


def _leaky(source: Source) -> Charged:
    return _leaks(source, source["beta"], source.gain, np.zeros(source.shape))


def _lif(source: Source) -> Charged:
    form = source.neuron.options["form"]
    beta = source["decay"] if form == "fused" else 1.0 - (source["k"] if form == "rate" else 1.0 / source["tau"])
    divided = source.neuron.options["decay_input"] and form != "fused"
    return _leaks(source, beta, source.gain * (1.0 - beta if divided else 1.0), source.get("v_rest", 0.0))


def _lif_gain(source: Source) -> Charged:
    if source.neuron.options["synapse"]:
        raise source.refuse("its current decays together with the input of the step, in NIR's it is added after")
    return _leaks(source, source["beta"], source.gain * source["gain"], np.zeros(source.shape))


def _li(source: Source) -> Charged:
    beta, drive = source["beta"], source.get("drive", 0.0)
    leak = np.divide(drive, 1.0 - beta, out=np.zeros(source.shape), where=beta != 1.0)
    return _leaks(source, beta, source.gain * source.get("gain", 1.0), leak, "LI")


def _cuba_lif(source: Source) -> Charged:
    alpha, beta = source["alpha"], source["beta"]
    if source.step.method != "euler":
        raise source.refuse("steps its current first, as euler does", "export with --discretise euler")
    values = {"tau_syn": _tau(source, alpha), "tau_mem": _tau(source, beta)}
    return _cuba(source, "CubaLIF", {**values, "r": 1.0 / (1.0 - beta), "w_in": source.gain / (1.0 - alpha)})


def _cuba_lif_exact(source: Source) -> Charged:
    return _cuba(source, "CubaLIF", _exact(source))


def _cuba_li(source: Source) -> Charged:
    charged = _cuba(source, "CubaLI", _exact(source))
    charged.v_leak = source.get("drive", 0.0) / (1.0 - source["beta"])
    return charged


def _cuba(source: Source, kind: str, values: dict[str, Array]) -> Charged:
    if source.get("i_init", 0.0).any():
        raise source.refuse("starts with another current than 0")
    return Charged(kind, values, np.zeros(source.shape))


def _exact(source: Source) -> dict[str, Array]:
    """The time constants and the one weight that give this gain and this feed."""
    alpha, beta, gain, feed = (source[name] for name in ("alpha", "beta", "gain", "feed"))
    values = {"tau_syn": _tau(source, alpha), "tau_mem": _tau(source, beta)}
    unit = {**values, "r": np.ones(source.shape), "w_in": np.ones(source.shape)}
    unit_gain, unit_feed = held_input(source.step, unit, alpha, beta)
    weight = (gain + feed) / (unit_gain + unit_feed)
    for found, expected in ((gain, weight * unit_gain), (feed, weight * unit_feed)):
        if (np.abs(found - expected) > _AGREES * np.abs(weight) * (unit_gain + unit_feed)).any():
            raise source.refuse(f"its gain and feed are not those of one current by {source.step.method}")
    return {**values, "r": weight, "w_in": source.gain}


_CHARGES: Mapping[str, Callable[[Source], Charged]] = {
    "if": _if,
    "leaky": _leaky,
    "lif": _lif,
    "lif_gain": _lif_gain,
    "li": _li,
    "cuba_lif": _cuba_lif,
    "cuba_lif_exact": _cuba_lif_exact,
    "cuba_li": _cuba_li,
}
