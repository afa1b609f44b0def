"""Every op by its tensor expression, without any pass: the interpreter's bits, whole and in steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import zoo
from graphs import Net, inputs_of
from target_harness import check, check_steps, compiled

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.op import ops
from ldsnn_compiler.ir.types import Stream


def _tensor(net: Net, name: str, *shape: int) -> object:
    return net.graph.tensor(name, net.dyadic(*shape))


def shapes() -> Graph:
    """Ops that move numbers, and elementwise ones."""
    net = Net(4)
    x = net.input((4, 6, 5))
    scaled = net.op("scale", x, by=_tensor(net, "by", 4))
    per_element = net.op("scale", x, by=_tensor(net, "each", 4, 6, 5))
    part = net.op("slice", x, axis=1, start=1, stop=6, step=2)
    padded = net.op("pad", part, low=(0, 1, 2), high=(1, 0, 1))
    joined = net.op("concat", x, scaled, per_element, axis=2)
    turned = net.op("reshape", x, shape=(5, 24))
    return net.output(
        net.op("add", scaled, per_element, x),
        padded,
        joined,
        turned,
        net.op("flatten", part),
        net.op("threshold", x, at=0.5, compare="gt", value=2.0),
        net.op("scale", x, factor=0.75),
        net.op("matmul", turned, net.op("reshape", x, shape=(24, 5))),
        net.batch_norm(x),
    )


def windows() -> Graph:
    """Convolutions and pools of one axis and two: strides, padding, dilation, groups."""
    net = Net(2)
    x = net.input((4, 8, 7))
    line = net.op("reshape", x, shape=(4, 56))
    strided = net.op(
        "conv2d", x, weight=_tensor(net, "w", 6, 2, 3, 2), bias=_tensor(net, "b", 6),
        stride=(2, 1), padding=(1, 2), dilation=(2, 1), groups=2,
    )  # fmt: skip
    row = net.op("conv1d", line, weight=_tensor(net, "v", 3, 4, 5), stride=(3,), padding=(2,), dilation=(2,))
    window = {"kernel": (2, 4), "stride": (2, 1), "padding": (1, 2)}
    return net.output(
        strided,
        row,
        net.linear(x, 3),
        net.op("avg_pool", x, **window),
        net.op("sum_pool", x, **window),
        net.op("max_pool", x, kernel=(2, 3), stride=(1, 2), padding=(1, 1), dilation=(2, 2)),
        net.op("avg_pool", line, kernel=(4,), stride=(4,), padding=(0,), count_include_pad=False),
        net.op("adaptive_avg_pool", x, size=(4, 7)),
    )


def times() -> Graph:
    """Ops along time: uneven resampling, delays, readouts, encoders, constants."""
    net = Net(8)
    x = net.input((3, 2))
    held = net.op("constant", value=net.graph.tensor("c", net.dyadic(8, 3, 2)))
    late = net.graph.add("delay", [x], steps=3, type=x.type).result
    return net.output(
        net.op("add", late, held),
        net.resample(x, 2),
        net.resample(net.resample(x, 4), 1, "repeat"),
        net.resample(x, 8),
        net.op("encode", x, code="poisson", seed=7),
        net.op("encode", x, code="latency"),
        net.op("encode", x, code="direct"),
        net.op("readout", x, mode="mean"),
        net.op("readout", x, mode="max"),
        net.op("readout", x, mode="last"),
    )


def uneven() -> Graph:
    """Four steps into three, whose shares are quarters; and a prefix of the steps."""
    net = Net(12)
    x = net.op("input", type=Stream(4, Fraction(3), (2,)))
    return net.output(net.resample(x, 4), net.op("slice_time", net.neuron(x), steps=3))


def streamed() -> Graph:
    """What carries state from granule to granule."""
    net = Net(8)
    x = net.input((3, 2))
    late = net.graph.add("delay", [x], steps=3, type=x.type).result
    spikes = net.neuron(net.resample(net.op("encode", x, code="poisson", seed=3), 2), neuron("if"), membrane=True)
    return net.output(
        late, spikes, *(net.op("readout", x, mode=m) for m in ("mean", "max", "last")), spikes.node.results[1]
    )


@pytest.mark.parametrize("build", [shapes, windows, times, uneven, streamed])
def test_ops_equal_the_interpreter(build: Callable[[], Graph]) -> None:
    check(build(), pipeline="")


def test_every_other_op_equals_the_interpreter() -> None:
    """Those that no network above has, each in its graph of the zoo."""
    tried = {n.op.name for build in (shapes, windows, times, uneven, recurrent) for n in build().nodes}
    others = [g for g in map(zoo.build, zoo.ZOO) if not {n.op.name for n in g.nodes} <= tried]
    for graph in others:
        check(graph, pipeline="")
    assert set(ops()) <= tried | {n.op.name for g in others for n in g.nodes}


def recurrent(steps: int = 8) -> Graph:
    """Two coupled cycles, one of them through a convolution, with a delay of two steps."""
    net = Net(steps)
    x = net.neuron(net.conv(net.input((2, 4, 4)), 2))
    back = net.graph.add("delay", steps=2, type=x.type)
    mixed = net.op("add", net.conv(x, 2), net.conv(back.result, 2))
    spikes = net.neuron(mixed, neuron("lif", tau=2.0, max_count=3), membrane=True)
    with net.graph.edit():
        net.graph.set_attrs(back, type=spikes.type)
        net.graph.set_operand(back, 0, spikes)
    return net.output(
        spikes, spikes.node.results[1], net.op("readout", net.linear(net.op("flatten", spikes), 3), mode="mean")
    )


def test_cycles_step_together() -> None:
    check(recurrent())


@pytest.mark.parametrize("build", [shapes, recurrent])
def test_an_op_without_an_expression_is_named(build: Callable[[], Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone or in a cycle."""
    graph = build()
    for node in graph.of("add", "linear"):
        monkeypatch.setattr(node, "op", replace(node.op, compute=None))
    with pytest.raises(LdsnnError, match="has no lowering: its declaration lacks compute") as error:
        compiled(graph, pipeline="")
    assert {p.kind for p in error.value.problems} <= {"add", "linear"}


def test_a_long_cycle_compiles_as_fast_as_a_short_one() -> None:
    """Hundreds of timesteps are a loop, not code."""
    network = compiled(recurrent(400))
    data = inputs_of(network.graph)
    with torch.no_grad():
        wanted = Interpreter(network.graph).run(*data)
    assert all(torch.equal(a, b) for a, b in zip(network.run(*data), wanted, strict=True))
    assert network.report["compile_seconds"]["lower_and_build"] < 60


def test_several_granules_at_once_equal_one_after_the_other() -> None:
    network = compiled(streamed())
    check_steps(network, inputs_of(network.graph), 2)
