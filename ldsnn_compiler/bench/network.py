"""The benchmark networks: layer lists, weights and thresholds, calibrated so that every IF layer fires at a given rate.

A network is plain tensors, so that each library's row is built from the same numbers. Two kinds of weights:

*random*  Kaiming-normal weights, BatchNorm with the statistics of the calibration images, thresholds bisected in
float32; *dyadic*  small integers, means and thresholds on a power-of-two grid, so that every sum is exact in float32
whatever its
          order, and every row must give the same spikes. Thresholds stand off the grid of the currents by a fraction
          that no number of spikes makes whole, so that ``h > threshold`` and ``h >= threshold`` are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem

EPS = 2.0**-10
"""BatchNorm's eps; a power of two so that ``var + eps`` is exactly 1 in a dyadic network."""
OFF_GRID = 2.0**-7
"""Distance of a dyadic threshold from the currents' grid, in steps of that grid; more than 1 / (2 * most timesteps)."""
CALIBRATION_IMAGES = 4
"""BatchNorm statistics are taken over at least that many images."""


@dataclass(frozen=True)
class Spec:
    """``widths`` lists the spiking layers; a "P" after one is a 2x2 average pool. Inputs are ``[N, *shape]`` in
    0..1."""

    name: str
    shape: tuple[int, ...]
    widths: tuple[int | str, ...]
    classes: int = 10

    @property
    def convolutional(self) -> bool:
        """Whether images go in, not vectors."""
        return len(self.shape) == 3


_VGG16 = (64, 64, "P", 128, 128, "P", 256, 256, 256, "P", 512, 512, 512, "P", 512, 512, 512, "P")
SPECS: Mapping[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec("vgg16-cifar", (3, 32, 32), _VGG16),
        Spec("vgg-tiny", (3, 8, 8), (64, 64, "P", 64, "P")),
        Spec("mlp", (64,), (128, 128)),
    )
}
"""The networks by name: VGG-16 as used for CIFAR-10 (13 conv, 5 pools, one linear) and two that tests run in
seconds."""


@dataclass
class Layer:
    """A conv 3x3 with BatchNorm (or a linear layer without), then IF with soft reset, then perhaps a 2x2 average
    pool."""

    weight: Tensor
    pool: bool = False
    mean: Tensor | None = None
    var: Tensor | None = None
    threshold: float = 1.0
    rate: float = 0.0
    input_nonzero: float = 0.0

    def drive(self, x: Tensor) -> Tensor:
        """Input current of the neurons for ``[B, *shape]``, in x's dtype."""
        weight = self.weight.to(x.dtype)
        if self.mean is None or self.var is None:
            current: Tensor = F.linear(x, weight)
            return current
        y = F.conv2d(x, weight, padding=1)
        return F.batch_norm(y, self.mean.to(x.dtype), self.var.to(x.dtype), eps=EPS)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with the BatchNorm folded in."""
        if self.mean is None or self.var is None:
            return self.weight, None
        scale = 1.0 / torch.sqrt(self.var.double() + EPS)
        weight = (self.weight.double() * scale.reshape(-1, 1, 1, 1)).float()
        return weight, (-self.mean.double() * scale).float()


@dataclass
class Network:
    """A calibrated network, the images it is timed on ``[N, *shape]``, and the spikes it should give."""

    spec: Spec
    timesteps: int
    density: float
    dyadic: bool
    images: Tensor
    layers: list[Layer] = field(default_factory=list)
    head: Tensor = field(default_factory=lambda: torch.empty(0))
    spikes: list[Tensor] = field(default_factory=list)
    """Per layer ``[T, N, *shape]``, before the pool, computed with PyTorch."""

    @property
    def paths(self) -> list[str]:
        """Module paths of the IF layers, in every row's model."""
        return [f"sn{i}" for i in range(len(self.layers))]


def scan(drive: Tensor, threshold: float, timesteps: int) -> Tensor:
    """Soft-reset IF over ``[1 or T, N, *shape]`` currents: ``h = v + x; s = [h >= threshold]; v = h - s *
    threshold``."""
    v, spikes = torch.zeros_like(drive[0]), []
    for t in range(timesteps):
        h = v + drive[min(t, len(drive) - 1)]
        s = (h >= threshold).to(drive.dtype)
        v = h - s * threshold
        spikes.append(s)
    return torch.stack(spikes)


def build(
    name: str, timesteps: int, density: float, batch: int = 1, *, dyadic: bool = False, seed: int = 0,
    images: Tensor | None = None,
) -> Network:  # fmt: skip
    """A network of that name whose IF layers all fire at ``density`` (mean spikes per neuron and timestep) on its
    images.

    ``images`` ``[M, *shape]`` in 0..1, M at least ``batch``, default seeded random ones; thresholds are bisected on the
    first ``batch`` of them, BatchNorm statistics are taken over all.
    """
    spec = _spec(name, timesteps, density)
    generator = torch.Generator().manual_seed(seed)
    if images is None:
        images = torch.rand((max(batch, CALIBRATION_IMAGES), *spec.shape), generator=generator)
    if len(images) < batch:
        raise LdsnnError(f"a batch of {batch} needs as many images, found {len(images)}")
    images = (images * 16).round() / 16 if dyadic else images
    network = Network(spec, timesteps, density, dyadic, images[:batch].contiguous())
    x = images[None]
    for width, pool in _with_pools(spec):
        layer = Layer(_weight(spec, x.shape[2], width, dyadic, generator), pool)
        x = _calibrate(network, layer, x)
    network.head = _weight(spec, x[0, 0].numel(), spec.classes, dyadic, generator, head=True)
    return network


