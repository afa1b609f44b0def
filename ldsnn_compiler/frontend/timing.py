"""Ops over the time axis: repeating, stacking, reducing, indexing."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.reshaping import as_traced, dim_of, features, numbers, unsqueeze
from ldsnn_compiler.frontend.traced import BATCH, TIME, Traced

# ---- making time


def over_time(ctx: Context, x: Traced, timesteps: int) -> Traced:
    """``[1, N, ...]`` with its one step repeated."""
    if x.value.type.timesteps != 1 or x.stepping:
        raise ctx.refuse(f"repeats the timesteps of {x}", time=True, hint="repeat a single step only")
    if timesteps == 1:
        return x
    ctx.steps(timesteps)
    return Traced(ctx.hold(x.value), x.axes)


def repeat(ctx: Context, x: Traced, *sizes: Any) -> Traced:
    """``x.repeat(T, 1, ...)``: time may be repeated, features too (as a concat)."""
    counts = numbers(sizes)
    if len(counts) == len(x.axes) + 1:
        x = unsqueeze(ctx, x, 0)
    if len(counts) != len(x.axes):
        raise ctx.refuse(f"{len(counts)} repeats do not fit {x}", time=True)
    for axis, count in zip(x.axes, counts, strict=True):
        if axis == TIME:
            x = over_time(ctx, x, count)
        elif count != 1 and isinstance(axis, int):
            x = _tiled(ctx, x, axis, count)
        elif count != 1:
            raise ctx.refuse(f"repeats the batch of {x}", time=True)
    return x


def _tiled(ctx: Context, x: Traced, axis: int, count: int) -> Traced:
    return x.like(ctx.emit("concat", *[x.value] * count, axis=axis).result)


def expand(ctx: Context, x: Traced, *sizes: Any) -> Traced:
    """``x.expand(T, -1, ...)``."""
    wanted = numbers(sizes)
    if len(wanted) == len(x.axes) + 1:
        x = unsqueeze(ctx, x, 0)
    old = x.sizes(ctx.batch)
    if len(wanted) != len(old) or any(o != 1 and w not in (-1, o) for o, w in zip(old, wanted, strict=True)):
        raise ctx.refuse(f"cannot expand {x} to {wanted}", time=True)
    return repeat(ctx, x, *(1 if w in (-1, o) else w for o, w in zip(old, wanted, strict=True)))


def repeat_interleave(ctx: Context, x: Traced, repeats: Any, dim: int | None = None) -> Traced:
    """``x.repeat_interleave(T, dim=0)`` of one timestep."""
    if dim is None or x.axes[dim_of(ctx, x, dim)] != TIME or not isinstance(repeats, int):
        raise ctx.refuse(f"repeats {x} along {dim!r}", hint="repeat a time axis of one step")
    return over_time(ctx, x, repeats)


def stack(ctx: Context, tensors: Sequence[Any], dim: int = 0) -> Traced:
    """``torch.stack([x] * T)`` makes time; tensors stacked behind the batch become features."""
    parts = [as_traced(ctx, t) for t in tensors]
    at = dim % (len(parts[0].axes) + 1)
    if ctx.only_shapes and any(p != parts[0] for p in parts) and (at == 0 or len(parts) == ctx.timesteps):
        return _recorded(ctx, max(parts, key=lambda p: p.value.type.duration), len(parts), at)
    if at == 0:
        if any(p != parts[0] for p in parts) or not parts[0].is_static:
            raise ctx.refuse(
                "stacks different tensors over time",
                time=True,
                hint="write the time loop so that every turn does the same",
            )
        return over_time(ctx, unsqueeze(ctx, parts[0], 0), len(parts))
    return cat(ctx, [unsqueeze(ctx, p, at) for p in parts], at)


def _recorded(ctx: Context, step: Traced, timesteps: int, at: int) -> Traced:
    """The axes of all timesteps of a loop stacked, of which ``step`` is one."""
    if not step.is_static:
        raise ctx.refuse(f"stacks {step} over time", time=True)
    ctx.steps(timesteps)
    return Traced(ctx.hold(step.value), (*step.axes[:at], TIME, *step.axes[at:]))


def elementwise_shape(ctx: Context, *operands: Any, **keywords: Any) -> Traced:
    """The axes that elementwise arithmetic on these operands has, where nothing else is asked."""
    tensors = ctx.aligned([x for x in (*operands, *keywords.values()) if isinstance(x, Traced)])
    return max(tensors, key=lambda x: (len(x.value.type.shape), x.value.type.duration))


def cat(ctx: Context, tensors: Sequence[Any], dim: int = 0) -> Traced:
    """``torch.cat`` along a feature axis, or of one repeated step along time."""
    parts = [as_traced(ctx, t) for t in tensors]
    axis = parts[0].axes[dim_of(ctx, parts[0], dim)]
    if axis == TIME and all(p == parts[0] for p in parts):
        return over_time(ctx, parts[0], len(parts))
    if axis == TIME:
        raise ctx.refuse(
            "joins different tensors over time", time=True, hint="write the time loop so that every turn does the same"
        )
    if axis == BATCH:
        raise ctx.refuse(f"joins batches: {parts[0]}", time=True)
    parts = ctx.aligned(parts)
    axis = parts[0].axes[dim_of(ctx, parts[0], dim if dim < 0 else dim - len(tensors[0].axes))]
    _same_axes(ctx, parts)
    return parts[0].like(ctx.emit("concat", *(p.value for p in parts), axis=axis).result)


def _same_axes(ctx: Context, parts: Sequence[Traced]) -> None:
    if any((p.axes, p.stepping) != (parts[0].axes, parts[0].stepping) or not p.is_canonical for p in parts):
        raise ctx.refuse(f"combines {' and '.join(map(str, parts))}", time=True)


# ---- reducing over time


class Extremum(NamedTuple):
    """What ``x.max(dim)`` returns; the indices are not imported."""

    values: Any
    indices: Any


class NotImported:
    """A result that no network of streams can hold; harmless unless used."""


def _drop_time(x: Traced, value: Any, keepdim: bool) -> Traced:
    lead = x.lead if keepdim else tuple(a for a in x.lead if a != TIME)
    return x.like(value, lead)


def _time_axis(ctx: Context, x: Traced, axis: Any) -> None:
    if axis != TIME:
        raise ctx.refuse(f"reduces {'the batch' if axis == BATCH else 'time and batch together'} of {x}", time=True)
    if TIME not in x.lead or not x.is_canonical:
        raise ctx.refuse(f"expects [T, N, ...], got {x}", time=True)


def mean(ctx: Context, x: Traced, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Traced:
    """``x.mean(0)``: the mean readout; over all features but the channel: global average pooling."""
    return _reduce(ctx, x, dim, keepdim, "mean")


def total(ctx: Context, x: Traced, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Traced:
    """``x.sum(0)``: the mean over time times the number of steps, ``sum_t x[t] = T mean_t x[t]``."""
    return _reduce(ctx, x, dim, keepdim, "sum")


def _reduce(ctx: Context, x: Traced, dim: Any, keepdim: bool, mode: str) -> Traced:
    if dim is None:
        raise ctx.refuse(f"reduces all of {x}, the batch too", attribute="dim", hint="name the dimensions")
    dims = [dim_of(ctx, x, d) for d in (dim if isinstance(dim, tuple | list) else (dim,))]
    own = sorted(a for a in (x.axes[d] for d in dims) if isinstance(a, int))
    for axis in (x.axes[d] for d in dims):
        if not isinstance(axis, int):
            _time_axis(ctx, x, axis)
    if own:
        x = _reduce_features(ctx, x, own, keepdim, mode)
    return _reduce_time(ctx, x, keepdim, mode) if len(own) < len(dims) else x


def _reduce_time(ctx: Context, x: Traced, keepdim: bool, mode: str) -> Traced:
    steps = x.value.type.timesteps
    if mode == "mean":
        return _drop_time(x, ctx.emit("readout", x.value, mode="mean").result, keepdim)
    average = ctx.emit("resample", x.value, part="mean", dt=x.value.type.duration, mode="mean").result
    return _drop_time(x, ctx.emit("scale", average, factor=float(steps)).result, keepdim)


def _reduce_features(ctx: Context, x: Traced, own: list[int], keepdim: bool, mode: str) -> Traced:
    shape = x.value.type.shape
    trailing = own == list(range(len(shape) - len(own), len(shape)))
    if not x.is_canonical or not trailing or len(own) not in (1, 2) or len(shape) - len(own) != 1:
        raise ctx.refuse(
            f"reduces features {own} of {x}", hint="only all axes behind the channel, as global pooling does"
        )
    kernel = tuple(shape[a] for a in own)
    op = "avg_pool" if mode == "mean" else "sum_pool"
    pooled = ctx.layer(op, x, part="pool", kernel=kernel, stride=kernel, padding=(0,) * len(own))
    return pooled if keepdim else features(ctx, pooled, shape[:1])


def largest(ctx: Context, x: Traced, dim: Any = None, keepdim: bool = False) -> Extremum:
    """``x.max(0)``: the max readout; only its values are imported."""
    return Extremum(amax(ctx, x, dim, keepdim), NotImported())


def amax(ctx: Context, x: Traced, dim: Any = None, keepdim: bool = False) -> Traced:
    """``x.amax(0)``."""
    if isinstance(dim, Traced):
        raise ctx.refuse("takes the larger of two tensors", hint="only the largest over time can be imported")
    if not isinstance(dim, int):
        raise ctx.refuse(f"reduces {dim!r} of {x}", attribute="dim", hint="only the largest over time can be imported")
    axis = x.axes[dim_of(ctx, x, dim)]
    if isinstance(axis, int):
        raise ctx.refuse(f"takes the largest feature of {x}", hint="use a max pool, or the largest over time")
    _time_axis(ctx, x, axis)
    return _drop_time(x, ctx.emit("readout", x.value, mode="max").result, keepdim)


# ---- indexing


def index(ctx: Context, x: Any, where: Any) -> Any:
    """``x[...]``: ``x[-1]`` is the last readout, ``x[:k]`` a prefix of time; slices of features; None, a new axis."""
    if not isinstance(x, Traced):
        return x[where]
    items = list(where) if isinstance(where, tuple | list) else [where]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        given = sum(i is not None for i in items) - 1
        items[at : at + 1] = [slice(None)] * (len(x.axes) - given)
    dim = 0
    for item in items:
        if item is None:
            x, dim = unsqueeze(ctx, x, dim), dim + 1
        elif isinstance(item, int) and not isinstance(item, bool):
            x = _pick(ctx, x, dim_of(ctx, x, dim), item)
        elif isinstance(item, slice):
            x, dim = cut(ctx, x, dim_of(ctx, x, dim), item), dim + 1
        else:
            raise ctx.refuse(f"indexes with {type(item).__name__}", hint="only numbers, slices and None")
    return x


def _pick(ctx: Context, x: Traced, dim: int, at: int) -> Traced:
    axis, size = x.axes[dim], x.sizes(ctx.batch)[dim]
    if not -size <= at < size:
        raise ctx.refuse(f"index {at} is out of range for {x}")
    if isinstance(axis, int):
        part = cut(ctx, x, dim, slice(at % size, at % size + 1))
        shape = list(part.value.type.shape)
        del shape[axis]
        return features(ctx, part, tuple(shape))
    _time_axis(ctx, x, axis)
    prefix = cut(ctx, x, dim, slice(0, at % size + 1))
    return _drop_time(x, ctx.emit("readout", prefix.value, mode="last").result, keepdim=False)


def select(ctx: Context, x: Any, dim: int, index: int) -> Traced:
    """``x.select(d, i)``: one index of an axis, as :func:`index` gives it."""
    x = as_traced(ctx, x)
    return _pick(ctx, x, dim_of(ctx, x, dim), index)


def unbind(ctx: Context, x: Any, dim: int = 0) -> tuple[Traced, ...]:
    """``x.unbind(d)``: every index of an axis, as :func:`index` gives it."""
    x = as_traced(ctx, x)
    at = dim_of(ctx, x, dim)
    if x.axes[at] == BATCH:
        raise ctx.refuse(f"takes the batch of {x} apart", time=True)
    return tuple(_pick(ctx, x, at, i) for i in range(x.sizes(ctx.batch)[at]))


def cut(ctx: Context, x: Traced, dim: int, where: slice) -> Traced:
    """``x[start:stop:step]`` along one dimension; of time only a prefix, of the batch nothing."""
    axis, size = x.axes[dim], x.sizes(ctx.batch)[dim]
    if not all(isinstance(v, int | None) for v in (where.start, where.stop, where.step)):
        raise ctx.refuse("slices with bounds that depend on data")
    start, stop, step = where.indices(size)
    if (start, stop, step) == (0, size, 1):
        return x
    if stop <= start or step < 1:
        raise ctx.refuse(f"slice {start}:{stop}:{step} of {x} is empty or runs backwards")
    if isinstance(axis, int):
        return ctx.layer("slice", x, axis=axis, start=start, stop=stop, step=step)
    _time_axis(ctx, x, axis)
    if (start, step) != (0, 1):
        raise ctx.refuse(
            f"keeps steps {start}:{stop}:{step} of {x}", hint="only a prefix of the timesteps, x[:k], can be kept"
        )
    return x.like(ctx.emit("slice_time", x.value, part="prefix", steps=stop).result)


def running_mean_to_resample(ctx: Context) -> None:
    """A mean over time that is not the end of the network is no running readout: write it as a resample."""
    import networkx as nx

    for node in ctx.graph.of("readout"):
        later = {ctx.graph.node(n).op.name for n in nx.descendants(ctx.graph.dag, node.name)}
        if node["mode"] == "mean" and later & {"neuron", "resample", "delay", "encode"}:
            source = node.operands[0]
            new = ctx.graph.insert(
                "resample",
                source,
                [],
                path=node.path,
                name=f"{node.name}.mean",
                dt=Fraction(source.type.duration),
                mode="mean",
            )
            ctx.graph.replace(node.result, new.result)
            ctx.graph.erase(node)
