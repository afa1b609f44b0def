"""Our rows: the same network through the front end and the compiler, event-driven kernels chosen by cost or dense ones
forced, in real numbers or whole ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldsnn_compiler.bench.modules import Peer, available, spikingjelly_module
from ldsnn_compiler.bench.network import EPS, Layer, Network
from ldsnn_compiler.driver import DEFAULT_PIPELINE, compile
from ldsnn_compiler.frontend import trace
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.interp.work import count_work
from ldsnn_compiler.ir.graph import Graph, Value
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.proofs import layer_proofs
from ldsnn_compiler.runtime import Compiled
from ldsnn_compiler.targets.cpu.kernels import RegionSpec
from ldsnn_compiler.tuning.tune import tune

DENSE_PIPELINE = DEFAULT_PIPELINE.replace("select-kernels", "select-kernels{kernel=dense}")


@dataclass(frozen=True)
class Kind:
    """How a row of ours computes: ``numerics`` fp32 or int, all kernels ``dense`` or chosen by cost."""

    dense: bool = False
    numerics: str = "fp32"


OURS: Mapping[str, Kind] = {
    "ldsnn": Kind(),
    "ldsnn_dense": Kind(dense=True),
    "ldsnn_int": Kind(numerics="int"),
    "ldsnn_int_dense": Kind(dense=True, numerics="int"),
}
"""Our rows by name."""


def our_peer(network: Network, threads: int, name: str = "ldsnn", trials: int = 0) -> Peer:
    """Compile the network for this machine; ``extra`` tells how long that took and what work one sample is.

    A run is a whole call from Python, reset included. Spikes inside the network are read from a second compilation
    whose neurons are outputs too; its scores must be those of the first, bit for bit. In whole numbers they must be
    those of the interpreter. With ``trials`` its regions are tuned first.
    """
    graph, kind = graph_of(network), OURS[name]
    compiled = _compile(graph, network, threads, kind)
    images = network.images
    if trials:
        compiled = tune(compiled, images[None], trials=trials).network

    def run() -> Tensor:
        return compiled(images)  # type: ignore[return-value]

    probed = _compile(with_probes(graph), network, threads, kind)

    def record() -> tuple[list[Tensor], Tensor]:
        scores, *spikes = probed(images)
        if not torch.equal(scores, run()):
            raise AssertionError(f"{name}: the network with its spikes as outputs computes other scores")
        return list(spikes), scores

    def interpreted() -> tuple[list[Tensor], Tensor]:
        with torch.no_grad():
            scores, *spikes = Interpreter(probed.graph)(images)
        return list(spikes), scores

    _, work = count_work(compiled.graph, images[None])
    seconds = sum(compiled.report["compile_seconds"].values())
    extra = {"compile_seconds": seconds, "work": work.totals(), "graph": compiled.graph}
    extra["tuned_regions"] = len(compiled.settings.tunings)
    if kind.numerics == "int":
        extra["integers"] = whole_numbers(compiled)
    exact = interpreted if kind.numerics == "int" else None
    return Peer(name, run, record, f"batch {len(images)}, {threads} threads, {kind.numerics}", extra, exact)


def whole_numbers(compiled: Compiled) -> dict[str, Any]:
    """Of a network in whole numbers: bits that its weights use, the share of its layers whose kernels add up in int16
    (as a whole, or in parts that are proved to fit), and what is proved of each layer."""
    specs = [k.key for k in compiled.plans["run"].kernels if isinstance(k.key, RegionSpec)]
    sums = [spec.sums(source)[0] for spec in specs for source in spec.sources if source.kind == "conv"]
    proofs = layer_proofs(compiled.graph)
    return {
        "weight_bits": max(proof.used_bits for proof in proofs),
        "int16_share": sums.count("int16") / len(sums),
        "layers": [proof.to_json() for proof in proofs],
    }


def _compile(graph: Graph, network: Network, threads: int, kind: Kind) -> Compiled:
    density = {path: layer.rate for path, layer in zip(network.paths, network.layers, strict=True)}
    calibration = calibrate(graph, network.images[None]) if kind.numerics == "int" else None
    return compile(
        graph, batch=len(network.images), threads=threads, pipeline=DENSE_PIPELINE if kind.dense else None,
        density=density, numerics=kind.numerics, calibration=calibration,
    )  # fmt: skip


def with_probes(graph: Graph) -> Graph:
    """A copy in which every neuron layer is an output as well, after the network's own."""
    copy = graph.clone()
    for i, node in enumerate(graph.of("neuron")):
        copy.add("output", [copy.node(node.name).result], name=f"probe{i}")
    return copy


def graph_of(network: Network) -> Graph:
    """The network as a graph: the SpikingJelly model traced or, without SpikingJelly, built node by node."""
    if available("spikingjelly"):
        return trace(spikingjelly_module(network), network.images, name=network.spec.name)
    return built(network)


def built(network: Network) -> Graph:
    """The same graph without a front end."""
    graph = Graph(network.spec.name, network.timesteps)
    source = Stream(1, network.timesteps, network.spec.shape)  # type: ignore[arg-type]
    x = graph.add("input", name="x", type=source, time="static").result
    x = graph.add("resample", [x], name="hold", dt=1, mode="repeat").result
    for i, layer in enumerate(network.layers):
        x = _layer(graph, x, layer, i)
    x = graph.add("flatten", [x], path="flatten").result if len(x.type.shape) > 1 else x
    x = graph.add("linear", [x], path="head", weight=graph.tensor("head.weight", network.head)).result
    x = graph.add("readout", [x], name="mean", mode="mean").result
    graph.add("output", [x], name="output", time="squeeze")
    return graph


def _layer(graph: Graph, x: Value, layer: Layer, i: int) -> Value:
    if layer.mean is None or layer.var is None:
        x = graph.add("linear", [x], path=f"fc{i}", weight=graph.tensor(f"fc{i}.weight", layer.weight)).result
    else:
        window: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
        weight = graph.tensor(f"conv{i}.weight", layer.weight)
        x = graph.add("conv2d", [x], path=f"conv{i}", weight=weight, **window).result
        mean, var = graph.tensor(f"bn{i}.mean", layer.mean), graph.tensor(f"bn{i}.var", layer.var)
        x = graph.add("batch_norm", [x], path=f"bn{i}", mean=mean, var=var, eps=EPS).result
    x = graph.add("neuron", [x], path=f"sn{i}", neuron=neuron("if", threshold=layer.threshold)).result
    if layer.pool:
        x = graph.add("avg_pool", [x], path=f"pool{i}", kernel=(2, 2), stride=(2, 2), padding=(0, 0)).result
    return x
