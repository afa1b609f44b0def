"""Number types of the regions of a whole-number graph, from what is proved of its sums.

A region's current is summed in int16 where that is proved to do: in one part, or in several, each of some kernel
positions, that the neuron adds up in int32. Every sum of a part, in any order, lies between the sum of its negative and
that of its positive products, each input at its largest (:mod:`ldsnn_compiler.ir.bounds`). Where a single kernel
position is too much, currents are int32, and events are summed in int16 over some words of the input before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ldsnn_compiler.ir.bounds import FLOAT32, INT16, INT32, Bounds, Interval
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.targets.cpu.kernels.numbers import Number
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, Source, words
from ldsnn_compiler.targets.region import Addend

#: fewer inputs than this add too few rows for sums in int16 to pay for being widened
_LEAST_PARTIAL = 64
#: adding up more parts than this would take the neurons longer than it spares the synapses
_MOST_PARTS = 9


@dataclass(frozen=True)
class Given:
    """A source, where it comes from, and its weight if it has one."""

    source: Source
    addend: Addend
    weight: torch.Tensor | None

    @property
    def walks(self) -> bool:
        """Whether its events are walked one by one."""
        s = self.source
        return s.kind == "conv" and s.form == "bits" and s.method == "event" and not s.groups == s.channels > 1

    def taps(self) -> torch.Tensor:
        """The weights ``[O, I / groups, taps]``, float64."""
        assert self.weight is not None
        s = self.source
        return self.weight.reshape(self.weight.shape[0], s.channels // s.groups, s.taps).double()


def typed(given: Sequence[Given], timesteps: int, bounds: Bounds, narrow: bool) -> tuple[Number, tuple[Source, ...]]:
    """(type of the currents, sources with the types of their numbers) of a region; ``narrow``: int16 may be used."""
    if given[0].addend.value.type.dtype == "float32":
        return "float32", tuple(g.source for g in given)
    found = [replace(g, source=_weighted(g)) for g in given]
    parts = _in_parts(found, timesteps, bounds) if narrow else None
    if parts is not None:
        return "int16", parts
    return "int32", tuple(_partial(g, bounds) if narrow else g.source for g in found)


def extent(value: Value, bounds: Bounds) -> tuple[int, int]:
    """Least and largest of the numbers of a stream, 0 and 0 where they may be beyond int16."""
    signal = value.type.signal
    if signal.is_event:
        return 0, signal.levels or 0
    low, high = bounds.value(value).whole
    return (int(low), int(high)) if max(-low, high) < INT16 else (0, 0)


def products(root: Node, bounds: Bounds) -> Literal["int32", "int64"]:
    """Type in which a region's neuron multiplies by ratios."""
    is_whole = root.op.name == "neuron" and root["neuron"].is_whole
    return "int32" if is_whole and bounds.neuron(root).product < INT32 else "int64"


def quotients(root: Node, bounds: Bounds) -> Literal["float32", "float64"]:
    """Type in which a region's neuron divides: float32 where that finds the same counts (:mod:`.kernels.fixed`)."""
    if root.op.name != "neuron" or not root["neuron"].is_whole:
        return "float64"
    found = bounds.neuron(root)
    # a dividend is rounded too, which must not take it out of int32
    return "float32" if found.quotient <= FLOAT32 and found.peak < INT32 // 2 else "float64"


def ratios(graph: Graph, root: Node) -> tuple[tuple[str, int], ...]:
    """Tensor parameters of a whole-number neuron that are ratios, with their binary places."""
    if root.op.name != "neuron" or not root["neuron"].is_whole:
        return ()
    tensors = {k: graph.tensors[v.name] for k, v in root["neuron"].params.items() if isinstance(v, TensorRef)}
    return tuple((k, int(root["neuron"].fraction)) for k, v in tensors.items() if v.is_floating_point())


def _weighted(given: Given) -> Source:
    if given.weight is None:
        return given.source
    return replace(given.source, weights=str(given.weight.dtype).removeprefix("torch."))  # type: ignore[arg-type]


# ---- int16 currents


def _in_parts(given: Sequence[Given], timesteps: int, bounds: Bounds) -> tuple[Source, ...] | None:
    """The sources with the parts of the current that they add to, None if int16 will not do."""
    part, low, high = 0, torch.zeros(1).double(), torch.zeros(1).double()
    found = []
    for each in given:
        first, cuts = part, list[int]()
        for tap, unit in enumerate(_units(each, timesteps, bounds)):
            low, high = low + unit.low, high + unit.high
            if max(float(high.max()), -float(low.min())) >= INT16:
                if unit.peak >= INT16 or part + 1 == _MOST_PARTS:
                    return None
                part, low, high = part + 1, unit.low, unit.high
                if tap:
                    cuts.append(tap)
                else:
                    first = part
        found.append(replace(each.source, part=first, cuts=tuple(cuts)))
    return tuple(found)


def _units(given: Given, timesteps: int, bounds: Bounds) -> Iterator[Interval]:
    """What is not divided between parts: an event-driven source's kernel positions, any other source as a whole."""
    source, addend = given.source, given.addend
    value = bounds.value(addend.value)
    summed = max(1, source.timesteps // timesteps)
    if given.walks:
        taps = given.taps()
        least, most = taps.clamp(max=0).sum(1) * value.peak * summed, taps.clamp(min=0).sum(1) * value.peak * summed
        yield from (Interval(least[:, k], most[:, k]) for k in range(source.taps))
        return
    whole = value
    if given.weight is not None:
        reach = given.taps().abs().sum((1, 2)) * value.peak
        whole = Interval(-reach, reach)
    elif addend.scale is not None:
        whole = bounds.value(addend.scale.result)
    yield whole.map(lambda end: end * summed)


# ---- int16 over some words


def _partial(given: Given, bounds: Bounds) -> Source:
    """The source with as many words of a kernel position summed at a time as always make an int16; 0: not even one.

    A part of a group's inputs that starts anywhere is bounded by the whole group.
    """
    source = given.source
    if not given.walks or source.weights == "int32" or source.channels < _LEAST_PARTIAL:
        return source
    taps, peak, count = given.taps(), bounds.value(given.addend.value).peak, words(source.channels)
    sizes = _halves(count) if source.groups == 1 else [count]
    return replace(source, partial=next((n for n in sizes if _largest(taps, n * WORD) * peak < INT16), 0))


def _halves(count: int) -> Iterator[int]:
    """``count``, then the powers of two below it, the largest first."""
    yield count
    yield from (2**k for k in reversed(range((count - 1).bit_length())))


def _largest(taps: torch.Tensor, size: int) -> float:
    """Largest sum of the weights of one sign, over parts of ``size`` inputs, of any output and kernel position."""
    parts = torch.nn.functional.pad(taps, (0, 0, 0, -taps.shape[1] % size)).unflatten(1, (-1, size))
    return float(torch.maximum(parts.clamp(min=0).sum(2), -parts.clamp(max=0).sum(2)).max())
