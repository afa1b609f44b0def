"""Slices and padding: runs of them are one kernel on values that are channels last, and any run gives the same."""

from __future__ import annotations

import random

import pytest
import torch
from graphs import Net, inputs_of
from target_harness import check, kernels

from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.targets.cpu.kernels.move import Reach

CELL = neuron("if", threshold=0.5, max_count=3)


def shortcut(channels: int = 16, wider: int = 32, shape: tuple[int, ...] = (8, 8)) -> Graph:
    """A residual block whose shortcut is every second pixel, with channels of zeros around."""
    net = Net(2)
    x = net.neuron(net.conv(net.input((3, *shape)), channels), CELL)
    y = x
    for axis in range(1, len(shape) + 1):
        y = net.op("slice", y, axis=axis, step=2)
    missing = wider - channels
    y = net.op("pad", y, low=(missing // 2, *[0] * len(shape)), high=(missing - missing // 2, *[0] * len(shape)))
    z = net.conv(net.neuron(net.conv(x, wider, stride=2), CELL), wider)
    return net.output(net.neuron(net.op("add", z, y), CELL))


@pytest.mark.parametrize("numerics", ["fp32", "int"])
@pytest.mark.parametrize(("channels", "wider"), [(16, 32), (5, 12), (70, 70)])
def test_strided_shortcuts_are_one_kernel(numerics: str, channels: int, wider: int) -> None:
    graph = shortcut(channels, wider)
    options = {"calibration": calibrate(graph, *inputs_of(graph))} if numerics == "int" else {}
    network = check(graph, numerics=numerics, **options)
    assert kernels(network).count("move") == 1
    assert not {"slice", "pad"} & set(kernels(network))


def test_moves_of_values_in_bits() -> None:
    net = Net(2)
    x = net.neuron(net.conv(net.input((3, 6, 6)), 70))
    y = net.op("pad", net.op("slice", x, axis=0, start=3, stop=40), low=(0, 1, 2), high=(1, 0, 1))
    network = check(net.output(net.neuron(net.conv(y, 4)), net.neuron(net.conv(x, 4))), density={"sn": 0.01})
    assert "move" in kernels(network)


def test_what_others_read_is_not_skipped() -> None:
    """A run ends where its value has two readers; plain values, and steps over channels, have plain kernels."""
    net = Net(2)
    x = net.neuron(net.conv(net.input((6, 5, 4)), 6), CELL)
    a = net.op("slice", x, axis=1, start=1)
    b = net.op("pad", a, low=(0, 1, 0), high=(0, 0, 0))
    c = net.op("slice", net.op("slice", x, axis=0, step=2), axis=2, start=1, stop=3)
    network = check(net.output(net.op("add", b, x), a, c))
    assert kernels(network).count("move") == 2 and kernels(network).count("slice") == 2


def test_moves_of_signals_in_one_axis_and_none() -> None:
    net = Net(2)
    x = net.neuron(net.conv(net.input((4, 9)), 8), CELL)
    y = net.op("slice", net.op("pad", x, low=(0, 2), high=(3, 0)), axis=1, start=1, step=3)
    z = net.op("pad", net.neuron(net.linear(net.op("flatten", x), 6), CELL), low=(1,), high=(2,))
    check(net.output(net.neuron(net.conv(y, 3)), net.neuron(net.linear(z, 3))))


def test_reaches_compose_as_slices_and_padding_do() -> None:
    draw = random.Random(0)
    for _ in range(300):
        x = torch.arange(1, draw.randint(2, 9))
        reach, wanted = Reach.whole(len(x)), x
        for _ in range(draw.randint(1, 4)):
            if draw.random() < 0.5:
                start, step = draw.randrange(len(wanted)), draw.randint(1, 3)
                stop = draw.randint(start + 1, len(wanted))
                reach, wanted = reach.sliced(start, stop, step), wanted[start:stop:step]
            else:
                before, after = draw.randint(0, 3), draw.randint(0, 3)
                reach, wanted = reach.padded(before, after), torch.nn.functional.pad(wanted, (before, after))
        found = [x[int(reach.source(i))] if reach.first <= i < reach.end else 0 for i in range(reach.size)]
        assert [int(v) for v in found] == wanted.tolist()
