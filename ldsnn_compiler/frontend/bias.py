"""Bias correction: what spiking neurons lose on average, channel by channel, is given back as a current.

Spikes arrive unevenly: a neuron that the ANN keeps at zero may fire early and cannot take the spike back, another fires
too late. Layer by layer, from the input on, the mean output of each channel over a few samples is compared with the
ANN's, and the difference, divided by the share of neurons that are active, is added to the bias of the layer that feeds
them (after Li et al. 2021, "A free lunch from ANN", light pipeline). No labels and no training are needed.

The correction is measured at one number of timesteps and belongs to it: with a schedule of fewer, graded timesteps,
where spikes are not uneven, it does harm (ResNet-20 corrected at T=64 but run at T=1 with 16 levels: 90.2 % of 1,000
images in place of 91.1 %).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.ops.arithmetic import per_channel

ROUNDS = 3
LEAST_ACTIVE = 0.1
"""A channel of fewer active neurons than this share is corrected as if it had this many."""

FEEDS = ("conv1d", "conv2d", "linear", "batch_norm")
PASSES_ON = ("resample", "add")
"""Ops through which a constant per channel goes unchanged (an add hands on that of its one operand)."""


def correct_bias(graph: Graph, samples: Tensor, wanted: Mapping[str, Tensor]) -> None:
    """Change biases so that neurons reproduce the ANN's mean output.

    Args:
        graph: a converted network without cycles, one static input.
        samples: ``[N, *shape]`` input.
        wanted: the ANN's outputs ``[N, *shape]`` for these samples, by the path of the neuron.
    """
    values: dict[str, Tensor] = {graph.inputs[0].result.name: samples[None]}
    with torch.no_grad():
        for node in graph.nodes:
            if node.op.name == "input":
                continue
            inputs = [values[o.name] for o in node.operands]
            feed = feeding(graph, node) if node.path in wanted else None
            if feed is not None:
                shift = correction(graph, node, inputs[0], wanted[node.path])
                add_bias(graph, feed, shift)
                inputs = [inputs[0] + broadcast(shift, inputs[0])]
            values[node.result.name] = evaluate(graph, node, inputs)
            forget(graph, node, values)


def feeding(graph: Graph, neuron: Node) -> Node | None:
    """The layer whose bias reaches this neuron and nothing else, or None."""
    node, user = neuron.operands[0].node, neuron
    while all(u is user for u, _ in graph.uses(node.result)):
        if node.op.name in FEEDS:
            return node
        if node.op.name not in PASSES_ON:
            return None
        if node.op.name == "add":
            own = [o for o in node.operands if all(u is node for u, _ in graph.uses(o))]
            found = [o.node for o in own if o.node.op.name in (*FEEDS, "resample")]
            if not found:
                return None
            node, user = found[0], node
        else:
            node, user = node.operands[0].node, node
    return None


def correction(graph: Graph, node: Node, current: Tensor, wanted: Tensor, gain: float = 1.0) -> Tensor:
    """The current per channel that brings the mean output nearest to ``wanted [N, *shape]``; each round sees what the
    last one left. ``gain`` is what an active neuron's mean output rises by per current.

    Few timesteps answer in jumps, so a round may go too far: each channel keeps the best it has had, nothing at first.
    """
    rest = [0, *range(2, wanted.ndim)]
    shift = best = torch.zeros(wanted.shape[1])
    least = torch.full_like(shift, torch.inf)
    for _ in range(ROUNDS + 1):
        output = evaluate(graph, node, [current + broadcast(shift, current)]).mean(0)
        missing = (wanted - output).mean(rest)
        best = torch.where(missing.abs() < least, shift, best)
        least = torch.minimum(missing.abs(), least)
        shift = shift + missing / (gain * (output > 0).float().mean(rest).clamp(min=LEAST_ACTIVE))
    return best


def broadcast(shift: Tensor, data: Tensor) -> Tensor:
    """``[C]`` against ``[T, N, C, ...]``."""
    return per_channel(shift, data.ndim - 2)


def evaluate(graph: Graph, node: Node, inputs: list[Tensor], **changed: Any) -> Tensor:
    """A node's first result ``[T, N, *shape]`` for a whole run from the initial state, with some attributes changed."""
    batch = inputs[0].shape[1] if inputs else 1
    call = graph.call(node, steps=node.type.timesteps, batch=batch)
    return node.op.evaluate(replace(call, attrs={**call.attrs, **changed}), *inputs)[0]


def add_bias(graph: Graph, feed: Node, shift: Tensor) -> None:
    """Add a current per channel to the bias of a layer, which may have none so far."""
    old = graph.call(feed).tensor("bias")
    name = feed["bias"].name if feed["bias"] is not None else f"{feed.path}.bias"
    graph.set_attrs(feed, bias=graph.tensor(name, shift if old is None else old + shift))


def forget(graph: Graph, node: Node, values: dict[str, Tensor]) -> None:
    """Drop operands whose last user this was."""
    order = {n.name: i for i, n in enumerate(graph.nodes)}
    for operand in node.operands:
        if max(order[u.name] for u, _ in graph.uses(operand)) <= order[node.name]:
            values.pop(operand.name, None)
