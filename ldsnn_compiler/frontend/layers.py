"""Torch's own layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.registry import FrontEnd, ModuleImporter
from ldsnn_compiler.frontend.traced import BATCH, BATCH_FIRST, FOLDS, SEQUENCE, Axis, Traced

FRAMES: tuple[tuple[Axis, ...], ...] = ((BATCH,), *((fold,) for fold in FOLDS.values()))
"""Layouts in which a layer sees one batch axis: a batch, or time and batch folded."""

ANY: tuple[tuple[Axis, ...], ...] = (*FRAMES, SEQUENCE, BATCH_FIRST)


def tuple_of(value: Any, axes: int) -> tuple[int, ...]:
    """A number or a sequence of them, one per axis."""
    return (int(value),) * axes if isinstance(value, int) else tuple(int(v) for v in value)


# ---- convolution and linear


def check_conv(m: Any, ctx: Context) -> None:
    """Only zero padding, the same on both sides, can be imported."""
    if m.padding_mode != "zeros":
        ctx.report(f"is {m.padding_mode!r}", attribute="padding_mode", hint="use padding_mode='zeros'")
    if m.padding == "same" and any(d * (k - 1) % 2 for d, k in zip(m.dilation, m.kernel_size, strict=True)):
        ctx.report(
            "'same' is uneven for an even kernel", attribute="padding", hint="use an odd kernel, or F.pad and padding=0"
        )


def conv(m: Any, ctx: Context, x: Any, *, leads: Sequence[tuple[Axis, ...]] = FRAMES) -> Traced:
    """``nn.Conv1d``, ``nn.Conv2d``."""
    axes = len(m.kernel_size)
    x = ctx.expect(x, *leads, ndim=(axes + 1,))
    _expect_features(ctx, x, 0, m.weight.shape[1] * m.groups)
    if m.padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(m.dilation, m.kernel_size, strict=True))
    else:
        padding = (0,) * axes if m.padding == "valid" else tuple_of(m.padding, axes)
    return ctx.layer(
        f"conv{axes}d",
        x,
        weight=ctx.tensor("weight", m.weight),
        bias=ctx.optional("bias", m.bias),
        stride=tuple_of(m.stride, axes),
        padding=padding,
        dilation=tuple_of(m.dilation, axes),
        groups=m.groups,
    )


def _expect_features(ctx: Context, x: Traced, axis: int, count: int) -> None:
    shape = x.value.type.shape
    if not shape or shape[axis] != count:
        raise ctx.refuse(f"expects {count} {'channels' if axis == 0 else 'features'}, got {x}", time=True)


def linear(m: Any, ctx: Context, x: Any, *, leads: Sequence[tuple[Axis, ...]] = ANY) -> Traced:
    """``nn.Linear``, which acts on the last axis whatever comes before it."""
    x = ctx.expect(x, *leads)
    _expect_features(ctx, x, -1, m.weight.shape[1])
    return ctx.layer("linear", x, weight=ctx.tensor("weight", m.weight), bias=ctx.optional("bias", m.bias))


# ---- BatchNorm


def check_batch_norm(m: Any, ctx: Context) -> None:
    """Statistics of the batch at hand cannot be imported."""
    if m.running_mean is None or m.running_var is None:
        ctx.report(
            "is False, so statistics depend on the batch",
            attribute="track_running_stats",
            hint="track running statistics",
        )


def batch_norm(m: Any, ctx: Context, x: Any, *, leads: Sequence[tuple[Axis, ...]] = FRAMES) -> Traced:
    """``nn.BatchNorm1d``, ``nn.BatchNorm2d`` in evaluation mode."""
    ctx.as_in_eval(m)
    x = ctx.expect(x, *leads, ndim=(1, 2) if isinstance(m, nn.BatchNorm1d) else (3,))
    return normalised(m, ctx, x)


def normalised(m: Any, ctx: Context, x: Traced) -> Traced:
    """``x`` by the running statistics, weight and bias that ``m`` has."""
    return ctx.layer(
        "batch_norm",
        x,
        mean=ctx.tensor("running_mean", m.running_mean),
        var=ctx.tensor("running_var", m.running_var),
        weight=ctx.optional("weight", m.weight),
        bias=ctx.optional("bias", m.bias),
        eps=float(m.eps),
    )


# ---- pooling


def window(
    ctx: Context,
    x: Traced,
    axes: int,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> dict[str, Any]:
    """Kernel, stride and padding per axis; refuses a ``ceil_mode`` that would add a window."""
    size, kernel, padding = x.value.type.shape[-axes:], tuple_of(kernel, axes), tuple_of(padding, axes)
    stride = kernel if stride is None or stride == [] else tuple_of(stride, axes)
    reach = [d * (k - 1) + 1 for d, k in zip(tuple_of(dilation, axes), kernel, strict=True)]
    rest = [(n + 2 * p - r) % s for n, p, r, s in zip(size, padding, reach, stride, strict=True)]
    if ceil_mode and any(rest):
        raise ctx.refuse(
            f"adds a partial window to {size}", attribute="ceil_mode", hint="pad the input, or use ceil_mode=False"
        )
    return {"kernel": kernel, "stride": stride, "padding": padding}


def avg_pool(m: Any, ctx: Context, x: Any, *, leads: Sequence[tuple[Axis, ...]] = FRAMES) -> Traced:
    """``nn.AvgPool1d``, ``nn.AvgPool2d``; with ``divisor_override`` a scaled sum."""
    axes = 1 if isinstance(m, nn.AvgPool1d) else 2
    x = ctx.expect(x, *leads, ndim=(axes + 1,))
    where = window(ctx, x, axes, m.kernel_size, m.stride, m.padding, ceil_mode=m.ceil_mode)
    divisor = getattr(m, "divisor_override", None)
    if divisor is None:
        return ctx.layer("avg_pool", x, count_include_pad=m.count_include_pad, **where)
    return scaled(ctx, ctx.layer("sum_pool", x, **where), 1.0 / divisor, part="divisor")


def scaled(ctx: Context, x: Traced, factor: float, *, part: str = "") -> Traced:
    """``factor * x``; nothing for 1."""
    return x if factor == 1.0 else x.like(ctx.emit("scale", x.value, part=part, factor=float(factor)).result)


def check_max_pool(m: Any, ctx: Context) -> None:
    """Indices are no part of a network of streams."""
    if m.return_indices:
        ctx.report("is True", attribute="return_indices", hint="use return_indices=False")


def max_pool(m: Any, ctx: Context, x: Any, *, leads: Sequence[tuple[Axis, ...]] = FRAMES) -> Traced:
    """``nn.MaxPool1d``, ``nn.MaxPool2d``."""
    axes = 1 if isinstance(m, nn.MaxPool1d) else 2
    x = ctx.expect(x, *leads, ndim=(axes + 1,))
    where = window(ctx, x, axes, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode)
    return ctx.layer("max_pool", x, dilation=tuple_of(m.dilation, axes), **where)


def adaptive_avg_pool(m: Any, ctx: Context, x: Any, *, leads: Sequence[tuple[Axis, ...]] = FRAMES) -> Traced:
    """``nn.AdaptiveAvgPool1d``, ``nn.AdaptiveAvgPool2d``."""
    axes = 1 if isinstance(m, nn.AdaptiveAvgPool1d) else 2
    x = ctx.expect(x, *leads, ndim=(axes + 1,))
    return ctx.layer("adaptive_avg_pool", x, size=adaptive_size(x, m.output_size, axes))


def adaptive_size(x: Traced, size: Any, axes: int) -> tuple[int, ...]:
    """The output size, None standing for the input's."""
    wanted = (size,) * axes if size is None or isinstance(size, int) else size
    return tuple(n if w is None else int(w) for w, n in zip(wanted, x.value.type.shape[-axes:], strict=True))


