"""Izhikevich's quadratic neuron as SpikingJelly discretises it.

``h = v + (x + a0 (v - v_rest)(v - v_c) - w) / tau``; ``w += (a (h - v_rest) - w) / tau_w``, then ``w += b`` where it
fired. With ``by_rate`` the adaptation is multiplied by ``k_w`` in place of divided by tau_w (SpikingJelly 0.0.0.0.14).
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Choice, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_OPTIONS, FIRING_PARAMS, spiking
from ldsnn_compiler.ir.program import Program


def build(options: Options) -> Program:
    drift = "a * (h - v_rest) - w"
    return spiking(
        options,
        "h = v + (x + a0 * (v - v_rest) * (v - v_c) - w) / tau",
        state={"w": "w_init"},
        reset=f"w = w + {f'k_w * ({drift})' if options['by_rate'] else f'({drift}) / tau_w'}; w = w + b * n",
    )


IZHIKEVICH = register(
    Template(
        "izhikevich",
        "Izhikevich neuron (SpikingJelly IzhikevichNode).",
        {
            **FIRING_PARAMS,
            "tau": Param(1.0, "membrane time constant"),
            "a0": Param(1.0, "curvature of the quadratic charge"),
            "v_rest": Param(-0.1, "resting membrane"),
            "v_c": Param(0.8, "critical membrane"),
            "w_init": Param(0.0, "adaptation before the first step"),
            "tau_w": Param(1.0, "adaptation time constant"),
            "k_w": Param(None, "1 / tau_w, for by_rate"),
            "a": Param(0.0, "coupling of the adaptation to the membrane"),
            "b": Param(0.0, "jump of the adaptation per spike"),
        },
        {**FIRING_OPTIONS, "by_rate": Choice(False, (False, True), "how the adaptation is written, and so rounded")},
        build,
    )
)
