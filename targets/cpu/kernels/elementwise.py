"""Sources that add values pixel by pixel: identity shortcuts and currents computed elsewhere."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ldsnn_compiler.targets.cpu.kernels import tir
from ldsnn_compiler.targets.cpu.kernels.event import zero_current
from ldsnn_compiler.targets.cpu.kernels.spec import WORD, Source, words
from ldsnn_compiler.targets.cpu.kernels.task import Task, steps, summed, unpacked
from ldsnn_compiler.targets.cpu.kernels.tir import Buffer, Expr


def emit(task: Task, source: Source, x: Buffer, scales: Buffer | None, is_first: bool) -> None:
    """``current += scale * value``, summed over the input steps of one step."""
    if is_first:
        zero_current(task, source)
    parts, current, number = summed(task.spec, source), task.current(source), task.spec.accumulator
    with task.pixels() as (y, column, pixel), T.serial(steps(task.spec, source)) as step, T.serial(parts) as part:
        at = task.pixel_number(y, column)
        for v in task.vectors:
            value = task.cast(_value(task, source, x, step * parts + part, at, v), number)
            if source.per_channel or source.scale != 1.0:
                value = tir.fence(value * _scale(task, source, scales, v), task.lanes)
            place = (task.row(source, step), pixel, task.span(v))
            tir.store(current, current[place] + value, *place)


def _scale(task: Task, source: Source, scales: Buffer | None, vector: int) -> Expr:
    if scales is None:
        return tir.const(source.scale, task.lanes, task.spec.accumulator)
    return task.cast(task.channels.load(scales, (), vector * task.lanes), task.spec.accumulator)


def _value(task: Task, source: Source, x: Buffer, time: Expr, at: Expr, vector: int) -> Expr:
    offset, lanes = vector * task.lanes, task.lanes
    if source.form == "dense":
        return task.channels.load(x, (task.batch, time, at), offset)
    total = None
    for k in range(source.planes):
        number = task.block * (task.spec.block // WORD) + offset // WORD
        word = x[task.batch, time, k, at, number]
        if task.spec.blocks * task.spec.block > WORD * words(
            source.channels
        ):  # the last block may reach past the last word
            word = tirx.if_then_else(number < words(source.channels), word, tir.u64(0))
        bits = unpacked(word, offset % WORD, lanes) << tirx.Broadcast(tirx.const(k, "int32"), lanes)
        total = bits if total is None else total + bits
    return total
