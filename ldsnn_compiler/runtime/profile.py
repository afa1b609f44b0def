"""Where the time goes: per region from the virtual machine, spikes and work per layer from the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from ldsnn_compiler.interp.work import count_work
from ldsnn_compiler.results import Latency
from ldsnn_compiler.runtime.device import kernel_times
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.targets.build import kernel_library, symbols

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
    whole = Latency(tuple(s * 1e3 for s in compiled.device.times(compiled.vm, "run", arguments, repeats)))
    if compiled.device.is_here:
        regions = _rows(compiled, _instrumented(compiled, function, arguments, repeats))
    else:
        regions = _rows(compiled, _alone(compiled, arguments, repeats))
    _, work = count_work(compiled.graph, *inputs)
    return Profile(whole.median, whole.iqr, regions, tuple(work.to_json()), work.totals())


def _rows(compiled: Compiled, seconds: Sequence[float]) -> tuple[RegionTime, ...]:
    """Each kernel with its time."""
    graph, found = compiled.graph, []
    for kernel, taken in zip(compiled.plans["run"].kernels, seconds, strict=True):
        nodes = [graph.node(n) for n in kernel.nodes]
        kinds = {n.placement.kernel for n in nodes if n.placement}
        how = next((kind for kind in ("event", "dense") if kind in kinds), "plain")
        path = next((n.path for n in reversed(nodes) if n.path), "")
        found.append(RegionTime(kernel.name, how, kernel.nodes, path, taken * 1e3))
    return tuple(found)


def _instrumented(compiled: Compiled, function: Any, arguments: Sequence[Any], repeats: int) -> list[float]:
    """Median seconds of each kernel in the network. TVM turns conversions that move nothing into views: those took no
    time."""
    names = symbols([compiled.plans[entry] for entry in compiled.plans])
    expected = [names[k.key] for k in compiled.plans["run"].kernels]
    runs = [_aligned(expected, calls) for calls in _calls(compiled, function, arguments, repeats)]
    return [median(run[i] for run in runs) for i in range(len(expected))]


def _alone(compiled: Compiled, arguments: Sequence[Any], repeats: int) -> list[float]:
    """Median seconds of each kernel, called again and again on the data that it gets in the network: where the virtual
    machine cannot call back after each of them."""
    import tvm

    plan, settings, device = compiled.plans["run"], compiled.settings, compiled.device
    names = symbols([plan])
    built = kernel_library({names[k.key]: k for k in plan.kernels}, settings.board, settings.batch, settings.threads)
    module = device.load(Library(built, board=settings.board))
    values = dict(zip(plan.parameters(), arguments, strict=True))
    batch, found = settings.batch or arguments[0].shape[1], []
    for kernel in plan.kernels:
        for name in kernel.results:
            values[name] = tvm.runtime.empty(plan.buffers[name].sized(batch), plan.buffers[name].dtype, device.place)
        given = [values[name] for name in (*kernel.operands, *kernel.results)]
        found.append(median(kernel_times(device, module, names[kernel.key], given, repeats)))
    return found


def _calls(compiled: Compiled, function: Any, arguments: Sequence[Any], repeats: int) -> list[list[tuple[str, float]]]:
    """(symbol, seconds) of every kernel call of every run."""
    runs: list[list[tuple[str, float]]] = []
    started = 0.0

    def instrument(func: Any, symbol: str, before: bool, result: Any, *given: Any) -> int:
        nonlocal started
        now = perf_counter()
        if before:
            started = now
        else:
            runs[-1].append((symbol, now - started))
        return 0

    compiled.vm.set_instrument(instrument)
    try:
        for _ in range(repeats):
            runs.append([])
            function(*arguments)
    finally:
        compiled.vm.set_instrument(lambda *ignored: 0)
    return runs


def _aligned(expected: Sequence[str], calls: Sequence[tuple[str, float]]) -> list[float]:
    """Seconds of each expected call, 0 where it was not made. One that is missing, or made earlier or later, shifts no
    other."""
    times = [0.0] * len(expected)
    made = SequenceMatcher(None, expected, [name for name, _ in calls], autojunk=False)
    for block in made.get_matching_blocks():
        for i in range(block.size):
            times[block.a + i] = calls[block.b + i][1]
    return times
