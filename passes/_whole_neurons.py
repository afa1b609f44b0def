"""The whole-number form of a neuron: charges divided by a scale and rounded, ratios rounded to binary places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil, floor, log2

import torch

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.bounds import INT32, Bounds
from ldsnn_compiler.ir.fixed import CHARGE, RATIO, charge_constants, has_ratios, roles
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.passes._scales import Scale, aligned, refuse

FINEST, MOST_PLACES, LEAST_PLACES = 15, 23, 6
"""Binary places of a ratio: as a rule, where a slow decay needs more, and where products are to fit int32."""
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
    ratios = {k: given[k] for k, kind in kinds.items() if kind != CHARGE}
    places = 0 if not with_ratios else fraction or max(FINEST, least_places(ratios.values()))
    charges = {k: aligned(given[k], 1.0 / scale, node.type.shape) for k, kind in kinds.items() if kind == CHARGE}
    guard = _guard(charges, with_ratios)
    plain = neuron.with_(None, spike_value=1.0) if "spike_value" in neuron.family.params else neuron
    made = replace(plain, fraction=places, guard=guard)
    made.program  # noqa: B018  (refuses what has no whole-number form)
    settings = {k: _whole(k, v * 2**guard) for k, v in charges.items()}
    settings |= {k: torch.floor(v * 2.0**places + 0.5) / 2.0**places for k, v in ratios.items()}
    return WholeNeuron(made, settings, frozenset(charges))


def least_places(ratios: Iterable[torch.Tensor]) -> int:
    """Binary places that ratios need: each, and its distance to 1, which is what leaks, to within one in 32."""
    sizes = [d.abs() for r in ratios for d in (r.double(), 1.0 - r.double())]
    smallest = min((float(d[d > 0].min()) for d in sizes if bool((d > 0).any())), default=1.0)
    return min(MOST_PLACES, max(LEAST_PLACES, 4 - floor(log2(smallest))))


def fewer_places(graph: Graph, known: Bounds) -> dict[str, int]:
    """Fractions of the neurons of a whole-number graph whose products need more than int32, as far as fewer do."""
    found: dict[str, int] = {}
    for node in graph.of("neuron"):
        neuron: Neuron = node["neuron"]
        excess = log2(max(1.0, known.neuron(node).product) / INT32) if neuron.fraction else 0.0
        if excess <= 0:
            continue
        kinds = roles(replace(neuron, fraction=None, guard=0).program)
        ratios = [v for k, v in _numbers(graph, neuron).items() if kinds.get(k) == RATIO]
        fewer = (neuron.fraction or 0) - floor(excess) - 1
        if fewer >= least_places(ratios):
            found[node.name] = fewer
    return found


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
