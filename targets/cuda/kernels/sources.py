"""The first phase of a block: every source adds its current for all positions and timesteps of the tile."""

from __future__ import annotations

from ldsnn_compiler.targets.cpu.kernels.spec import RegionSpec, Source
from ldsnn_compiler.targets.cpu.kernels.task import steps
from ldsnn_compiler.targets.cuda.kernels.currents import Adder, Dense, Events, Shortcut
from ldsnn_compiler.targets.cuda.kernels.dots import Dots
from ldsnn_compiler.targets.cuda.kernels.matrix import Matrix
from ldsnn_compiler.targets.cuda.kernels.region import Block, barrier


def emit(block: Block) -> None:
    """All sources. Each slot of a current belongs to one thread, the same for all kinds but matrices, so that those may
    follow each other unannounced."""
    started: set[int] = set()
    before: type[Adder] | None = None
    for i, source in enumerate(block.spec.sources):
        rate, kind = steps(block.spec, source), adder(block.spec, source)
        if before not in (None, kind) and Matrix in (before, kind):
            barrier()
        kind(block, source, i, rate not in started).emit()
        started.add(rate)
        before = kind


def adder(spec: RegionSpec, source: Source) -> type[Adder]:
    """What adds a source's current."""
    if source.kind != "conv":
        return Shortcut
    if spec.walks_bits(source):
        return Events
    dot = spec.dot(source)
    if dot is None:
        return Dense
    return Matrix if dot.is_matrix else Dots
