"""Kernels as plain C functions in one object file: no TVM run time behind them, nothing allocated, nothing parallel.

TVM's own lowering does the work. Behind it, parallel loops become serial, buffer parameters become plain pointers, and
memory that a kernel would ask an allocator for becomes one more pointer parameter: its caller, who plans
memory for the whole network, provides it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.c.elf import ObjectFile, read_object

#: smaller arrays of a kernel live on the stack, where the compiler can keep them in registers
STACK_BYTES = 1024
LIBC = frozenset({"memcpy", "memmove", "memset", "memcmp"})
LIBM = frozenset(
    name + suffix
    for name in ("ceil", "copysign", "cos", "cosh", "exp", "exp2", "fabs", "floor", "fma", "fmax", "fmin", "fmod",
                 "ldexp", "log", "log10", "log1p", "log2", "nearbyint", "pow", "rint", "round", "roundeven", "sin",
                 "sinh", "sqrt", "tan", "tanh", "trunc", "erf", "hypot", "atan", "atan2", "acos", "asin")
    for suffix in ("", "f")
)  # fmt: skip


@dataclass(frozen=True)
class Objects:
    """The object file, and per function the bytes of each scratch pointer that it takes behind its other parameters.

    ``stack`` is the bytes of arrays that the most demanding function keeps on the stack.
    """

    content: bytes
    scratch: Mapping[str, tuple[int, ...]]
    stack: int

    @property
    def file(self) -> ObjectFile:
        """Sections and symbols."""
        return read_object(self.content)


def compile_functions(functions: Mapping[str, Any], board: Board) -> Objects:
    """Compile PrimFuncs of buffers of known shapes to C functions of these names; parameters are pointers, in order."""
    import tvm

    target = board.target(1)
    module = tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})
    module = tvm.tirx.transform.BindTarget(target)(module)
    bare = {g.name_hint: _Bare(f) for g, f in _lowering()(module).functions.items()}
    module = _finish()(tvm.IRModule({name: b.function() for name, b in bare.items()}))
    content = _object_bytes(tvm.get_global_func("target.build.llvm")(module, target))
    made = Objects(content, {n: b.scratch for n, b in bare.items()}, max((b.stack for b in bare.values()), default=0))
    _check_symbols(made.file, frozenset(functions))
    return made


def _lowering() -> Any:
    """What TVM does with scheduled functions for a CPU (``s_tir.pipeline.default_s_tir_pipeline``), up to where it
    would wrap them for its run time; passes for other devices and number types are left out.
    """
    from tvm import s_tir, tirx, transform

    blocks, plain = s_tir.transform, tirx.transform
    passes = [
        blocks.CanonicalizeLoop(), blocks.LowerInitBlock(), blocks.PlanAndUpdateBufferAllocationLocation(),
        blocks.ConvertBlocksToOpaque(), blocks.CompactBufferAllocation(), blocks.LowerMatchBuffer(),
        blocks.StmtSimplify(), blocks.LowerOpaqueBlock(), plain.FlattenBuffer(), plain.NarrowDataType(32),
        blocks.LoopPartition(), plain.VectorizeLoop(), plain.StorageRewrite(), blocks.HoistIfThenElse(),
        plain.UnrollLoop(), blocks.RenormalizeSplitPattern(), plain.StmtSimplify(), plain.RemoveNoOp(),
        blocks.RewriteUnsafeSelect(), plain.CommonSubexprElim(),
    ]  # fmt: skip
    return transform.Sequential(passes)


def _finish() -> Any:
    """The last passes before LLVM."""
    from tvm import tirx, transform

    return transform.Sequential([tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin()])


def _object_bytes(module: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
        path = Path(scratch) / "kernels.o"
        module.write_to_file(str(path))
        return path.read_bytes()


def _check_symbols(found: ObjectFile, functions: frozenset[str]) -> None:
    """Nothing from outside but libc and libm, and nothing defined that another network's object could define too."""
    foreign = sorted(found.undefined - LIBC - LIBM)
    shared = sorted(found.defined - functions)
    problems = [Problem("is needed from outside, and is in neither libc nor libm", where=name) for name in foreign]
    problems += [Problem("is defined beside the kernels", where=name) for name in shared]
    if problems:
        raise LdsnnError(problems)


# ---- functions


def _rebuilt(statement: Any, change: Callable[[Any], Any]) -> Any:
    """A lowered statement with its loops serial and its leaves changed."""
    from tvm import tirx

    match statement:
        case tirx.SeqStmt():
            return tirx.SeqStmt([_rebuilt(s, change) for s in statement.seq])
        case tirx.For():
            kind = tirx.ForKind.SERIAL if statement.kind == tirx.ForKind.PARALLEL else statement.kind
            body = _rebuilt(statement.body, change)
            return tirx.For(statement.loop_var, statement.min, statement.extent, kind, body, step=statement.step)
        case tirx.While():
            return tirx.While(statement.condition, _rebuilt(statement.body, change))
        case tirx.IfThenElse():
            cases = (statement.then_case, statement.else_case)
            return tirx.IfThenElse(statement.condition, *(c if c is None else _rebuilt(c, change) for c in cases))
        case tirx.AttrStmt():
            body = _rebuilt(statement.body, change)
            return tirx.AttrStmt(statement.node, statement.attr_key, statement.value, body)
        case _:
            return change(statement)


class _Bare:
    """A lowered function on its way to plain pointers."""

    def __init__(self, lowered: Any) -> None:
        self._lowered = lowered
        self._pointers: list[Any] = []
        self._sizes: list[int] = []
        self.stack = 0
        self._body = _rebuilt(lowered.body, self._hoisted)

    @property
    def scratch(self) -> tuple[int, ...]:
        return tuple(self._sizes)

    def _pointer(self, buffer: Any) -> Any:
        from tvm import tirx

        return tirx.Var(f"p_{buffer.name}", tirx.buffer_data_pointer_type(buffer))

    def _hoisted(self, leaf: Any) -> Any:
        """An allocation as a parameter, unless it is small."""
        from tvm import tirx

        if not isinstance(leaf, tirx.AllocBuffer):
            return leaf
        buffer = leaf.buffer
        number, _, lanes = str(buffer.dtype).partition("x")
        size = prod(int(d) for d in buffer.shape) * np.dtype(number).itemsize * int(lanes or 1)
        if size < STACK_BYTES:
            self.stack += size
            return leaf
        pointer = self._pointer(buffer)
        self._pointers.append(pointer)
        self._sizes.append(size)
        return tirx.DeclBuffer(buffer, data=pointer)

    def function(self) -> Any:
        from tvm import tirx

        buffers = self._lowered.params
        pointers = [self._pointer(b) for b in buffers]
        views = [tirx.DeclBuffer(b, data=p) for b, p in zip(buffers, pointers, strict=True)]
        body = tirx.SeqStmt([*views, self._body])
        return tirx.PrimFunc([*pointers, *self._pointers], body, attrs=self._lowered.attrs)
