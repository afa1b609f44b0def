"""The machine code of a network: fresh from the compiler, or from the bytes of a bundle's library."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Library:
    """``module`` is what TVM's virtual machine runs; ``content`` the bytes it was loaded from, if it was."""

    module: Any
    content: bytes | None = None

    @classmethod
    def of_bytes(cls, content: bytes) -> Library:
        """Load from bytes, through a file of its own: the loader knows libraries by path and may return an old one."""
        import tvm

        with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
            path = Path(scratch) / "net.so"
            path.write_bytes(content)
            return cls(tvm.runtime.load_module(str(path)), content)

    def write(self, path: Path) -> None:
        """Write a shared library."""
        if self.content is not None:
            path.write_bytes(self.content)
        else:
            self.module.export_library(str(path))
