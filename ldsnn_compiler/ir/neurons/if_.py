"""Integrate-and-fire: ``h = v + x``."""

from __future__ import annotations

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import Neuron, Options, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_OPTIONS, FIRING_PARAMS, per_level, spiking
from ldsnn_compiler.ir.program import Program


def build(options: Options) -> Program:
    return spiking(options, "h = v + x")


def closed(neuron: Neuron, r: int, levels: int) -> Neuron:
    """Exact for constant input, soft reset: gain 1, unit charge threshold/k, v_init/k, count clipped to k, output
    count/k."""
    if neuron.options["reset"] != "soft" or neuron.options["reset_time"] != "now":
        raise LdsnnError(
            "closed retiming needs an IF neuron with a soft reset that takes effect at once; use micro or oneshot"
        )
    if neuron.options["max_count"] != 1 and levels != 1:
        raise LdsnnError("closed retiming gives levels to a binary neuron; this one emits counts already")
    return neuron.with_(max_count=levels, **per_level(neuron, levels)) if levels != 1 else neuron


def oneshot(neuron: Neuron, r: int, levels: int) -> Neuron:
    """Approximate, hard reset: counts of ``threshold/k`` are subtracted, so the residue that each hard reset drops is
    kept."""
    soft = neuron.with_(reset="soft", reset_time="now")
    return closed(soft, r, levels)


IF = register(
    Template(
        "if",
        "Integrate-and-fire (SpikingJelly IFNode, Sinabs IAF, NIR IF): h = v + x.",
        FIRING_PARAMS,
        FIRING_OPTIONS,
        build,
        retimings={"closed": closed, "oneshot": oneshot},
    )
)
