"""Reusing what a change leaves as it was: streams at layer cuts, found by what computes them, kept as bits.

A value's *signature* is a hash of the op, attributes, tensors and operand signatures that make it, all the way to the
inputs (a Merkle hash; the nodes of a cycle are hashed together). Two scheduled graphs that give a value the same
signature compute the same stream from the same data, whatever else differs - residual branches included. So a graph
is cut at the neuron layers whose streams are known; only what follows is run (:func:`suffix`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from math import ceil, prod

import networkx as nx
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldsnn_compiler.ir.graph import Graph, Node, tensor_refs
from ldsnn_compiler.ir.types import Stream

PART = 64
"""Samples, or rows of weights, that are hashed at a time."""


@dataclass
class Digests:
    """Content hashes of tensors, each computed once; keeps the tensors, so that no new one takes their identity."""

    _known: dict[int, tuple[Tensor, str]] = field(default_factory=dict)

    def of(self, tensor: Tensor, dtype: torch.dtype | None = None) -> str:
        """Hash of dtype, shape and content, as they are or would be in another ``dtype``; a part at a time, for samples
        may be most of the memory there is."""
        if id(tensor) not in self._known:
            kind = dtype or tensor.dtype
            found = hashlib.blake2b(f"{kind}{tuple(tensor.shape)}".encode(), digest_size=16)
            for each in tensor.detach().split(PART) if tensor.ndim else (tensor.detach(),):
                found.update(each.to(kind).contiguous().numpy().tobytes())
            self._known[id(tensor)] = (tensor, found.hexdigest())
        return self._known[id(tensor)][1]


def signatures(graph: Graph, digests: Digests) -> dict[str, str]:
    """Signature of every node, by name."""
    condensed = nx.condensation(nx.DiGraph(graph.dag))
    rank = {node.name: i for i, node in enumerate(graph.nodes)}
    found: dict[str, str] = {}
    for component in nx.topological_sort(condensed):
        names = sorted(condensed.nodes[component]["members"], key=rank.__getitem__)
        inside = {name: i for i, name in enumerate(names)}
        text = "\n".join(_own(graph, graph.node(name), inside, found, digests) for name in names)
        for i, name in enumerate(names):
            found[name] = hashlib.blake2b(f"{i}\n{text}".encode(), digest_size=16).hexdigest()
    return found


def _own(graph: Graph, node: Node, inside: Mapping[str, int], found: Mapping[str, str], digests: Digests) -> str:
    """What a node is; operands by their signature, or by their place in the cycle."""
    operands = [f"{found.get(o.node.name, inside.get(o.node.name))}.{o.index}" for o in node.operands]
    tensors = [digests.of(graph.tensors[ref.name]) for ref in tensor_refs(node)]
    plain = {k: str(v) for k, v in sorted(node.attrs.items())}
    which = node.name if node.op.name == "input" else ""
    return f"{node.op.name} {which} {plain} {[str(r.type) for r in node.results]} {tensors} {operands}"


@dataclass(frozen=True)
class Suffix:
    """What is run of a graph. ``known`` is signature by name of the nodes whose streams are given, ``skipped`` the
    nodes whose work is not counted again."""

    graph: Graph
    known: Mapping[str, str]
    skipped: frozenset[str]


def part(graph: Graph, signature: Mapping[str, str], known: Container[str], counted: Container[str]) -> Suffix:
    """``graph`` as it is, for engines that skip what they need not run: the neuron layers whose streams are ``known``,
    and all nodes whose work is ``counted`` already."""
    starts = {n.name: signature[n.name] for n in graph.of("neuron") if signature[n.name] in known}
    return Suffix(graph, starts, frozenset(n.name for n in graph.nodes if signature[n.name] in counted))


def suffix(graph: Graph, signature: Mapping[str, str], known: Container[str]) -> Suffix:
    """``graph`` with every neuron layer whose stream is ``known`` replaced by an input, and what then is idle gone."""
    copy = graph.clone()
    starts: dict[str, str] = {}
    for node in copy.of("neuron"):
        if signature[node.name] in known and cuttable(copy, node):
            start = copy.add("input", type=node.type, name=f"{node.name}.known", before=node)
            copy.replace(node.result, start.result)
            starts[start.name] = signature[node.name]
    alive = {n.name for n in copy.outputs}
    for name in tuple(alive):
        alive |= nx.ancestors(copy.dag, name)
    copy.erase(*(n for n in copy.nodes if n.name not in alive))
    kept = {name: s for name, s in starts.items() if name in copy}
    return Suffix(copy, kept, frozenset(n.name for n in graph.nodes if n.name not in copy))


def cuttable(graph: Graph, node: Node) -> bool:
    """Whether a run may start at this neuron layer: its spikes cover the whole run, and nothing reads its membrane."""
    return node.type.duration == graph.base_timesteps and not any(graph.uses(v) for v in node.results[1:])


def stored_bytes(stream: Stream) -> int:
    """Bytes that :class:`StreamCache` keeps for one sample of a stream (of an unbounded one: at least)."""
    numbers = stream.timesteps * stream.size
    if not stream.signal.is_event:
        return 4 * numbers
    return stream.signal.planes * ((numbers + 7) // 8) if stream.signal.is_bounded else numbers


def words_bytes(stream: Stream) -> int:
    """Bytes of one sample of a bounded event stream in the 64-bit words of compiled kernels."""
    channels, *space = stream.shape or (1,)
    return 8 * stream.timesteps * stream.signal.planes * prod(space) * ceil(channels / 64)


class StreamCache:
    """Streams of ``samples`` samples by signature: events as bit planes, others as they are; never above ``cap`` bytes.
    ``in_words``: in the words that compiled kernels use, as they are; what does not lie in words is not kept.

    Small streams come first: they lie deep in the network, where a cut saves most.
    """

    def __init__(self, samples: int, cap: int, in_words: bool = False) -> None:
        self.samples, self.cap, self.in_words = samples, cap, in_words
        self._streams: dict[str, _Packed | _Words] = {}

    def __contains__(self, signature: object) -> bool:
        return signature in self._streams

    @property
    def bytes(self) -> int:
        """Bytes in use."""
        return sum(p.bytes for p in self._streams.values())

    def plan(self, graph: Graph, signature: Mapping[str, str]) -> dict[str, Stream]:
        """The neuron layers of a graph whose streams fit, with their types, by node name; forgets all others."""
        size = words_bytes if self.in_words else stored_bytes
        able = [n for n in graph.of("neuron") if (n.type.signal.is_bounded if self.in_words else cuttable(graph, n))]
        chosen: dict[str, Stream] = {}
        left = self.cap
        for node in sorted(able, key=lambda n: size(n.type)):
            need = size(node.type) * self.samples
            if need <= left:
                chosen[node.name], left = node.type, left - need
        keep = {signature[name] for name in chosen}
        self._streams = {s: p for s, p in self._streams.items() if s in keep}
        return chosen

    def put(self, signature: str, stream: Stream, start: int, data: Tensor) -> None:
        """Store ``data [T, n, *shape]`` (or words) of samples ``start`` to ``start + n``."""
        if signature not in self._streams:
            self._streams[signature] = (_Words if self.in_words else _Packed)(stream, self.samples)
        self._streams[signature].put(start, data)

    def get(self, signature: str, start: int, stop: int) -> Tensor:
        """``[T, stop - start, *shape]`` (or words) as it was put."""
        return self._streams[signature].get(start, stop)


class _Words:
    """One stream of all samples as words, ``[N, T, planes, P, W]``."""

    def __init__(self, stream: Stream, samples: int) -> None:
        self._samples = samples
        self._rows: Tensor | None = None
        self.bytes = words_bytes(stream) * samples

    def put(self, start: int, data: Tensor) -> None:
        if self._rows is None:
            self._rows = data.new_empty((self._samples, *data.shape[1:]))
        self._rows[start : start + len(data)] = data

    def get(self, start: int, stop: int) -> Tensor:
        assert self._rows is not None
        return self._rows[start:stop]


class _Packed:
    """One stream of all samples."""

    def __init__(self, stream: Stream, samples: int) -> None:
        self.stream, self.numbers = stream, stream.timesteps * stream.size
        self.bits = stream.signal.is_bounded
        width = stream.signal.planes * ((self.numbers + 7) // 8) if self.bits else self.numbers
        kind: npt.DTypeLike = np.uint8 if stream.signal.is_event else np.float32
        self.rows: npt.NDArray[np.generic] = np.zeros((samples, width), kind)

    @property
    def bytes(self) -> int:
        return int(self.rows.nbytes)

    def put(self, start: int, data: Tensor) -> None:
        rows = data.transpose(0, 1).reshape(data.shape[1], -1)
        stop = start + len(rows)
        if not self.stream.signal.is_event:
            self.rows[start:stop] = rows.numpy()
            return
        counts = (rows / self.stream.signal.unit).round().to(torch.int64).numpy()
        if self.bits:
            planes = [np.packbits((counts >> p) & 1 != 0, axis=1) for p in range(self.stream.signal.planes)]
            self.rows[start:stop] = np.concatenate(planes, axis=1)
            return
        kind = np.min_scalar_type(int(counts.max(initial=0)))
        if kind.itemsize > self.rows.dtype.itemsize:
            self.rows = self.rows.astype(kind)
        self.rows[start:stop] = counts

    def get(self, start: int, stop: int) -> Tensor:
        rows = self.rows[start:stop]
        signal = self.stream.signal
        if self.bits:
            planes = np.split(rows, signal.planes, axis=1)
            bits = [np.unpackbits(p.astype(np.uint8), axis=1, count=self.numbers) for p in planes]
            rows = sum((b.astype(np.int32) << p for p, b in enumerate(bits[1:], 1)), bits[0].astype(np.int32))
        numbers = torch.from_numpy(rows.astype(np.float32))
        if signal.is_event and signal.unit != 1.0:
            numbers = numbers * numbers.new_tensor(signal.unit)
        return numbers.reshape(stop - start, self.stream.timesteps, *self.stream.shape).transpose(0, 1).contiguous()
