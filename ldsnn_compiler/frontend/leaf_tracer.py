"""``torch.fx`` with neurons and library layers as leaves."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.fx as fx
from torch import nn

from ldsnn_compiler.frontend import autograd
from ldsnn_compiler.frontend.context import Context, TimestepsFound
from ldsnn_compiler.frontend.families import selection
from ldsnn_compiler.frontend.registry import ModulePath, Tables
from ldsnn_compiler.frontend.sizes import BatchLoop, Known, PoisonAsked, SizeProxy, iterated, truth
from ldsnn_compiler.frontend.traced import BATCH, Poison, Traced, contains

_ABSENT = object()
_NOT_THE_USERS = tuple(os.path.dirname(p) + os.sep for p in (str(torch.__file__), os.path.dirname(__file__)))


def failed(*operands: Any) -> Any:
    """Stands in a traced graph for a module whose forward could not be traced."""
    return operands


MANY: Final = 64
"""An index so large that it is worth asking whether the loop it is from runs over the batch."""


class LeafTracer(fx.Tracer):
    """Traces a module; one whose forward fails becomes :func:`failed`, and tracing goes on behind it."""

    def __init__(self, ctx: Context, prefix: str, known: Known) -> None:
        super().__init__(autowrap_functions=tuple(getattr(space, name) for space, name in _wrapped(ctx.tables)))
        self.ctx, self.prefix = ctx, prefix
        self._value, self._asking, self.asked = known, False, False
        self._replaced: list[tuple[nn.Module, str, Any]] = []

    def known(self, node: fx.Node) -> Any:
        """What a node stands for, see :mod:`~ldsnn_compiler.frontend.sizes`."""
        self._asking = self.asked = True
        try:
            return self._value(node)
        finally:
            self._asking = False

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Parameters are proxies to the model's forward, not to importers."""
        return attr_val if self._asking else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return SizeProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        """Arguments of recorded calls; modules go by their paths."""
        return ModulePath(self.path_of_module(a)) if isinstance(a, nn.Module) else super().create_arg(a)

    def create_proxy(
        self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *rest: Any, **more: Any
    ) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        if isinstance(proxy, fx.Proxy) and (found := selection(proxy.node)) is not None:
            self._check_index(*found)
        return proxy

    def _check_index(self, node: fx.Node, axis: int, index: int) -> None:
        """Stop a loop over the batch early: it would be as long as the batch, and cannot be imported anyway."""
        if index < MANY and not (node.op == "placeholder" and index > 0):
            return
        value = self.known(node)
        if isinstance(value, Traced) and -len(value.axes) <= axis < len(value.axes) and value.axes[axis] == BATCH:
            raise BatchLoop(f"indexes the batch axis of {value}")
        if isinstance(value, Poison) and index >= MANY:
            raise PoisonAsked

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        return iterated(obj)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return truth(obj)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Every node remembers the line of the user's code, for problems of unrolled loops."""
        node = super().create_node(*args, **kwargs)
        node.meta["line"] = user_line()
        return node

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self.ctx.tables.is_leaf(m) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        stack = dict(self.module_stack)
        try:
            result = super().call_module(m, forward, args, kwargs)
        except TimestepsFound:
            raise
        except Exception as error:  # any error of the user's forward is reported with the module's path
            report_untraceable(self.ctx, _path(self.root, m, self.prefix), m, error)
            self.module_stack.clear()
            self.module_stack.update(stack)
            return self.create_proxy("call_function", failed, (), {})
        if isinstance(result, fx.Proxy):
            self._watch_state(m, result)
        return result

    def _watch_state(self, m: nn.Module, result: fx.Proxy) -> None:
        """Let later reads of the module's state see this call, see :class:`FrontEnd`."""
        for attribute, marker in self.ctx.tables.state(type(m)).items():
            self._replaced.append((m, attribute, get_state(m, attribute)))
            put_state(m, attribute, self.create_proxy("call_function", marker, (result,), {}))

    def restore(self) -> None:
        """Give every watched module its own state back."""
        for module, attribute, value in reversed(self._replaced):
            put_state(module, attribute, value)
        self._replaced.clear()


def user_line() -> str:
    """``file.py:12``: the innermost line being run that is neither torch's nor ours."""
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((*_NOT_THE_USERS, "<")):
            return f"{os.path.basename(name)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def get_state(module: nn.Module, attribute: str) -> Any:
    """A state attribute wherever the module keeps it."""
    return getattr(module, attribute, _ABSENT)


