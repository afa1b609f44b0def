"""``ldsnn check``: can this model be imported, and if not, everything that stands in the way."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ldsnn_compiler.cli.common import Answer, Calibrate, Convert, Data, Model, Sequence, Shape, Timesteps, note
from ldsnn_compiler.cli.models import ModelOptions, kind_of, open_graph, open_module
from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from ldsnn_compiler.ir.graph import Graph


def check(
    model: Model,
    timesteps: Timesteps = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    data: Data = None,
    shape: Shape = None,
    sequence: Sequence = False,
) -> Answer:
    """Say whether a model can be imported: its layers as they would be, or all problems at once."""
    options = ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate)
    graph, notes = _import(options)
    for each in notes:
        note(f"note: {each}")
    layers = layer_rows(graph)
    answer = {"model": model, "base_timesteps": graph.base_timesteps, "notes": [asdict(n) for n in notes]}
    return Answer({**answer, "layers": layers, "problems": []}, (_table(layers), _verdict(graph)))


def _import(options: ModelOptions) -> tuple[Graph, tuple[Problem, ...]]:
    if options.convert or kind_of(options.model) != "factory":
        return open_graph(options), ()
    from ldsnn_compiler.frontend.tracer import import_model

    module, example = open_module(options)
    result = import_model(module, example, options.timesteps, name=options.model.rpartition(":")[2])
    if result.problems:
        raise LdsnnError(result.problems)
    return result.graph, result.notes


def layer_rows(graph: Graph) -> list[dict[str, Any]]:
    """One entry for every node that comes from a module or function of the model."""
    return [
        {
            "path": node.path,
            "op": node.op.name,
            "neuron": str(node["neuron"]) if node.op.name == "neuron" else None,
            "timesteps": node.type.timesteps,
            "shape": list(node.type.shape),
            "parameters": sum(graph.tensors[ref.name].numel() for ref in _refs(node)),
        }
        for node in graph.nodes
        if node.op.kind != "io"
    ]


def _refs(node: Any) -> Any:
    from ldsnn_compiler.ir.graph import tensor_refs

    return tensor_refs(node)


def _table(layers: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table()
    for title in ("module", "op", "T", "shape", "parameters"):
        table.add_column(title, justify="left" if title in ("module", "op") else "right")
    for row in layers:
        shape = "x".join(map(str, row["shape"]))
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        table.add_row(row["path"], row["neuron"] or row["op"], str(row["timesteps"]), shape, parameters)
    return table


def _verdict(graph: Graph) -> str:
    neurons = len(graph.of("neuron"))
    return f"can be compiled: {neurons} neuron layers, {graph.base_timesteps} timesteps"
