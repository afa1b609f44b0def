"""Leaky integrate-and-fire whose current is scaled by a gain of its own, in Sinabs' form.

``h = beta * v + gain * i``, where ``i`` is the input or, with ``synapse``, a current that decays together with the
input of the step: ``i = alpha * (i + x)``. Sinabs has ``beta = exp(-1/tau_mem)`` and, with ``norm_input``,
``gain = 1 - beta``.
"""

from __future__ import annotations

from fractions import Fraction

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import Choice, Neuron, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_OPTIONS, FIRING_PARAMS, leaky_oneshot, over_steps, scaled, spiking
from ldsnn_compiler.ir.program import Program

SYNAPSE = Choice(False, (False, True), "a synaptic current in front of the membrane, i = alpha * (i + x)")
PARAMS = {
    "alpha": Param(0.9, "current decay per timestep, with synapse", bound=1.0),
    "beta": Param(0.9, "membrane decay per timestep", bound=1.0),
    "gain": Param(1.0, "what the current is multiplied by"),
}


def build(options: Options) -> Program:
    if options["synapse"]:
        return spiking(options, "h = beta * v + gain * i", state={"i": 0.0}, synapse="i = alpha * (i + x)")
    return spiking(options, "h = beta * v + gain * x")


def oneshot(neuron: Neuron, r: int, levels: int, share: Fraction) -> Neuron:
    """Approximate (see :func:`~ldsnn_compiler.ir.neurons.common.leaky_oneshot`): beta becomes beta**r, g stays gain."""
    if neuron.options["synapse"] or neuron.options["reset_time"] != "now":
        raise LdsnnError("oneshot retiming of lif_gain needs a reset at once and no synaptic current; use micro")
    decay, gain = over_steps(scaled(neuron.params["beta"], 1, "beta"), r)
    return leaky_oneshot(neuron, levels, share, gain, gain).with_(beta=decay)


LIF_GAIN = register(
    Template(
        "lif_gain",
        "Leaky integrate-and-fire with a gain (Sinabs LIF): h = beta * v + gain * x; synapse: i = alpha * (i + x).",
        {**FIRING_PARAMS, **PARAMS},
        {**FIRING_OPTIONS, "synapse": SYNAPSE},
        build,
        retimings={"oneshot": oneshot},
    )
)
