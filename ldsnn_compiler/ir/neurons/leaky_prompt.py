"""snnTorch Leaky with ``reset_mechanism="subtract", reset_delay=False``: the spike of this step is subtracted at once.

A membrane that is still above threshold after the subtraction does not fire again for that: the next step first
subtracts the threshold once more, fires on what is left, and gives it back after the spike is known ("avoid double
reset" in the source). While no input exceeds the threshold by so much, this is ``leaky`` with a soft reset.
"""

from __future__ import annotations

from fractions import Fraction

from ldsnn_compiler.ir.neuron import Choice, Neuron, Options, Param, Template, neuron, register
from ldsnn_compiler.ir.neurons.common import FEEDBACK, FIRING_PARAMS, drive
from ldsnn_compiler.ir.program import Program, program


def build(options: Options) -> Program:
    return program(
        {"v": "v_init"},
        charge=("n0 = v > threshold", f"h = beta * v + {drive(options)}", "h = h - n0 * threshold"),
        fire=("n = h > threshold", "s = n * spike_value"),
        reset="v = h - (n - n0) * threshold",
    )


def oneshot(prompt: Neuron, r: int, levels: int, share: Fraction) -> Neuron:
    """Approximate: as ``leaky`` with a soft reset, whose counts say what a membrane far above threshold owes."""
    soft = neuron("leaky", compare="gt", **dict(prompt.settings))
    return soft.retime(r, levels, "oneshot", share)


LEAKY_PROMPT = register(
    Template(
        "leaky_prompt",
        "snnTorch Leaky(reset_delay=False), subtracting: as leaky, but a residue above threshold does not fire: "
        "n0 = [v > threshold]; h = beta * v + x - n0 * threshold; v = h - (n - n0) * threshold.",
        {
            **{name: FIRING_PARAMS[name] for name in ("threshold", "v_init", "spike_value")},
            "beta": Param(0.9, "membrane decay per timestep", bound=1.0),
        },
        {"max_count": Choice(1, (1,), "binary spikes only"), **FEEDBACK},
        build,
        retimings={"oneshot": oneshot},
    )
)
