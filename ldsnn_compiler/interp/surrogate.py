"""Comparisons and rounding that are exact forward and useful backward, so that a scheduled graph can be fine-tuned."""

from __future__ import annotations

from typing import Any

import torch

#: slope of the arctangent surrogate (SpikingJelly's default, Fang et al. 2021)
ALPHA = 2.0


class _Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, strict: bool) -> torch.Tensor:
        ctx.save_for_backward(x)
        return (x > 0 if strict else x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        return ALPHA / 2 / (1 + (torch.pi / 2 * ALPHA * x) ** 2) * grad, None


def heaviside(x: torch.Tensor, strict: bool = False) -> torch.Tensor:
    """1 where x >= 0 (x > 0 if strict), else 0; backward the derivative of ``arctan(pi/2 alpha x) / pi + 1/2``."""
    return _Heaviside.apply(x, strict)  # type: ignore[no-any-return,no-untyped-call]


def rounded(x: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """``exact`` forward, the identity backward (straight-through), for floor and ceil."""
    return x + (exact - x).detach() if x.requires_grad else exact
