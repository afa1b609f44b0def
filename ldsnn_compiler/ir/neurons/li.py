"""Leaky integrator without spikes, a readout: ``v = beta * v + x``, emitted as it is.

With ``scaled`` its input is multiplied by a gain; ``driven`` adds a constant in every step, as a resting membrane
other than 0 does; with a ``floor`` it emits the membrane before that is clamped.
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Choice, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_OPTIONS, FIRING_PARAMS, floored
from ldsnn_compiler.ir.program import Program, program


def build(options: Options) -> Program:
    charged = f"beta * v + {'gain * x' if options['scaled'] else 'x'}{' + drive' if options['driven'] else ''}"
    if not options["floor"]:
        return program({"v": "v_init"}, charge=f"v = {charged}", output="v")
    return program({"v": "v_init"}, charge=f"h = {charged}", reset=("v = h", floored(options)), output="h")


LI = register(
    Template(
        "li",
        "Leaky integrator (Norse LI, Sinabs ExpLeak, a snnTorch Leaky that never resets, a SpikingJelly LIF with "
        "infinite threshold).",
        {
            "beta": Param(0.9, "membrane decay per timestep", bound=1.0),
            "gain": Param(1.0, "what the input is multiplied by, if scaled"),
            "drive": Param(0.0, "what is added in every step, if driven"),
            "v_init": Param(0.0, "membrane before the first step"),
            "v_min": FIRING_PARAMS["v_min"],
        },
        {
            "scaled": Choice(False, (False, True), "the input is multiplied by gain"),
            "driven": Choice(False, (False, True), "drive is added in every step"),
            "floor": FIRING_OPTIONS["floor"],
        },
        build,
        spiking=False,
    )
)
