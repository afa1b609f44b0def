"""Rectifier, the activation of a conventional network: ``s = max(x, 0)``, with a ceiling ``min(max(x, 0), ceiling)``.

It keeps nothing from step to step. A network of these at one timestep is an ANN in this IR: what a conversion is
calibrated on, and what a spiking network is compared with.
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Choice, Options, Param, Template, register
from ldsnn_compiler.ir.program import Program, program


def build(options: Options) -> Program:
    emitted = "s = clamp(h, 0, ceiling)" if options["clipped"] else "s = max(h, 0)"
    return program({"v": "0.0"}, charge="h = x", fire=emitted, reset="v = h")


RELU = register(
    Template(
        "relu",
        "Rectifier without memory (an ANN's ReLU, clipped: ReLU6); the membrane shown is the input.",
        {"ceiling": Param(6.0, "largest output, if clipped")},
        {"clipped": Choice(False, (False, True), "outputs end at ceiling")},
        build,
        spiking=False,
    )
)
