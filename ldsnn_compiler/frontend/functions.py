"""Functions, operators and tensor methods that a model's forward may use."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Mapping
from math import prod
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from ldsnn_compiler.frontend import layers, products, reshaping, timing
from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.leaf_tracer import failed
from ldsnn_compiler.frontend.registry import FrontEnd, FunctionImporter
from ldsnn_compiler.frontend.reshaping import as_traced
from ldsnn_compiler.frontend.sizes import set_item
from ldsnn_compiler.frontend.traced import POISON, Traced

CONVERT_HINT = "a plain network is converted to spiking neurons by ld.convert(ann, calibration, timesteps)"

# ---- arithmetic


def add(ctx: Context, a: Any, b: Any, *, alpha: float = 1, out: Any = None) -> Traced:
    """``a + b``, of two tensors of the network or one of them and a constant."""
    if alpha != 1:
        b = mul(ctx, b, alpha)
    if isinstance(a, Traced) and isinstance(b, Traced):
        return _elementwise(ctx, "add", a, b)
    x, constant = (a, b) if isinstance(a, Traced) else (b, a)
    return _add_constant(ctx, as_traced(ctx, x), constant)


def _elementwise(ctx: Context, op: str, a: Traced, b: Traced) -> Traced:
    left, right = ctx.aligned([a, b])
    timing._same_axes(ctx, [left, right])
    return left.like(ctx.emit(op, left.value, right.value).result)


def _add_constant(ctx: Context, x: Traced, constant: Any) -> Traced:
    value = torch.as_tensor(constant, dtype=torch.float32)
    if not _distinct(value).any() and value.numel() <= prod(x.sizes(ctx.batch)):
        return x
    stream = x.value.type
    stored = ctx.graph.tensor(f"{ctx.site.path}.constant", _broadcast(ctx, x, value)[None])
    held = ctx.emit("constant", part="constant", value=stored, dt=stream.duration).result
    if stream.timesteps > 1:
        held = ctx.emit("resample", held, part="hold", dt=stream.dt, mode="repeat").result
    return x.like(ctx.emit("add", x.value, held).result)


def _distinct(value: torch.Tensor) -> torch.Tensor:
    """One of each group of elements that an expanded tensor repeats."""
    for dim, stride in enumerate(value.stride()):
        if stride == 0:
            value = value.narrow(dim, 0, 1)
    return value


def _broadcast(ctx: Context, x: Traced, value: torch.Tensor) -> torch.Tensor:
    """A constant of the model broadcast to the features of ``x``; one that differs over time or batch is refused."""
    shape, value = x.value.type.shape, _distinct(value)
    extra = value.ndim - len(shape)
    if extra > 0 and prod(value.shape[:extra]) == 1:
        value = value.reshape(value.shape[extra:])
    try:
        return value.detach().to("cpu", torch.float32).expand(shape).contiguous()
    except RuntimeError:
        raise ctx.refuse(
            f"combines {x} with a constant of shape {tuple(value.shape)}", hint="constants broadcast over features"
        ) from None


def sub(ctx: Context, a: Any, b: Any, *, alpha: float = 1) -> Traced:
    """``a - b`` as ``a + (-1) b``."""
    negative = mul(ctx, b, -float(alpha)) if isinstance(b, Traced) else -alpha * _distinct(torch.as_tensor(b))
    return add(ctx, a, negative)


def rsub(ctx: Context, a: Any, b: Any, *, alpha: float = 1) -> Traced:
    """``torch.rsub``: ``b - alpha a``."""
    return sub(ctx, b, a, alpha=alpha)


def neg(ctx: Context, x: Any) -> Traced:
    """``-x``."""
    return mul(ctx, x, -1.0)


def mul(ctx: Context, a: Any, b: Any) -> Traced:
    """``a * b``, of two tensors of the network or one of them and a constant."""
    if isinstance(a, Traced) and isinstance(b, Traced):
        return _elementwise(ctx, "multiply", a, b)
    x, factor = (a, b) if isinstance(a, Traced) else (b, a)
    return _scaled_by(ctx, as_traced(ctx, x), torch.as_tensor(factor, dtype=torch.float32))


def div(ctx: Context, a: Any, b: Any, *, rounding_mode: Any = None) -> Traced:
    """A tensor of the network divided by a number or a constant tensor, as a multiplication by its reciprocal."""
    if isinstance(b, Traced) or rounding_mode is not None:
        raise ctx.refuse("divides by a tensor of the network, or rounds", hint="divide by constants only")
    return _scaled_by(ctx, as_traced(ctx, a), 1.0 / torch.as_tensor(b, dtype=torch.float32))


def _scaled_by(ctx: Context, x: Traced, factor: torch.Tensor) -> Traced:
    if factor.numel() == 1:
        return layers.scaled(ctx, x, float(factor.detach()))
    whole = _broadcast(ctx, x, factor)
    by = whole.flatten(1)[:, 0] if bool((whole.flatten(1) == whole.flatten(1)[:, :1]).all()) else whole
    return x.like(ctx.emit("scale", x.value, by=ctx.graph.tensor(f"{ctx.site.path}.by", by)).result)


# ---- layers as functions


def conv(
    ctx: Context,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Traced:
    """``F.conv1d``, ``F.conv2d``."""
    _constant_weight(ctx, weight)
    axes = weight.ndim - 2
    m = SimpleNamespace(
        weight=weight,
        bias=bias,
        kernel_size=tuple(weight.shape[2:]),
        stride=stride,
        padding=padding,
        groups=groups,
        dilation=layers.tuple_of(dilation, axes),
        padding_mode="zeros",
    )
    layers.check_conv(m, ctx)
    return layers.conv(m, ctx, x)


def linear(ctx: Context, x: Any, weight: Any, bias: Any = None) -> Traced:
    """``F.linear``."""
    _constant_weight(ctx, weight)
    return layers.linear(SimpleNamespace(weight=weight, bias=bias), ctx, x)


def _constant_weight(ctx: Context, weight: Any) -> None:
    if not isinstance(weight, torch.Tensor):
        raise ctx.refuse("its weight is computed by the network", attribute="weight", hint="use a parameter")


def avg_pool(axes: int) -> FunctionImporter:
    """Importer of ``F.avg_pool1d`` or ``F.avg_pool2d``."""

    def importer(
        ctx: Context,
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Traced:
        x = ctx.expect(x, *layers.FRAMES, ndim=(axes + 1,))
        where = layers.window(ctx, x, axes, kernel_size, stride, padding, ceil_mode=ceil_mode)
        if divisor_override is None:
            return ctx.layer("avg_pool", x, count_include_pad=count_include_pad, **where)
        return layers.scaled(ctx, ctx.layer("sum_pool", x, **where), 1.0 / divisor_override, part="divisor")

    return importer


def max_pool(axes: int) -> FunctionImporter:
    """Importer of ``F.max_pool1d`` or ``F.max_pool2d``."""

    def importer(
        ctx: Context,
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Traced:
        x = ctx.expect(x, *layers.FRAMES, ndim=(axes + 1,))
        if return_indices:
            raise ctx.refuse("is True", attribute="return_indices", hint="use return_indices=False")
        where = layers.window(ctx, x, axes, kernel_size, stride, padding, dilation, ceil_mode)
        return ctx.layer("max_pool", x, dilation=layers.tuple_of(dilation, axes), **where)

    return importer


def adaptive_avg_pool(axes: int) -> FunctionImporter:
    """Importer of ``F.adaptive_avg_pool1d`` or ``F.adaptive_avg_pool2d``."""

    def importer(ctx: Context, x: Any, output_size: Any) -> Traced:
        x = ctx.expect(x, *layers.FRAMES, ndim=(axes + 1,))
        return ctx.layer("adaptive_avg_pool", x, size=layers.adaptive_size(x, output_size, axes))

    return importer


def split(ctx: Context, x: Any, size: Any, dim: int = 0) -> tuple[Traced, ...]:
    """``torch.split`` of features."""
    x = as_traced(ctx, x)
    whole = x.sizes(ctx.batch)[reshaping.dim_of(ctx, x, dim)]
    sizes = [min(size, whole - i) for i in range(0, whole, size)] if isinstance(size, int) else list(size)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    at = reshaping.dim_of(ctx, x, dim)
    if not isinstance(x.axes[at], int):
        raise ctx.refuse(f"splits time or batch of {x}", time=True)
    parts = [timing.cut(ctx, x, at, slice(start, start + n)) for start, n in zip(starts, sizes, strict=True)]
    return tuple(parts)


def chunk(ctx: Context, x: Any, chunks: int, dim: int = 0) -> tuple[Traced, ...]:
    """``torch.chunk`` of features."""
    whole = as_traced(ctx, x).sizes(ctx.batch)[reshaping.dim_of(ctx, x, dim)]
    return split(ctx, x, -(-whole // chunks), dim)


# ---- what Python sees of a tensor


def attribute(ctx: Context, x: Any, name: str, *default: Any) -> Any:
    """``x.shape`` and the like."""
    if not isinstance(x, Traced):
        return getattr(x, name, *default)
    known: dict[str, Any] = {
        "shape": torch.Size(x.sizes(ctx.batch)),
        "ndim": len(x.axes),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "data": x,
        "is_cuda": False,
        "requires_grad": False,
    }
    if name not in known:
        raise ctx.refuse(f"reads .{name} of a tensor", hint="only shape, ndim, dtype, device and data")
    return known[name]


def size(ctx: Context, x: Traced, dim: int | None = None) -> Any:
    """``x.size()``, ``x.size(0)``."""
    sizes = torch.Size(x.sizes(ctx.batch))
    return sizes if dim is None else sizes[dim]


def same(ctx: Context, x: Any, *rest: Any, **keywords: Any) -> Any:
    """Leaves the numbers as they are."""
    return x


def dropout(ctx: Context, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """``F.dropout`` in evaluation mode."""
    if training:
        ctx.note("runs in training mode, imported as in eval()", attribute="training")
    return x


def filled(value: float) -> FunctionImporter:
    """Importer of ``torch.zeros`` or ``torch.ones``: a constant of the size asked for that takes no memory."""

    def importer(ctx: Context, *sizes: Any, **keywords: Any) -> torch.Tensor:
        return torch.tensor(value).expand(reshaping.numbers(sizes or (keywords["size"],)))

    importer.always = True  # type: ignore[attr-defined]
    return importer


def relu(ctx: Context, x: Any, inplace: bool = False) -> Traced:
    """``F.relu`` of events, which are never negative, changes nothing."""
    given = as_traced(ctx, x)
    if not given.value.type.signal.is_event:
        raise ctx.refuse("cannot be imported", hint=CONVERT_HINT)
    return given


def zeros_like(ctx: Context, x: Any, **keywords: Any) -> float:
    """A zero that sums start from."""
    return 0.0


def batch_norm(
    ctx: Context,
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Traced:
    """``F.batch_norm`` with running statistics."""
    if training or running_mean is None:
        raise ctx.refuse("uses the statistics of the batch", attribute="training", hint="use running statistics")
    x = ctx.expect(x, *layers.FRAMES)
    m = SimpleNamespace(running_mean=running_mean, running_var=running_var, weight=weight, bias=bias, eps=eps)
    return layers.normalised(m, ctx, x)


def poisoned(ctx: Context, *operands: Any) -> Any:
    """A module whose forward could not be traced; that has been reported."""
    return POISON


def add_all(ctx: Context, values: Any, start: Any = 0) -> Any:
    """Python's ``sum`` over tensors."""
    result = start
    for value in values:
        result = add(ctx, result, value) if isinstance(value, Traced) or isinstance(result, Traced) else result + value
    return result


