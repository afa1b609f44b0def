"""Where the time goes: per region from the virtual machine, spikes and work per layer from the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from ldsnn_compiler.interp.work import count_work

if TYPE_CHECKING:
    from ldsnn_compiler.runtime.compiled import Compiled


@dataclass(frozen=True)
class RegionTime:
    """One call of a kernel: which nodes it computes, how (``event``, ``dense``, ``plain``), its median time."""

    name: str
    kernel: str
    nodes: tuple[str, ...]
    path: str
    ms: float


@dataclass(frozen=True)
class Profile:
    """Of one input. ``latency_ms`` is the median of whole runs, ``latency_ms_iqr`` their interquartile range.

    ``layers`` has one row per node: density, synaptic updates and neurons evaluated, per sample; ``totals`` their sums.
    """

    latency_ms: float
    latency_ms_iqr: float
    regions: tuple[RegionTime, ...]
    layers: tuple[dict[str, Any], ...]
    totals: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def profile(compiled: Compiled, inputs: Sequence[torch.Tensor], repeats: int) -> Profile:
    """Profile ``[T, N, *shape]`` data; the whole runs are timed without the instrument that times regions."""
    function, arguments = compiled.bound(*inputs)
    function(*arguments)
    whole = sorted(_seconds(function, arguments) for _ in range(repeats))
    regions = _regions(compiled, function, arguments, repeats)
    _, work = count_work(compiled.graph, *inputs)
    quarter = (len(whole) - 1) / 4
    spread = whole[round(3 * quarter)] - whole[round(quarter)]
    return Profile(median(whole) * 1e3, spread * 1e3, regions, tuple(work.to_json()), work.totals())


def _seconds(function: Any, arguments: Sequence[Any]) -> float:
    start = perf_counter()
    function(*arguments)
    return perf_counter() - start


def _regions(compiled: Compiled, function: Any, arguments: Sequence[Any], repeats: int) -> tuple[RegionTime, ...]:
    """Median time of each kernel call; the machine calls them in the plan's order."""
    kernels = compiled.plans["run"].kernels
    runs: list[list[float]] = []
    current: list[float] = []
    started = 0.0

    def instrument(func: Any, symbol: str, before: bool, result: Any, *given: Any) -> int:
        nonlocal started
        if not symbol.startswith("vm.builtin"):
            if before:
                started = perf_counter()
            else:
                current.append(perf_counter() - started)
        return 0

    compiled.vm.set_instrument(instrument)
    try:
        for _ in range(repeats):
            current = []
            function(*arguments)
            runs.append(current)
    finally:
        compiled.vm.set_instrument(lambda *ignored: 0)
    graph = compiled.graph
    placed = [next((p.kernel for n in k.nodes if (p := graph.node(n).placement)), "plain") for k in kernels]
    times = [median(run[i] for run in runs) * 1e3 for i in range(len(kernels))]
    paths = [next((graph.node(n).path for n in reversed(k.nodes) if graph.node(n).path), "") for k in kernels]
    return tuple(
        RegionTime(k.name, how, k.nodes, path, ms)
        for k, how, path, ms in zip(kernels, placed, paths, times, strict=True)
    )
