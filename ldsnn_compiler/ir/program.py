"""Neuron programs: what one neuron does in one timestep, as short lists of scalar assignments.

A program has state variables with initial values and four sections, run in this order:

``synapse``  input current from the input ``x`` and synaptic state;
``charge``   membrane after charging, by convention ``h``;
``fire``     the emitted count, by convention ``s`` (0 or 1 for a binary spike);
``reset``    the state kept for the next step.

Assignments are written as Python expressions over ``+ - * /``, comparisons ``>= >``, and the functions
``select(c, a, b)``, ``floor``, ``ceil``, ``min``, ``max`` and ``clamp(a, lo, hi)``. The rounding order is the order of
the written operations; no target may contract or reassociate them. Names that are neither state, an input (``x``, and
``feedback``, a second current) nor assigned before are parameters. Every evaluator (interpreter, TIR emitter,
quantiser) walks this one form.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

from ldsnn_compiler.errors import LdsnnError

R = TypeVar("R")

#: operation name -> number of arguments
OPERATIONS: Mapping[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "ge": 2, "gt": 2,
    "min": 2, "max": 2, "floor": 1, "ceil": 1, "select": 3,
}  # fmt: skip
_BINARY: dict[type[ast.operator], str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "ge": ">=", "gt": ">"}
SECTIONS = ("synapse", "charge", "fire", "reset")
INPUTS = ("x", "feedback")
"""What a program may read of other nodes: its input current, and one more that is added at a place of its own."""


@dataclass(frozen=True)
class Const:
    """A literal, float32 at run time."""

    value: float

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class Var:
    """The input ``x``, a state variable, a parameter, or a name assigned earlier in the step."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Apply:
    """An operation of :data:`OPERATIONS` on its arguments; comparisons give 0 or 1."""

    op: str
    args: tuple[Expr, ...]

    def __str__(self) -> str:
        if self.op in _INFIX:
            left, right = (f"({a})" if isinstance(a, Apply) and a.op in _INFIX else str(a) for a in self.args)
            return f"{left} {_INFIX[self.op]} {right}"
        return f"{self.op}({', '.join(map(str, self.args))})"


Expr = Const | Var | Apply


@dataclass(frozen=True)
class Assign:
    """``target = value``."""

    target: str
    value: Expr

    def __str__(self) -> str:
        return f"{self.target} = {self.value}"


@dataclass(frozen=True)
class Program:
    """One neuron's step. ``output`` names the variable emitted, ``membrane`` the state shown as the second result."""

    state: tuple[tuple[str, Expr], ...]
    synapse: tuple[Assign, ...] = ()
    charge: tuple[Assign, ...] = ()
    fire: tuple[Assign, ...] = ()
    reset: tuple[Assign, ...] = ()
    output: str = "s"
    membrane: str = "v"

    @property
    def steps(self) -> tuple[Assign, ...]:
        """All assignments in the order they run."""
        return self.synapse + self.charge + self.fire + self.reset

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The operands of its neuron, in order: ``x``, and ``feedback`` if the program reads it."""
        read = {name for assign in self.steps for name in variables(assign.value)}
        return tuple(name for name in INPUTS if name == "x" or name in read)

    @cached_property
    def params(self) -> tuple[str, ...]:
        """Names that the caller must supply, in order of first use (initial values first)."""
        found: dict[str, None] = {}
        for _, init in self.state:
            found.update(dict.fromkeys(variables(init)))
        known = {*INPUTS, *(name for name, _ in self.state)}
        for assign in self.steps:
            found.update(dict.fromkeys(v for v in variables(assign.value) if v not in known))
            known.add(assign.target)
        return tuple(found)

    def __str__(self) -> str:
        lines = [f"state  {name} = {init}" for name, init in self.state]
        for section in SECTIONS:
            lines += [f"{section:<7}{a}" for a in getattr(self, section)]
        return "\n".join(lines)


def variables(expr: Expr) -> Iterator[str]:
    """Names read by ``expr``, left to right."""
    if isinstance(expr, Var):
        yield expr.name
    elif isinstance(expr, Apply):
        for arg in expr.args:
            yield from variables(arg)


def fold(expr: Expr, const: Callable[[float], R], var: Callable[[str], R], apply: Callable[[str, list[R]], R]) -> R:
    """Rebuild ``expr`` bottom-up in another algebra: this is the one evaluator every back end shares."""
    if isinstance(expr, Const):
        return const(expr.value)
    if isinstance(expr, Var):
        return var(expr.name)
    return apply(expr.op, [fold(a, const, var, apply) for a in expr.args])


def program(
    state: Mapping[str, str | float], output: str = "s", membrane: str = "v", **sections: str | tuple[str, ...]
) -> Program:
    """Build a :class:`Program` from text: ``program({"v": 0.0}, charge="h = v + x", fire="s = h >= threshold", ...)``.

    A section is one assignment, several separated by ``;``, or a tuple of them.
    """
    parsed = {name: tuple(_assignments(text)) for name, text in sections.items()}
    inits = tuple((name, expression(str(init))) for name, init in state.items())
    result = Program(inits, output=output, membrane=membrane, **parsed)
    assigned = {a.target for a in result.steps} | {name for name, _ in inits}
    missing = sorted({output, membrane} - assigned)
    if missing:
        raise LdsnnError(f"neuron program never assigns its output {', '.join(missing)}")
    return result


def _assignments(text: str | tuple[str, ...]) -> Iterator[Assign]:
    parts = text if isinstance(text, tuple) else (text,)
    for line in (piece.strip() for part in parts for piece in part.split(";")):
        if line:
            target, _, value = line.partition("=")
            yield Assign(target.strip(), expression(value))


@cache
def expression(text: str) -> Expr:
    """Parse one expression; :class:`LdsnnError` names what is outside the language."""
    try:
        return _convert(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise LdsnnError(f"neuron program: cannot parse {text!r}: {error.msg}") from None


def _convert(node: ast.expr) -> Expr:
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return Const(float(value))
        case ast.Name(id=name):
            return Var(name)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return Const(-float(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Apply("sub", (Const(0.0), _convert(operand)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return Apply(_BINARY[type(op)], (_convert(left), _convert(right)))
        case ast.Compare(left=left, ops=[ast.GtE() | ast.Gt() as op], comparators=[right]):
            return Apply("ge" if isinstance(op, ast.GtE) else "gt", (_convert(left), _convert(right)))
        case ast.Call(func=ast.Name(id="clamp"), args=[value, low, high]):
            return Apply("min", (Apply("max", (_convert(value), _convert(low))), _convert(high)))
        case ast.Call(func=ast.Name(id=name), args=args) if OPERATIONS.get(name) == len(args):
            return Apply(name, tuple(_convert(a) for a in args))
    raise LdsnnError(f"neuron program: {ast.unparse(node)!r} is outside the language (see ldsnn_compiler.ir.program)")
