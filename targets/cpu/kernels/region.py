"""One function per region: a loop over tasks, each adding its sources' currents and scanning its neurons; the tasks are
dealt out to threads unless there is too little to do."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import elementwise, scan, tir
from ldsnn_compiler.targets.cpu.kernels.dense import DenseConv
from ldsnn_compiler.targets.cpu.kernels.event import EventConv, zero_current
from ldsnn_compiler.targets.cpu.kernels.spec import RegionSpec, buffers
from ldsnn_compiler.targets.cpu.kernels.task import Task, steps
from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Channels, Expr
from ldsnn_compiler.targets.cpu.kernels.work import region_ns, worth_threads


def region(spec: RegionSpec) -> Any:
    """The region as a TVM PrimFunc without a global symbol; its arguments are :func:`~.spec.buffers` in order."""
    return tir.function(buffers(spec), lambda found, batch: _tasks(spec, found, batch))


def _tasks(spec: RegionSpec, found: Mapping[str, Buffer], batch: Expr) -> None:
    (height, width), (rows, columns) = spec.space, spec.tuning.tile
    down, across = ceil(height / rows), ceil(width / columns)
    samples: Expr = spec.batch if batch is None else batch
    loop = T.parallel if worth_threads(region_ns(spec), spec.batch) else T.serial
    with loop(samples * (spec.blocks * down * across)) as number:
        sample, block, tile = _place(spec, number, samples, down * across)
        task = Task(
            spec,
            found,
            batch=sample,
            block=block,
            y0=tir.let(tirx.floordiv(tile, across) * rows),
            x0=tir.let(tirx.floormod(tile, across) * columns),
            channels=Channels(spec.channels, spec.block, spec.lanes, block * spec.block),
            currents={
                n: tir.scratch((spec.parts * n, rows * columns, spec.block), spec.accumulator) for n in _rates(spec)
            },
        )
        _currents(task)
        scan.emit(task)


def _current(spec: RegionSpec, steps: int) -> Buffer:
    return tir.scratch((spec.parts * steps, prod(spec.tuning.tile), spec.block), spec.accumulator)


def _place(spec: RegionSpec, number: Expr, samples: Expr, tiles: int) -> tuple[Expr, Expr, Expr]:
    """(sample, block, tile) of a task: neighbours in number are a thread's share."""
    inner = tiles if spec.tuning.outer == "block" else spec.blocks
    first = tir.let(tir.int32(tirx.floormod(number, inner)))
    rest = tirx.floordiv(number, inner)
    if spec.tuning.outer == "block":
        return tir.let(tir.int32(tirx.floormod(rest, samples))), tir.let(tir.int32(tirx.floordiv(rest, samples))), first
    return tir.let(tir.int32(tirx.floordiv(rest, tiles))), first, tir.let(tir.int32(tirx.floormod(rest, tiles)))


def _rates(spec: RegionSpec) -> list[int]:
    return sorted({steps(spec, source) for source in spec.sources}, reverse=True)


def _currents(task: Task) -> None:
    started: set[int] = set()
    for i, source in enumerate(task.spec.sources):
        rate, x, weights = steps(task.spec, source), task.buffers[f"x{i}"], task.buffers.get(f"w{i}")
        is_first = rate not in started
        started.add(rate)
        if is_first and task.spec.parts > 1:
            zero_current(task, source)
            is_first = False
        if source.kind != "conv":
            elementwise.emit(task, source, x, weights, is_first)
            continue
        method = EventConv if task.spec.walks_bits(source) else DenseConv
        method(task, source, x, weights, is_first).emit()
