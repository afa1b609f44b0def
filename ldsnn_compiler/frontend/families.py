"""Values of an unrolled time loop, and reading the nodes of a ``torch.fx`` graph.

Nodes that do the same to corresponding values in different steps share a :class:`Family`. A value is then

``Fixed(f)``            the same in every step, or computed before or after the loop;
``At(f, t)``            family f in step t;
``Running(op, f, t)``   the sum, mean or largest of family f over steps 0..t;
``Stacked(f, dim)``     every step of family f along a new axis, or written along an axis of a tensor of these sizes;
``Broken(problem)``     anything else that mixes steps. It is only reported where something uses it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import fx, nn

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.frontend.sizes import set_item
from ldsnn_compiler.frontend.traced import leaves

SAME: Final = frozenset({"detach", "clone", "contiguous", "requires_grad_", "detach_", torch.clone, torch.detach})
UNBINDS: Final = (torch.unbind, "unbind")
SET_ITEM: Final = (set_item, operator.setitem, "__setitem__")
_HARMLESS: Final = frozenset({"requires_grad_", "detach_"})


@dataclass(eq=False)
class Family:
    """What corresponding nodes of all steps do.

    ``node`` is the first of them; ``args`` and ``kwargs`` hold values in place of nodes. ``moving``: it differs from
    step to step. ``time_axis``: it takes step t of its operand along that axis. ``steps``: the steps seen.
    """

    node: fx.Node
    args: Any
    kwargs: Any
    moving: bool
    time_axis: int | None = None
    steps: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Fixed:
    """The same in every step, or computed before or after the loop."""

    family: Family


@dataclass(frozen=True)
class At:
    """A family in one step."""

    family: Family
    step: int


@dataclass(frozen=True)
class Running:
    """The sum, mean or largest of a family over the steps up to this one."""

    op: str
    family: Family
    step: int


@dataclass(frozen=True)
class Stacked:
    """Every step of a family along a new axis; ``sizes`` of the tensor that the model wrote them into."""

    family: Family
    dim: int
    sizes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Broken:
    """Anything else that mixes steps."""

    problem: Problem


Value = Fixed | At | Running | Stacked | Broken


def key(value: Any) -> Any:
    """What makes two arguments the same up to the step they belong to."""
    match value:
        case Fixed(family) | At(family):
            return (type(value).__name__, id(family))
        case Running(op, family):
            return (op, id(family))
        case Stacked(family, dim):
            return ("stack", id(family), dim)
    return (type(value).__name__, repr(value))


def frozen(structure: Any) -> Any:
    """A hashable copy of a nest of arguments."""
    if isinstance(structure, list | tuple):
        return (type(structure).__name__, *(frozen(s) for s in structure))
    if isinstance(structure, Mapping):
        return tuple((k, frozen(v)) for k, v in structure.items())
    if isinstance(structure, slice):
        return ("slice", frozen((structure.start, structure.stop, structure.step)))
    return key(structure)


def mapped(structure: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` applied to every leaf of a nest of tuples, lists, dicts and slices."""
    return fx.node.map_aggregate(structure, function)


def selection(node: fx.Node) -> tuple[fx.Node, int, int] | None:
    """(tensor, axis, index) if the node takes one index along one axis: ``x[t]``, ``x[:, t]``, ``x.select(1, t)``."""
    source: Any
    axis: Any
    index: Any
    if node.target in ("select", torch.select) and len(node.args) == 3:
        source, axis, index = node.args
    elif node.op == "call_function" and node.target is operator.getitem:
        source, index = node.args
        if isinstance(source, fx.Node) and source.target in UNBINDS:
            axis = source.args[1] if len(source.args) > 1 else source.kwargs.get("dim", 0)
            source = source.args[0]
        else:
            axis, index = indexed(index if isinstance(index, tuple) else (index,))
    else:
        return None
    return (source, axis, index) if isinstance(source, fx.Node) and type(axis) is int and type(index) is int else None


def indexed(position: tuple[Any, ...]) -> tuple[int | None, int | None]:
    """(axis, index) of a position that takes one index along one axis and all of the others, else (None, None)."""
    chosen = [i for i, p in enumerate(position) if type(p) is int]
    whole = all(type(p) is int or p is Ellipsis or p == slice(None) for p in position)
    if len(chosen) != 1 or not whole:
        return None, None
    axis = chosen[0]
    return (axis - len(position) if Ellipsis in position[:axis] else axis), position[axis]


def changes_operand(node: fx.Node) -> bool:
    """Whether the node changes its first operand in place."""
    if node.op not in ("call_method", "call_function"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    named = name.endswith("_") and not name.endswith("__") and name not in _HARMLESS
    return named or node.target in SET_ITEM


def is_same(node: fx.Node) -> bool:
    """Whether the node hands on its operand as it is."""
    return node.op in ("call_method", "call_function") and node.target in SAME and isinstance(node.args[0], fx.Node)


def same(value: Any) -> Any:
    """The value without detach, clone and the like."""
    while isinstance(value, fx.Node) and is_same(value):
        value = value.args[0]
    return value


def operation(node: fx.Node) -> str:
    """What the node does, in the user's words."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def describe(node: fx.Node, root: nn.Module) -> str:
    """A node named for a message: the module called, or the operation and what it reads."""
    if node.op == "call_module":
        return f"{node.target} ({type(root.get_submodule(str(node.target))).__name__})"
    if node.op in ("placeholder", "get_attr"):
        return str(node.target)
    first = next((a for a in leaves(node.args) if isinstance(a, fx.Node)), None)
    if node.target is operator.getitem and first is not None:
        inner = describe(first, root)
        return inner if first.op == "call_module" else f"{inner}[{_index_text(node.args[1])}]"
    return operation(node) + (f" of {describe(first, root)}" if first is not None else "")


def _index_text(index: Any) -> str:
    parts = index if isinstance(index, tuple) else (index,)
    return ", ".join(":" if p == slice(None) else "..." if p is Ellipsis else repr(p) for p in parts)


def at(node: fx.Node, root: nn.Module) -> dict[str, str]:
    """``where`` and ``kind`` of a problem at this node: the module's path, the line of the user's code if recorded."""
    if node.op == "call_module":
        path, kind = str(node.target), type(root.get_submodule(str(node.target))).__name__
    else:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path, kind = str(stack[-1][0]) if stack else "", f"{operation(node)}()"
    return {"where": " ".join(part for part in (path, node.meta.get("line")) if part), "kind": kind}


def ranges(steps: list[int]) -> str:
    """``0..3, 5`` for [0, 1, 2, 3, 5]."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][1] + 1:
            runs[-1][1] = step
        else:
            runs.append([step, step])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)
