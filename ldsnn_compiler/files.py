"""Graphs from and to files of any kind: ``.ldir``, ``.nir`` and (reading only) bundle folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from ldsnn_compiler.frontend.nir.discretise import Method
    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.schedule import Schedule


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


def write(
    graph: Graph, path: str | Path, weights: str | Path | None = None, *, dt: float = 1.0,
    schedule: Schedule | None = None, discretise: Method | None = None,
) -> None:  # fmt: skip
    """Write a graph as ``.ldir`` with its weights beside it (or in ``weights``), or as ``.nir``.

    ``dt``, ``schedule`` and ``discretise`` are for ``.nir`` files only: see
    :func:`ldsnn_compiler.frontend.nir.write_nir`.
    """
    path = Path(path)
    if path.suffix == ".nir":
        from ldsnn_compiler.frontend.nir import write_nir

        write_nir(graph, path, dt, schedule=schedule, discretise=discretise)
        return
    if schedule is not None:
        raise LdsnnError(Problem("a schedule goes into .nir files only, write it beside", where=str(path)))
    from ldsnn_compiler.ir.store import write_graph

    write_graph(graph, path, weights)
