"""Adaptive LIF whose threshold follows a low-pass filter of its spikes, in Sinabs' form.

It fires at ``th = threshold + adapt_scale * a`` and a soft reset subtracts ``th``; then ``a = rho * a + rise * n``.
Sinabs has ``rho = exp(-1/tau_adapt)`` and ``rise = 1 - rho``. Current and membrane are those of ``lif_gain``, but the
gain is applied to the synaptic current itself, so that the next step decays the scaled one.
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_OPTIONS, FIRING_PARAMS, spiking
from ldsnn_compiler.ir.neurons.lif_gain import PARAMS, SYNAPSE
from ldsnn_compiler.ir.program import Program


def build(options: Options) -> Program:
    current, state, synapse = "gain * x", {"a": 0.0}, ""
    if options["synapse"]:
        current, state, synapse = "i", {"a": 0.0, "i": 0.0}, "i = alpha * (i + x); i = gain * i"
    return spiking(
        options,
        f"h = beta * v + {current}; th = threshold + adapt_scale * a",
        state=state,
        threshold="th",
        synapse=synapse,
        reset="a = rho * a + rise * n",
    )


ALIF_FILTERED = register(
    Template(
        "alif_filtered",
        "Adaptive LIF (Sinabs ALIF): fires at threshold + adapt_scale * a; a = rho * a + rise * n.",
        {
            **FIRING_PARAMS,
            **PARAMS,
            "rho": Param(0.95, "decay of the adaptation per timestep", bound=1.0),
            "rise": Param(0.05, "rise of the adaptation per spike"),
            "adapt_scale": Param(1.8, "threshold per adaptation"),
        },
        {**{k: v for k, v in FIRING_OPTIONS.items() if k != "reset_time"}, "synapse": SYNAPSE},
        build,
    )
)
