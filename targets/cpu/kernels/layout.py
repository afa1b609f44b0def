"""Weights in the order the kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldsnn_compiler.targets.cpu.kernels.spec import WORD, RegionSpec, Source, input_range, weight_number, weight_shape

Weights = npt.NDArray[Any]


def pack_weights(spec: RegionSpec, source: Source, weight: torch.Tensor) -> Weights:
    """``[O, I / groups, KH, KW]`` (or ``[O, I]``, ``[O, I / groups, K]``) as :func:`~.spec.weight_shape` asks.

    Blocks of output channels, then kernel positions, then the input channels the block can see, then the block's
    output channels; zeros where a channel does not exist or is of another group. In the source's type: whole numbers
    must fit it.
    """
    taps = weight.detach().reshape(spec.channels, source.channels // source.groups, source.taps)
    dot = spec.dot(source)
    numbers = taps.to(getattr(torch, dot.weights if dot else source.weights)).numpy()
    blocks = np.stack([_block(spec, source, numbers, b) for b in range(spec.blocks)])
    grouped = _grouped(blocks, dot.group, weight_shape(spec, source)[2]) if dot else blocks
    if shift := spec.shift(source):
        sums = blocks.sum((1, 2), dtype=np.int32)
        grouped = np.concatenate([grouped, _correction(-shift * sums, grouped)], axis=1)
    return grouped.view(weight_number(spec, source))


def _correction(sums: Weights, weights: Weights) -> Weights:
    """A further tap of grouped weights, of which the first row holds int32 ``sums`` of each block and channel."""
    row = np.zeros_like(weights[:, :1])
    row[:, 0, 0] = sums.astype(np.int32).view(weights.dtype)
    return row


def _grouped(blocks: Weights, group: int, groups: int) -> Weights:
    """Several input channels side by side for each output channel, so many groups of them."""
    padded = np.pad(blocks, ((0, 0), (0, 0), (0, groups * group - blocks.shape[2]), (0, 0)))
    rows = padded.reshape(*blocks.shape[:2], groups, group, blocks.shape[3])
    return np.ascontiguousarray(rows.swapaxes(3, 4)).reshape(*rows.shape[:3], -1)


def _block(spec: RegionSpec, source: Source, taps: Weights, block: int) -> Weights:
    rows = 1 if spec.is_depthwise(source) else input_range(spec, source, block)[1]
    out = np.zeros((source.taps, rows, spec.block), taps.dtype)
    low, high = block * spec.block, min(spec.channels, (block + 1) * spec.block)
    if spec.is_depthwise(source):
        out[:, 0, : high - low] = taps[low:high, 0].T
        return out
    first = input_range(spec, source, block)[0] * WORD
    per_group_out, per_group_in = spec.channels // source.groups, source.channels // source.groups
    for group in range(low // per_group_out, (high - 1) // per_group_out + 1):
        a, b = max(low, group * per_group_out), min(high, (group + 1) * per_group_out)
        row = group * per_group_in - first
        out[:, row : row + per_group_in, a - low : b - low] = taps[a:b].transpose(2, 1, 0)
    return out


def flattened_weights(weight: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """A linear layer behind a flatten of ``[C, H, W]``, ``[O, C * H * W]``, as a convolution ``[O, C, H, W]``.

    It has kernel (H, W), no padding, and one output pixel, so that its channels-last input needs no transpose.
    """
    return weight.reshape(weight.shape[0], *shape)
