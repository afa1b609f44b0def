"""Walking a traced module node by node, each one handed to the importer that the tables name for it."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.fx as fx
from torch import nn

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.frontend import elementwise, timing
from ldsnn_compiler.frontend.context import Context, Refused
from ldsnn_compiler.frontend.leaf_tracer import trace_module
from ldsnn_compiler.frontend.registry import ModulePath, ModuleRef
from ldsnn_compiler.frontend.traced import POISON, Poison, Traced, contains
from ldsnn_compiler.ir.graph import Graph

CONVERT_HINT = "a plain network is converted with ld.convert(ann, calibration, timesteps)"


def attach(ctx: Context) -> None:
    """Let the context import modules below the present one."""
    ctx.call = lambda module, path, *args, **kwargs: call(ctx, module, path, args, kwargs)


def call(ctx: Context, module: nn.Module, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Import one call of a module: a leaf through its table, any other by tracing and walking its forward."""
    if ctx.tables.is_leaf(module) or _is_torch_leaf(module):
        return _leaf(ctx, module, path, args, kwargs)
    kind = type(module).__name__
    traced = trace_module(ctx, module, path, args, kwargs, Scratch(ctx, module, path, args, kwargs).value)
    if traced is None:
        return POISON
    for part in ctx.tables.parts:
        for normalise in part.normalisers:
            before = len(ctx.problems)
            with ctx.at(path, path, kind, claim=False):
                normalise(traced, ctx)
            if len(ctx.problems) > before:
                return POISON
    return Walk(ctx, module, traced, path).run(args, kwargs)


def _is_torch_leaf(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)


