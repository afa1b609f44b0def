"""Spoken digits: three layers of leaky integrate-and-fire neurons over 10 ms frames (T0 = 60).

The Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0) as 32 log-mel bands a
frame: ``fsdd_logmel.npz`` in the folder that ``LDSNN_DATA`` names. The network was trained with surrogate gradients at
60 timesteps and no others; ``fsdd_lif.safetensors`` beside this file holds its weights.

    export LDSNN_DATA=.../data
    python examples/benchmarks/fsdd_lif.py          # trains, writes the weights
    ldsnn optimize examples/benchmarks/fsdd_lif.py:fsdd_lif --sequence \\
        --data examples/benchmarks/fsdd_lif.py:fsdd --budget 0.01 --agreement --spikes both

Of the 50 recordings of each digit by each speaker, 0 to 4 are the official test set, 5 to 11 add unseen ones to it,
12 to 17 are for the search, and the network was trained on the others.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor, nn

DATA = Path(os.environ.get("LDSNN_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
"""Folder with ``fsdd_logmel.npz``."""
WEIGHTS = Path(__file__).with_suffix(".safetensors")

FRAMES, BANDS = 60, 32
TEST, UNSEEN, CALIBRATION, TRAINING = range(5), range(5, 12), range(12, 18), range(18, 50)
"""Recordings, counted per speaker and digit. ``report`` is the test set, then the unseen ones."""

Frames = npt.NDArray[np.float32]
Recordings = tuple[list[Frames], Tensor]
"""Log-mel frames ``[frames, 32]`` in 0..1 of each recording, and their digits."""


def lif(tau: float) -> nn.Module:
    """SpikingJelly's neuron: ``h = v (1 - 1/tau) + x``, a spike and ``v = h - 1`` where h reaches 1."""
    node: nn.Module = neuron.LIFNode(
        tau, decay_input=False, v_reset=None, surrogate_function=surrogate.ATan(), step_mode="m"
    )
    return node


