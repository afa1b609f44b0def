"""Compiles a graph and holds it against the interpreter: outputs of a whole run, of steps, the state left behind."""

from __future__ import annotations

from typing import Any

import torch
from graphs import inputs_of

from ldsnn_compiler.driver import compile
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime.compiled import Compiled


def compiled(graph: Graph, **options: Any) -> Compiled:
    """Compile on one thread."""
    return compile(graph, **{"batch": 2, "threads": 1, **options})


def check(graph: Graph, batch: int = 2, **options: Any) -> Compiled:
    """The compiled network gives the interpreter's bits, run whole or stepped, and leaves its state."""
    network = compiled(graph, **{"batch": batch, **options})
    data = inputs_of(network.graph, batch)
    with torch.no_grad():
        assert_equal("run", network.run(*data), Interpreter(network.graph).run(*data))
    check_steps(network, data, 1)
    return network


def check_steps(network: Compiled, data: tuple[torch.Tensor, ...], granules: int) -> None:
    """Step through the whole window, ``granules`` at a time, beside the interpreter."""
    reference, graph = Interpreter(network.graph), network.graph
    network.reset()
    for k in range(0, graph.base_timesteps // graph.granule, granules):
        now = []
        for node, x in zip(graph.inputs, data, strict=True):
            steps = int(graph.granule / node.type.dt)
            now.append(x[k * steps : (k + granules) * steps])
        with torch.no_grad():
            assert_equal(f"step {k}", network.step(*now), reference.step(*now))
        for name, variables in reference.state.items():
            for variable, value in variables.items():
                assert torch.equal(network.state[name][variable], value), f"state {name}.{variable} after step {k}"


def assert_equal(what: str, found: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> None:
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.shape == b.shape, f"{what}: output {i} is {list(a.shape)}, expected {list(b.shape)}"
        assert torch.equal(a, b), f"{what}: output {i} differs in {int((a != b).sum())} of {a.numel()} numbers"


def kernels(network: Compiled) -> list[str]:
    """Names of the kernels of a whole run, in order."""
    return [k.name for k in network.plans["run"].kernels]
