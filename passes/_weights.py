"""Affine changes of a stream, taken up by the weights of the linear op before or after it.

For an op with weights w and bias b, y = w x + b:

``absorb_after``    s y + t      = (s w) x + (s b + t)             s, t per output channel
``absorb_before``   w (s x + t)  = (w s) x + (b + sum_i w_i t_i)   s, t per input channel

Products are taken in float64 and rounded once.
"""

from __future__ import annotations

import torch

from ldsnn_compiler.ir.graph import Graph, Node, Value, tensor_refs
from ldsnn_compiler.ir.neuron import TensorRef

CONVS = ("conv1d", "conv2d")
WEIGHTED = (*CONVS, "linear")


def absorb_after(graph: Graph, node: Node, scale: torch.Tensor, shift: torch.Tensor | None = None) -> None:
    """Let ``node`` give ``scale * y + shift``; both are ``[out]`` (or scale a single number)."""
    weight = graph.tensors[node["weight"].name].double()
    scale = scale.double().expand(weight.shape[0])
    bias = _bias(graph, node)
    total = torch.zeros_like(scale) if bias is None else bias * scale
    total = total if shift is None else total + shift
    store(graph, node, "weight", weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
    if bias is not None or shift is not None:
        store(graph, node, "bias", total)


def absorb_before(graph: Graph, node: Node, scale: torch.Tensor, shift: torch.Tensor | None = None) -> None:
    """Let ``node`` take x where it took ``scale * x + shift``; both are ``[in]`` (or scale a single number)."""
    weight = graph.tensors[node["weight"].name].double()
    groups = node["groups"] if node.op.name in CONVS else 1
    inputs = weight.shape[1] * groups
    shares = per_weight(scale.double().expand(inputs), weight, groups)
    if shift is not None and bool((shift != 0).any()):
        added = (weight * per_weight(shift.double(), weight, groups)).flatten(1).sum(1)
        bias = _bias(graph, node)
        store(graph, node, "bias", added if bias is None else bias + added)
    store(graph, node, "weight", weight * shares)


def store(graph: Graph, node: Node, attr: str, value: torch.Tensor) -> None:
    """Give ``node`` a tensor in place of its present one, under the same name where no other node refers to that."""
    value, old = value.to(torch.float32), node[attr]
    name = old.name if old is not None else _bias_name(node)
    others = {ref.name for other in graph.nodes if other is not node for ref in tensor_refs(other)}
    if old is not None and name not in others:
        del graph.tensors[name]
    graph.set_attrs(node, **{attr: graph.tensor(name, value)})


def weighted_users(graph: Graph, value: Value) -> list[tuple[Node, int]] | None:
    """Every conv or linear that reads ``value``, perhaps flattened, and how many inputs there one channel became.

    None if anything else reads it.
    """
    found: list[tuple[Node, int]] = []
    for user, _ in graph.uses(value):
        if user.op.name == "flatten":
            below = weighted_users(graph, user.result)
            if below is None or any(u.op.name != "linear" for u, _ in below):
                return None
            found += [(u, n * value.type.size // value.type.shape[0]) for u, n in below]
        elif user.op.name in CONVS or (user.op.name == "linear" and len(value.type.shape) == 1):
            found.append((user, 1))
        else:
            return None
    return found or None


def _bias(graph: Graph, node: Node) -> torch.Tensor | None:
    return graph.tensors[node["bias"].name].double() if node["bias"] is not None else None


def _bias_name(node: Node) -> str:
    weight: TensorRef = node["weight"]
    return weight.name.removesuffix("weight") + "bias" if weight.name.endswith("weight") else f"{node.name}.bias"


def per_weight(channels: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
    """``[in]`` laid out over ``[out, in / groups, *kernel]``: output o reads the inputs of its group."""
    per_group = channels.reshape(groups, 1, weight.shape[1])
    rows = per_group.expand(groups, weight.shape[0] // groups, weight.shape[1]).reshape(weight.shape[:2])
    return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
