"""Compiled code equals Sinabs' own run, bit for bit: whole, streamed, at any batch; every variant in one network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from frontend_models import STEPS, dyadic, make_dyadic
from sinabs_models import VARIANTS, agree, assert_same_state, inputs, plain, recurrent, reset
from torch import Tensor, nn

from ldsnn_compiler.driver import compile
from ldsnn_compiler.frontend import trace

pytestmark = pytest.mark.sinabs

try:
    import sinabs
    from sinabs.from_torch import from_model
except ModuleNotFoundError:  # the marker skips every test of this file
    sinabs = from_model = None

#: one of each template, reset and count; the others differ in what is not recurrent
RECURRENT = ["iaf_", "iaf_single_reset_floor", "iaf_synapse", "lif_per_neuron", "lif_unnormed", "alif_synapse"]


class SideBySide(nn.Module):
    """One layer's current into a neuron of each variant."""

    def __init__(self, make: Callable[[str], nn.Module], variants: Iterable[str]) -> None:
        super().__init__()
        self.fc = make_dyadic(nn.Linear(5, 6))
        self.neurons = nn.ModuleDict({name: make(name) for name in variants})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        current = self.fc(x)
        return {name: neuron(current) for name, neuron in self.neurons.items()}


@pytest.mark.slow
@pytest.mark.parametrize("make", [plain, recurrent])
def test_every_variant_whole_and_streamed_at_any_batch(make: Callable[[str], nn.Module]) -> None:
    """The batch may change after compiling: nothing of a graph depends on it."""
    model = SideBySide(make, VARIANTS if make is plain else RECURRENT).eval()
    graph = trace(model, inputs(2, STEPS))
    compiled = compile(graph, batch=None)
    for batch in (3, 1, 5):
        reset(model)
        x = inputs(batch, STEPS)
        with torch.no_grad():
            theirs = model(x)
        ours = compiled(x)
        for name, mine in zip(theirs, ours, strict=True):
            assert torch.equal(mine, theirs[name]), name
        compiled.reset()
        steps = [compiled.step(part) for part in x.transpose(0, 1).split(16)]
        for i, name in enumerate(theirs):
            assert torch.equal(torch.cat([step[i] for step in steps]).transpose(0, 1), theirs[name]), name
        assert_same_state(compiled.graph, compiled.state, model)


def mnist_cnn() -> nn.Sequential:
    """The network of Sinabs' tutorial on weight transfer: three convolutions, two dense layers, rectifiers."""
    layers: list[nn.Module] = []
    for into, out, kernel in ((1, 20, 5), (20, 32, 5), (32, 128, 3)):
        layers += [nn.Conv2d(into, out, kernel, bias=False), nn.ReLU(), nn.AvgPool2d(2, 2)]
    layers += [nn.Flatten(), nn.Linear(128, 500, bias=False), nn.ReLU(), nn.Linear(500, 10, bias=False)]
    torch.manual_seed(0)
    for layer in layers:
        if hasattr(layer, "weight"):
            layer.weight.data = (3 * nn.init.kaiming_uniform_(layer.weight.data) * 128).round() / 128
    return nn.Sequential(*layers)


@pytest.mark.slow
def test_the_tutorials_mnist_cnn_as_converted_by_sinabs() -> None:
    """Imported with its container, compiled, run at the batch it was made for and at another."""
    model = from_model(mnist_cnn(), input_shape=(1, 28, 28), add_spiking_output=True, batch_size=2).eval()
    frames = (dyadic(2 * 12, 1, 28, 28, seed=2) > 1).float()
    graph, _ = agree(model, frames)
    assert (graph.base_timesteps, len(graph.of("neuron"))) == (12, 5)
    compiled = compile(graph, batch=None)
    for batch in (2, 3):
        sinabs.set_batch_size(model, batch)
        reset(model)
        x = (dyadic(batch * 12, 1, 28, 28, seed=batch) > 1).float()
        with torch.no_grad():
            theirs = model(x)
        assert torch.equal(compiled(x), theirs)
        assert theirs.sum() > 50
        compiled.reset()
        compiled.step(x.unflatten(0, (batch, 12)).transpose(0, 1))
        assert_same_state(compiled.graph, compiled.state, model)
