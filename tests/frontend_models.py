"""Shared by the front-end tests: dyadic weights and inputs, and the comparison with a SpikingJelly run."""

from __future__ import annotations

import torch
from torch import nn

STEPS = 64


def dyadic(*shape: int, seed: int = 0, scale: int = 16, low: int = -8, high: int = 24) -> torch.Tensor:
    """Multiples of ``1/scale``, so that sums are exact in float32 in any order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator).to(torch.float32) / scale


def make_dyadic(model: nn.Module, seed: int = 1) -> nn.Module:
    """Every weight and bias a multiple of 1/16, BatchNorm the identity but for dyadic scale and shift."""
    for i, (name, value) in enumerate(sorted(model.named_parameters())):
        if value.ndim or name.endswith(("weight", "bias")):
            value.data = dyadic(*value.shape, seed=seed + i, low=-7, high=9)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = 0.0
            assert module.running_mean is not None
            module.weight.data = dyadic(module.num_features, seed=seed, low=16, high=32)
            module.running_mean.copy_(dyadic(module.num_features, seed=seed))
    return model.eval()
