"""How far from its limit a region is: the time that its weights take through the GPU's shared cache where it walks
spikes, that its multiplications take at the full rate of tensor cores where it multiplies."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.runtime.compiled import Compiled
from ldsnn_compiler.targets.build import symbols
from ldsnn_compiler.targets.cuda.cost import Layer
from ldsnn_compiler.targets.cuda.gpu import Gpu
from ldsnn_compiler.targets.region import SYNAPSES

#: what TVM calls the function on the device, behind the kernel's name
_SUFFIX = "_kernel"


def measured(graph: Graph, *inputs: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """(scores of the last timestep, non-zero share of the input of every synapse by its name) in the interpreter."""
    interpreter, found = Interpreter(graph), dict[str, float]()

    def look(node: Node, given: Any, results: Any) -> None:
        if node.op.name in SYNAPSES:
            found[node.name] = float((given[0] != 0).float().mean())

    interpreter.observers.append(look)
    with torch.no_grad():
        scores = interpreter.run(*inputs)[0][-1]
    return scores, found


def limits(made: Compiled, batch: int, density: Mapping[str, float]) -> dict[str, float]:
    """By function on the device: microseconds that its synapses take at the least, all its calls of a run together.

    Functions whose synapses run on CUDA cores without walking spikes are left out.
    """
    gpu, names = made.settings.board.gpu, symbols(list(made.plans.values()))
    assert gpu is not None
    found: dict[str, float] = {}
    for kernel in made.plans["run"].kernels:
        nodes = [made.graph.node(name) for name in kernel.nodes]
        times = [_limit(made.graph, n, gpu, batch, density[n.name]) for n in nodes if n.op.name in SYNAPSES]
        if times and None not in times:
            name = names[kernel.key] + _SUFFIX
            found[name] = found.get(name, 0.0) + sum(t for t in times if t is not None)
    return found


def _limit(graph: Graph, node: Node, gpu: Gpu, batch: int, density: float) -> float | None:
    weight, unit = graph.tensors[node["weight"].name], node.operands[0].type.signal.unit
    layer = Layer.of(graph, node, gpu, unit)
    if node.placement is not None and node.placement.kernel == "event":
        steps = min(node.type.timesteps, node.operands[0].type.timesteps)
        size = layer.number_bytes if layer is not None else weight.element_size()
        walked = Layer(prod(node.type.shape[1:]), prod(weight.shape[1:]), weight.shape[0], steps, size, "")
        return walked.event_us(gpu, batch, density)
    is_events = node.operands[0].type.signal.is_event
    return layer.multiplied_us(gpu, batch) if layer is not None and is_events else None
