"""Bounds of a whole-number neuron over a run: affine arithmetic over its program, step by step.

A number is held as a sum of *symbols* (the state before the step, the inputs) times coefficients, plus an interval of
all else, so that ``v - v * k`` is less than v and not more. Where a neuron decides how often it fires, the rest of the
step is followed for every answer, with the membrane that gives it: then a soft reset leaves a remainder below the
threshold. After each step the state is the smallest interval that holds it; a run ends when nothing grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.intervals import UNKNOWN, ZERO, Interval, hull, product, times
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.ir.program import Apply, Const, Expr, Var

Symbols = dict[str, Interval]


@dataclass(frozen=True)
class NeuronBounds:
    """What a neuron computes over a run: its ``state``, the ``emitted`` count or number of one substep, the largest
    magnitude of anything that it computes (``peak``), of a charge times a ratio in multiples of ``2**-fraction``, the
    half that rounds it included (``product``), and of dividend plus divisor where numbers are divided (``quotient``);
    a dividend that makes more than the largest count does not matter there, as the count stays what it is."""

    state: Mapping[str, Interval]
    emitted: Interval
    peak: float
    product: float
    quotient: float


def neuron_bounds(graph: Graph, node: Node, given: Mapping[str, Interval]) -> NeuronBounds:
    """Of the neuron ``node`` on inputs within ``given``, over all its timesteps from the initial state."""
    return _Run(graph, node).bounds(given)


@dataclass(frozen=True)
class _Form:
    """``sum(coefficient * symbol) + rest``."""

    rest: Interval
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def is_point(self) -> bool:
        """One known number (per channel)."""
        return not self.parts and torch.equal(self.rest.low, self.rest.high)

    def plus(self, other: _Form, factor: float) -> _Form:
        """The sum with ``factor`` times another."""
        zero, parts = torch.zeros((), dtype=torch.float64), dict(self.parts)
        for name, coefficient in other.parts.items():
            parts[name] = parts.get(name, zero) + factor * coefficient
        rest = times(other.rest, factor)
        return _Form(Interval(self.rest.low + rest.low, self.rest.high + rest.high), parts)

    def by(self, factor: torch.Tensor) -> _Form:
        """Times a known number."""
        return _Form(times(self.rest, factor), {name: c * factor for name, c in self.parts.items()})

    def within(self, symbols: Symbols) -> Interval:
        """Its interval."""
        low, high = self.rest.low, self.rest.high
        for name, coefficient in self.parts.items():
            part = times(symbols[name], coefficient)
            low, high = low + part.low, high + part.high
        return Interval(low, high)


def _point(value: float | torch.Tensor) -> _Form:
    return _Form(Interval.of(value, value))


@dataclass
class _Scope:
    """Names of one way through a step, and the symbols that they are made of."""

    forms: dict[str, _Form]
    symbols: Symbols

    def interval(self, form: _Form) -> Interval:
        return form.within(self.symbols)

    def narrowed(self, name: str, known: Interval, **forms: _Form) -> _Scope:
        """The same with ``name`` a symbol of its own, within ``known``."""
        symbol = f"{name}'{len(self.symbols)}"
        own = _Form(ZERO, {symbol: torch.ones((), dtype=torch.float64)})
        return _Scope({**self.forms, name: own, **forms}, {**self.symbols, symbol: known})


class _Run:
    def __init__(self, graph: Graph, node: Node) -> None:
        self.neuron: Neuron = node["neuron"]
        self.program = self.neuron.program
        self.steps = node.type.timesteps * self.neuron.substeps
        self.scale = float(2 ** (self.neuron.fraction or 0))
        self.params = {name: self._param(graph, value) for name, value in self.neuron.params.items()}
        self.peak = self.product = self.quotient = 0.0

    @staticmethod
    def _param(graph: Graph, value: float | TensorRef) -> _Form:
        if not isinstance(value, TensorRef):
            return _point(value)
        stored = graph.tensors[value.name].double()
        return _point(stored) if stored.ndim == 1 else _Form(Interval(stored.min(), stored.max()))

    def bounds(self, given: Mapping[str, Interval]) -> NeuronBounds:
        """Of the program on inputs within ``given``."""
        start = _Scope(dict(self.params), {})
        state = {name: start.interval(self._value(initial, start)) for name, initial in self.program.state}
        output = "n" if self.neuron.signal.is_event else self.program.output
        emitted: Interval | None = None
        for _ in range(self.steps):
            made = self._step(given, state, output)
            emitted = made[""] if emitted is None else emitted.hull(made[""])
            after = {name: state[name].hull(made[name]) for name in state}
            if all(_same(after[name], state[name]) for name in state):
                break
            state = after
        assert emitted is not None
        return NeuronBounds(state, emitted, self.peak, self.product, self.quotient)

    def _step(self, given: Mapping[str, Interval], state: Mapping[str, Interval], output: str) -> dict[str, Interval]:
        """The state after one step, and what is emitted under the empty name."""
        symbols = {**given, **state}
        one = torch.ones((), dtype=torch.float64)
        scope = _Scope({**self.params, **{name: _Form(ZERO, {name: one}) for name in symbols}}, symbols)
        ends = self._from(0, scope)
        found = {name: _outward(hull(end.interval(end.forms[name]) for end in ends)) for name in state}
        return {**found, "": _outward(hull(end.interval(end.forms[output]) for end in ends))}

    def _from(self, at: int, scope: _Scope) -> list[_Scope]:
        """All ways through the assignments from ``at`` on."""
        for i, assign in enumerate(self.program.steps[at:], at):
            cases = self._cases(assign.target, assign.value, scope)
            if cases:
                return [end for case in cases for end in self._from(i + 1, case)]
            scope = _Scope({**scope.forms, assign.target: self._value(assign.value, scope)}, scope.symbols)
        return [scope]

    # ---- how often it fires

    def _cases(self, target: str, value: Expr, scope: _Scope) -> list[_Scope]:
        """The answers of ``h >= threshold`` and of ``clamp(floor(h / threshold), 0, k)``, each with the h that gives
        it; none for other expressions."""
        match value:
            case Apply(op="ge" | "gt" as op, args=(Var(name=h), Var(name=edge))):
                return self._binary(target, h, edge, op == "gt", scope)
            case Apply(op="min", args=(Apply(op="max", args=(count, Const(value=0.0))), Const(value=most))):
                return self._counted(target, count, most, scope)
            case Apply(op="max", args=(count, Const(value=0.0))):
                return self._counted(target, count, None, scope)
        return []

    def _binary(self, target: str, h: str, edge: str, strict: bool, scope: _Scope) -> list[_Scope]:
        at = scope.forms[edge]
        if not at.is_point:
            return []
        known, below = scope.interval(scope.forms[h]), at.rest.low - (0 if strict else 1)
        silent = scope.narrowed(h, _below(known, below), **{target: _point(0.0)})
        return [silent, scope.narrowed(h, _above(known, below + 1), **{target: _point(1.0)})]

    def _counted(self, target: str, count: Expr, most: float | None, scope: _Scope) -> list[_Scope]:
        match count:
            case Apply(op="floor", args=(Apply(op="div", args=(Var(name=h), Var(name=edge))),)):
                strict = False
            case Apply(
                op="sub",
                args=(Apply(op="ceil", args=(Apply(op="div", args=(Var(name=h), Var(name=edge))),)), Const(value=1.0)),
            ):
                strict = True
            case _:
                return []
        at = scope.forms[edge]
        if not at.is_point or bool((at.rest.low < 1).any()):
            return []
        known, unit, late = scope.interval(scope.forms[h]), at.rest.low, int(strict)
        divided = known.peak if most is None else min(known.peak, most * float(unit.max()))
        self.quotient = max(self.quotient, divided + float(unit.max()))
        silent = scope.narrowed(h, _below(known, unit - 1 + late), **{target: _point(0.0)})
        firing = _above(known, unit + late)
        if most is not None:
            firing = _below(firing, (most + 1) * unit - 1 + late)
        between = scope.narrowed(h, firing)
        # n = (h - r) / threshold with a remainder r of 0 to threshold - 1, or of 1 to threshold
        rest = Interval(-(unit - 1 + late) / unit, -late / unit * torch.ones_like(unit))
        between.forms[target] = _Form(rest, {name: c / unit for name, c in between.forms[h].parts.items()})
        if most is None:
            return [silent, between]
        return [silent, between, scope.narrowed(h, _above(known, most * unit + late), **{target: _point(most)})]

    # ---- expressions

    def _value(self, expr: Expr, scope: _Scope) -> _Form:
        if isinstance(expr, Const):
            return _point(expr.value)
        if isinstance(expr, Var):
            return scope.forms[expr.name]
        rounded = _rounded_product(expr)
        args = [self._value(arg, scope) for arg in (rounded or expr).args]
        found = self._rounded(args, scope) if rounded else self._apply(expr, args, scope)
        self.peak = max(self.peak, scope.interval(found).peak)
        return found

    def _rounded(self, args: list[_Form], scope: _Scope) -> _Form:
        """``floor(charge * ratio + 0.5)``: the product, give or take a half."""
        found = self._times(args, scope)
        known = scope.interval(found)
        self.product = max(self.product, known.peak * self.scale + self.scale / 2)
        if not found.parts:
            return _Form(known.map(lambda end: torch.floor(end + 0.5)))
        half = Interval(found.rest.low - 0.5, found.rest.high + 0.5)
        return _Form(half, found.parts)

    def _times(self, args: list[_Form], scope: _Scope) -> _Form:
        a, b = args
        if b.is_point:
            return a.by(b.rest.low)
        return b.by(a.rest.low) if a.is_point else _Form(product(scope.interval(a), scope.interval(b)))

    def _apply(self, expr: Apply, args: list[_Form], scope: _Scope) -> _Form:
        if expr.op in ("add", "sub"):
            return args[0].plus(args[1], 1.0 if expr.op == "add" else -1.0)
        if expr.op == "mul":
            return self._times(args, scope)
        known = [scope.interval(arg) for arg in args]
        if expr.op == "div":
            self.quotient = max(self.quotient, sum(interval.peak for interval in known))
        if expr.op == "select":
            always = bool(((known[0].low > 0) | (known[0].high < 0)).all())
            never = bool(((known[0].low == 0) & (known[0].high == 0)).all())
            return args[1] if always else args[2] if never else _Form(known[1].hull(known[2]))
        return _Form(_interval(expr.op, known))


def _interval(op: str, args: list[Interval]) -> Interval:
    match op, args:
        case "div", [a, b]:
            is_safe = float(b.low.min()) > 0 or float(b.high.max()) < 0
            return product(a, Interval(1.0 / b.high, 1.0 / b.low)) if is_safe else UNKNOWN
        case "ge", [a, b]:
            return Interval((a.low >= b.high).double(), (a.high >= b.low).double())
        case "gt", [a, b]:
            return Interval((a.low > b.high).double(), (a.high > b.low).double())
        case "min", [a, b]:
            return Interval(torch.minimum(a.low, b.low), torch.minimum(a.high, b.high))
        case "max", [a, b]:
            return Interval(torch.maximum(a.low, b.low), torch.maximum(a.high, b.high))
        case "floor", [a]:
            return a.map(torch.floor)
        case "ceil", [a]:
            return a.map(torch.ceil)
    raise AssertionError(op)


def _below(x: Interval, edge: torch.Tensor) -> Interval:
    return x.map(lambda end: torch.minimum(end, edge))


def _above(x: Interval, edge: torch.Tensor) -> Interval:
    return x.map(lambda end: torch.maximum(end, edge))


def _outward(x: Interval) -> Interval:
    """To whole numbers; what rounding of coefficients in float64 has added is far less than one."""
    return Interval(torch.floor(x.low + 1e-4), torch.ceil(x.high - 1e-4))


def _same(a: Interval, b: Interval) -> bool:
    return torch.equal(*torch.broadcast_tensors(a.low, b.low)) and torch.equal(*torch.broadcast_tensors(a.high, b.high))


def _rounded_product(expr: Expr) -> Apply | None:
    """The product in ``floor(a * b + 0.5)``."""
    match expr:
        case Apply(op="floor", args=(Apply(op="add", args=(Apply(op="mul") as inner, Const(value=0.5))),)):
            return inner
    return None
