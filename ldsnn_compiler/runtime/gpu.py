"""The GPU of this machine as the place where a network runs."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch

from ldsnn_compiler.runtime import data
from ldsnn_compiler.runtime.device import Host
from ldsnn_compiler.runtime.place import place_of
from ldsnn_compiler.targets.boards import Board


class Cuda(Host):
    """The first CUDA device. Inputs and results are copied to and fro; weights and state stay there."""

    name = "the GPU of this machine"

    def __init__(self, board: Board) -> None:
        self._place = place_of(board)

    @property
    def place(self) -> Any:
        return self._place

    def times(self, vm: Any, entry: str, arguments: Sequence[Any], repeats: int) -> list[float]:
        function = vm[entry]
        function(*arguments)
        self.place.sync()
        return [self._seconds(function, arguments) for _ in range(repeats)]

    def _seconds(self, function: Any, arguments: Sequence[Any]) -> float:
        start = perf_counter()
        function(*arguments)
        self.place.sync()
        return perf_counter() - start

    def put(self, x: torch.Tensor) -> Any:
        import tvm

        if x.is_cuda:
            return tvm.runtime.from_dlpack(x.detach().contiguous())
        return tvm.runtime.tensor(x.detach().contiguous().numpy(), self.place)

    def get(self, x: Any) -> torch.Tensor:
        return data.to_torch(x) if x.device.dlpack_device_type() == 1 else torch.from_numpy(x.numpy())
