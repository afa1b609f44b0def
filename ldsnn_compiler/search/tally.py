"""Counting work from the buffers that compiled kernels leave: spikes lie there as bits, and are counted by the word.

What a region folds in lies in no buffer. Where it moves events in time or flattens them, their activity follows from
the words of its source: a mean over whole steps is silent where all of them are. All else is computed from the
source's numbers, by the op itself. The figures are those of :class:`~ldsnn_compiler.interp.work.WorkCounter`.

The naive work of an original is counted from a run of its optimised form, whose streams are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldsnn_compiler.interp.work import Activity, LayerWork, fan_outs, layer
from ldsnn_compiler.ir.graph import Graph, Value
from ldsnn_compiler.ir.types import Signal, Stream
from ldsnn_compiler.runtime import data
from ldsnn_compiler.targets.cpu import forms
from ldsnn_compiler.targets.plan import Plan
from ldsnn_compiler.targets.region import time_change

Words = npt.NDArray[np.uint64]


class Tally:
    """Work of ``graph``, by node name, summed over runs of ``plan``, which ``placed`` was lowered to: the same graph,
    or an exactly optimised form of it. Events that those have under one name are the same but for their unit. Nodes
    that are ``skipped`` are left out."""

    def __init__(self, graph: Graph, placed: Graph, plan: Plan, skipped: frozenset[str] = frozenset()) -> None:
        self.work: dict[str, LayerWork] = {}
        self._graph = graph
        self._nodes = [n for n in graph.nodes if n.op.name not in ("input", "output") and n.name not in skipped]
        self._fan_outs = {n.name: fan_outs(graph, n) for n in self._nodes}
        kept = [v for n in placed.nodes for v in n.results if placed is graph or _is_the_same(graph, v)]
        self._held = {v.name: Held(v.type.signal, found) for v in kept if (found := _buffers(v, plan))}

    @cached_property
    def is_possible(self) -> bool:
        """Whether all that is to be counted can be told from the buffers, where channels are counted together."""
        events = [v for n in self._nodes for v in (*n.operands, *n.results[:1]) if v.type.signal.is_event]
        met = [(v, f) for n in self._nodes for v, f in zip(n.operands, self._fan_outs[n.name], strict=True)]
        synapses = [(v, f) for v, f in met if f is not None]
        even = all(bool((f == f[:1]).all()) for _, f in synapses if f.ndim)
        return even and all(map(self._follows, (*events, *(v for v, _ in synapses))))

    def _follows(self, value: Value) -> bool:
        op = value.node.op
        computable = op.kind not in ("scan", "io") and not op.weights
        return value.name in self._held or (computable and all(map(self._follows, value.node.operands)))

    def add(self, buffers: Mapping[str, Any], samples: int) -> None:
        """Count a run of that many samples; ``buffers`` are its TVM tensors by name."""
        seen = _Seen(self._graph, self._held, buffers)
        for node in self._nodes:
            layer(self.work, node).add(
                node, self._fan_outs[node.name], seen.activity, lambda v: samples * v.type.timesteps * v.type.size
            )


@dataclass(frozen=True)
class Held:
    """A value that lies in buffers, of those names by form, and its signal there."""

    signal: Signal
    buffers: Mapping[str, str]


def _buffers(value: Value, plan: Plan) -> dict[str, str]:
    names = {form: f"{value.name}:{form}" for form in (forms.BITS, forms.DENSE)}
    return {form: name for form, name in {**names, forms.CANONICAL: value.name}.items() if name in plan.buffers}


def _is_the_same(graph: Graph, value: Value) -> bool:
    """Whether ``graph`` has these events, or this input, too."""
    name, mine = value.node.name, value.type
    if name not in graph or value.index >= len(graph.node(name).results):
        return False
    its = graph.node(name).results[value.index].type
    unit = its.signal.unit
    alike = its == mine.with_(signal=replace(mine.signal, unit=unit))
    return alike and (mine.signal.is_event or value.node.op.name == "input")


class _Seen:
    """Activities of one run's values, each found once."""

    def __init__(self, graph: Graph, held: Mapping[str, Held], buffers: Mapping[str, Any]) -> None:
        self._graph, self._held, self._buffers = graph, held, buffers
        self._known: dict[tuple[str, bool], Activity] = {}
        self._data: dict[str, Tensor] = {}

    def activity(self, value: Value, places: bool) -> Activity:
        """Places are summed over channels where events lie in bits: no synapse treats channels differently."""
        if (value.name, places) not in self._known:
            self._known[value.name, places] = self._activity(value, places)
        return self._known[value.name, places]

    def _activity(self, value: Value, places: bool) -> Activity:
        node, words = value.node, self._any(value)
        if words is not None:
            return self._counted(value, words)
        if node.op.name == "resample" and time_change(node) in ("same", "repeat"):
            times = value.type.timesteps // node.operands[0].type.timesteps
            return self.activity(node.operands[0], places).map(lambda x: x * times, times)
        if node.op.name == "flatten":
            return self.activity(node.operands[0], places).map(lambda x: x.sum().reshape(1))
        return Activity.of(self._numbers(value), value.type.signal, places)

    # ---- in bits

    def _words(self, value: Value) -> Words | None:
        """``[N, T, planes, P, W]``."""
        found = self._buffer(value, forms.BITS)
        return None if found is None else np.from_dlpack(found).view(np.uint64)

    def _any(self, value: Value) -> Words | None:
        """``[N, T, P, W]`` with a bit for every number that is not zero."""
        words, node = self._words(value), value.node
        if words is not None:
            single: Words = words[:, :, 0] if words.shape[2] == 1 else np.bitwise_or.reduce(words, axis=2)
            return single
        if node.op.name != "resample" or time_change(node) != "mean" or not value.type.signal.is_event:
            return None
        given = self._any(node.operands[0])
        if given is None:
            return None
        steps = value.type.timesteps
        together: Words = np.bitwise_or.reduce(given.reshape(len(given), steps, -1, *given.shape[2:]), axis=2)
        return together

    def _counted(self, value: Value, words: Words) -> Activity:
        space = (1, *value.type.shape[1:]) if value.type.shape else ()
        numbers = words.shape[0] * words.shape[1] * value.type.size
        active = _ones(words).reshape(space)
        planes = self._words(value)
        if planes is None:
            return Activity(numbers, active, self.activity(value.node.operands[0], True).counts)
        if planes.shape[2] == 1:
            return Activity(numbers, active, active)
        counts = torch.stack([_ones(planes[:, :, k]) * 2**k for k in range(planes.shape[2])]).sum(0)
        return Activity(numbers, active, counts.reshape(space))

    # ---- as numbers

    def _numbers(self, value: Value) -> Tensor:
        """``[T, N, *shape]``."""
        if value.name not in self._data:
            self._data[value.name] = self._computed(value)
        return self._data[value.name]

    def _computed(self, value: Value) -> Tensor:
        signal = value.type.signal
        if (words := self._words(value)) is not None:
            return _from_dense(_unpacked(words, value.type), value.type)
        if (found := self._buffer(value, forms.CANONICAL)) is not None:
            x = data.to_torch(found)
        elif (found := self._buffer(value, forms.DENSE)) is not None:
            x = _from_dense(data.to_torch(found), value.type)
        else:
            call = self._graph.call(value.node, steps=value.type.timesteps)
            return value.node.op.evaluate(call, *map(self._numbers, value.node.operands))[value.index]
        unit = self._held[value.name].signal.unit
        return x if signal.unit == unit else x / unit * signal.unit

    def _buffer(self, value: Value, form: str) -> Any | None:
        held = self._held.get(value.name)
        return self._buffers.get(held.buffers[form]) if held and form in held.buffers else None


def _ones(words: Words) -> Tensor:
    """Set bits of ``[N, T, P, W]`` by P, float64."""
    return torch.from_numpy(np.bitwise_count(words).sum((0, 1, 3), dtype=np.int64)).double()


def _from_dense(x: Tensor, type: Stream) -> Tensor:
    """``[N, T, P, C]`` as ``[T, N, *shape]``."""
    return x.permute(1, 0, 3, 2).reshape(x.shape[1], x.shape[0], *type.shape)


def _unpacked(words: Words, type: Stream) -> Tensor:
    """``[N, T, P, C]`` numbers of events in bits."""
    channels = forms.channels_space(type.shape)[0]
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")[..., :channels]
    counts = sum(torch.from_numpy(bits[:, :, k]).float() * 2**k for k in range(words.shape[2]))
    assert isinstance(counts, Tensor)
    return counts if type.signal.unit == 1.0 else counts * type.signal.unit
