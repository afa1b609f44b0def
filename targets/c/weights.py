"""A network's weights as one file: a header that says which code they belong to, then every argument of its kernels.

.. code-block:: text

    byte 0   "LDSNNW01"
    byte 8   identity of the code, 8 bytes
    byte 64  the arguments, each at a multiple of 64 bytes, little-endian

Other weights for the same code (the same network, trained further) are a file of the same identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.targets.c.memory import ALIGNMENT, aligned
from ldsnn_compiler.targets.plan import Buffer

Array = npt.NDArray[Any]

MAGIC = b"LDSNNW01"
IDENTITY_BYTES = 8


@dataclass
class Weights:
    """Arguments by name with their offsets in the file, filled one after the other."""

    offsets: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    size: int = ALIGNMENT
    identity_size: ClassVar[int] = len(MAGIC) + IDENTITY_BYTES

    def add(self, name: str, make: Callable[[], Array]) -> int:
        """The offset of an argument, made and placed behind the others where it is new."""
        if name not in self.offsets:
            array = make()
            self.arrays[name], self.offsets[name] = array, self.size
            self.size += aligned(array.nbytes)
        return self.offsets[name]

    def table(self) -> tuple[tuple[str, int, str, tuple[int, ...]], ...]:
        """(name, offset, dtype, shape) of every argument: what the code takes for granted."""
        return tuple((n, self.offsets[n], str(a.dtype), a.shape) for n, a in self.arrays.items())

    def content(self, identity: bytes) -> bytes:
        """The file."""
        found = bytearray(self.size)
        found[: self.identity_size] = MAGIC + identity
        for name, array in self.arrays.items():
            found[self.offsets[name] : self.offsets[name] + array.nbytes] = array.tobytes()
        return bytes(found)


def exactly(value: torch.Tensor, buffer: Buffer, name: str, batch: int = 1) -> Array:
    """The tensor as an array of the buffer's type, its numbers unchanged; anything else is an error."""
    array = value.detach().contiguous().numpy()
    found = array.astype(np.dtype(buffer.dtype).newbyteorder("<"))
    if found.shape != buffer.sized(batch) or not np.array_equal(found.astype(array.dtype), array, equal_nan=True):
        wanted = f"{buffer.dtype}{list(buffer.sized(batch))}"
        raise LdsnnError(Problem(f"expected {wanted}, found {array.dtype}{list(array.shape)}", where=name))
    return found


def repeated_row(array: Array) -> Array:
    """The row of the last axis that all rows equal, bit for bit; the whole array where they differ."""
    rows = np.ascontiguousarray(array).reshape(-1, array.shape[-1] if array.ndim else 1)
    return rows[0] if all(row.tobytes() == rows[0].tobytes() for row in rows) else array
