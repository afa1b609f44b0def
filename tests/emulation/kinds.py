"""What is in a random network, in words that can be counted."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.proofs import layer_proofs

POOLS = ("sum_pool", "avg_pool", "max_pool")


def kinds(traced: Graph, lowered: Graph) -> list[str]:
    """Sorted words: of the network as it was drawn, and of what became of it in whole numbers on a board."""
    words = {word for node in traced.nodes for word in _drawn(node)}
    words |= {word for node in lowered.nodes for word in _lowered(node)} | set(_sums(lowered))
    if len(traced.of("add")) > len(traced.of("delay")):
        words.add("residual join")
    if len({n.type.dt for n in lowered.of("neuron")}) > 1:
        words.add("layers of different timesteps")
    if len(traced.of("output")) > 1:
        words.add("two outputs")
    return sorted(words)


def _drawn(node: Node) -> Iterator[str]:
    op = node.op.name
    if op == "neuron":
        neuron = node["neuron"]
        settings = dict(neuron.settings)
        yield f"neuron {neuron.template}"
        yield "hard reset" if settings.get("reset") == "hard" else "soft reset"
        if settings.get("max_count", 1) != 1:
            yield "neurons that count"
    if op in (*POOLS, "concat", "slice_time", "batch_norm", "resample"):
        yield op.replace("_", " ")
    if op == "delay":
        yield "recurrent delay"
    if op == "readout":
        yield f"readout {node['mode']}"
    if op == "input":
        yield f"{node['time']} input"
    if op.startswith("conv") and node["groups"] > 1:
        yield "grouped convolution"
    if op.startswith("conv") and max(node["stride"]) > 1:
        yield "strided convolution"


def _lowered(node: Node) -> Iterator[str]:
    if node.op.name == "neuron":
        levels = node.type.signal.levels
        if levels is not None and levels != 1:
            yield "graded spikes"
        if node["neuron"].substeps > 1:
            yield "several of its own steps in a timestep"
        if node.type.dt > Fraction(1):
            yield "fewer timesteps than drawn"
    if node.op.weights and node.placement is not None:
        yield f"{node.placement.kernel} kernel"


def _sums(lowered: Graph) -> Iterator[str]:
    for proof in layer_proofs(lowered):
        yield f"sums in {proof.accumulator}"
        yield f"weights {proof.weights}"
