"""Event-driven or on tensor cores: the choice by batch, density and board."""

from __future__ import annotations

import pytest
from graphs import Net
from target_harness import compiled

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.targets.boards import board
from ldsnn_compiler.targets.cuda.cost import Layer
from ldsnn_compiler.targets.cuda.emulate import emulated
from ldsnn_compiler.targets.cuda.gpu import Gpu

#: a convolution of VGG-16 with 512 channels on a map of 4 x 4, T = 8
LAYER = Layer(positions=16, inputs=9 * 512, channels=512, timesteps=8, number_bytes=1, instruction="mma-byte")


def graph() -> Graph:
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 32))
    return net.output(net.neuron(net.conv(x, 64)))


def chosen(batch: int, density: float) -> str:
    """The kernel of the second convolution on an H100."""
    net, name = graph(), "conv2d"
    second = [n for n in net.nodes if n.op.name == name][1]
    source = second.operands[0].node.name
    network = compiled(net, target=emulated(board("h100")), batch=batch, density={source: density})
    (placed,) = [n for n in network.graph.nodes if n.name == second.name]
    assert placed.placement is not None
    return placed.placement.kernel


def test_times_follow_from_the_boards_constants() -> None:
    gpu = Gpu("sm_90", multiprocessors=10, l2_gbs=1000.0, byte_tops=100.0)
    layer = Layer(1, 1000, 64, 16, 1, "mma-byte")
    # 16 rows of 1000 inputs, half of them spikes, 64 bytes each, at 10**6 bytes a microsecond
    assert layer.event_us(gpu, 1, 0.5) == pytest.approx(16 * 1000 * 0.5 * 64 / 1e6)
    # one block of 16 pairs; half of a tenth of 10**14 operations a second
    assert layer.matrix_us(gpu, 1) == pytest.approx(2 * 16 * 64 * 1000 / 5e6)
    # ten blocks take no longer, eleven take another turn
    assert layer.matrix_us(gpu, 10) == pytest.approx(10 * 1000 * 64 / 1e6)


def test_small_batches_walk_spikes_and_large_ones_multiply() -> None:
    gpu = board("h100").gpu
    assert gpu is not None
    choices = {batch: LAYER.prefers_events(gpu, batch, 0.03) for batch in (1, 2, 4, 8, 16, 64, 256)}
    assert choices[1] and not choices[256]
    assert sorted(choices.values(), reverse=True) == list(choices.values()), "there is one crossing"
    assert not LAYER.prefers_events(gpu, 1, 0.5), "many spikes are multiplied at any batch"
    assert LAYER.prefers_events(gpu, 256, 0.001), "hardly any are walked at any batch"


def test_kernels_are_selected_by_the_batch() -> None:
    assert chosen(1, 0.001) == "event"
    assert chosen(64, 0.3) == "dense"


def test_without_tensor_cores_there_is_no_such_choice() -> None:
    net, half, byte = graph(), Gpu("sm_86", half_tflops=1.0), Gpu("sm_86", byte_tops=1.0)
    first, second = (Layer.of(net, n) for n in net.nodes if n.op.name == "conv2d")
    assert second.instruction == "mma-half" and second.number_bytes == 2
    assert second.fits(half) and not second.fits(byte) and not second.fits(Gpu("sm_86"))
    assert not first.fits(half), "two inputs are too few, and they are no spikes"
