"""Measuring: a region with the loop structure of the rules of thumb beside the same with another one.

Both are compiled for the network's board and run on its device, here or over RPC, on the region's own weights and
random inputs of its density. They must give the same bits. They are timed in turn, round after round, warm and with
the caches flushed, so that a machine that slows down for a while slows both.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.runtime.compiled import Compiled
from ldsnn_compiler.runtime.device import Device, kernel_times
from ldsnn_compiler.runtime.gpu import Cuda
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.runtime.remote import ConnectionLost
from ldsnn_compiler.targets.build import kernel_library
from ldsnn_compiler.targets.cpu.kernels import Tuning
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Buffer
from ldsnn_compiler.tuning.database import Comparison
from ldsnn_compiler.tuning.operands import operand, types_of
from ldsnn_compiler.tuning.regions import Region

COLD_CALLS = 3
"""A cold time is the median of so many calls, the caches flushed before each."""
SYMBOL = "region"


@dataclass(frozen=True)
class Loaded:
    """A region's code on its device, with the arguments of a call."""

    device: Device
    module: Any
    arguments: tuple[Any, ...]
    results: tuple[Any, ...]

    def outputs(self) -> list[torch.Tensor]:
        """What one call computes."""
        with self.device.talking("running a region"):
            self.module[SYMBOL](*self.arguments, *self.results)
        return [self.device.get(y).clone() for y in self.results]


Timer = Callable[[Loaded, bool], float]
"""Milliseconds of a call of loaded code; the flag asks for cold caches."""


class Bench(Protocol):
    """What the search asks."""

    def compare(self, region: Region, tuning: Tuning, rounds: int) -> Comparison:
        """The region with ``tuning`` beside that with the loop structure of the rules of thumb."""


def timed(loaded: Loaded, cold: bool) -> float:
    """On the device, see :func:`~ldsnn_compiler.runtime.device.kernel_times`. A GPU's cache holds a network's weights
    from one run to the next, and is not flushed."""
    cold = cold and not isinstance(loaded.device, Cuda)
    arguments, calls = (*loaded.arguments, *loaded.results), COLD_CALLS if cold else 1
    return median(kernel_times(loaded.device, loaded.module, SYMBOL, arguments, calls, cold)) * 1e3


class DeviceBench:
    """Compiles for the board of a compiled network and measures on the device that it runs on; ``timer`` is for
    tests."""

    def __init__(self, network: Compiled, timer: Timer = timed) -> None:
        self._network, self._timer = network, timer
        self._types = types_of(network.graph)
        self._usual: dict[str, tuple[Loaded, list[torch.Tensor]]] = {}

    def compare(self, region: Region, tuning: Tuning, rounds: int) -> Comparison:
        usual, wanted = self._usual_of(region)
        try:
            other = self._loaded(region, tuning)
            found = other.outputs()
        except ConnectionLost:
            raise
        except (RuntimeError, ValueError, LdsnnError) as error:  # whatever TVM says to code that it cannot make
            return Comparison(wrong=f"does not compile or run: {str(error).strip().splitlines()[-1]}")
        if not all(_same_bits(a, b) for a, b in zip(found, wanted, strict=True)):
            return Comparison(wrong="gives other results")
        self._network.device.use(self._network.settings.threads)
        pairs = [[(self._timer(usual, c), self._timer(other, c)) for c in (False, True)] for _ in range(rounds)]
        return Comparison(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))

    def _usual_of(self, region: Region) -> tuple[Loaded, list[torch.Tensor]]:
        """That of the rules of thumb with its results; the last region's is kept."""
        if region.key not in self._usual:
            loaded = self._loaded(region, region.spec.tuning)
            self._usual = {region.key: (loaded, loaded.outputs())}
        return self._usual[region.key]

    def _loaded(self, region: Region, tuning: Tuning) -> Loaded:
        graph, settings, device = self._network.graph, self._network.settings, self._network.device
        made = plan(graph, settings.board, region.entry, {region.key: tuning})
        kernel, batch = made.kernels[region.index], settings.batch or 1
        built = kernel_library({SYMBOL: kernel}, settings.board, settings.batch, settings.threads)
        random = np.random.default_rng(zlib.crc32(region.key.encode()))
        given = [operand(made, name, self._types, region.density, random, batch) for name in kernel.operands]
        rubbish = [_rubbish(made.buffers[name], batch) for name in kernel.results]
        device.use(settings.threads)
        return Loaded(
            device,
            device.load(Library(built, board=settings.board)),
            tuple(map(device.put, given)),
            tuple(map(device.put, rubbish)),
        )


def _rubbish(buffer: Buffer, batch: int) -> torch.Tensor:
    """What nothing computes: code that leaves its results as they were is found out."""
    return (
        torch.from_numpy(np.full(prod(buffer.sized(batch)) * np.dtype(buffer.dtype).itemsize, 0xA5, np.uint8))
        .view(getattr(torch, buffer.dtype))
        .reshape(buffer.sized(batch))
    )


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bytes, so that NaN is NaN and 0 is not -0."""
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
