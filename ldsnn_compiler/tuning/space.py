"""Loop structures to try for a region, and a way through them: hill climbing from that of the rules of thumb.

One step changes one setting; rows, columns, blocks, registers and prefetching go to the next value up or down, the
order of the loops to any other. Where no step helps, the climb looks at random places, and goes on from one that does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, prod
from typing import Any, Protocol

from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Tuning
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, input_range, words
from ldsnn_compiler.targets.cpu.kernels.task import summed
from ldsnn_compiler.targets.cpu.kernels.tune import current_bytes

STEP = 0.99
"""The climb goes on from what takes at most this share of the time."""
_LENGTHS = (1, 2, 4, 7, 8, 16)
_REGISTERS = (8, 12, 16, 24, 28)
_BLOCKS = (64, 128, 256)
_AHEAD = (0, 1, 2)
_RANDOM_DRAWS = 50


class Choices(Protocol):
    """What a climb goes through; ``spec`` has the tuning of the rules of thumb."""

    @property
    def spec(self) -> RegionSpec:
        """The region."""

    def neighbours(self, at: Tuning) -> Iterator[Tuning]:
        """What is one step away."""

    def draw(self, random_: random.Random) -> Tuning:
        """Anywhere."""


Measure = Callable[[Tuning], float]
"""Time of a region, relative to that of the rules of thumb; infinite for what is out of the question."""


@dataclass(frozen=True)
class Space:
    """The loop structures of a region: ``spec`` with that of the rules of thumb. ``cache_bytes``: what the currents of
    one task may take. All of them add the same numbers in the same order, so that results are the same to the bit."""

    spec: RegionSpec
    cache_bytes: int

    @cached_property
    def axes(self) -> dict[str, list[dict[str, Any]]]:
        """By name of an axis the settings along it, in order, each as changes of a tuning."""
        height, width = self.spec.space
        start = self.spec.tuning
        found: dict[str, list[dict[str, Any]]] = {
            "rows": [{"rows": n} for n in _lengths(height, start.tile[0])],
            "columns": [{"columns": n} for n in _lengths(width, start.tile[1])],
            "order": self._orders(),
            "block": [{"block": b} for b in sorted({*_BLOCKS, start.block}) if b < self._widest + WORD],
            "outer": [{"outer": "block"}, {"outer": "tile"}] if self.spec.channels > WORD else [],
            "dots": [{"dots": start.dots}, {"dots": ()}] if start.dots and self._multiplies else [],
            "prefetch": [{"prefetch": n} for n in _AHEAD] if self._walks else [],
            "registers": [{"registers": n} for n in sorted({*_REGISTERS, start.registers})] if self._multiplies else [],
        }
        return {name: values for name, values in found.items() if len(values) > 1}

    def neighbours(self, at: Tuning) -> Iterator[Tuning]:
        """What is one step away, the most promising axes first; each once, and none that is the same code as ``at``."""
        seen = {self._known(at)}
        for name, values in self.axes.items():
            now = _settings(at)
            here = next((i for i, v in enumerate(values) if all(now[k] == x for k, x in v.items())), None)
            near = values if name == "order" or here is None else values[max(0, here - 1) : here + 2]
            for change in near:
                made = self._changed(at, change)
                if self._fits(made) and self._known(made) not in seen:
                    seen.add(self._known(made))
                    yield made

    def draw(self, random_: random.Random) -> Tuning:
        """Anywhere."""
        made = self.spec.tuning
        for values in self.axes.values():
            made = self._changed(made, random_.choice(values))
        return made if self._fits(made) else self.spec.tuning

    @property
    def _walks(self) -> list[int]:
        """Words of one kernel position of every source whose spikes are walked."""
        return [words(input_range(self.spec, s, 0)[1]) for s in self.spec.sources if self.spec.walks_bits(s)]

    @property
    def _multiplies(self) -> bool:
        return any(s.kind == "conv" and not self.spec.walks_bits(s) for s in self.spec.sources)

    @property
    def _widest(self) -> int:
        return ceil(self.spec.channels / WORD) * WORD

    @property
    def _order_counts(self) -> bool:
        """Whether the order of the loops decides in which order real numbers are added: where events of several steps
        are summed, and whole numbers are not what is added."""
        rounds = self.spec.accumulator == "float32"
        return rounds and any(self.spec.walks_bits(s) and summed(self.spec, s) > 1 for s in self.spec.sources)

    def _orders(self) -> list[dict[str, Any]]:
        if not self._walks or self._order_counts:
            return []
        slabs = [{"order": "word", "words": n} for n in (1, 2, 4) if n == 1 or n < max(self._walks)]
        return [{"order": "pixel", "words": 1}, {"order": "tap", "words": 1}, *slabs]

    def _changed(self, at: Tuning, change: dict[str, Any]) -> Tuning:
        rows, columns = change.get("rows", at.tile[0]), change.get("columns", at.tile[1])
        rest = {k: v for k, v in change.items() if k not in ("rows", "columns")}
        made = replace(at, tile=(rows, columns), **rest)
        return replace(made, prefetch=0) if made.order == "pixel" else made

    def _known(self, tuning: Tuning) -> Tuning:
        """The tuning with the block that it comes to: equal ones are the same code."""
        return replace(tuning, block=replace(self.spec, tuning=tuning).block // WORD * WORD or WORD)

    def _fits(self, tuning: Tuning) -> bool:
        return current_bytes(replace(self.spec, tuning=tuning)) <= self.cache_bytes


def _lengths(extent: int, start: int) -> list[int]:
    return sorted({min(extent, n) for n in (*_LENGTHS, extent)} | {start})


def _settings(tuning: Tuning) -> dict[str, Any]:
    return {**vars(tuning), "rows": tuning.tile[0], "columns": tuning.tile[1]}


def size(space: Space) -> int:
    """Combinations along all axes, as an upper bound of what there is to try."""
    return prod(len(values) for values in space.axes.values())


def climb(space: Choices, measure: Measure, trials: int, seed: int = 0) -> dict[Tuning, float]:
    """Try up to ``trials`` loop structures; gives the relative time of each, the rule of thumb's own (1) among them.

    The way depends on the times and the seed alone.
    """
    random_, best = random.Random(seed), space.spec.tuning
    times: dict[Tuning, float] = {best: 1.0}

    def is_better(each: Tuning) -> bool:
        if each in times:
            return False
        times[each] = measure(each)
        return times[each] <= STEP * times[best]

    while len(times) <= trials:
        tried = len(times)
        near = (n for n in space.neighbours(best) if len(times) <= trials)
        found = next((n for n in near if is_better(n)), None)
        if found is None and len(times) == tried:
            drawn = (space.draw(random_) for _ in range(_RANDOM_DRAWS))
            fresh = next((d for d in drawn if d not in times), None)
            if fresh is None:
                break
            found = fresh if is_better(fresh) else None
        best = found or best
    return times
