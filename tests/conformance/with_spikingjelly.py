"""SpikingJelly 2 and 0.0.0.0.14, in multi-step and single-step mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from conformance.library import Build, Draw, Library, Variant

STATE = {"v": "v", "c": "i", "w": "w"}
"""SpikingJelly's name of a state variable -> the graph's."""
RESETS: Mapping[str, Callable[[Draw], float | None]] = {
    "soft": lambda draw: None,
    "hard, zero": lambda draw: 0.0,
    "hard": lambda draw: float(draw.of(0.25, -0.3, 0.1)),
}
KINDS: Mapping[str, tuple[str, Callable[[Draw], dict[str, Any]]]] = {
    "IFNode": ("IFNode", lambda draw: {}),
    "HalfThresholdIFNode": ("HalfThresholdIFNode", lambda draw: {}),
    "LIFNode": ("LIFNode", lambda draw: {"tau": draw.of(1.5, 2.0, 3.0, 8.0)}),
    "LIFNode, no decay": ("LIFNode", lambda draw: {"tau": draw.of(1.5, 2.0, 3.0, 8.0), "decay_input": False}),
    "ParametricLIFNode": ("ParametricLIFNode", lambda draw: {"init_tau": draw.of(1.5, 2.0, 3.0, 8.0)}),
    "ParametricLIFNode, no decay": (
        "ParametricLIFNode",
        lambda draw: {"init_tau": draw.of(1.5, 2.0, 3.0, 8.0), "decay_input": False},
    ),
    "CUBALIFNode": ("CUBALIFNode", lambda draw: {"c_decay": draw.decay(), "v_decay": draw.decay()}),
    "IzhikevichNode": (
        "IzhikevichNode",
        lambda draw: {
            "tau": draw.of(2.0, 3.0), "a0": draw.of(0.125, 0.05), "a": draw.of(0.1, 0.25), "b": draw.of(0.125, 0.2),
            "tau_w": draw.of(3.0, 4.0, 7.0), "v_rest": -0.1, "v_c": 0.8,
        },
    ),
}  # fmt: skip


def variant(kind: str, reset: str) -> Variant:
    def make(draw: Draw) -> Build:
        name, settings = KINDS[kind][0], {**KINDS[kind][1](draw), "v_threshold": draw.threshold()}
        if name != "HalfThresholdIFNode":
            settings["v_reset"] = RESETS[reset](draw)

        def build(_: Any) -> nn.Module:
            node = getattr(neuron, name)(**settings)
            node.step_mode = "m"
            return node  # type: ignore[no-any-return]

        return build

    return Variant(kind, reset, make)


def container(inner: str) -> Variant:
    """A neuron whose output comes back through a linear layer, or added to its input."""

    def make(draw: Draw) -> Build:
        threshold, reset = draw.threshold(), draw.of(None, 0.0)
        node = lambda: neuron.IFNode(v_threshold=threshold, v_reset=reset)  # noqa: E731
        if inner == "linear":
            return lambda shape: layer.LinearRecurrentContainer(node(), shape[0], shape[0], step_mode="m")
        return lambda _: layer.ElementWiseRecurrentContainer(node(), lambda y, x: x - 0.5 * y, step_mode="m")

    name = {"linear": "LinearRecurrentContainer", "added": "ElementWiseRecurrentContainer"}[inner]
    return Variant(f"{name} of IFNode", "soft or hard", make, maps=inner != "linear")


@dataclass(frozen=True)
class SpikingJelly(Library):
    """Either version."""

    def synapse(self, kind: str, *sizes: int) -> nn.Module:
        made = {"linear": layer.Linear, "flatten": layer.Flatten}
        if kind == "conv":
            return layer.Conv2d(*sizes, 3, padding=1, step_mode="m")
        return made[kind](*sizes, step_mode="m")  # type: ignore[no-any-return]

    def reference(self, model: nn.Module, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        functional.reset_net(model)
        return tuple(model(*xs))

    def state(self, neuron: nn.Module) -> Mapping[str, Tensor]:
        held: Any = neuron
        inner = getattr(held, "sub_module", held)
        return {STATE[k]: torch.as_tensor(v) for k, v in inner._memories.items() if k in STATE}


LIBRARY = SpikingJelly(
    "spikingjelly",
    {
        **{
            f"{kind}/{reset}": variant(kind, reset)
            for kind, (name, _) in KINDS.items()
            if hasattr(neuron, name)
            for reset in (RESETS if name != "HalfThresholdIFNode" else ("soft",))
        },
        **{f"container/{inner}": container(inner) for inner in ("linear", "added")},
    },
)
