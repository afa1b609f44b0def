"""Plain kernels of the ops that move along time: delays and readouts, from the initial state or carrying theirs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from ldsnn_compiler.targets.cpu.plain import first_step, tensor_function
from ldsnn_compiler.targets.plan import Buffer


def delay_function(source: Buffer, steps: int, carried: bool, batch: int | None) -> Any:
    """``y[t] = x[t - steps]``; operands x and, if carried, what is held; results y and what is then held."""
    length = source.shape[0]
    held = [Buffer((steps, *source.shape[1:]), source.dtype)] if carried else []

    def compute(x: Any, *before: Any) -> Sequence[Any]:
        from tvm import te, tirx

        def at(k: Any, *i: Any) -> Any:
            """Number k of the held steps followed by x."""
            old = before[0](tirx.min(k, steps - 1), *i) if before else tirx.const(0, source.dtype)
            return tirx.if_then_else(k < steps, old, x(tirx.max(k - steps, 0), *i))

        y = te.compute(x.shape, at, name="delayed")
        left = [te.compute(b.shape, lambda k, *i: at(k + length, *i), name="held") for b in before]
        return [y, *left]

    return tensor_function([source, *held], batch, compute)


def readout_function(source: Buffer, mode: str, carried: bool, dt: Fraction, batch: int | None) -> Any:
    """Mean, sum, largest or last over time; operands x, what is kept if carried, the counter for a carried mean.

    Results: the readout ``[1, N, *shape]`` and what is then kept.
    """
    length = source.shape[0]
    kept = [Buffer((1, *source.shape[1:]), source.dtype)] if carried else []
    counter = [Buffer((1,), "int32")] if carried and mode == "mean" else []

    def compute(x: Any, *rest: Any) -> Sequence[Any]:
        from tvm import te, tirx

        shape = (1, *x.shape[1:])
        if mode == "last":
            return [te.compute(shape, lambda u, *i: x(length - 1 + u, *i), name="last")]
        k = te.reduce_axis((0, length), name="k")
        reduce, join = (te.max, tirx.max) if mode == "max" else (te.sum, lambda a, b: a + b)
        part = te.compute(shape, lambda u, *i: reduce(x(k + u, *i), axis=k), name="total")
        total = te.compute(shape, lambda *i: join(rest[0](*i), part(*i)), name="kept") if carried else part
        left = [total] if carried else []
        if mode in ("max", "sum"):
            return [te.compute(shape, lambda *i: total(*i), name=mode), *left]
        steps = first_step(rest[1], dt) + length if carried else tirx.const(length, "int32")
        return [te.compute(shape, lambda *i: total(*i) / tirx.Cast("float32", steps), name="mean"), *left]

    return tensor_function([source, *kept, *counter], batch, compute)
