"""The machine code of a network: fresh from the compiler, or the bytes of a bundle's library."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ldsnn_compiler.targets.boards import Board


@dataclass(frozen=True)
class Library:
    """``built`` is what the compiler gives for a ``board``, ``content`` the bytes of a shared library: one of them is
    there.
    """

    built: Any = None
    content: bytes | None = None
    board: Board | None = None

    @cached_property
    def module(self) -> Any:
        """What TVM's virtual machine runs in this process."""
        return self.built if self.content is None else _loaded(self.content)

    def write(self, path: Path) -> None:
        """Write a shared library."""
        if self.content is not None:
            path.write_bytes(self.content)
        else:
            from ldsnn_compiler.targets.link import export

            export(self.built, str(path), self.board)


def _loaded(content: bytes) -> Any:
    """Load from bytes, through a file of its own: the loader knows libraries by path and may return an old one."""
    import tvm

    with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
        path = Path(scratch) / "net.so"
        path.write_bytes(content)
        return tvm.runtime.load_module(str(path))
