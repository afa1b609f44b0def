"""The neuron emitter: any neuron program as vector TIR, every operation rounded where the program writes it.

This one is for float32; :mod:`.fixed` has the one for whole numbers.

Products are fenced, so that no later addition contracts with them; comparisons are masks until a number is asked of
them; division is IEEE division.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tvm import tirx

from ldsnn_compiler.ir.program import Assign, fold
from ldsnn_compiler.ir.program import Expr as ProgramExpr
from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.tir import Expr


@dataclass(frozen=True)
class Value:
    """A vector of numbers, or of truth values that count as 0 and 1."""

    expr: Expr
    is_mask: bool = False


Env = dict[str, Value]


class Emitter:
    """Emits expressions of neuron programs over vectors of ``lanes`` numbers, float32 here."""

    def __init__(self, lanes: int, dtype: str = "float32") -> None:
        self.lanes, self.dtype = lanes, dtype
        self._operations: Mapping[str, Callable[..., Value]] = {
            "add": lambda a, b: Value(self.number(a) + self.number(b)),
            "sub": lambda a, b: Value(self.number(a) - self.number(b)),
            "mul": self._mul,
            "div": lambda a, b: Value(tirx.Div(self.number(a), self.number(b))),
            "ge": lambda a, b: Value(tirx.GE(self.number(a), self.number(b)), is_mask=True),
            "gt": lambda a, b: Value(tirx.GT(self.number(a), self.number(b)), is_mask=True),
            "min": lambda a, b: Value(tirx.min(self.number(a), self.number(b))),
            "max": lambda a, b: Value(tirx.max(self.number(a), self.number(b))),
            "floor": lambda a: Value(tirx.floor(self.number(a))),
            "ceil": lambda a: Value(tirx.ceil(self.number(a))),
            "select": lambda c, a, b: Value(tirx.Select(self.mask(c), self.number(a), self.number(b))),
        }

    def constant(self, value: float) -> Value:
        """A literal or a parameter that is one number."""
        return Value(tir.const(value, self.lanes))

    def parameter(self, expr: Expr, places: int = 0) -> Value:
        """A vector of a parameter, one number a neuron; whole numbers may have binary ``places``."""
        return Value(expr)

    def number(self, value: Value) -> Expr:
        """As a number."""
        if not value.is_mask:
            return value.expr
        one, zero = (tir.const(n, self.lanes, self.dtype) for n in (1, 0))
        return tirx.Select(value.expr, one, zero)

    def mask(self, value: Value) -> Expr:
        """As truth values: whatever is not 0."""
        return value.expr if value.is_mask else tirx.NE(self.number(value), tir.const(0, self.lanes, self.dtype))

    def _mul(self, a: Value, b: Value) -> Value:
        if a.is_mask:
            a, b = b, a
        if b.is_mask:  # times 0 or 1: a choice, nothing to round
            return Value(tirx.Select(b.expr, self.number(a), tir.const(0.0, self.lanes)))
        return Value(tir.fence(a.expr * b.expr, self.lanes))

    def emit(self, expr: ProgramExpr, env: Env) -> Value:
        """One expression."""
        return fold(expr, self.constant, env.__getitem__, lambda op, args: self._operations[op](*args))

    def held(self, value: Value) -> Value:
        """Evaluate once, in a register of its own: TVM would inline a long chain of bindings into itself."""
        slot, whole = tir.scratch((self.lanes,), tir.element(value.expr)), tir.ramp(0, self.lanes)
        tir.store(slot, value.expr, whole)
        return replace(value, expr=slot[whole])

    def run(self, assignments: tuple[Assign, ...], env: Env) -> None:
        """Assignments in order; ``env`` gains every name assigned. TVM cannot bind masks: those are written where
        used."""
        for assign in assignments:
            value = self.emit(assign.value, env)
            env[assign.target] = value if value.is_mask else self.held(value)
