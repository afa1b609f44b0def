"""Writing NIR: a graph as its network was traced becomes a ``.nir`` file, through the package ``nir``.

NIR has one time for the whole network. Timesteps per layer go into the metadata, from a schedule; so do T0, the
timestep and a readout. Weights are written in float32, neurons' parameters in float64, so that reading the file with
the same dt gives the same float32 numbers again, but for the last bit of what an input adds to a current-based neuron:
two numbers of ours are one weight there.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldsnn_compiler.errors import ImportRefused, Problem
from ldsnn_compiler.frontend.nir.discretise import METHODS, Method, Step
from ldsnn_compiler.frontend.nir.metadata import entries
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import write_atomically
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.schedule import Schedule


@dataclass(frozen=True)
class Exported:
    """A ``nir.NIRGraph``, and what it cannot say."""

    graph: Any
    notes: tuple[Problem, ...]


def write_nir(
    graph: Graph,
    path: str | Path,
    dt: float = 1.0,
    *,
    schedule: Schedule | None = None,
    discretise: Method | None = None,
) -> None:
    """Write a ``.nir`` file; what other readers will miss comes as warnings.

    Args:
        graph: the network as traced, imported or read; of a compiled one only if it has no schedule.
        path: the file.
        dt: length of a base step in the file's unit of time: time constants and delays are multiples of it.
        schedule: goes into the metadata.
        discretise: how time constants follow from decays, see
            :func:`~ldsnn_compiler.frontend.nir.reader.read_nir`; default ``zoh``, but ``euler`` for a network with
            ``cuba_lif`` neurons, which step their current first.

    Raises:
        ImportRefused: with everything that NIR has no form for, by node.
    """
    exported = export_nir(graph, dt, schedule=schedule, discretise=discretise)
    for note in exported.notes:
        warnings.warn(str(note), stacklevel=2)
    content = io.BytesIO()
    _nir().write(content, exported.graph)
    write_atomically(Path(path), content.getvalue())


def export_nir(
    graph: Graph, dt: float = 1.0, *, schedule: Schedule | None = None, discretise: Method | None = None
) -> Exported:
    """As :func:`write_nir`, in memory."""
    nir = _nir()
    if schedule is not None:
        schedule.check(graph)
    if graph.stage == "traced":
        graph = run_pipeline(graph.clone(), parse_pipeline("fold-batchnorm,dead-code"), ())
    from ldsnn_compiler.frontend.nir.exporter import Exporter

    step, layers = Step(dt, discretise or _method(graph)), schedule.layers if schedule is not None else {}
    exporter = Exporter(graph, step, layers)
    exporter.export()
    if not exporter.faithful():
        exporter = Exporter(graph, step, layers, explicit=True)
        exporter.export()
    metadata = entries(timesteps=graph.base_timesteps, dt=dt, discretise=step.method)
    made = _checked(nir, exporter.nodes, exporter.edges, metadata, exporter.notes)
    return Exported(made, tuple(exporter.notes))


def _method(graph: Graph) -> Method:
    steps_first = any(node["neuron"].template == "cuba_lif" for node in graph.of("neuron"))
    return METHODS[1] if steps_first else METHODS[0]


def _checked(
    nir: Any, nodes: Mapping[str, Any], edges: list[tuple[str, str]], metadata: dict[str, Any], notes: list[Problem]
) -> Any:
    """The graph, by nir's own check of its types if that passes: it takes kernels for square."""
    try:
        return nir.NIRGraph(dict(nodes), list(edges), metadata=metadata)
    except ValueError as error:
        message = f"the package nir reads this only with type_check=False: {str(error).splitlines()[0]}"
        notes.append(Problem(message, "NIR graph"))
        return nir.NIRGraph(dict(nodes), list(edges), metadata=metadata, type_check=False)


def _nir() -> Any:
    try:
        import nir
    except ImportError:
        hint = "pip install 'ldsnn-compiler[nir]'"
        raise ImportRefused(Problem("writing NIR needs the package nir", hint=hint)) from None
    return nir