def lp_pool(m: Any, ctx: Context, x: Any, *, leads: Sequence[tuple[Axis, ...]] = FRAMES) -> Traced:
    """``nn.LPPool1d``, ``nn.LPPool2d`` with norm_type 1, which is a sum over each window."""
    if m.norm_type != 1:
        raise ctx.refuse(
            f"is {m.norm_type}", attribute="norm_type", hint="norm_type=1 is a sum pool and can be imported"
        )
    axes = 1 if isinstance(m, nn.LPPool1d) else 2
    x = ctx.expect(x, *leads, ndim=(axes + 1,))
    return ctx.layer("sum_pool", x, **window(ctx, x, axes, m.kernel_size, m.stride, 0, ceil_mode=m.ceil_mode))


# ---- shape


def flatten(m: Any, ctx: Context, x: Any) -> Any:
    """``nn.Flatten``."""
    from ldsnn_compiler.frontend.reshaping import flatten as flatten_axes

    return flatten_axes(ctx, x, m.start_dim, m.end_dim)


def identity(m: Any, ctx: Context, x: Any) -> Any:
    """``nn.Identity``."""
    return x


def dropout(m: Any, ctx: Context, x: Any) -> Any:
    """Dropout in evaluation mode, which is nothing."""
    ctx.as_in_eval(m)
    return x


