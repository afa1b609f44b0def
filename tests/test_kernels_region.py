"""CPU regions against PyTorch, bit for bit: shapes, forms, times, loop orders."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kernels_harness import check, with_tuning

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import TensorRef, neuron
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Source, Tuning

IF = neuron("if", threshold=2.0)
TUNINGS = {
    "pixel": Tuning(),
    "tap": Tuning(order="tap", tile=(2, 3)),
    "word": Tuning(order="word", words=2, tile=(3, 2), block=64),
    "narrow": Tuning(lanes=8, block=64, tile=(2, 2)),
}


def conv(c: int, space: tuple[int, int] = (5, 4), t: int = 3, form: str = "bits", **changes) -> Source:
    settings = {"kernel": (3, 3), "padding": (1, 1), **changes}
    return Source("conv", c, space, t, form, **settings)  # type: ignore[arg-type]


def region(source: Source, channels: int, space: tuple[int, int] = (5, 4), t: int = 3, **changes) -> RegionSpec:
    return RegionSpec(1, t, channels, space, (source,), **{"neuron": IF, "output": "bits", **changes})


@pytest.mark.parametrize("c", [1, 3, 10, 20, 32, 64, 65, 96, 128, 512])
@pytest.mark.parametrize("order", TUNINGS)
def test_channel_counts(c: int, order: str) -> None:
    other = {1: 65, 3: 10, 512: 64}.get(c, 512 - c if c > 400 else c + 7)
    method = "dense" if c in (3, 96) and order != "tap" else "event"
    spec = region(conv(c, method=method), other, tuning=TUNINGS[order])
    assert check(spec, seed=c).any()
    check(replace(region(conv(other), c, tuning=TUNINGS[order]), output="dense", membrane=True, state_io=True), seed=c)
