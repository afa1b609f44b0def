"""Sinabs' other layers, its two layouts, what follows from batch_size and num_timesteps, and the tools around."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frontend_models import dyadic, make_dyadic
from sinabs_models import agree
from torch import Tensor, nn

from ldsnn_compiler.diff import diff, first_divergence
from ldsnn_compiler.driver import compile
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.evaluate import compiled_scores, interpreted, module_scores, user_layout
from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.neuron import neuron

pytestmark = pytest.mark.sinabs

try:
    import sinabs.layers as sl
    from sinabs.activation import MaxSpike
except ModuleNotFoundError:  # the marker skips every test of this file
    sl = MaxSpike = None


def conv(*layers: nn.Module) -> nn.Sequential:
    """Two channels of 8x8 into four of 6x6, spikes, then the layers."""
    return make_dyadic(nn.Sequential(nn.Conv2d(2, 4, 3), sl.IAFSqueeze(num_timesteps=16), *layers))


@pytest.mark.parametrize("kernel", [2, 3, (2, 3), (1, 6)], ids=str)
def test_sum_pool(kernel: Any) -> None:
    """Sinabs averages and multiplies; a window of nine rounds so too, and real numbers would show it."""
    agree(conv(sl.SumPool2d(kernel)), dyadic(32, 2, 8, 8))
    pool = nn.Sequential(sl.SumPool2d(kernel), sl.IAFSqueeze(num_timesteps=16))
    agree(pool, torch.rand(32, 2, 8, 8, generator=torch.Generator().manual_seed(1)))


def test_crop_shift_and_quantised_spikes() -> None:
    crop = sl.Cropping2dLayer(((1, 2), (0, 3)))
    graph, out = agree(conv(crop, sl.ChannelShift(2), sl.QuantizeLayer()), dyadic(32, 2, 8, 8))
    assert out.shape == (32, 6, 3, 3) and not out[:, :2].any()
    assert not graph.of("neuron")[1:]


def test_layers_between_the_two_layouts() -> None:
    """Frames are folded for convolutions, unfolded for neurons; Repeat does both around a module."""
    model = nn.Sequential(
        sl.FlattenTime(),
        nn.Conv2d(2, 4, 3),
        sl.UnflattenTime(batch_size=3),
        sl.IAF(),
        sl.Repeat(nn.Sequential(nn.AvgPool2d(2), nn.Flatten())),
        sl.LIF(tau_mem=3.0),
    )
    graph, out = agree(make_dyadic(model), dyadic(3, 16, 2, 8, 8))
    assert graph.inputs[0]["time"] == graph.outputs[0]["time"] == "batch_first"
    assert out.shape == (3, 16, 36)


class Branches(nn.Module):
    """Two branches of different size, merged."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(2, 4, 3), sl.IAFSqueeze(batch_size=2), sl.SumPool2d(2))
        self.right = nn.Sequential(nn.Conv2d(2, 6, 5), sl.IAFSqueeze(batch_size=2), sl.SumPool2d(2))
        self.merge, self.out = sl.Merge(), sl.IAFSqueeze(batch_size=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.merge(self.left(x), self.right(x)))


def test_merge_pads_the_smaller() -> None:
    graph, out = agree(make_dyadic(Branches()), dyadic(2 * 16, 2, 8, 8))
    assert out.shape == (32, 6, 3, 3)
    assert len(graph.of("pad")) == 2


class Read(nn.Module):
    """Reads the membrane after the run, and reduces over time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 6), sl.LIF(tau_mem=10.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spikes = self.lif(self.fc(x))
        return spikes.mean(1), self.lif.v_mem, spikes[:, -1]


def test_membrane_and_rates_over_the_time_axis() -> None:
    model, x = make_dyadic(Read()), dyadic(3, 16, 4)
    graph = trace(model, x)
    with torch.no_grad():
        ours, theirs = Interpreter(graph)(x), model(x)
    assert [node["time"] for node in graph.outputs] == ["squeeze"] * 3
    for mine, wanted in zip(ours, theirs, strict=True):
        assert torch.equal(mine, wanted)


@pytest.mark.parametrize(
    "settings", [{"batch_size": 4}, {"num_timesteps": 8}, {"batch_size": 4, "num_timesteps": 8}], ids=str
)
def test_timesteps_of_a_folded_example(settings: dict[str, int]) -> None:
    graph, _ = agree(make_dyadic(nn.Sequential(nn.Linear(5, 6), sl.IAFSqueeze(**settings))), dyadic(32, 5))
    assert graph.base_timesteps == graph.inputs[0].type.timesteps == 8


def test_timesteps_may_be_confirmed() -> None:
    model = make_dyadic(nn.Sequential(nn.Linear(5, 6), sl.IAFSqueeze(batch_size=4)))
    assert trace(model, dyadic(32, 5), 8).base_timesteps == 8
    assert trace(model, dyadic(32, 5), sequence=True).inputs[0]["time"] == "folded"


def test_rows_that_are_no_multiple_are_an_error() -> None:
    graph = trace(nn.Sequential(nn.Linear(5, 6), sl.IAFSqueeze(num_timesteps=8)).eval(), dyadic(32, 5))
    with pytest.raises(LdsnnError, match="a multiple of 8 rows, the timesteps, found 30"):
        Interpreter(graph)(dyadic(30, 5))


def test_spikes_are_counts_to_the_compiler() -> None:
    """What a neuron emits is known: at most one, at most three, or any number."""
    layers = (sl.IAF(spike_fn=MaxSpike(3)), sl.IAF())
    graph = trace(nn.Sequential(nn.Linear(5, 6), *layers).eval(), dyadic(2, 16, 5))
    assert [str(n.type.signal) for n in graph.of("neuron")] == ["event(3, 1.0)", "event(0, 1.0)"]


@pytest.mark.parametrize("layout", ["batch_first", "num_timesteps", "batch_size"])
def test_diff_and_scores_in_both_layouts(layout: str) -> None:
    """``diff`` finds the layer that was changed; scores are means over time of each sample, at any batch."""
    iaf = sl.IAF() if layout == "batch_first" else sl.IAFSqueeze(**{layout: {"batch_size": 4}.get(layout, 8)})
    model = make_dyadic(nn.Sequential(nn.Linear(5, 6), iaf, nn.Linear(6, 3)))
    samples = dyadic(6, 8, 5)
    graph = trace(model, samples[:4] if layout == "batch_first" else samples[:4].flatten(0, 1))
    wanted = module_scores(model, samples, graph)
    with torch.no_grad():
        plain = nn.Sequential(model[0], sl.IAF(), model[2])
        assert torch.equal(wanted, plain(samples).mean(1))
    assert torch.equal(interpreted(graph, samples)[0], wanted)
    assert torch.equal(compiled_scores(compile(graph, batch=None), samples), wanted)
    x = user_layout(graph, samples)
    assert first_divergence(diff(graph, model, x)) is None
    other = make_dyadic(nn.Sequential(*model.children()), seed=9)
    assert first_divergence(diff(graph, other, x)).path == "0"
    assert getattr(iaf, "batch_size", 4) in (4, -1)


def test_a_reset_that_adds_in_each_step_is_retimed_exactly_or_not() -> None:
    """Sinabs adds the value to neurons that did not fire, too: a drift that a single step cannot stand for."""
    settings = {"reset": "offset", "v_reset": 0.25}
    for kind in (neuron("if", **settings), neuron("leaky", **settings), neuron("lif_gain", **settings)):
        with pytest.raises(LdsnnError, match="adds v_reset in each step"):
            kind.retime(2, method="oneshot")
        assert kind.retime(2, method="micro").substeps == 2
