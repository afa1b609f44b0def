"""Small legal graphs for tests: a builder with short names, and a Hypothesis strategy that draws whole networks.

Everything is dyadic (weights and inputs are multiples of 1/8, thresholds powers of two, ratios powers of two), so that
fp32 arithmetic is exact and an exact pass must leave every output bit as it was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import networkx as nx
import torch
from hypothesis import strategies as st

from ldsnn_compiler.ir.graph import Graph, Value
from ldsnn_compiler.ir.neuron import Neuron, neuron
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers

#: spiking neurons with exact, bounded outputs
SPIKING: tuple[Neuron, ...] = (
    neuron("if"),
    neuron("if", threshold=0.5, v_init=0.25),
    neuron("if", compare="gt"),
    neuron("if", reset="hard"),
    neuron("if", max_count=4, threshold=0.5, spike_value=0.5),
    neuron("if", floor=True, v_min=-1.0),
    neuron("lif", tau=2.0),
    neuron("lif", tau=2.0, decay_input=False, reset="hard"),
    neuron("leaky", beta=0.5, compare="gt", reset_time="next_before_charge"),
    neuron("leaky", beta=0.5, compare="gt", reset="hard"),
    neuron("cuba_lif", alpha=0.5, beta=0.5, compare="gt", reset_time="next_after_charge", reset="hard"),
)
SOFT_IF: tuple[Neuron, ...] = (neuron("if"), neuron("if", threshold=2.0, v_init=1.0), neuron("if", threshold=0.5))


class Net:
    """Builds a graph op by op with seeded dyadic weights: ``net.conv(net.input((1, 6, 6)), 4)``."""

    def __init__(self, timesteps: int = 8, seed: int = 0, name: str = "net") -> None:
        self.graph = Graph(name, timesteps)
        self.generator = torch.Generator().manual_seed(seed)

    def dyadic(self, *shape: int, low: int = -8, high: int = 8) -> torch.Tensor:
        """Multiples of 1/8 in [low, high] / 8."""
        return torch.randint(low, high + 1, shape, generator=self.generator).float() / 8

    def op(self, op_name: str, *operands: Value, **attrs: Any) -> Value:
        """Any op; the first result."""
        return self.graph.add(op_name, operands, **attrs).result

    def input(self, shape: Sequence[int], time: str = "sequence", repeat: bool = True) -> Value:
        """A sequence of one frame per base step; a static one is repeated over the base steps unless told otherwise."""
        total = self.graph.base_timesteps
        if time == "sequence":
            return self.op("input", type=Stream(total, Fraction(1), tuple(shape)), name="x")
        held = self.op("input", type=Stream(1, Fraction(total), tuple(shape)), time="static", name="x")
        return self.op("resample", held, dt=1, mode="repeat") if repeat and total > 1 else held

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> Value:
        """A square conv2d, or a conv1d where the stream has one spatial axis."""
        axes = len(x.type.shape) - 1
        name = self.graph._fresh(f"conv{axes}d")
        weight = self.dyadic(channels, x.type.shape[0] // groups, *[kernel] * axes)
        return self.op(
            f"conv{axes}d", x, name=name, path=name, groups=groups,
            weight=self.graph.tensor(f"{name}.weight", weight),
            bias=self.graph.tensor(f"{name}.bias", self.dyadic(channels)) if bias else None,
            stride=(stride,) * axes, padding=(padding,) * axes, dilation=(1,) * axes,
        )  # fmt: skip

    def linear(self, x: Value, features: int, bias: bool = True) -> Value:
        """A linear layer on the last axis."""
        name = self.graph._fresh("linear")
        return self.op(
            "linear", x, name=name, path=name,
            weight=self.graph.tensor(f"{name}.weight", self.dyadic(features, x.type.shape[-1])),
            bias=self.graph.tensor(f"{name}.bias", self.dyadic(features)) if bias else None,
        )  # fmt: skip

    def batch_norm(self, x: Value) -> Value:
        """Evaluation-mode BatchNorm whose standard deviations are powers of two, so that folding it is exact."""
        channels, name = x.type.shape[0], self.graph._fresh("batch_norm")
        deviation = 2.0 ** torch.randint(-1, 2, (channels,), generator=self.generator)
        stored = {
            "mean": self.dyadic(channels),
            "var": deviation**2,
            "weight": self.dyadic(channels, low=1),
            "bias": self.dyadic(channels),
        }
        return self.op(
            "batch_norm", x, name=name, path=name, eps=0.0,
            **{key: self.graph.tensor(f"{name}.{key}", value) for key, value in stored.items()},
        )  # fmt: skip

    def pool(self, x: Value, kind: str = "avg", size: int = 2) -> Value:
        """``avg``, ``sum`` or ``max`` pooling over windows that do not overlap."""
        window = (size,) * (len(x.type.shape) - 1)
        extra = {"dilation": (1,) * len(window)} if kind == "max" else {}
        return self.op(f"{kind}_pool", x, kernel=window, stride=window, padding=(0,) * len(window), **extra)

    def neuron(self, x: Value, program: Neuron | None = None, membrane: bool = False) -> Value:
        """A neuron layer; its node's path is its name, so that schedules can name it."""
        name = self.graph._fresh("sn")
        return self.op("neuron", x, name=name, path=name, neuron=program or neuron("if"), membrane=membrane)

    def recurrent(self, x: Value, program: Neuron | None = None) -> Value:
        """A neuron whose own output comes back one step later."""
        feedback = self.graph.add("delay", type=x.type)
        weighted = self.op("scale", feedback.result, factor=0.5)
        spikes = self.neuron(self.op("add", x, weighted), program)
        with self.graph.edit():
            self.graph.set_attrs(feedback, type=spikes.type)
            self.graph.set_operand(feedback, 0, spikes)
        return spikes

    def resample(self, x: Value, dt: Fraction | int, mode: str = "mean") -> Value:
        """Another grid."""
        return self.op("resample", x, dt=Fraction(dt), mode=mode)

    def output(self, *values: Value) -> Graph:
        """Finish: every value becomes an output, without a time axis where it has one step only."""
        for value in values:
            self.op("output", value, time="squeeze" if value.type.timesteps == 1 else "sequence")
        return self.graph


