"""Ways to cut a region into blocks of a GPU: what there is to try where :mod:`.space` has loop structures of a CPU."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from math import ceil

from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Tuning
from ldsnn_compiler.targets.cuda.gpu import Gpu
from ldsnn_compiler.targets.cuda.kernels.launch import (
    MOST_SHARED_BYTES,
    MOST_THREADS,
    Launch,
    is_matrix,
    launch,
    most_parts,
)

_POWERS = (1, 2, 4, 8)
_ROWS = (1, 2, 4, 8, 16, 32)
_ROWS_OF_MATRIX = 16


@dataclass(frozen=True)
class Launches:
    """The launches of a region on a GPU: ``spec`` with its batch and the rules of thumb, which a tuning without a
    launch stands for. All of them add the same numbers in the same order: real numbers are split as the rules of thumb
    say, whole ones anyhow."""

    spec: RegionSpec
    gpu: Gpu

    @cached_property
    def start(self) -> Launch:
        """That of the rules of thumb."""
        return launch(self.spec, self.gpu.multiprocessors)

    @cached_property
    def axes(self) -> dict[str, list[int]]:
        """By setting of a launch its values, in order."""
        spec, start = self.spec, self.start
        walks = any(spec.walks_bits(s) for s in spec.sources)
        values: dict[str, tuple[int, ...]] = {"tile": _POWERS}
        if self._is_matrix:
            values["matrices"] = (1, 2)
        else:
            values |= {"rows": _ROWS, "width": (1, 2, 4), "unroll" if walks else "times": _POWERS}
        if spec.accumulator != "float32":
            values["splits"] = tuple(n for n in _POWERS if n <= most_parts(spec))
        found = {name: sorted({*given, getattr(start, name)}) for name, given in values.items()}
        return {name: given for name, given in found.items() if len(given) > 1}

    def neighbours(self, at: Tuning) -> Iterator[Tuning]:
        """What is one step along an axis away."""
        now = Launch(*at.launch) if at.launch else self.start
        for name, values in self.axes.items():
            here = values.index(getattr(now, name))
            for value in values[max(0, here - 1) : here] + values[here + 1 : here + 2]:
                made = self._whole(replace(now, **{name: value}))
                if self._fits(made):
                    yield self._tuning(made)

    def draw(self, random_: random.Random) -> Tuning:
        """Anywhere."""
        made = self._whole(replace(self.start, **{name: random_.choice(values) for name, values in self.axes.items()}))
        return self._tuning(made if self._fits(made) else self.start)

    @property
    def _is_matrix(self) -> bool:
        return any(is_matrix(self.spec, s) for s in self.spec.sources)

    def _whole(self, made: Launch) -> Launch:
        """On tensor cores with as many warps as the tile has rows for."""
        if not self._is_matrix:
            return made
        return replace(made, rows=ceil(made.tile * self.spec.timesteps / (_ROWS_OF_MATRIX * made.matrices)))

    def _fits(self, made: Launch) -> bool:
        fits = made.threads(self.spec) <= MOST_THREADS and made.shared_bytes(self.spec) <= MOST_SHARED_BYTES
        return fits and self.spec.block % made.width == 0

    def _tuning(self, made: Launch) -> Tuning:
        return replace(self.spec.tuning, launch=() if made == self.start else astuple(made))
