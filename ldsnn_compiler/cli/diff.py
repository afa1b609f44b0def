"""``ldsnn diff``: a graph beside the model that it came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldsnn_compiler.cli.common import (
    Answer,
    Calibrate,
    Convert,
    Data,
    Limit,
    Pipeline,
    ScheduleFile,
    Sequence,
    Shape,
    Timesteps,
)
from ldsnn_compiler.cli.look import chosen_passes
from ldsnn_compiler.cli.models import ModelOptions, kind_of, open_data, open_graph, open_module
from ldsnn_compiler.cli.numerics import CalibrationFile, Numerics, NumericsOptions, WeightBits
from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from ldsnn_compiler.diff import LayerDiff
    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.pipeline import Pass
    from ldsnn_compiler.whole_diff import Origin

Original = Annotated[str, typer.Argument(metavar="MODEL", help="the original, file.py:factory; GRAPH may stand first")]
Other = Annotated[
    str | None,
    typer.Argument(
        metavar="[GRAPH]",
        help="a .ldir or a bundle; default MODEL as it is imported, with --schedule, --pipeline and --numerics",
    ),
]
SAMPLES = 16
"""Samples that are compared, unless ``--limit`` says otherwise."""


def diff(
    model: Original,
    graph: Other = None,
    data: Data = None,
    timesteps: Timesteps = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    shape: Shape = None,
    sequence: Sequence = False,
    limit: Limit = None,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0.0, help="for real values, relative")] = 1e-4,
    pipeline: Pipeline = None,
    schedule: ScheduleFile = None,
    numerics: Numerics = None,
    calibration: CalibrationFile = None,
    weight_bits: WeightBits = None,
) -> Answer:
    """Compare a graph with its PyTorch model layer by layer and name the first layer that diverges. Whole numbers are
    compared in the model's units, and a bundle of them with the interpreter too, bit for bit."""
    from ldsnn_compiler.diff import diff as compare
    from ldsnn_compiler.evaluate import user_layout
    from ldsnn_compiler.ir.layouts import to_run

    model, graph = _in_order(model, graph)
    numbers = NumericsOptions(numerics, calibration, weight_bits)
    options = ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate)
    module, example = open_module(options)
    pair = _pair(graph, options, pipeline, schedule, numbers)
    given = open_data(data, pair.graph)
    x = example if given is None else user_layout(pair.graph, given.report[0][: limit or SAMPLES])
    stepping = timesteps is not None and not convert and all(node["time"] == "sequence" for node in pair.graph.outputs)
    layers = compare(pair.graph, module, x, tolerance=tolerance, stepping=stepping, origin=pair.origin)
    found = {"model": model, "graph": graph, "quantised": pair.origin is not None}
    if pair.origin is None:
        return _answer(found, layers)
    checked = None if graph is None else _checked(Path(graph), to_run(pair.graph.inputs[0], x))
    return _quantised(found, layers, checked)


def _in_order(model: str, graph: str | None) -> tuple[str, str | None]:
    """The original first, as the arguments may stand in either order."""
    if graph is not None and kind_of(model) != "factory" and ".py:" in graph:
        model, graph = graph, model
    if kind_of(model) != "factory":
        hint = "give file.py:factory, then the graph"
        raise LdsnnError(Problem("the original model is needed", where=model, hint=hint))
    return model, graph


@dataclass(frozen=True)
class _Pair:
    """The graph to compare, and, of whole numbers, what it was made from."""

    graph: Graph
    origin: Origin | None


def _pair(
    graph: str | None, options: ModelOptions, pipeline: str | None, schedule: Path | None, numbers: NumericsOptions
) -> _Pair:
    from ldsnn_compiler.pipeline import run_pipeline
    from ldsnn_compiler.whole_diff import Origin

    if graph is None:
        made, asked = open_graph(options), (pipeline, schedule, numbers.numerics)
        if not any(each is not None for each in asked):
            return _Pair(made, None)
        given = numbers.arguments(made, open_data(options.data, made))
        passes = chosen_passes(made, pipeline, schedule, **given)
        whole = run_pipeline(made.clone(), passes)
        return _Pair(whole, Origin.of(made, passes) if whole.numerics == "int" else None)
    net = open_graph(ModelOptions(graph))
    if net.numerics != "int":
        _refuse({"--pipeline": pipeline, "--schedule": schedule, "--numerics": numbers.numerics}, graph)
        return _Pair(net, None)
    _refuse({"--numerics": numbers.numerics}, graph)
    made = open_graph(options)
    return _Pair(net, Origin.of(made, _recipe(graph, made, pipeline, schedule)))


