"""One small legal graph for every op, and a few networks, for tests that must see all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import torch

from ldsnn_compiler.ir.graph import Graph, Value
from ldsnn_compiler.ir.neuron import neuron, templates
from ldsnn_compiler.ir.types import SPIKE, Stream

STEPS = 8


def dyadic(*shape: int, seed: int = 0, scale: int = 8) -> torch.Tensor:
    """Multiples of 1/scale in [-1, 1]: sums and products of a few stay exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-scale, scale + 1, shape, generator=generator).float() / scale


def started(shape: tuple[int, ...] = (4, 6, 6), event: bool = False) -> tuple[Graph, Value]:
    """A graph with one sequence input of that shape."""
    graph = Graph("zoo", STEPS)
    type = Stream(STEPS, 1, shape, signal=SPIKE) if event else Stream(STEPS, 1, shape)
    return graph, graph.add("input", type=type, name="x").result


def finished(graph: Graph, *values: Value) -> Graph:
    """The graph with those values as outputs."""
    for value in values:
        graph.add("output", [value])
    return graph


def _conv(name: str, shape: tuple[int, ...], **attrs: object) -> Callable[[], Graph]:
    def build() -> Graph:
        graph, x = started(shape, event=True)
        axes = len(shape) - 1
        groups = int(attrs.get("groups", 1))  # type: ignore[call-overload]
        kernel = (3, 2)[:axes]
        settings: dict[str, object] = {"stride": (1,) * axes, "padding": (1,) * axes, "dilation": (1,) * axes, **attrs}
        weight = graph.tensor("w", dyadic(6, shape[0] // groups, *kernel))
        node = graph.add(name, [x], weight=weight, bias=graph.tensor("b", dyadic(6, seed=1)), path="conv", **settings)
        return finished(graph, node.result)

    return build


def _simple(name: str, event: bool = True, **attrs: object) -> Callable[[], Graph]:
    def build() -> Graph:
        graph, x = started(event=event)
        return finished(graph, graph.add(name, [x], path=name, **attrs).result)

    return build


def _pair(name: str, **attrs: object) -> Callable[[], Graph]:
    def build() -> Graph:
        graph, x = started()
        other = graph.add("scale", [x], factor=0.5)
        return finished(graph, graph.add(name, [x, other.result], **attrs).result)

    return build


def _linear() -> Graph:
    graph, x = started((3, 5))
    node = graph.add("linear", [x], weight=graph.tensor("w", dyadic(7, 5)), path="fc")
    return finished(graph, node.result)


def _batch_norm() -> Graph:
    graph, x = started()
    names = {k: graph.tensor(k, dyadic(4, seed=i)) for i, k in enumerate(("mean", "weight", "bias"))}
    return finished(graph, graph.add("batch_norm", [x], var=graph.tensor("var", torch.ones(4) / 4), **names).result)


def _constant() -> Graph:
    graph, x = started((4,))
    held = graph.add("constant", value=graph.tensor("c", dyadic(STEPS, 4)))
    return finished(graph, graph.add("add", [x, held.result]).result)


def _recurrent() -> Graph:
    graph, x = started((5,))
    delay = graph.add("delay", type=Stream(STEPS, 1, (5,)), steps=2)
    total = graph.add("add", [x, delay.result])
    cell = graph.add("neuron", [total.result], neuron=neuron("lif"), path="cell", membrane=True)
    back = graph.add("linear", [cell.result], weight=graph.tensor("w", dyadic(5, 5)), path="back")
    graph.set_operand(delay, 0, back.result)
    return finished(graph, cell.result, cell.results[1])


def _neuron(name: str) -> Callable[[], Graph]:
    def build() -> Graph:
        graph, x = started((4, 3, 3))
        cell = graph.add("neuron", [x], neuron=neuron(name), path="cell", membrane=True)
        return finished(graph, cell.result, cell.results[1])

    return build


def _per_channel() -> Graph:
    graph, x = started((4, 3, 3))
    ref = graph.tensor("threshold", torch.tensor([0.5, 1.0, 0.25, 2.0]))
    return finished(graph, graph.add("neuron", [x], neuron=neuron("if", threshold=ref), path="cell").result)


def _whole(op: str, **attrs: object) -> Callable[[], Graph]:
    """Whole numbers between the borders of that part of a network."""

    def build() -> Graph:
        graph, x = started()
        whole = graph.add("quantize", [x], scale=0.125, low=-8, high=7, name="whole").result
        if op == "neuron":
            kinds = {
                k: graph.tensor(k, torch.tensor([3, 5, 8, 12], dtype=torch.int32)) for k in ("threshold", "v_init")
            }
            cell = replace(neuron("leaky", beta=0.75, max_count=3, **kinds), fraction=8, guard=2)
            node = graph.add(op, [whole], neuron=cell, path="cell", membrane=True)
        elif op == "conv2d":
            weight = (dyadic(6, 4, 3, 3) * 8).to(torch.int8)
            node = graph.add(op, [whole], weight=graph.tensor("w", weight), path="conv", **attrs)
        else:
            node = graph.add(op, [whole], **attrs)
        real = [graph.add("dequantize", [y], scale=0.25, path="real").result for y in node.results]
        return finished(graph, *real)

    return build


def _dequantize() -> Graph:
    graph, x = started()
    whole = graph.add("quantize", [x], scale=0.125, low=-8, high=7)
    by = graph.tensor("by", torch.tensor([0.5, 1.0, 0.25, 2.0]))
    return finished(graph, graph.add("dequantize", [whole.result], by=by).result)


#: name -> builder; names start with the op they are about
ZOO: dict[str, Callable[[], Graph]] = {
    "conv1d": _conv("conv1d", (4, 9)),
    "conv2d": _conv("conv2d", (4, 6, 6)),
    "conv2d_strided": _conv("conv2d", (4, 7, 5), stride=(2, 1), padding=(0, 1)),
    "conv2d_dilated": _conv("conv2d", (4, 8, 8), dilation=(2, 3)),
    "conv2d_grouped": _conv("conv2d", (4, 6, 6), groups=2),
    "linear": _linear,
    "matmul": _pair("matmul"),
    "scale": _simple("scale", factor=0.25),
    "add": _pair("add"),
    "multiply": _pair("multiply"),
    "concat": _pair("concat", axis=0),
    "batch_norm": _batch_norm,
    "constant": _constant,
    "flatten": _simple("flatten"),
    "reshape": _simple("reshape", shape=(2, 72)),
    "slice": _simple("slice", axis=1, start=1, stop=5, step=2),
    "pad": _simple("pad", low=(1, 0, 2), high=(0, 1, 0)),
    "avg_pool": _simple("avg_pool", kernel=(2, 2), stride=(2, 2), padding=(0, 0)),
    "avg_pool_uneven": _simple("avg_pool", kernel=(3, 3), stride=(2, 2), padding=(1, 1), count_include_pad=False),
    "sum_pool": _simple("sum_pool", kernel=(2, 2), stride=(2, 2), padding=(0, 0)),
    "max_pool": _simple("max_pool", kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1)),
    "adaptive_avg_pool": _simple("adaptive_avg_pool", size=(2, 2)),
    "threshold": _simple("threshold", event=False, at=0.5, compare="gt", value=2.0),
    "resample_mean": _simple("resample", dt=4),
    "resample_repeat": _simple("resample", dt=Fraction(1, 2), mode="repeat"),
    "slice_time": _simple("slice_time", steps=3),
    "readout_mean": _simple("readout", mode="mean"),
    "readout_max": _simple("readout", mode="max"),
    "readout_last": _simple("readout", mode="last"),
    "quantize": _whole("scale", factor=3.0),
    "quantize_events": _simple("quantize", scale=1.0, low=0, high=1),
    "dequantize": _dequantize,
    "resample_sum": _whole("resample", dt=4, mode="sum"),
    "resample_sum_uneven": _whole("resample", dt=Fraction(8, 3), mode="sum"),
    "readout_sum": _simple("readout", mode="sum"),
    "conv2d_whole": _whole("conv2d", stride=(1, 1), padding=(1, 1), dilation=(1, 1)),
    "neuron_whole": _whole("neuron"),
    "encode_direct": _simple("encode", event=False, code="direct"),
    "encode_poisson": _simple("encode", event=False, code="poisson", seed=3),
    "encode_latency": _simple("encode", event=False, code="latency"),
    "delay_recurrent": _recurrent,
    "neuron_per_channel": _per_channel,
    **{f"neuron_{name}": _neuron(name) for name in templates()},
}


def build(name: str) -> Graph:
    """The named graph."""
    return ZOO[name]()


def data(graph: Graph, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Dyadic data for a graph's inputs, ``[T, N, *shape]``; 0 or 1 where the input is an event stream."""
    made = []
    for i, node in enumerate(graph.inputs):
        x = dyadic(node.type.timesteps, batch, *node.type.shape, seed=seed + i)
        made.append((x > 0.25).float() if node.type.signal.is_event else x)
    return tuple(made)
