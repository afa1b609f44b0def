"""Parameters of neurons as libraries keep them: a number, one per channel, or one per neuron."""

from __future__ import annotations

import torch

from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.traced import Traced
from ldsnn_compiler.ir.neuron import TensorRef


def parameter(ctx: Context, x: Traced, name: str, value: torch.Tensor) -> float | TensorRef:
    """A parameter that its library broadcasts over neurons ``[N, *shape]``, those of ``x``.

    Raises:
        Refused: it does not broadcast.
    """
    shape, value = x.value.type.shape, value.detach().float()
    if value.numel() == 1:
        return float(value)
    try:
        whole = value.broadcast_to((1, *shape))[0]
    except RuntimeError:
        raise ctx.refuse(
            f"has shape {list(value.shape)}, which does not fit neurons of shape {list(shape)}",
            attribute=name,
            hint="one value per neuron, or shaped [channels, 1, 1]",
        ) from None
    channels = whole.flatten(1)[:, :1] if whole.ndim > 1 else whole[:, None]
    alike = bool((whole.reshape(shape[0], -1) == channels).all())
    return ctx.tensor(name, channels[:, 0] if alike else whole.clone())
