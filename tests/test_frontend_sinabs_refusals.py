"""What of Sinabs cannot be imported is refused by path, class and attribute, with what to do instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from frontend_models import dyadic
from torch import Tensor, nn

from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend import check, trace

pytestmark = pytest.mark.sinabs

try:
    import sinabs.layers as sl
    from sinabs.activation import MaxSpike, SingleSpike
    from sinabs.layers.alif import ALIFSqueeze
except ModuleNotFoundError:  # the marker skips every test of this file
    sl = MaxSpike = SingleSpike = ALIFSqueeze = None


class Sampled:
    """Fires at random: no neuron program."""

    required_states = ("v_mem",)

    @staticmethod
    def apply(v_mem: Tensor, *_: object) -> Tensor:
        return torch.bernoulli(v_mem.sigmoid())


def half(spikes: Tensor, state: dict[str, Tensor], _: Tensor) -> dict[str, Tensor]:
    """A reset of one's own."""
    return {**state, "v_mem": state["v_mem"] / 2}


class Rates(nn.Module):
    """Reads a rate that only exists after the run."""

    def __init__(self) -> None:
        super().__init__()
        self.iaf = sl.IAF()

    def forward(self, x: Tensor) -> Tensor:
        return self.iaf(x) * self.iaf.firing_rate


class Twice(nn.Module):
    """Calls one neuron at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.iaf = sl.IAF()

    def forward(self, x: Tensor) -> Tensor:
        return self.iaf(self.iaf(x))


SEQUENCE, ROWS, FRAMES = (2, 16, 6), (32, 6), (32, 2, 8, 8)
REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "spike_fn": (lambda: sl.IAF(spike_fn=Sampled), SEQUENCE, ("IAF.spike_fn", "Sampled", "MultiSpike")),
    "reset_fn": (lambda: sl.LIF(2.0, reset_fn=half), SEQUENCE, ("LIF.reset_fn", "half", "MembraneReset")),
    "threshold": (
        lambda: sl.IAF(spike_threshold=torch.tensor(-1.0)), SEQUENCE, ("IAF.spike_threshold", "SingleSpike"),
    ),
    "falling_threshold": (
        lambda: sl.ALIF(2.0, 2.0, adapt_scale=-1.0, spike_fn=MaxSpike()), SEQUENCE, ("ALIF.spike_threshold",),
    ),
    "no_spikes": (lambda: sl.IAF(spike_fn=MaxSpike(0)), SEQUENCE, ("IAF.spike_fn", "no neuron fire")),
    "shape": (lambda: sl.LIF(torch.ones(7)), SEQUENCE, ("LIF.alpha_mem", "[7]", "[6]")),
    "folded_into_plain": (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), sl.IAF()), FRAMES, ("1: IAF", "Squeeze forms")),
    "plain_into_folded": (
        lambda: nn.Sequential(sl.IAF(), sl.IAFSqueeze(batch_size=2)), SEQUENCE, ("1: IAFSqueeze", "[N*T, ...]"),
    ),
    "batch_size": (lambda: sl.IAFSqueeze(batch_size=5), ROWS, ("IAFSqueeze.batch_size", "32 rows", "set_batch_size")),
    "num_timesteps": (
        lambda: nn.Sequential(sl.IAFSqueeze(num_timesteps=8), ALIFSqueeze(tau_mem=2.0, tau_adapt=2.0, num_timesteps=4)),
        ROWS, ("1: ALIFSqueeze.timesteps", "runs 4 timesteps, expected 8"),
    ),
    "rec_connect": (lambda: sl.IAFRecurrent(rec_connect=nn.Linear(6, 5)), SEQUENCE, ("IAFRecurrent", "[6]")),
    "in_rec_connect": (
        lambda: sl.IAFRecurrent(rec_connect=nn.Sequential(nn.Linear(6, 6), nn.Tanh())), SEQUENCE,
        ("rec_connect.1: Tanh",),
    ),
    "quantise": (
        lambda: nn.Sequential(sl.QuantizeLayer(), sl.IAF()), SEQUENCE, ("QuantizeLayer.quantize", "spike first"),
    ),
    "rectifier": (lambda: nn.Sequential(sl.NeuromorphicReLU(), sl.IAF()), SEQUENCE, ("NeuromorphicReLU", "from_model")),
    "max_pool": (
        lambda: nn.Sequential(sl.IAFSqueeze(batch_size=2), sl.SpikingMaxPooling2dLayer(2)), FRAMES,
        ("SpikingMaxPooling2dLayer", "SumPool2d"),
    ),
    "encoder": (lambda: nn.Sequential(sl.Img2SpikeLayer((6,)), sl.IAF()), SEQUENCE, ("Img2SpikeLayer", "before")),
    "state": (lambda: Rates(), SEQUENCE, ("reads state of a neuron", "v_mem")),
    "twice": (lambda: Twice(), SEQUENCE, ("is called again", "neuron of its own")),
    "nobody_says": (
        lambda: nn.Sequential(sl.SumPool2d(2), sl.Repeat(nn.Identity())), FRAMES, ("Repeat", "[N, T, ...]"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_imported_is_refused_by_name(case: str) -> None:
    make, shape, wanted = REFUSED[case]
    with pytest.raises(ImportRefused) as refused:
        trace(make().eval(), dyadic(*shape))
    for text in wanted:
        assert text in str(refused.value)


def test_all_problems_at_once() -> None:
    model = nn.Sequential(sl.IAF(spike_fn=Sampled, reset_fn=half), sl.NeuromorphicReLU(), sl.LIF(torch.ones(7)))
    report = check(model.eval(), dyadic(*SEQUENCE))
    assert [(p.where, p.attribute) for p in report.problems][:3] == [("0", "spike_fn"), ("0", "reset_fn"), ("1", "")]
    assert all(p.hint for p in report.problems)


def test_what_is_left_out_is_noted() -> None:
    model = sl.IAF(record_states=True).eval()
    model(dyadic(*SEQUENCE))
    report = check(model, dyadic(*SEQUENCE))
    assert report.ok
    assert {n.attribute for n in report.notes} == {"v_mem", "record_states"}
