"""snnTorch, its neurons with hidden states, stepped from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import snntorch as snn
import torch
from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor, nn

from conformance.library import Build, Draw, Library, Shape, Variant

STATE = {"mem": "v", "syn": "i", "syn_exc": "e", "syn_inh": "i"}
"""snnTorch's name of a state variable -> the graph's."""
RESETS = ("subtract", "zero", "none")


def _common(draw: Draw, reset: str, delay: bool | None) -> dict[str, Any]:
    late = {} if delay is None else {"reset_delay": delay}
    return {"threshold": draw.threshold(), "reset_mechanism": reset, "init_hidden": True, **late}


def _each(draw: Draw, shape: Shape, value: float) -> Any:
    """A parameter of the layer, or of each neuron."""
    return value if draw.random() < 0.6 else draw.tensor(shape, 0.125, 0.9375)


def leaky(reset: str, delay: bool) -> Variant:
    def make(draw: Draw) -> Build:
        settings, beta = _common(draw, reset, delay), draw.of(draw.decay(), 1.0, 1.5)
        graded, seed = draw.of(1.0, 1.0, 2.5, -0.5), draw.random()
        return lambda shape: snn.Leaky(beta=_each(Draw(seed), shape, beta), graded_spikes_factor=graded, **settings)

    return Variant("Leaky", _named(reset, delay), make)


def lapicque(reset: str) -> Variant:
    def make(draw: Draw) -> Build:
        # compiled code folds R, 1 / RC and time_step into the weights, which dyadic ones leave exact
        circuit = {"R": draw.of(1.0, 2.0, 4.0), "C": draw.of(2.0, 4.0), "time_step": draw.of(0.5, 1.0)}
        settings = _common(draw, reset, None)
        return lambda _: snn.Lapicque(**circuit, **settings)

    return Variant("Lapicque", _named(reset, True), make)


def synaptic(reset: str, delay: bool) -> Variant:
    def make(draw: Draw) -> Build:
        settings, alpha, beta = _common(draw, reset, delay), draw.decay(), draw.decay()
        return lambda _: snn.Synaptic(alpha=alpha, beta=beta, **settings)

    return Variant("Synaptic", _named(reset, delay), make)


def alpha(reset: str) -> Variant:
    def make(draw: Draw) -> Build:
        settings, beta = _common(draw, reset, None), draw.of(0.3, 0.5, 0.7)
        rise = beta + draw.of(0.125, 0.25)
        return lambda _: snn.Alpha(alpha=rise, beta=beta, **settings)

    return Variant("Alpha", _named(reset, True), make)


def recurrent(kind: str, reset: str, delay: bool, one_to_one: bool) -> Variant:
    def make(draw: Draw) -> Build:
        settings = {"beta": draw.decay(), **_common(draw, reset, delay)}
        if kind == "RSynaptic":
            settings["alpha"] = draw.decay()
        factor = draw.of(0.5, -0.25, -1.0)

        def build(shape: Shape) -> nn.Module:
            if one_to_one:
                wiring: dict[str, Any] = {"all_to_all": False, "V": factor}
            elif len(shape) == 1:
                wiring = {"linear_features": shape[0]}
            else:
                wiring = {"conv2d_channels": shape[0], "kernel_size": 3}
            return getattr(snn, kind)(**wiring, **settings)  # type: ignore[no-any-return]

        return build

    return Variant(f"{kind}, {'one to one' if one_to_one else 'all to all'}", _named(reset, delay), make)


def _named(reset: str, delay: bool) -> str:
    return reset if delay or reset == "none" else f"{reset}, prompt"


@dataclass(frozen=True)
class SnnTorch(Library):
    """snnTorch."""

    def reference(self, model: nn.Module, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        SpikingNeuron.instances.clear()  # the library collects every neuron ever made
        for module in model.modules():
            if isinstance(module, SpikingNeuron):
                module.reset_mem()
        steps = [model(*now) for now in zip(*xs, strict=True)]
        return tuple(torch.stack(each) for each in zip(*steps, strict=True))

    def state(self, neuron: nn.Module) -> Mapping[str, Tensor]:
        return {ours: getattr(neuron, theirs) for theirs, ours in STATE.items() if hasattr(neuron, theirs)}


LIBRARY = SnnTorch(
    "snntorch",
    {
        **{f"leaky/{r}/{d}": leaky(r, d) for r in RESETS for d in (True, False) if d or r != "none"},
        **{f"lapicque/{r}": lapicque(r) for r in RESETS},
        **{f"synaptic/{r}": synaptic(r, True) for r in RESETS},
        "synaptic/zero/prompt": synaptic("zero", False),
        **{f"alpha/{r}": alpha(r) for r in RESETS},
        **{
            f"rleaky/{r}/{d}/{o}": recurrent("RLeaky", r, d, o)
            for r, d in (("subtract", True), ("subtract", False), ("zero", True), ("zero", False), ("none", True))
            for o in (False, True)
        },
        **{f"rsynaptic/{r}/{o}": recurrent("RSynaptic", r, True, o) for r in RESETS for o in (False, True)},
    },
)
