"""What all kinds of bundles share: a folder that is whole or not there, with a manifest of what it is and of hashes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ldsnn_compiler.errors import BundleError, Problem
from ldsnn_compiler.targets.boards import Board

if TYPE_CHECKING:
    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.runtime.compiled import Settings

MANIFEST = "manifest.json"
#: of bundles that TVM's run time runs
FORMAT, VERSION = "ldsnn bundle", 1


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a folder beside ``path`` and rename it; a bundle at ``path`` is replaced, anything else there
    is left alone and refused.
    """
    check_free(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            folder = Path(scratch) / path.name
            folder.mkdir()
            fill(folder)
            if path.exists():
                os.replace(path, Path(scratch) / "former")
            os.replace(folder, path)
    except OSError as error:
        raise BundleError(Problem(f"cannot be written: {error.strerror}", where=str(path))) from None


def check_free(path: Path) -> None:
    """Raise :class:`BundleError` where something else than a bundle stands in the way of one."""
    if path.exists() and not is_bundle(path):
        raise BundleError(Problem("exists and is not a bundle", where=str(path)))


def is_bundle(path: Path) -> bool:
    """Whether a folder with a manifest is there."""
    return path.is_dir() and (path / MANIFEST).is_file()


def write_manifest(folder: Path, header: Mapping[str, Any], names: Iterable[str]) -> None:
    """The manifest: ``header``, the hashes of the files ``names`` that stand in ``folder``, and its own."""
    manifest = {**header, "files": {name: entry((folder / name).read_bytes()) for name in names}}
    (folder / MANIFEST).write_text(json.dumps({**manifest, "sha256": seal(manifest)}, indent=1) + "\n")


def header(format: str, version: int, graph: Graph, settings: Settings) -> dict[str, Any]:
    """What a manifest says of a network and of how it was compiled."""
    return {
        "format": format,
        "version": version,
        "versions": versions(),
        "network": graph.name,
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
    from ldsnn_compiler.ir.text import VERSION as LDIR_VERSION

    return {"ldir": LDIR_VERSION, **code_versions()}


def code_versions() -> dict[str, Any]:
    """What must agree where the graph is not read."""
    import tvm

    from ldsnn_compiler import __version__

    return {"ldsnn_compiler": __version__, "tvm": tvm.__version__}


def entry(content: bytes) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def seal(manifest: Mapping[str, Any]) -> str:
    """Hash of the manifest itself, without its own entry."""
    bare = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()


# ---- reading


def refuse(path: Path, why: str) -> NoReturn:
    """Raise the :class:`BundleError` that says why."""
    raise BundleError(Problem(why, where=str(path)))


def read_manifest(path: Path, format: str, version: int) -> dict[str, Any]:
    """The manifest of a bundle of this format, unedited."""
    if not path.exists():
        refuse(path, "does not exist")
    if not is_bundle(path):
        refuse(path, "is not a bundle: no folder with a manifest.json")
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        refuse(path, "its manifest.json cannot be read")
    if not isinstance(manifest, dict) or not str(manifest.get("format")).startswith("ldsnn "):
        refuse(path, "is not a bundle: its manifest.json is of another program")
    if manifest["format"] != format:
        refuse(path, f"is a folder of the kind {manifest['format']!r}, expected is {format!r}")
    if manifest.get("version") != version:
        refuse(path, f"is a bundle of version {manifest.get('version')!r}, this is version {version}")
    if manifest.get("sha256") != seal(manifest):
        refuse(path, "its manifest.json was edited")
    return manifest


def check_versions(path: Path, manifest: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse code of another compiler or for another run time than those ``here``."""
    found = manifest.get("versions")
    if not isinstance(found, dict) or any(found.get(k) != v for k, v in here.items()):
        refuse(path, f"was compiled by {_named(found)}, this is {_named(here)}")


def read_files(path: Path, manifest: Mapping[str, Any], names: Sequence[str]) -> dict[str, bytes]:
    """The bytes of these files and of nothing else, all of them those that the manifest names."""
    for name in names:
        if name not in manifest["files"]:
            refuse(path, f"its manifest lists no {name}")
    return {name: _checked(path, name, manifest["files"][name]) for name in names}


def library_name(board: str) -> str:
    """The file of the machine code for a board of that name."""
    return f"lib-{board}.so"


def read_board(path: Path, manifest: Mapping[str, Any], missing: Callable[[Board], Sequence[str]]) -> Board:
    """The board it was compiled for; refused where it is to run on a machine that is ``missing`` something."""
    found = Board.of_json(manifest["target"])
    if lacking := missing(found):
        refuse(path, f"was compiled for {found.name} ({found.cpu}), this machine lacks {', '.join(lacking)}")
    return found


def _checked(path: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    """The bytes of a file, if they are those that the manifest names."""
    try:
        content = (path / name).read_bytes()
    except OSError as error:
        refuse(path, f"its {name} cannot be read: {error.strerror}")
    if len(content) != entry["bytes"]:
        refuse(path, f"its {name} is truncated or edited: {len(content)} bytes, expected {entry['bytes']}")
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        refuse(path, f"its {name} was edited: its hash differs from the manifest's")
    return content


def _named(found: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in found.items()) if isinstance(found, Mapping) else repr(found)
