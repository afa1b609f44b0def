"""Fold BatchNorm (evaluation mode) into the weights before or after it.

Before::

    %c = conv2d(%x) {weight=@w, bias=@b, ...}
    %n = batch_norm(%c) {mean=@m, var=@v, weight=@g, bias=@t, eps=1e-05}

After::

    %c = conv2d(%x) {weight=@w', bias=@b', ...}

The maths, with ``s = g / sqrt(v + eps)`` and ``u = t - m s`` per channel: behind a conv or linear ``w' = s w``, ``b'
= s b + u``. In front of one (so behind a neuron or a pool) ``w' = w s``, ``b' = b + sum w u``, unless the conv pads
with zeros: a padded position holds 0, not u, so there it folds only where every u is 0. Computed in float64 and
rounded once, so fp32 results move in the last place unless all of it is dyadic. What stays, and why, is in
:func:`refusals` and in the log (INFO).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.passes._weights import CONVS, WEIGHTED, absorb_after, absorb_before, weighted_users
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass

_log = logging.getLogger(__name__)


@register_pass
@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """BatchNorm into the weights of the conv or linear before it, or after it where no zero padding is in between."""

    name: ClassVar[str] = "fold-batchnorm"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph) -> bool:
        changed = False
        for node in graph.of("batch_norm"):
            changed |= _fold(graph, node)
        for problem in refusals(graph):
            _log.info("%s", problem)
        return changed


def refusals(graph: Graph) -> tuple[Problem, ...]:
    """Every BatchNorm that stays, with the reasons."""
    return tuple(
        Problem(f"{behind}; {ahead}", where=node.path or f"%{node.name}", kind="batch_norm")
        for node in graph.of("batch_norm")
        if (behind := _why_not_before(graph, node)) and (ahead := _why_not_after(graph, node))
    )


def affine(graph: Graph, node: Node) -> tuple[torch.Tensor, torch.Tensor]:
    """(s, u) of y = s x + u, float64 ``[channels]``."""
    stored: Mapping[str, torch.Tensor | None] = {
        key: graph.tensors[node[key].name].double() if node[key] is not None else None
        for key in ("mean", "var", "weight", "bias")
    }
    mean, var = stored["mean"], stored["var"]
    assert mean is not None and var is not None  # required attributes
    scale = torch.rsqrt(var + node["eps"]) * (1.0 if stored["weight"] is None else stored["weight"])
    return scale, (0.0 if stored["bias"] is None else stored["bias"]) - mean * scale


def _fold(graph: Graph, node: Node) -> bool:
    if not _why_not_before(graph, node):
        absorb_after(graph, node.operands[0].node, *affine(graph, node))
        graph.remove(node)
        return True
    if not _why_not_after(graph, node):
        scale, shift = affine(graph, node)
        for user, times in weighted_users(graph, node.result) or ():
            absorb_before(graph, user, scale.repeat_interleave(times), shift.repeat_interleave(times))
        graph.remove(node)
        return True
    return False


def _why_not_before(graph: Graph, node: Node) -> str:
    """Why the op before cannot take it up, or ""."""
    source = node.operands[0].node
    if source.op.name not in WEIGHTED:
        return f"the {source.op.name} before it has no weights"
    if source.op.name == "linear" and len(source.type.shape) != 1:
        return "its channels are not the features of the linear layer before it"
    if len(graph.uses(source.result)) != 1:
        return f"%{source.name} before it has other users"
    return ""


def _why_not_after(graph: Graph, node: Node) -> str:
    """Why what reads it cannot take it up, or ""."""
    users = weighted_users(graph, node.result)
    if users is None:
        return "something other than a conv or linear layer reads it"
    padded = [u.name for u, _ in users if u.op.name in CONVS and any(u["padding"])]
    if padded and bool((affine(graph, node)[1] != 0).any()):
        return f"%{', %'.join(padded)} pads with zeros, which are not what its shift would be there"
    return ""
