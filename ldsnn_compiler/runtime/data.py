"""Data between the user and the library: float32, aligned."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from ldsnn_compiler.interp.given import float32_tensor

#: generated code reads whole vectors from addresses that are multiples of this
ALIGNMENT = 64


def as_tensor(x: Any, where: str) -> torch.Tensor:
    """A torch tensor of float32 from torch or numpy data, without a gradient; anything else is an error."""
    return float32_tensor(x, where).detach()


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
