"""Norse 1.1: layers over time, and cells lifted over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import norse.torch as norse
import torch
from norse.torch.functional.reset import reset_subtract
from norse.torch.module.snn import SNN, SNNRecurrent
from torch import Tensor, nn

from conformance.library import Build, Draw, Library, Shape, Variant


def _tensors(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def _firing(draw: Draw) -> dict[str, Tensor]:
    threshold, reset = draw.of(0.3, 0.5, 0.9), draw.of(0.0, 0.0, -0.2)
    return _tensors(v_th=threshold, v_reset=reset, v_leak=draw.of(0.0, 0.0, 0.125, -0.3))


def _membrane(draw: Draw) -> dict[str, Tensor]:
    return {**_firing(draw), **_tensors(tau_mem_inv=draw.of(100.0, 200.0, 70.0))}


def _current(draw: Draw) -> dict[str, Tensor]:
    return {**_membrane(draw), **_tensors(tau_syn_inv=draw.of(200.0, 150.0, 90.0))}


def lif(draw: Draw) -> Any:
    return norse.LIFParameters(**_current(draw))


def lsnn(draw: Draw) -> Any:
    return norse.LSNNParameters(
        **_current(draw), **_tensors(beta=draw.of(0.2, 0.5, 1.8), tau_adapt_inv=draw.of(9.0, 40.0))
    )


def leaky(name: str) -> Callable[[Draw], Any]:
    def settings(draw: Draw) -> Any:
        rates = {
            "tau_mem_inv": draw.of(100.0, 70.0),
            **({} if "Box" in name else {"tau_syn_inv": draw.of(200.0, 90.0)}),
        }
        return getattr(norse, name)(**_tensors(v_leak=draw.of(0.0, 0.25), **rates))

    return settings


def variant(name: str, parameters: Callable[[Draw], Any], reset: str = "hard", spiking: bool = True) -> Variant:
    """A layer ``name``, or a cell that is lifted; recurrent ones take the width twice."""

    def make(draw: Draw) -> Build:
        settings, dt = parameters(draw), draw.of(0.001, 0.001, 0.002)

        def build(shape: Shape) -> nn.Module:
            sizes = (shape[0], shape[0]) if "Recurrent" in name else ()
            made = getattr(norse, name)(*sizes, settings, dt=dt)
            return norse.Lift(made) if name.endswith("Cell") else made  # type: ignore[no-any-return]

        return build

    shown = f"{name}, lifted" if name.endswith("Cell") else name
    return Variant(shown, reset, make, spiking=spiking, maps="Recurrent" not in name)


class Chain(nn.Module):
    """Layers in order; the state that a neuron returns is left on it as ``after``."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if isinstance(layer, SNN | SNNRecurrent) or getattr(layer, "is_stateful", False):
                x, layer.after = layer(x)
            else:
                x = layer(x)
        return x


@dataclass(frozen=True)
class Norse(Library):
    """Norse."""

    def synapse(self, kind: str, *sizes: int) -> nn.Module:
        if kind == "conv":
            return norse.Lift(nn.Conv2d(*sizes, 3, padding=1))  # type: ignore[no-any-return]
        return nn.Flatten(2) if kind == "flatten" else nn.Linear(*sizes)

    def chain(self, layers: list[nn.Module]) -> nn.Module:
        return Chain(layers)

    def reference(self, model: nn.Module, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(model(*xs))

    def module(self, model: nn.Module, path: str) -> nn.Module:
        return model.get_submodule(path.split(".lifted")[0])

    def state(self, neuron: nn.Module) -> Mapping[str, Tensor]:
        after = neuron.after
        return {name: getattr(after, name) for name in ("v", "i", "b", "a") if hasattr(after, name)}

    def weights(self, model: nn.Module) -> Iterator[Tensor]:
        yield from super().weights(model)
        for module in model.modules():
            if isinstance(module, SNNRecurrent):
                yield from (module.input_weights.data, module.recurrent_weights.data)


LIBRARY = Norse(
    "norse",
    {
        "lif": variant("LIF", lif),
        "lif/recurrent": variant("LIFRecurrent", lif),
        "lif/cell": variant("LIFCell", lif),
        "lif/box": variant("LIFBoxCell", lambda draw: norse.LIFBoxParameters(**_membrane(draw))),
        "lif/box/soft": variant(
            "LIFBoxCell", lambda draw: norse.LIFBoxParameters(**_membrane(draw), reset_method=reset_subtract), "soft"
        ),
        "iaf": variant("IAF", lambda draw: norse.IAFParameters(**_tensors(v_th=draw.threshold(), v_reset=-0.3))),
        "lsnn": variant("LSNN", lsnn),
        "lsnn/recurrent": variant("LSNNRecurrent", lsnn),
        "lsnn/cell": variant("LSNNCell", lsnn),
        "li": variant("LI", leaky("LIParameters"), "none", spiking=False),
        "li/cell": variant("LICell", leaky("LIParameters"), "none", spiking=False),
        "li/box": variant("LIBoxCell", leaky("LIBoxParameters"), "none", spiking=False),
    },
)
