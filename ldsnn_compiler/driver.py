"""The compiler as one call: passes, lowering, code, and the network that runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.integers import Calibration
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.verify import check_stable
from ldsnn_compiler.passes.assign_timesteps import with_schedule
from ldsnn_compiler.passes.quantize import with_numerics
from ldsnn_compiler.pipeline import (
    Instrument,
    Pass,
    default_pipeline,
    parse_pipeline,
    pipeline_text,
    run_pipeline,
)
from ldsnn_compiler.runtime import threads as thread_pool
from ldsnn_compiler.runtime.compiled import ENTRIES, Compiled, Settings
from ldsnn_compiler.runtime.device import Device
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.targets.boards import Board, board, boards
from ldsnn_compiler.targets.build import build
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Plan

if TYPE_CHECKING:
    from ldsnn_compiler.targets.c import CBundle

#: what happens to a traced graph; ``assign-timesteps`` takes the schedule, ``select-kernels`` target and densities
DEFAULT_PIPELINE = default_pipeline()

Progress = Callable[[str, float], None]


def _silent(what: str, share: float) -> None:
    """Progress that nobody wants to hear of."""


def _building(progress: Progress) -> Callable[[str, int, int], None]:
    """Progress of building, which counts functions, as a part of the whole."""
    return lambda what, done, total: progress(what, 0.1 + 0.5 * done / total)


def compile(
    graph: Graph,
    schedule: Schedule | str | Path | None = None,
    target: str | Board = "native",
    *,
    batch: int | None = 1,
    threads: int | None = None,
    pipeline: str | None = None,
    density: Mapping[str, float] | None = None,
    numerics: str | None = None,
    calibration: Calibration | str | Path | None = None,
    weight_bits: int | None = None,
    instruments: Sequence[Instrument] = (),
    progress: Progress | None = None,
    tuned: bool | Path = True,
) -> Compiled:
    """Compile a copy of ``graph`` for ``target``; the graph itself stays as it is.

    ``batch`` None leaves it open until run time. ``threads`` defaults to the board's cores. ``pipeline`` replaces
    :data:`DEFAULT_PIPELINE`, of which a graph that is scheduled or placed already takes the rest; passes named
    ``assign-timesteps`` and ``select-kernels`` in it get ``schedule``, ``target`` and ``density`` where their text
    leaves them out. ``density`` is the measured non-zero share of values by node name or module path.
    ``numerics`` ``int`` turns the network into one of whole numbers, ``weight_bits`` (default 8) a weight, by a
    ``quantize`` pass before ``select-kernels`` unless the pipeline has one; ``calibration`` tells it the ranges of real
    inputs.
    ``progress(what, share)`` is called as the compilation goes on, share from 0 to 1.
    ``tuned`` says whether loop structures that :func:`ldsnn_compiler.tune` has measured on this board are used, or in
    which database they are; they change no result.
    """
    prepared = prepare(
        graph, schedule, target, batch=batch, threads=threads, pipeline=pipeline, density=density, numerics=numerics,
        calibration=calibration, weight_bits=weight_bits, instruments=instruments, progress=progress, tuned=tuned,
    )  # fmt: skip
    return assemble(prepared.graph, prepared.settings, prepared.seconds, progress or _silent)


def compile_c(
    graph: Graph,
    schedule: Schedule | str | Path | None = None,
    target: str | Board = "native",
    *,
    name: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> CBundle:
    """Compile to plain C, on one core: objects and sources that need no run time (:mod:`ldsnn_compiler.targets.c`).

    ``name`` (default: the graph's) begins all names in C. ``options`` are those of :func:`compile`; the batch is fixed.
    """
    from ldsnn_compiler.targets.c import c_bundle, checked_batch

    checked_batch(board(target), options.get("batch", 1))  # before the long work
    prepared = prepare(graph, schedule, target, progress=progress, **{**options, "threads": 1})
    tell = _building(progress or _silent)
    return c_bundle(prepared.graph, prepared.settings, prepared.seconds, tell, name)


@dataclass(frozen=True)
class Prepared:
    """A graph that has been through the passes, how, and the seconds that this took."""

    graph: Graph
    settings: Settings
    seconds: Mapping[str, float]


def prepare(
    graph: Graph,
    schedule: Schedule | str | Path | None = None,
    target: str | Board = "native",
    *,
    batch: int | None = 1,
    threads: int | None = None,
    pipeline: str | None = None,
    density: Mapping[str, float] | None = None,
    numerics: str | None = None,
    calibration: Calibration | str | Path | None = None,
    weight_bits: int | None = None,
    instruments: Sequence[Instrument] = (),
    progress: Progress | None = None,
    tuned: bool | Path = True,
) -> Prepared:
    """What :func:`compile` does before there is code, with its options: the passes, on a copy of the graph."""
    if batch is not None and batch < 1:
        raise LdsnnError(f"a batch is at least 1 (None leaves it open), not {batch}")
    if threads is not None and threads < 1:
        raise LdsnnError(f"a network runs on at least one thread, not {threads}")
    check_stable(graph)
    machine = board(target)
    here = machine.cores if machine.is_foreign else min(machine.cores, thread_pool.available())
    machine = replace(machine, cores=threads or here)
    chosen = Schedule.read(schedule) if isinstance(schedule, str | Path) else schedule
    usual = default_pipeline(stage=graph.stage)
    given = with_schedule(parse_pipeline(usual if pipeline is None else pipeline), chosen)
    given = with_numerics(given, graph, numerics, calibration, weight_bits)
    passes = [_completed(p, machine, density, batch) for p in given]
    started = perf_counter()
    (progress or _silent)("passes", 0.0)
    lowered = run_pipeline(graph.clone(), passes, instruments)
    text = None if chosen is None else chosen.text()
    tunings = _tunings(lowered, machine, batch, density, tuned)
    settings = Settings(machine, batch, machine.cores, lowered.numerics, pipeline_text(passes), text, tunings)
    return Prepared(lowered, settings, {"passes": round(perf_counter() - started, 3)})


def assemble(
    graph: Graph,
    settings: Settings,
    seconds: Mapping[str, float] = MappingProxyType({}),
    progress: Progress = _silent,
    device: Device | None = None,
) -> Compiled:
    """Lower and build a graph that has been through the passes. ``seconds`` are those spent before, for the report."""
    started = perf_counter()
    plans = [plan(graph, settings.board, entry, settings.tunings) for entry in ENTRIES]
    module = build(plans, settings.board, settings.batch, settings.threads, _building(progress))
    taken = {**seconds, "lower_and_build": round(perf_counter() - started, 3)}
    progress("loading", 0.95)
    library = Library(module, board=settings.board)
    compiled = Compiled(graph, settings, library, _report(graph, plans, taken, settings.tunings), device)
    progress("done", 1.0)
    return compiled


def _tunings(
    graph: Graph, machine: Board, batch: int | None, density: Mapping[str, float] | None, tuned: bool | Path
) -> dict[str, Any]:
    from ldsnn_compiler.tuning.regions import known_tunings

    return known_tunings(graph, machine, batch, density, None if tuned is True else tuned) if tuned else {}


def _completed(each: Pass, machine: Board, density: Mapping[str, float] | None, batch: int | None) -> Pass:
    """The pass with what the caller of :func:`compile` gave, where its own text leaves that out."""
    if each.name == "select-kernels":
        values: dict[str, Any] = {}
        if getattr(each, "target", "") is None:
            known = boards().get(machine.name)
            is_known = known is not None and replace(known, cores=machine.cores) == machine
            values["target"] = machine.name if is_known else json.dumps(machine.to_json())
        if density is not None and getattr(each, "density", "") is None:
            values["density"] = json.dumps(dict(sorted(density.items())))
        if machine.gpu is not None and batch is not None and getattr(each, "batch", batch) is None:
            values["batch"] = batch
        return replace(each, **values)
    return each


def _report(
    graph: Graph, plans: Sequence[Plan], seconds: Mapping[str, float], tunings: Mapping[str, Any]
) -> dict[str, Any]:
    run = plans[0]
    return {
        "compile_seconds": dict(seconds),
        "kernels": len({k.key for p in plans for k in p.kernels}),
        "calls": [{"name": k.name, "nodes": list(k.nodes)} for k in run.kernels],
        "tuned_regions": len(tunings),
        "argument_bytes": sum(v.numel() * v.element_size() for v in graph.tensors.values()),
    }
