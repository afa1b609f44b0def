"""``ldsnn compile``: a model becomes a bundle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

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
from ldsnn_compiler.cli.numerics import CalibrationFile, Numerics, NumericsOptions, WeightBits

if TYPE_CHECKING:
    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.runtime import Compiled
    from ldsnn_compiler.targets.c import CBundle

Out = Annotated[Path | None, typer.Option("-o", "--output", help="bundle folder; default NAME.ldsnn, or NAME for C")]
Format = Annotated[
    Literal["tvm", "c"],
    typer.Option("--format", help="tvm: for this package and TVM's run time; c: objects and sources for C programs"),
]
Name = Annotated[str | None, typer.Option("--name", help="with --format c: what all names in C begin with")]
IsTuned = Annotated[
    bool, typer.Option("--tuned/--untuned", help="use what `ldsnn tune` found on the target; results are the same")
]
Built = TypeVar("Built")
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
    format: Format = "tvm",
    name: Name = None,
    numerics: Numerics = None,
    calibration: CalibrationFile = None,
    weight_bits: WeightBits = None,
    tuned: IsTuned = True,
) -> Answer:
    """Compile a model for a target and write the bundle; with --data kernels are chosen by measured densities."""
    from ldsnn_compiler.runtime.folder import check_free

    size, numbers = parse_batch(batch), NumericsOptions(numerics, calibration, weight_bits)
    _check_format(format, name, threads)
    if output is not None:
        check_free(output)
    graph = open_graph(ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt))
    path = output or Path(f"{graph.name}.ldsnn" if format == "tvm" else name or graph.name)
    check_free(path)
    compiled: Compiled | CBundle
    if format == "c":
        compiled = compile_to_c(
            graph, schedule, target, size, name, data, pipeline, dump_dir, time_passes, numbers, tuned
        )
        compiled.save(path, _example(graph, data, size))
    else:
        compiled = compile_graph(
            graph, schedule, target, size, threads, data, pipeline, dump_dir, time_passes, numbers, tuned
        )
        compiled.save(path)
    found = summary(compiled, path)
    lines = [f"{key.replace('_', ' ')}: {_text(value)}" for key, value in found.items()]
    return Answer(found, ("\n".join(lines),))


def _check_format(format: str, name: str | None, threads: int | None) -> None:
    from ldsnn_compiler.targets.c.names import network_name

    if format == "tvm" and name is not None:
        raise typer.BadParameter("only with --format c", param_hint="--name")
    if name is not None:
        network_name(name)  # before the long work
    if format == "c" and threads is not None:
        raise typer.BadParameter("networks in C run on the thread that calls them", param_hint="--threads")


def _example(graph: Graph, data: str | None, batch: int | None) -> tuple[Any, ...] | None:
    """The first samples of the data, for the example of a C bundle."""
    from ldsnn_compiler.evaluate import full_layout

    given = open_data(data, graph)
    return None if given is None else (full_layout(graph, given.calibration[0][:batch]),)


def compile_graph(
    graph: Graph, schedule: Path | None, target: str, batch: int | None, threads: int | None, data: str | None,
    pipeline: str | None = None, dump_dir: Path | None = None, time_passes: bool = False,
    numbers: NumericsOptions = NumericsOptions(),  # noqa: B008  (frozen)
    tuned: bool = True,
) -> Compiled:  # fmt: skip
    """Compile with what the command line gives; progress goes to stderr."""
    from ldsnn_compiler.driver import compile as compile_

    compiler = partial(compile_, batch=batch, threads=threads, tuned=tuned)
    return _compiled_by(compiler, graph, schedule, target, data, pipeline, dump_dir, time_passes, numbers)


def compile_to_c(
    graph: Graph, schedule: Path | None, target: str, batch: int | None, name: str | None, data: str | None,
    pipeline: str | None = None, dump_dir: Path | None = None, time_passes: bool = False,
    numbers: NumericsOptions = NumericsOptions(),  # noqa: B008  (frozen)
    tuned: bool = True,
) -> CBundle:  # fmt: skip
    """The same for a C bundle."""
    from ldsnn_compiler.driver import compile_c

    compiler = partial(compile_c, batch=batch, name=name, tuned=tuned)
    return _compiled_by(compiler, graph, schedule, target, data, pipeline, dump_dir, time_passes, numbers)


def _compiled_by(
    compiler: Callable[..., Built], graph: Graph, schedule: Path | None, target: str, data: str | None,
    pipeline: str | None, dump_dir: Path | None, time_passes: bool, numbers: NumericsOptions,
) -> Built:  # fmt: skip
    from ldsnn_compiler.evaluate import measured_density
    from ldsnn_compiler.pipeline import parse_pipeline
    from ldsnn_compiler.schedule import Schedule
    from ldsnn_compiler.targets.boards import board

    board(target)  # what is misspelt is said before the long work
    parse_pipeline(pipeline or "")
    chosen = Schedule.read(schedule) if schedule is not None else None
    given = open_data(data, graph)
    density = None
    if given is not None and graph.stage in ("traced", "scheduled"):
        note("measuring densities")
        density = measured_density(graph, given.calibration[0][:DENSITY_SAMPLES], chosen)
    instruments, report = pass_instruments(dump_dir, time_passes)
    compiled = compiler(
        graph, chosen, target, pipeline=pipeline, density=density, instruments=instruments, progress=_progress(),
        **numbers.arguments(graph, given),
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


def summary(compiled: Compiled | CBundle, path: Path) -> dict[str, Any]:
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
        "tuned_regions": len(settings.tunings),
        "compile_seconds": compiled.report["compile_seconds"],
        "granule": compiled.graph.granule,
        **({"memory": compiled.report["memory"]} if "memory" in compiled.report else {}),
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(f"\n  {row['bytes']:>9} bytes  {row['what']}" for row in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return "any" if value is None else str(value)
