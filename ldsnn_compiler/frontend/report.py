"""``check``: what a model would become, or everything that stands in the way, without raising."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.frontend.tracer import Example, import_model
from ldsnn_compiler.ir.graph import Graph, Node, tensor_refs


@dataclass(frozen=True)
class Layer:
    """One node as imported. ``parameters``: numbers in its tensors; ``state``: numbers that it keeps from step to step
    for a sample; ``timesteps``, ``dt``, ``shape``: its result's."""

    path: str
    kind: str
    op: str
    settings: str
    timesteps: int
    dt: str
    shape: tuple[int, ...]
    parameters: int
    state: int


@dataclass(frozen=True)
class Report:
    """Outcome of a check. ``layers`` holds what could be imported, complete if there is no problem."""

    name: str
    timesteps: int
    layers: tuple[Layer, ...]
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the model can be imported."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """As plain dicts, lists, strings and numbers."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [str(p) for p in (*self.problems, *(f"note: {n}" for n in self.notes))]
        verdict = f"{self.name}: {len(self.problems)} problems" if self.problems else f"{self.name}: can be imported"
        return "\n".join([*lines, verdict])


def check(model: nn.Module, example: Example, timesteps: int | None = None, *, name: str = "net") -> Report:
    """Import a model as :func:`~ldsnn_compiler.frontend.tracer.trace` does; all problems at once, in the report."""
    result = import_model(model, example, timesteps, name=name)
    graph = result.graph
    return Report(name, graph.base_timesteps, layers_of(graph, model), result.problems, result.notes)


def layers_of(graph: Graph, model: nn.Module | None = None) -> tuple[Layer, ...]:
    """One entry for each node that is no input or output; ``model`` gives the class names."""
    modules = dict(model.named_modules(remove_duplicate=False)) if isinstance(model, nn.Module) else {}
    return tuple(_layer(graph, node, modules) for node in graph.nodes if node.op.kind != "io")


def _layer(graph: Graph, node: Node, modules: dict[str, nn.Module]) -> Layer:
    module = modules.get(node.path.split("#")[0])
    neuron = node.attrs.get("neuron")
    shown = {k: v for k, v in node.attrs.items() if v is not None and v != node.op.attrs[k].default and k != "neuron"}
    settings = str(neuron) if neuron is not None else ", ".join(f"{k}={v}" for k, v in shown.items())
    stream = node.type
    return Layer(
        node.path,
        "" if module is None else type(module).__name__,
        node.op.name,
        settings,
        stream.timesteps,
        str(stream.dt),
        stream.shape,
        sum(graph.tensors[ref.name].numel() for ref in tensor_refs(node)),
        _state(node),
    )


def _state(node: Node) -> int:
    """Numbers that a node keeps from step to step for a sample."""
    if node.op.name == "neuron":
        return node.type.size * len(node["neuron"].program.state)
    if node.op.name == "delay":
        return node.type.size * int(node["steps"])
    return node.type.size if node.op.name == "readout" and node["mode"] != "last" else 0


__all__ = ["Layer", "Report", "check", "layers_of"]
