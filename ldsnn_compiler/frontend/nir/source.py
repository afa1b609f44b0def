"""The content of a NIR file as plain units and edges: HDF5 in, nested dictionaries, nested graphs made flat.

The nested dictionaries are those of ``nir.NIRGraph.to_dict()``, so a graph in memory is read the same way. Parameters
are read as they stand, whatever their shape: what is wrong with them is for
:mod:`~ldsnn_compiler.frontend.nir.repairs` and the importers of :mod:`~ldsnn_compiler.frontend.nir.nodes` to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """A flat NIR graph. An edge may occur twice only if it stands for two paths."""

    units: dict[str, Unit]
    edges: list[Edge]
    metadata: dict[str, Any]

    def sources(self, name: str) -> list[str]:
        """Names of the units whose outputs a unit adds up, in the file's order."""
        return [a for a, b in self.edges if b == name]


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


def flat(node: Mapping[str, Any], where: str) -> Net:
    """The root graph with nested graphs in place of the nodes that hold them; ``where`` names the file in errors.

    Raises:
        ImportRefused: with every fault of the graph's structure.
    """
    problems = list(_faults(node, where, ""))
    if problems:
        raise ImportRefused(problems)
    net = Net({}, [], dict(node.get("metadata", {})))
    problems = list(_unfold(node, "", net, where))
    if problems:
        raise ImportRefused(problems)
    return net


def _faults(node: Mapping[str, Any], where: str, prefix: str) -> Iterator[Problem]:
    """What makes a graph unreadable: no nodes, no edges, a node without type."""
    at = f"{where}: {prefix[:-1]}" if prefix else where
    nodes, edges = node.get("nodes"), node.get("edges")
    if not nodes:
        yield Problem("holds no nodes: its export did not finish", where=at)
        return
    if edges is None or len(edges) == 0:
        yield Problem(f"has {len(nodes)} nodes and no edges: its export did not finish", where=at)
    for name, each in nodes.items():
        if not isinstance(each, Mapping) or not isinstance(plain(each.get("type")), str):
            yield Problem("has no type", where=f"{where}: {prefix}{name}")
        elif each["type"] == "NIRGraph":
            yield from _faults(each, where, f"{prefix}{name}.")


def _unfold(node: Mapping[str, Any], prefix: str, net: Net, where: str) -> Iterator[Problem]:
    """Add a graph's units and edges to ``net``; edges to and from a nested graph go to its Input and Output."""
    entry: dict[str, str] = {}
    leave: dict[str, str] = {}
    for name, each in node["nodes"].items():
        full = f"{prefix}{name}"
        entry[name] = leave[name] = full
        if each["type"] == "NIRGraph":
            yield from _unfold(each, f"{full}.", net, where)
            for ends, kind in ((entry, "Input"), (leave, "Output")):
                inner = [n for n, e in each["nodes"].items() if e.get("type") == kind]
                if len(inner) == 1:
                    ends[name] = f"{full}.{inner[0]}"
                else:
                    message = f"has {len(inner)} nodes of type {kind}, an edge cannot say which"
                    yield Problem(message, where=f"{where}: {full}", kind="NIRGraph")
            continue
        kind = str(plain(each["type"]))
        kind = IDENTITY if prefix and kind in ("Input", "Output") else kind
        values = {k: plain(v) for k, v in each.items() if k not in ("type", "metadata") and v is not None}
        net.units[full] = Unit(full, kind, values, dict(each.get("metadata", {})))
    seen: set[Edge] = set()
    for source, target in ((str(plain(a)), str(plain(b))) for a, b in node["edges"]):
        missing = [name for name in (source, target) if name not in entry]
        for name in missing:
            message = f"edge {prefix}{source} -> {prefix}{target} names {name!r}, which is no node"
            yield Problem(message, where=f"{where}: {prefix[:-1]}" if prefix else where)
        if (source, target) in seen:
            message = f"edge {prefix}{source} -> {prefix}{target} is given twice: once or doubled?"
            yield Problem(message, where=where)
        seen.add((source, target))
        if not missing:
            net.edges.append((leave[source], entry[target]))
