"""GPU kernels on a CPU: threads become loops, and a barrier ends the loop over threads before it.

That is right where barriers stand directly in a block's body, so that all threads meet them, and where nothing private
to a thread lives across one; other functions are refused. What is run is the very TIR that becomes CUDA.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.targets.boards import Board


def emulated(board: Board) -> Board:
    """The board with its GPU's kernels run on the CPU of this machine."""
    if board.gpu is None:
        raise LdsnnError(f"{board.name} has no GPU to emulate")
    return replace(board, name=f"emulated-{board.name}", gpu=replace(board.gpu, emulated=True))


def on_cpu(function: Any) -> Any:
    """The PrimFunc with its blocks and threads as serial loops."""
    import tvm
    from tvm import tirx

    symbol = function.attrs.get("global_symbol") if function.attrs else None
    rebuilt = function.with_body(_rebuilt(function.body)).with_attr("global_symbol", "main")
    done = tirx.transform.ConvertSSA()(tvm.IRModule({"main": rebuilt}))["main"]
    return done.with_attr("global_symbol", symbol) if symbol else done.without_attr("global_symbol")


def _rebuilt(stmt: Any) -> Any:
    """The statement with loops in the place of threads, all the way down."""
    from tvm import s_tir, tirx

    if isinstance(stmt, tirx.SeqStmt):
        return tirx.SeqStmt([_rebuilt(s) for s in stmt])
    if isinstance(stmt, s_tir.SBlockRealize):
        block = stmt.block
        inside = s_tir.SBlock(
            block.iter_vars, block.reads, block.writes, block.name_hint, _rebuilt(block.body), block.init,
            block.alloc_buffers, block.match_buffers, block.annotations,
        )  # fmt: skip
        return s_tir.SBlockRealize(stmt.iter_values, stmt.predicate, inside)
    if isinstance(stmt, tirx.For):
        return _loop(stmt)
    if _is_barrier(stmt):
        raise LdsnnError("a barrier that stands inside a condition or a loop cannot be emulated")
    if isinstance(stmt, tirx.IfThenElse):
        otherwise = _rebuilt(stmt.else_case) if stmt.else_case is not None else None
        return tirx.IfThenElse(stmt.condition, _rebuilt(stmt.then_case), otherwise)
    return stmt


def _loop(loop: Any) -> Any:
    from tvm import tirx

    if loop.kind != tirx.ForKind.THREAD_BINDING:
        return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, _rebuilt(loop.body), None, loop.annotations)
    is_thread = loop.thread_binding.thread_tag.startswith("threadIdx")
    phases = _phases(loop.body) if is_thread else [loop.body]
    loops = [tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, _rebuilt(p)) for p in phases]
    return loops[0] if len(loops) == 1 else tirx.SeqStmt(loops)


def _phases(body: Any) -> list[Any]:
    """What stands between barriers, each part with the bindings made before it."""
    from tvm import tirx

    if not isinstance(body, tirx.SeqStmt):
        return [body]
    bound: list[Any] = []
    phases: list[list[Any]] = [[]]
    for stmt in body:
        if _is_barrier(stmt):
            phases.append(list(bound))
            continue
        phases[-1].append(stmt)
        if isinstance(stmt, tirx.Bind):
            bound.append(stmt)
    return [tirx.SeqStmt(p) if len(p) > 1 else p[0] for p in phases]


def _is_barrier(stmt: Any) -> bool:
    from tvm import tirx

    operator = getattr(stmt.value, "op", None) if isinstance(stmt, tirx.Evaluate) else None
    return getattr(operator, "name", "") == "tirx.tvm_storage_sync"
