"""Networks that nobody here wrote: those of Norse's tutorials and of ``norse.torch.models``, with random weights.

Import, compile, the same values as Norse's own run. Dyadic weights keep sums exact in every order, so a comparison is
one of bits.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frontend_models import dyadic, make_dyadic
from norse_models import lif, lsnn, snn
from torch import Tensor, nn

from ldsnn_compiler.driver import compile
from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.verify import verify

pytestmark = pytest.mark.norse
STEPS = 8


def mnist_conv() -> nn.Module:
    """The convolutional network for MNIST as a ``SequentialState`` of cells."""
    return snn.SequentialState(
        nn.Conv2d(1, 20, 5, 1),
        snn.LIFCell(lif(v_th=0.5)),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(20, 50, 5, 1),
        snn.LIFCell(lif(v_th=0.5)),
        nn.MaxPool2d(2, 2),
        nn.Flatten(1),
        nn.Linear(800, 500),
        snn.LIFCell(lif(v_th=0.5)),
        nn.Linear(500, 10, bias=False),
        snn.LICell(),
    )


class RecurrentMnist(nn.Module):
    """The first tutorial: encoded pixels into recurrent LIF neurons, a leaky readout, the largest voltage over time."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = snn.ConstantCurrentLIFEncoder(STEPS)
        self.l1 = snn.LIFRecurrentCell(784, 100, lif(v_th=0.5, alpha=100), dt=0.001)
        self.fc_out = nn.Linear(100, 10, bias=False)
        self.out = snn.LICell(dt=0.001)

    def forward(self, x: Tensor) -> Tensor:
        s1 = so = None
        voltages = []
        spikes = self.encoder(x)
        for ts in range(spikes.shape[0]):
            z = spikes[ts, :, :, :].view(-1, 784)
            z, s1 = self.l1(z, s1)
            vo, so = self.out(self.fc_out(z), so)
            voltages += [vo]
        largest, _ = torch.max(torch.stack(voltages), 0)
        return largest


class Memory(nn.Module):
    """The store-and-recall task: LSNN neurons with recurrence, a linear leaky readout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = snn.LSNNRecurrentCell(20, 32, lsnn(v_th=0.5, tau_adapt_inv=1 / 1.2))
        self.readout = snn.LILinearCell(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        outputs, state, readout = x.new_zeros(x.shape[0], x.shape[1], 2), None, None
        for ts in range(x.shape[0]):
            z, state = self.layer(x[ts], state)
            outputs[ts], readout = self.readout(z, readout)
        return outputs


def agree(model: nn.Module, x: Tensor) -> tuple[Graph, Tensor]:
    """Interpreted and compiled equal Norse's own run; the graph and what Norse gives are returned."""
    graph = trace(model, x)
    verify(graph)
    with torch.no_grad():
        result = model(x)
        wanted: Any = result[0] if isinstance(result, tuple) else result
        assert torch.equal(Interpreter(graph)(x), wanted)
        assert torch.equal(compile(graph, batch=x.shape[1] if x.ndim == 5 else x.shape[0])(x), wanted)
    assert wanted.count_nonzero() > wanted.numel() / 4
    return graph, wanted


@pytest.mark.slow
def test_the_convolutional_network_for_mnist() -> None:
    model, x = make_dyadic(snn.Lift(mnist_conv())), dyadic(STEPS, 2, 1, 28, 28)
    graph, _ = agree(model, x)
    assert [n.path for n in graph.of("neuron")] == [f"lifted_module.{i}" for i in (1, 4, 8, 10)]


def test_the_first_tutorial() -> None:
    graph, _ = agree(make_dyadic(RecurrentMnist()), 4 * dyadic(3, 1, 28, 28).clamp(min=0))
    assert [n.path for n in graph.of("neuron")] == ["encoder", "l1", "out"]


def test_the_memory_task() -> None:
    model, x = make_dyadic(Memory()), 2 * dyadic(24, 3, 20)
    with torch.no_grad():
        assert torch.equal(Interpreter(trace(model, x))(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ConvNet", "ConvNet4"])
def test_the_networks_of_the_mnist_task(name: str) -> None:
    from norse.torch.models import conv

    graph, _ = agree(make_dyadic(getattr(conv, name)()), 4 * dyadic(STEPS, 2, 1, 28, 28))
    assert [n.path for n in graph.of("neuron")] == ["lif0", "lif1", "lif2", "out"]


@pytest.mark.slow
def test_vgg() -> None:
    """Layers over time, each handing its state to a ``Lift`` that ignores it."""
    from norse.torch.models.vgg import make_layers

    features = make_layers([8, "M", 16, 16, "M"], batch_norm=True)
    head = nn.Sequential(
        snn.Lift(nn.Flatten()), snn.Lift(nn.Linear(16 * 4 * 4, 12)), snn.LIF(), snn.Lift(nn.Linear(12, 5))
    )
    agree(make_dyadic(nn.Sequential(features, head)), 8 * dyadic(STEPS, 2, 3, 16, 16))


@pytest.mark.slow
def test_mobilenet_blocks() -> None:
    """Depthwise convolutions and shortcuts around blocks that do not spike."""
    from norse.torch.models.mobilenet import InvertedResidual

    block = InvertedResidual(8, 8, 1, 2, nn.BatchNorm2d)
    agree(
        make_dyadic(nn.Sequential(snn.Lift(nn.Conv2d(2, 8, 3)), snn.LIF(), snn.Lift(nn.Identity()), block)),
        8 * dyadic(STEPS, 2, 2, 9, 9),
    )