def put_state(module: nn.Module, attribute: str, value: Any) -> None:
    """Set a state attribute, a registered buffer included; buffers normally take tensors only."""
    if attribute in module._buffers:
        module._buffers[attribute] = value
    elif value is _ABSENT:
        delattr(module, attribute)
    else:
        setattr(module, attribute, value)


def trace_module(
    ctx: Context, module: nn.Module, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], known: Known
) -> fx.GraphModule | None:
    """The module's forward as an fx graph, dead state reads removed; None after reporting why not.

    ``known`` gives the value of a node as far as it is traced, see :mod:`~ldsnn_compiler.frontend.sizes`.
    """
    key = (id(module), path, len(args), tuple(kwargs))
    if key in ctx.tables.traced:
        return fx.GraphModule(module, copied(ctx.tables.traced[key]))
    tracer, problems = LeafTracer(ctx, path, known), len(ctx.problems)
    attributes = [(m, dict(vars(m))) for m in module.modules()]
    try:
        defaults = _defaults(module, len(args), kwargs)
        with _recorded(tracer, ctx.tables), autograd.followed():
            graph = tracer.trace(module, concrete_args=defaults or None)
    except TimestepsFound:
        raise
    except Exception as error:  # any error of the user's forward is reported with the module's path
        report_untraceable(ctx, path, module, error)
        return None
    finally:
        tracer.restore()
        for each, before in attributes:
            _forget(each, before)
    markers = {marker for part in ctx.tables.parts for table in part.state.values() for marker in table.values()}
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and node.target in markers and not node.users:
            graph.erase_node(node)
    if not tracer.asked and len(ctx.problems) == problems:
        ctx.tables.traced[key] = copied(graph)
    return fx.GraphModule(module, graph)


def _forget(module: nn.Module, before: Mapping[str, Any]) -> None:
    """Give attributes back what they held: a forward that keeps its state in them has left proxies there."""
    for name, value in list(vars(module).items()):
        if not contains(value, fx.Proxy):
            continue
        if name in before:
            vars(module)[name] = before[name]
        else:
            del vars(module)[name]


def copied(graph: fx.Graph) -> fx.Graph:
    """The same graph with nodes of its own."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    return copy


def report_untraceable(ctx: Context, path: str, module: nn.Module, error: Exception) -> None:
    """Report a forward that ``torch.fx`` cannot follow, or that fails by itself."""
    if isinstance(error, PoisonAsked) and ctx.problems:
        return
    text = str(error).strip().splitlines()
    cause = text[0] if text else type(error).__name__
    with ctx.at(path, path, type(module).__name__, claim=False):
        if isinstance(error, BatchLoop):
            ctx.report(cause, time=True, hint="loop over time, of [T, N, ...] or [N, T, ...]")
            return
        ctx.report(
            f"its forward cannot be traced: {cause}",
            attribute="forward",
            hint="write it without branching on tensor values or iterating over a tensor, with sizes known beforehand",
        )


def _defaults(module: nn.Module, given: int, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of forward that the call leaves at their defaults."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    rest = [p for p in parameters[given:] if p.name not in kwargs]
    return {p.name: p.default for p in rest if p.default is not inspect.Parameter.empty}


def _wrapped(tables: Tables) -> list[tuple[Any, str]]:
    return [pair for part in tables.parts for pair in part.wrapped]


@contextmanager
def _recorded(tracer: fx.Tracer, tables: Tables) -> Iterator[None]:
    """Within, the tables' wrapped functions are recorded when called through their namespace, not traced into."""
    originals = [(space, name, getattr(space, name)) for space, name in _wrapped(tables)]
    for space, name, original in originals:
        setattr(space, name, _recorder(tracer, original))
    try:
        yield
    finally:
        for space, name, original in originals:
            setattr(space, name, original)


def _recorder(tracer: fx.Tracer, original: Callable[..., Any]) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(a, fx.Proxy) for a in (*args, *kwargs.values())):
            return tracer.create_proxy("call_function", original, args, kwargs)
        return original(*args, **kwargs)

    return record


def _path(root: nn.Module, module: nn.Module, prefix: str) -> str:
    name = next((n for n, m in root.named_modules() if m is module), "")
    return ".".join(p for p in (prefix, name) if p)


def input_names(module: nn.Module, count: int) -> list[str]:
    """Names of the first ``count`` inputs of a module's forward."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind in kinds][:count]
    return [*names, *(f"input{i}" for i in range(len(names), count))]
