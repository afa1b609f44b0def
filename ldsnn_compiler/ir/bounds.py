"""Bounds of the numbers in a whole-number graph, proved from its weights, its signals and the length of its run.

A current is bounded by the sum of its positive and the sum of its negative contributions, each input at its largest
count: every partial sum, in any order, lies between the two. A neuron's state is bounded by interval arithmetic over
its program, step by step for a whole run from the initial state. A value that is subtracted where a neuron fires
(``h >= threshold``) is followed for both answers, so that a soft reset does not widen what it narrows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

import torch

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.ir.program import Apply, Const, Expr, Var

INT16, INT32, FLOAT32 = 2**15, 2**31, 2**24
"""What the sums of a type stay below: int16, int32, and whole numbers that float32 holds exactly."""


@dataclass(frozen=True)
class Interval:
    """``low <= x <= high``, float64 tensors, one number or one per channel."""

    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, low: float | torch.Tensor, high: float | torch.Tensor) -> Interval:
        """From numbers or tensors."""
        return cls(torch.as_tensor(low, dtype=torch.float64), torch.as_tensor(high, dtype=torch.float64))

    @property
    def peak(self) -> float:
        """Largest magnitude."""
        return max(float(self.high.max()), -float(self.low.min()))

    @property
    def whole(self) -> tuple[float, float]:
        """Lowest and highest over all channels."""
        return float(self.low.min()), float(self.high.max())

    def hull(self, other: Interval) -> Interval:
        """The smallest that holds both."""
        return Interval(torch.minimum(self.low, other.low), torch.maximum(self.high, other.high))

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Interval:
        """Both ends through a function that keeps their order."""
        return Interval(change(self.low), change(self.high))


ZERO, UNKNOWN = Interval.of(0.0, 0.0), Interval.of(-(2.0**60), 2.0**60)


@dataclass(frozen=True)
class NeuronBounds:
    """What a neuron computes over a run: its ``state``, the ``emitted`` count or number, the largest magnitude of
    anything that it computes (``peak``), and of a product with a ratio as a multiple of ``2**-fraction``
    (``product``)."""

    state: Mapping[str, Interval]
    emitted: Interval
    peak: float
    product: float


@dataclass
class Bounds:
    """Bounds of a graph's values, worked out as they are asked for."""

    graph: Graph
    _values: dict[str, Interval] = field(default_factory=dict)
    _neurons: dict[str, NeuronBounds] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    def value(self, value: Value) -> Interval:
        """Of every number in the stream; far beyond int32 where nothing is known, as in a cycle of sums."""
        if value.name not in self._values:
            if value.name in self._open:
                return UNKNOWN
            self._open.add(value.name)
            self._values[value.name] = self._found(value)
            self._open.discard(value.name)
        return self._values[value.name]

    def neuron(self, node: Node) -> NeuronBounds:
        """Of a neuron's state and results."""
        if node.name not in self._neurons:
            neuron: Neuron = node["neuron"]
            given = dict(zip(neuron.program.inputs, map(self.value, node.operands), strict=True))
            self._neurons[node.name] = _Run(self.graph, node).bounds(given)
        return self._neurons[node.name]

    def _found(self, value: Value) -> Interval:
        node, signal = value.node, value.type.signal
        if signal.is_bounded:
            return Interval.of(0.0, float(signal.levels or 0) * signal.unit)
        if node.op.name == "neuron":
            bounds = self.neuron(node)
            emitted = _times(bounds.emitted, node["neuron"].substeps)
            return bounds.state[node["neuron"].program.membrane] if value.index else emitted
        if node.op.name in _RULES:
            return _RULES[node.op.name](self.graph, node, [self.value(o) for o in node.operands])
        return UNKNOWN


def overflows(graph: Graph, bounds: Bounds | None = None) -> list[Problem]:
    """Every value of a whole-number graph that is not proved to fit int32."""
    known, problems = bounds or Bounds(graph), []
    for node in graph.nodes:
        peaks = [known.value(v).peak for v in node.results if v.type.dtype != "float32"]
        if node.op.name == "neuron" and peaks:
            peaks.append(known.neuron(node).peak)
        if max(peaks, default=0.0) >= INT32:
            message = f"sums of up to {max(peaks):.3g} are not proved to fit int32"
            hint = "fewer weight_bits, fewer timesteps, or a floor under the membrane (v_min)"
            problems.append(Problem(message, node.path or f"%{node.name}", node.op.name, hint=hint))
    return problems


# ---- values


def _times(x: Interval, factor: float | torch.Tensor) -> Interval:
    ends = x.low * factor, x.high * factor
    return Interval(torch.minimum(*ends), torch.maximum(*ends))


