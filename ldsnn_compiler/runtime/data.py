"""Data between the user and the library: checked, in the layout ``[T, N, *shape]``, float32, aligned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Node

#: generated code reads whole vectors from addresses that are multiples of this
ALIGNMENT = 64


def as_tensor(x: Any, node: Node) -> torch.Tensor:
    """A torch tensor of float32 from torch or numpy data; anything else is an error that names what was found."""
    where = node.path or node.name
    if isinstance(x, np.ndarray):
        if x.dtype != np.float32:
            raise LdsnnError(Problem(f"expected float32 data, found {x.dtype}", where=where))
        return torch.from_numpy(np.ascontiguousarray(x))
    if not isinstance(x, torch.Tensor):
        raise LdsnnError(Problem(f"expected a torch tensor or a numpy array, found {type(x).__name__}", where=where))
    if x.dtype != torch.float32:
        raise LdsnnError(Problem(f"expected float32 data, found {str(x.dtype).removeprefix('torch.')}", where=where))
    return x.detach()


def check_count(nodes: Sequence[Node], inputs: Sequence[Any]) -> None:
    """As many inputs as the network has."""
    if len(inputs) != len(nodes):
        raise LdsnnError(f"the network takes {len(nodes)} input{'s' * (len(nodes) != 1)}, found {len(inputs)}")


def check(node: Node, x: torch.Tensor, steps: int | None, batch: int | None) -> None:
    """``x`` is ``[steps, batch, *shape]``; None allows any."""
    expected = [steps if steps is not None else "T", batch if batch is not None else "N", *node.type.shape]
    fits = x.ndim == len(expected) and all(e == d or isinstance(e, str) for e, d in zip(expected, x.shape, strict=True))
    if not fits or 0 in x.shape:
        text = f"expected data of shape [{', '.join(map(str, expected))}], found {list(x.shape)}"
        raise LdsnnError(Problem(text, where=node.path or node.name))


def one_batch(inputs: Sequence[torch.Tensor], nodes: Sequence[Node]) -> int:
    """The batch that all inputs share."""
    sizes = {x.shape[1] for x in inputs}
    if len(sizes) > 1:
        found = ", ".join(f"{n.path or n.name}: {x.shape[1]}" for n, x in zip(nodes, inputs, strict=True))
        raise LdsnnError(f"inputs differ in batch: {found}")
    return sizes.pop() if sizes else 1


def to_tvm(x: torch.Tensor) -> Any:
    """A TVM tensor over the same memory, copied first if it is not contiguous or not aligned."""
    import tvm

    x = x.detach().contiguous()
    if x.data_ptr() % ALIGNMENT:
        x = x.clone()
    return tvm.runtime.from_dlpack(x) if x.data_ptr() % ALIGNMENT == 0 else tvm.runtime.tensor(x.numpy())


def to_torch(x: Any) -> torch.Tensor:
    """A torch tensor over a TVM tensor's memory."""
    return from_dlpack(x)
