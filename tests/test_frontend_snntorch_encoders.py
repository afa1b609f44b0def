"""Encoders: latency codes equal the libraries', Poisson codes agree with them in distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from frontend_models import make_dyadic
from torch import Tensor, nn

from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.verify import verify

pytestmark = [pytest.mark.snntorch, pytest.mark.spikingjelly]

try:
    import snntorch
    from snntorch import spikegen
    from spikingjelly.activation_based import encoding, functional, neuron
except ModuleNotFoundError:  # the markers skip every test of this file
    snntorch = spikegen = encoding = functional = neuron = None

STEPS = 16
PROBABILITIES = torch.linspace(0, 1, 64).repeat(32, 1)


class Coded(nn.Module):
    """What ``code`` makes of the input."""

    def __init__(self, code: Callable[[Any, Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.code = code

    def forward(self, x: Tensor) -> Any:
        return self.code(self, x)


def run(model: nn.Module, x: Tensor, timesteps: int | None = None, **options: Any) -> Tensor:
    graph = trace(model, x, timesteps, **options)
    verify(graph)
    with torch.no_grad():
        result: Tensor = Interpreter(graph)(x)
    return result


def looped(m: Any, x: Tensor) -> Any:
    """SpikingJelly's tutorials: the encoder is called in every step of the loop."""
    return torch.stack([m.encoder(x) for _ in range(STEPS)])


# ---- latency


@pytest.mark.parametrize("steps", [2, 7, 16, 64])
def test_latency_of_spikingjelly(steps: int) -> None:
    model = Coded(
        lambda m, x: torch.stack([m.encoder(x) for _ in range(steps)]), encoder=encoding.LatencyEncoder(steps)
    )
    x = torch.rand(3, 50, generator=torch.Generator().manual_seed(1))
    x[0, :2] = torch.tensor([0.0, 1.0])
    ours = run(model, x)
    functional.reset_net(model)
    assert torch.equal(ours, model(x))


@pytest.mark.parametrize(("steps", "threshold"), [(2, 0.25), (16, 0.01), (40, 0.01), (64, 1e-6), (9, 0.05)])
def test_latency_of_snntorch(steps: int, threshold: float) -> None:
    model = Coded(lambda m, x: spikegen.latency(x, num_steps=steps, threshold=threshold, normalize=True, linear=True))
    x = torch.rand(3, 200, generator=torch.Generator().manual_seed(2))
    x[0, :2] = torch.tensor([0.0, 1.0])
    assert torch.equal(run(model, x), model(x))


def test_a_network_behind_a_latency_code() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        total = 0.0
        for _ in range(STEPS):
            total = total + m.sn(m.fc(m.encoder(x)))
        return total / STEPS

    model = Coded(forward, encoder=encoding.LatencyEncoder(STEPS), fc=nn.Linear(6, 5), sn=neuron.IFNode(v_reset=None))
    make_dyadic(model)
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(3))
    ours = run(model, x)
    functional.reset_net(model)
    with torch.no_grad():
        assert torch.equal(ours, model(x))
    assert 0 < ours.mean() < 1


# ---- Poisson

POISSON: dict[str, Callable[[], nn.Module]] = {
    "spikingjelly": lambda: Coded(looped, encoder=encoding.PoissonEncoder()),
    "spikingjelly_multi_step": lambda: Coded(
        lambda m, x: m.encoder(x.unsqueeze(0).repeat(STEPS, 1, 1)), encoder=encoding.PoissonEncoder(step_mode="m")
    ),
    "rate": lambda: Coded(lambda m, x: spikegen.rate(x, num_steps=STEPS)),
    "rate_of_a_sequence": lambda: Coded(
        lambda m, x: spikegen.rate(x.unsqueeze(0).repeat(STEPS, 1, 1), time_var_input=True)
    ),
    "rate_conv": lambda: Coded(
        lambda m, x: torch.stack([m.lif(4 * spikegen.rate_conv(x)) for _ in range(STEPS)]), lif=_relay()
    ),
    "bernoulli": lambda: Coded(
        lambda m, x: torch.stack([m.lif(4 * torch.bernoulli(x)) for _ in range(STEPS)]), lif=_relay()
    ),
}


def _relay() -> nn.Module:
    """A neuron that fires exactly when it gets a spike."""
    return snntorch.Leaky(beta=0.0, reset_mechanism="zero", init_hidden=True)


