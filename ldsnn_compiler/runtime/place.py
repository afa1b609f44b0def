"""The device on which code for a board runs in this process."""

from __future__ import annotations

from typing import Any

from ldsnn_compiler.targets.boards import Board


def is_gpu(board: Board) -> bool:
    """Whether its code runs on a GPU."""
    return board.gpu is not None and not board.gpu.emulated


def place_of(board: Board) -> Any:
    """TVM's device, its run time loaded."""
    import tvm

    if not is_gpu(board):
        return tvm.cpu()
    from ldsnn_compiler.targets.cuda.embed import load_runtime

    load_runtime()
    return tvm.cuda()