class SpokenDigits(nn.Module):
    """Frames ``[T, N, 32]`` to class scores ``[N, 10]``: the mean over time of a linear readout.

    Every hidden layer is linear, BatchNorm, LIF with soft reset (threshold 1, input not decayed). Time constants of
    15 to 20 frames let a layer add up what it hears over 150 to 200 ms. The dropout of single spikes makes those
    above count on many neurons instead of on the moment of one spike.

    Args:
        spiking: makes the neurons of one layer, given their time constant in frames.
    """

    def __init__(self, spiking: Callable[[float], nn.Module] = lif) -> None:
        super().__init__()
        sizes, taus = (BANDS, 192, 128, 128), (20.0, 15.0, 15.0)
        hidden = zip(pairwise(sizes), taus, strict=True)
        self.layers = nn.Sequential(*(_hidden(*widths, spiking(tau)) for widths, tau in hidden))
        self.readout = layer.Linear(sizes[-1], 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(self.readout(self.layers(x)), dim=0)


def _hidden(inputs: int, outputs: int, spiking: nn.Module) -> nn.Sequential:
    norm = layer.BatchNorm1d(outputs, step_mode="m")
    nn.init.constant_(norm.weight, 0.3)
    nn.init.constant_(norm.bias, 0.2)
    return nn.Sequential(layer.Linear(inputs, outputs, bias=False, step_mode="m"), norm, spiking, nn.Dropout(0.2))


def fsdd_lif() -> nn.Module:
    """The trained network in evaluation mode."""
    model = SpokenDigits()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def fsdd() -> dict[str, tuple[Tensor, Tensor]]:
    """``calibration``: 360 recordings that training left out, each as it is and twice a little changed: in what is only
    just told apart, recordings that nobody has seen differ more than places in time do. ``report``: the 300 official
    test recordings, then 420 that neither training nor search has seen. Sequences ``[N, 60, 32]``."""
    calibration, test, unseen = (_recordings(numbers) for numbers in (CALIBRATION, TEST, UNSEEN))
    return {
        "calibration": _varied(calibration),
        "report": _stacked((test[0] + unseen[0], torch.cat((test[1], unseen[1])))),
    }


def _recordings(numbers: range) -> Recordings:
    """The recordings of these numbers, in the order of the file."""
    with np.load(DATA / "fsdd_logmel.npz", allow_pickle=False) as data:
        logmel, offsets, labels = data["logmel"], data["offsets"], data["labels"]
        chosen = np.flatnonzero(np.isin(data["index"], numbers))
    frames = [logmel[offsets[i] : offsets[i + 1]].astype(np.float32) / 255 for i in chosen]
    return frames, torch.from_numpy(labels[chosen]).long()


def _varied(recordings: Recordings, variants: int = 2, strength: float = 0.4) -> tuple[Tensor, Tensor]:
    """Sequences ``[N, 60, 32]`` and digits: every recording, and so many variants after it, always the same."""
    random = np.random.default_rng(0)
    frames = [x for each in recordings[0] for x in (each, *(heard(each, random, strength) for _ in range(variants)))]
    return _stacked((frames, recordings[1].repeat_interleave(1 + variants)))


def _stacked(recordings: Recordings) -> tuple[Tensor, Tensor]:
    """Sequences ``[N, 60, 32]``, and their digits."""
    return torch.from_numpy(np.stack([placed(each) for each in recordings[0]])), recordings[1]


def placed(frames: Frames, where: float = 0.5) -> Frames:
    """A recording in exactly :data:`FRAMES` frames, cut or with silence (0) around it.

    Args:
        frames: ``[frames, 32]``.
        where: 0..1, what part of the surplus lies before; in the middle unless given.
    """
    start = int(where * abs(FRAMES - len(frames)))
    if len(frames) >= FRAMES:
        return frames[start : start + FRAMES]
    return np.pad(frames, ((start, FRAMES - len(frames) - start), (0, 0)))


def augmented(frames: Frames, random: np.random.Generator) -> Frames:
    """A variant to train on: as :func:`heard`, with masked bands and frames, at any place."""
    x = heard(frames, random)
    if random.random() < 0.5:
        x[:, _span(BANDS, 5, random)] = x.mean()
    if random.random() < 0.5:
        x[_span(len(x), 6, random)] = 0
    return placed(x, random.uniform())


def heard(frames: Frames, random: np.random.Generator, strength: float = 1.0) -> Frames:
    """A variant: faster or slower, another voice and loudness, noise; all by ``strength``, in 0..1."""
    length = max(8, int(len(frames) * np.exp(strength * random.uniform(-0.25, 0.25))))
    stretched = _at(frames, np.linspace(0, len(frames) - 1, length))
    voice = np.arange(BANDS) * random.uniform(1 - 0.04 * strength, 1 + 0.04 * strength)
    voice = voice + strength * random.uniform(-1.5, 1.5)
    x = _at(stretched.T, voice.clip(0, BANDS - 1)).T
    tilt = np.linspace(-1, 1, BANDS)
    x = x + strength * random.uniform(-0.1, 0.05) + strength * random.uniform(-0.08, 0.08) * tilt
    if random.random() < 0.3 * strength:
        x = np.maximum(x, random.uniform(0.1, 0.45) + 0.03 * random.standard_normal(x.shape))
    return np.clip(x + 0.02 * strength * random.standard_normal(x.shape), 0, 1.05).astype(np.float32)


def _at(x: npt.NDArray[Any], positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows of ``x`` at fractional positions, between neighbours by linear interpolation."""
    low = positions.astype(int)
    share = (positions - low)[:, None]
    between: npt.NDArray[np.float64] = x[low] * (1 - share) + x[np.minimum(low + 1, len(x) - 1)] * share
    return between


def _span(length: int, widest: int, random: np.random.Generator) -> slice:
    width = int(random.integers(1, widest + 1))
    start = int(random.integers(0, length - width + 1))
    return slice(start, start + width)


class Scan(torch.autograd.Function):
    """The neurons of :func:`lif` over all steps of currents ``[T, N, C]``, and their surrogate gradient (ATan,
    1 / (1 + (pi (h - 1))^2)): several times faster than differentiating step by step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: float) -> Tensor:
        charged, spikes, v = torch.empty_like(x), torch.empty_like(x), torch.zeros_like(x[0])
        for current, h, s in zip(x, charged, spikes, strict=True):
            torch.add(current, v, alpha=decay, out=h)
            torch.ge(h, 1.0, out=s)
            torch.sub(h, s, out=v)
        ctx.save_for_backward(charged)
        ctx.decay = decay
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (charged,) = ctx.saved_tensors
        slope = 1 / (1 + (torch.pi * (charged - 1)).square())
        direct, kept, wanted = gradients[0] * slope, 1 - slope, torch.empty_like(charged)
        v = torch.zeros_like(charged[0])
        for t in reversed(range(len(charged))):
            torch.addcmul(direct[t], v, kept[t], out=wanted[t])
            torch.mul(wanted[t], ctx.decay, out=v)
        return wanted, None


class FastLif(nn.Module):
    """:func:`lif`, to train with."""

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.decay = 1 - 1 / tau

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = Scan.apply(x, self.decay)  # type: ignore[no-untyped-call]
        return spikes


def jitter(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A forward hook: in training, noise on a layer's currents ``[T, N, C]``, single and common to a recording."""
    if not module.training:
        return output
    return output + 0.05 * torch.randn_like(output) + 0.04 * torch.randn(1, output.shape[1], 1)


def train(epochs: int, batch: int = 30, rate: float = 4e-3) -> nn.Module:
    """Train from a fixed seed; prints the loss and the accuracy on the calibration recordings."""
    torch.manual_seed(0)
    random, (frames, labels) = np.random.default_rng(0), _recordings(TRAINING)
    model, check = SpokenDigits(FastLif), _stacked(_recordings(CALIBRATION))
    hooks = [m.register_forward_hook(jitter) for m in model.modules() if isinstance(m, layer.BatchNorm1d)]
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=epochs * ceil(len(frames) / batch), pct_start=0.15
    )
    for epoch in range(epochs):
        losses = []
        for chosen in torch.from_numpy(random.permutation(len(frames))).split(batch):
            x = torch.from_numpy(np.stack([augmented(frames[i], random) for i in chosen])).transpose(0, 1).contiguous()
            losses.append(_step(model.train(), optimiser, x, labels[chosen]))
            schedule.step()
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, accuracy {accuracy(model, *check):.2%}", flush=True)
    for hook in hooks:
        hook.remove()
    return model.eval()


def _step(model: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> float:
    """One update on frames ``[T, N, 32]``; gives the loss. Scores are rates, so they are scaled to be logits."""
    loss = F.cross_entropy(10 * model(x), labels)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Share of sequences ``[N, T, 32]`` classified right."""
    model.eval()
    with torch.no_grad():
        found = model(x.transpose(0, 1)).argmax(1)
    return float((found == labels).float().mean())


def main() -> None:
    """Train, write the weights, and say how often the network is right on the test recordings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    model = train(options.epochs)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, options.out)
    x, labels = fsdd()["report"]
    tests = len(_recordings(TEST)[0])
    print(f"test {accuracy(model, x[:tests], labels[:tests]):.2%}, all unseen {accuracy(model, x, labels):.2%}")


if __name__ == "__main__":
    main()
