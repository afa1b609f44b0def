"""Loop structure from rules of thumb: what tuning starts from, and what an untuned compile uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from math import ceil, prod
from typing import Any

from ldsnn_compiler import cache
from ldsnn_compiler.targets.cpu.kernels.numbers import BYTES
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, Pair, RegionSpec, Tuning, weight_shape
from ldsnn_compiler.targets.cpu.kernels.task import steps

#: 32-bit numbers a vector register holds -> (channels per task, accumulators of the dense loops)
_REGISTERS = {32: (256, 24), 16: (128, 24), 8: (64, 12), 4: (64, 24)}
#: density that the reuse of a weight row is guessed from
_DENSITY = 0.1


def tuned(
    spec: RegionSpec, cores: int = 2, lanes: int = 16, l2_bytes: int = 1 << 20, dots: tuple[str, ...] = ()
) -> RegionSpec:
    """The region with a :class:`~.spec.Tuning` chosen for its shape and a machine with ``cores``, that L2 per core and
    the instructions ``dots``."""
    block, registers = _REGISTERS[lanes]
    block *= spec.lanes // spec.tuning.lanes
    candidates = [
        _with(spec, Tuning(lanes=lanes, registers=registers, block=b, tile=tile, dots=dots))
        for b in sorted({block, max(WORD, block // 2)}, reverse=True)
        for tile in _tiles(spec)
    ]
    fitting = [c for c in candidates if current_bytes(c) <= l2_bytes // 4] or candidates[:1]
    best = min(fitting, key=lambda c: _cost(c, cores, block))
    return _with(best, _ordered(best, l2_bytes))


def region_key(spec: RegionSpec) -> str:
    """Short name of a region that :func:`tuned` gave: what measured loop structures are kept under."""
    return cache.digest(repr(spec))


def read_tuning(values: Mapping[str, Any]) -> Tuning:
    """The loop structure that :func:`dataclasses.asdict` wrote; settings that there are no more are left out."""
    known = {f.name for f in fields(Tuning)}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    return Tuning(**given)


def _with(spec: RegionSpec, tuning: Tuning) -> RegionSpec:
    return replace(spec, tuning=tuning)


def _tiles(spec: RegionSpec) -> Iterator[Pair]:
    height, width = spec.space
    is_event = any(spec.walks_bits(s) for s in spec.sources)
    rows = sorted({min(height, r) for r in ((1, 2, 4, 8, 16) if is_event else (1, 2))})
    for r in rows:
        for c in sorted({min(width, c) for c in (1, 2, 4, 7, 8, 16)}):
            yield r, c


def current_bytes(spec: RegionSpec) -> int:
    """Scratch memory of one task's currents."""
    rates = {steps(spec, s) for s in spec.sources}
    return BYTES[spec.accumulator] * spec.parts * sum(rates) * prod(spec.tuning.tile) * spec.block


def _cost(spec: RegionSpec, cores: int, widest: int) -> float:
    """Relative time: uneven shares, weights fetched again for each tile, loop overhead of narrow blocks."""
    (height, width), (rows, columns) = spec.space, spec.tuning.tile
    tiles = ceil(height / rows) * ceil(width / columns)
    tasks = spec.blocks * tiles * (spec.batch or 1)
    uneven = ceil(tasks / cores) * cores / tasks
    padding = tiles * rows * columns / (height * width) * spec.blocks * spec.block / spec.channels
    rates = max((steps(spec, s) for s in spec.sources), default=1)
    is_event = any(spec.walks_bits(s) for s in spec.sources)
    uses = rows * columns * rates * (_DENSITY if is_event else 1.0)
    narrow = 1.0 + 0.2 * (min(widest, spec.channels) / spec.block - 1.0)
    return uneven * padding * (1.0 + 1.0 / uses) * max(1.0, narrow)


def _ordered(spec: RegionSpec, l2_bytes: int) -> Tuning:
    """Slabs of weights pay once enough pixels and timesteps pass through each."""
    event = [s for s in spec.sources if spec.walks_bits(s)]
    visits = prod(spec.tuning.tile) * max((steps(spec, s) for s in event), default=0)
    if visits < 16:
        return spec.tuning
    weights = sum(BYTES[s.weights] * prod(weight_shape(spec, s)) for s in event)
    return replace(spec.tuning, order="word", words=1, prefetch=1 if weights > l2_bytes else 0)
