"""Number types of the regions of a whole-number graph, from what is proved of its sums.

The proofs are :mod:`ldsnn_compiler.ir.bounds`'s; a graph of real numbers has float32 everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

from ldsnn_compiler.ir.bounds import INT16, INT32, Bounds
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, Number, Source, words

#: fewer inputs than this add too few rows for sums in int16 to pay for being widened
_LEAST_PARTIAL = 64


def accumulator(root: Node, bounds: Bounds) -> Number:
    """Type of a region's currents: int16 where their sum, whatever its parts, is proved to fit it."""
    current = root.operands[0] if root.op.name == "neuron" else root.result
    if current.type.dtype == "float32":
        return "float32"
    return "int16" if bounds.value(current).peak < INT16 else "int32"


def products(root: Node, bounds: Bounds) -> Literal["int32", "int64"]:
    """Type in which a region's neuron multiplies by ratios."""
    is_whole = root.op.name == "neuron" and root["neuron"].is_whole
    return "int32" if is_whole and bounds.neuron(root).product < INT32 else "int64"


def ratios(graph: Graph, root: Node) -> tuple[tuple[str, int], ...]:
    """Tensor parameters of a whole-number neuron that are ratios, with their binary places."""
    if root.op.name != "neuron" or not root["neuron"].is_whole:
        return ()
    tensors = {k: graph.tensors[v.name] for k, v in root["neuron"].params.items() if isinstance(v, TensorRef)}
    return tuple((k, int(root["neuron"].fraction)) for k, v in tensors.items() if v.is_floating_point())


def typed(source: Source, weight: torch.Tensor, peak: float, sums: Number) -> Source:
    """A convolution with the types of a region whose currents are ``sums``; ``peak`` bounds its inputs.

    Where currents are int32, events are summed in int16 parts as large as the weights allow.
    """
    if sums == "float32":
        return source
    number: Number = str(weight.dtype).removeprefix("torch.")  # type: ignore[assignment]
    walks = source.form == "bits" and source.method == "event" and not source.groups == source.channels > 1
    is_narrow = number in ("int8", "int16") and source.channels >= _LEAST_PARTIAL
    partial = _partial(source, weight, peak) if walks and is_narrow and sums == "int32" else 0
    return replace(source, weights=number, partial=partial)


def _partial(source: Source, weight: torch.Tensor, peak: float) -> int:
    """Words of one kernel position whose events always sum up to an int16, as many as possible; 0: not even one.

    A part of a group's inputs that starts anywhere is bounded by the whole group.
    """
    taps = weight.reshape(weight.shape[0], source.channels // source.groups, source.taps).double()
    sizes = _halves(words(source.channels)) if source.groups == 1 else [words(source.channels)]
    return next((n for n in sizes if _largest(taps, n * WORD) * peak < INT16), 0)


def _halves(count: int) -> Iterator[int]:
    """``count``, then the powers of two below it, the largest first."""
    yield count
    yield from (2**k for k in reversed(range((count - 1).bit_length())))


def _largest(taps: torch.Tensor, size: int) -> float:
    """Largest sum of the weights of one sign, over parts of ``size`` inputs, of any output and kernel position."""
    parts = torch.nn.functional.pad(taps, (0, 0, 0, -taps.shape[1] % size)).unflatten(1, (-1, size))
    return float(torch.maximum(parts.clamp(min=0).sum(2), -parts.clamp(max=0).sum(2)).max())
