"""What the suite needs to know of a library."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

import torch
from torch import Tensor, nn

from ldsnn_compiler.frontend import trace
from ldsnn_compiler.ir.graph import Graph

Shape = tuple[int, ...]
Build = Callable[[Shape], nn.Module]


class Draw(random.Random):
    """Random settings, the same for the same words."""

    def __init__(self, *words: object) -> None:
        super().__init__("/".join(map(str, words)))

    def of(self, *choices: Any) -> Any:
        """One of these."""
        return self.choice(choices)

    def decay(self) -> float:
        """A decay per timestep, or what else lies between 0 and 1."""
        return float(self.of(0.5, 0.75, 0.875, 0.9, 0.95, 0.3))

    def threshold(self) -> float:
        """A threshold that the drawn weights reach."""
        return float(self.of(0.5, 0.7, 1.0, 1.5))

    def tensor(self, shape: Shape, low: float, high: float) -> Tensor:
        """A number for each neuron, a multiple of 1/16."""
        values = [self.randint(int(16 * low), int(16 * high)) / 16 for _ in range(torch.Size(shape).numel())]
        return torch.tensor(values).reshape(shape)


@dataclass(frozen=True)
class Variant:
    """One neuron with one way to reset. ``spiking``: False if what it emits is no multiple of a power of two.
    ``maps``: False if its layers are dense only."""

    neuron: str
    reset: str
    make: Callable[[Draw], Build]
    spiking: bool = True
    maps: bool = True


@dataclass(frozen=True)
class Library:
    """One library, in the version that is installed."""

    distribution: str
    variants: Mapping[str, Variant]

    @property
    def version(self) -> str:
        """The version installed."""
        return metadata.version(self.distribution)

    def synapse(self, kind: str, *sizes: int) -> nn.Module:
        """A ``linear`` layer (inputs, outputs), a ``conv`` of 3x3 (channels in, out), or a ``flatten``."""
        return SYNAPSES[kind](*sizes)

    def chain(self, layers: list[nn.Module]) -> nn.Module:
        """The layers as one model."""
        return nn.Sequential(*layers)

    def reference(self, model: nn.Module, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The library's own run from rest, ``model(*xs)`` of ``[T, N, ...]``."""
        raise TypeError(f"{type(self).__name__} has no reference")

    def state(self, neuron: nn.Module) -> Mapping[str, Tensor]:
        """State after the reference, by the graph's names."""
        raise TypeError(f"{type(self).__name__} has no state")

    def module(self, model: nn.Module, path: str) -> nn.Module:
        """The module that became the neuron node of that path."""
        return model.get_submodule(path)

    def graph(self, model: nn.Module, xs: tuple[Tensor, ...]) -> Graph:
        """The model imported."""
        return trace(model, xs, xs[0].shape[0], sequence=True)

    def weights(self, model: nn.Module) -> Iterator[Tensor]:
        """The tensors that are drawn."""
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                yield from (t.data for t in (module.weight, module.bias) if t is not None)


SYNAPSES: Mapping[str, Callable[..., nn.Module]] = {
    "linear": nn.Linear,
    "conv": lambda i, o: nn.Conv2d(i, o, 3, padding=1),
    "flatten": nn.Flatten,
}


@dataclass(frozen=True)
class Entry:
    """Where a library's table is, and what to install where the library cannot share this environment."""

    module: str
    requirement: str = ""


LIBRARIES: Mapping[str, Entry] = {
    "spikingjelly": Entry("conformance.with_spikingjelly"),
    "spikingjelly-0.0.0.0.14": Entry("conformance.with_spikingjelly", "spikingjelly==0.0.0.0.14"),
    "snntorch": Entry("conformance.with_snntorch"),
    "norse": Entry("conformance.with_norse"),
    "sinabs": Entry("conformance.with_sinabs"),
}


def library(name: str) -> Library:
    """The library of that name, which must be installed."""
    found: Library = import_module(LIBRARIES[name].module).LIBRARY
    return found
