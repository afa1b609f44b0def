"""The whole-number form of a neuron: charges divided by a scale and rounded, ratios rounded to binary places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, log2

import torch

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.fixed import CHARGE, charge_constants, has_ratios, roles, rounded
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.passes._scales import Scale, aligned, refuse

FINEST = 15
"""Binary places of a ratio, at most."""
LEAST = {False: 2**6, True: 2**11}
"""What a threshold is at least in whole numbers: without ratios, and with, where the leak of small charges rounds."""
MOST = 2.0**30
"""Stands for an infinite charge."""


@dataclass(frozen=True)
class WholeNeuron:
    """A neuron with fraction and guard, and its parameters as tensors, of which ``charges`` are whole numbers."""

    neuron: Neuron
    settings: Mapping[str, torch.Tensor]
    charges: frozenset[str]


def whole_neuron(graph: Graph, node: Node, scale: Scale, fraction: int | None) -> WholeNeuron:
    """The neuron of ``node`` fed by whole numbers of that scale.

    Raises:
        LdsnnError: its program has no whole-number form.
    """
    try:
        neuron = undivided(graph, node["neuron"])
        if constants := charge_constants(neuron.program):
            raise LdsnnError(f"its program compares or adds the number {constants[0]!r}, which has no scale")
        return _scaled(graph, node, neuron, scale, fraction)
    except LdsnnError as error:
        if error.problems[0].where:
            raise
        raise refuse(node, str(error), attribute=node["neuron"].template) from None


def undivided(graph: Graph, neuron: Neuron) -> Neuron:
    """The same neuron, its division by a time constant written as a product."""
    if neuron.template != "lif" or neuron.options["form"] != "tau":
        return neuron
    tau = neuron.params["tau"]
    if isinstance(tau, TensorRef):
        return neuron.with_(None, form="rate", k=graph.tensor(f"{tau.name}.rate", 1.0 / graph.tensors[tau.name]))
    return neuron.with_(None, form="rate", k=1.0 / tau)


def _scaled(graph: Graph, node: Node, neuron: Neuron, scale: Scale, fraction: int | None) -> WholeNeuron:
    kinds, given = roles(neuron.program), _numbers(graph, neuron)
    with_ratios = has_ratios(neuron.program)
    places = 0 if not with_ratios else fraction or FINEST
    charges = {k: aligned(given[k], 1.0 / scale, node.type.shape) for k, kind in kinds.items() if kind == CHARGE}
    guard = _guard(charges, with_ratios)
    plain = neuron.with_(None, spike_value=1.0) if "spike_value" in neuron.family.params else neuron
    made = replace(plain, fraction=places, guard=guard)
    made.program  # noqa: B018  (refuses what has no whole-number form)
    settings = {k: _whole(k, v * 2**guard) for k, v in charges.items()}
    for name, kind in kinds.items():
        if kind != CHARGE:
            settings[name] = given[name].apply_(lambda v: rounded(v, places))
    return WholeNeuron(made, settings, frozenset(charges))


def _numbers(graph: Graph, neuron: Neuron) -> dict[str, torch.Tensor]:
    return {
        name: graph.tensors[value.name].double().clone()
        if isinstance(value, TensorRef)
        else torch.tensor(value, dtype=torch.float64)
        for name, value in neuron.params.items()
    }


def _whole(name: str, value: torch.Tensor) -> torch.Tensor:
    """Rounded; a threshold is at least 1, an infinite charge as good as infinite."""
    if bool((value[value.isfinite()].abs() > MOST).any()):
        raise LdsnnError(f"its {name} is {float(value.abs().max()):.3g} in units of its current, too much for int32")
    value = value.round().clamp(-MOST, MOST)
    if name == "threshold":
        value = torch.where((value == 0), torch.ones_like(value), value)
    return value[(0,) * value.ndim] if value.ndim and bool((value == value.flatten()[0]).all()) else value


def _guard(charges: Mapping[str, torch.Tensor], with_ratios: bool) -> int:
    """Bits below the current's unit, so that thresholds keep their precision; none where nothing is rounded."""
    if not with_ratios and all(_is_whole(v) for v in charges.values()):
        return 0
    sizes = [charges[name].abs() for name in ("threshold", "reset_charge") if name in charges]
    found = [float(v[v > 0].min()) for v in sizes if bool((v > 0).any())]
    if not found or min(found) >= LEAST[with_ratios]:
        return 0
    return min(12, ceil(log2(LEAST[with_ratios] / min(found))))


def _is_whole(value: torch.Tensor) -> bool:
    return bool(((value - value.round()).abs() <= 1e-9 * value.abs()).all())
