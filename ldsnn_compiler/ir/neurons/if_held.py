"""Integrate-and-fire with a hard reset that covers ``steps`` steps of held input in one: what they would fire, counted.

With the same input x in every step, a neuron that starts at v fires first in step i, then every m steps (compare > ;
with >= it is ceil(.), at least 1)::

    i = floor((threshold - v) / x) + 1        m = floor((threshold - v_reset) / x) + 1
    fired = floor((steps - i) / m) + 1        where x > 0 and i <= steps, else 0
    v = v_reset + ((steps - i) mod m) x       where it fired, else v + steps x

That is what micro retiming computes step by step, up to the rounding of sums. One emitted count stands for ``unit``
spikes: what does not fill a unit is owed, and counted in the steps to come. It starts at (unit - 1) / 2, so that the
total is rounded to the nearest number of units, not down.
"""

from __future__ import annotations

from ldsnn_compiler.ir.neuron import Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_OPTIONS, FIRING_PARAMS, floored
from ldsnn_compiler.ir.program import Program, program

LEAST = 1e-9
"""Input, in thresholds, below which nothing is divided by it: no number of steps that anyone runs would fire."""


def build(options: Options) -> Program:
    reached = "floor({} / c) + 1" if options["compare"] == "gt" else "max(ceil({} / c), 1)"
    return program(
        {"v": "v_init", "owed": "(unit - 1) / 2"},
        charge=(
            f"c = max(x, {LEAST} * threshold)",
            f"left = steps - max({reached.format('(threshold - v)')}, 1)",
            f"every = {reached.format('(threshold - v_reset)')}",
            "h = v + steps * x",
        ),
        fire=(
            "fired = select(x > 0, max(floor(left / every) + 1, 0), 0)",
            "due = owed + fired",
            f"n = clamp(floor(due / unit), 0, {int(options['max_count'])})",
            "s = n * spike_value",
        ),
        reset=(
            "v = select(fired > 0, v_reset + (left - (fired - 1) * every) * c, h)",
            floored(options),
            "owed = due - n * unit",
        ),
    )


IF_HELD = register(
    Template(
        "if_held",
        "Integrate-and-fire with a hard reset, several steps of held input in one: spikes in closed form.",
        {
            **{name: FIRING_PARAMS[name] for name in ("threshold", "v_reset", "v_init", "v_min", "spike_value")},
            "steps": Param(1.0, "steps covered in one"),
            "unit": Param(1.0, "spikes that one count stands for"),
        },
        {name: FIRING_OPTIONS[name] for name in ("compare", "max_count", "floor")},
        build,
    )
)
