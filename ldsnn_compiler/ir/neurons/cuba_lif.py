"""Current-based LIF: a decaying synaptic current in front of the membrane (SpikingJelly CUBALIF, snnTorch Synaptic)."""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FEEDBACK, FIRING_OPTIONS, FIRING_PARAMS, drive, spiking
from ldsnn_compiler.ir.program import Program


def build(options: Options) -> Program:
    return spiking(options, "h = beta * v + i", state={"i": "i_init"}, synapse=f"i = alpha * i + {drive(options)}")


CUBA_LIF = register(
    Template(
        "cuba_lif",
        "Current-based leaky integrate-and-fire: i = alpha * i + x; h = beta * v + i.",
        {
            **FIRING_PARAMS,
            "alpha": Param(0.9, "current decay per timestep", bound=1.0),
            "beta": Param(0.8, "membrane decay per timestep", bound=1.0),
            "i_init": Param(0.0, "current before the first step"),
        },
        {**FIRING_OPTIONS, **FEEDBACK},
        build,
    )
)
