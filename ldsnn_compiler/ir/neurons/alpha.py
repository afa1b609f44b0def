"""Alpha neuron in snnTorch's form: the membrane is the difference of two synaptic currents, an alpha function in time.

``e = alpha * e + x; i = beta * i - x; h = gain * (e + i)``, fired on ``h > threshold``. The reset comes one step late
(``n0 = [v > threshold]`` on the old membrane): ``hard`` discards both currents and that step's input; ``soft``
subtracts the threshold from the excitatory current, discards the inhibitory one and adds what it was to the membrane.
"""

from __future__ import annotations

from collections.abc import Mapping

from ldsnn_compiler.ir.neuron import Choice, Options, Param, Template, register
from ldsnn_compiler.ir.neurons.common import FIRING_PARAMS
from ldsnn_compiler.ir.program import Program, program

_RESET: Mapping[str, tuple[str, ...]] = {
    "hard": ("h = select(n0 > 0, 0, h)", "e = select(n0 > 0, 0, e)", "i = select(n0 > 0, 0, i)"),
    "soft": ("h = h + n0 * i0", "e = e - n0 * threshold", "i = select(n0 > 0, 0, i)"),
    "none": (),
}


def build(options: Options) -> Program:
    return program(
        {"v": "v_init", "e": 0.0, "i": 0.0},
        synapse=("n0 = v > threshold", "i0 = i", "e = alpha * e + x", "i = beta * i - x"),
        charge=("h = gain * (e + i)", *_RESET[str(options["reset"])]),
        fire=("n = h > threshold", "s = n * spike_value"),
        reset="v = h",
    )


ALPHA = register(
    Template(
        "alpha",
        "Alpha-function neuron (snnTorch Alpha): e = alpha * e + x; i = beta * i - x; h = gain * (e + i).",
        {
            **{name: FIRING_PARAMS[name] for name in ("threshold", "v_init", "spike_value")},
            "alpha": Param(0.9, "decay of the excitatory current per timestep", bound=1.0),
            "beta": Param(0.8, "decay of the inhibitory current per timestep", bound=1.0),
            "gain": Param(1.0, "membrane per current; snnTorch: log(alpha) / (log(beta) - log(alpha)) + 1"),
        },
        {
            "reset": Choice("hard", ("hard", "soft", "none"), "discard the currents, subtract the threshold, or leave"),
            "max_count": Choice(1, (1,), "binary spikes only"),
        },
        build,
    )
)
