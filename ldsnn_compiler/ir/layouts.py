"""How a network's caller lays out time and batch: the attribute ``time`` of its inputs and outputs.

===============  ==================  =================================================
``time``         the caller's shape  meaning
===============  ==================  =================================================
``static``       ``[N, *shape]``     an input of one value for the whole run
``squeeze``      ``[N, *shape]``     an output of one value for the whole run
``sequence``     ``[T, N, *shape]``  as the network itself runs
``batch_first``  ``[N, T, *shape]``  each sample's timesteps together
``folded``       ``[N*T, *shape]``   the same with one axis for both, as frames of a CNN
===============  ==================  =================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from ldsnn_compiler.ir.graph import Node

IN_TIME = ("sequence", "batch_first", "folded")
INPUTS = ("static", *IN_TIME)
OUTPUTS = ("squeeze", *IN_TIME)
BATCH_MAJOR = ("batch_first", "folded")


def to_run(node: Node, x: Tensor, timesteps: int | None = None) -> Tensor:
    """The caller's data for an input, or what he expects of an output, as ``[T, N, *shape]``.

    ``timesteps`` of what is folded, where those are not the node's own.

    Raises:
        LdsnnError: folded rows are no multiple of the timesteps.
    """
    steps = timesteps or (*node.results, *node.operands)[0].type.timesteps
    found: Tensor = time_first(x, node["time"], steps, node.path or node.name)
    return found


def to_caller(node: Node, x: Tensor) -> Tensor:
    """The inverse of :func:`to_run`."""
    found: Tensor = as_called(x, node["time"])
    return found


def time_first(x: Any, time: str, steps: int, where: str) -> Any:
    """A torch or numpy array laid out as ``time`` says, as ``[T, N, *shape]``; an error names ``where``."""
    if time in ("static", "squeeze"):
        return x[None]
    if time == "folded" and x.ndim > 0:
        if x.shape[0] % steps:
            message = f"expected a multiple of {steps} rows, the timesteps, found {x.shape[0]}"
            raise LdsnnError(Problem(message, where=where))
        x = x.reshape(-1, steps, *x.shape[1:])
    return x.swapaxes(0, 1) if time in BATCH_MAJOR and x.ndim > 1 else x


def as_called(x: Any, time: str) -> Any:
    """The inverse of :func:`time_first`."""
    if time in ("static", "squeeze"):
        return x[0]
    if time not in BATCH_MAJOR:
        return x
    x = x.swapaxes(0, 1)
    return x if time == "batch_first" else x.reshape(-1, *x.shape[2:])