def zero_pad(m: Any, ctx: Context, x: Any) -> Any:
    """``nn.ZeroPad1d``, ``nn.ZeroPad2d`` and constant padding with zero."""
    from ldsnn_compiler.frontend.reshaping import pad

    return pad(ctx, x, tuple(m.padding), "constant", getattr(m, "value", 0.0))


MODULES: Mapping[type, ModuleImporter] = {
    nn.Conv1d: conv,
    nn.Conv2d: conv,
    nn.Linear: linear,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.AvgPool1d: avg_pool,
    nn.AvgPool2d: avg_pool,
    nn.MaxPool1d: max_pool,
    nn.MaxPool2d: max_pool,
    nn.AdaptiveAvgPool1d: adaptive_avg_pool,
    nn.AdaptiveAvgPool2d: adaptive_avg_pool,
    nn.LPPool1d: lp_pool,
    nn.LPPool2d: lp_pool,
    nn.Flatten: flatten,
    nn.ZeroPad1d: zero_pad,
    nn.ZeroPad2d: zero_pad,
    nn.ConstantPad1d: zero_pad,
    nn.ConstantPad2d: zero_pad,
    nn.Identity: identity,
    nn.Dropout: dropout,
    nn.Dropout1d: dropout,
    nn.Dropout2d: dropout,
    nn.AlphaDropout: dropout,
}

CHECKS = {
    nn.Conv1d: check_conv,
    nn.Conv2d: check_conv,
    nn.BatchNorm1d: check_batch_norm,
    nn.BatchNorm2d: check_batch_norm,
    nn.MaxPool1d: check_max_pool,
    nn.MaxPool2d: check_max_pool,
}

_CONVERT = "a plain network is converted to spiking neurons by ld.convert(ann, calibration, timesteps)"
REFUSED: Mapping[Any, str] = {
    **{
        kind: _CONVERT
        for kind in (
            nn.ReLU,
            nn.ReLU6,
            nn.LeakyReLU,
            nn.PReLU,
            nn.ELU,
            nn.GELU,
            nn.SiLU,
            nn.Sigmoid,
            nn.Tanh,
            nn.Hardtanh,
            nn.Softplus,
        )
    },
    nn.Softmax: "leave it out: the largest output stays the largest",
    nn.LogSoftmax: "leave it out: the largest output stays the largest",
    nn.LayerNorm: "its statistics depend on the input; use BatchNorm",
    nn.GroupNorm: "its statistics depend on the input; use BatchNorm",
    nn.InstanceNorm1d: "its statistics depend on the input; use BatchNorm",
    nn.InstanceNorm2d: "its statistics depend on the input; use BatchNorm",
    nn.Conv3d: "only one- and two-dimensional convolutions",
    nn.ConvTranspose1d: "only ordinary convolutions",
    nn.ConvTranspose2d: "only ordinary convolutions",
    nn.MaxPool3d: "only one- and two-dimensional pooling",
    nn.AvgPool3d: "only one- and two-dimensional pooling",
    nn.BatchNorm3d: "only one and two dimensions",
    nn.LSTM: "write the recurrence with spiking neurons",
    nn.GRU: "write the recurrence with spiking neurons",
    nn.RNN: "write the recurrence with spiking neurons",
    nn.AdaptiveMaxPool1d: "use MaxPool with a fixed window",
    nn.AdaptiveMaxPool2d: "use MaxPool with a fixed window",
    nn.Embedding: "feed the embedded tokens as the input",
}


def front_end() -> FrontEnd:
    """Torch's layers."""
    return FrontEnd("torch layers", modules=MODULES, checks=CHECKS, refused=REFUSED)
