"""Sinabs 3, its neurons on ``[N, T, ...]``, folded into ``[N*T, ...]``, and recurrent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import sinabs.layers as sl
from sinabs.activation import MaxSpike, MembraneReset, MembraneSubtract, MultiSpike, SingleSpike
from sinabs.layers.alif import ALIFSqueeze
from torch import Tensor, nn

from conformance.library import Build, Draw, Library, Shape, Variant
from conformance.networks import BATCH

STATE = {"v_mem": "v", "i_syn": "i", "b": "a"}
"""Sinabs' name of a state variable -> the graph's."""
SPIKES: Mapping[str, Callable[[Draw], Any]] = {
    "single": lambda draw: SingleSpike,
    "multi": lambda draw: MultiSpike,
    "at most": lambda draw: MaxSpike(draw.of(2, 3)),
}
RESETS: Mapping[str, Callable[[Draw], Any]] = {
    "subtract": lambda draw: MembraneSubtract(),
    "subtract, own charge": lambda draw: MembraneSubtract(draw.of(0.5, 0.7, 1.3)),
    "reset": lambda draw: MembraneReset(),
    "reset to a value": lambda draw: MembraneReset(draw.of(-0.1, 0.05, 0.125)),
}
KINDS: Mapping[str, tuple[type, type, type]] = {
    "IAF": (sl.IAF, sl.IAFSqueeze, sl.IAFRecurrent),
    "LIF": (sl.LIF, sl.LIFSqueeze, sl.LIFRecurrent),
    "ALIF": (sl.ALIF, ALIFSqueeze, sl.ALIFRecurrent),
}


def _tau(draw: Draw) -> float:
    return float(draw.of(1.5, 3.0, 5.0, 10.0, 20.0))


def _leak(kind: str, draw: Draw) -> dict[str, Any]:
    """Time constants, and what follows from them."""
    synapse = {"tau_syn": draw.of(None, None, 2.0, 6.0)}
    if kind == "IAF":
        return synapse
    leak = {"tau_mem": _tau(draw), "norm_input": draw.random() < 0.3, "train_alphas": draw.random() < 0.3}
    if kind == "ALIF":
        leak |= {"tau_adapt": _tau(draw), "adapt_scale": draw.of(0.3, 1.0, 1.8)}
    return {**synapse, **leak}


def spiking(kind: str, form: int, spikes: str, reset: str) -> Variant:
    """``form``: 0 plain, 1 folded, 2 recurrent."""

    def make(draw: Draw) -> Build:
        settings = {
            **_leak(kind, draw),
            "spike_threshold": draw.threshold() * (0.25 if draw.random() < 0.3 else 1.0),
            "spike_fn": SPIKES[spikes](draw),
            "reset_fn": RESETS[reset](draw),
            "min_v_mem": draw.of(None, -1.0, -0.3, -0.7),
        }
        made = KINDS[kind][form]

        def build(shape: Shape) -> nn.Module:
            return made(**settings, **_form(form, shape))  # type: ignore[no-any-return]

        return build

    return Variant(made_name(kind, form), f"{spikes}, {reset}", make)


def made_name(kind: str, form: int) -> str:
    """What Sinabs calls it."""
    return KINDS[kind][form].__name__


def _form(form: int, shape: Shape) -> dict[str, Any]:
    if form == 2:
        return {"rec_connect": nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), prod(shape)))}
    return {"batch_size": BATCH} if form else {}


def leaking(form: int) -> Variant:
    """A readout: it never fires."""

    def make(draw: Draw) -> Build:
        settings = {
            "tau_mem": _tau(draw),
            "norm_input": draw.random() < 0.5,
            "min_v_mem": draw.of(None, -0.3),
            "train_alphas": draw.random() < 0.3,
        }
        made = (sl.ExpLeak, sl.ExpLeakSqueeze)[form]
        return lambda shape: made(**settings, **_form(form, shape))  # type: ignore[no-any-return]

    return Variant(("ExpLeak", "ExpLeakSqueeze")[form], "none", make, spiking=False)


class BatchFirst(nn.Module):
    """Layers for ``[N, T, ...]`` or ``[N*T, ...]``, on ``[T, N, ...]``."""

    def __init__(self, layers: list[nn.Module], folded: bool) -> None:
        super().__init__()
        self.body, self.folded = nn.Sequential(*layers), folded

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        if not self.folded:
            return self.body(x).transpose(0, 1)  # type: ignore[no-any-return]
        return self.body(x.flatten(0, 1)).unflatten(0, x.shape[:2]).transpose(0, 1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Sinabs(Library):
    """Sinabs."""

    def chain(self, layers: list[nn.Module]) -> nn.Module:
        folded = any(isinstance(layer, sl.SqueezeMixin) for layer in layers)
        framed = (nn.Conv2d, nn.Flatten)
        return BatchFirst([sl.Repeat(m) if isinstance(m, framed) and not folded else m for m in layers], folded)

    def reference(self, model: nn.Module, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        neurons = [m for m in model.modules() if isinstance(m, sl.StatefulLayer)]
        for neuron in neurons:
            neuron.reset_states()
            neuron.record_states = True  # ALIF keeps its current nowhere else
        made = tuple(model(*xs))
        for neuron in neurons:
            neuron.record_states = False
        return made

    def state(self, neuron: nn.Module) -> Mapping[str, Tensor]:
        recorded: Any = neuron.recordings
        return {ours: recorded[theirs][:, -1] for theirs, ours in STATE.items() if theirs in recorded}


LIBRARY = Sinabs(
    "sinabs",
    {
        **{
            f"{kind}/{form}/{spikes}/{reset}": spiking(kind, form, spikes, reset)
            for kind in KINDS
            for form in (0, 1, 2)
            for spikes in (("single", "at most") if form == 2 else SPIKES)
            for reset in RESETS
        },
        **{f"ExpLeak/{form}": leaking(form) for form in (0, 1)},
    },
)
