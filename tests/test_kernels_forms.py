"""Packing, unpacking, transposing and pooling, against numpy and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from kernels_harness import channels_first, channels_last, compiled, from_bits, to_bits

from ldsnn_compiler.targets.cpu.kernels import pack, pool


def run(function, x: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    y = tvm.runtime.tensor(np.full(shape, 7, dtype))
    compiled(function)(tvm.runtime.tensor(np.ascontiguousarray(x)), y)
    return y.numpy()


@pytest.mark.parametrize(("channels", "planes", "unit"), [(1, 1, 1.0), (10, 5, 0.3), (64, 1, 0.5), (130, 3, 1.0)])
@pytest.mark.parametrize("batch", [None, 2])
def test_pack_and_unpack(channels: int, planes: int, unit: float, batch: int | None) -> None:
    counts = np.random.default_rng(0).integers(0, 2**planes, (2, 3, 6, channels))
    dense = counts.astype(np.float32) * np.float32(unit)
    bits = to_bits(counts, planes)
    assert (run(pack.pack(batch, 3, 6, channels, planes, unit), dense, bits.shape, "uint64") == bits).all()
    assert (run(pack.unpack(batch, 3, 6, channels, planes, unit), bits, dense.shape, "float32") == dense).all()


@pytest.mark.parametrize("batch", [None, 3])
def test_transposes(batch: int | None) -> None:
    x = torch.randn(2, 3, 5, 7, 3)
    last = channels_last(x).numpy()
    flat = x.flatten(3).numpy()
    assert (run(pack.to_channels_last(batch, 2, 5, 21), flat, last.shape, "float32") == last).all()
    assert (run(pack.to_channels_first(batch, 2, 5, 21), last, flat.shape, "float32") == flat).all()


@pytest.mark.parametrize(
    ("space", "kernel", "stride", "padding"),
    [((4, 4), (2, 2), (2, 2), (0, 0)), ((7, 5), (3, 3), (2, 2), (1, 1)), ((1, 9), (1, 3), (1, 3), (0, 0))],
)
@pytest.mark.parametrize(("channels", "planes"), [(20, 1), (64, 2), (100, 5)])
def test_pools(space, kernel, stride, padding, channels: int, planes: int) -> None:
    spec = pool.PoolSpec(None, 2, channels, space, planes, kernel, stride, padding)
    counts = np.random.default_rng(1).integers(0, 2**planes, (2, 2, space[0] * space[1], channels))
    x = channels_first(torch.from_numpy(counts).float(), space).flatten(0, 1)
    area = kernel[0] * kernel[1]
    cases = {
        pool.sum_pool: (F.avg_pool2d(x, kernel, stride, padding) * area, spec.sum_planes),
        pool.max_pool: (F.max_pool2d(x, kernel, stride, padding), planes),
    }
    for build, (y, out_planes) in cases.items():
        want = channels_last(y.round().unflatten(0, (2, 2))).numpy()
        bits = to_bits(counts, planes)
        shape = (2, 2, out_planes, *bits.shape[3:][:0], want.shape[2], bits.shape[-1])
        assert (from_bits(run(build(spec), bits, shape, "uint64"), channels) == want).all()
