"""``ldsnn compile``: a model becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldsnn_compiler.cli.common import (
    Answer,
    Batch,
    Calibrate,
    Convert,
    Data,
    Dt,
    DumpDir,
    Model,
    Pipeline,
    ScheduleFile,
    Sequence,
    Shape,
    Target,
    Threads,
    TimePasses,
    Timesteps,
    note,
    parse_batch,
)
from ldsnn_compiler.cli.look import pass_instruments
from ldsnn_compiler.cli.models import ModelOptions, open_data, open_graph

if TYPE_CHECKING:
    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.runtime import Compiled

Out = Annotated[Path | None, typer.Option("-o", "--output", help="bundle folder; default NAME.ldsnn")]
DENSITY_SAMPLES = 16
"""Calibration samples on which densities are measured for the choice of kernels."""


def compile(
    model: Model,
    output: Out = None,
    schedule: ScheduleFile = None,
    target: Target = "native",
    batch: Batch = "1",
    threads: Threads = None,
    timesteps: Timesteps = None,
    dt: Dt = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    data: Data = None,
    shape: Shape = None,
    sequence: Sequence = False,
    pipeline: Pipeline = None,
    dump_dir: DumpDir = None,
    time_passes: TimePasses = False,
) -> Answer:
    """Compile a model for a target and write the bundle; with --data kernels are chosen by measured densities."""
    from ldsnn_compiler.runtime.bundle import check_free

    size = parse_batch(batch)
    if output is not None:
        check_free(output)
    graph = open_graph(ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt))
    compiled = compile_graph(graph, schedule, target, size, threads, data, pipeline, dump_dir, time_passes)
    path = output or Path(f"{graph.name}.ldsnn")
    compiled.save(path)
    found = summary(compiled, path)
    lines = [f"{key.replace('_', ' ')}: {_text(value)}" for key, value in found.items()]
    return Answer(found, ("\n".join(lines),))


def compile_graph(
    graph: Graph, schedule: Path | None, target: str, batch: int | None, threads: int | None, data: str | None,
    pipeline: str | None = None, dump_dir: Path | None = None, time_passes: bool = False,
) -> Compiled:  # fmt: skip
    """Compile with what the command line gives; progress goes to stderr."""
    from ldsnn_compiler.driver import compile as compile_
    from ldsnn_compiler.evaluate import measured_density
    from ldsnn_compiler.pipeline import parse_pipeline
    from ldsnn_compiler.schedule import Schedule
    from ldsnn_compiler.targets.boards import board

    board(target)  # what is misspelt is said before the long work
    parse_pipeline(pipeline or "")
    chosen = Schedule.read(schedule) if schedule is not None else None
    given = open_data(data)
    density = None
    if given is not None and graph.stage in ("traced", "scheduled"):
        note("measuring densities")
        density = measured_density(graph, given.calibration[0][:DENSITY_SAMPLES], chosen)
    instruments, report = pass_instruments(dump_dir, time_passes)
    compiled = compile_(
        graph, chosen, target, batch=batch, threads=threads, pipeline=pipeline, density=density,
        instruments=instruments, progress=_progress(),
    )  # fmt: skip
    report()
    return compiled


def _progress() -> Any:
    """A line for each thing done, but no more than one for every tenth of the way."""
    told = -1

    def tell(what: str, share: float) -> None:
        nonlocal told
        if int(share * 10) > told:
            told = int(share * 10)
            note(f"{share:4.0%} {what}")

    return tell


def summary(compiled: Compiled, path: Path) -> dict[str, Any]:
    """What was compiled, and where it is."""
    from ldsnn_compiler.schedule import neuron_layers

    settings, layers = compiled.settings, neuron_layers(compiled.graph)
    kernels: dict[str, int] = {}
    for node in compiled.graph.nodes:
        if node.placement is not None and node.op.weights:
            kernels[node.placement.kernel] = kernels.get(node.placement.kernel, 0) + 1
    return {
        "bundle": str(path),
        "bytes": sum(f.stat().st_size for f in path.iterdir()),
        "target": settings.board.name,
        "numerics": settings.numerics,
        "threads": settings.threads,
        "batch": settings.batch,
        "timesteps": {p: n.type.timesteps for p, n in layers.items()},
        "levels": {p: n.type.signal.levels or 0 for p, n in layers.items()},
        "kernels": kernels,
        "compile_seconds": compiled.report["compile_seconds"],
        "granule": compiled.graph.granule,
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return "any" if value is None else str(value)
