"""For what kind of machine kernels are being emitted, for the few places that differ: how work is dealt out, and where
private memory lies.

Kernels are emitted for a CPU unless :func:`for_gpu` is in force.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

#: threads of a block that has no reason for another number
THREADS = 256
_GPU: ContextVar[bool] = ContextVar("gpu", default=False)


@contextmanager
def for_gpu(is_gpu: bool = True) -> Iterator[None]:
    """Emit for a GPU while this lasts."""
    token = _GPU.set(is_gpu)
    try:
        yield
    finally:
        _GPU.reset(token)


def on_gpu() -> bool:
    """Whether functions get threads of a GPU."""
    return _GPU.get()


def private_scope() -> str:
    """TVM's name of the memory that belongs to one task of a CPU (on the stack) or one thread of a GPU (registers)."""
    return "local" if on_gpu() else "global"


@contextmanager
def tasks(count: Any, *inner: int, dealt: bool = True) -> Iterator[tuple[Any, ...]]:
    """Loops over ``count`` tasks and the ``inner`` extents, all independent: a task is a core's turn on a CPU (all are
    one core's if they are not ``dealt`` out), on a GPU every innermost body is a thread's. Gives the loop variables."""
    from tvm import tirx
    from tvm.tirx.script.builder import ir as T

    with ExitStack() as stack:
        if not on_gpu():
            outer = T.parallel if dealt else T.serial
            yield stack.enter_context(outer(count)), *(stack.enter_context(T.serial(n)) for n in inner)
            return
        total = count
        for extent in inner:
            total = total * extent
        blocks = tirx.floordiv(total + THREADS - 1, THREADS) if hasattr(total, "dtype") else -(-total // THREADS)
        block = stack.enter_context(T.thread_binding(0, blocks, thread="blockIdx.x"))
        thread = stack.enter_context(T.thread_binding(0, THREADS, thread="threadIdx.x"))
        flat = T.Bind(block * THREADS + thread)
        stack.enter_context(T.If(flat < total))
        stack.enter_context(T.Then())
        found: list[Any] = []
        for extent in reversed(inner):
            found.insert(0, T.Bind(tirx.floormod(flat, extent)))
            flat = T.Bind(tirx.floordiv(flat, extent))
        yield flat, *found
