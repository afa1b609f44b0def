"""``ldsnn import`` and ``ldsnn export``: networks between ``.nir``, ``.ldir`` and what else is a MODEL."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ldsnn_compiler.cli.common import (
    Answer,
    Calibrate,
    Convert,
    Data,
    Dt,
    Model,
    ScheduleFile,
    Sequence,
    Shape,
    Timesteps,
    note,
)
from ldsnn_compiler.cli.models import ModelOptions, open_graph, warnings_as_notes
from ldsnn_compiler.errors import LdsnnError, Problem

Discretise = Annotated[
    str | None,
    typer.Option("--discretise", help="neurons' equations in timesteps: zoh (exact for held input) or euler"),
]


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.nir", help="a .nir file")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="default FILE.ldir")] = None,
    timesteps: Timesteps = None,
    dt: Dt = None,
    discretise: Discretise = None,
) -> Answer:
    """Turn a .nir file into a .ldir, and the schedule in its metadata, if any, into a schedule file beside it."""
    from ldsnn_compiler.frontend.nir import import_nir
    from ldsnn_compiler.ir.store import write_graph

    path = output or file.with_suffix(".ldir")
    _expect(file, ".nir", "is what `import` reads")
    _expect(path, ".ldir", "is what `import` writes")
    imported = import_nir(file, timesteps, dt, discretise=discretise)  # type: ignore[arg-type]  # checked there
    for each in imported.notes:
        note(f"note: {each}")
    write_graph(imported.graph, path)
    found: dict[str, Any] = {"graph": str(path), "notes": [asdict(n) for n in imported.notes]}
    if imported.schedule is not None:
        beside = path.with_suffix(".schedule.json")
        imported.schedule.write(beside)
        found["schedule"] = str(beside)
    graph = imported.graph
    shown = [f"{path}: {len(graph.of('neuron'))} neuron layers, {graph.base_timesteps} timesteps"]
    shown += [f"{found['schedule']}: the schedule in the file"] if "schedule" in found else []
    return Answer({**found, "base_timesteps": graph.base_timesteps}, shown)


def export(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="a .nir or .ldir file")],
    schedule: ScheduleFile = None,
    timesteps: Timesteps = None,
    dt: Annotated[
        float | None, typer.Option("--dt", help="length of a timestep in the .nir file's unit of time; default 1")
    ] = None,
    discretise: Discretise = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    data: Data = None,
    shape: Shape = None,
    sequence: Sequence = False,
) -> Answer:
    """Write a model as a .nir file, its schedule in the metadata, or as a .ldir."""
    from ldsnn_compiler.files import write
    from ldsnn_compiler.schedule import Schedule

    if output.suffix not in (".nir", ".ldir"):
        raise LdsnnError(Problem("is neither .nir nor .ldir", where=str(output)))
    own = dt if model.endswith(".nir") else None
    graph = open_graph(ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, own))
    chosen = Schedule.read(schedule) if schedule is not None else None
    with warnings_as_notes():
        write(graph, output, dt=dt or 1.0, schedule=chosen, discretise=discretise)  # type: ignore[arg-type]
    return Answer({"file": str(output), "nodes": len(graph)}, [f"{output}: {len(graph)} nodes"])


def _expect(path: Path, suffix: str, what: str) -> None:
    if path.suffix != suffix:
        raise LdsnnError(Problem(f"a {suffix} file {what}", where=str(path)))
