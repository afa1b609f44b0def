"""``ldsnn inspect``, ``diff``, ``opt``: looking at graphs, comparing them with their models, running passes on them."""

from __future__ import annotations

from dataclasses import asdict
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
from ldsnn_compiler.cli.models import ModelOptions, kind_of, open_data, open_graph, open_module
from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from ldsnn_compiler.ir.graph import Graph

Other = Annotated[
    str | None, typer.Argument(metavar="[GRAPH]", help="a .ldir or a bundle; default MODEL as it is imported")
]
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
) -> Answer:
    """Print the IR with timesteps, density and cost per node; with --data densities are measured."""
    from ldsnn_compiler.evaluate import full_layout
    from ldsnn_compiler.inspect import cost_table, costs_json, node_costs
    from ldsnn_compiler.inspect import dot as dot_text
    from ldsnn_compiler.ir.text import graph_text
    from ldsnn_compiler.svg import svg as svg_text

    graph = open_graph(ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt))
    if pipeline is not None or schedule is not None:
        run_passes(graph, pipeline, schedule, ())
    given = open_data(data, graph)
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
    from ldsnn_compiler.passes.assign_timesteps import with_schedule
    from ldsnn_compiler.passes.quantize import with_numerics
    from ldsnn_compiler.pipeline import default_pipeline, parse_pipeline, run_pipeline
    from ldsnn_compiler.schedule import Schedule

    chosen = Schedule.read(schedule) if schedule is not None else None
    text = pipeline if pipeline is not None else default_pipeline(stage=graph.stage)
    passes = with_schedule(parse_pipeline(text), chosen)
    if numbers:
        passes = with_numerics(passes, graph, **numbers)
    run_pipeline(graph, passes, instruments)
    return [str(p) for p in passes]


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


def diff(
    model: Model,
    graph: Other = None,
    data: Data = None,
    timesteps: Timesteps = None,
    shape: Shape = None,
    sequence: Sequence = False,
    limit: Limit = None,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0.0, help="for real values, relative")] = 1e-4,
) -> Answer:
    """Compare a graph with its PyTorch model layer by layer and name the first layer that diverges."""
    from ldsnn_compiler.diff import diff as compare
    from ldsnn_compiler.diff import first_divergence
    from ldsnn_compiler.evaluate import user_layout

    options = ModelOptions(model, timesteps, False, data, shape, sequence)
    if kind_of(model) != "factory":
        hint = "give file.py:factory, then the graph"
        raise LdsnnError(Problem("the original model is needed", where=model, hint=hint))
    module, example = open_module(options)
    net = open_graph(ModelOptions(graph)) if graph else open_graph(options)
    given = open_data(data, net)
    x = example
    if given is not None:
        x = user_layout(net, given.report[0][: limit or SAMPLES])
    layers = compare(net, module, x, tolerance=tolerance, stepping=_stepping(net, timesteps))
    first = first_divergence(layers)
    verdict = f"first divergence: {first.path} ({_what(first)})" if first else "no layer diverges"
    answer = {"model": model, "graph": graph, "first": first.path if first else None}
    return Answer({**answer, "layers": [asdict(x) for x in layers]}, (_diff_table(layers), verdict), 1 if first else 0)


def _stepping(net: Graph, timesteps: int | None) -> bool:
    """A model that was told its timesteps does one a call, and so gives its outputs one a step."""
    return timesteps is not None and all(node["time"] == "sequence" for node in net.outputs)


def _what(layer: Any) -> str:
    return layer.why or f"{layer.differing} of {layer.numbers} values differ, by up to {layer.largest:.3g}"


def _diff_table(layers: Any) -> Any:
    from rich.table import Table

    table = Table()
    for title in ("layer", "op", "T", "values", "differing", "largest difference", ""):
        table.add_column(title, justify="left" if title in ("layer", "op", "") else "right")
    for x in layers:
        times = str(x.timesteps[1]) if len(set(x.timesteps)) == 1 else f"{x.timesteps[0]} -> {x.timesteps[1]}"
        mark = "diverges" if x.diverges else x.why
        table.add_row(x.path, x.op, times, str(x.numbers), str(x.differing), f"{x.largest:.3g}", mark)
    return table
