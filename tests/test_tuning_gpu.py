"""Tuning for a GPU: ways to cut regions into blocks, on one that is emulated. Times are made up, results are not."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from cuda_emulated import on_tensor_cores, pipeline
from graphs import Net, inputs_of

from ldsnn_compiler.driver import compile
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime.compiled import Compiled
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.targets.boards import board
from ldsnn_compiler.targets.cpu.kernels import Tuning
from ldsnn_compiler.targets.cuda.emulate import emulated
from ldsnn_compiler.targets.cuda.kernels.launch import Launch
from ldsnn_compiler.tuning.bench import DeviceBench
from ldsnn_compiler.tuning.database import Comparison
from ldsnn_compiler.tuning.launches import Launches
from ldsnn_compiler.tuning.regions import Region, regions
from ldsnn_compiler.tuning.tune import tune

MACHINE = emulated(board("h100"))


def network() -> Graph:
    """Two convolutions, wide enough for two blocks of channels."""
    net = Net(4, seed=3)
    x = net.neuron(net.conv(net.input((3, 5, 5)), 70))
    return net.output(net.neuron(net.conv(x, 70)))


def compiled(kernel: str, numerics: str = "fp32") -> Compiled:
    """For an emulated H100, whatever is in a database."""
    graph = network()
    ranges = {"numerics": "int", "calibration": calibrate(graph, *inputs_of(graph))} if numerics == "int" else {}
    with on_tensor_cores(kernel == "matrix"):
        return compile(graph, target=MACHINE, batch=2, threads=1, tuned=False, pipeline=pipeline(kernel), **ranges)  # type: ignore[arg-type]


def last(network_: Compiled) -> tuple[Region, Launches]:
    """The region that reads spikes, and its launches."""
    region = regions(network_.graph, MACHINE, "run")[-1]
    assert MACHINE.gpu is not None
    return region, Launches(replace(region.spec, batch=2), MACHINE.gpu)


@pytest.mark.parametrize(
    ("kernel", "numerics", "axes"),
    [
        ("event", "fp32", {"tile", "rows", "width", "unroll"}),
        ("event", "int", {"tile", "rows", "width", "unroll", "splits"}),
        ("dense", "fp32", {"tile", "matrices"}),
        ("dense", "int", {"tile", "matrices", "splits"}),
    ],
)
def test_every_launch_gives_the_same_bits(kernel: str, numerics: str, axes: set[str]) -> None:
    network_ = compiled(kernel, numerics)
    region, launches = last(network_)
    assert set(launches.axes) == axes
    dice, bench = random.Random(0), DeviceBench(network_, lambda loaded, cold: 1.0)
    near, far = list(launches.neighbours(region.spec.tuning)), [launches.draw(dice) for _ in range(2)]
    assert len({t.launch for t in near}) == len(near) >= len(axes) and region.spec.tuning not in near
    for tuning in {*near, *far}:
        assert bench.compare(region, tuning, 1).wrong == "", Launch(*tuning.launch)


def test_a_step_and_back_is_where_it_began() -> None:
    region, launches = last(compiled("event"))
    usual = region.spec.tuning
    assert all(usual in set(launches.neighbours(near)) for near in launches.neighbours(usual))


@dataclass
class MadeUp:
    """A bench that computes times: the more positions a block takes, the better."""

    def compare(self, region: Region, tuning: Tuning, rounds: int) -> Comparison:
        tile = tuning.launch[0] if tuning.launch else 1
        pairs = ((1.0, 1.0 / tile),) * rounds
        return Comparison(pairs, pairs)


def test_what_wins_is_compiled_and_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDSNN_CACHE", str(tmp_path))
    usual = compiled("event")
    found = tune(usual, trials=4, bench=MadeUp())
    won = {row.region.key: row.tuning for row in found.rows if row.tuning}
    assert won and all(tuning.launch[0] > 1 for tuning in won.values())
    again = compile(network(), target=MACHINE, batch=2, threads=1, pipeline=pipeline("event"))
    assert again.settings.tunings == won
    given = inputs_of(usual.graph)
    assert torch.equal(again.run(*given)[0], usual.run(*given)[0])


class Elsewhere:
    """A device that takes what it is given, and runs nothing."""

    def use(self, threads: int) -> None: ...

    def load(self, library: Library) -> Library:
        return library

    def put(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.cuda_compiler
def test_a_region_alone_is_compiled_for_a_gpu() -> None:
    network_ = compile(network(), target="h100", batch=2, tuned=False)
    network_.device = Elsewhere()  # type: ignore[assignment]
    region = regions(network_.graph, board("h100"), "run")[-1]
    loaded = DeviceBench(network_)._loaded(region, region.spec.tuning)
    assert loaded.module.built is not None and loaded.arguments and loaded.results
