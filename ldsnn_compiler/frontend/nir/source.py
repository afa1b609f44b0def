"""The content of a NIR file: HDF5 in, nested dictionaries out, and the units and edges that they become.

The nested dictionaries are those of ``nir.NIRGraph.to_dict()``, so a graph in memory is read the same way. Parameters
are read as they stand: what is wrong with them is for the importers to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ldsnn_compiler.errors import ImportRefused, Problem

LFS = b"version https://git-lfs"
HDF5 = b"\x89HDF\r\n\x1a\n"
IDENTITY = "Identity"
"""What the Input and Output of a nested graph are in the flat one."""

Edge = tuple[str, str]


@dataclass
class Unit:
    """A NIR node: its name (``outer.inner`` inside a nested graph), its type, parameters and metadata.

    ``defaults`` names the parameters that the file leaves out.
    """

    name: str
    kind: str
    values: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    defaults: frozenset[str] = frozenset()


@dataclass
class Net:
    """A flat NIR graph."""

    units: dict[str, Unit]
    edges: list[Edge]
    metadata: dict[str, Any]

    def sources(self, name: str) -> list[str]:
        """Names of the units whose outputs a unit adds up, in the file's order."""
        return [a for a, b in self.edges if b == name]

    def targets(self, name: str) -> list[str]:
        """Names of the units that a unit's output goes to, in the file's order."""
        return [b for a, b in self.edges if a == name]


def read_source(path: Path) -> dict[str, Any]:
    """The file's root node as nested dictionaries of arrays, numbers and strings.

    Raises:
        ImportRefused: the file is missing, is no HDF5, or holds no NIR graph.
    """
    h5py = _h5py(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS))
    except OSError as error:
        raise ImportRefused(Problem(f"cannot be read: {error.strerror}", where=str(path))) from None
    if start.startswith(LFS):
        hint = "`git lfs pull` fetches the file itself"
        raise ImportRefused(Problem("is a Git LFS pointer, not a NIR file", where=str(path), hint=hint))
    if not start.startswith(HDF5):
        raise ImportRefused(Problem("is not an HDF5 file, so no NIR file", where=str(path)))
    try:
        with h5py.File(path, "r") as root:
            content = _content(root)
    except OSError as error:
        raise ImportRefused(Problem(f"is a damaged HDF5 file: {error}", where=str(path))) from None
    node = content.get("node")
    if not isinstance(node, dict):
        raise ImportRefused(Problem("is an HDF5 file without a group /node, so no NIR file", where=str(path)))
    return node


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        hint = "pip install 'ldsnn-compiler[nir]'"
        raise ImportRefused(Problem("reading NIR needs the package h5py", where=str(path), hint=hint)) from None
    return h5py


def _content(group: Any) -> dict[str, Any]:
    return {str(k): _content(v) if hasattr(v, "items") else plain(v[()]) for k, v in group.items()}


def plain(value: Any) -> Any:
    """Bytes as text, also inside arrays; everything else as it is."""
    if isinstance(value, bytes):
        return value.decode("utf8", "replace")
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [plain(v) for v in value.tolist()]
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
