"""Graphs on disk: ``net.ldir`` and, beside it, ``net.safetensors``. Writes go to a temporary file and are renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.verify import verify


def write_atomically(path: Path, data: bytes) -> None:
    """Write the whole file or nothing."""
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write all of these files or none: each beside its place first, then all are renamed."""
    scratch = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, data in files.items():
            if path.is_dir():
                raise LdsnnError(Problem("cannot be written: Is a directory", where=str(path)))
            scratch[path].write_bytes(data)
        for path in files:
            os.replace(scratch[path], path)
    except OSError as error:
        raise LdsnnError(Problem(f"cannot be written: {error.strerror}", where=str(path))) from None
    finally:
        for left in scratch.values():
            with suppress(OSError):  # renamed by now, or never written
                left.unlink()


def read_file(path: Path) -> bytes:
    """The file's bytes, or an error in one line."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise LdsnnError(Problem(f"cannot be read: {error.strerror}", where=str(path))) from None


def read_text(path: Path, error: type[LdsnnError] = LdsnnError) -> str:
    """The file's text, or an error in one line: ``error`` where it is none."""
    try:
        return read_file(path).decode()
    except UnicodeDecodeError:
        raise error(Problem("not a text file", where=str(path))) from None


def parse_json(text: str, where: str, error: type[LdsnnError] = LdsnnError) -> Any:
    """The JSON document in a text, or an error in one line that begins with ``where``."""
    try:
        return json.loads(text)
    except ValueError as found:
        raise error(Problem(f"not JSON: {found}", where=where)) from None


def write_graph(graph: Graph, path: str | Path, weights: str | Path | None = None) -> None:
    """Write ``path`` (.ldir) and its weights, by default beside it as ``.safetensors``: both files or neither."""
    path = Path(path)
    beside = Path(weights) if weights else path.with_suffix(".safetensors")
    if beside == path:
        hint = "a graph's file ends in .ldir"
        raise LdsnnError(Problem("would also be the file of its weights", where=str(path), hint=hint))
    tensors = {name: value.contiguous() for name, value in graph.tensors.items()}
    write_together({beside: save(tensors), path: graph_text(graph).encode()})


def read_graph(path: str | Path, weights: str | Path | None = None) -> Graph:
    """Read a graph and its weights; every tensor's hash is checked against the text, and the graph is verified."""
    path = Path(path)
    source = Path(weights) if weights else path.with_suffix(".safetensors")
    try:
        tensors = load(read_file(source))
    except SafetensorError as error:
        raise LdsnnError(Problem(f"not a safetensors file: {error}", where=str(source))) from None
    graph = parse_graph(read_text(path), tensors, str(path))
    verify(graph)
    return graph
