"""Thresholds from data: a streaming histogram of a ReLU's output, and the three ways to read a threshold off it.

``max``         the largest output: nothing is clipped, small outputs take many timesteps to show
``percentile``  the output below which that share of all outputs (zeros included) lies (Rueckauer et al. 2017,
                "Conversion of continuous-valued deep networks to efficient event-driven networks", section 2.2.2)
``mse``         the threshold that minimises the mean squared difference between the output and what an IF neuron makes
                of it in k steps at constant input, ``threshold/k * clip(floor(k x / threshold + 1/2), 0, k)`` (after
                Li et al. 2021, "A free lunch from ANN", who choose thresholds by that error)
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 8192
CANDIDATES = 128
"""Thresholds tried by ``mse``: this many equal steps up to the largest output."""


class Histogram:
    """Counts of non-negative numbers in ``BINS`` equal bins over [0, limit); ``limit`` doubles as larger numbers come.

    Zeros are counted apart, so bins describe the active part. Memory does not grow with the data, and the result does
    not depend on how the data are cut into batches except through the first ``limit``, by at most a bin.
    """

    def __init__(self) -> None:
        self.bins = torch.zeros(BINS, dtype=torch.float64)
        self.limit = 0.0
        self.largest = 0.0
        self.count = 0

    def observe(self, values: Tensor) -> None:
        """Add ReLU outputs of any shape."""
        active = values.detach().flatten().float()
        self.count += active.numel()
        active = active[active > 0]
        if not active.numel():
            return
        self.largest = max(self.largest, float(active.max()))
        self._widen()
        self.bins += torch.histc(active, BINS, 0.0, self.limit).double()

    @property
    def zeros(self) -> float:
        """How many of the numbers were zero."""
        return self.count - float(self.bins.sum())

    def quantile(self, percent: float) -> float:
        """The number below which ``percent`` % of all numbers lie, linear within a bin; 0 if that many were zero."""
        wanted = self.count * percent / 100 - self.zeros
        if wanted <= 0 or not self.largest:
            return 0.0
        below = self.bins.cumsum(0)
        index = min(int(torch.searchsorted(below, wanted)), BINS - 1)
        inside = (wanted - float(below[index] - self.bins[index])) / max(float(self.bins[index]), 1.0)
        return min((index + inside) * self.limit / BINS, self.largest)

    def least_error(self, levels: int) -> float:
        """The threshold whose ``levels``-step IF neuron reproduces the numbers with the least mean squared error."""
        centres = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (self.limit / BINS)
        used = self.bins > 0
        centres, weight = centres[used], self.bins[used]
        errors = [float(((spiking(centres, t, levels) - centres) ** 2 * weight).sum()) for t in self._candidates()]
        return self._candidates()[errors.index(min(errors))] if errors else 0.0

    def _candidates(self) -> list[float]:
        return [self.largest * (i + 1) / CANDIDATES for i in range(CANDIDATES)] if self.largest else []

    def _widen(self) -> None:
        """Double ``limit`` until it exceeds the largest number, merging pairs of bins."""
        if not self.limit:
            self.limit = self.largest * 1.25
        while self.largest >= self.limit:
            merged = self.bins.view(-1, 2).sum(1)
            self.bins = torch.cat([merged, torch.zeros_like(merged)])
            self.limit *= 2


def spiking(x: Tensor, threshold: float, levels: int) -> Tensor:
    """Mean output of an IF neuron (soft reset, ``v_init = threshold / 2``) in ``levels`` steps of constant input x."""
    step = threshold / levels
    return torch.floor(x / step + 0.5).clamp(0, levels) * step
