"""Where rows run and who holds the watch: a GPU, or, for a rehearsal of all that needs none, this machine's CPU."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.results import Latency

Run = Callable[[], Tensor]
WARM_UP = 10
#: where a row stops being repeated
MOST_SECONDS = 3.0


class Machine(ABC):
    """``device``: PyTorch's name of where its rows run. ``is_rehearsal``: there is no GPU, and rows that ask for one
    are left out."""

    device: ClassVar[str]
    is_rehearsal: ClassVar[bool]

    @abstractmethod
    def timed(self, call: Run, repeats: int) -> Latency:
        """Milliseconds of single calls, after a warm-up."""

    @abstractmethod
    def kernels(self, call: Run) -> dict[str, float]:
        """Microseconds of every kernel in one run, from the device's own trace."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a result says of it: ``device``, the name of what the times are of, and more."""

    @abstractmethod
    def tidy(self) -> None:
        """Give back the memory of what is no longer used."""


class Cuda(Machine):
    """This machine's first CUDA device; where there is none an error says so."""

    device, is_rehearsal = "cuda", False

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            hint = "python -m ldsnn_compiler.bench.gpu prepare FOLDER compiles here what a machine with one then runs"
            raise LdsnnError(Problem("no CUDA device here, or a PyTorch that cannot use it", where="bench", hint=hint))

    def timed(self, call: Run, repeats: int) -> Latency:
        """Between two events on the stream."""
        for _ in range(WARM_UP):
            call()
        torch.cuda.synchronize()
        times: list[float] = []
        while len(times) < repeats and sum(times) < MOST_SECONDS * 1e3:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            call()
            after.record()
            after.synchronize()
            times.append(before.elapsed_time(after))
        return Latency(tuple(times))

    def kernels(self, call: Run) -> dict[str, float]:
        """From CUDA's trace."""
        from torch.profiler import ProfilerActivity, profile

        call()
        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            call()
            torch.cuda.synchronize()
        return {e.key: round(e.device_time_total, 2) for e in trace.key_averages()}

    def facts(self) -> dict[str, Any]:
        """As PyTorch tells them."""
        found = torch.cuda.get_device_properties(0)
        return {
            "device": found.name,
            "device_memory_gib": round(found.total_memory / 2**30, 1),
            "multiprocessors": found.multi_processor_count,
        }

    def tidy(self) -> None:
        """Cached blocks too."""
        gc.collect()
        torch.cuda.empty_cache()


class Rehearsal(Machine):
    """The CPU: times say nothing of a GPU."""

    device, is_rehearsal = "cpu", True

    def timed(self, call: Run, repeats: int) -> Latency:
        """By the clock, after one call."""
        call()
        times: list[float] = []
        while len(times) < repeats and sum(times) < MOST_SECONDS * 1e3:
            before = perf_counter()
            call()
            times.append((perf_counter() - before) * 1e3)
        return Latency(tuple(times))

    def kernels(self, call: Run) -> dict[str, float]:
        """None is traced."""
        return {}

    def facts(self) -> dict[str, Any]:
        """That it is none."""
        return {"device": "no GPU: a rehearsal on a CPU"}

    def tidy(self) -> None:
        """As Python does."""
        gc.collect()