poisoned.always = True  # type: ignore[attr-defined]

_SHARED: Mapping[str, FunctionImporter] = {
    "add": add,
    "sub": sub,
    "subtract": sub,
    "mul": mul,
    "multiply": mul,
    "div": div,
    "true_divide": div,
    "divide": div,
    "neg": neg,
    "rsub": rsub,
    "flatten": reshaping.flatten,
    "reshape": reshaping.reshape,
    "permute": reshaping.permute,
    "transpose": reshaping.transpose,
    "swapaxes": reshaping.transpose,
    "movedim": reshaping.movedim,
    "unsqueeze": reshaping.unsqueeze,
    "squeeze": reshaping.squeeze,
    "unflatten": reshaping.unflatten,
    "mean": timing.mean,
    "sum": timing.total,
    "max": timing.largest,
    "amax": timing.amax,
    "repeat_interleave": timing.repeat_interleave,
    "unbind": timing.unbind,
    "select": timing.select,
    "split": split,
    "chunk": chunk,
    "detach": same,
    "clone": same,
}
"""Importers that a torch function and a tensor method share."""

FUNCTIONS: Mapping[Callable[..., Any], FunctionImporter] = {
    **{getattr(torch, name): importer for name, importer in _SHARED.items() if hasattr(torch, name)},
    operator.add: add,
    operator.iadd: add,
    operator.sub: sub,
    operator.isub: sub,
    operator.mul: mul,
    operator.imul: mul,
    operator.truediv: div,
    operator.itruediv: div,
    operator.neg: neg,
    operator.getitem: timing.index,
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_), relu),
    builtins.getattr: attribute,
    builtins.sum: add_all,
    torch.stack: timing.stack,
    torch.cat: timing.cat,
    torch.concat: timing.cat,
    torch.concatenate: timing.cat,
    torch.zeros: filled(0.0),
    torch.ones: filled(1.0),
    torch.zeros_like: zeros_like,
    F.conv1d: conv,
    F.conv2d: conv,
    F.linear: linear,
    **dict.fromkeys((torch.matmul, torch.mm, operator.matmul), products.matmul),
    torch.einsum: products.einsum,
    F.batch_norm: batch_norm,
    F.pad: reshaping.pad,
    F.avg_pool1d: avg_pool(1),
    F.avg_pool2d: avg_pool(2),
    F.max_pool1d: max_pool(1),
    F.max_pool2d: max_pool(2),
    F.adaptive_avg_pool1d: adaptive_avg_pool(1),
    F.adaptive_avg_pool2d: adaptive_avg_pool(2),
    torch.max_pool1d: max_pool(1),
    torch.max_pool2d: max_pool(2),
    F.dropout: dropout,
    F.dropout1d: dropout,
    F.dropout2d: dropout,
    failed: poisoned,
}

