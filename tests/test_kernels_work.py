"""What work is reckoned to cost: which regions and pools are dealt out to threads, and what counts cost events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from graphs import Net
from kernels_harness import check_many

from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.targets.boards import board
from ldsnn_compiler.targets.cost import Synapses
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Source, region, tuned
from ldsnn_compiler.targets.cpu.kernels.pool import PoolSpec, sum_pool


def layer(batch: int | None, size: int, method: str = "dense") -> RegionSpec:
    """A convolution of spikes and its neurons."""
    source = Source("conv", 70, (size, size), 2, form="bits", kernel=(3, 3), padding=(1, 1), method=method)  # type: ignore[arg-type]
    return tuned(RegionSpec(batch, 2, 66, (size, size), (source,), neuron("if"), output="bits"))


def is_dealt(function: object) -> bool:
    """Whether its outermost loop runs on several threads."""
    return "T.parallel" in function.script()  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["event", "dense"])
def test_small_regions_are_one_threads(method: str) -> None:
    assert not is_dealt(region(layer(1, 1, method)))
    assert is_dealt(region(layer(1, 16, method)))
    assert is_dealt(region(layer(64, 1, method)))
    assert is_dealt(region(layer(None, 1, method)))  # a batch that is not known yet


def test_small_pools_are_one_threads() -> None:
    pool = PoolSpec(1, 1, 64, (4, 4), 1, (2, 2), (2, 2))
    assert not is_dealt(sum_pool(pool))
    assert is_dealt(sum_pool(replace(pool, timesteps=64, space=(32, 32))))
    assert is_dealt(sum_pool(replace(pool, batch=None)))


def test_regions_of_one_thread_compute_the_same() -> None:
    check_many([layer(2, 1), layer(2, 1, "event"), layer(1, 2, "event")])


def test_counts_make_events_dearer() -> None:
    """Read off their bit planes and multiplied by; a pool of spikes leaves most of them alone."""
    machine = board("znver4")
    spikes, counts = Synapses(1000, 64, whole=True), Synapses(1000, 64, whole=True, planes=6)
    assert counts.event_ns(machine, 0.3) > 2 * spikes.event_ns(machine, 0.3)
    assert counts.dense_ns(machine) == spikes.dense_ns(machine)
    net = Net(4)
    x = net.input((2, 8, 8))
    graded = net.conv(net.neuron(x, neuron("if", max_count=20)), 2)
    pooled = net.conv(net.pool(net.neuron(graded)), 2)
    net.output(net.neuron(pooled))
    assert [Synapses.of(net.graph, v.node, v.node.operands[0]).planes for v in (graded, pooled)] == [5, 1]
