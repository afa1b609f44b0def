"""Data between the user and the library: float32, aligned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from ldsnn_compiler.errors import LdsnnError, Problem

#: generated code reads whole vectors from addresses that are multiples of this
ALIGNMENT = 64


def as_tensor(x: Any, where: str) -> torch.Tensor:
    """A torch tensor of float32 from torch or numpy data; anything else is an error that names what was found."""
    if isinstance(x, np.ndarray):
        if x.dtype != np.float32:
            raise LdsnnError(Problem(f"expected float32 data, found {x.dtype}", where=where))
        return torch.from_numpy(np.ascontiguousarray(x))
    if not isinstance(x, torch.Tensor):
        raise LdsnnError(Problem(f"expected a torch tensor or a numpy array, found {type(x).__name__}", where=where))
    if x.dtype != torch.float32:
        raise LdsnnError(Problem(f"expected float32 data, found {str(x.dtype).removeprefix('torch.')}", where=where))
    return x.detach()


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