METHODS: Mapping[str, FunctionImporter] = {
    **_SHARED,
    "add_": add,
    "sub_": sub,
    "mul_": mul,
    "div_": div,
    "view": reshaping.reshape,
    "repeat": timing.repeat,
    "expand": timing.expand,
    "size": size,
    "matmul": products.matmul,
    "mm": products.matmul,
    "dim": lambda ctx, x: len(x.axes),
    "contiguous": same,
    "to": same,
    "float": same,
    "cpu": same,
    "cuda": same,
    "type_as": same,
    "requires_grad_": same,
    "relu": relu,
    "relu_": relu,
    "new_zeros": lambda ctx, x, *sizes, **kw: filled(0.0)(ctx, *sizes),
    "new_ones": lambda ctx, x, *sizes, **kw: filled(1.0)(ctx, *sizes),
}

REFUSED: Mapping[Any, str] = {
    **{f: CONVERT_HINT for f in (F.relu6, F.leaky_relu, F.gelu, F.silu, torch.sigmoid, torch.tanh, F.elu)},
    "sigmoid": CONVERT_HINT,
    "tanh": CONVERT_HINT,
    F.softmax: "leave it out: the largest output stays the largest",
    F.log_softmax: "leave it out: the largest output stays the largest",
    torch.softmax: "leave it out: the largest output stays the largest",
    set_item: "append to a list and torch.stack it",
    "softmax": "leave it out: the largest output stays the largest",
    "item": "values of tensors are not known while the model is imported",
    "argmax": "return the scores themselves",
    torch.argmax: "return the scores themselves",
}


def front_end() -> FrontEnd:
    """Torch's functions and tensor methods."""
    made = ((torch, "zeros"), (torch, "ones"))
    return FrontEnd("torch functions", functions=FUNCTIONS, methods=METHODS, refused=REFUSED, wrapped=made)
