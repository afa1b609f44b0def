"""Bundles: a compiled network as a folder.

.. code-block:: text

    net.ldsnn/
      manifest.json        versions, target, numerics, threads, batch, schedule, sha256 of every other file
      graph.ldir           the graph as it was lowered, passes and placements applied
      weights.safetensors  its tensors
      lib-<board>.so       the machine code
      report.json          what the compiler has to tell about it

A bundle is written beside its place and renamed, so that it is whole or not there. Loading checks every hash before
anything is parsed, and loads the very bytes that it checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ldsnn_compiler.errors import BundleError, LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import VERSION as LDIR_VERSION
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.runtime.device import Device, Host
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.targets.boards import Board

if TYPE_CHECKING:
    from ldsnn_compiler.runtime.compiled import Compiled
    from ldsnn_compiler.targets.cpu.kernels import Tuning

FORMAT = "ldsnn bundle"
VERSION = 1
MANIFEST, GRAPH, WEIGHTS, REPORT = "manifest.json", "graph.ldir", "weights.safetensors", "report.json"


def save(compiled: Compiled, path: Path) -> None:
    """Write a bundle; an older one at ``path`` is replaced, anything else there is left alone and refused."""
    check_free(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            folder = Path(scratch) / path.name
            folder.mkdir()
            _write(compiled, folder)
            if path.exists():
                os.replace(path, Path(scratch) / "former")
            os.replace(folder, path)
    except OSError as error:
        raise BundleError(Problem(f"cannot be written: {error.strerror}", where=str(path))) from None


def check_free(path: Path) -> None:
    """Raise :class:`BundleError` where something else than a bundle stands in the way of one."""
    if path.exists() and not _is_bundle(path):
        raise BundleError(Problem("exists and is not a bundle", where=str(path)))


def load(path: str | Path, device: Device | None = None) -> Compiled:
    """Load a bundle to run it here, or on the ``device`` that is given; :class:`BundleError` says in one line why one
    is refused."""
    from ldsnn_compiler.runtime.compiled import Compiled, Settings

    path = Path(path)
    manifest = _manifest(path)
    if manifest.get("versions") != versions():
        _refuse(path, f"was compiled by {_named(manifest.get('versions'))}, this is {_named(versions())}")
    library = f"lib-{manifest['target']['name']}.so"
    contents = _contents(path, manifest, (GRAPH, WEIGHTS, REPORT, library))
    board = _board(path, manifest, device or Host())
    graph = _graph(path, contents)
    try:
        report = json.loads(contents[REPORT])
    except ValueError as error:
        _refuse(path, f"its {REPORT} cannot be read: {str(error).splitlines()[0]}")
    settings = Settings(board, manifest["batch"], manifest["threads"], manifest["numerics"], manifest["pipeline"],
                        manifest["schedule"], _tunings(path, manifest))  # fmt: skip
    return Compiled(graph, settings, Library(content=contents[library]), report, device)


def read_graph(path: str | Path) -> Graph:
    """The graph of a bundle, compiled for whatever machine; :class:`BundleError` says why one is refused."""
    path = Path(path)
    return _graph(path, _contents(path, _manifest(path), (GRAPH, WEIGHTS)))


def _contents(path: Path, manifest: dict[str, Any], names: Sequence[str]) -> dict[str, bytes]:
    """The bytes of these files and of nothing else, all of them those that the manifest names."""
    for name in names:
        if name not in manifest["files"]:
            _refuse(path, f"its manifest lists no {name}")
    return {name: _checked(path, name, manifest["files"][name]) for name in names}


def _graph(path: Path, contents: Mapping[str, bytes]) -> Graph:
    try:
        return parse_graph(contents[GRAPH].decode(), load_tensors(contents[WEIGHTS]), str(path / GRAPH))
    except (SafetensorError, UnicodeDecodeError) as error:
        _refuse(path, f"its contents cannot be read: {str(error).splitlines()[0]}")
    except LdsnnError as error:
        _refuse(path, f"its graph cannot be read: {str(error).splitlines()[0]}")


def _write(compiled: Compiled, folder: Path) -> None:
    graph, settings = compiled.graph, compiled.settings
    graph.prune_tensors()
    tensors = {name: value.contiguous() for name, value in graph.tensors.items()}
    library = f"lib-{settings.board.name}.so"
    (folder / GRAPH).write_text(graph_text(graph))
    (folder / WEIGHTS).write_bytes(save_tensors(tensors))
    (folder / REPORT).write_text(json.dumps(compiled.report, indent=1) + "\n")
    compiled.library.write(folder / library)
    names = (GRAPH, WEIGHTS, REPORT, library)
    manifest = {**_header(compiled), "files": {name: _entry((folder / name).read_bytes()) for name in names}}
    sealed = {**manifest, "sha256": _seal(manifest)}
    (folder / MANIFEST).write_text(json.dumps(sealed, indent=1) + "\n")


def _header(compiled: Compiled) -> dict[str, Any]:
    settings = compiled.settings
    return {
        "format": FORMAT,
        "version": VERSION,
        "versions": versions(),
        "network": compiled.graph.name,
        "target": settings.board.to_json(),
        "numerics": settings.numerics,
        "threads": settings.threads,
        "batch": settings.batch,
        "pipeline": settings.pipeline,
        "schedule": settings.schedule,
        "tunings": {region: asdict(tuning) for region, tuning in settings.tunings.items()},
    }


def versions() -> dict[str, Any]:
    """What must agree between the compiler of a bundle and the process that loads it."""
    import tvm

    from ldsnn_compiler import __version__

    return {"ldsnn_compiler": __version__, "ldir": LDIR_VERSION, "tvm": tvm.__version__}


def _entry(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _seal(manifest: dict[str, Any]) -> str:
    """Hash of the manifest itself, without its own entry."""
    bare = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()


def _is_bundle(path: Path) -> bool:
    return path.is_dir() and (path / MANIFEST).is_file()


def _refuse(path: Path, why: str) -> NoReturn:
    raise BundleError(Problem(why, where=str(path)))


def _manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        _refuse(path, "does not exist")
    if not _is_bundle(path):
        _refuse(path, "is not a bundle: no folder with a manifest.json")
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        _refuse(path, "its manifest.json cannot be read")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        _refuse(path, "is not a bundle: its manifest.json is of another program")
    if manifest.get("version") != VERSION:
        _refuse(path, f"is a bundle of version {manifest.get('version')!r}, this is version {VERSION}")
    if manifest.get("sha256") != _seal(manifest):
        _refuse(path, "its manifest.json was edited")
    return manifest


def _checked(path: Path, name: str, entry: dict[str, Any]) -> bytes:
    """The bytes of a file, if they are those that the manifest names."""
    try:
        content = (path / name).read_bytes()
    except OSError as error:
        _refuse(path, f"its {name} cannot be read: {error.strerror}")
    if len(content) != entry["bytes"]:
        _refuse(path, f"its {name} is truncated or edited: {len(content)} bytes, expected {entry['bytes']}")
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        _refuse(path, f"its {name} was edited: its hash differs from the manifest's")
    return content


def _tunings(path: Path, manifest: dict[str, Any]) -> dict[str, Tuning]:
    """Loop structures that were measured: arguments are packed for them."""
    from ldsnn_compiler.targets.cpu.kernels.tune import read_tuning

    try:
        return {region: read_tuning(values) for region, values in manifest.get("tunings", {}).items()}
    except (TypeError, AttributeError):
        _refuse(path, "its loop structures cannot be read")


def _board(path: Path, manifest: dict[str, Any], device: Device) -> Board:
    """The board it was compiled for, if the machine where it is to run can run its code."""
    found = Board.of_json(manifest["target"])
    missing = device.missing(found)
    if missing:
        _refuse(path, f"was compiled for {found.name} ({found.cpu}), this machine lacks {', '.join(missing)}")
    return found


def _named(found: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in found.items()) if isinstance(found, dict) else repr(found)
