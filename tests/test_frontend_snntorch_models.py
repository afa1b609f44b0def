"""The networks of snnTorch's tutorials, rebuilt from their published layer lists, with random weights.

Import, compile, the same spikes and membranes as snnTorch's own run. Weights are multiples of 1/16, so that sums are
exact in every order and a comparison is one of bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from frontend_models import dyadic, make_dyadic
from torch import Tensor, nn

from ldsnn_compiler.driver import compile
from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.verify import verify

pytestmark = pytest.mark.snntorch

try:
    import snntorch as snn
    from snntorch import utils
except ModuleNotFoundError:  # the marker skips every test of this file
    snn = utils = None

STEPS = 8
Outputs = tuple[Tensor, ...]


class FullyConnected(nn.Module):
    """Tutorials 3 and 5: a static image into 784-1000-10 ``Leaky`` neurons; spikes and membranes of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(784, 1000), snn.Leaky(beta=0.95)
        self.fc2, self.lif2 = nn.Linear(1000, 10), snn.Leaky(beta=0.95)

    def forward(self, x: Tensor) -> Outputs:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for _step in range(STEPS):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class SecondOrder(nn.Module):
    """Tutorial 4's neurons in one network: ``Lapicque``, ``Synaptic`` and ``Alpha``."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(28, 40), snn.Lapicque(R=5, C=0.002, time_step=1e-3)
        self.fc2, self.lif2 = nn.Linear(40, 30), snn.Synaptic(alpha=0.9, beta=0.8)
        self.fc3, self.lif3 = nn.Linear(30, 10), snn.Alpha(alpha=0.8, beta=0.7)

    def forward(self, x: Tensor) -> Tensor:
        mem1 = self.lif1.init_lapicque()
        syn2, mem2 = self.lif2.init_synaptic()
        syn_exc, syn_inh, mem3 = self.lif3.init_alpha()
        spk_rec = []
        for step in range(STEPS):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
            spk3, syn_exc, syn_inh, mem3 = self.lif3(self.fc3(spk2), syn_exc, syn_inh, mem3)
            spk_rec.append(spk3)
        return torch.stack(spk_rec)


class Population(nn.Module):
    """The tutorial on population codes: 500 output neurons for ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(784, 128),
            snn.Leaky(beta=0.9, init_hidden=True),
            nn.Linear(128, 500),
            snn.Leaky(beta=0.9, init_hidden=True, output=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self.net)
        return torch.stack([self.net(x)[0] for _ in range(STEPS)])


class Regression(nn.Module):
    """Regression, part I: two layers of spikes, and a membrane without reset that is the answer."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.fc_in, self.lif_in = nn.Linear(1, hidden), snn.Leaky(beta=0.75, threshold=0.5)
        self.fc_hidden, self.lif_hidden = nn.Linear(hidden, hidden), snn.Leaky(beta=0.5, learn_beta=True)
        self.fc_out = nn.Linear(hidden, 1)
        self.li_out = snn.Leaky(beta=0.875, threshold=1.0, learn_beta=True, reset_mechanism="none")

    def forward(self, x: Tensor) -> Tensor:
        mem_1, mem_2, mem_3 = self.lif_in.init_leaky(), self.lif_hidden.init_leaky(), self.li_out.init_leaky()
        mem_rec = []
        for step in range(STEPS):
            spk_1, mem_1 = self.lif_in(self.fc_in(x[step]), mem_1)
            spk_2, mem_2 = self.lif_hidden(self.fc_hidden(spk_1), mem_2)
            _, mem_3 = self.li_out(self.fc_out(spk_2), mem_3)
            mem_rec.append(mem_3)
        return torch.stack(mem_rec)


def convolutional(pool_first: bool) -> nn.Module:
    """Tutorial 6 (images) pools before the neurons, tutorial 7 (event frames) behind them."""
    channels, wide, side = (1, 64, 4) if pool_first else (2, 32, 5)

    def block(into: int, out: int) -> list[nn.Module]:
        pool, lif = nn.MaxPool2d(2), snn.Leaky(beta=0.5, init_hidden=True)
        return [nn.Conv2d(into, out, 5), *((pool, lif) if pool_first else (lif, pool))]

    last = snn.Leaky(beta=0.5, init_hidden=True, output=True)
    head = [nn.Flatten(), nn.Linear(wide * side * side, 10), last]
    return nn.Sequential(*block(channels, 12), *block(12, wide), *head)


class Looped(nn.Module):
    """The tutorials' ``forward_pass`` around a ``Sequential`` of one timestep."""

    def __init__(self, net: nn.Module, static: bool) -> None:
        super().__init__()
        self.net, self.static = net, static

    def forward(self, x: Tensor) -> Outputs:
        utils.reset(self.net)
        spk_rec, mem_rec = [], []
        for step in range(STEPS):
            spk_out, mem_out = self.net(x if self.static else x[step])
            spk_rec.append(spk_out)
            mem_rec.append(mem_out)
        return torch.stack(spk_rec), torch.stack(mem_rec)


Case = tuple[Callable[[], nn.Module], tuple[int, ...]]
MODELS: dict[str, Case] = {
    "fully connected": (FullyConnected, (2, 784)),
    "second order": (SecondOrder, (STEPS, 2, 28)),
    "population": (Population, (2, 784)),
    "regression": (Regression, (STEPS, 2, 1)),
    "convolutional": (lambda: Looped(convolutional(True), True), (2, 1, 28, 28)),
    "event frames": (lambda: Looped(convolutional(False), False), (STEPS, 2, 2, 32, 32)),
}
"""Name -> model, shape of its input."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("name", MODELS)
def test_tutorial_networks(name: str) -> None:
    build, shape = MODELS[name]
    model, x = make_dyadic(build()), dyadic(*shape)
    graph = trace(model, x)
    verify(graph)
    with torch.no_grad():
        wanted = tuples(model(x))
        _same(wanted, tuples(Interpreter(graph)(x)))
        _same(wanted, tuples(compile(graph, batch=2)(x)))
    emitting = wanted[0]
    assert float(emitting.ne(0).float().mean()) > 0.01 and graph.base_timesteps == STEPS
    _layers(graph, model)


def tuples(found: Any) -> Outputs:
    return found if isinstance(found, tuple) else (found,)


def _same(wanted: Outputs, found: Outputs) -> None:
    assert len(wanted) == len(found)
    for theirs, ours in zip(wanted, found, strict=True):
        assert torch.equal(theirs, ours), int((theirs != ours).sum())


def _layers(graph: Graph, model: nn.Module) -> None:
    """One neuron node for each neuron of the library, at its path."""
    neurons = {path for path, m in model.named_modules() if isinstance(m, snn.SpikingNeuron)}
    assert {node.path for node in graph.of("neuron")} == neurons
