"""``trace``: a PyTorch SNN becomes a graph."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from ldsnn_compiler.errors import ImportRefused, Problem
from ldsnn_compiler.frontend.context import Context, Refused, TimestepsFound
from ldsnn_compiler.frontend.leaf_tracer import input_names
from ldsnn_compiler.frontend.registry import FrontEnd, Tables, front_ends
from ldsnn_compiler.frontend.state import is_state
from ldsnn_compiler.frontend.timing import running_mean_to_resample
from ldsnn_compiler.frontend.traced import LAYOUTS, POISON, TIME, Poison, Traced
from ldsnn_compiler.frontend.walk import attach, call
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.layouts import BATCH_MAJOR
from ldsnn_compiler.ir.types import Stream

Example = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Reading:
    """How to read the example: ``time`` as :mod:`ldsnn_compiler.ir.layouts` has it; ``stepping``: the model is
    single-step code."""

    time: str
    stepping: bool

    def steps(self, example: torch.Tensor) -> int | None:
        """The timesteps that the example holds, if an axis of its own says so."""
        lead = LAYOUTS[self.time]
        return example.shape[lead.index(TIME)] if TIME in lead else None


READINGS = tuple(Reading(time, stepping) for stepping in (False, True) for time in ("static", "sequence"))
BATCH_MAJOR_READINGS = tuple(Reading(time, False) for time in BATCH_MAJOR)
"""Tried too if the model holds modules of a library that works so."""
LAST_READING = Reading("batch_first", False)
"""Tried if no other one fits: a loop over ``x[:, t]``, an ``x.transpose(0, 1)`` before the network."""


@dataclass(frozen=True)
class Imported:
    """What came of an import: ``graph`` is complete only if ``problems`` is empty."""

    graph: Graph
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def trace(
    model: nn.Module,
    example: Example,
    timesteps: int | None = None,
    *,
    name: str = "net",
    sequence: bool | None = None,
    seed: int = 0,
) -> Graph:
    """Import a spiking network.

    Args:
        model: as in ``eval()``, its neurons as after a reset.
        example: one batch as the model takes it, ``[N, ...]``, ``[T, N, ...]`` or ``[N, T, ...]``, for Sinabs also
            ``[N*T, ...]``, a tuple for several inputs; only its shape matters.
        timesteps: needed if the model does one timestep a call; a static example is then held for that many. A model
            that sets them itself, by repeating its input or by a sequence example, need not be told.
        name: name of the graph.
        sequence: whether the example holds timesteps; None finds out from what the model does with it, and asks if
            both would do.
        seed: of the first Poisson encoder's random numbers, which are our own: they agree with the library's in
            distribution, not sample by sample. Further encoders count up from it.

    Raises:
        ImportRefused: listing everything that cannot be imported.
    """
    result = import_model(model, example, timesteps, name=name, sequence=sequence, seed=seed)
    if result.problems:
        raise ImportRefused(result.problems)
    for note in result.notes:
        warnings.warn(str(note), stacklevel=2)
    return result.graph


def import_model(
    model: nn.Module,
    example: Example,
    timesteps: int | None = None,
    *,
    name: str = "net",
    extra: tuple[FrontEnd, ...] = (),
    sequence: bool | None = None,
    seed: int = 0,
) -> Imported:
    """As :func:`trace`, but problems and notes are returned. ``extra`` tables serve this import only and go first."""
    examples = tuple(example) if isinstance(example, tuple | list) else (example,)
    problems = _check_arguments(model, examples, timesteps)
    if problems:
        return Imported(Graph(name), tuple(problems), ())
    tables = Tables((*extra, *front_ends()), seed)
    readings = (*READINGS, *(BATCH_MAJOR_READINGS if tables.batch_major(model) else (LAST_READING,)))
    readings = tuple(r for r in readings if sequence is None or (r.time != "static") == sequence)
    tried: list[Context] = []
    for reading in readings:
        if reading is LAST_READING and any(not c.problems for c in tried):
            break
        ctx = _import(tables, model, examples, timesteps, reading, name)
        if reading is LAST_READING and ctx is not None and not ctx.problems and not ctx.graph.of("neuron"):
            break  # nothing runs in time: a mean over features is no mean over time
        if ctx is not None:
            tried.append(ctx)
        if ctx is not None and not ctx.problems and not reading.stepping:
            break
    fitting = [c for c in tried if not c.problems]
    if len(fitting) > 1:
        return Imported(Graph(name), (_ambiguous(examples[0]),), ())
    if not tried:
        return Imported(Graph(name), (Problem("cannot be a sequence [T, N, ...]", where="example"),), ())
    best = min(tried, key=lambda c: (bool(c.problems), c.time_problems, -len(c.graph)))
    return Imported(best.graph, tuple(best.problems), tuple(best.notes))


def _ambiguous(example: torch.Tensor) -> Problem:
    shape, hint = tuple(example.shape), "say sequence=True or sequence=False"
    message = f"its shape {shape} may be a batch of {shape[0]} or a sequence of {shape[0]} timesteps"
    return Problem(message, where="example", hint=hint)


def _check_arguments(model: Any, examples: tuple[Any, ...], timesteps: Any) -> list[Problem]:
    problems = []
    if not isinstance(model, nn.Module):
        problems.append(Problem(f"a torch.nn.Module is needed, not {type(model).__name__}", where="the model"))
    for i, example in enumerate(examples):
        if not _is_usable(example):
            is_tensor = isinstance(example, torch.Tensor)
            found = f"{example.dtype} {tuple(example.shape)}" if is_tensor else type(example).__name__
            message = f"a non-empty floating-point tensor with a batch axis is needed, not {found}"
            problems.append(Problem(message, where=f"example {i}"))
    if not examples:
        problems.append(Problem("at least one input is needed", where="example"))
    if timesteps is not None and (not isinstance(timesteps, int) or isinstance(timesteps, bool) or timesteps < 1):
        problems.append(Problem(f"a positive whole number is needed, not {timesteps!r}", where="timesteps"))
    return problems


def _is_usable(example: Any) -> bool:
    return isinstance(example, torch.Tensor) and example.is_floating_point() and example.ndim > 0 and all(example.shape)


def _import(
    tables: Tables,
    model: nn.Module,
    examples: tuple[torch.Tensor, ...],
    timesteps: int | None,
    reading: Reading,
    name: str,
) -> Context | None:
    """One attempt; None if the example cannot be read that way at all."""
    if any(e.ndim < len(LAYOUTS[reading.time]) for e in examples):
        return None
    held = {reading.steps(e) for e in examples}
    told = (reading.stepping and reading.time == "sequence") or (reading is LAST_READING and timesteps is not None)
    if len(held) > 1 or (told and held != {timesteps}):
        return None
    known = held.pop() if timesteps is None else timesteps
    for _ in range(2):
        try:
            return _import_once(tables, model, examples, known, reading, name)
        except TimestepsFound as found:
            known = found.timesteps
    raise AssertionError("the number of timesteps was known")


def _import_once(
    tables: Tables,
    model: nn.Module,
    examples: tuple[torch.Tensor, ...],
    timesteps: int | None,
    reading: Reading,
    name: str,
) -> Context:
    graph = Graph(name, base_timesteps=timesteps or 1)
    ctx = Context(tables, graph, timesteps, examples[0].shape[0] if reading.time == "folded" else None)
    attach(ctx)
    if reading.stepping and timesteps is None:
        ctx.report("does one timestep a call", attribute="timesteps", hint="say how many: timesteps=...", time=True)
        return ctx
    try:
        operands = [
            _input(ctx, n, e, reading) for n, e in zip(input_names(model, len(examples)), examples, strict=True)
        ]
    except Refused:
        return ctx
    result = call(ctx, model, "", tuple(operands), {})
    if reading.time == "folded" and timesteps is None and not ctx.problems:
        ctx.report("nothing says how many timesteps are folded in it", time=True, hint="timesteps=...")
    running_mean_to_resample(ctx)
    outputs = list(_named(result))
    if not outputs:
        ctx.report("returns nothing")
    for output, value in outputs:
        _output(ctx, output, value)
    return ctx


def _input(ctx: Context, name: str, example: torch.Tensor, reading: Reading) -> Traced:
    lead, own = LAYOUTS[reading.time], reading.steps(example)
    with ctx.at(name, "", "input", claim=False):
        if own is not None and own != ctx.timesteps:
            ctx.report(f"holds {own} timesteps, expected {ctx.timesteps}", attribute="timesteps")
            ctx.timesteps = ctx.graph.base_timesteps = own
        if reading.time == "folded" and example.shape[0] % (ctx.timesteps or 1):
            raise ctx.refuse(f"holds {example.shape[0]} rows, no multiple of {ctx.timesteps} timesteps", time=True)
    steps, shape = ctx.timesteps or 1, tuple(example.shape[len(lead) :])
    stream = Stream(1, Fraction(steps), shape) if reading.time == "static" else Stream(steps, Fraction(1), shape)
    node = ctx.graph.add("input", name=name, type=stream, time=reading.time)
    x = Traced(node.result, (*lead, *range(len(stream.shape))))
    if not reading.stepping:
        return x
    if reading.time == "sequence":
        return ctx.each_step(x)
    with ctx.at(name, "", "input", claim=False):
        held = ctx.hold(x.value)
    return Traced(held, x.axes, stepping=True)


def _named(result: Any, name: str = "") -> list[tuple[str, Any]]:
    """Outputs with their names: keys of dicts, fields of named tuples, positions. States are left out."""
    if is_state(result):
        return []
    if isinstance(result, Mapping):
        return [pair for k, v in result.items() for pair in _named(v, f"{name}_{k}" if name else str(k))]
    if isinstance(result, tuple | list):
        keys = getattr(result, "_fields", range(len(result)))
        base = name or "output"
        if isinstance(result, tuple) and len(result) == 2 and is_state(result[1]):
            return _named(result[0], name)
        pairs = [(str(k) if isinstance(k, str) else f"{base}{k}", v) for k, v in zip(keys, result, strict=True)]
        return [pair for k, v in pairs for pair in _named(v, k)]
    return [(name or "output", result)]


def _output(ctx: Context, name: str, value: Any) -> None:
    with ctx.at(name, "", "output", claim=False):
        if isinstance(value, Poison):
            return
        if not isinstance(value, Traced):
            ctx.report(f"is {type(value).__name__}, not a tensor that the network computes", hint="return tensors only")
        elif not value.is_canonical or value.lead not in LAYOUTS.values():
            ctx.report(f"has layout {value}", hint="return [N, ...] or [T, N, ...]", time=True)
        else:
            time = next(name for name, lead in LAYOUTS.items() if lead == value.lead)
            shown = "sequence" if value.stepping else {"static": "squeeze"}.get(time, time)
            ctx.graph.add("output", [value.value], name=name, time=shown)


__all__ = ["POISON", "READINGS", "Imported", "Reading", "import_model", "trace"]
