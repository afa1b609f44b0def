"""Importers as data: a :class:`FrontEnd` is the table of what one library's models may contain.

A new library is one file with such a table, registered under the entry-point group ``ldsnn_compiler.frontends`` (the
entry names a function without arguments that returns the :class:`FrontEnd`) or passed to :func:`register`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import torch.fx as fx
from torch import nn

from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from ldsnn_compiler.frontend.context import Context

Check = Callable[[Any, "Context"], None]
"""``check(module, ctx)``: reports every attribute that cannot be imported; run even where the operands are unusable."""

ModuleImporter = Callable[..., Any]
"""``importer(module, ctx, *operands, **keywords) -> Traced`` (or a tuple of them)."""

FunctionImporter = Callable[..., Any]
"""``importer(ctx, *operands, **keywords) -> Traced`` (or any Python value that the model computes with)."""

Normaliser = Callable[[fx.GraphModule, "Context"], None]
"""Rewrites a traced module in place before it is imported, e.g. re-rolls time loops; problems go to the context."""

GROUP = "ldsnn_compiler.frontends"
BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "torch": (
        "ldsnn_compiler.frontend.layers",
        "ldsnn_compiler.frontend.functions",
        "ldsnn_compiler.frontend.written",
        "ldsnn_compiler.frontend.reroll",
    ),
    "spikingjelly": ("ldsnn_compiler.frontend.spikingjelly", "ldsnn_compiler.frontend.encoders"),
    "snntorch": ("ldsnn_compiler.frontend.snntorch",),
    "sinabs": ("ldsnn_compiler.frontend.sinabs",),
    "norse": ("ldsnn_compiler.frontend.norse",),
}
"""Library -> modules with a ``front_end()``; imported only once the library itself has been imported."""


class ModulePath(str):
    """A module passed as an argument to a wrapped function, in the traced graph."""

    __slots__ = ()


@dataclass(frozen=True)
class ModuleRef:
    """The same, as importers see it, ``path`` from the model's root; ``ctx.call(module, path, x)`` imports a call."""

    module: nn.Module
    path: str


@dataclass(frozen=True)
class FrontEnd:
    """What a library brings. Later tables may not repeat an entry of earlier ones.

    ``modules``     class -> importer. It serves subclasses too, as long as they leave ``methods_kept`` alone.
    ``checks``      class -> check of its attributes, for subclasses too
    ``functions``   function in the traced graph -> importer
    ``methods``     tensor method name -> importer
    ``refused``     class or function -> what to do instead; subclasses are refused too
    ``leaves``      base classes whose instances are never traced into: without an importer they are refused by name
    ``unknown``     what to do instead of such a one that no table names
    ``methods_kept`` the methods that an importer relies on
    ``state``       class -> {attribute: marker(call result)}: while tracing, reading that attribute after a call of the
                    module gives the marker's result, so that ``lif.v`` becomes a value of the graph
    ``normalisers`` run in order on every traced module
    ``batch_major`` its models take ``[N, T, ...]`` or ``[N*T, ...]``: a model with one of its leaves is tried so
    ``wrapped``     (namespace, name) of functions recorded as calls instead of being traced into
    """

    name: str
    modules: Mapping[type, ModuleImporter] = field(default_factory=dict)
    checks: Mapping[type, Check] = field(default_factory=dict)
    functions: Mapping[Callable[..., Any], FunctionImporter] = field(default_factory=dict)
    methods: Mapping[str, FunctionImporter] = field(default_factory=dict)
    refused: Mapping[Any, str] = field(default_factory=dict)
    leaves: tuple[type, ...] = ()
    unknown: str = ""
    methods_kept: tuple[str, ...] = ("forward",)
    state: Mapping[type, Mapping[str, Callable[..., Any]]] = field(default_factory=dict)
    normalisers: tuple[Normaliser, ...] = ()
    batch_major: bool = False
    wrapped: tuple[tuple[Any, str], ...] = ()


_REGISTERED: dict[str, FrontEnd] = {}


