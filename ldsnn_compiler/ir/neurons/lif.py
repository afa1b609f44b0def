"""Leaky integrate-and-fire in SpikingJelly's form.

``decay_input``: ``h = v + (x - (v - v_rest)) / tau``, else ``h = v - (v - v_rest) / tau + x``. With ``rate`` the
division by tau becomes a multiplication by ``k`` (ParametricLIF's sigmoid(w)); with ``fused`` the form is
``h = v * (1 - 1/tau) + x`` (SpikingJelly 0.0.0.0.14), the factor given as ``decay``.
"""

from __future__ import annotations

from fractions import Fraction

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.neuron import Choice, Neuron, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_OPTIONS, FIRING_PARAMS, leaky_oneshot, scaled, spiking
from ldsnn_compiler.ir.program import Program


def build(options: Options) -> Program:
    if options["form"] == "fused":
        return spiking(options, "h = v * decay + x")
    leak = "* k" if options["form"] == "rate" else "/ tau"
    if options["decay_input"]:
        return spiking(options, f"h = v + (x - (v - v_rest)) {leak}")
    return spiking(options, f"h = v - (v - v_rest) {leak} + x")


def oneshot(neuron: Neuron, r: int, levels: int, share: Fraction) -> Neuron:
    """Approximate (see :func:`~ldsnn_compiler.ir.neurons.common.leaky_oneshot`): d = 1 - 1/tau becomes d**r.

    With ``decay_input`` g = 1/tau and G = 1 - d**r: the same equation with ``tau' = 1 / G``. Without it g = 1 and
    G = (1 - d**r) tau, in which units the membrane is then kept.
    """
    tau = _tau(neuron)
    decay = (1.0 - 1.0 / tau) ** int(r)
    gain = (1.0 - decay) * tau
    if neuron.options["decay_input"] and neuron.options["form"] != "fused":
        return leaky_oneshot(neuron, levels, share, gain, 1.0).with_(form="tau", tau=1.0 / (1.0 - decay))
    if neuron.params.get("v_rest", 0.0) != 0.0:
        raise LdsnnError("oneshot retiming of an LIF neuron without decay_input needs v_rest = 0; use micro")
    return leaky_oneshot(neuron, levels, share, gain, gain).with_(form="fused", decay=decay)


def _tau(neuron: Neuron) -> float:
    if neuron.options["form"] == "rate":
        return 1.0 / scaled(neuron.params["k"], 1, "k")
    if neuron.options["form"] == "fused":
        return 1.0 / (1.0 - scaled(neuron.params["decay"], 1, "decay"))
    return scaled(neuron.params["tau"], 1, "tau")


LIF = register(
    Template(
        "lif",
        "Leaky integrate-and-fire (SpikingJelly LIFNode, ParametricLIFNode).",
        {
            **FIRING_PARAMS,
            "tau": Param(2.0, "membrane time constant in timesteps"),
            "k": Param(None, "1 / tau, for form = rate"),
            "decay": Param(None, "1 - 1/tau, for form = fused"),
            "v_rest": Param(0.0, "membrane without input"),
        },
        {
            **FIRING_OPTIONS,
            "form": Choice("tau", ("tau", "rate", "fused"), "how the leak is written, and so rounded"),
            "decay_input": Choice(True, (True, False), "the input is divided by tau as well"),
        },
        build,
        retimings={"oneshot": oneshot},
    )
)
