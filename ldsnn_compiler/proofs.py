"""What is proved of a whole-number graph, layer by layer: weights, scales, worst sums, and the room that they leave."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import log2
from typing import Any

import torch

from ldsnn_compiler.ir.bounds import INT16, INT32, Bounds
from ldsnn_compiler.ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class LayerProof:
    """One layer of a whole-number graph.

    ``weights``: dtype; ``used_bits``: bits of the largest weight, its sign included. ``worst``: bounds of its results.
    ``membrane``: largest magnitude that the neuron behind it computes with over a whole run (None without one);
    ``accumulator``: the narrowest type that holds ``worst``; ``margin_bits``: bits to spare there, and
    ``state_margin_bits`` those of the membrane in int32.
    """

    path: str
    op: str
    weights: str
    used_bits: int
    worst: tuple[float, float]
    accumulator: str
    margin_bits: float
    membrane: float | None = None
    state_margin_bits: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON."""
        return asdict(self)


def layer_proofs(graph: Graph) -> list[LayerProof]:
    """A row for every layer with weights."""
    bounds = Bounds(graph)
    return [_proof(graph, node, bounds) for node in graph.nodes if node.op.weights and node.type.dtype != "float32"]


def _proof(graph: Graph, node: Node, bounds: Bounds) -> LayerProof:
    weight, known = graph.tensors[node["weight"].name], bounds.value(node.result)
    narrow = known.peak < INT16
    neuron = _neuron_behind(graph, node.result)
    peak = None if neuron is None else bounds.neuron(neuron).peak
    return LayerProof(
        node.path or node.name,
        node.op.name,
        str(weight.dtype).removeprefix("torch."),
        int(weight.to(torch.int32).abs().max()).bit_length() + 1,
        known.whole,
        "int16" if narrow else "int32",
        spare(known.peak, INT16 if narrow else INT32),
        peak,
        None if peak is None else spare(peak, INT32),
    )


def spare(peak: float, limit: int) -> float:
    """Bits between a magnitude and what a type holds."""
    return round(log2(limit / max(1.0, peak)), 2)


def _neuron_behind(graph: Graph, value: Value) -> Node | None:
    """The neuron that a current is summed for, through what sums and moves numbers."""
    for user, _ in graph.uses(value):
        if user.op.name == "neuron":
            return user
        if not user.op.weights and user.results and (found := _neuron_behind(graph, user.result)) is not None:
            return found
    return None


def table(proofs: list[LayerProof]) -> Any:
    """The rows for a person."""
    from rich.table import Table

    shown = Table(title="whole numbers, per layer")
    for title in ("layer", "weights", "bits", "worst sums", "sums in", "bits to spare", "membrane to", "bits to spare"):
        shown.add_column(title, justify="left" if title in ("layer", "weights", "sums in") else "right")
    for p in proofs:
        sums = f"{p.worst[0]:,.0f} .. {p.worst[1]:,.0f}"
        state = ("", "") if p.membrane is None else (f"{p.membrane:,.0f}", f"{p.state_margin_bits:.1f}")
        shown.add_row(p.path, p.weights, str(p.used_bits), sums, p.accumulator, f"{p.margin_bits:.1f}", *state)
    return shown