def inputs_of(graph: Graph, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Dyadic data in [0, 1] for every input, ``[T, N, *shape]`` as ``Interpreter.run`` takes it."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n.type.timesteps, batch, *n.type.shape) for n in graph.inputs]
    return tuple(torch.randint(0, 9, shape, generator=generator).float() / 8 for shape in shapes)


def run(graph: Graph, inputs: Sequence[torch.Tensor] | None = None) -> tuple[torch.Tensor, ...]:
    """The interpreter's outputs ``[T, N, *shape]`` from reset state."""
    from ldsnn_compiler.interp.module import Interpreter

    with torch.no_grad():
        return tuple(Interpreter(graph).run(*(inputs_of(graph) if inputs is None else inputs)))


def assert_same_outputs(before: Graph, after: Graph, seed: int = 0) -> None:
    """Both graphs give the same bits (-0.0 counts as 0.0)."""
    data = inputs_of(before, seed=seed)
    for i, (a, b) in enumerate(zip(run(before, data), run(after, data), strict=True)):
        assert a.shape == b.shape, f"output {i}: {tuple(a.shape)} became {tuple(b.shape)}"
        assert torch.equal(a, b), f"output {i} differs by up to {(a - b).abs().max().item()}"


_BLOCKS = ("conv", "pool", "neuron", "residual", "branches", "scale", "resample")


@st.composite
def networks(
    draw: st.DrawFn,
    *,
    max_blocks: int = 4,
    neurons: Sequence[Neuron] = SPIKING,
    batch_norm: bool = True,
    resamples: bool = True,
    recurrent: bool = True,
    slices: bool = True,
) -> Graph:
    """A random network in stage ``traced``: image or vector, static or sequence input, ending in one or two outputs."""
    net = Net(draw(st.sampled_from((4, 8))), seed=draw(st.integers(0, 2**16)))
    draws = _Draws(net, draw, neurons, batch_norm, resamples)
    x = net.input((draw(st.integers(1, 2)), 6, 6), draw(st.sampled_from(("static", "sequence"))))
    x = net.neuron(net.conv(x, 2), draw(st.sampled_from(neurons)))
    for block in draw(st.lists(st.sampled_from(_BLOCKS), max_size=max_blocks)):
        x = draws.block(block, x)
    x = net.op("flatten", net.neuron(net.conv(x, 2), draw(st.sampled_from(neurons))))
    if recurrent and draw(st.booleans()):
        x = net.recurrent(net.linear(x, 3), draw(st.sampled_from(neurons)))
    if slices and x.type.timesteps > 1 and draw(st.booleans()):
        x = net.op("slice_time", x, steps=draw(st.sampled_from([t for t in (1, 2, 4, 8) if t <= x.type.timesteps])))
    return net.output(*draws.ends(x))


class _Draws:
    """The random choices of one network."""

    def __init__(self, net: Net, draw: st.DrawFn, neurons: Sequence[Neuron], batch_norm: bool, resamples: bool) -> None:
        self.net, self.draw, self.neurons, self.bn, self.resamples = net, draw, neurons, batch_norm, resamples

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def block(self, kind: str, x: Value) -> Value:
        """Append one block; whatever does not fit is left out."""
        return getattr(self, f"_{kind}")(x)  # type: ignore[no-any-return]

    def _conv(self, x: Value) -> Value:
        channels, side = x.type.shape[:2]
        kernel, groups = self.one_of(1, 3), self.one_of(1, channels)
        stride = self.one_of(1, 2) if side > 3 else 1
        y = self.net.conv(x, 2 * groups, kernel, stride, kernel // 2, groups, self.one_of(True, False))
        y = self.net.batch_norm(y) if self.bn and self.one_of(True, False) else y
        return self._neuron(y)

    def _pool(self, x: Value) -> Value:
        return self.net.pool(x, self.one_of("avg", "sum", "max")) if x.type.shape[1] >= 4 else x

    def _neuron(self, x: Value) -> Value:
        return self.net.neuron(x, self.one_of(*self.neurons))

    def _residual(self, x: Value) -> Value:
        y = self.net.conv(x, x.type.shape[0])
        return self._neuron(self.net.op("add", *((y, x) if self.one_of(True, False) else (x, y))))

    def _branches(self, x: Value) -> Value:
        parts = [self.net.conv(x, 2), self._neuron(self.net.conv(x, 1, 1, padding=0))]
        return self._neuron(self.net.op("concat", *parts))

    def _scale(self, x: Value) -> Value:
        return self.net.op("scale", x, factor=self.one_of(0.5, 1.0, 2.0, 0.75))

    def _resample(self, x: Value) -> Value:
        """Another power-of-two grid, most often followed by something that it may move across."""
        if not self.resamples:
            return x
        total, y = x.type.duration, self._plain(x)
        steps = self.one_of(*(t for t in (1, 2, 4, 8) if (total / t).denominator == 1))
        mode = "mean" if steps <= x.type.timesteps else "repeat"
        return self._plain(self.net.resample(y, total / steps, mode))

    def _plain(self, x: Value) -> Value:
        """A per-step op (a conv with its neuron) or none."""
        kind = self.one_of("none", "conv", "max", "scale")
        if kind == "conv":
            return self._neuron(self.net.conv(x, x.type.shape[0]))
        if kind == "max" and x.type.shape[1] >= 4:
            return self.net.pool(x, "max")
        return self._scale(x) if kind == "scale" else x

    def ends(self, x: Value) -> list[Value]:
        """Outputs: logits read out in one of the usual ways, and sometimes the spikes as well."""
        logits = self.net.linear(x, 3)
        how = self.one_of("sequence", "mean", "last", "max", "resample")
        if how == "resample":
            logits = self.net.resample(logits, logits.type.duration)
        elif how != "sequence":
            logits = self.net.op("readout", logits, mode=how)
        return [logits, x] if self.one_of(True, False) else [logits]


def some_schedule(graph: Graph, draw: random.Random, timesteps: Sequence[int] = (1, 2, 4, 8)) -> Schedule:
    """A random schedule of closed forms; some layers read their input on fewer timesteps than they emit on."""
    cyclic = {n for names in nx.strongly_connected_components(graph.dag) if len(names) > 1 for n in names}
    layers = {}
    for path, node in neuron_layers(graph).items():
        steps = draw.choice([t for t in timesteps if t <= node.type.timesteps])
        reads = [] if node.name in cyclic else [n for n in (1, 2, 4) if n < steps and steps % n == 0]
        layers[path] = LayerSchedule(steps, draw.choice((1, 2, 4)), input_timesteps=draw.choice([None, None, *reads]))
    return Schedule(graph.base_timesteps, layers)
