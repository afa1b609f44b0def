"""Integrate-and-fire: ``h = v + x``."""

from __future__ import annotations

from fractions import Fraction

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import Neuron, Options, Template, register
from ldsnn_compiler.ir.neuron import neuron as build_neuron
from ldsnn_compiler.ir.neurons.common import (
    FIRING_OPTIONS,
    FIRING_PARAMS,
    keeps_hard_reset,
    per_level,
    refuse_offset,
    scaled,
    spiking,
)
from ldsnn_compiler.ir.program import Program


def build(options: Options) -> Program:
    return spiking(options, "h = v + x")


def closed(neuron: Neuron, r: int, levels: int, share: Fraction) -> Neuron:
    """Exact for constant input. Soft reset: gain 1, unit charge threshold/k, v_init/k, count clipped to k, output
    count/k; all of it times ``share``. Hard reset: counts as :mod:`~ldsnn_compiler.ir.neurons.if_held` has them."""
    if neuron.options["reset"] == "hard" and levels > 1:
        return _held(neuron, r, levels, share)
    if neuron.options["reset"] != "soft" or neuron.options["reset_time"] != "now":
        raise LdsnnError(
            "closed retiming needs an IF neuron whose reset takes effect at once, a soft reset unless spikes are "
            "counted; use micro or oneshot"
        )
    if neuron.options["max_count"] != 1 and not levels == share == 1:
        raise LdsnnError("closed retiming gives levels to a binary neuron; this one emits counts already")
    return neuron.with_(max_count=levels, **per_level(neuron, levels, share)) if share != levels else neuron


def _held(neuron: Neuron, r: int, levels: int, share: Fraction) -> Neuron:
    """Counts of r/k former spikes each."""
    binary = neuron.options["max_count"] == 1 and neuron.options["reset_time"] == "now"
    if not binary or share != 1 or Fraction(r).denominator != 1 or levels > r:
        raise LdsnnError(
            "closed retiming of an IF neuron with a hard reset needs binary spikes, a reset that takes effect at once, "
            "a whole number r of steps in one, the whole range and at most r levels; use micro or oneshot"
        )
    unit = Fraction(r, levels)
    kept = {k: v for k, v in neuron.settings if k in ("compare", "floor", "threshold", "v_reset", "v_init", "v_min")}
    value = scaled(neuron.params["spike_value"], unit / r, "spike_value")
    return build_neuron("if_held", **kept, max_count=levels, steps=int(r), unit=float(unit), spike_value=value)


def oneshot(neuron: Neuron, r: int, levels: int, share: Fraction) -> Neuron:
    """Approximate, hard reset. One spike a step: the same neuron with ``share`` of its threshold; a reset drops what is
    above it, once for the share * r former spikes that it stands for. Counts of ``share * threshold / k`` are
    subtracted, so the residue that each hard reset drops is kept."""
    refuse_offset(neuron)
    if keeps_hard_reset(neuron, levels):
        v_reset = scaled(neuron.params["v_reset"], share, "v_reset")
        return neuron.with_(None, reset_time="now", v_reset=v_reset, **per_level(neuron, 1, share))
    return closed(neuron.with_(reset="soft", reset_time="now"), r, levels, share)


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