def _spec(name: str, timesteps: int, density: float) -> Spec:
    problems = []
    if name not in SPECS:
        problems.append(Problem(f"no such benchmark network, known are {', '.join(SPECS)}", where=name))
    if timesteps < 1:
        problems.append(Problem(f"at least one timestep, not {timesteps}", where="timesteps"))
    if not 0 < density < 0.5:
        problems.append(Problem(f"a firing rate between 0 and 0.5, not {density}", where="density"))
    if problems:
        raise LdsnnError(problems)
    return SPECS[name]


def _with_pools(spec: Spec) -> list[tuple[int, bool]]:
    following = (*spec.widths[1:], "")
    return [(w, after == "P") for w, after in zip(spec.widths, following, strict=True) if isinstance(w, int)]


def _weight(spec: Spec, fan: int, width: int, dyadic: bool, generator: torch.Generator, head: bool = False) -> Tensor:
    shape = (width, fan, 3, 3) if spec.convolutional and not head else (width, fan)
    if dyadic:
        return torch.randint(-3, 4, shape, generator=generator).float()
    deviation = float((2.0 / (fan * (9 if len(shape) == 4 else 1))) ** 0.5)
    return torch.randn(shape, generator=generator) * deviation


def _calibrate(network: Network, layer: Layer, x: Tensor) -> Tensor:
    """Set the layer's BatchNorm and threshold from its input ``[1 or T, M, *shape]``, append it, give its output."""
    if network.spec.convolutional:
        _normalise(layer, x, network.dyadic)
    drive = layer.drive(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    batch = len(network.images)
    layer.threshold = _threshold(drive[:, :batch], network)
    spikes = scan(drive, layer.threshold, network.timesteps)
    if network.dyadic:
        _check_exact(drive, network)
    network.spikes.append(spikes[:, :batch])
    layer.rate = float(spikes[:, :batch].mean())
    layer.input_nonzero = float((x[:, :batch] != 0).float().mean())
    network.layers.append(layer)
    return pooled(spikes) if layer.pool else spikes


def pooled(spikes: Tensor) -> Tensor:
    """The 2x2 average pool of ``[T, N, C, H, W]``."""
    averages: Tensor = F.avg_pool2d(spikes.flatten(0, 1), 2)
    return averages.reshape(*spikes.shape[:2], *averages.shape[1:])


def _normalise(layer: Layer, x: Tensor, dyadic: bool) -> None:
    y = F.conv2d(x.flatten(0, 1), layer.weight, padding=1)
    layer.mean, layer.var = y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)
    if dyadic:
        layer.mean, layer.var = (layer.mean * 4).round() / 4, torch.full_like(layer.var, 1.0 - EPS)


def _threshold(drive: Tensor, network: Network) -> float:
    """The threshold at which the layer fires at the wanted rate, by bisection; on the dyadic grid if asked."""
    grid = 1 / 16 if network.dyadic else 0.0
    low, high = 0.0, float(drive.max()) * (network.timesteps + 1) + 1.0
    rate: Callable[[float], float] = lambda th: float(scan(drive, th, network.timesteps).mean())  # noqa: E731
    for _ in range(32):
        middle = (low + high) / 2
        low, high = (middle, high) if rate(_snap(middle, grid)) > network.density else (low, middle)
    return _snap(high, grid)


def _snap(threshold: float, grid: float) -> float:
    """The nearest float32; for a dyadic network just above a grid point, at least one grid step."""
    if not grid:
        return float(torch.tensor(threshold))
    return max(round(threshold / grid), 1) * grid + OFF_GRID * grid


def _check_exact(drive: Tensor, network: Network) -> None:
    """Every membrane stays within 24 bits of the finest grid (currents 1/16, thresholds OFF_GRID of that)."""
    most = float(drive.abs().max()) * network.timesteps
    if network.timesteps * OFF_GRID >= 1 or most * 16 / OFF_GRID >= 2**24:
        raise LdsnnError(f"{network.timesteps} timesteps are too many for an exact dyadic {network.spec.name}")


def logits(network: Network, spikes: Tensor) -> Tensor:
    """Class scores ``[N, classes]`` from the last layer's spikes ``[T, N, *shape]``."""
    last = pooled(spikes) if network.layers[-1].pool else spikes
    scores: Tensor = F.linear(last.flatten(2), network.head)
    return scores.mean(0)