def _leaf(ctx: Context, module: nn.Module, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    kind = type(module)
    with ctx.at(path or kind.__name__, path, kind.__name__):
        importer, refusal = ctx.tables.module(kind), ctx.tables.refusal(kind)
        if importer is None or refusal is not None:
            ctx.report("cannot be imported", hint=refusal or ctx.tables.unknown(kind) or _unknown_hint(kind))
            return POISON
        if module._forward_hooks or module._forward_pre_hooks:
            ctx.note("has forward hooks, which are not imported")
        args, kwargs = _positional(module, args, dict(kwargs))
        return attempt(ctx, ctx.tables.check(kind), importer, module, *args, **kwargs)


def _positional(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Operands passed by name in their places, as far as none is left out before them."""
    for name in list(inspect.signature(module.forward).parameters)[len(args) :] if kwargs else []:
        if name not in kwargs:
            break
        args = (*args, kwargs.pop(name))
    return args, kwargs


def _unknown_hint(kind: type) -> str:
    if kind.__module__.startswith("torch.nn.modules.activation"):
        return CONVERT_HINT
    return "`ldsnn ops` lists what there is; a front end of your own can import more (CONTRIBUTING)"


def attempt(
    ctx: Context,
    check: Callable[..., None] | None,
    importer: Callable[..., Any],
    module: nn.Module,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run a module's check, then, if its operands are sound, its importer."""
    before = len(ctx.problems)
    if check is not None:
        check(module, ctx)
    if len(ctx.problems) > before:
        return POISON
    return guarded(ctx, importer, (module, ctx, *args), kwargs)


def guarded(ctx: Context, importer: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call an importer; POISON where an operand is POISON or a problem arose."""
    if contains((args, dict(kwargs)), Poison):
        return POISON
    before = len(ctx.problems)
    try:
        result = importer(*args, **kwargs)
    except Refused:
        return POISON
    except LdsnnError as error:
        for problem in error.problems:
            ctx.report(problem.message, attribute=problem.attribute, hint=problem.hint)
        return POISON
    except (TypeError, ValueError) as error:
        ctx.report(f"cannot be imported as it is called here: {str(error).splitlines()[0]}")
        return POISON
    return POISON if len(ctx.problems) > before else result


class Walk:
    """One pass over the nodes of a traced module, in order."""

    def __init__(self, ctx: Context, module: nn.Module, traced: fx.GraphModule | None, prefix: str) -> None:
        self.ctx, self.module, self.prefix = ctx, module, prefix
        self.traced: Any = module if traced is None else traced
        self.env: dict[fx.Node, Any] = {}
        self._inputs: list[Any] = []
        self._keywords: Mapping[str, Any] = {}

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The operands that placeholders stand for."""
        self._inputs, self._keywords = list(args), kwargs

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Results of the module for these operands."""
        self.given(args, kwargs)
        result: Any = None
        for node in self.traced.graph.nodes:
            if node.op == "output":
                result = self._value(node.args[0])
            else:
                self.visit(node)
        return result

    def visit(self, node: fx.Node) -> None:
        """Import one node; those it reads come before it."""
        self.env[node] = getattr(self, f"_{node.op}")(node)

    def _value(self, argument: Any) -> Any:
        return fx.node.map_aggregate(argument, self._leaf_value)

    def _leaf_value(self, leaf: Any) -> Any:
        if isinstance(leaf, fx.Node):
            return self.env[leaf]
        if isinstance(leaf, ModulePath):
            return ModuleRef(self.module.get_submodule(leaf), _join(self.prefix, leaf))
        return leaf

    def _operands(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(self._value(node.args)), dict(self._value(node.kwargs))

    def _placeholder(self, node: fx.Node) -> Any:
        if node.name in self._keywords or node.target in self._keywords:
            return self._keywords.get(str(node.target), self._keywords.get(node.name))
        if self._inputs:
            return self._inputs.pop(0)
        return node.args[0] if node.args else None

    def _get_attr(self, node: fx.Node) -> Any:
        value: Any = self.traced
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value

    def _call_module(self, node: fx.Node) -> Any:
        args, kwargs = self._operands(node)
        target = str(node.target)
        return call(self.ctx, self.traced.get_submodule(target), _join(self.prefix, target), args, kwargs)

    def _call_function(self, node: fx.Node) -> Any:
        function: Any = node.target
        args, kwargs = self._operands(node)
        name = getattr(function, "__name__", str(function))
        return self._apply(node, name, self.ctx.tables.function(function), function, args, kwargs)

    def _call_method(self, node: fx.Node) -> Any:
        name = str(node.target)
        args, kwargs = self._operands(node)
        plain = operator.methodcaller(name, *args[1:], **kwargs)
        return self._apply(node, name, self.ctx.tables.method(name), lambda *_, **__: plain(args[0]), args, kwargs)

    def _apply(
        self,
        node: fx.Node,
        name: str,
        importer: Any,
        plain: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        module = _join(self.prefix, _enclosing(node))
        kind = f"{name}()"
        refusal = self.ctx.tables.refusal(node.target)
        if refusal is None and self.ctx.only_shapes and elementwise.knows(node):
            importer = timing.elementwise_shape
        of_network = contains((args, kwargs), Traced) or contains((args, kwargs), Poison)
        if refusal is None and not of_network and not getattr(importer, "always", False):
            return self._constant(module, name, kind, plain, args, kwargs)
        with self.ctx.at(_join(module, name), module, kind):
            if importer is None or refusal is not None:
                self.ctx.report("cannot be imported", hint=refusal or "`ldsnn ops` lists what there is")
                return POISON
            return guarded(self.ctx, importer, (self.ctx, *args), kwargs)

    def _constant(
        self,
        module: str,
        name: str,
        kind: str,
        plain: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Nothing of the network is in it: the model computes with numbers and shapes, and so do we."""
        try:
            with torch.no_grad():
                return plain(*args, **kwargs)
        except Exception as error:  # the model's own arithmetic failed; say where
            with self.ctx.at(_join(module, name), module, kind):
                self.ctx.report(f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            return POISON


class Scratch:
    """Values of nodes while tracing is still under way, imported into a graph that is thrown away."""

    def __init__(
        self, ctx: Context, module: nn.Module, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._outer = ctx
        self._ctx = Context(ctx.tables, Graph("scratch", ctx.timesteps or 1), ctx.timesteps, ctx.rows)
        self._ctx.only_shapes = True
        attach(self._ctx)
        self._walk = Walk(self._ctx, module, None, path)
        self._walk.given(fx.node.map_aggregate(args, self._copied), fx.node.map_aggregate(dict(kwargs), self._copied))

    def _copied(self, leaf: Any) -> Any:
        if not isinstance(leaf, Traced):
            return leaf
        stream = leaf.value.type
        kind = "static" if stream.timesteps == 1 else "sequence"
        node = self._ctx.graph.add("input", type=stream, time=kind)
        return replace(leaf, value=node.result)

    def value(self, node: fx.Node) -> Any:
        """What a node stands for: a number, a nest of them, a :class:`Traced` or POISON."""
        needed = [node]
        for each in needed:
            needed += [n for n in each.all_input_nodes if n not in self._walk.env and n not in needed]
        placeholders = [n for n in node.graph.nodes if n.op == "placeholder"]
        wanted = {*needed, *placeholders} - self._walk.env.keys()
        for each in node.graph.nodes:
            if each in wanted:
                self._walk.visit(each)
        value = self._walk.env[node]
        if contains(value, Poison):
            self._outer.adopt(self._ctx)
        return value


def _enclosing(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else ""


def _join(*parts: str) -> str:
    return ".".join(p for p in parts if p)
