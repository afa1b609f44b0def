"""The plain kernel of an op: its tensor expression, with the outer loops run in parallel and the innermost in vectors.

Any op with a ``compute`` can be lowered by this; speed is what the event-driven and dense kernels are for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from ldsnn_compiler.ir.op import Call, OpDef
from ldsnn_compiler.targets.cuda import bind
from ldsnn_compiler.targets.emitting import on_gpu
from ldsnn_compiler.targets.plan import Buffer

#: fewer numbers than this are not worth a parallel loop
_PARALLEL = 4096
_LANES = 16

Compute = Callable[..., Sequence[Any]]


def tensor_function(buffers: Sequence[Buffer], batch: Any, compute: Compute) -> Any:
    """A PrimFunc from ``compute(*te placeholders) -> results`` over the given operand buffers."""
    from tvm import te

    size = batch_size(batch)
    data = [te.placeholder(b.sized(size), b.dtype, name=f"x{i}") for i, b in enumerate(buffers)]
    return scheduled(te.create_prim_func([*data, *_fresh(compute(*data), data)]))


def batch_size(batch: int | None) -> Any:
    """The batch of a function: a number, or a new TIR variable if it is symbolic."""
    from tvm import tirx

    return tirx.Var("n", "int64") if batch is None else batch


def _fresh(results: Sequence[Any], data: Sequence[Any]) -> list[Any]:
    """Results that are operands passed on are copied, so that each result is a buffer of its own."""
    return [_copied(r) if any(r.same_as(d) for d in data) else r for r in results]


def _copied(x: Any) -> Any:
    from tvm import te

    return te.compute(x.shape, lambda *i: x(*i), name="copy")


def op_function(
    op: OpDef,
    call: Call,
    operands: Sequence[Buffer],
    tensors: Mapping[str, Buffer],
    counter: bool,
    batch: int | None,
    dtype: str = "float32",
) -> Any:
    """The PrimFunc of a per-step op: operands, then its tensors, then (for ops that ask the time) the step counter.

    ``dtype`` is the result's. Whole numbers are computed with in float64, in which sums and products of any that fit
    int32 are exact, as they are in the interpreter.
    """
    buffers = [*operands, *tensors.values(), *([Buffer((1,), "int32")] if counter else [])]
    assert op.compute is not None
    compute = op.compute

    def expression(*data: Any) -> list[Any]:
        first = first_step(data[-1], call.types[0].dt) if counter else 0
        size = data[0].shape[1] if operands else batch_size(batch)
        is_whole = dtype != "float32"
        numbers = [wide(x) if is_whole else x for x in data[: len(data) - counter]]
        given = dict(zip(tensors, numbers[len(operands) :], strict=False))
        call_ = replace(call, tensors=given, first_step=first, batch=size)
        return [in_type(compute(call_, *numbers[: len(operands)]), dtype)]

    return tensor_function(buffers, batch, expression)


class Wide:
    """A te tensor of whole numbers, read as float64."""

    def __init__(self, tensor: Any) -> None:
        self.tensor, self.shape, self.dtype = tensor, tensor.shape, "float64"

    def __call__(self, *index: Any) -> Any:
        from tvm import tirx

        return tirx.Cast("float64", self.tensor(*index))


def wide(tensor: Any) -> Any:
    """A te tensor to compute with: whole numbers read as float64, float32 as it is."""
    return tensor if str(tensor.dtype) == "float32" else Wide(tensor)


def in_type(tensor: Any, dtype: str) -> Any:
    """The te tensor in a type that holds its numbers."""
    from tvm import te, tirx

    if str(tensor.dtype) == dtype:
        return tensor
    return te.compute(tensor.shape, lambda *i: tirx.Cast(dtype, tensor(*i)), name="in_type")


def first_step(counter: Any, dt: Fraction) -> Any:
    """Steps of ``dt`` done after ``counter[0]`` base steps."""
    return counter(0) * dt.denominator // dt.numerator


def scheduled(function: Any) -> Any:
    """Outer loops of every stage fused and parallel, the innermost spatial loop in vectors; threads on a GPU."""
    from tvm import s_tir

    if on_gpu():
        return bind.scheduled(function)
    schedule = s_tir.Schedule(function)
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        _schedule_block(schedule, block)
    return schedule.mod["main"]


def _schedule_block(schedule: Any, block: Any) -> None:
    loops = schedule.get_loops(block)
    reduces = [it.iter_type == it.CommReduce for it in schedule.get(block).iter_vars]
    outer = [loop for loop, reduce in zip(loops, reduces, strict=True) if not reduce]
    inner = [loop for loop, reduce in zip(loops, reduces, strict=True) if reduce]
    if len(outer) < 3:
        return
    last = outer.pop()
    if inner:
        schedule.reorder(*outer, *inner, last)
    extent = _extent(schedule, last)
    if extent > _LANES:
        last = schedule.split(last, [None, _LANES])[1]
    parallel = schedule.fuse(*outer)
    if _worth_threads(schedule, parallel, extent):
        schedule.parallel(parallel)
    if extent > 1:
        schedule.vectorize(last)
    if inner:
        schedule.decompose_reduction(block, inner[0])


def _extent(schedule: Any, loop: Any) -> int:
    extent = schedule.get(loop).extent
    return int(extent) if hasattr(extent, "value") else 0


def _worth_threads(schedule: Any, loop: Any, inner: int) -> bool:
    extent = _extent(schedule, loop)
    return extent == 0 or extent * inner >= _PARALLEL
