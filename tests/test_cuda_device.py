"""On a GPU: what the emulated kernels were held against, and the conformance networks."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conformance import compare
from conformance.library import library
from conformance.table import faults
from cuda_emulated import KERNELS, check_network
from graphs import SPIKING, Net, inputs_of, networks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from target_harness import assert_equal, compiled

from ldsnn_compiler.driver import compile
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime import load
from ldsnn_compiler.targets.boards import board

pytestmark = [pytest.mark.cuda, pytest.mark.cuda_compiler]
few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


def example() -> Graph:
    """Convolutions, a pool, a readout."""
    net = Net(8)
    x = net.neuron(net.conv(net.input((3, 8, 8)), 130), SPIKING[4])
    x = net.neuron(net.conv(net.pool(x), 70))
    return net.output(net.op("readout", net.linear(net.op("flatten", x), 10), mode="mean"), x)


@few
@given(net=networks(), kernel=st.sampled_from(KERNELS), batch=st.sampled_from((1, 2, None)))
def test_random_networks_equal_the_interpreter(net: Graph, kernel: str, batch: int | None) -> None:
    check_network(net, board("cuda"), kernel, batch)


@pytest.mark.parametrize("name", ["rtx-30", "rtx-40", "h100"])
def test_a_bundle_for_any_board_runs_here(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    graph = example()
    data = inputs_of(graph)
    compiled(graph, target=name).save(tmp_path / "net.ldsnn")
    network, expected = load(tmp_path / "net.ldsnn"), compiled(graph).run(*data)
    for _ in range(3):  # a CUDA graph is recorded by the first run and replayed by those that follow
        assert_equal("run", network.run(*data), expected)


def test_whole_numbers_equal_the_cpu() -> None:
    graph = example()
    data = inputs_of(graph)
    options = {"numerics": "int", "calibration": calibrate(graph, *data)}
    here, there = compiled(graph, **options), compiled(graph, target="cuda", **options)
    assert_equal("run", there.run(*data), here.run(*data))
    assert_equal("step", there.step(*data), here.step(*data))
    for name, variables in here.state.items():
        assert all(torch.equal(there.state[name][k], value) for k, value in variables.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("name", [pytest.param(n, marks=getattr(pytest.mark, n)) for n in ("spikingjelly", "snntorch")])
def test_networks_conform(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Identical for dyadic weights; for ordinary ones every decision is the same or a flip by rounding, counted."""
    monkeypatch.setattr(compare, "compile", partial(compile, target="cuda"))
    found = library(name)
    outcomes = [compare.hold(found, variant, 4, range(8, 17), 4) for variant in found.variants]
    assert not [fault for outcome in outcomes for fault in faults(outcome)]