def _refuse(given: dict[str, Any], graph: str) -> None:
    if wrong := [name for name, value in given.items() if value is not None]:
        hint = "leave GRAPH out to compare MODEL after these passes"
        raise LdsnnError([Problem(f"{graph} is a graph already", where=name, hint=hint) for name in wrong])


def _recipe(graph: str, imported: Graph, pipeline: str | None, schedule: Path | None) -> tuple[Pass, ...]:
    """The passes that a graph of whole numbers was made by: a bundle knows, of others the command line says."""
    from ldsnn_compiler.pipeline import parse_pipeline
    from ldsnn_compiler.runtime.bundle import read_pipeline

    if pipeline is None and kind_of(graph) == "bundle":
        _refuse({"--schedule": schedule}, graph)
        return tuple(parse_pipeline(read_pipeline(graph)))
    return chosen_passes(imported, pipeline, schedule)


# ---- what is said


def _answer(found: dict[str, Any], layers: tuple[LayerDiff, ...]) -> Answer:
    from ldsnn_compiler.diff import first_divergence

    first = first_divergence(layers)
    verdict = f"first divergence: {first.path} ({_what(first)})" if first else "no layer diverges"
    rows = [asdict(layer) for layer in layers]
    data = {**found, "first": first.path if first else None, "layers": rows}
    return Answer(data, (_table(layers), verdict), 1 if first else 0)


def _quantised(found: dict[str, Any], layers: tuple[LayerDiff, ...], checked: Checked | None) -> Answer:
    """Of whole numbers: differences from the model are no failure, those from the interpreter are."""
    from ldsnn_compiler.diff import first_divergence

    first = first_divergence(layers)
    agreement = {layer.path: layer.agreement for layer in layers if layer.numbers}
    each = ", ".join(f"{path} {share:.2%}" for path, share in agreement.items())
    lines = [f"quantised: differences are expected; agreement per layer is {each}"]
    if first is None:
        lines.append("no layer differs from the model")
    else:
        alone = "" if first.why else f"; {first.quantised} by whole numbers alone"
        lines.append(f"first layer that differs: {first.path} ({_what(first)}{alone})")
    if checked is not None:
        lines.append(checked.said)
    rows = [{**asdict(layer), "agreement": layer.agreement} for layer in layers]
    code = None if checked is None else checked.unlike
    data = {**found, "first": first.path if first else None, "agreement": agreement, "unlike_interpreter": code}
    failed = bool(code) or any(layer.diverges and layer.why for layer in layers)
    return Answer({**data, "layers": rows}, (_table(layers), "\n".join(lines)), 1 if failed else 0)


@dataclass(frozen=True)
class Checked:
    """What compiled code was found to be: names of what is ``unlike`` the interpreter's, None where it cannot run."""

    unlike: list[str] | None
    said: str


def _checked(graph: Path, x: Tensor) -> Checked | None:
    """Compiled code of a bundle against the interpreter on samples ``[T, N, *shape]``; None of what is no bundle."""
    from ldsnn_compiler.runtime import load
    from ldsnn_compiler.runtime.bundle import read_target
    from ldsnn_compiler.whole_diff import unlike_interpreter

    if kind_of(str(graph)) != "bundle":
        return None
    board = read_target(graph)
    if lacking := board.missing():
        return Checked(None, f"compiled code was not run: it is for {board.name}, this machine lacks {lacking[0]}")
    unlike = list(unlike_interpreter(load(graph), x))
    if unlike:
        return Checked(unlike, f"compiled code differs from the interpreter of whole numbers: {', '.join(unlike)}")
    return Checked(unlike, "compiled code gives the outputs and the state of the interpreter, bit for bit")


def _what(layer: LayerDiff) -> str:
    return layer.why or f"{layer.differing} of {layer.numbers} values differ, by up to {layer.largest:.3g}"


def _table(layers: Iterable[LayerDiff]) -> Any:
    from rich.table import Table

    layers = list(layers)
    is_quantised = any(layer.quantised is not None for layer in layers)
    table = Table()
    more = ("by whole numbers", "agreement") if is_quantised else ("",)
    for title in ("layer", "op", "T", "values", "differing", "largest difference", *more):
        table.add_column(title, justify="left" if title in ("layer", "op", "") else "right")
    for x in layers:
        times = str(x.timesteps[1]) if len(set(x.timesteps)) == 1 else f"{x.timesteps[0]} -> {x.timesteps[1]}"
        last = [x.why or ("diverges" if x.diverges else "")]
        if is_quantised:
            last = [str(x.quantised), x.why or f"{x.agreement:.2%}"]
        table.add_row(x.path, x.op, times, str(x.numbers), str(x.differing), f"{x.largest:.3g}", *last)
    return table
