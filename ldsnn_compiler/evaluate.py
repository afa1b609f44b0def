"""Running networks on data: scores in batches, accuracy, agreement and work as result rows, densities for the
compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.interp.work import WorkCounter
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.layouts import to_caller, to_run
from ldsnn_compiler.pipeline import default_pipeline, parse_pipeline, run_pipeline
from ldsnn_compiler.results import Latency, Row, wilson
from ldsnn_compiler.schedule import Schedule, neuron_layers

if TYPE_CHECKING:
    from ldsnn_compiler.runtime import Compiled

CHUNK = 50
"""Samples that the interpreter, or a network of open batch, is given at a time."""


def user_layout(graph: Graph, x: Tensor) -> Tensor:
    """Samples ``[N, ...]`` as the network's caller passes them, see :mod:`ldsnn_compiler.ir.layouts`.

    Raises:
        LdsnnError: the network has several inputs, or the samples do not have its input's shape.
    """
    if len(graph.inputs) != 1:
        raise LdsnnError(f"data serve networks of one input, this one has {len(graph.inputs)}")
    node = graph.inputs[0]
    static = node["time"] == "static"
    expected = node.type.shape if static else (node.type.timesteps, *node.type.shape)
    if tuple(x.shape[1:]) != expected:
        message = f"samples of shape {tuple(x.shape[1:])} do not fit the network's input {expected}"
        raise LdsnnError(Problem(message, where=node.path or node.name))
    return to_caller(node, as_input(node, x))


def full_layout(graph: Graph, x: Tensor) -> Tensor:
    """Samples ``[N, ...]`` as ``[T, N, *shape]``."""
    return to_run(graph.inputs[0], user_layout(graph, x))


def as_input(node: Node, x: Tensor) -> Tensor:
    """Samples ``[N, ...]`` as float32 ``[T, N, *shape]`` for an input node."""
    return (x[None] if node["time"] == "static" else x.transpose(0, 1)).float()


def scores(output: Any) -> Tensor:
    """Class scores ``[N, classes]`` from what a network answers: the first output, averaged over time if it has any."""
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first if first.ndim == 2 else first.mean(0).flatten(1)


def compiled_scores(compiled: Compiled, x: Tensor) -> Tensor:
    """Scores of all samples ``[N, ...]``; a last batch that is too small is filled up with copies and cut again."""
    size, found = compiled.settings.batch or CHUNK, []
    for part in x.split(size):
        missing = size - len(part) if compiled.settings.batch else 0
        filled = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
        found.append(scores(compiled.run(full_layout(compiled.graph, filled)))[: len(part)])
    return torch.cat(found)


def interpreted(graph: Graph, x: Tensor) -> tuple[Tensor, WorkCounter]:
    """Scores of all samples and the work they took, from the interpreter."""
    interpreter, counter = Interpreter(graph), WorkCounter(graph)
    interpreter.observers.append(counter)
    with torch.no_grad():
        found = [scores(interpreter.run(full_layout(graph, part))) for part in x.split(CHUNK)]
    return torch.cat(found), counter


def row(
    name: str, graph: Graph, given: Tensor, work: WorkCounter | None, labels: Tensor | None,
    reference: Tensor | None = None, latency: Latency | None = None,
) -> Row:  # fmt: skip
    """A result row from scores ``given`` ``[N, classes]``; ``reference`` are the scores that predictions should agree
    with."""
    predicted, layers = given.argmax(1), neuron_layers(graph)
    totals = work.totals() if work is not None else {}
    right = None if labels is None else int((predicted == labels).sum())
    return Row(
        name,
        timesteps={path: node.type.timesteps for path, node in layers.items()},
        levels={path: node.type.signal.levels or 0 for path, node in layers.items()},
        accuracy=None if right is None else right / len(given),
        accuracy_ci95=None if right is None else wilson(right, len(given)),
        agreement=None if reference is None else float((predicted == reference.argmax(1)).float().mean()),
        synaptic_updates=totals.get("synaptic_updates"),
        synaptic_updates_weighted=totals.get("synaptic_updates_weighted"),
        neurons_evaluated=totals.get("neurons_evaluated"),
        sum_timesteps=sum(node.type.timesteps for node in layers.values()),
        latency_ms=None if latency is None else latency.median,
        latency_ms_iqr=None if latency is None else latency.iqr,
    )


def measured_density(graph: Graph, x: Tensor, schedule: Schedule | None = None) -> dict[str, float]:
    """Non-zero share of every value of the graph as it is scheduled, by node name, on samples ``[N, ...]``.

    What :func:`ldsnn_compiler.compile` takes as ``density``: without it, kernels are chosen by a guess.
    """
    from ldsnn_compiler.passes.assign_timesteps import with_schedule

    before_kernels = default_pipeline(stage=graph.stage).partition(",select-kernels")[0]
    scheduled = graph.clone()
    run_pipeline(scheduled, with_schedule(parse_pipeline(before_kernels), schedule))
    return interpreted(scheduled, x)[1].densities()


def module_scores(module: torch.nn.Module, x: Tensor, graph: Graph) -> Tensor:
    """Scores of a PyTorch network that runs all its timesteps in one call, its state reset before each batch.

    ``graph`` is what it was imported to, whose layouts of data are its own.

    Raises:
        LdsnnError: the network itself fails on these samples.
    """
    found, output = [], graph.outputs[0]
    for part in x.split(CHUNK):
        reset(module)
        with at_batch(module, len(part)):
            made = answer(module, user_layout(graph, part))
        first = made[0] if isinstance(made, tuple) else made
        found.append(scores(to_run(output, first, graph.base_timesteps)))
    reset(module)
    return torch.cat(found)


@contextmanager
def at_batch(module: torch.nn.Module, batch: int) -> Iterator[None]:
    """Within, layers that tell time from batch by a batch size of their own (Sinabs' Squeeze forms) use this one."""
    told: list[Any] = [m for m in module.modules() if hasattr(m, "num_timesteps") and getattr(m, "batch_size", -1) > 0]
    before = [m.batch_size for m in told]
    for each in told:
        each.batch_size = batch
    try:
        yield
    finally:
        for each, size in zip(told, before, strict=True):
            each.batch_size = size


def answer(module: torch.nn.Module, x: Tensor) -> Any:
    """What a module gives for ``x``, without gradients; an error of its own becomes an :class:`LdsnnError`."""
    try:
        with torch.no_grad():
            return module(x)
    except Exception as error:  # whatever the user's forward raises
        message = f"fails on data of shape {list(x.shape)}, {type(error).__name__}: {error}"
        raise LdsnnError(Problem(message, where=type(module).__name__)) from error


def reset(module: torch.nn.Module) -> None:
    """Neurons back to their initial state, where a library keeps it in its modules (SpikingJelly, snnTorch, Sinabs)."""
    for each in module.modules():
        for name in ("reset", "reset_mem", "reset_states"):
            method: Callable[[], object] | None = getattr(each, name, None)
            if callable(method) and each is not module:
                method()
                break