def _synapse(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    weight = graph.tensors[node["weight"].name].double()
    groups = node["groups"] if node.op.name != "linear" else 1
    x = given[0]
    if node.op.name != "linear" and any(node["padding"]):
        x = x.hull(ZERO)
    taps = weight.flatten(2).clamp(min=0).sum(2) if weight.ndim > 2 else weight.clamp(min=0)
    drops = weight.flatten(2).clamp(max=0).sum(2) if weight.ndim > 2 else weight.clamp(max=0)
    if node.op.name == "linear" and len(node.type.shape) != 1:
        x = _spread(x)
    high, low = (end.expand(weight.shape[1] * groups) for end in (x.high, x.low))
    most = _grouped(taps, high, groups) + _grouped(drops, low, groups)
    least = _grouped(taps, low, groups) + _grouped(drops, high, groups)
    bias = graph.tensors[node["bias"].name].double() if node["bias"] is not None else torch.zeros(())
    total = Interval(least + bias, most + bias)
    return total if node.op.name != "linear" or len(node.type.shape) == 1 else _spread(total)


def _grouped(weight: torch.Tensor, x: torch.Tensor, groups: int) -> torch.Tensor:
    """``[out, in / groups]`` times ``[in]``: output o reads the inputs of its group."""
    return torch.flatten(weight.unflatten(0, (groups, -1)) @ x.reshape(groups, -1, 1))


def _spread(x: Interval) -> Interval:
    """One interval for all channels."""
    return Interval.of(*x.whole)


def _quantize(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    return Interval.of(node["low"], node["high"])


def _scale(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    if node["by"] is None:
        return _times(given[0], node["factor"])
    by = graph.tensors[node["by"].name].double()
    return _times(given[0], by) if by.ndim == 1 else _spread(_times(_spread(given[0]), by))


def _add(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    low, high = given[0].low, given[0].high
    for other in given[1:]:
        low, high = low + other.low, high + other.high
    return Interval(low, high)


def _sum_pool(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    x = given[0].hull(ZERO) if any(node["padding"]) else given[0]
    return _times(x, prod(node["kernel"]))


def _summed(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    source = node.operands[0].type
    if node["mode"] != "sum":
        return given[0]
    return _times(given[0], (node.type.dt / source.dt).numerator)


def _flatten(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    shape = node.operands[0].type.shape
    return given[0].map(lambda end: end.repeat_interleave(prod(shape[1:])) if end.ndim else end)


def _slice(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    if node["axis"] % len(node.type.shape):
        return given[0]
    part = slice(node["start"], node["stop"], node["step"])
    return given[0].map(lambda end: end[part] if end.ndim else end)


def _pad(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    wide = node["low"][0] or node["high"][0]
    return (_spread(given[0]) if wide else given[0]).hull(ZERO)


def _concat(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    if node["axis"] % len(node.type.shape):
        return _hull(map(_spread, given))
    sizes = [o.type.shape[0] for o in node.operands]
    return Interval(
        torch.cat([x.low.expand(n) for x, n in zip(given, sizes, strict=True)]),
        torch.cat([x.high.expand(n) for x, n in zip(given, sizes, strict=True)]),
    )


def _hull(intervals: Iterable[Interval]) -> Interval:
    first, *others = intervals
    for other in others:
        first = first.hull(other)
    return first


def _product(a: Interval, b: Interval) -> Interval:
    ends = torch.stack(torch.broadcast_tensors(a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high))
    return Interval(ends.amin(0), ends.amax(0))


def _matmul(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    return _times(_product(_spread(given[0]), _spread(given[1])), node.operands[0].type.shape[-1])


def _constant(graph: Graph, node: Node, given: list[Interval]) -> Interval:
    value = graph.tensors[node["value"].name].double()
    return Interval(value.min(), value.max())


Rule = Callable[[Graph, Node, list[Interval]], Interval]
_RULES: Mapping[str, Rule] = {
    "conv1d": _synapse, "conv2d": _synapse, "linear": _synapse,
    "quantize": _quantize, "scale": _scale, "add": _add, "sum_pool": _sum_pool, "constant": _constant,
    "resample": _summed, "readout": _summed, "flatten": _flatten, "slice": _slice, "pad": _pad, "concat": _concat,
    "multiply": lambda graph, node, given: _product(*given), "matmul": _matmul,
    "reshape": lambda graph, node, given: _spread(given[0]),
    "delay": lambda graph, node, given: given[0].hull(ZERO),
    "max_pool": lambda graph, node, given: given[0],
    "slice_time": lambda graph, node, given: given[0],
}  # fmt: skip


# ---- neurons

Env = dict[str, Interval]


class _Run:
    """Interval arithmetic over a neuron's program, for as many steps as a run has or until nothing grows."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.neuron: Neuron = node["neuron"]
        self.program = self.neuron.program
        self.steps = node.type.timesteps * self.neuron.substeps
        self.scale = float(2 ** (self.neuron.fraction or 0))
        self.params = {name: self._param(graph, value) for name, value in self.neuron.params.items()}
        self.peak = self.product = 0.0

    @staticmethod
    def _param(graph: Graph, value: float | TensorRef) -> Interval:
        if not isinstance(value, TensorRef):
            return Interval.of(value, value)
        stored = graph.tensors[value.name].double()
        return Interval(stored, stored) if stored.ndim == 1 else Interval(stored.min(), stored.max())

    def bounds(self, given: Mapping[str, Interval]) -> NeuronBounds:
        """Of the program on inputs within ``given``."""
        known = {**self.params, **given}
        state = {name: self._value(initial, known) for name, initial in self.program.state}
        output = "n" if self.neuron.signal.is_event else self.program.output
        emitted: Interval | None = None
        for _ in range(self.steps):
            env = self._step({**known, **state})
            made = env[output]
            emitted = made if emitted is None else emitted.hull(made)
            after = {name: state[name].hull(env[name]) for name in state}
            if all(_same(after[name], state[name]) for name in state):
                break
            state = after
        assert emitted is not None
        return NeuronBounds(state, emitted, self.peak, self.product)

    def _step(self, env: Env) -> Env:
        """One step. Behind a comparison of two names the rest is followed for both answers."""
        return self._from(0, env)

    def _from(self, at: int, env: Env) -> Env:
        env = dict(env)
        for i, assign in enumerate(self.program.steps[at:], at):
            env[assign.target] = self._value(assign.value, env)
            if (parts := self._split(assign.value, env)) is not None:
                ends = [self._from(i + 1, {**part, assign.target: fired}) for part, fired in parts]
                return {name: _hull([end[name] for end in ends]) for name in ends[0]}
        return env

    def _split(self, value: Expr, env: Env) -> list[tuple[Env, Interval]] | None:
        """``h >= threshold``: the silent case with h below, and the firing one with h not below."""
        match value:
            case Apply(op="ge" | "gt" as op, args=(Var(name=name), Var(name=bound))) if bound in self.params:
                pass
            case _:
                return None
        h, edge = env[name], env[bound]
        below = edge.high if op == "gt" else edge.high - 1
        above = edge.low + 1 if op == "gt" else edge.low
        silent = Interval(torch.minimum(h.low, below), torch.minimum(h.high, below))
        firing = Interval(torch.maximum(h.low, above), torch.maximum(h.high, above))
        return [({**env, name: silent}, ZERO), ({**env, name: firing}, Interval.of(1.0, 1.0))]

    def _value(self, expr: Expr, env: Env) -> Interval:
        if isinstance(expr, Const):
            return Interval.of(expr.value, expr.value)
        if isinstance(expr, Var):
            return env[expr.name]
        if _is_rounded_product(expr):
            return self._rounded(expr, env)
        found = self._apply(expr, [self._value(arg, env) for arg in expr.args])
        self.peak = max(self.peak, found.peak)
        return found

    def _rounded(self, expr: Apply, env: Env) -> Interval:
        """``floor(charge * ratio + 0.5)``; the product as it is in fixed point."""
        product = expr.args[0].args[0]  # type: ignore[union-attr]
        found = _product(*(self._value(arg, env) for arg in product.args))  # type: ignore[union-attr]
        self.product = max(self.product, found.peak * self.scale + self.scale / 2)
        found = found.map(lambda end: torch.floor(end + 0.5))
        self.peak = max(self.peak, found.peak)
        return found

    def _apply(self, expr: Apply, args: list[Interval]) -> Interval:
        match expr.op, args:
            case "add", [a, b]:
                return Interval(a.low + b.low, a.high + b.high)
            case "sub", [a, b]:
                return Interval(a.low - b.high, a.high - b.low)
            case "mul", [a, b]:
                return _product(a, b)
            case "div", [a, b]:
                return _quotient(a, b)
            case "ge" | "gt", [a, b]:
                surely, maybe = (
                    (a.low >= b.high, a.high >= b.low) if expr.op == "ge" else (a.low > b.high, a.high > b.low)
                )
                return Interval(surely.double(), maybe.double())
            case "min", [a, b]:
                return Interval(torch.minimum(a.low, b.low), torch.minimum(a.high, b.high))
            case "max", [a, b]:
                return Interval(torch.maximum(a.low, b.low), torch.maximum(a.high, b.high))
            case "select", [c, a, b]:
                return _chosen(c, a, b)
            case "floor", [a]:
                return a.map(torch.floor)
            case _, [a]:
                return a.map(torch.ceil)
        raise AssertionError(expr.op)


def _chosen(c: Interval, a: Interval, b: Interval) -> Interval:
    """``a`` where c is surely not 0, ``b`` where it surely is, else either."""
    always, never = (c.low > 0) | (c.high < 0), (c.low == 0) & (c.high == 0)
    both = a.hull(b)
    low = torch.where(always, a.low, torch.where(never, b.low, both.low))
    return Interval(low, torch.where(always, a.high, torch.where(never, b.high, both.high)))


def _quotient(a: Interval, b: Interval) -> Interval:
    if float(b.low.min()) <= 0 <= float(b.high.max()):
        return UNKNOWN
    return _product(a, Interval(1.0 / b.high, 1.0 / b.low))


def _same(a: Interval, b: Interval) -> bool:
    return torch.equal(*torch.broadcast_tensors(a.low, b.low)) and torch.equal(*torch.broadcast_tensors(a.high, b.high))


def _is_rounded_product(expr: Expr) -> bool:
    match expr:
        case Apply(op="floor", args=(Apply(op="add", args=(Apply(op="mul"), Const(value=0.5))),)):
            return True
    return False


__all__ = ["FLOAT32", "INT16", "INT32", "Bounds", "Interval", "NeuronBounds", "overflows"]
