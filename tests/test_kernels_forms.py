"""Conversions between forms, and pools on bits, against numpy and PyTorch."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from kernels_harness import channels_first, channels_last, compiled, from_bits, to_bits

from ldsnn_compiler.ir.types import Signal, Stream
from ldsnn_compiler.targets.cpu import forms
from ldsnn_compiler.targets.cpu.kernels import pool


def run(function, x: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    y = tvm.runtime.tensor(np.full(shape, 7, dtype))
    compiled(function)(tvm.runtime.tensor(np.ascontiguousarray(x)), y)
    return y.numpy()


@pytest.mark.parametrize(("channels", "planes", "unit"), [(1, 1, 1.0), (10, 5, 0.3), (64, 1, 0.5), (130, 3, 1.0)])
@pytest.mark.parametrize("batch", [None, 2])
def test_every_form_becomes_every_other(channels: int, planes: int, unit: float, batch: int | None) -> None:
    counts = np.random.default_rng(0).integers(0, 2**planes, (2, 3, 6, channels))
    dense = counts.astype(np.float32) * np.float32(unit)
    type = Stream(3, Fraction(1), (channels, 2, 3), signal=Signal(2**planes - 1, unit))
    values = {
        forms.CANONICAL: channels_first(torch.from_numpy(dense), (2, 3)).numpy(),
        forms.DENSE: dense,
        forms.BITS: to_bits(counts, planes),
    }
    for source, target in permutations(values, 2):
        function, wanted = forms.conversion(type, 3, source, target).build(batch), values[target]
        assert (run(function, values[source], wanted.shape, str(wanted.dtype)) == wanted).all(), (source, target)


@pytest.mark.parametrize(("channels", "planes"), [(10, 5), (130, 9)])
def test_whole_numbers_in_every_form(channels: int, planes: int) -> None:
    """int32 for the user, bytes in dense form where the counts fit them."""
    counts = np.random.default_rng(0).integers(0, 2**planes, (2, 3, 6, channels)).astype(np.int32)
    type = Stream(3, Fraction(1), (channels, 2, 3), "int32", Signal(2**planes - 1))
    values = {
        forms.CANONICAL: channels_first(torch.from_numpy(counts), (2, 3)).numpy(),
        forms.DENSE: counts.astype(np.uint8 if planes <= 8 else np.int32),
        forms.BITS: to_wide_bits(counts, planes),
    }
    for source, target in permutations(values, 2):
        function, wanted = forms.conversion(type, 3, source, target).build(2), values[target]
        assert (run(function, values[source], wanted.shape, str(wanted.dtype)) == wanted).all(), (source, target)


def to_wide_bits(counts: np.ndarray, planes: int) -> np.ndarray:
    """:func:`to_bits` of more than 8 planes."""
    return np.concatenate([to_bits((counts >> k) & 1, 1) for k in range(planes)], axis=2)


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


@pytest.mark.parametrize(("steps", "planes"), [(2, 1), (8, 1), (32, 1), (3, 3)])
def test_sums_over_timesteps(steps: int, planes: int) -> None:
    spec = pool.PoolSpec(None, 2, 70, (3, 3), planes, (1, 1), (1, 1), steps=steps)
    counts = np.random.default_rng(steps).integers(0, 2**planes, (2, 2 * steps, 9, 70))
    bits, want = to_bits(counts, planes), counts.reshape(2, 2, steps, 9, 70).sum(2)
    found = run(pool.sum_pool(spec), bits, (2, 2, spec.sum_planes, 9, bits.shape[-1]), "uint64")
    assert (from_bits(found, 70) == want).all()
