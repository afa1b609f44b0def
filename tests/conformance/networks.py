"""Random small networks: one or two layers, dense or convolutional, several of one architecture side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from conformance.library import Draw, Library, Shape, Variant

BATCH = 2


class SideBySide(nn.Module):
    """Networks that have nothing to do with each other, each with an input of its own."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(networks)

    def each(self, *xs: Tensor) -> tuple[Tensor, ...]:
        """The networks' outputs."""
        return tuple(net(x) for net, x in zip(self.nets, xs, strict=True))


def side_by_side(networks: list[nn.Module]) -> SideBySide:
    """The networks as one model, whose forward names its inputs: ``torch.fx`` does not follow ``*xs``."""
    names = ", ".join(f"x{i}" for i in range(len(networks)))
    space: dict[str, Any] = {}
    exec(f"def forward(self, {names}):\n    return self.each({names})", space)
    return type("SideBySide", (SideBySide,), {"forward": space["forward"]})(networks)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Layer:
    """A synapse into a map of that shape; ``flat`` layers flatten the map before them."""

    kind: str
    sizes: tuple[int, ...]
    shape: Shape
    flat: bool = False


@dataclass(frozen=True)
class Networks:
    """``count`` networks of one architecture, with weights of their own, and their input's shape without T and N."""

    library: Library
    layers: tuple[Layer, ...]
    neurons: tuple[tuple[nn.Module, ...], ...]
    synapses: tuple[tuple[nn.Module, ...], ...]
    shape: Shape
    steps: int

    def whole(self) -> nn.Module:
        """Every network as one chain."""
        nets = zip(self.synapses, self.neurons, strict=True)
        return side_by_side([self.library.chain(self._chained(s, n, range(len(self.layers)))) for s, n in nets])

    def layer(self, at: int) -> nn.Module:
        """One layer of every network."""
        nets = zip(self.synapses, self.neurons, strict=True)
        return side_by_side([self.library.chain(self._chained(s, n, range(at, at + 1))) for s, n in nets])

    def _chained(
        self, synapses: tuple[nn.Module, ...], neurons: tuple[nn.Module, ...], which: range
    ) -> list[nn.Module]:
        chain: list[nn.Module] = []
        for i in which:
            chain += [self.library.synapse("flatten")] if self.layers[i].flat else []
            chain += [synapses[i], neurons[i]]
        return chain

    def inputs(self, seed: int, dyadic: bool) -> tuple[Tensor, ...]:
        """Data for each network, ``[T, N, *shape]``."""
        made = torch.Generator().manual_seed(seed)
        size = (len(self.neurons), self.steps, BATCH, *self.shape)
        return tuple((_dyadic(size, made, 16) if dyadic else torch.randn(size, generator=made)).unbind())


def drawn(library: Library, variant: Variant, draw: Draw, count: int, steps: range, dyadic: bool) -> Networks:
    """Networks of one architecture and one setting of the neuron."""
    build, layers, shape = variant.make(draw), *_layers(variant, draw)
    synapses = tuple(tuple(library.synapse(each.kind, *each.sizes) for each in layers) for _ in range(count))
    neurons = tuple(tuple(build(each.shape).eval() for each in layers) for _ in range(count))
    made = torch.Generator().manual_seed(draw.getrandbits(32))
    for module in (m for group in (*synapses, *neurons) for m in group):
        for weight in library.weights(module):
            spread = (4.0 / max(1, weight[0].numel())) ** 0.5
            values = torch.randn(weight.shape, generator=made) * spread
            weight.copy_(_dyadic(weight.shape, made, 8) if dyadic else values)
    return Networks(library, layers, neurons, synapses, shape, draw.choice(steps))


def _layers(variant: Variant, draw: Draw) -> tuple[tuple[Layer, ...], Shape]:
    deep = variant.spiking and draw.random() < 0.6
    width, last = draw.randint(3, 9), draw.randint(2, 6)
    if variant.maps and draw.random() < 0.4:
        channels, made, side = draw.randint(1, 3), draw.randint(2, 5), draw.randint(3, 5)
        first = Layer("conv", (channels, made), (made, side, side))
        second = Layer("linear", (made * side * side, last), (last,), flat=True)
        return ((first, second) if deep else (first,)), (channels, side, side)
    features = draw.randint(2, 8)
    first, second = Layer("linear", (features, width), (width,)), Layer("linear", (width, last), (last,))
    return ((first, second) if deep else (first,)), (features,)


def _dyadic(size: tuple[int, ...], made: torch.Generator, scale: int) -> Tensor:
    """Multiples of ``1 / scale``, somewhat more positive ones."""
    return torch.randint(-10, 17, size, generator=made).to(torch.float32) / scale
