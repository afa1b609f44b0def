"""Fold multiplications by a constant into weights, spike values or thresholds.

Before::

    %c = conv2d(%x) {weight=@w, ...}            %y = scale(%c) {factor=0.5}
    %s = neuron(%h) {neuron=if()}               %z = scale(%s) {factor=2.0}
    %a = scale(%p) {factor=0.25}                %n = neuron(%a) {neuron=if()}

After::

    %c = conv2d(%x) {weight=@w', ...}
    %s = neuron(%h) {neuron=if(spike_value=2.0)}
    %n = neuron(%p) {neuron=if(threshold=4.0)}

The maths: ``f (w x + b) = (f w) x + f b``; ``w (f x) = (w f) x``, zero padding included; spikes are ``n *
spike_value``, and a stream of events carries its unit in its type, so a positive factor on spikes is another spike
value; and a neuron whose membrane is linear in state and input does the same in units of f: threshold, reset charge,
resting, initial and least membrane divided by f. The last is done for powers of two only, where the division is
exact, and where nobody reads the membrane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.passes._grids import settle_delays
from ldsnn_compiler.passes._weights import WEIGHTED, absorb_after, absorb_before, weighted_users
from ldsnn_compiler.passes.canonicalize import power_of_two
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass

_MEMBRANE = ("threshold", "reset_charge", "v_reset", "v_init", "v_min")
#: template -> the parameters measured in units of the input; h is linear in state, input and these
CHARGES: Mapping[str, tuple[str, ...]] = {
    "if": _MEMBRANE,
    "leaky": _MEMBRANE,
    "lif": (*_MEMBRANE, "v_rest"),
    "cuba_lif": (*_MEMBRANE, "i_init"),
    "alif": (*_MEMBRANE, "adapt_gain"),
}


@register_pass
@dataclass(frozen=True)
class FoldScale(Pass):
    """Constant factors into the weights around them, into a neuron's spike value, or into its thresholds."""

    name: ClassVar[str] = "fold-scale"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph) -> bool:
        changed = False
        for node in graph.of("scale"):
            if node.type.dtype != "float32":  # weights of whole numbers have their scale
                continue
            with graph.edit():
                fired = any(rule(graph, node) for rule in (_into_source, _into_users, _into_spikes, _into_thresholds))
                if fired:
                    graph.remove(node)
                    settle_delays(graph)
            changed |= fired
        return changed


def _factor(graph: Graph, node: Node) -> torch.Tensor:
    """The factor, one number or one per channel (or element)."""
    return torch.tensor(node["factor"]) if node["by"] is None else graph.tensors[node["by"].name]


def _into_source(graph: Graph, node: Node) -> bool:
    """The conv or linear before it, if it alone reads that."""
    source, factor = node.operands[0].node, _factor(graph, node)
    if source.op.name not in WEIGHTED or len(graph.uses(source.result)) != 1:
        return False
    if factor.ndim > 1 or (factor.ndim == 1 and source.op.name == "linear" and len(source.type.shape) != 1):
        return False
    absorb_after(graph, source, factor)
    return True


def _into_users(graph: Graph, node: Node) -> bool:
    """The convs and linears that read it."""
    users, factor = weighted_users(graph, node.result), _factor(graph, node)
    if users is None or factor.ndim > 1:
        return False
    for user, times in users:
        absorb_before(graph, user, factor.repeat_interleave(times) if factor.ndim else factor)
    return True


def _into_spikes(graph: Graph, node: Node) -> bool:
    """The value of one spike of the neuron before it, if it alone reads that."""
    value = node.operands[0]
    source, factor = value.node, node["factor"]
    if source.op.name != "neuron" or value.index != 0 or node["by"] is not None or factor <= 0:
        return False
    neuron: Neuron = source["neuron"]
    unit = neuron.params.get("spike_value")
    if not isinstance(unit, float) or not neuron.signal.is_event or len(graph.uses(value)) != 1:
        return False
    graph.set_attrs(source, neuron=neuron.with_(spike_value=unit * factor))
    return True


def _into_thresholds(graph: Graph, node: Node) -> bool:
    """The units of the neuron that alone reads it."""
    users = graph.uses(node.result)
    if len(users) != 1 or node["by"] is not None or not power_of_two(node["factor"]):
        return False
    user = users[0][0]
    if user.op.name != "neuron" or len(user.operands) > 1 or user["neuron"].template not in CHARGES:
        return False
    if user["membrane"] and graph.uses(user.results[1]):
        return False
    neuron: Neuron = user["neuron"]
    charges = [name for name in CHARGES[neuron.template] if name in neuron.params]
    graph.set_attrs(user, neuron=neuron.with_(None, **_divided(graph, neuron, charges, node["factor"])))
    return True


def _divided(graph: Graph, neuron: Neuron, names: list[str], factor: float) -> dict[str, float | TensorRef]:
    found: dict[str, float | TensorRef] = {}
    for name in names:
        value = neuron.params[name]
        if isinstance(value, TensorRef):
            found[name] = graph.tensor(value.name, graph.tensors[value.name] / factor)
        else:
            found[name] = value / factor
    return found
