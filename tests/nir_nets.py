"""Small NIR graphs for the tests of their reader and writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import ldsnn_compiler as ld
from ldsnn_compiler.frontend.nir import read_nir
from ldsnn_compiler.ir.graph import Value
from ldsnn_compiler.ir.types import Stream

Dt = 0.5
"""Timestep of most tests, in the unit of the time constants below."""


def chain(*nodes: Any) -> Any:
    """Nodes one after another, Input and Output added."""
    import nir

    return nir.NIRGraph.from_list(*nodes)


def joined(edges: str, **nodes: Any) -> Any:
    """Named nodes and edges given as ``"a b, b c"``."""
    import nir

    return nir.NIRGraph(nodes, [tuple(edge.split()) for edge in edges.split(",")], type_check=False)  # type: ignore[misc]


def ends(size: int = 2) -> dict[str, Any]:
    """An Input and an Output of vectors."""
    import nir

    return {"input": nir.Input(np.array([size])), "output": nir.Output(np.array([size]))}


def parameters(size: int = 2, **changed: float) -> dict[str, np.ndarray]:
    """Parameters of any neuron; keep those that it has."""
    values = {"tau": 2.0, "tau_mem": 2.0, "tau_syn": 1.0, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "w_in": 1.0}
    return {name: np.full(size, value) for name, value in {**values, **changed}.items()}


def made(kind: str, size: int = 2, **changed: float) -> Any:
    """A neuron of that type, ``size`` of them alike."""
    import nir

    node = getattr(nir, kind)
    fields = node.__dataclass_fields__
    chosen = {k: v for k, v in parameters(size, **changed).items() if k in fields}
    return node(**chosen)


def written(graph: Any, folder: Path, name: str = "net.nir") -> Path:
    """The graph in a file."""
    import nir

    nir.write(folder / name, graph)
    return folder / name


def started(shape: tuple[int, ...], steps: int, static: bool = False) -> tuple[ld.Graph, Value]:
    """A graph of ours with one input, called input."""
    graph = ld.Graph("net", steps)
    stream = Stream(1, steps, shape) if static else Stream(steps, 1, shape)
    return graph, graph.add("input", type=stream, time="static" if static else "sequence").result


def run(graph: Any, x: torch.Tensor, dt: float = Dt, **options: Any) -> torch.Tensor:
    """What the interpreter gives for ``x`` ``[T, N, *shape]``."""
    net = graph if isinstance(graph, ld.Graph) else read_nir(graph, x.shape[0], dt, **options)
    with torch.no_grad():
        return ld.Interpreter(net)(x)


def noise(steps: int, *shape: int, scale: float = 2.0) -> torch.Tensor:
    """Input in eighths, so that sums are exact."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 9, (steps, *shape), generator=generator) / 8 * scale
