"""How far from its limit a region is: the time that its weights take through the GPU's shared cache where it walks
spikes, that its multiplications take at the full rate of tensor cores where it multiplies."""

from __future__ import annotations

from collections.abc import Mapping

from ldsnn_compiler.interp.work import LayerWork
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.targets.build import symbols
from ldsnn_compiler.targets.cuda.cost import Layer
from ldsnn_compiler.targets.cuda.gpu import Gpu
from ldsnn_compiler.targets.plan import Plan
from ldsnn_compiler.targets.region import SYNAPSES

#: what TVM calls the function on the device, behind the kernel's name
_SUFFIX = "_kernel"


def limits(graph: Graph, plan: Plan, gpu: Gpu, batch: int, work: Mapping[str, LayerWork]) -> dict[str, float]:
    """By function on the device: microseconds that its synapses take at the least, all its calls of a run together;
    ``work`` of every node is counted in the interpreter.

    Functions whose synapses run on CUDA cores without walking spikes are left out.
    """
    names, found = symbols([plan]), dict[str, float]()
    for kernel in plan.kernels:
        nodes = [graph.node(name) for name in kernel.nodes]
        times = [_limit(graph, n, gpu, batch, work[n.name].input_density) for n in nodes if n.op.name in SYNAPSES]
        if times and None not in times:
            name = names[kernel.key] + _SUFFIX
            found[name] = found.get(name, 0.0) + sum(t for t in times if t is not None)
    return found


def _limit(graph: Graph, node: Node, gpu: Gpu, batch: int, density: float) -> float | None:
    layer = Layer.of(graph, node)
    if node.placement is not None and node.placement.kernel == "event":
        return layer.event_us(gpu, batch, density)
    return layer.multiplied_us(gpu, batch) if layer.fits(gpu) else None
