"""Graphs from files of any kind: ``.ldir``, ``.nir`` and bundle folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from ldsnn_compiler.frontend.nir.discretise import Method
    from ldsnn_compiler.ir.graph import Graph


def read(
    path: str | Path, timesteps: int | None = None, dt: float | None = None, *, discretise: Method | None = None
) -> Graph:
    """The graph in a ``.ldir`` file, a ``.nir`` file or a bundle folder.

    ``timesteps``, ``dt`` and ``discretise`` are for ``.nir`` files only, which say nothing of them: see
    :func:`ldsnn_compiler.frontend.nir.read_nir`.
    """
    path = Path(path)
    if path.suffix == ".nir":
        from ldsnn_compiler.frontend.nir import read_nir

        return read_nir(path, timesteps, dt, discretise=discretise)
    if timesteps is not None or dt is not None:
        raise LdsnnError(Problem("timesteps and dt are for .nir files, other graphs have their own", where=str(path)))
    if path.is_dir():
        from ldsnn_compiler.runtime.bundle import read_graph as read_bundle

        return read_bundle(path)
    from ldsnn_compiler.ir.store import read_graph

    return read_graph(path)
