"""Graphs on disk: ``net.ldir`` and, beside it, ``net.safetensors``. Writes go to a temporary file and are renamed."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text


def write_atomically(path: Path, data: bytes) -> None:
    """Write the whole file or nothing."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise LdsnnError(Problem(f"cannot be written: {error.strerror}", where=str(path))) from None


def read_file(path: Path) -> bytes:
    """The file's bytes, or an error in one line."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise LdsnnError(Problem(f"cannot be read: {error.strerror}", where=str(path))) from None


def write_graph(graph: Graph, path: str | Path, weights: str | Path | None = None) -> None:
    """Write ``path`` (.ldir) and its weights, by default beside it with the suffix ``.safetensors``."""
    path = Path(path)
    tensors = {name: value.contiguous() for name, value in graph.tensors.items()}
    write_atomically(Path(weights) if weights else path.with_suffix(".safetensors"), save(tensors))
    write_atomically(path, graph_text(graph).encode())


def read_graph(path: str | Path, weights: str | Path | None = None) -> Graph:
    """Read a graph and its weights; every tensor's hash is checked against the text."""
    path = Path(path)
    source = Path(weights) if weights else path.with_suffix(".safetensors")
    try:
        tensors = load(read_file(source))
    except SafetensorError as error:
        raise LdsnnError(Problem(f"not a safetensors file: {error}", where=str(source))) from None
    try:
        text = read_file(path).decode()
    except UnicodeDecodeError:
        raise LdsnnError(Problem("not a text file", where=str(path))) from None
    return parse_graph(text, tensors, str(path))
