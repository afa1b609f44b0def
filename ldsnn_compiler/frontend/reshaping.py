"""Ops that rename, move, split or join axes: where time and batch go, and what is left of the features."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.traced import BATCH, FOLDS, TIME, Axis, Traced


def numbers(sizes: Sequence[Any]) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` alike."""
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = sizes[0]
    return tuple(int(s) for s in sizes)


def dim_of(ctx: Context, x: Traced, dim: Any) -> int:
    """A dimension counted from the front; refuses one out of range."""
    if not isinstance(dim, int) or not -len(x.axes) <= dim < len(x.axes):
        raise ctx.refuse(f"dimension {dim!r} is out of range for {x}")
    return dim % len(x.axes)


def reshape(ctx: Context, x: Traced, *sizes: Any) -> Traced:
    """``x.view(...)``, ``x.reshape(...)``: time and batch may be folded or unfolded, features take any shape."""
    if not x.is_canonical:
        raise ctx.refuse(f"cannot reshape {x}, whose time and batch are not first", time=True)
    given = wanted = numbers(sizes)
    total = prod(x.sizes(ctx.batch))
    if wanted.count(-1) == 1:
        rest = prod(w for w in wanted if w != -1)
        wanted = tuple(total // max(rest, 1) if w == -1 else w for w in wanted)
    if prod(wanted) != total:
        raise ctx.refuse(f"cannot view {x} as {given}", time=True, hint="take the batch size from x.shape")
    split = _match(x.lead, wanted, x.value.type.timesteps, ctx.batch, prod(x.value.type.shape))
    if split is None:
        raise ctx.refuse(
            f"mixes time or batch with features: {x} as {given}", time=True, hint="keep the batch an axis of its own"
        )
    lead, shape = split
    return x.like(features(ctx, x, shape).value, lead)


def features(ctx: Context, x: Traced, shape: tuple[int, ...]) -> Traced:
    """The same features in another shape."""
    if shape == x.value.type.shape:
        return x
    if len(shape) == 1:
        return ctx.layer("flatten", x)
    return ctx.layer("reshape", x, shape=shape)


def _match(
    lead: tuple[Axis, ...], sizes: tuple[int, ...], timesteps: int, batch: int, rest: int
) -> tuple[tuple[Axis, ...], tuple[int, ...]] | None:
    """Which of ``sizes`` are the named axes ``lead``, and the features that remain; None if they do not line up."""
    if not lead:
        return ((), sizes) if prod(sizes) == rest else None
    known = {TIME: timesteps, BATCH: batch, **dict.fromkeys(FOLDS.values(), timesteps * batch)}
    options: list[tuple[tuple[Axis, ...], int, int]] = [((lead[0],), 1, 1)]
    for pair, fold in FOLDS.items():
        if lead[:2] == pair:
            options.append(((fold,), 2, 1))
        if lead[0] == fold:
            options.append((pair, 1, 2))
    for axes, used, taken in options:
        if sizes[:taken] == tuple(known[str(a)] for a in axes):
            tail = _match(lead[used:], sizes[taken:], timesteps, batch, rest)
            if tail is not None:
                return (*axes, *tail[0]), tail[1]
    return None


def flatten(ctx: Context, x: Any, start_dim: int = 0, end_dim: int = -1) -> Traced:
    """``torch.flatten``: ``flatten(0, 1)`` folds time into the batch."""
    x = as_traced(ctx, x)
    first, last = dim_of(ctx, x, start_dim), dim_of(ctx, x, end_dim)
    sizes = x.sizes(ctx.batch)
    return reshape(ctx, x, *sizes[:first], prod(sizes[first : last + 1]), *sizes[last + 1 :])


def unflatten(ctx: Context, x: Traced, dim: int, sizes: Any) -> Traced:
    """``x.unflatten(0, (T, N))`` unfolds time."""
    at = dim_of(ctx, x, dim)
    old = x.sizes(ctx.batch)
    new = numbers((sizes,))
    if -1 in new:
        new = tuple(old[at] // -prod(new) if s == -1 else s for s in new)
    return reshape(ctx, x, *old[:at], *new, *old[at + 1 :])


def permute(ctx: Context, x: Traced, *dims: Any) -> Traced:
    """``x.permute(...)``: time and batch may move; features keep their order, axes of length 1 aside."""
    order = [dim_of(ctx, x, d) for d in numbers(dims)]
    if sorted(order) != list(range(len(x.axes))):
        raise ctx.refuse(f"dimensions {tuple(order)} are no permutation of {x}")
    axes = [x.axes[d] for d in order]
    own = [a for a in axes if isinstance(a, int)]
    shape = x.value.type.shape
    if own == sorted(own):
        return x.with_axes(axes)
    long = [a for a in own if shape[a] != 1]
    if long != sorted(long):
        raise ctx.refuse(
            f"reorders the features of {x}", hint="keep the order of the feature axes; time and batch may move"
        )
    value = ctx.emit("reshape", x.value, shape=tuple(shape[a] for a in own)).result
    count = iter(range(len(own)))
    return Traced(value, tuple(next(count) if isinstance(a, int) else a for a in axes), x.stepping)


def transpose(ctx: Context, x: Traced, dim0: int, dim1: int) -> Traced:
    """``x.transpose(a, b)``."""
    order = list(range(len(x.axes)))
    a, b = dim_of(ctx, x, dim0), dim_of(ctx, x, dim1)
    order[a], order[b] = order[b], order[a]
    return permute(ctx, x, *order)


def movedim(ctx: Context, x: Traced, source: int, destination: int) -> Traced:
    """``x.movedim(a, b)`` of one axis."""
    order = list(range(len(x.axes)))
    moved = order.pop(dim_of(ctx, x, source))
    order.insert(dim_of(ctx, x, destination), moved)
    return permute(ctx, x, *order)


def unsqueeze(ctx: Context, x: Traced, dim: int) -> Traced:
    """``x.unsqueeze(d)``: before a static ``[N, ...]`` a time axis of one step, among features an axis of length 1."""
    if not isinstance(dim, int) or not -len(x.axes) - 1 <= dim <= len(x.axes):
        raise ctx.refuse(f"dimension {dim!r} is out of range for {x}")
    at = dim % (len(x.axes) + 1)
    if at == 0 and x.is_static:
        return x.with_axes((TIME, *x.axes))
    if not x.is_canonical or at < len(x.lead):
        raise ctx.refuse(f"adds an axis before the batch of {x}", time=True)
    shape = list(x.value.type.shape)
    shape.insert(at - len(x.lead), 1)
    return features(ctx, x, tuple(shape))


def squeeze(ctx: Context, x: Traced, dim: Any = None) -> Traced:
    """``x.squeeze(d)`` of a time axis of one step or of features of length 1; without d of all such features."""
    shape = x.value.type.shape
    if dim is None:
        return features(ctx, x, tuple(s for s in shape if s != 1))
    drop = {dim_of(ctx, x, d) for d in (dim if isinstance(dim, tuple | list) else (dim,))}
    if any(x.sizes(ctx.batch)[d] != 1 for d in drop):
        drop = {d for d in drop if x.sizes(ctx.batch)[d] == 1}
    named = [x.axes[d] for d in drop if not isinstance(x.axes[d], int)]
    if any(a != TIME for a in named):
        raise ctx.refuse(f"drops the batch axis of {x}", hint="squeeze the features only")
    kept = x.with_axes([a for a in x.axes if a not in named])
    gone = {x.axes[d] for d in drop}
    return features(ctx, kept, tuple(s for i, s in enumerate(shape) if i not in gone))


def pad(ctx: Context, x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Traced:
    """``F.pad`` with zeros, of feature axes."""
    x = as_traced(ctx, x)
    if mode != "constant" or value not in (None, 0, 0.0):
        raise ctx.refuse(f"pads by {mode!r} with {value!r}", hint="pad with zeros")
    pairs = list(zip(pad[0::2], pad[1::2], strict=True))[::-1]
    shape = x.value.type.shape
    if not x.is_canonical or len(pairs) > len(shape):
        raise ctx.refuse(f"pads time or batch of {x}", time=True)
    if any(n < 0 for pair in pairs for n in pair):
        raise ctx.refuse("pads by a negative amount", hint="slice instead")
    rest = (0,) * (len(shape) - len(pairs))
    return ctx.layer("pad", x, low=(*rest, *(p[0] for p in pairs)), high=(*rest, *(p[1] for p in pairs)))


def as_traced(ctx: Context, x: Any) -> Traced:
    """``x`` if it is a tensor of the network."""
    if not isinstance(x, Traced):
        raise ctx.refuse(f"expects a tensor of the network, got {type(x).__name__}")
    return x
