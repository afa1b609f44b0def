"""A neuron of your own, in one file: integrate-and-fire with a refractory period.

Its program is all that is needed: the interpreter, the printer and the code generator read it.

    python examples/custom_neuron.py
"""

from __future__ import annotations

import torch

from ldsnn_compiler.ir.neuron import Choice, Options, Param, Template, register
from ldsnn_compiler.ir.program import Program, program


def build(options: Options) -> Program:
    """While the countdown c runs, input is ignored; a spike starts it."""
    return program(
        {"v": "v_init", "c": 0.0},
        charge="h = select(c > 0, v, v + x)",
        fire=("n = h >= threshold", "s = n * spike_value"),
        reset=("v = h - n * threshold", "c = select(n > 0, period, max(c - 1, 0))"),
    )


REFRACTORY = register(
    Template(
        "refractory_if",
        "Integrate-and-fire that ignores its input for `period` steps after a spike.",
        {
            "threshold": Param(1.0, "membrane at which the neuron fires"),
            "period": Param(2.0, "silent steps after a spike"),
            "v_init": Param(0.0, "membrane before the first step"),
            "spike_value": Param(1.0, "value of one spike"),
        },
        {"max_count": Choice(1, (1,), "binary")},
        build,
    )
)


def main() -> None:
    import ldsnn_compiler as ld
    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.ir.neuron import neuron
    from ldsnn_compiler.ir.types import Stream

    graph = Graph("refractory", base_timesteps=12)
    x = graph.add("input", type=Stream(12, 1, (4,)), name="x")
    cells = graph.add("neuron", [x.result], neuron=neuron("refractory_if", period=3.0), path="cells")
    graph.add("output", [cells.result])

    current = torch.tensor([0.25, 0.5, 1.0, 2.0]).expand(12, 1, 4)
    interpreted = ld.Interpreter(graph)(current)
    compiled = ld.compile(graph)(current)
    print("spikes per neuron:", interpreted.sum(0).squeeze().tolist())
    print("compiled code agrees:", torch.equal(interpreted, compiled))


if __name__ == "__main__":
    main()