@pytest.mark.parametrize("name", POISSON)
def test_poisson_codes_agree_in_distribution(name: str) -> None:
    """Rates are within five standard deviations of x, for every x; steps and samples are independent of each other."""
    spikes = run(POISSON[name](), PROBABILITIES)
    assert spikes.shape == (STEPS, *PROBABILITIES.shape)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    rates, p = spikes.mean((0, 1)), PROBABILITIES[0]
    sigma = (p * (1 - p) / (STEPS * 32)).sqrt()
    assert bool(((rates - p).abs() <= 5 * sigma).all())
    centred = (spikes - p)[:, :, 16:48]
    neighbours = (centred[1:] * centred[:-1]).mean(), (centred[:, 1:] * centred[:, :-1]).mean()
    assert all(abs(float(c)) < 0.02 for c in neighbours)


def test_seeds_choose_the_numbers() -> None:
    make = POISSON["rate"]
    first = run(make(), PROBABILITIES)
    assert torch.equal(first, run(make(), PROBABILITIES))
    assert torch.equal(first, run(make(), PROBABILITIES, seed=0))
    assert not torch.equal(first, run(make(), PROBABILITIES, seed=7))


def test_two_encoders_draw_different_numbers() -> None:
    model = Coded(lambda m, x: (spikegen.rate(x, num_steps=STEPS), spikegen.rate(x, num_steps=STEPS)))
    graph = trace(model, PROBABILITIES, seed=5)
    assert sorted(n["seed"] for n in graph.of("encode")) == [5, 6]


def test_gain_scales_the_rate() -> None:
    model = Coded(lambda m, x: spikegen.rate(x, num_steps=STEPS, gain=0.5))
    assert abs(float(run(model, PROBABILITIES).mean()) - 0.25) < 0.01


# ---- refusals

REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "rate_offset": (
        lambda: Coded(lambda m, x: spikegen.rate(x, num_steps=STEPS, offset=0.1)),
        ("rate().offset", "is 0.1", "offset=0"),
    ),
    "rate_first_spike": (
        lambda: Coded(lambda m, x: spikegen.rate(x, num_steps=STEPS, first_spike_time=2)),
        ("rate().first_spike_time",),
    ),
    "latency_log": (
        lambda: Coded(lambda m, x: spikegen.latency(x, num_steps=STEPS)),
        ("latency().normalize", "normalize=True", "latency().linear", "linear=True"),
    ),
    "latency_clip": (
        lambda: Coded(lambda m, x: spikegen.latency(x, STEPS, normalize=True, linear=True, clip=True)),
        ("latency().clip",),
    ),
    "latency_threshold": (
        lambda: Coded(lambda m, x: spikegen.latency(x, num_steps=STEPS, threshold=0.2, normalize=True, linear=True)),
        ("latency().threshold", "from timestep 15 to 12", "use a smaller one"),
    ),
    "delta": (lambda: Coded(lambda m, x: spikegen.delta(x, threshold=0.1)), ("delta()", "encode outside the model")),
    "rand_like": (
        lambda: Coded(
            lambda m, x: torch.stack([m.lif((torch.rand_like(x) < x).float()) for _ in range(4)]), lif=_relay()
        ),
        ("rand_like()",),
    ),
    "latency_encoder_log": (
        lambda: Coded(looped, encoder=encoding.LatencyEncoder(STEPS, enc_function="log")),
        ("encoder: LatencyEncoder.enc_function", "'linear'"),
    ),
    "latency_encoder_other_time": (
        lambda: Coded(looped, encoder=encoding.LatencyEncoder(STEPS + 1)),
        ("LatencyEncoder.T", f"is {STEPS + 1}, in a run of {STEPS} timesteps"),
    ),
    "weighted_phase": (
        lambda: Coded(looped, encoder=encoding.WeightedPhaseEncoder(8)),
        ("WeightedPhaseEncoder", "use PoissonEncoder"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_codes_are_refused_by_argument(case: str) -> None:
    make, wanted = REFUSED[case]
    with pytest.raises(ImportRefused) as refused:
        trace(make(), torch.rand(2, 5))
    for text in wanted:
        assert text in str(refused.value)


def test_a_latency_encoder_needs_a_static_input() -> None:
    """It encodes the first frame and replays that whatever follows."""
    model = Coded(
        lambda m, x: torch.stack([m.encoder(x[t]) for t in range(STEPS)]), encoder=encoding.LatencyEncoder(STEPS)
    )
    with pytest.raises(ImportRefused, match="static input"):
        trace(model, torch.rand(STEPS, 2, 5))
