"""Leaky integrate-and-fire as one step of Euler's method, in Norse's form.

``h = v + mem_rate * ((v_leak - v) + j)``, where ``j = i + x`` is the synaptic current after the jump; only then does it
decay, ``i = j - syn_rate * j``. Without ``synapse`` (Norse LIFBox) ``h = v + mem_rate * ((x + v_leak) - v)``. The rates
are ``dt / tau``, rounded once.
"""

from __future__ import annotations

from fractions import Fraction

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import Choice, Neuron, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import (
    FEEDBACK,
    FIRING_OPTIONS,
    FIRING_PARAMS,
    drive,
    leaky_oneshot,
    scaled,
    spiking,
)
from ldsnn_compiler.ir.program import Program

SYNAPSE = Choice(True, (True, False), "a synaptic current in front of the membrane that decays after use")
RATES = {
    "mem_rate": Param(0.1, "dt / tau of the membrane"),
    "syn_rate": Param(0.2, "dt / tau of the synaptic current"),
    "v_leak": Param(0.0, "membrane without input"),
}


def current(drive: str) -> str:
    """Jump, then decay, of the synaptic current."""
    return f"j = i + {drive}; i = j - syn_rate * j"


def build(options: Options) -> Program:
    if options["synapse"]:
        charge = "h = v + mem_rate * ((v_leak - v) + j)"
        return spiking(options, charge, state={"i": 0.0}, synapse=current(drive(options)))
    return spiking(options, f"h = v + mem_rate * (({drive(options)} + v_leak) - v)")


def oneshot(neuron: Neuron, r: int, levels: int, share: Fraction) -> Neuron:
    """Approximate (see :func:`~ldsnn_compiler.ir.neurons.common.leaky_oneshot`): d = 1 - mem_rate becomes d**r.

    g = mem_rate and G = 1 - d**r: the same equation with the rate G.
    """
    if neuron.options["synapse"]:
        raise LdsnnError("oneshot retiming of a neuron with a synaptic current is not defined; use micro")
    rate = scaled(neuron.params["mem_rate"], 1, "mem_rate")
    whole = 1.0 - (1.0 - rate) ** int(r)
    return leaky_oneshot(neuron, levels, share, whole / rate, 1.0).with_(mem_rate=whole)


LIF_EULER = register(
    Template(
        "lif_euler",
        "Leaky integrate-and-fire by Euler's method (Norse LIF, LIFBox): h = v + mem_rate * ((v_leak - v) + j); "
        "j = i + x; i = j - syn_rate * j.",
        {**FIRING_PARAMS, **RATES},
        {**FIRING_OPTIONS, **FEEDBACK, "synapse": SYNAPSE},
        build,
        retimings={"oneshot": oneshot},
    )
)
