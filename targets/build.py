"""From plans to a library: kernels become TIR functions, each entry a Relax function over them, compiled by TVM."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.emitting import for_gpu
from ldsnn_compiler.targets.plan import Kernel, Plan

Progress = Callable[[str, int, int], None]


def build(
    plans: Sequence[Plan], board: Board, batch: int | None, threads: int, progress: Progress | None = None
) -> Any:
    """Compile ``plans`` for ``board``; ``batch`` None leaves it symbolic. Gives TVM's executable.

    ``progress(what, done, total)`` is called before each function and before the final compilation.
    """
    with for_gpu(board.gpu is not None):
        module = relax_module(plans, batch, progress)
    if progress:
        progress("machine code", 1, 1)
    return _compiled(module, board, threads)


def _compiled(module: Any, board: Board, threads: int) -> Any:
    import tvm

    if board.gpu is None:
        return tvm.compile(module, target=board.target(threads))
    from ldsnn_compiler.targets.cuda.build import compiled

    return compiled(module, board)


def kernel_library(kernels: Mapping[str, Kernel], board: Board, batch: int | None, threads: int) -> Any:
    """Compile kernels alone, each as a function of its name in the mapping. Gives TVM's executable."""
    import tvm

    with for_gpu(board.gpu is not None):
        functions = {name: kernel.build(batch).with_attr("global_symbol", name) for name, kernel in kernels.items()}
    return _compiled(tvm.IRModule(functions), board, threads)


def relax_module(plans: Sequence[Plan], batch: int | None, progress: Progress | None = None) -> Any:
    """The Relax module; kernels of equal key are shared by all entries."""
    from tvm import relax

    builder = relax.BlockBuilder()
    functions: dict[Hashable, Any] = {}
    names = symbols(plans)
    kernels = {k.key: k for plan in plans for k in plan.kernels}
    for done, (key, kernel) in enumerate(kernels.items()):
        if progress:
            progress(kernel.name, done, len(kernels))
        function = kernel.build(batch).without_attr("global_symbol")
        functions[key] = builder.add_func(function, names[key])
    for plan in plans:
        _entry(builder, plan, functions, batch)
    return builder.finalize()


def symbols(plans: Sequence[Plan]) -> dict[Hashable, str]:
    """The name of each kernel's function in the library, by key."""
    taken: set[str] = set()
    names: dict[Hashable, str] = {}
    for kernel in (k for plan in plans for k in plan.kernels):
        if kernel.key not in names:
            names[kernel.key] = _unique(kernel.name, taken)
    return names


def _entry(builder: Any, plan: Plan, functions: dict[Hashable, Any], batch: int | None) -> None:
    from tvm import relax, tirx

    size = tirx.Var("n", "int64") if batch is None else batch
    types = {k: relax.TensorType(b.sized(size), b.dtype) for k, b in plan.buffers.items()}
    given = {name: relax.Var(_identifier(name), types[name]) for name in plan.parameters()}
    values: dict[str, Any] = dict(given)
    # what comes after these is the same on every call: weights and parameters
    changing = len(plan.inputs) + len(plan.states) + bool(plan.counter)
    with builder.function(plan.entry, list(given.values()), attrs={"num_input": changing}):
        with builder.dataflow():
            for kernel in plan.kernels:
                made = [types[r] for r in kernel.results]
                operands = [values[name] for name in kernel.operands]
                called = builder.emit(
                    relax.call_tir(functions[kernel.key], operands, made if len(made) > 1 else made[0])
                )
                for i, name in enumerate(kernel.results):
                    values[name] = builder.emit(relax.TupleGetItem(called, i)) if len(made) > 1 else called
            result = builder.emit_output(relax.Tuple([values[name] for name in plan.returned()]))
        builder.emit_func_output(result)


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _unique(name: str, taken: set[str]) -> str:
    base = _identifier(name)
    candidate, n = base, 1
    while candidate in taken or candidate in ("run", "step"):
        n += 1
        candidate = f"{base}_{n}"
    taken.add(candidate)
    return candidate
