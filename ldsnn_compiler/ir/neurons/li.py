"""Leaky integrator without spikes, a readout: ``v = beta * v + x``, emitted as it is."""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Options, Param, Template, register
from ldsnn_compiler.ir.program import Program, program


def build(options: Options) -> Program:
    return program({"v": "v_init"}, charge="v = beta * v + x", output="v")


LI = register(
    Template(
        "li",
        "Leaky integrator (Norse LI, a snnTorch Leaky that never resets, a SpikingJelly LIF with infinite threshold).",
        {"beta": Param(0.9, "membrane decay per timestep"), "v_init": Param(0.0, "membrane before the first step")},
        {},
        build,
        spiking=False,
    )
)
