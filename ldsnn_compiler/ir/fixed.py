"""Neuron programs in whole numbers: what of a program is a charge, what a ratio, and the program that uses both.

The *unit* of a quantity is a power of charge, the unit of the input ``x``: membranes, currents and thresholds are
charges (power 1), decays and gains are ratios, counts are numbers (power 0). Units follow from the program itself:
what is added or compared has one unit, those of a product add up.

In the whole-number program charges and counts are whole numbers and a ratio is a multiple of ``2**-fraction``. Sums,
comparisons, choices and products of counts are whole as they stand. A charge times a ratio is rounded, half up::

    floor(charge * ratio + 0.5)          which is (charge * m + 2**(fraction - 1)) >> fraction, m = ratio * 2**fraction

and always written in that order, charge first. Division by a constant ratio is a product with its rounded reciprocal;
the quotient of two charges may only stand inside ``floor`` or ``ceil``. Inputs enter times ``2**guard``, which gives
charges that many bits below the input's unit. What is emitted is a count, so ``spike_value`` is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import floor

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.program import INPUTS, SECTIONS, Apply, Assign, Const, Expr, Program, Var

CHARGE, RATIO = "charge", "ratio"
COUNT = "n"
"""What a spiking program calls its count."""
_SAME = ("add", "sub", "min", "max")
#: unknown -> factor, and the constant under the empty name: a unit as a linear form
_Form = dict[str, Fraction]


def roles(program: Program) -> Mapping[str, str]:
    """Parameter -> ``charge`` or ``ratio``, for the parameters of a program of real numbers; ``spike_value`` has none.

    Raises:
        LdsnnError: some quantity is neither a charge nor a number, as where a program squares its membrane.
    """
    units = _solved(program).units
    return {p: CHARGE if units[p] else RATIO for p in program.params if p != "spike_value"}


def has_ratios(program: Program) -> bool:
    """Whether a program of real numbers multiplies or divides by ratios, parameters or constants."""
    solver = _solved(program)
    constants = any(value != int(value) and not solver.units[name] for name, value in solver.constants.items())
    divisors = any(_divides(assign.value) for assign in program.steps)
    return constants or divisors or RATIO in roles(program).values()


def _divides(expr: Expr) -> bool:
    """Whether something is divided by a constant."""
    if not isinstance(expr, Apply):
        return False
    return (expr.op == "div" and isinstance(expr.args[1], Const)) or any(map(_divides, expr.args))


def charge_constants(program: Program) -> tuple[float, ...]:
    """Constants other than 0 that a program of real numbers holds in units of charge."""
    solved = _solved(program)
    return tuple(value for name, value in solved.constants.items() if value and solved.units[name])


def whole(program: Program, fraction: int, guard: int = 0) -> Program:
    """The program in whole numbers.

    Raises:
        LdsnnError: names what has no whole-number form.
    """
    return _Rewriter(program, fraction, guard).program()


def rounded(value: float, fraction: int) -> float:
    """The multiple of ``2**-fraction`` next to ``value``, half up."""
    places = 2.0**fraction
    return floor(value * places + 0.5) / places


# ---- units


@cache
def _solved(program: Program) -> _Solver:
    solver = _Solver(program)
    solver.run()
    return solver


@dataclass
class _Solver:
    """Units from the equations that a program's operations state, by elimination.

    What the equations leave open is decided in this order: a state variable is a charge, everything else a number.
    """

    program: Program
    constants: dict[str, float] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)
    _known: dict[str, _Form] = field(default_factory=dict)

    def run(self) -> None:
        """Solve; the unit of every name, and of every constant under a name of its own."""
        for name, power in {**dict.fromkeys(INPUTS, 1), COUNT: 0}.items():
            self._equal({name: Fraction(1)}, {"": Fraction(power)})
        for name, initial in self.program.state:
            self._equal({name: Fraction(1)}, self._unit(initial))
        for assign in self.program.steps:
            self._equal({assign.target: Fraction(1)}, self._unit(assign.value))
        names = dict.fromkeys((*(k for k, _ in self.program.state), *self.program.params, *self.constants))
        names |= dict.fromkeys(assign.target for assign in self.program.steps)
        state = {name for name, _ in self.program.state}
        for name in names:
            if self._form({name: Fraction(1)}).keys() - {""}:
                self._equal({name: Fraction(1)}, {"": Fraction(int(name in state))})
        for name in (*names, *INPUTS):
            unit = self._form({name: Fraction(1)}).get("", Fraction(0))
            if unit not in (0, 1):
                what = self.constants.get(name, name)
                raise LdsnnError(
                    f"its {what} is charge to the power of {unit}, so the program is not linear in charges"
                )
            self.units[name] = int(unit)

    def _unit(self, expr: Expr) -> _Form:
        if isinstance(expr, Const):
            name = f"#{len(self.constants)}"
            self.constants[name] = expr.value
            return {name: Fraction(1)}
        if isinstance(expr, Var):
            return {expr.name: Fraction(1)}
        args = [self._unit(arg) for arg in expr.args]
        if expr.op in ("mul", "div"):
            return _sum(args[0], args[1], Fraction(1 if expr.op == "mul" else -1))
        if expr.op in ("ge", "gt"):
            self._equal(*args)
            return {}
        if expr.op in _SAME:
            self._equal(*args)
        elif expr.op == "select":
            self._equal(args[1], args[2])
        return args[1] if expr.op == "select" else args[0]

    def _equal(self, a: _Form, b: _Form) -> None:
        """Note that two forms are one: one unknown of their difference is expressed by the others."""
        rest = self._form(_sum(a, b, Fraction(-1)))
        unknown = next((name for name in rest if name), None)
        if unknown is None:
            if rest.get(""):
                raise LdsnnError("adds or compares quantities of different units")
            return
        factor = -rest.pop(unknown)
        solved = {name: value / factor for name, value in rest.items()}
        self._known = {k: _replaced(form, unknown, solved) for k, form in self._known.items()}
        self._known[unknown] = solved

    def _form(self, form: _Form) -> _Form:
        """In terms of what is still unknown."""
        for name in [n for n in form if n in self._known]:
            form = _replaced(form, name, self._known[name])
        return form


def _sum(a: _Form, b: _Form, factor: Fraction) -> _Form:
    total = {k: a.get(k, Fraction(0)) + factor * b.get(k, Fraction(0)) for k in {**a, **b}}
    return {k: v for k, v in total.items() if v}


def _replaced(form: _Form, name: str, by: _Form) -> _Form:
    if name not in form:
        return form
    return _sum({k: v for k, v in form.items() if k != name}, by, form[name])


# ---- rewriting


@dataclass(frozen=True)
class _Number:
    """A rewritten expression: whole or a multiple of 2**-fraction, or, until it is rounded, a quotient of charges."""

    expr: Expr
    is_whole: bool = True
    is_quotient: bool = False


class _Rewriter:
    def __init__(self, program: Program, fraction: int, guard: int) -> None:
        self.old, self.fraction, self.guard = program, fraction, guard
        self.units = _solved(program).units
        self.is_whole = {name: True for name, _ in program.state}

    def program(self) -> Program:
        """The whole program; its state is charges and counts."""
        state = tuple((name, self._whole(initial, name).expr) for name, initial in self.old.state)
        sections = {name: tuple(self._assigned(getattr(self.old, name))) for name in SECTIONS}
        return Program(state, output=self.old.output, membrane=self.old.membrane, **sections)

    def _assigned(self, section: tuple[Assign, ...]) -> Iterator[Assign]:
        for assign in section:
            number = self._number(assign.value)
            if number.is_quotient:
                raise LdsnnError(f"{assign.target} is a quotient of charges, which is no whole number")
            if not number.is_whole and assign.target in (self.old.output, *(k for k, _ in self.old.state)):
                raise LdsnnError(f"{assign.target} is a ratio, which is no whole number")
            self.is_whole[assign.target] = number.is_whole
            yield Assign(assign.target, number.expr)

    def _whole(self, expr: Expr, what: str) -> _Number:
        number = self._number(expr)
        if not number.is_whole or number.is_quotient:
            raise LdsnnError(f"{what} = {expr} is no whole number")
        return number

    def _number(self, expr: Expr) -> _Number:
        if isinstance(expr, Const):
            if expr.value == int(expr.value):
                return _Number(expr)
            return _Number(Const(rounded(expr.value, self.fraction)), is_whole=False)
        if isinstance(expr, Var):
            return self._named(expr)
        return self._apply(expr.op, [self._number(arg) for arg in expr.args])

    def _named(self, var: Var) -> _Number:
        if var.name in INPUTS:
            return _Number(Apply("mul", (var, Const(float(2**self.guard)))) if self.guard else var)
        if var.name == "spike_value":
            return _Number(Const(1.0))
        if var.name in self.is_whole:
            return _Number(var, self.is_whole[var.name])
        return _Number(var, is_whole=self.units[var.name] == 1)

    def _apply(self, op: str, args: list[_Number]) -> _Number:
        exprs = tuple(arg.expr for arg in args)
        if any(arg.is_quotient for arg in args) and op not in ("floor", "ceil"):
            raise LdsnnError(f"computes with the quotient {exprs[0]} without rounding it")
        if op == "mul":
            return self._product(*args)
        if op == "div":
            return self._quotient(*args)
        if op in ("ge", "gt"):
            return _Number(Apply(op, exprs))
        if op in ("floor", "ceil"):
            if args[0].is_quotient:
                return _Number(Apply(op, exprs))
            if args[0].is_whole:
                return args[0]
            raise LdsnnError(f"rounds the ratio {exprs[0]}")
        chosen = args[1:] if op == "select" else args
        return _Number(Apply(op, exprs), all(arg.is_whole for arg in chosen))

    def _product(self, a: _Number, b: _Number) -> _Number:
        if a.expr == Const(1.0) or b.expr == Const(1.0):
            return b if a.expr == Const(1.0) else a
        if a.is_whole and b.is_whole:
            return _Number(Apply("mul", (a.expr, b.expr)))
        if not (a.is_whole or b.is_whole):
            raise LdsnnError(f"multiplies two ratios, {a.expr} and {b.expr}")
        charge, ratio = (a, b) if a.is_whole else (b, a)
        if isinstance(charge.expr, Const):  # 2 * ratio is a ratio
            return _Number(Apply("mul", (a.expr, b.expr)), is_whole=False)
        product = Apply("mul", (charge.expr, ratio.expr))
        return _Number(Apply("floor", (Apply("add", (product, Const(0.5))),)))

    def _quotient(self, a: _Number, b: _Number) -> _Number:
        if isinstance(b.expr, Const):
            if b.expr.value == 0.0:
                raise LdsnnError("divides by 0")
            inverse = 1.0 / b.expr.value
            return self._product(a, _Number(Const(rounded(inverse, self.fraction)), is_whole=inverse == int(inverse)))
        if a.is_whole and b.is_whole:
            return _Number(Apply("div", (a.expr, b.expr)), is_quotient=True)
        raise LdsnnError(f"divides by the ratio {b.expr}; a form that multiplies by its reciprocal is needed")


__all__ = ["CHARGE", "RATIO", "charge_constants", "has_ratios", "roles", "rounded", "whole"]
