"""Current-based leaky integrator without spikes: ``v = beta * v + i + gain * x``, then ``i = alpha * i + feed * x``.

With ``gain = g, feed = alpha * g`` this is ``i' = alpha * i' + g * x; v = beta * v + i'``, the current first. With
``driven`` a constant is added in every step, as a resting membrane other than 0 does.
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Choice, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.cuba_lif_exact import CURRENT
from ldsnn_compiler.ir.program import Program, program


def build(options: Options) -> Program:
    drive = " + drive" if options["driven"] else ""
    charge = f"v = beta * v + i + gain * x{drive}; i = alpha * i + feed * x"
    return program({"v": "v_init", "i": "i_init"}, charge=charge, output="v")


CUBA_LI = register(
    Template(
        "cuba_li",
        "Current-based leaky integrator (NIR CubaLI): v = beta * v + i + gain * x; i = alpha * i + feed * x.",
        {
            **CURRENT,
            "drive": Param(0.0, "what is added in every step, if driven"),
            "v_init": Param(0.0, "membrane before the first step"),
        },
        {"driven": Choice(False, (False, True), "drive is added in every step")},
        build,
        spiking=False,
    )
)
