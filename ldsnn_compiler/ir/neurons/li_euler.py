"""Leaky integrator without spikes as one step of Euler's method, in Norse's form: a readout.

``v = v + mem_rate * ((v_leak - v) + j)`` with the synaptic current of :mod:`~ldsnn_compiler.ir.neurons.lif_euler`, or
with ``x`` in place of ``j`` (Norse LIBox). The membrane is emitted as it is.
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Options, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_PARAMS
from ldsnn_compiler.ir.neurons.lif_euler import RATES, SYNAPSE, current
from ldsnn_compiler.ir.program import Program, program


def build(options: Options) -> Program:
    if options["synapse"]:
        charge = "v = v + mem_rate * ((v_leak - v) + j)"
        return program({"v": "v_init", "i": 0.0}, synapse=current("x"), charge=charge, output="v")
    return program({"v": "v_init"}, charge="v = v + mem_rate * ((v_leak - v) + x)", output="v")


LI_EULER = register(
    Template(
        "li_euler",
        "Leaky integrator by Euler's method (Norse LI, LIBox): v = v + mem_rate * ((v_leak - v) + j); j = i + x; "
        "i = j - syn_rate * j.",
        {**RATES, "v_init": FIRING_PARAMS["v_init"]},
        {"synapse": SYNAPSE},
        build,
        spiking=False,
    )
)
