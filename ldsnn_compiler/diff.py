"""Where does a graph part from the model it came from? Layer by layer, on the same input, the first that diverges is
named.

The model's modules are watched with forward hooks, the graph's nodes with the interpreter; module paths bring them
together. A module may give all timesteps in one call (``[T, N, ...]`` or ``[T * N, ...]``, the batch first where the
graph's input has it first) or one a call; a node may have fewer timesteps than its module, in which case the model's
values are averaged over each of the node's steps. A network of whole numbers is compared in the units of the network
that it was made from (:mod:`ldsnn_compiler.whole_diff`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.evaluate import answer, at_batch, reset
from ldsnn_compiler.interp.module import Data, Interpreter
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.layouts import BATCH_MAJOR, to_run
from ldsnn_compiler.ir.ops.time import resample_weights

if TYPE_CHECKING:
    from ldsnn_compiler.whole_diff import Origin

TOLERANCE = 1e-4
"""Real values diverge if they differ by more than this, relative to the layer's largest value; event counts may not
differ."""


@dataclass(frozen=True)
class LayerDiff:
    """One layer; ``timesteps`` of the module and of the node. ``why`` says why the two could not be compared, if so.

    ``quantised``: of a layer of whole numbers, how many of all its numbers differ from those of the same layer in real
    numbers, at the same timesteps.
    """

    path: str
    op: str
    timesteps: tuple[int, int]
    numbers: int = 0
    differing: int = 0
    largest: float = 0.0
    diverges: bool = False
    why: str = ""
    quantised: int | None = None

    @property
    def agreement(self) -> float:
        """The share of numbers that do not differ; 0 of layers that could not be compared."""
        return 1.0 - self.differing / self.numbers if self.numbers else 0.0


def diff(
    graph: Graph, module: nn.Module, x: Tensor, *, tolerance: float = TOLERANCE, stepping: bool = False,
    origin: Origin | None = None,
) -> tuple[LayerDiff, ...]:  # fmt: skip
    """Compare ``graph`` with ``module`` on ``x`` (as the module takes it), in graph order, the outputs last.

    A traced graph is compared at every layer; once passes have folded one layer into another, only neurons and outputs
    still mean what they meant in the model, and the others are left out. ``stepping``: the module does one timestep a
    call. ``origin``: what a graph of whole numbers was made from.

    Raises:
        LdsnnError: the model has not the graph's outputs, or fails on the data; whole numbers without an origin, or
            with one of other layers.
    """
    if graph.numerics == "int" and origin is None:
        raise LdsnnError(Problem("holds whole numbers and not what they stand for", graph.name))
    reset(module)
    shown = graph if origin is None else origin.graph
    nodes = [n for n in shown.nodes if n.path and (n.op.name == "neuron" or shown.stage == "traced")]
    run = to_run(graph.inputs[0], x)
    with at_batch(module, run.shape[1] if run.ndim > 1 else 1):
        given, outputs = _watch_module(module, {_module_path(n) for n in nodes}, x, graph, stepping)
    seen, results = _watch_graph(graph, run)
    if origin is not None:
        seen = origin.in_units(graph, seen)
    batch_major = graph.inputs[0]["time"] in BATCH_MAJOR
    nodes = [n for n in nodes if _module_path(n) in given and n.name in seen]
    found = [_layer(n, seen[n.name], given, nodes, tolerance, batch_major) for n in nodes]
    if len(outputs) != len(results):
        raise LdsnnError(f"the model gives {len(outputs)} outputs, the graph has {len(results)}")
    pairs = zip(shown.outputs, outputs, results, strict=True)
    found += [_compare(n.name, n, model, mine, tolerance) for n, model, mine in pairs]
    if origin is None:
        return tuple(found)
    real, answers = _watch_graph(shown, run)
    streams = [(real[n.name], seen[n.name]) for n in nodes] + list(zip(answers, results, strict=True))
    changed = [_differing(n, a, b, tolerance) for n, (a, b) in zip((*nodes, *shown.outputs), streams, strict=True)]
    return tuple(replace(layer, quantised=count) for layer, count in zip(found, changed, strict=True))


def first_divergence(layers: Iterable[LayerDiff]) -> LayerDiff | None:
    """The first layer that diverges, or None."""
    return next((layer for layer in layers if layer.diverges), None)


def _module_path(node: Node) -> str:
    return node.path.partition("#")[0]


def _watch_graph(graph: Graph, run: Tensor) -> tuple[dict[str, Tensor], Data]:
    seen: dict[str, Tensor] = {}
    interpreter = Interpreter(graph)
    interpreter.observers.append(lambda node, _inputs, outs: seen.update({node.name: outs[0]} if outs else {}))
    with torch.no_grad():
        results = interpreter.run(run)
    return seen, results


def _watch_module(
    module: nn.Module, paths: set[str], x: Tensor, graph: Graph, stepping: bool
) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """Every call's output of the named modules, and the model's own outputs as ``[T, N, *shape]``."""
    named = dict(module.named_modules())
    calls: dict[str, list[Tensor]] = {p: [] for p in paths if p in named}

    def keep(store: list[Tensor]) -> Callable[..., None]:
        return lambda _module, _inputs, out: store.append(_first(out))

    hooks = [named[p].register_forward_hook(keep(store)) for p, store in calls.items()]
    try:
        made = _run(module, x, graph, stepping)
    finally:
        for hook in hooks:
            hook.remove()
    return {p: store for p, store in calls.items() if store}, made


def _run(module: nn.Module, x: Tensor, graph: Graph, stepping: bool) -> list[Tensor]:
    if not stepping:
        made = list(_flat(answer(module, x)))
        shown = zip(graph.outputs, made, strict=False)
        return [to_run(n, y, graph.base_timesteps) for n, y in shown] + made[len(graph.outputs) :]
    static = graph.inputs[0]["time"] == "static"
    steps = [list(_flat(answer(module, x if static else x[t]))) for t in range(graph.base_timesteps)]
    return [torch.stack(parts) for parts in zip(*steps, strict=True)]


def _flat(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _flat(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _flat(part)


def _first(out: Any) -> Tensor:
    value = next(iter(_flat(out)), None)
    if value is None:
        raise LdsnnError("a module of the model gives no tensor, so it cannot be compared")
    return value


def _layer(
    node: Node, mine: Tensor, given: dict[str, list[Tensor]], nodes: Sequence[Node], tolerance: float, batch_major: bool
) -> LayerDiff:
    path = _module_path(node)
    same = [n for n in nodes if _module_path(n) == path]
    model = _as_stream(given[path], same.index(node), len(same), mine, batch_major)
    if model is None:
        shapes = f"{[list(c.shape) for c in given[path][:2]]}"
        why = f"the module gave {len(given[path])} outputs, such as {shapes}, the graph has {list(mine.shape)}"
        return LayerDiff(node.path, node.op.name, (len(given[path]), mine.shape[0]), why=why)
    return _compare(node.path, node, model, mine, tolerance)


def _as_stream(calls: list[Tensor], use: int, uses: int, like: Tensor, batch_major: bool) -> Tensor | None:
    """The calls that belong to one use of a module, as ``[T, N, *shape]``; None if they do not look like its node."""
    shape, batch = tuple(like.shape[2:]), like.shape[1]
    mine = calls[use::uses]
    if len(mine) > 1:
        return torch.stack(mine) if tuple(mine[0].shape) == (batch, *shape) else None
    value = mine[0] if mine else None
    if value is None:
        return None
    if tuple(value.shape) == (batch, *shape):
        return value[None]
    if batch_major and tuple(value.shape[:1] + value.shape[2:]) == (batch, *shape):
        return value.transpose(0, 1)
    if not batch_major and tuple(value.shape[1:]) == (batch, *shape):
        return value
    if tuple(value.shape[1:]) == shape and value.shape[0] % batch == 0:
        return value.reshape(batch, -1, *shape).transpose(0, 1) if batch_major else value.reshape(-1, batch, *shape)
    return None


def _compare(path: str, node: Node, model: Tensor, mine: Tensor, tolerance: float) -> LayerDiff:
    times = (model.shape[0], mine.shape[0])
    if model.shape[1:] != mine.shape[1:]:
        why = f"the model gives {list(model.shape)}, the graph {list(mine.shape)}"
        return LayerDiff(path, node.op.name, times, diverges=True, why=why)
    distance = (_averaged(model, min(times)) - _averaged(mine, min(times))).abs()
    differing = _differing(node, model, mine, tolerance)
    return LayerDiff(path, node.op.name, times, distance.numel(), differing, float(distance.max()), differing > 0)


def _differing(node: Node, model: Tensor, mine: Tensor, tolerance: float) -> int:
    """How many numbers of two streams of a node differ, both averaged over the fewer timesteps."""
    times = (model.shape[0], mine.shape[0])
    a, b = (_averaged(v, min(times)) for v in (model, mine))
    scale = max(float(a.abs().max()), float(b.abs().max()), 1e-30)
    signal = node.type.signal if node.results else node.operands[0].type.signal
    bound = signal.unit * 1e-3 / max(times) if signal.is_event else tolerance * scale
    return int(((a != b) & ~((a - b).abs() <= bound)).sum())  # a NaN differs


def _averaged(value: Tensor, timesteps: int) -> Tensor:
    if value.shape[0] == timesteps:
        return value
    averaged: Tensor = torch.tensordot(resample_weights(value.shape[0], timesteps), value, dims=1)
    return averaged
