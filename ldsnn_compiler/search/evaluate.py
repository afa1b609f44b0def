"""True evaluation of schedules: predictions, divergence from the original network, and work, on given samples.

A schedule is applied to a clone of the traced graph by the passes, then run. Class scores are the mean over time of
the network's first output. What the run shares with a remembered one (:mod:`ldsnn_compiler.search.prefix`) is reused.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.evaluate import as_input, user_layout
from ldsnn_compiler.interp.module import Data, Interpreter
from ldsnn_compiler.interp.work import LayerWork, WorkCounter
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.passes.assign_timesteps import AssignTimesteps
from ldsnn_compiler.pipeline import FOLD, OPTIMISE, parse_pipeline, run_pipeline
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.search.cost import NodeWork, from_json, to_json
from ldsnn_compiler.search.prefix import Digests, StreamCache, Suffix, part, signatures, suffix

MARGIN = 4.0
"""Each network's scores are scaled so that its mean margin between its two best classes is this, in nats. The
divergence then means the same for rates, which lie in 0..1, and for logits; and where fewer or coarser spikes change
all rates alike, which no class is the worse for, it stays small."""
VERSION = 3
"""Of what figures mean: raised when they would come out differently."""


class Runner(Protocol):
    """A graph ready to run on batch after batch; ``work`` sums over those that were counted."""

    def __call__(
        self, streams: Mapping[str, Tensor], capture: frozenset[str], count: bool
    ) -> tuple[Data, dict[str, Tensor]]:
        """Outputs ``[T, N, *shape]``, and the first results of the nodes named in ``capture``, as far as they can be
        had. ``streams`` holds the inputs by name, and what was captured of nodes that need not run."""

    @property
    def work(self) -> Mapping[str, LayerWork]:
        """Work by node name so far."""


class Engine(Protocol):
    """Makes runners; figures of engines of different names are kept apart. ``in_words``: it captures streams in words
    and starts from them in the midst of whole graphs; else it is given the suffix of a graph."""

    name: str
    in_words: bool

    def __call__(self, graph: Graph, skipped: frozenset[str] = frozenset()) -> Runner:
        """A runner of that graph; the work of nodes that are ``skipped`` is not asked for."""


class Adjustment(Protocol):
    """Changes a scheduled graph, which it may do in place."""

    @property
    def name(self) -> str:
        """Different for adjustments that differ."""

    def __call__(self, graph: Graph) -> Graph:
        """The graph, changed."""


class Latency(Protocol):
    """Tells how long a scheduled graph takes."""

    @property
    def name(self) -> str:
        """Different for boards that differ."""

    def latencies(self, graph: Graph, work: Mapping[str, NodeWork]) -> Mapping[str, float]:
        """Milliseconds by node, given the work of its nodes."""


class InterpreterRunner:
    """Runs a graph by the interpreter, counting work."""

    name = "interpreter"
    in_words = False

    def __init__(self, graph: Graph, skipped: frozenset[str] = frozenset()) -> None:
        self._interpreter, self._counter = Interpreter(graph), WorkCounter(graph)
        self._wanted: frozenset[str] = frozenset()
        self._captured: dict[str, Tensor] = {}

    def __call__(
        self, streams: Mapping[str, Tensor], capture: frozenset[str], count: bool
    ) -> tuple[Data, dict[str, Tensor]]:
        self._wanted, self._captured = capture, {}
        self._interpreter.observers = [self._capture, *([self._counter] if count else [])]
        with torch.no_grad():
            outputs = self._interpreter.run(*(streams[n.name] for n in self._interpreter.graph.inputs))
        return outputs, self._captured

    @property
    def work(self) -> Mapping[str, LayerWork]:
        return self._counter.layers

    def _capture(self, node: Node, inputs: Data, outputs: Data) -> None:
        if node.name in self._wanted:
            self._captured[node.name] = outputs[0]


@dataclass(frozen=True)
class Figures:
    """One evaluated network: ``predictions`` are class numbers ``[N]``, ``loss`` the mean Kullback-Leibler divergence
    of its class probabilities from the original's in nats, ``nodes`` the work by node name."""

    predictions: tuple[int, ...]
    loss: float
    nodes: Mapping[str, NodeWork]

    def cost(self, of: Callable[[NodeWork], float]) -> float:
        """Sum of a cost over the nodes."""
        return sum(map(of, self.nodes.values()))

    def to_json(self) -> dict[str, Any]:
        """Plain data; predictions compressed."""
        packed = zlib.compress(np.asarray(self.predictions, np.int32).tobytes(), 9)
        return {
            "predictions": base64.b64encode(packed).decode(),
            "loss": self.loss,
            "nodes": to_json(self.nodes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Figures:
        """What :meth:`to_json` wrote."""
        raw = np.frombuffer(zlib.decompress(base64.b64decode(data["predictions"])), np.int32)
        return cls(tuple(map(int, raw)), float(data["loss"]), from_json(data["nodes"]))


class Evaluator:
    """Evaluates schedules of ``graph`` on ``x [N, ...]``.

    Args:
        graph: traced, with one input.
        x: samples as the data set holds them; sequences are ``[N, T, *shape]``.
        memory: bytes that one batch's values may take; sets the batch.
        cache: bytes for remembered streams.
        counted: work is counted on the first so many samples (counting takes a third of the time); None: on all.
        engine: makes runners; the interpreter unless given.
        latency: measures the latency of every schedule; without it, it is modelled from constants.
        adjust: changes every scheduled graph before it is run; figures of different names are kept apart.

    Raises:
        LdsnnError: the samples do not fit the network, or it is not a traced one with one input.
    """

    def __init__(
        self,
        graph: Graph,
        x: Tensor,
        *,
        memory: int = 1 << 28,
        cache: int = 1 << 30,
        counted: int | None = None,
        engine: Engine = InterpreterRunner,
        adjust: Adjustment | None = None,
        latency: Latency | None = None,
    ) -> None:
        check(graph, x)
        self._latency = latency
        self._adjust = adjust
        self.original, self.x = graph, x
        self._memory, self._engine = memory, engine
        self.counted = min(len(x), counted or len(x))
        self._digests = Digests()
        self._cache = StreamCache(len(x), cache, engine.in_words)
        self._known_work: dict[str, NodeWork] = {}
        self.runs = 0

    @cached_property
    def _folded(self) -> Graph:
        folded = self.original.clone()
        return run_pipeline(folded, [p for name in FOLD for p in parse_pipeline(name)])

    def prepare(self, schedule: Schedule) -> Graph:
        """The graph with a schedule applied and exactly optimised."""
        after = [p for name in OPTIMISE for p in parse_pipeline(name)]
        prepared = run_pipeline(self._folded.clone(), [AssignTimesteps.of(schedule), *after])
        return self._adjust(prepared) if self._adjust else prepared

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the network and the samples: figures of one fingerprint are comparable."""
        ends = sorted(signatures(self.original, self._digests)[n.name] for n in self.original.outputs)
        made = f"{self._engine.name} {[each.name for each in (self._adjust, self._latency) if each]}"
        text = f"{VERSION} {made} {self.counted}\n{FOLD} {OPTIMISE}\n{ends}\n{self._digests.of(self.x, torch.float32)}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def reference(self) -> Figures:
        """The original network as it stands, nothing optimised: predictions, loss 0, the naive work."""
        return Figures(tuple(self._scores.argmax(1).tolist()), 0.0, self._naive[1])

    def reference_record(self) -> dict[str, Any]:
        """The reference and its scores as plain data."""
        raw = self._scores.numpy().astype("<f4").tobytes()
        return {**self.reference.to_json(), "scores": base64.b64encode(raw).decode(), "classes": self._scores.shape[1]}

    def adopt(self, record: Mapping[str, Any]) -> Figures:
        """Take the reference from a record of the same fingerprint instead of running it."""
        if "_naive" not in self.__dict__:
            raw = np.frombuffer(base64.b64decode(record["scores"]), "<f4").astype(np.float32)
            self._naive = torch.from_numpy(raw).reshape(-1, record["classes"]), Figures.from_json(record).nodes
        return self.reference

    @cached_property
    def _naive(self) -> tuple[Tensor, Mapping[str, NodeWork]]:
        return self._run(self.original, {}, frozenset(), remember=False)

    @property
    def _scores(self) -> Tensor:
        return self._naive[0]

    def evaluate(self, schedule: Schedule) -> Figures:
        """A schedule's figures; runs what follows the first difference from the remembered one."""
        return self._figures(self.prepare(schedule), remember=False)

    def remember(self, schedule: Schedule) -> Figures:
        """As :meth:`evaluate`, and keeps this schedule's streams for the ones to come, in place of former ones."""
        return self._figures(self.prepare(schedule), remember=True)

    # ---- inside

    def _figures(self, graph: Graph, remember: bool) -> Figures:
        signature = signatures(graph, self._digests)
        scores, nodes = self._run(graph, signature, frozenset(signature), remember)
        nodes = self._timed(graph, nodes) if self._latency else nodes
        return Figures(tuple(scores.argmax(1).tolist()), self._loss(scores), nodes)

    def _timed(self, graph: Graph, nodes: Mapping[str, NodeWork]) -> dict[str, NodeWork]:
        """Work with latencies; nodes that only take time are added."""
        assert self._latency is not None
        times = self._latency.latencies(graph, nodes)
        bare = {n.name: NodeWork(n.op.name, n.path, n.type.timesteps) for n in graph.nodes if n.name in times}
        return {name: replace(work, latency_ms=times.get(name, 0.0)) for name, work in {**bare, **nodes}.items()}

    def _loss(self, scores: Tensor) -> float:
        """Mean KL(original || this) over the samples, in nats."""
        return float(divergences(self._scores, scores).mean())

    def _run(
        self, graph: Graph, signature: Mapping[str, str], reusable: frozenset[str], remember: bool
    ) -> tuple[Tensor, dict[str, NodeWork]]:
        """Class scores ``[N, C]`` and work of all nodes."""
        self.runs += 1
        keep = self._cache.plan(graph, signature) if remember else {}
        start = self._start(graph, signature, remember) if reusable else Suffix(graph, {}, frozenset())
        runner, scores = self._engine(start.graph, start.skipped), list[Tensor]()
        capture = frozenset(name for name in keep if signature[name] not in self._cache)
        batch = max(1, self._memory // max(1, bytes_per_sample(start.graph)))
        for low, high in self._batches(batch):
            outputs, captured = runner(self._streams(start, low, high), capture, low < self.counted)
            scores.append(outputs[0].mean(0).flatten(1))
            for name, data in captured.items():
                self._cache.put(signature[name], keep[name], low, data)
        nodes = self._work(start.graph, runner)
        nodes |= {
            name: self._known_work[signature[name]] for name in start.skipped if signature[name] in self._known_work
        }
        if remember:
            self._known_work = {signature[name]: work for name, work in nodes.items()}
        return torch.cat(scores), {n.name: nodes[n.name] for n in graph.nodes if n.name in nodes}

    def _start(self, graph: Graph, signature: Mapping[str, str], remember: bool) -> Suffix:
        """What is to be run of a graph; all of it by the interpreter, where its streams are to be remembered."""
        if self._engine.in_words:
            return part(graph, signature, self._cache, self._known_work)
        return suffix(graph, signature, () if remember else self._cache)

    def _batches(self, batch: int) -> Iterator[tuple[int, int]]:
        """Sample ranges; none crosses the end of what is counted."""
        for first, last in ((0, self.counted), (self.counted, len(self.x))):
            for low in range(first, last, batch):
                yield low, min(low + batch, last)

    def _streams(self, start: Suffix, low: int, high: int) -> dict[str, Tensor]:
        given = [n for n in start.graph.inputs if n.name not in start.known]
        known = {name: self._cache.get(signature, low, high) for name, signature in start.known.items()}
        return {**{n.name: as_input(n, self.x[low:high]) for n in given}, **known}

    def _work(self, graph: Graph, runner: Runner) -> dict[str, NodeWork]:
        found = {}
        for name, work in runner.work.items():
            node = graph.node(name)
            found[name] = NodeWork.of(work, self.counted, node["neuron"] if node.op.name == "neuron" else None)
        return found


def divergences(original: Tensor, found: Tensor) -> Tensor:
    """KL(original || found) of every sample in nats, from class scores ``[N, C]``; see :data:`MARGIN`."""
    target, other = (_calibrated(scores).log_softmax(1) for scores in (original, found))
    return (target.exp() * (target - other)).sum(1)


def _calibrated(scores: Tensor) -> Tensor:
    best = scores.topk(min(2, scores.shape[1]), dim=1).values
    margin = float((best[:, 0] - best[:, -1]).mean())
    return scores.double() * (MARGIN / margin if margin > 0 else 1.0)


def predictions_drop(reference: Sequence[int], found: Sequence[int], labels: Sequence[int] | None) -> tuple[int, int]:
    """(lost, won): samples that only the reference gets right, and that only the other gets right.

    Without labels the reference is right by definition.
    """
    truth = reference if labels is None else labels
    pairs = [(a == t, b == t) for a, b, t in zip(reference, found, truth, strict=True)]
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def bytes_per_sample(graph: Graph) -> int:
    """Bytes of values that the interpreter holds at once, at most: each until its last use."""
    last = {v.name: i for i, n in enumerate(graph.nodes) for v in (*n.operands, *n.results)}
    spent, held, peak = [0] * len(graph.nodes), 0, 0
    for i, node in enumerate(graph.nodes):
        for value in node.results:
            size = 4 * value.type.timesteps * value.type.size
            spent[last[value.name]] += size
            held += size
        peak = max(peak, held)
        held -= spent[i]
    return peak


def check(graph: Graph, x: Tensor) -> None:
    """Raises LdsnnError unless schedules of the graph can be evaluated on the samples ``x [N, ...]``."""
    problems = []
    if graph.stage != "traced":
        problems.append(Problem(f"timesteps are chosen for a traced graph, this one is {graph.stage}", graph.name))
    if len(graph.inputs) != 1 or not graph.outputs:
        message = f"needs one input and an output, has {len(graph.inputs)} and {len(graph.outputs)}"
        problems.append(Problem(message, graph.name))
    if problems:
        raise LdsnnError(problems)
    user_layout(graph, x[:1])
