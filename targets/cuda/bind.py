"""Threads for functions that were not written for them: tensor expressions, and copies between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ldsnn_compiler.targets.emitting import THREADS


def scheduled(function: Any) -> Any:
    """Every stage of a tensor expression a kernel of its own: a thread per element, reductions inside it."""
    from tvm import s_tir

    schedule = s_tir.Schedule(function)
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        _bind(schedule, block)
    return schedule.mod["main"].with_attr("tirx.is_scheduled", True)


def _bind(schedule: Any, block: Any) -> None:
    loops = schedule.get_loops(block)
    reduces = [it.iter_type == it.CommReduce for it in schedule.get(block).iter_vars]
    outer = [loop for loop, reduce in zip(loops, reduces, strict=True) if not reduce]
    inner = [loop for loop, reduce in zip(loops, reduces, strict=True) if reduce]
    if not outer:
        outer = [schedule.add_unit_loop(inner[0] if inner else block)]
    elif inner:
        schedule.reorder(*outer, *inner)
    blocks, threads = schedule.split(schedule.fuse(*outer), [None, THREADS])
    schedule.bind(blocks, "blockIdx.x")
    schedule.bind(threads, "threadIdx.x")


def nest(loops: Sequence[tuple[Any, Any]], body: Any) -> Any:
    """Independent loops ``(variable, extent)`` around ``body`` as one kernel, a thread per turn.

    Variables are int32 where the extent is a number, int64 where it is an expression.
    """
    from tvm import tirx

    total: Any = tirx.const(1, "int64")
    for _, extent in loops:
        total = total * extent
    block, thread = tirx.Var("block", "int64"), tirx.Var("thread", "int64")
    flat = block * THREADS + thread
    rest, bound = flat, []
    for variable, extent in reversed(loops):
        is_known = isinstance(extent, int) or hasattr(extent, "value")
        turn = tirx.floormod(rest, extent)
        bound.append(tirx.Bind(variable, tirx.Cast("int32", turn) if is_known else turn))
        rest = tirx.floordiv(rest, extent)
    inside = tirx.IfThenElse(flat < total, tirx.SeqStmt([*bound, body]), None)
    threads = _bound(thread, tirx.const(THREADS, "int64"), "threadIdx.x", inside)
    return _bound(block, tirx.floordiv(total + (THREADS - 1), THREADS), "blockIdx.x", threads)


def _bound(variable: Any, extent: Any, thread: str, body: Any) -> Any:
    from tvm import tirx

    axis = tirx.IterVar(None, tirx.Var(thread, "int64"), tirx.IterVar.ThreadIndex, thread)
    return tirx.For(variable, tirx.const(0, "int64"), extent, tirx.ForKind.THREAD_BINDING, body, axis)
