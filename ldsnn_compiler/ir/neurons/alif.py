"""Adaptive LIF: the threshold rises by ``adapt_gain`` per spike and decays back (Bellec et al. 2018)."""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Choice, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_PARAMS
from ldsnn_compiler.ir.program import Program, program


def build(options: Options) -> Program:
    compare = ">" if options["compare"] == "gt" else ">="
    return program(
        {"v": "v_init", "a": 0.0},
        charge=("h = beta * v + x", "th = threshold + a"),
        fire=(f"n = h {compare} th", "s = n * spike_value"),
        reset=(
            "v = select(n > 0, v_reset, h)" if options["reset"] == "hard" else "v = h - n * th",
            "a = rho * a + n * adapt_gain",
        ),
    )


ALIF = register(
    Template(
        "alif",
        "Adaptive leaky integrate-and-fire: fires at threshold + a; a = rho * a + n * adapt_gain.",
        {
            **{k: FIRING_PARAMS[k] for k in ("threshold", "v_reset", "v_init", "spike_value")},
            "beta": Param(0.9, "membrane decay per timestep", bound=1.0),
            "rho": Param(0.95, "decay of the adaptation per timestep", bound=1.0),
            "adapt_gain": Param(0.1, "rise of the threshold per spike"),
        },
        {
            "compare": Choice("ge", ("ge", "gt"), "fire on h >= th or on h > th"),
            "reset": Choice("soft", ("soft", "hard"), "subtract the adapted threshold, or set to v_reset"),
            "max_count": Choice(1, (1,), "binary"),
        },
        build,
    )
)
