"""Looking at a graph: T, density and cost per node, as a table, as Graphviz DOT, and (through :mod:`svg`) as a
drawing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from rich.table import Table

from ldsnn_compiler.interp.work import WorkCounter, count_work
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.results import amount


@dataclass(frozen=True)
class NodeCost:
    """One node. Work is per sample.

    ``dense_updates`` is what the node's synapses cost if every input were non-zero; ``density``, ``input_density``
    (non-zero shares of result and first operand), ``synaptic_updates`` and ``neurons_evaluated`` are measured, and None
    without data.
    """

    name: str
    op: str
    path: str
    timesteps: int
    dt: str
    shape: tuple[int, ...]
    signal: str
    placement: str
    dense_updates: float
    density: float | None = None
    input_density: float | None = None
    synaptic_updates: float | None = None
    neurons_evaluated: float | None = None


def node_costs(graph: Graph, *inputs: torch.Tensor) -> tuple[NodeCost, ...]:
    """The costs of all nodes, in graph order; measured with the interpreter on ``[T, N, *shape]`` data if given."""
    counter = count_work(graph, *inputs)[1] if inputs else None
    return tuple(_cost(graph, node, counter) for node in graph.nodes)


def _cost(graph: Graph, node: Node, counter: WorkCounter | None) -> NodeCost:
    type, measured = node.type, {}
    if counter is not None and node.name in counter.layers:
        work, samples = counter.layers[node.name], max(1, counter.samples)
        measured = {
            "density": work.density,
            "input_density": work.input_density,
            "synaptic_updates": work.synaptic_updates / samples,
            "neurons_evaluated": work.neurons_evaluated / samples,
        }
    return NodeCost(
        node.name, node.op.name, node.path, type.timesteps, str(type.dt), type.shape, str(type.signal),
        str(node.placement or ""), dense_updates(graph, node), **measured,
    )  # fmt: skip


def dense_updates(graph: Graph, node: Node) -> float:
    """Synaptic updates per sample if every number of every operand were non-zero (for a conv: its multiply-adds)."""
    if node.op.fan_out is None:
        return 0.0
    fan_outs = (node.op.fan_out(graph.call(node), i) for i in range(len(node.operands)))
    steps = (o.type.timesteps for o in node.operands)
    return sum(float(f.sum()) * t for f, t in zip(fan_outs, steps, strict=True) if f is not None)


def cost_table(costs: Sequence[NodeCost]) -> Table:
    """One line a node."""
    table = Table()
    for title in ("node", "op", "module", "T", "dt", "shape", "signal", "density", "in", "updates", "dense", "neurons"):
        table.add_column(title, justify="left" if title in ("node", "op", "module", "signal") else "right")
    if placed := any(c.placement for c in costs):
        table.add_column("placement")
    for c in costs:
        shape = "x".join(map(str, c.shape))
        cells = [
            c.name,
            c.op,
            c.path,
            str(c.timesteps),
            c.dt,
            shape,
            c.signal,
            _share(c.density),
            _share(c.input_density),
        ]
        cells += [
            amount(c.synaptic_updates or None),
            amount(c.dense_updates or None),
            amount(c.neurons_evaluated or None),
        ]
        table.add_row(*cells, *([c.placement] if placed else []))
    return table


def costs_json(costs: Sequence[NodeCost]) -> list[dict[str, object]]:
    """The costs as plain JSON data."""
    return [asdict(c) for c in costs]


def dot(graph: Graph, costs: Sequence[NodeCost]) -> str:
    """Graphviz DOT: a box a node, edges labelled with T and density."""
    by_name = {c.name: c for c in costs}
    lines = [
        f"digraph {json.dumps(graph.name)} {{",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
    ]
    for c in costs:
        label = "\n".join(node_label(c))
        lines.append(
            f"  {json.dumps(c.name)} [label={json.dumps(label)}, fillcolor={json.dumps(colour(graph, c.name))}];"
        )
    for node in graph.nodes:
        for operand in node.operands:
            label = json.dumps(edge_label(by_name[operand.node.name]))
            lines.append(f"  {json.dumps(operand.node.name)} -> {json.dumps(node.name)} [label={label}];")
    return "\n".join(lines + ["}"]) + "\n"


def node_label(cost: NodeCost) -> list[str]:
    """Two or three lines that name a node and its cost."""
    lines = [f"{cost.op}  {cost.path or cost.name}", f"T={cost.timesteps}  {'x'.join(map(str, cost.shape))}"]
    if cost.synaptic_updates:
        lines.append(f"{amount(cost.synaptic_updates)} of {amount(cost.dense_updates)} updates")
    elif cost.neurons_evaluated:
        lines.append(f"{amount(cost.neurons_evaluated)} neurons evaluated")
    elif cost.dense_updates:
        lines.append(f"{amount(cost.dense_updates)} updates if dense")
    return lines


def edge_label(source: NodeCost) -> str:
    """T of an edge, and its density if measured."""
    return f"T={source.timesteps}" + (f"  {source.density:.1%}" if source.density is not None else "")


COLOURS: Mapping[str, str] = {
    "linear": "#dbe9f6", "per_step": "#e8e8f4", "scan": "#fbe3d0", "time": "#e2f0d9", "io": "#eeeeee",
}  # fmt: skip
"""Fill by the op's kind: what is linear, what carries state, what changes time."""


def colour(graph: Graph, name: str) -> str:
    """Fill colour of a node."""
    return COLOURS[graph.node(name).op.kind]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
