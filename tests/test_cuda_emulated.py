"""Whole networks for a GPU, run on the CPU; see :mod:`cuda_emulated` for more of them."""

from __future__ import annotations

import pytest
from cuda_emulated import KERNELS, check_network, check_networks, on_tensor_cores, pipeline
from graphs import SPIKING, Net, inputs_of
from target_harness import assert_equal, compiled

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.targets.boards import board
from ldsnn_compiler.targets.cuda.emulate import emulated


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_networks_equal_the_interpreter(seed: int) -> None:
    check_networks(5, seed)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("batch", [2, None])
def test_cycles_pools_and_readouts(kernel: str, batch: int | None) -> None:
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 70), SPIKING[4])
    x = net.recurrent(net.linear(net.op("flatten", net.pool(x)), 5))
    graph = net.output(net.op("readout", net.linear(x, 3), mode="mean"), x)
    check_network(graph, emulated(board("rtx-30")), kernel, batch)


@pytest.mark.parametrize("kernel", KERNELS)
def test_whole_numbers_equal_the_interpreter(kernel: str) -> None:
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 70))
    x = net.neuron(net.conv(net.pool(x), 9))
    graph = net.output(net.op("readout", net.linear(net.op("flatten", x), 3), mode="mean"))
    data = inputs_of(graph)
    options = {"numerics": "int", "calibration": calibrate(graph, *data), "pipeline": pipeline(kernel)}
    with on_tensor_cores(kernel == "matrix"):
        network = compiled(graph, target=emulated(board("h100")), **options)
    assert network.settings.numerics == "int"
    assert_equal("run", network.run(*data), Interpreter(network.graph).run(*data))


def test_only_boards_with_a_gpu_are_emulated() -> None:
    with pytest.raises(LdsnnError, match="no GPU"):
        emulated(board("x86-64-v3"))
