"""GPU kernels on a CPU: threads become loops. What is run is the very TIR that becomes CUDA.

A block's threads go through its statements together: what stands between two barriers is one loop over the threads,
and so is what stands between two statements that a warp executes together, the multiplications of matrices. Serial
loops with such statements inside stay outside the loops over threads. What a thread keeps from one of its loops to a
later one gets a place for every thread; names that only indices stand for are computed again. That is right where all
threads meet a barrier: in conditions and in loops that end differently for different threads it is refused.

Device functions are replaced by their plain bodies (:mod:`~.device`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.cuda import device

Stmt = Any
Buffer = Any


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
    rebuilt = function.with_body(_plain(_rebuilt(function.body, []))).with_attr("global_symbol", "main")
    done = tirx.transform.ConvertSSA()(tvm.IRModule({"main": rebuilt}))["main"]
    return done.with_attr("global_symbol", symbol) if symbol else done.without_attr("global_symbol")


def _rebuilt(stmt: Stmt, kept: list[Buffer]) -> Stmt:
    """The statement with loops in the place of threads; memory that this takes is added to ``kept``."""
    from tvm import s_tir, tirx

    if isinstance(stmt, tirx.SeqStmt):
        return tirx.SeqStmt([_rebuilt(s, kept) for s in stmt])
    if isinstance(stmt, s_tir.SBlockRealize):
        block, own = stmt.block, list[Buffer]()
        body = _rebuilt(block.body, own)
        inside = s_tir.SBlock(
            block.iter_vars, block.reads, block.writes, block.name_hint, body, block.init,
            [*block.alloc_buffers, *own], block.match_buffers, block.annotations,
        )  # fmt: skip
        return s_tir.SBlockRealize(stmt.iter_values, stmt.predicate, inside)
    if not isinstance(stmt, tirx.For):
        return stmt
    if stmt.kind != tirx.ForKind.THREAD_BINDING:
        return _loop(stmt, _rebuilt(stmt.body, kept))
    if stmt.thread_binding.thread_tag.startswith("threadIdx"):
        return _Threads(stmt, kept).loops()
    return _loop(stmt, _rebuilt(stmt.body, kept))


def _plain(body: Stmt) -> Stmt:
    """The body with what device functions stand for in their place, and loops that no register's number asks to be
    unrolled."""
    from tvm import tirx
    from tvm.ir import Call
    from tvm_ffi import structural_map

    def replaced(call: Any) -> Any:
        if getattr(call.op, "name", "") != "tirx.call_pure_extern" or call.args[0].value not in device.FUNCTIONS:
            return call
        return device.FUNCTIONS[call.args[0].value].plain(*call.args[1:])

    def kept(loop: Stmt) -> Stmt:
        return _loop(loop, loop.body) if loop.kind == tirx.ForKind.UNROLLED else loop

    return structural_map(body, ((Call, replaced), (tirx.For, kept)))


class _Threads:
    """The loop over a block's threads, cut where they wait for each other; what they keep is in memory that goes to
    ``kept``."""

    def __init__(self, loop: Stmt, kept: list[Buffer]) -> None:
        self.loop, self.kept = loop, kept
        self.wide: dict[Buffer, Buffer] = {}
        self.seen: set[Buffer] = set()

    def loops(self) -> Stmt:
        """Loops over threads one after the other, and the loops that these stand in."""
        cut = self._cut(self.loop.body, [], is_repeated=False)
        return _sequence([self._widened(stmt) for stmt in cut])

    def _cut(self, body: Stmt, bound: Sequence[Stmt], is_repeated: bool) -> list[Stmt]:
        """``bound``: the names that indices before it have; ``is_repeated``: it stands in a loop of all threads."""
        done, known, open_ = list[Stmt](), list(bound), list[Stmt]()
        for stmt in [*_statements(body), None]:
            if stmt is not None and not _waits(stmt):
                open_.append(stmt)
                continue
            done += self._of_each(known, open_, is_repeated)
            known, open_ = [*known, *(s for s in open_ if _names_an_index(s))], []
            if stmt is not None:
                done += self._of_all(stmt, known)
        return done

    def _of_each(self, bound: Sequence[Stmt], stmts: Sequence[Stmt], is_repeated: bool) -> list[Stmt]:
        """One loop over the threads. What they keep for another loop, or for its next turn, is widened."""
        from tvm import tirx

        if all(isinstance(s, tirx.Bind) for s in stmts):
            return []
        private = {b for s in stmts for b in _buffers(s) if b.scope() == "local"}
        for buffer in private if is_repeated else private & self.seen:
            self._widen(buffer)
        self.seen |= private
        return [_loop(self.loop, _sequence([*bound, *stmts]))]

    def _of_all(self, stmt: Stmt, bound: Sequence[Stmt]) -> list[Stmt]:
        """A statement that all threads of a warp or block execute together."""
        from tvm import tirx

        if _is_barrier(stmt):
            return []
        if _multiplication(stmt):
            for buffer in _buffers(stmt):
                self._widen(buffer)
            return [stmt]
        is_known = isinstance(stmt, tirx.For) and all(hasattr(n, "value") for n in (stmt.min, stmt.extent))
        if not is_known or stmt.kind == tirx.ForKind.THREAD_BINDING:
            raise LdsnnError("a barrier inside a condition or a loop of unknown length cannot be emulated")
        return [_loop(stmt, _sequence(self._cut(stmt.body, bound, is_repeated=True)))]

    # ---- what threads keep

    def _widen(self, buffer: Buffer) -> None:
        from tvm import tirx

        if buffer not in self.wide:
            shape = (self.loop.extent, *buffer.shape)
            self.wide[buffer] = tirx.decl_buffer(shape, buffer.dtype, buffer.name, layout=None)
            self.kept.append(self.wide[buffer])

    def _widened(self, stmt: Stmt) -> Stmt:
        """With a place for every thread in what they keep, and multiplications as what they stand for."""
        from tvm import tirx

        if isinstance(stmt, tirx.SeqStmt):
            return _sequence([self._widened(s) for s in stmt])
        if how := _multiplication(stmt):
            return self._multiplied(how, stmt.value)
        assert isinstance(stmt, tirx.For)
        if stmt.loop_var.same_as(self.loop.loop_var):
            return self._indexed(stmt)
        return _loop(stmt, self._widened(stmt.body))

    def _indexed(self, loop: Stmt) -> Stmt:
        from tvm import tirx
        from tvm.ir.expr import TensorLoad
        from tvm_ffi import structural_map

        def load(found: Any) -> Any:
            wide = self.wide.get(found.source)
            return found if wide is None else tirx.BufferLoad(wide, [loop.loop_var, *found.indices])

        def store(found: Any) -> Any:
            wide = self.wide.get(found.buffer)
            return found if wide is None else tirx.BufferStore(wide, found.value, [loop.loop_var, *found.indices])

        return structural_map(loop, ((TensorLoad, load), (tirx.BufferStore, store)))

    def _multiplied(self, how: device.Multiplication, call: Any) -> Stmt:
        """Warp by warp."""
        from tvm import tirx

        sums, *registers = call.args[1:]
        held = [
            device.Held(self.wide[loads[0].source], tuple(x.indices[-1] for x in loads))
            for loads in ([sums.args[0]], registers[: device.LEFT], registers[device.LEFT :])
        ]
        warp = tirx.Var("warp", "int32")
        warps = tirx.floordiv(self.loop.extent, device.WARP)
        return tirx.For(warp, 0, warps, tirx.ForKind.SERIAL, device.multiplied(how, warp, *held))


def _loop(stmt: Stmt, body: Stmt) -> Stmt:
    """The loop around another body; what was bound to threads or blocks, or unrolled, becomes serial."""
    from tvm import tirx

    other = stmt.kind in (tirx.ForKind.THREAD_BINDING, tirx.ForKind.UNROLLED)
    kind = tirx.ForKind.SERIAL if other else stmt.kind
    return tirx.For(stmt.loop_var, stmt.min, stmt.extent, kind, body, None, {} if other else stmt.annotations)


def _statements(body: Stmt) -> Iterator[Stmt]:
    from tvm import tirx

    yield from body if isinstance(body, tirx.SeqStmt) else [body]


def _sequence(stmts: Sequence[Stmt]) -> Stmt:
    from tvm import tirx

    return stmts[0] if len(stmts) == 1 else tirx.SeqStmt(list(stmts))


def _buffers(stmt: Stmt) -> set[Buffer]:
    """Those that a statement reads or writes."""
    from tvm import tirx
    from tvm.ir.expr import TensorLoad
    from tvm_ffi import structural_walk

    found: set[Buffer] = set()

    def load(x: Any) -> None:
        found.add(x.source)

    def store(x: Any) -> None:
        found.add(x.buffer)

    structural_walk(stmt, ((TensorLoad, load), (tirx.BufferStore, store)))
    return found


def _names_an_index(stmt: Stmt) -> bool:
    """Whether it names something that follows from the thread's number and outer loops alone."""
    from tvm import tirx

    return isinstance(stmt, tirx.Bind) and not _buffers(stmt)


def _waits(stmt: Stmt) -> bool:
    """Whether threads wait for each other somewhere in it."""
    from tvm import tirx
    from tvm_ffi import structural_walk

    found: list[Stmt] = []

    def look(evaluated: Any) -> None:
        if _is_barrier(evaluated) or _multiplication(evaluated):
            found.append(evaluated)

    structural_walk(stmt, (tirx.Evaluate, look))
    return bool(found)


def _is_barrier(stmt: Stmt) -> bool:
    return _called(stmt) == "tirx.tvm_storage_sync"


def _multiplication(stmt: Stmt) -> device.Multiplication | None:
    if _called(stmt) != "tirx.call_extern":
        return None
    return device.MULTIPLICATIONS.get(stmt.value.args[0].value)


def _called(stmt: Stmt) -> str:
    """The operator of a statement that is a call, else ""."""
    from tvm import tirx

    operator = getattr(stmt.value, "op", None) if isinstance(stmt, tirx.Evaluate) else None
    return str(getattr(operator, "name", ""))
