"""Leaky integrate-and-fire in snnTorch's form: ``h = beta * v + x``, beta clamped to [0, 1] on import."""

from __future__ import annotations

from fractions import Fraction

from ldsnn_compiler.ir.neuron import Neuron, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import (
    FEEDBACK,
    FIRING_OPTIONS,
    FIRING_PARAMS,
    drive,
    leaky_oneshot,
    over_steps,
    scaled,
    spiking,
)
from ldsnn_compiler.ir.program import Program


def build(options: Options) -> Program:
    return spiking(options, f"h = beta * v + {drive(options)}")


def undelayed(neuron: Neuron) -> Neuron:
    """The same neuron with its delayed subtract written as an immediate one of ``threshold / beta``.

    ``beta * v + x - n * threshold == beta * (v - n * threshold / beta) + x``; use it before retiming, or the delay
    grows r-fold.
    """
    if neuron.options["reset"] != "soft" or neuron.options["reset_time"] == "now":
        return neuron
    charge = neuron.params.get("reset_charge", neuron.params["threshold"])
    per_spike = scaled(charge, 1, "threshold") / scaled(neuron.params["beta"], 1, "beta")
    return neuron.with_(reset_time="now", own_reset_charge=True, reset_charge=per_spike)


def oneshot(neuron: Neuron, r: int, levels: int, share: Fraction) -> Neuron:
    """Approximate (see :func:`~ldsnn_compiler.ir.neurons.common.leaky_oneshot`): beta becomes beta**r, g is 1.

    The delayed subtract is written as an immediate one first; the membrane is kept in units of G.
    """
    now = undelayed(neuron)
    decay, gain = over_steps(scaled(now.params["beta"], 1, "beta"), r)
    return leaky_oneshot(now, levels, share, gain, gain).with_(beta=decay)


LEAKY = register(
    Template(
        "leaky",
        "Leaky integrate-and-fire (snnTorch Leaky): h = beta * v + x.",
        {**FIRING_PARAMS, "beta": Param(0.9, "membrane decay per timestep", bound=1.0)},
        {**FIRING_OPTIONS, **FEEDBACK},
        build,
        retimings={"oneshot": oneshot},
    )
)
