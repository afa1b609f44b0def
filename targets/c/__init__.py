"""Networks as plain C: objects, sources and a header for programs that know nothing of TVM or Python.

The same plans and the same kernels as in a bundle for TVM's run time, on one core, called by generated C on memory that
is planned here. :func:`c_bundle` is the way in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.c.bundle import CBundle, memory_table
from ldsnn_compiler.targets.c.network import Network, Progress, network
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Kernel

if TYPE_CHECKING:
    from ldsnn_compiler.runtime.compiled import Settings

__all__ = ["CBundle", "Network", "c_bundle", "checked_batch"]


def c_bundle(
    graph: Graph,
    settings: Settings,
    seconds: Mapping[str, float] = MappingProxyType({}),
    progress: Progress | None = None,
    name: str | None = None,
) -> CBundle:
    """Compile a graph that has been through the passes; ``name`` (default: the graph's) begins all names in C.

    ``settings`` say how it was lowered; a C network has a fixed batch and one thread. ``seconds`` are those spent
    before, for the report. ``progress(what, done, total)`` is called before each kernel.
    """
    batch = checked_batch(settings.board, settings.batch)
    started = perf_counter()
    alone = replace(settings, threads=1, board=replace(settings.board, cores=1))
    plans = {entry: plan(graph, alone.board, entry, alone.tunings) for entry in ("run", "step")}
    made = network(graph, plans, alone.board, batch, name, progress)
    taken = {**seconds, "lower_and_build": round(perf_counter() - started, 3)}
    return CBundle(made, alone, _report(plans["run"].kernels, taken, made))


def checked_batch(board: Board, batch: int | None) -> int:
    """The batch, if there is one and networks of a board can be C; else :class:`LdsnnError`."""
    problems = []
    if board.gpu is not None:
        problems.append(Problem("networks in C run on a CPU, and this is a GPU", where=board.name))
    if batch is None:
        problems.append(Problem("a C bundle has a fixed batch: its memory is planned when it is compiled"))
    if batch is None or problems:
        raise LdsnnError(problems)
    return batch


def _report(kernels: Sequence[Kernel], seconds: Mapping[str, float], net: Network) -> dict[str, Any]:
    """What the compiler tells: the memory that the network needs and where its state lies, too."""
    return {
        "compile_seconds": dict(seconds),
        "kernels": len(net.objects.scratch),
        "calls": [{"name": k.name, "nodes": list(k.nodes)} for k in kernels],
        "memory": memory_table(net),
        "sections": {section.name: section.size for section in net.objects.file.sections},
        "arena": {e: {"bytes": x.arena, "without_sharing": x.unshared} for e, x in net.entries.items()},
        "state": [
            {"node": h.node, "variable": h.variable, "dtype": h.dtype, "shape": list(h.shape), "offset": h.offset}
            for h in net.state
        ],
    }
