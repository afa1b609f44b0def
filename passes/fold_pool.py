"""Fold a sum or average over space into the convolution before it.

Before::

    %c = conv2d(%x) {weight=@w, stride=[1, 1], ...}          w: 5 x 5
    %p = avg_pool(%c) {kernel=[2, 2], stride=[2, 2], ...}

After::

    %c = conv2d(%x) {weight=@w', stride=[2, 2], ...}         w': 6 x 6

The maths: a window of p outputs of a convolution of k taps and stride s sees

    sum_a sum_k w[k] x[(i q + a) s + k - pad] = sum_m w'[m] x[i q s + m - pad],    w'[a s + k] += w[k]

with a below p and the pool's stride q: a convolution of stride ``q s`` with ``(p - 1) s + k`` taps, as many outputs,
and as much padding. An average divides by the window, so does w'; a sum adds the bias once per addend. Computed in
float64 and rounded once, so fp32 results move in the last place unless all of it is dyadic.

It is done where fewer multiplications are left, 36 for 100 above, and weights do not grow out of proportion, which
leaves dilated convolutions out. Pools that pad stay, and those of spikes: nothing is multiplied before them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import ClassVar

import torch

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.passes._weights import CONVS, store
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass

Axes = tuple[int, ...]
SUMMING = ("avg_pool", "sum_pool", "adaptive_avg_pool")
#: a kernel may grow to so many times its taps
MOST_GROWTH = 4


@register_pass
@dataclass(frozen=True)
class FoldPool(Pass):
    """Sums and averages of currents into the weights of the convolution that makes them."""

    name: ClassVar[str] = "fold-pool"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph) -> bool:
        return any([_fold(graph, node) for node in graph.of(*SUMMING)])


def _fold(graph: Graph, pool: Node) -> bool:
    conv, window = pool.operands[0].node, _window(pool)
    if conv.op.name not in CONVS or len(graph.uses(conv.result)) != 1 or window is None:
        return False
    weight, (kernel, stride) = graph.tensors[conv["weight"].name], window
    wider = _wider(weight.double(), kernel, conv["stride"])
    is_dilated = any(d != 1 for d in conv["dilation"])
    if pool.type.dtype != "float32" or is_dilated or not _pays(weight, wider, conv, pool):
        return False
    size = prod(kernel)
    with graph.edit():
        store(graph, conv, "weight", wider if pool.op.name == "sum_pool" else wider / size)
        if conv["bias"] is not None and pool.op.name == "sum_pool":
            store(graph, conv, "bias", graph.tensors[conv["bias"].name].double() * size)
        strides = tuple(q * s for q, s in zip(stride, conv["stride"], strict=True))
        graph.set_attrs(conv, stride=strides)
        graph.remove(pool)
    return True


def _window(pool: Node) -> tuple[Axes, Axes] | None:
    """(kernel, stride) of a pool whose windows are all whole, or None."""
    if pool.op.name != "adaptive_avg_pool":
        return None if any(pool["padding"]) else (pool["kernel"], pool["stride"])
    axes = pool.operands[0].type.shape[1:]
    if len(axes) != len(pool["size"]) or any(n % s for n, s in zip(axes, pool["size"], strict=True)):
        return None
    kernel = tuple(n // s for n, s in zip(axes, pool["size"], strict=True))
    return kernel, kernel


def _wider(weight: torch.Tensor, window: Axes, stride: Axes) -> torch.Tensor:
    """``[O, I, *k]`` to the sum of its copies moved by the places of a window, ``[O, I, *k']``."""
    kernel = weight.shape[2:]
    taps = [(p - 1) * s + k for p, s, k in zip(window, stride, kernel, strict=True)]
    total = weight.new_zeros(*weight.shape[:2], *taps)
    for place in product(*map(range, window)):
        at = [slice(a * s, a * s + k) for a, s, k in zip(place, stride, kernel, strict=True)]
        total[:, :, *at] += weight
    return total


def _pays(weight: torch.Tensor, wider: torch.Tensor, conv: Node, pool: Node) -> bool:
    before, after = prod(weight.shape[2:]), prod(wider.shape[2:])
    return after * pool.type.size < before * conv.type.size and after <= MOST_GROWTH * before
