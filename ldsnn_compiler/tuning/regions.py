"""The regions of a network that can be tuned, and what the database knows about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.passes.select_kernels import read_densities
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.cost import GUESSED_DENSITY
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Tuning
from ldsnn_compiler.targets.cpu.kernels.tune import region_key
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Kernel
from ldsnn_compiler.tuning.database import Database, default_path, nearest
from ldsnn_compiler.tuning.operands import value_name


@dataclass(frozen=True)
class Region:
    """Kernel ``index`` of an entry's plan, and all others of the same code: they are ``calls`` together.

    ``spec`` has the loop structure of the rules of thumb; ``path`` is the module of its neurons; ``density`` the share
    of its inputs that is not zero, over all calls.
    """

    entry: str
    index: int
    spec: RegionSpec
    path: str
    density: float
    calls: int = 1

    @property
    def key(self) -> str:
        """What its loop structure is kept under."""
        return region_key(self.spec)


def regions(graph: Graph, board: Board, entry: str, densities: Mapping[str, float] | None = None) -> list[Region]:
    """Each region of a fused graph once. ``densities`` are measured ones by node name or module path; events that none
    is known of are guessed."""
    known = read_densities(graph, json.dumps(dict(densities))) if densities else {}
    found: dict[str, list[Region]] = {}
    for i, kernel in enumerate(plan(graph, board, entry).kernels):
        if isinstance(kernel.key, RegionSpec):
            paths = [graph.node(name).path for name in kernel.nodes]
            path = next((p for p in reversed(paths) if p), kernel.name)
            region = Region(entry, i, kernel.key, path, _density(graph, kernel, known))
            found.setdefault(region.key, []).append(region)
    return [_merged(same) for same in found.values()]


def known_tunings(
    graph: Graph, board: Board, batch: int | None, densities: Mapping[str, float] | None, file: Path | None = None
) -> dict[str, Tuning]:
    """The loop structures that won on this board, of the regions of this graph; empty where nothing was measured."""
    path = file or default_path()
    if not path.exists():
        return {}
    database = Database(path)
    try:
        won = database.winners(board, batch)
    finally:
        database.close()
    if not won:
        return {}
    there = [region for entry in ("run", "step") for region in regions(graph, board, entry, densities)]
    return {r.key: nearest(won[r.key], r.density) for r in there if r.key in won}


def _density(graph: Graph, kernel: Kernel, known: Mapping[str, float]) -> float:
    """The mean over the values that the kernel reads."""
    owner = {value.name: node for node in graph.nodes for value in node.results}
    sources = [owner[name] for name in map(value_name, kernel.operands) if name in owner]
    guessed = [known.get(n.name, GUESSED_DENSITY if n.type.signal.is_event else 1.0) for n in sources]
    return sum(guessed) / len(guessed) if guessed else 1.0


def _merged(same: list[Region]) -> Region:
    first, density = same[0], sum(r.density for r in same) / len(same)
    return Region(first.entry, first.index, first.spec, first.path, density, len(same))
