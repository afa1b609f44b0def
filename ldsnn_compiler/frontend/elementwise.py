"""Elementwise arithmetic of a ``torch.fx`` graph as expressions of the neuron language, and the constants in it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn import functional as F

from ldsnn_compiler.frontend.chains import ZEROS
from ldsnn_compiler.ir.program import Apply, Const, Expr

Build = Callable[..., Expr]


def _op(name: str, *, swapped: bool = False) -> Build:
    return lambda a, b: Apply(name, (b, a) if swapped else (a, b))


def _select(condition: Expr, a: Expr, b: Expr) -> Expr:
    return Apply("select", (condition, a, b))


def _clamp(x: Expr, min: Expr | None = None, max: Expr | None = None) -> Expr:
    x = x if min is None else Apply("max", (x, min))
    return x if max is None else Apply("min", (x, max))


_ZERO, _ONE = Const(0.0), Const(1.0)
_BINARY: Final[Mapping[str, Build]] = {
    **dict.fromkeys(("add", "iadd", "add_", "__add__", "__radd__"), _op("add")),
    **dict.fromkeys(("sub", "isub", "sub_", "subtract", "__sub__"), _op("sub")),
    **dict.fromkeys(("rsub", "__rsub__"), _op("sub", swapped=True)),
    **dict.fromkeys(("mul", "imul", "mul_", "multiply", "__mul__", "__rmul__"), _op("mul")),
    **dict.fromkeys(("truediv", "itruediv", "div", "div_", "true_divide", "divide"), _op("div")),
    **dict.fromkeys(("gt", "greater"), _op("gt")),
    **dict.fromkeys(("ge", "greater_equal"), _op("ge")),
    **dict.fromkeys(("lt", "less"), _op("gt", swapped=True)),
    **dict.fromkeys(("le", "less_equal"), _op("ge", swapped=True)),
    "maximum": _op("max"),
    "minimum": _op("min"),
}
_OTHER: Final[Mapping[str, Build]] = {
    "neg": lambda x: Apply("mul", (Const(-1.0), x)),
    "where": _select,
    "masked_fill": lambda x, mask, value: _select(mask, value, x),
    "relu": lambda x: Apply("max", (x, _ZERO)),
    **dict.fromkeys(("clamp", "clip"), _clamp),
    "clamp_min": lambda x, min: _clamp(x, min),
    "clamp_max": lambda x, max: _clamp(x, None, max),
    "floor": lambda x: Apply("floor", (x,)),
    "ceil": lambda x: Apply("ceil", (x,)),
    "logical_not": lambda x: Apply("sub", (_ONE, x)),
}
CASTS: Final = frozenset({"float", "to", "type", "type_as", "detach", "clone", "contiguous"})
"""Methods that change no number here: what they are applied to is a float32 tensor, or 0 or 1."""


def name_of(node: fx.Node) -> str:
    """The operation's name, empty if it is none of PyTorch's or Python's."""
    if node.op == "call_method":
        return str(node.target)
    if node.op != "call_function" or isinstance(node.target, str):
        return ""
    found = getattr(node.target, "__name__", "")
    known = any(getattr(space, found, None) is node.target for space in (operator, torch, F))
    return found if known else ""


def is_cast(node: fx.Node) -> bool:
    """Whether the node hands on the numbers of its first operand."""
    return node.op == "call_method" and node.target in CASTS


def operands(node: fx.Node) -> list[fx.Node]:
    """The nodes whose numbers the node computes with; a cast only asks for the type of what else it is given."""
    return [a for a in node.args[:1] if isinstance(a, fx.Node)] if is_cast(node) else node.all_input_nodes


def asks(node: fx.Node) -> bool:
    """Whether the node wants to know a size or type, not numbers."""
    return node.op == "call_function" and node.target is getattr


def is_comparison(node: fx.Node) -> bool:
    """Whether the node gives 0 or 1."""
    return name_of(node) in ("gt", "greater", "ge", "greater_equal", "lt", "less", "le", "less_equal")


def knows(node: fx.Node) -> bool:
    """Whether the node can be written in the neuron language."""
    name = name_of(node)
    if name in _BINARY:
        return len(node.args) == 2 and not node.kwargs
    return is_cast(node) or name in _OTHER


def expression(node: fx.Node, read: Callable[[Any], Expr]) -> Expr:
    """The node's operation on what ``read`` makes of its operands."""
    if is_cast(node):
        return read(node.args[0])
    name = name_of(node)
    build = _BINARY.get(name) or _OTHER[name]
    given = {k: None if v is None else read(v) for k, v in node.kwargs.items()}
    return build(*(None if a is None else read(a) for a in node.args), **given)


class Constants:
    """What nodes are that no input of the model enters: numbers, or tensors of the model."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self._known: dict[fx.Node, Any] = {}

    def value(self, argument: Any) -> Any:
        """A number, a tensor, or None if an input enters."""
        if not isinstance(argument, fx.Node):
            return argument if isinstance(argument, int | float | torch.Tensor) else None
        if argument not in self._known:
            self._known[argument] = self._evaluated(argument)
        return self._known[argument]

    def number(self, argument: Any) -> float | None:
        """The value if it is one number, in a tensor of any shape or not; zeros made for the input's size are 0."""
        if isinstance(argument, fx.Node) and (made := filled(argument)) is not None:
            return made
        value = self.value(argument)
        if isinstance(value, torch.Tensor):
            flat = value.detach().float().flatten()
            return float(flat[0]) if flat.numel() and bool((flat == flat[0]).all()) else None
        return None if value is None else float(value)

    def _evaluated(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.root)
        if node.op not in ("call_function", "call_method") or node.kwargs or not node.all_input_nodes:
            return None
        values = [self.value(a) for a in node.args]
        if any(v is None for v in values):
            return None
        with torch.no_grad():
            if callable(node.target):
                return node.target(*values)
            return operator.methodcaller(node.target, *values[1:])(values[0])


def filled(node: fx.Node) -> float | None:
    """What a tensor is filled with that is made for the size of another."""
    if node.target in ZEROS:
        return 0.0
    if node.target in (torch.ones, torch.ones_like, "new_ones"):
        return 1.0
    if node.target in (torch.full, torch.full_like, "new_full"):
        value = node.args[-1] if len(node.args) > 1 else node.kwargs.get("fill_value")
        return float(value) if isinstance(value, int | float) else None
    return None
