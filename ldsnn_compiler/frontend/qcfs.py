"""The QCFS activation: a quantised, clipped ReLU that spiking neurons can reproduce without error.

Bu et al. 2022, "Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural networks": train the
network with this activation in place of ReLU, then convert it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.interp.surrogate import rounded


class QCFS(nn.Module):
    """Quantisation-clip-floor-shift: ``y = step * clip(floor((x + step / 2) / step), 0, levels)``.

    There ``step = threshold / levels``.
    Backward, ``floor`` is the identity (straight through), so x and ``threshold`` both learn.

    An IF neuron with soft reset, threshold ``step``, ``v_init = step / 2`` and counts up to ``levels`` does the same
    operations in one timestep, and a binary one with ``threshold`` and ``v_init = threshold / 2`` gives the same mean
    over ``levels`` timesteps of constant input.

    Args:
        levels: number of non-zero values, L in the paper.
        threshold: largest value, lambda in the paper, in the units of x; trained.
    """

    def __init__(self, levels: int, threshold: float = 8.0) -> None:
        if levels < 1 or not threshold > 0:
            message = f"needs levels >= 1 and threshold > 0, not {levels} and {threshold}"
            raise LdsnnError(Problem(message, kind="QCFS"))
        super().__init__()
        self.levels = int(levels)
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    @property
    def step(self) -> Tensor:
        """The value of one level."""
        return self.threshold / self.levels

    def forward(self, x: Tensor) -> Tensor:
        """Quantise ``x`` of any shape."""
        step = self.step
        level = (x + step / 2) / step
        return rounded(level, torch.floor(level)).clamp(0, self.levels) * step

    def extra_repr(self) -> str:
        """For ``print(model)``."""
        return f"levels={self.levels}, threshold={self.threshold.item():g}"