def register(front_end: FrontEnd) -> FrontEnd:
    """Make a front end known; another one of the same name, or one that claims an entry already taken, is an error."""
    if _REGISTERED.get(front_end.name, front_end) is not front_end:
        raise LdsnnError(f"a front end named {front_end.name!r} is registered already")
    for other in _REGISTERED.values():
        for table in ("modules", "functions", "methods"):
            taken = [] if other is front_end else set(getattr(other, table)) & set(getattr(front_end, table))
            if taken:
                names = ", ".join(sorted(getattr(t, "__name__", str(t)) for t in taken))
                raise LdsnnError(f"front ends {other.name!r} and {front_end.name!r} both import {names}")
    _REGISTERED[front_end.name] = front_end
    return front_end


def front_ends() -> tuple[FrontEnd, ...]:
    """Every front end whose library is in use, built-in ones first. A plug-in that fails to load is an error."""
    for library, modules in BUILT_IN.items():
        if library in sys.modules:
            for module in modules:
                _load_built_in(module)
    _load_plugins()
    return tuple(_REGISTERED.values())


@cache
def _load_built_in(module: str) -> None:
    register(import_module(module).front_end())


@cache
def _load_plugins() -> None:
    problems = []
    for entry in entry_points(group=GROUP):
        try:
            register(entry.load()())
        except Exception as error:  # whatever a plug-in raises is reported with its name
            problems.append(Problem(f"{type(error).__name__}: {error}", where=entry.name, kind=GROUP))
    if problems:
        raise LdsnnError(problems)


class Tables:
    """The tables of several front ends looked up as one, for one import.

    ``seed``: of the first encoder.
    ``traced``: graphs of modules whose forward did not ask for sizes, so that every reading of the example shares them.
    """

    def __init__(self, parts: tuple[FrontEnd, ...], seed: int = 0) -> None:
        self.parts, self.seed = parts, seed
        self.traced: dict[tuple[Any, ...], fx.Graph] = {}

    def is_leaf(self, module: nn.Module) -> bool:
        """Whether a module is imported, or refused, as a whole."""
        kind = type(module)
        known = self._owner(kind) is not None or self.refusal(kind) is not None
        return known or any(isinstance(module, p.leaves) for p in self.parts)

    def batch_major(self, model: nn.Module) -> bool:
        """Whether a model holds modules of a library that puts the batch before time."""
        leaves = tuple(leaf for part in self.parts if part.batch_major for leaf in part.leaves)
        return any(isinstance(module, leaves) for module in model.modules())

    def module(self, kind: type) -> ModuleImporter | None:
        """The importer of a module class."""
        owner = self._owner(kind)
        return None if owner is None else owner[0].modules[owner[1]]

    def check(self, kind: type) -> Check | None:
        """The check of a module class."""
        return next((p.checks[key] for key in kind.__mro__ for p in self.parts if key in p.checks), None)

    def function(self, function: Callable[..., Any]) -> FunctionImporter | None:
        """The importer of a function."""
        return next((p.functions[function] for p in self.parts if function in p.functions), None)

    def method(self, name: str) -> FunctionImporter | None:
        """The importer of a tensor method."""
        return next((p.methods[name] for p in self.parts if name in p.methods), None)

    def refusal(self, what: Any) -> str | None:
        """What to do instead of a class or function that is refused by name, or None."""
        keys = what.__mro__ if isinstance(what, type) else (what,)
        for key in keys:
            for part in self.parts:
                if key in part.refused:
                    return part.refused[key]
                if key in part.functions or key in part.methods:
                    return None
                if key in part.modules and self._owner(what) is not None:
                    return None
        return None

    def unknown(self, kind: type) -> str:
        """What to do instead of a library's class that no table names."""
        return next((p.unknown for p in self.parts if p.unknown and issubclass(kind, p.leaves)), "")

    def state(self, kind: type) -> Mapping[str, Callable[..., Any]]:
        """The state attributes of a module class that a model may read, with their markers."""
        found: dict[str, Callable[..., Any]] = {}
        for part in self.parts:
            for key, attributes in part.state.items():
                if issubclass(kind, key):
                    found.update(attributes)
        return found

    def _owner(self, kind: type) -> tuple[FrontEnd, type] | None:
        for key in kind.__mro__:
            for part in self.parts:
                if key in part.refused:
                    return None
                if key in part.modules:
                    return (part, key) if _keeps(kind, key, part.methods_kept) else None
        return None


def _keeps(kind: type, base: type, methods: tuple[str, ...]) -> bool:
    return all(getattr(kind, m, None) is getattr(base, m, None) for m in methods)
