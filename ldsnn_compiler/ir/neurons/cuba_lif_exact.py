"""Current-based LIF solved exactly for input that is held during a timestep.

The current decays while the membrane integrates it, so the membrane sees the current of the step before and, directly,
some of this step's input: ``h = beta * v + i + gain * x``, then ``i = alpha * i + feed * x``. The current i is kept in
units of what it adds to the membrane. (Rotter and Diesmann, Biological Cybernetics 81, 1999.)
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_OPTIONS, FIRING_PARAMS, spiking
from ldsnn_compiler.ir.program import Program

CURRENT = {
    "alpha": Param(0.9, "current decay per timestep", bound=1.0),
    "beta": Param(0.8, "membrane decay per timestep", bound=1.0),
    "gain": Param(0.0, "what an input adds to the membrane in its own timestep"),
    "feed": Param(1.0, "what an input adds to the membrane through the current, in the next timestep"),
    "i_init": Param(0.0, "current before the first step"),
}


def build(options: Options) -> Program:
    return spiking(options, "h = beta * v + i + gain * x; i = alpha * i + feed * x", state={"i": "i_init"})


CUBA_LIF_EXACT = register(
    Template(
        "cuba_lif_exact",
        "Current-based leaky integrate-and-fire, exact for held input (NIR CubaLIF): "
        "h = beta * v + i + gain * x; i = alpha * i + feed * x.",
        {**FIRING_PARAMS, **CURRENT},
        FIRING_OPTIONS,
        build,
    )
)
