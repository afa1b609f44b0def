"""Weights that a narrower floating-point type holds.

Kernels that read spikes as bits have the value of a spike, its unit u, in the weights. So what has to fit the narrow
type is ``u w``, and a weight stands for such a number n if it is the float32 number nearest to ``n / u``: then n and
``u w`` are apart by no more than float32's own rounding, and are the same wherever u is a power of two.
"""

from __future__ import annotations

import torch


def rounded(weight: torch.Tensor, unit: float, dtype: torch.dtype) -> torch.Tensor:
    """The float32 weights, of the same shape, that stand for the numbers of ``dtype`` nearest to ``unit * weight``.

    Weights beyond the type's range become infinite. Rounding what is rounded changes nothing.
    """
    return ((weight.double() * unit).to(dtype).double() / unit).float()


def in_halves(weight: torch.Tensor, unit: float) -> bool:
    """Whether every weight stands for a number of half precision."""
    return weight.is_floating_point() and torch.equal(rounded(weight, unit, torch.float16), weight)
