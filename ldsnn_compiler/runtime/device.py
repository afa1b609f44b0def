"""Where a compiled network runs: this process (:class:`Host`), or a board behind TVM's RPC
(:class:`~ldsnn_compiler.runtime.remote.Remote`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from ldsnn_compiler.runtime import data, threads
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.targets.boards import Board

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

    def use(self, threads: int) -> None:
        """Let the next calls run on this many threads (or as many as there are)."""

    def load(self, library: Library) -> Any:
        """The module there, with the library's functions."""

    def machine(self, module: Any, entries: Sequence[str]) -> tuple[Any, Mapping[str, Entry]]:
        """TVM's virtual machine over a network's module, and its entries as functions."""

    def put(self, x: torch.Tensor) -> Any:
        """A tensor there; on the host it may share ``x``'s memory."""

    def get(self, x: Any) -> torch.Tensor:
        """A tensor here; on the host it shares ``x``'s memory."""


class Host:
    """This process."""

    name = "here"

    @property
    def place(self) -> Any:
        import tvm

        return tvm.cpu()

    def missing(self, board: Board) -> tuple[str, ...]:
        return board.missing()

    def use(self, threads_: int) -> None:
        threads.use(threads_)

    def load(self, library: Library) -> Any:
        module = library.module
        return module.jit() if hasattr(module, "jit") else module  # as the compiler gives it, or as it was loaded

    def machine(self, module: Any, entries: Sequence[str]) -> tuple[Any, Mapping[str, Entry]]:
        from tvm import relax

        vm = relax.VirtualMachine(module, self.place)
        return vm, {entry: vm[entry] for entry in entries}

    def put(self, x: torch.Tensor) -> Any:
        return data.to_tvm(x)

    def get(self, x: Any) -> torch.Tensor:
        return data.to_torch(x)
