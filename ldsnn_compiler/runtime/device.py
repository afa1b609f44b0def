"""Where a compiled network runs: this process (:class:`Host`), or a board behind TVM's RPC
(:class:`~ldsnn_compiler.runtime.remote.Remote`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any, Protocol

import torch

from ldsnn_compiler.runtime import data
from ldsnn_compiler.runtime import threads as pool
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.runtime.place import is_gpu
from ldsnn_compiler.targets.boards import Board

LEAST_MS = 2
"""Milliseconds over which short calls are repeated for one time."""
FLUSH = "cache_flush_cpu_non_first_arg"

Entry = Callable[..., Sequence[Any]]
"""A function of the library: tensors of its device in, tensors of its device out."""


class Device(Protocol):
    """What :class:`~ldsnn_compiler.runtime.compiled.Compiled` and tuning ask of the machine that does the work."""

    @property
    def name(self) -> str:
        """For people: where that is."""

    @property
    def place(self) -> Any:
        """TVM's device, on which results are allocated."""

    def missing(self, board: Board) -> tuple[str, ...]:
        """What the machine lacks to run code made for a board, as far as it can be asked."""

    @property
    def is_here(self) -> bool:
        """Whether that is this process, so that the virtual machine can call back."""

    def use(self, threads: int) -> None:
        """Let the next calls run on this many threads (or as many as there are)."""

    def load(self, library: Library) -> Any:
        """The module there, with the library's functions."""

    def machine(self, module: Any, entries: Sequence[str]) -> tuple[Any, Mapping[str, Entry]]:
        """TVM's virtual machine over a network's module, and its entries as functions."""

    def times(self, vm: Any, entry: str, arguments: Sequence[Any], repeats: int) -> list[float]:
        """Seconds that whole calls of an entry take, one after the other, measured there."""

    def talking(self, what: str) -> AbstractContextManager[None]:
        """Within, errors of the connection become those of this package, which say what failed."""

    def put(self, x: torch.Tensor) -> Any:
        """A tensor there; on the host it may share ``x``'s memory."""

    def get(self, x: Any) -> torch.Tensor:
        """A tensor here; on the host it shares ``x``'s memory."""


class Host:
    """This process."""

    name = "here"
    is_here = True

    @property
    def place(self) -> Any:
        import tvm

        return tvm.cpu()

    def missing(self, board: Board) -> tuple[str, ...]:
        return board.missing()

    def use(self, threads: int) -> None:
        pool.use(threads)

    def load(self, library: Library) -> Any:
        module = library.module
        return module.jit() if hasattr(module, "jit") else module  # as the compiler gives it, or as it was loaded

    def machine(self, module: Any, entries: Sequence[str]) -> tuple[Any, Mapping[str, Entry]]:
        from tvm import relax

        vm = relax.VirtualMachine(module, self.place)
        return vm, {entry: vm[entry] for entry in entries}

    def times(self, vm: Any, entry: str, arguments: Sequence[Any], repeats: int) -> list[float]:
        function = vm[entry]
        function(*arguments)
        return [_seconds(function, arguments) for _ in range(repeats)]

    def talking(self, what: str) -> AbstractContextManager[None]:
        return nullcontext()

    def put(self, x: torch.Tensor) -> Any:
        return data.to_tvm(x)

    def get(self, x: Any) -> torch.Tensor:
        return data.to_torch(x)


def kernel_times(
    device: Device, module: Any, symbol: str, arguments: Sequence[Any], repeats: int, cold: bool = False
) -> list[float]:
    """Seconds of a call of one of a module's functions, measured there by TVM's own loop, ``repeats`` times.

    Warm times are means over :data:`LEAST_MS`; before a cold one all arguments but the first are flushed from the
    caches: inputs are warm in a network, weights need not be.
    """
    options: dict[str, Any] = {"f_preproc": FLUSH} if cold else {"min_repeat_ms": LEAST_MS}
    with device.talking("timing"):
        evaluate = module.time_evaluator(symbol, device.place, number=1, repeat=repeats, **options)
        return list(evaluate(*arguments).results)


def _seconds(function: Any, arguments: Sequence[Any]) -> float:
    start = perf_counter()
    function(*arguments)
    return perf_counter() - start


def here(board: Board) -> Device:
    """This process, or the GPU of this machine for code that runs there."""
    if not is_gpu(board) or board.missing():
        return Host()
    from ldsnn_compiler.runtime.gpu import Cuda

    return Cuda(board)
