"""The last layer fitted to the scores of the original network: least squares, no labels.

What is left of a scheduled network's errors after its layers were changed one by one arrives at the linear layer that
gives the class scores. Its inputs are means over time, so its weights and biases that bring the scores nearest to the
original's on given samples have a closed form, ridge regression towards the weights as they are (Hoerl and Kennard
1970). How strong the pull is, or whether it is better to change nothing, is decided by cross-validation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ldsnn_compiler.frontend.bias import add_bias
from ldsnn_compiler.ir.graph import Graph, Node

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the pull that are tried, in mean squared deviations of an input."""
FOLDS = 4
KEEPS_MEANS = {"resample": ("mean", "repeat"), "readout": ("mean",)}
"""Ops behind the layer that its mean over time passes unchanged, with their modes."""


def scoring(graph: Graph) -> Node | None:
    """The linear layer whose mean over time is what the first output says, and which says nothing else; or None."""
    user = graph.outputs[0]
    node = user.operands[0].node
    while [u for u, _ in graph.uses(node.result)] == [user]:
        if node.op.name == "linear":
            return node if len(node.operands[0].type.shape) == 1 else None
        if node.op.name not in KEEPS_MEANS or node["mode"] not in KEEPS_MEANS[node.op.name]:
            return None
        node, user = node.operands[0].node, node
    return None


def fit_scores(graph: Graph, layer: Node, features: Tensor, wanted: Tensor) -> bool:
    """Change weights and biases of ``layer``, in place, so that scores come nearer to those wanted.

    Args:
        features: its input ``[N, F]``, means over time.
        wanted: scores ``[N, C]``.

    Returns:
        Whether there was anything to gain.
    """
    call = graph.call(layer)
    weight, bias = call.tensor("weight"), call.tensor("bias")
    assert weight is not None
    missing = wanted - features @ weight.T - (0.0 if bias is None else bias)
    penalty = _penalty(features.double(), missing.double())
    if penalty is None:
        return False
    change, shift = _ridge(features.double(), missing.double(), penalty)
    graph.set_attrs(layer, weight=graph.tensor(layer["weight"].name, weight + change.T.to(weight)))
    add_bias(graph, layer, shift.to(weight))
    return True


def _penalty(features: Tensor, missing: Tensor) -> float | None:
    """The strength that leaves least on samples held out in turn; None if that is no less than without a change."""
    if len(features) < 2 * FOLDS:
        return None
    left = {penalty: _left(features, missing, penalty) for penalty in PENALTIES}
    best = min(left, key=left.__getitem__)
    return best if left[best] < float(missing.square().sum()) else None


def _left(features: Tensor, missing: Tensor, penalty: float) -> float:
    total, fold = 0.0, torch.arange(len(features)) % FOLDS
    for i in range(FOLDS):
        change, shift = _ridge(features[fold != i], missing[fold != i], penalty)
        total += float((missing[fold == i] - features[fold == i] @ change - shift).square().sum())
    return total


def _ridge(features: Tensor, missing: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """``change [F, C]`` and ``shift [C]`` of least ``|missing - features change - shift|^2 + penalty d |change|^2``, d
    the mean over inputs of their summed squared deviations."""
    mean, middle = features.mean(0), missing.mean(0)
    centred = features - mean
    squares = centred.T @ centred
    pull = penalty * squares.diagonal().mean().clamp(min=1e-30)
    change = torch.linalg.solve(squares + pull * torch.eye(len(squares)).to(squares), centred.T @ (missing - middle))
    return change, middle - mean @ change
