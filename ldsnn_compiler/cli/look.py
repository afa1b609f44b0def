"""``ldsnn inspect`` and ``opt``: looking at graphs, running passes on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldsnn_compiler.cli.common import (
    Answer,
    Calibrate,
    Convert,
    Data,
    Dt,
    DumpDir,
    Limit,
    Model,
    Pipeline,
    ScheduleFile,
    Sequence,
    Shape,
    TimePasses,
    Timesteps,
    note,
)
from ldsnn_compiler.cli.models import ModelOptions, open_data, open_graph
from ldsnn_compiler.cli.numerics import CalibrationFile, Numerics, NumericsOptions, WeightBits

if TYPE_CHECKING:
    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.pipeline import Pass

SAMPLES = 16
"""Samples that densities are measured on, unless ``--limit`` says otherwise."""


def inspect(
    model: Model,
    data: Data = None,
    dot: Annotated[Path | None, typer.Option("--dot", help="write Graphviz DOT to this file")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="write a drawing to this file")] = None,
    timesteps: Timesteps = None,
    dt: Dt = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    shape: Shape = None,
    sequence: Sequence = False,
    limit: Limit = None,
    pipeline: Pipeline = None,
    schedule: ScheduleFile = None,
    numerics: Numerics = None,
    calibration: CalibrationFile = None,
    weight_bits: WeightBits = None,
) -> Answer:
    """Print the IR with timesteps, density and cost per node; with --data densities are measured."""
    from ldsnn_compiler.evaluate import full_layout
    from ldsnn_compiler.inspect import cost_table, costs_json, node_costs
    from ldsnn_compiler.inspect import dot as dot_text
    from ldsnn_compiler.ir.text import graph_text
    from ldsnn_compiler.svg import svg as svg_text

    numbers = NumericsOptions(numerics, calibration, weight_bits)
    graph = open_graph(ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt))
    given = open_data(data, graph)
    if pipeline is not None or schedule is not None or numerics is not None:
        run_passes(graph, pipeline, schedule, (), **numbers.arguments(graph, given))
    inputs = (full_layout(graph, given.report[0][: limit or SAMPLES]),) if given else ()
    costs = node_costs(graph, *inputs)
    for path, draw in ((dot, dot_text), (svg, svg_text)):
        if path is not None:
            _write(path, draw(graph, costs))
    text = graph_text(graph, hashes=False)
    data_out = {"name": graph.name, "stage": graph.stage, "base_timesteps": graph.base_timesteps}
    return Answer({**data_out, "nodes": costs_json(costs), "ir": text}, (text, cost_table(costs)))


def _write(path: Path, text: str) -> None:
    from ldsnn_compiler.ir.store import write_atomically

    write_atomically(path, text.encode())
    note(f"wrote {path}")


def opt(
    model: Model,
    pipeline: Pipeline = None,
    schedule: ScheduleFile = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="write the graph there, as .ldir")] = None,
    dump_dir: DumpDir = None,
    time_passes: TimePasses = False,
    timesteps: Timesteps = None,
    dt: Dt = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    data: Data = None,
    shape: Shape = None,
    sequence: Sequence = False,
) -> Answer:
    """Run passes on a graph and print it."""
    from ldsnn_compiler.ir.store import write_graph
    from ldsnn_compiler.ir.text import graph_text

    graph = open_graph(ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt))
    instruments, report = pass_instruments(dump_dir, time_passes)
    done = run_passes(graph, pipeline, schedule, instruments)
    report()
    if output is not None:
        write_graph(graph, output)
        note(f"wrote {output}")
    text = graph_text(graph, hashes=False)
    return Answer({"pipeline": done, "stage": graph.stage, "ir": text}, (text,))


def run_passes(
    graph: Graph, pipeline: str | None, schedule: Path | None, instruments: Any, **numbers: Any
) -> list[str]:
    """Run a textual pipeline on a graph, in place; by default the compiler's own, as far as it applies to its stage.

    ``numbers`` are the arguments ``numerics``, ``calibration`` and ``weight_bits`` of a compilation.
    """
    from ldsnn_compiler.pipeline import run_pipeline

    passes = chosen_passes(graph, pipeline, schedule, **numbers)
    run_pipeline(graph, passes, instruments)
    return [str(p) for p in passes]


def chosen_passes(graph: Graph, pipeline: str | None, schedule: Path | None, **numbers: Any) -> tuple[Pass, ...]:
    """The passes that :func:`run_passes` runs."""
    from ldsnn_compiler.passes.assign_timesteps import with_schedule
    from ldsnn_compiler.passes.quantize import with_numerics
    from ldsnn_compiler.pipeline import default_pipeline, parse_pipeline
    from ldsnn_compiler.schedule import Schedule

    chosen = Schedule.read(schedule) if schedule is not None else None
    text = pipeline if pipeline is not None else default_pipeline(stage=graph.stage)
    passes = with_schedule(parse_pipeline(text), chosen)
    return with_numerics(passes, graph, **numbers) if numbers else passes


def pass_instruments(dump_dir: Path | None, time_passes: bool) -> tuple[list[Any], Any]:
    """The instruments that the options ask for, and a function to call afterwards that reports what they found."""
    from ldsnn_compiler.pipeline.instruments import DumpIR, TimePasses

    dumps = [DumpIR(dump_dir)] if dump_dir is not None else []
    timers = [TimePasses()] if time_passes else []

    def report() -> None:
        for timer in timers:
            note(timer.table())
        for dump in dumps:
            note(f"wrote {dump.written} dumps to {dump.folder}")

    return [*dumps, *timers], report
