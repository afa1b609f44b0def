"""What a caller may give a network as data, the same for the interpreter and for compiled code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ldsnn_compiler.errors import LdsnnError, Problem


def float32_tensor(x: Any, where: str) -> torch.Tensor:
    """A dense torch tensor of float32 from torch or numpy data; an error says what was found at the input ``where``."""
    if not isinstance(x, torch.Tensor | np.ndarray):
        raise LdsnnError(Problem(f"expected a torch tensor or a numpy array, found {type(x).__name__}", where=where))
    found = str(x.dtype).removeprefix("torch.")
    if found != "float32":
        hint = "x.float()" if isinstance(x, torch.Tensor) else "x.astype(np.float32)"
        raise LdsnnError(Problem(f"expected float32 data, found {found}", where=where, hint=hint))
    if isinstance(x, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(x))
    if x.layout != torch.strided:
        message = f"expected dense data, found {str(x.layout).removeprefix('torch.')}"
        raise LdsnnError(Problem(message, where=where, hint="x.to_dense()"))
    return x
