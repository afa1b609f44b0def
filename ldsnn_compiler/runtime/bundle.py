"""Bundles: a compiled network as a folder.

.. code-block:: text

    net.ldsnn/
      manifest.json        versions, target, numerics, threads, batch, schedule, sha256 of every other file
      graph.ldir           the graph as it was lowered, passes and placements applied
      weights.safetensors  its tensors
      lib-<board>.so       the machine code
      report.json          what the compiler has to tell about it
      interface.json       what the machine code takes and gives, and
      arguments.safetensors  its weights as it reads them: for :mod:`~ldsnn_compiler.runtime.light`, without graph

A bundle is written beside its place and renamed, so that it is whole or not there. Loading checks every hash before
anything is parsed, and loads the very bytes that it checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.runtime import light
from ldsnn_compiler.runtime.device import Device, Host
from ldsnn_compiler.runtime.folder import (
    FORMAT,
    VERSION,
    check_versions,
    header,
    library_name,
    read_board,
    read_files,
    read_manifest,
    refuse,
    versions,
    write_folder,
    write_manifest,
)
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.targets.boards import Board

if TYPE_CHECKING:
    from ldsnn_compiler.runtime.compiled import Compiled
    from ldsnn_compiler.targets.cpu.kernels import Tuning

GRAPH, WEIGHTS, REPORT = "graph.ldir", "weights.safetensors", "report.json"


def save(compiled: Compiled, path: Path) -> None:
    """Write a bundle; an older one at ``path`` is replaced, anything else there is left alone and refused."""
    write_folder(path, lambda folder: _write(compiled, folder))


def load(path: str | Path, device: Device | None = None) -> Compiled:
    """Load a bundle to run it here, or on the ``device`` that is given; :class:`BundleError` says in one line why one
    is refused."""
    from ldsnn_compiler.runtime.compiled import Compiled, Settings

    path = Path(path)
    manifest = read_manifest(path, FORMAT, VERSION)
    check_versions(path, manifest, versions())
    library = library_name(manifest["target"]["name"])
    contents = read_files(path, manifest, (GRAPH, WEIGHTS, REPORT, library))
    board = read_board(path, manifest, (device or Host()).missing)
    graph = _graph(path, contents)
    try:
        report = json.loads(contents[REPORT])
    except ValueError as error:
        refuse(path, f"its {REPORT} cannot be read: {str(error).splitlines()[0]}")
    settings = Settings(board, manifest["batch"], manifest["threads"], manifest["numerics"], manifest["pipeline"],
                        manifest["schedule"], _tunings(path, manifest))  # fmt: skip
    return Compiled(graph, settings, Library(content=contents[library]), report, device)


def read_graph(path: str | Path) -> Graph:
    """The graph of a bundle, compiled for whatever machine; :class:`BundleError` says why one is refused."""
    path = Path(path)
    return _graph(path, read_files(path, read_manifest(path, FORMAT, VERSION), (GRAPH, WEIGHTS)))


def read_pipeline(path: str | Path) -> str:
    """The passes that made the graph of a bundle, as text; :class:`BundleError` says why a bundle is refused."""
    return str(read_manifest(Path(path), FORMAT, VERSION)["pipeline"])


def read_target(path: str | Path) -> Board:
    """The board that a bundle was compiled for; :class:`BundleError` says why a bundle is refused."""
    return Board.of_json(read_manifest(Path(path), FORMAT, VERSION)["target"])


def _graph(path: Path, contents: Mapping[str, bytes]) -> Graph:
    try:
        return parse_graph(contents[GRAPH].decode(), load_tensors(contents[WEIGHTS]), str(path / GRAPH))
    except (SafetensorError, UnicodeDecodeError) as error:
        refuse(path, f"its contents cannot be read: {str(error).splitlines()[0]}")
    except LdsnnError as error:
        refuse(path, f"its graph cannot be read: {str(error).splitlines()[0]}")


def _write(compiled: Compiled, folder: Path) -> None:
    graph, settings = compiled.graph, compiled.settings
    graph.prune_tensors()
    tensors = {name: value.contiguous() for name, value in graph.tensors.items()}
    library = library_name(settings.board.name)
    (folder / GRAPH).write_text(graph_text(graph))
    (folder / WEIGHTS).write_bytes(save_tensors(tensors))
    (folder / REPORT).write_text(json.dumps(compiled.report, indent=1) + "\n")
    compiled.library.write(folder / library)
    names = light.write(folder, compiled.interface, compiled.plans)
    write_manifest(folder, header(FORMAT, VERSION, graph, settings), (GRAPH, WEIGHTS, REPORT, library, *names))


def _tunings(path: Path, manifest: dict[str, Any]) -> dict[str, Tuning]:
    """Loop structures that were measured: arguments are packed for them."""
    from ldsnn_compiler.targets.cpu.kernels.tune import read_tuning

    try:
        return {region: read_tuning(values) for region, values in manifest.get("tunings", {}).items()}
    except (TypeError, AttributeError):
        refuse(path, "its loop structures cannot be read")
