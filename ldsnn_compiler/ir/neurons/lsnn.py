"""LSNN neuron (Bellec et al. 2018), in Norse's form: a LIF neuron whose threshold rises with every spike.

The membrane is charged by the *old* current, so an input acts one step later; the threshold ``b`` leaks back to
``threshold`` before it is compared::

    h = v + mem_rate * ((v_leak - v) + i);   b = b + adapt_rate * (threshold - b);   n = [h > b]
    v = v_reset where fired;   i = i - syn_rate * i + x;   b = b + n * adapt_gain
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Choice, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FEEDBACK, FIRING_PARAMS, drive
from ldsnn_compiler.ir.neurons.lif_euler import RATES
from ldsnn_compiler.ir.program import Program, program


def build(options: Options) -> Program:
    return program(
        {"v": "v_init", "i": 0.0, "b": "threshold"},
        charge=("h = v + mem_rate * ((v_leak - v) + i)", "b = b + adapt_rate * (threshold - b)"),
        fire=("n = h > b", "s = n * spike_value"),
        reset=("v = select(n > 0, v_reset, h)", f"i = i - syn_rate * i + {drive(options)}", "b = b + n * adapt_gain"),
    )


LSNN = register(
    Template(
        "lsnn",
        "Adaptive leaky integrate-and-fire (Norse LSNN): charged by the current before this step's input, fires at "
        "h > b; b leaks to threshold and rises by adapt_gain per spike.",
        {
            **{k: FIRING_PARAMS[k] for k in ("threshold", "v_reset", "v_init", "spike_value")},
            **RATES,
            "adapt_rate": Param(0.01, "dt / tau of the adaptation"),
            "adapt_gain": Param(1.8, "rise of the threshold per spike"),
        },
        {**FEEDBACK, "max_count": Choice(1, (1,), "binary spikes only")},
        build,
    )
)
