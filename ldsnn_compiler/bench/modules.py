"""The benchmark network as each library's users write it. Libraries are imported here only when their row is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldsnn_compiler.bench.network import EPS, Layer, Network


@dataclass
class Peer:
    """A row: ``run()`` computes the class scores ``[N, classes]`` from reset state; ``record()`` also gives the spikes.

    ``record`` gives, per IF layer, ``[T, N, *shape]``, and the scores of that run; None where there are no spikes.
    ``note`` says what was chosen for it. ``expected`` is there for a row with weights of its own, and gives what it
    must record exactly.
    """

    name: str
    run: Callable[[], Tensor]
    record: Callable[[], tuple[list[Tensor], Tensor]] | None
    note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    expected: Callable[[], tuple[list[Tensor], Tensor]] | None = None


def available(name: str) -> bool:
    """Whether a library is installed."""
    return find_spec(name) is not None


def _batch_norm(layer: Layer, module: nn.BatchNorm2d) -> nn.BatchNorm2d:
    assert module.running_mean is not None and module.running_var is not None
    assert layer.mean is not None and layer.var is not None
    module.running_mean.copy_(layer.mean)
    module.running_var.copy_(layer.var)
    return module


def _with_weight(module: Any, weight: Tensor) -> Any:
    with torch.no_grad():
        module.weight.copy_(weight)
    return module


def spikingjelly_module(network: Network) -> nn.Module:
    """Multi-step SpikingJelly, as its CIFAR examples are written: the image repeated T times, mean over time at the
    end."""
    from spikingjelly.activation_based import layer, neuron

    class SpikingJellyNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.repeats = (network.timesteps, *[1] * network.images.dim())
            steps: list[str] = []
            for i, each in enumerate(network.layers):
                steps += self._add(i, each)
            self.steps = tuple(steps)
            self.flatten = layer.Flatten(step_mode="m")
            self.head = _with_weight(
                layer.Linear(*reversed(network.head.shape), bias=False, step_mode="m"), network.head
            )

        def _add(self, i: int, each: Layer) -> list[str]:
            named: dict[str, nn.Module] = {}
            out, into = each.weight.shape[:2]
            if each.mean is None:
                named[f"fc{i}"] = _with_weight(layer.Linear(into, out, bias=False, step_mode="m"), each.weight)
            else:
                conv = layer.Conv2d(into, out, 3, padding=1, bias=False, step_mode="m")
                named[f"conv{i}"] = _with_weight(conv, each.weight)
                named[f"bn{i}"] = _batch_norm(each, layer.BatchNorm2d(out, eps=EPS, step_mode="m"))
            named[f"sn{i}"] = neuron.IFNode(v_threshold=each.threshold, v_reset=None, step_mode="m")
            if each.pool:
                named[f"pool{i}"] = layer.AvgPool2d(2, step_mode="m")
            for name, module in named.items():
                self.add_module(name, module)
            return list(named)

        def forward(self, x: Tensor) -> Tensor:
            x = x.unsqueeze(0).repeat(self.repeats)
            for name in self.steps:
                x = getattr(self, name)(x)
            return self.head(self.flatten(x)).mean(0)  # type: ignore[no-any-return]

    return SpikingJellyNet().eval()


def snntorch_module(network: Network) -> nn.Module:
    """snnTorch, as its tutorials are written: a Python loop over time, all layers in each step, spikes stacked."""
    import snntorch

    # With beta = 1 the default, delayed subtraction gives the spikes of a soft reset at once; reset_delay=False does
    # not, where a membrane stays above its threshold after the reset.
    neurons: list[Any] = [
        snntorch.Leaky(beta=1.0, threshold=each.threshold, reset_mechanism="subtract") for each in network.layers
    ]

    class SnnTorchNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.synapses, self.pools = nn.ModuleList(), nn.ModuleList()
            self.neurons = nn.ModuleList(neurons)
            for each in network.layers:
                self.synapses.append(_synapse(each))
                self.pools.append(nn.AvgPool2d(2) if each.pool else nn.Identity())
            self.head = _with_weight(nn.Linear(network.head.shape[1], network.head.shape[0], bias=False), network.head)

        def forward(self, x: Tensor) -> Tensor:
            membranes = [leaky.init_leaky() for leaky in neurons]
            scores = []
            for _ in range(network.timesteps):
                y = x
                for i, (synapse, leaky, pool) in enumerate(zip(self.synapses, neurons, self.pools, strict=True)):
                    y, membranes[i] = leaky(synapse(y), membranes[i])
                    y = pool(y)
                scores.append(self.head(y.flatten(1)))
            return torch.stack(scores).mean(0)

    return SnnTorchNet().eval()


def relu_module(network: Network) -> nn.Module:
    """The ANN twin: the same layers and weights, ReLU in place of the neurons, no time."""
    modules: list[nn.Module] = []
    for each in network.layers:
        modules += [_synapse(each), nn.ReLU()] + ([nn.AvgPool2d(2)] if each.pool else [])
    head = nn.Linear(network.head.shape[1], network.head.shape[0], bias=False)
    return nn.Sequential(*modules, nn.Flatten(), _with_weight(head, network.head)).eval()


def _synapse(each: Layer) -> nn.Module:
    out, into = each.weight.shape[:2]
    if each.mean is None:
        return _with_weight(nn.Linear(into, out, bias=False), each.weight)  # type: ignore[no-any-return]
    conv = _with_weight(nn.Conv2d(into, out, 3, padding=1, bias=False), each.weight)
    return nn.Sequential(conv, _batch_norm(each, nn.BatchNorm2d(out, eps=EPS)))


class TorchNet(nn.Module):
    """Plain PyTorch at its best: BatchNorm folded, T in the batch, the first layer computed once, an IF loop in
    place."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.timesteps = network.timesteps
        self.thresholds = [each.threshold for each in network.layers]
        self.pools = [each.pool for each in network.layers]
        folded = [each.folded() for each in network.layers]
        self.weights = nn.ParameterList(nn.Parameter(w, requires_grad=False) for w, _ in folded)
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(len(w)) if b is None else b, requires_grad=False) for w, b in folded
        )
        self.head = nn.Parameter(network.head, requires_grad=False)

    def forward(self, x: Tensor, record: bool = False) -> Any:
        """Class scores; with ``record`` also the spikes of every layer."""
        batch, spikes = len(x), []
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            drive = F.conv2d(x, weight, bias, padding=1) if weight.dim() == 4 else F.linear(x, weight, bias)
            x = self._fire(drive, batch, self.thresholds[i])
            if record:
                spikes.append(x)
            if self.pools[i]:
                x = F.avg_pool2d(x, 2)
        scores = F.linear(x.flatten(1), self.head).unflatten(0, (self.timesteps, batch)).mean(0)
        return (scores, spikes) if record else scores

    def _fire(self, drive: Tensor, batch: int, threshold: float) -> Tensor:
        """IF over ``[T * N, ...]`` (or ``[N, ...]``, constant in time) currents."""
        steps = drive.split(batch) if len(drive) > batch else [drive] * self.timesteps
        v, out = torch.zeros_like(steps[0]), []
        for current in steps:
            v = v + current
            s = (v >= threshold).to(v.dtype)
            v = v - s * threshold
            out.append(s)
        return torch.cat(out)
