"""``ldsnn check``: can this model be imported, and if not, everything that stands in the way."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ldsnn_compiler.cli.common import Answer, Calibrate, Convert, Data, Dt, Model, Sequence, Shape, Timesteps, note
from ldsnn_compiler.cli.models import ModelOptions, check_asked, kind_of, open_graph, open_module
from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from torch import nn

    from ldsnn_compiler.frontend.report import Layer
    from ldsnn_compiler.ir.graph import Graph


def check(
    model: Model,
    timesteps: Timesteps = None,
    dt: Dt = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    data: Data = None,
    shape: Shape = None,
    sequence: Sequence = False,
) -> Answer:
    """Say whether a model can be imported: its layers as they would be, or all problems at once."""
    from ldsnn_compiler.frontend.report import layers_of
    from ldsnn_compiler.ir.verify import stable

    options = ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt)
    graph, module, notes = _import(options)
    for each in notes:
        note(f"note: {each}")
    layers = layers_of(graph, module)
    answer = {"model": model, "base_timesteps": graph.base_timesteps, "notes": [asdict(n) for n in notes]}
    problems = list(stable(graph))
    for each in problems:
        note(f"error: {each}")
    shown = (_table(layers), _verdict(graph, bool(problems)))
    found = {**answer, "layers": [asdict(layer) for layer in layers], "problems": [asdict(p) for p in problems]}
    return Answer(found, shown, exit_code=1 if problems else 0)


def _import(options: ModelOptions) -> tuple[Graph, nn.Module | None, tuple[Problem, ...]]:
    """The graph, the module it was traced from (if it was), and what the import has to say."""
    kind = kind_of(options.model)
    check_asked(options, kind)
    if kind == "nir":
        from ldsnn_compiler.frontend.nir import import_nir

        imported = import_nir(options.model, options.timesteps, options.dt)
        return imported.graph, None, imported.notes
    if options.convert or kind != "factory":
        return open_graph(options), None, ()
    from ldsnn_compiler.frontend.tracer import import_model

    module, example = open_module(options)
    name, sequence = options.model.rpartition(":")[2], options.sequence or None
    result = import_model(module, example, options.timesteps, name=name, sequence=sequence)
    if result.problems:
        raise LdsnnError(result.problems)
    return result.graph, module, result.notes


def _table(layers: tuple[Layer, ...]) -> Any:
    from rich.table import Table

    table = Table()
    for title in ("module", "class", "op", "T", "shape", "parameters", "state"):
        table.add_column(title, justify="left" if title in ("module", "class", "op") else "right")
    for layer in layers:
        op = layer.settings if layer.op == "neuron" else layer.op
        held = (f"{n:,}" if n else "" for n in (layer.parameters, layer.state))
        table.add_row(layer.path, layer.kind, op, str(layer.timesteps), "x".join(map(str, layer.shape)), *held)
    return table


def _verdict(graph: Graph, broken: bool) -> str:
    neurons = len(graph.of("neuron"))
    can = "can be imported, but not run" if broken else "can be compiled"
    return f"{can}: {neurons} neuron layers, {graph.base_timesteps} timesteps"
