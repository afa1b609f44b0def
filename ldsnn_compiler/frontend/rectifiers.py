"""The import table of a conversion: ReLU in all spellings becomes a ``neuron`` node, other activations are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.qcfs import QCFS
from ldsnn_compiler.frontend.registry import FrontEnd
from ldsnn_compiler.frontend.traced import BATCH, Traced
from ldsnn_compiler.ir.neuron import Neuron, neuron


@dataclass(frozen=True)
class Rectifier:
    """One activation of the network: ReLU, with ``ceiling`` ReLU6, with ``levels`` QCFS (its ceiling is lambda)."""

    ceiling: float | None = None
    levels: int | None = None

    @property
    def conventional(self) -> Neuron:
        """The activation itself, as a neuron that keeps nothing from step to step."""
        if self.levels is not None:
            return self.graded
        return neuron("relu") if self.ceiling is None else neuron("relu", clipped=True, ceiling=self.ceiling)

    @property
    def graded(self) -> Neuron:
        """QCFS as an IF neuron that emits all its levels in one timestep: the same operations in the same order."""
        assert self.ceiling is not None and self.levels is not None
        step = torch.tensor(self.ceiling) / self.levels
        return integrate_and_fire(step.item(), self.levels)


def integrate_and_fire(threshold: float, max_count: int = 1) -> Neuron:
    """IF with soft reset that starts at half its threshold and emits ``threshold`` a spike, in the ANN's scale.

    The numbers are rounded to float32 here, so that they are what they are printed as.
    """
    value = torch.tensor(threshold)
    return neuron(
        "if", threshold=value.item(), spike_value=value.item(), v_init=(value / 2).item(), max_count=max_count
    )


Choose = Callable[[str, Rectifier], Neuron]
"""``choose(path, rectifier)``: the neuron to put at that place."""


def front_end(choose: Choose) -> FrontEnd:
    """The table for one import; it goes before torch's own, which refuses ReLU."""

    def place(ctx: Context, x: Any, rectifier: Rectifier) -> Traced:
        x = ctx.expect(x, (BATCH,))
        cell = choose(ctx.site.path, rectifier)
        return Traced(ctx.emit("neuron", ctx.hold(x.value), neuron=cell).result, x.axes, stepping=True)

    def relu(ctx: Context, x: Any, inplace: bool = False) -> Traced:
        return place(ctx, x, Rectifier())

    def relu6(ctx: Context, x: Any, inplace: bool = False) -> Traced:
        return place(ctx, x, Rectifier(ceiling=6.0))

    def qcfs(m: QCFS, ctx: Context, x: Any) -> Traced:
        return place(ctx, x, Rectifier(ceiling=m.threshold.item(), levels=m.levels))

    return FrontEnd(
        "conversion",
        modules={
            nn.ReLU: lambda m, ctx, x: relu(ctx, x),
            nn.ReLU6: lambda m, ctx, x: relu6(ctx, x),
            QCFS: qcfs,
        },
        functions={function: relu for function in (F.relu, F.relu_, torch.relu, torch.relu_)} | {F.relu6: relu6},
        methods={"relu": relu, "relu_": relu},
        refused=REFUSED,
    )


_HINT = "spiking neurons stand for ReLU, ReLU6 and QCFS only: use one of these and train again"
REFUSED: Mapping[Any, str] = dict.fromkeys(
    (
        nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardswish,
        nn.Tanh, nn.Hardtanh, nn.Tanhshrink, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.LeakyReLU,
        nn.PReLU, nn.RReLU, nn.GLU, nn.Threshold,
        F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.sigmoid, F.logsigmoid, F.hardsigmoid, F.hardswish, F.tanh,
        F.hardtanh, F.tanhshrink, F.softplus, F.softsign, F.softshrink, F.hardshrink, F.leaky_relu, F.prelu, F.rrelu,
        F.glu, F.threshold, torch.sigmoid, torch.tanh, torch.clamp, "sigmoid", "sigmoid_", "tanh", "tanh_", "clamp",
        "clamp_",
    ),
    _HINT,
)  # fmt: skip
