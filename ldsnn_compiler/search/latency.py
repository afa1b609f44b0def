"""Measured latency: what a schedule takes on this board, from the times of its kernels, each measured alone.

A kernel is timed at batch 1 on random data of two densities, caches warm, and its time at any density is read off the
line through both (event-driven kernels are linear in spikes, dense ones level). Spikes are not spread evenly, and one
in the middle of an image costs more than one at its border: what counts as the density of a synaptic layer's input is
the share of its synaptic updates. A kernel's key says layer, timesteps and levels, so the same kernel of another
schedule is not measured again; times are kept in a file per board. What a whole network adds, calls and colder caches,
is the model's error: :func:`checks` measures it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ldsnn_compiler import cache
from ldsnn_compiler.evaluate import as_input
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import write_atomically
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.passes.select_kernels import SelectKernels
from ldsnn_compiler.pipeline import Pass, parse_pipeline, run_pipeline
from ldsnn_compiler.runtime import data, threads
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.search.cost import NodeWork
from ldsnn_compiler.search.engine import PLACE, CompiledEngine, Function, dense_updates
from ldsnn_compiler.search.evaluate import Evaluator
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Kernel, Plan
from ldsnn_compiler.tuning.operands import operand, types_of, value_name

DENSITIES = (0.05, 0.3)
"""Non-zero shares at which kernels are timed."""
REPEATS, LEAST_S = 5, 1e-3
"""A time is the median of so many, each over as many calls as this many seconds take."""
VERSION = 2
"""Of the files: raised when kernels or their timing change."""


@dataclass(frozen=True)
class Check:
    """A modelled latency and the measured one, in ms."""

    modelled_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """Of the model, relative to the measurement."""
        return self.modelled_ms / self.measured_ms - 1.0


def cache_folder() -> Path:
    """Where times are kept."""
    return cache.folder() / "latency"


@dataclass
class LatencyModel:
    """Latencies on ``board``, which must be this machine. ``folder`` holds a file of times per board; None keeps
    nothing."""

    board: Board
    folder: Path | None = field(default_factory=cache_folder)
    measured: int = 0
    _times: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._engine = CompiledEngine(self.board, batch=1)
        text = f"{VERSION} {DENSITIES} {json.dumps(self._engine.board.to_json(), sort_keys=True)}"
        self.name = cache.digest(text)
        self._file = self.folder and self.folder / f"{self.name}.json"
        if self._file and self._file.exists():
            self._times = {key: tuple(times) for key, times in json.loads(self._file.read_bytes()).items()}

    def latencies(self, graph: Graph, work: Mapping[str, NodeWork]) -> dict[str, float]:
        """Milliseconds by node, for a scheduled graph and the work of its nodes: the whole time of a kernel is its last
        node's."""
        placed = run_pipeline(graph.clone(), self._placing(work))
        made = plan(placed, self._engine.board, "run")
        self._measure(placed, made)
        owner = {v.name: node.name for node in placed.nodes for v in node.results}
        found: dict[str, float] = {}
        for kernel in made.kernels:
            sources = [owner[n] for n in map(value_name, kernel.operands) if n in owner]
            share = _share(graph, work, kernel.nodes, sources)
            name = kernel.nodes[-1] if kernel.nodes else sources[0]
            found[name] = found.get(name, 0.0) + _line(self._times[cache.digest(repr(kernel.key))], share)
        return found

    def check(self, graph: Graph, work: Mapping[str, NodeWork], samples: torch.Tensor) -> Check:
        """The model against the compiled network as a whole, one by one on ``samples [T, N, *shape]``."""
        from ldsnn_compiler.driver import compile

        modelled = sum(self.latencies(graph, work).values())
        machine, densities = self._engine.board, _densities(work)
        compiled = compile(graph, target=machine, pipeline=PLACE, batch=1, density=densities, tuned=False)
        measured = []
        for sample in samples.split(1, dim=1):
            function, arguments = compiled.bound(sample)
            measured.append(_median_ms(partial(function, *arguments)))
        return Check(modelled, float(np.mean(measured)))

    def _placing(self, work: Mapping[str, NodeWork]) -> tuple[Pass, ...]:
        """Kernels as a compiler that knows the densities chooses them."""
        machine, densities = json.dumps(self._engine.board.to_json()), json.dumps(_densities(work))
        return SelectKernels(machine, densities), *parse_pipeline(PLACE.partition(",")[2])

    def _measure(self, graph: Graph, made: Plan) -> None:
        wanted = {cache.digest(repr(k.key)): k for k in made.kernels}
        new = {key: kernel for key, kernel in wanted.items() if key not in self._times}
        if not new:
            return
        code = dict(zip((k.key for k in made.kernels), self._engine.functions(made), strict=True))
        types = types_of(graph)
        threads.use(self._engine.board.cores)
        for key, kernel in new.items():
            self._times[key] = tuple(_time(made, kernel, code[kernel.key], types, d) for d in DENSITIES)
            self.measured += 1
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, json.dumps(self._times, indent=0).encode())


def checks(
    model: LatencyModel, evaluator: Evaluator, schedules: Mapping[str, Schedule], samples: int = 8
) -> dict[str, dict[str, float]]:
    """The model against whole networks compiled for these schedules, on the first samples of an evaluator's; plain data
    for a report, by the schedules' names."""
    few = Evaluator(evaluator.original, evaluator.x[:samples])
    x = as_input(few.original.inputs[0], few.x)
    found = {}
    for name, schedule in schedules.items():
        each = model.check(few.prepare(schedule), few.evaluate(schedule).nodes, x)
        found[name] = {"modelled_ms": each.modelled_ms, "measured_ms": each.measured_ms, "error": each.error}
    return found


def _densities(work: Mapping[str, NodeWork]) -> dict[str, float]:
    return {name: node.density for name, node in sorted(work.items())}


def _share(graph: Graph, work: Mapping[str, NodeWork], nodes: Sequence[str], sources: Sequence[str]) -> float:
    """Density of what a kernel reads: of synaptic layers the share of their updates, else that of its operands."""
    inside = [graph.node(name) for name in nodes if name in graph and name in work]
    shares = [work[n.name].synaptic_updates / most for n in inside if (most := dense_updates(graph, n))]
    shares = shares or [work[name].density for name in sources if name in work]
    return float(np.mean(shares)) if shares else DENSITIES[0]


def _time(made: Plan, kernel: Kernel, function: Function, types: Mapping[str, Stream], density: float) -> float:
    """Milliseconds of one call on random data."""
    import tvm

    random = np.random.default_rng(0)
    arguments = [data.to_tvm(operand(made, name, types, density, random)) for name in kernel.operands]
    buffers = [made.buffers[name] for name in kernel.results]
    results = [tvm.runtime.empty(b.sized(1), b.dtype) for b in buffers]
    return _median_ms(lambda: function(*arguments, *results))


def _median_ms(call: Any) -> float:
    call()
    started = perf_counter()
    call()
    calls = max(1, int(LEAST_S / max(perf_counter() - started, 1e-7)))
    found = []
    for _ in range(REPEATS):
        started = perf_counter()
        for _ in range(calls):
            call()
        found.append((perf_counter() - started) / calls * 1e3)
    return float(np.median(found))


def _line(times: Sequence[float], density: float) -> float:
    """The time at a density, on the line through the measured ones, and never below a tenth of the least of them."""
    (low, high), (a, b) = DENSITIES, times
    return max(a + (b - a) * (density - low) / (high - low), 0.1 * min(a, b))
