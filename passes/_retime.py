"""Retiming neurons whose parameters are tensors: value by value through the template's own rule for numbers."""

from __future__ import annotations

from fractions import Fraction

import torch

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.ir.ops.arithmetic import per_channel
from ldsnn_compiler.schedule import LayerSchedule


def retimed(graph: Graph, node: Node, r: Fraction, layer: LayerSchedule) -> Neuron:
    """``node``'s neuron covering r of its steps in one, as ``layer`` says; new parameter tensors go to the graph.

    Raises LdsnnError where the template has no such retiming.
    """
    neuron: Neuron = node["neuron"]
    tensors = {k: graph.tensors[v.name] for k, v in neuron.params.items() if isinstance(v, TensorRef)}
    how = layer.levels, layer.method, layer.range
    if not tensors or layer.method == "micro" or (r == 1 and layer.levels == 1):
        return neuron.retime(r, *how)
    rows, back, shape = _distinct(tensors, node.type.shape)
    single = [neuron.with_(None, **dict(zip(tensors, row, strict=True))) for row in rows.tolist()]
    each = [n.retime(r, *how) for n in single]
    if len({(n.template, tuple(n.options.items()), n.substeps) for n in each}) > 1:
        raise LdsnnError(f"{layer.method} retiming gives neurons of different kinds within the layer; use micro")
    return each[0].with_(None, **_gathered(graph, node, each, back, shape))


def _distinct(
    tensors: dict[str, torch.Tensor], shape: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Size]:
    """Distinct combinations of parameter values, where each belongs, and the shape they have together."""
    if any(t.ndim > 1 for t in tensors.values()):
        values = [per_channel(t, len(shape)).expand(shape) for t in tensors.values()]
    else:
        values = list(tensors.values())
    rows, back = torch.unique(torch.stack([v.reshape(-1) for v in values], 1), dim=0, return_inverse=True)
    return rows, back, values[0].shape


def _gathered(
    graph: Graph, node: Node, each: list[Neuron], back: torch.Tensor, shape: torch.Size
) -> dict[str, float | TensorRef]:
    """Each parameter as a number where all agree, else as a tensor."""
    found: dict[str, float | TensorRef] = {}
    for name in each[0].params:
        numbers = torch.tensor([float(n.params[name]) for n in each])  # type: ignore[arg-type]
        if bool((numbers == numbers[0]).all()):
            found[name] = each[0].params[name]
        else:
            found[name] = graph.tensor(f"{node.path or node.name}.{name}", numbers[back].reshape(shape))
    return found
