"""Products of a tensor of the network with a constant matrix, which are linear layers however they are written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from ldsnn_compiler.frontend import layers
from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.traced import Traced

_PRODUCTS = "a tensor of the network times a constant matrix, over its last axis, is a linear layer; others cannot be"


def matmul(ctx: Context, x: Any, weight: Any, *, out: Any = None) -> Traced:
    """``x @ W`` with a constant matrix ``W`` ``[in, out]``."""
    if not isinstance(x, Traced) or not isinstance(weight, torch.Tensor) or weight.ndim != 2:
        raise ctx.refuse("is no product with a constant matrix from the right", hint=_PRODUCTS)
    return _linear(ctx, x, weight.t())


def einsum(ctx: Context, equation: Any, *operands: Any) -> Traced:
    """``torch.einsum("abc,cd->abd", x, W)``: a sum over the last axis of ``x``, the new one in its place."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands
    terms, _, result = str(equation).replace(" ", "").partition("->")
    named = dict(zip(terms.split(","), given, strict=False))
    x = next((n for n, v in named.items() if isinstance(v, Traced)), "")
    w = next((n for n, v in named.items() if isinstance(v, torch.Tensor) and v.ndim == 2), "")
    new = w.replace(x[-1:], "")
    if len(given) != 2 or len(w) != 2 or len(new) != 1 or new in x or result != x[:-1] + new:
        raise ctx.refuse(f"{equation!r} is no product with a constant matrix over the last axis", hint=_PRODUCTS)
    return _linear(ctx, named[x], named[w] if w == new + x[-1] else named[w].t())


def _linear(ctx: Context, x: Traced, weight: torch.Tensor) -> Traced:
    return layers.linear(SimpleNamespace(weight=weight, bias=None), ctx, x)
