"""Write each thing in one way: no identities, no nested joins, one form for a mean over time.

Before::

    %a = resample(%x) {dt=1} : stream<8, 1, ...>          the grid it has
    %b = flatten(%a); %c = flatten(%b)                    the second does nothing
    %d = readout(%c) {mode="mean"}                        a mean over the whole run

After::

    %b = flatten(%x)
    %d = resample(%b) {dt=8}

The maths: every rewrite keeps each rounding. ``x * 1``, a reshape to the same shape and a window of one are the
identity; ``(a + b) + c`` is what ``add(a, b, c)`` computes, left to right; ``(x * a) * b = x * (a b)`` where a or b
is a power of two; a mean of means over nested windows of equal length is the mean over the outer one (see
``_grids``). An op on constants is evaluated by its own reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import frexp, prod
from typing import ClassVar

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.passes._grids import holds, merge, mode, settle_delays
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass

Rule = Callable[[Graph, Node], bool]


@register_pass
@dataclass(frozen=True)
class Canonicalize(Pass):
    """Fold constants, remove identities, flatten nests, write means over time as resamples."""

    name: ClassVar[str] = "canonicalize"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph) -> bool:
        changed = False
        while _once(graph):
            changed = True
        return changed


def power_of_two(value: float) -> bool:
    """Whether multiplying by ``value`` never rounds (overflow and subnormals aside)."""
    return value > 0 and frexp(value)[0] == 0.5


def _once(graph: Graph) -> bool:
    changed = False
    for node in graph.nodes:
        if node.name in graph and graph.node(node.name) is node and _rewrite(graph, node):
            changed = True
    return changed


def _rewrite(graph: Graph, node: Node) -> bool:
    with graph.edit():
        fired = any(rule(graph, node) for rule in (_identity, *_RULES.get(node.op.name, ()), _constant))
        if fired:
            settle_delays(graph)
    return fired


def _identity(graph: Graph, node: Node) -> bool:
    """Nodes that hand on their only operand as it is."""
    test = _IDENTITIES.get(node.op.name)
    if test is None or len(node.operands) != 1 or not test(node):
        return False
    graph.remove(node)
    return True


_IDENTITIES: dict[str, Callable[[Node], bool]] = {
    "resample": lambda n: n["dt"] == n.operands[0].type.dt,
    "slice_time": lambda n: n["steps"] == n.operands[0].type.timesteps,
    "readout": lambda n: n["mode"] != "mean" and n.operands[0].type.timesteps == 1,
    "scale": lambda n: n["by"] is None and n["factor"] == 1.0,
    "concat": lambda n: True,
    "flatten": lambda n: len(n.operands[0].type.shape) == 1,
    "reshape": lambda n: n["shape"] == n.operands[0].type.shape,
    "slice": lambda n: n.type.shape == n.operands[0].type.shape and n["step"] == 1,
    "pad": lambda n: not any(n["low"] + n["high"]),
    "encode": lambda n: n["code"] == "direct" and not n.operands[0].type.signal.is_event,
    "avg_pool": lambda n: _window_of_one(n),
    "sum_pool": lambda n: _window_of_one(n),
    "max_pool": lambda n: _window_of_one(n),
}


def _window_of_one(node: Node) -> bool:
    return prod(node["kernel"]) == 1 and prod(node["stride"]) == 1 and not any(node["padding"])


def _mean_readout(graph: Graph, node: Node) -> bool:
    """``readout{mean}`` is a resample to one step as long as the run."""
    if node["mode"] != "mean":
        return False
    source = node.operands[0]
    mean = graph.add("resample", [source], dt=source.type.duration, name=node.name, path=node.path, before=node)
    graph.replace(node.result, mean.result)
    graph.erase(node)
    return True


def _resample_mode(graph: Graph, node: Node) -> bool:
    """A mean that only holds values is a repeat."""
    if node["mode"] == "repeat" or not holds(node.operands[0].type.dt, node["dt"]):
        return False
    graph.set_attrs(node, mode=mode(node.operands[0].type.dt, node["dt"]))
    return True


def _scale_of_scale(graph: Graph, node: Node) -> bool:
    first = node.operands[0].node
    if first.op.name != "scale" or node["by"] is not None or first["by"] is not None:
        return False
    if not (power_of_two(node["factor"]) or power_of_two(first["factor"])):
        return False
    graph.set_attrs(node, factor=first["factor"] * node["factor"])
    _read_past(graph, node, first)
    return True


def _shape_of_shape(graph: Graph, node: Node) -> bool:
    """Row-major order survives in-between shapes."""
    first = node.operands[0].node
    if first.op.name not in ("flatten", "reshape"):
        return False
    _read_past(graph, node, first)
    return True


def _read_past(graph: Graph, node: Node, first: Node) -> None:
    graph.set_operand(node, 0, first.operands[0])
    if not graph.uses(first.result):
        graph.erase(first)


def _nested_add(graph: Graph, node: Node) -> bool:
    """Only the first operand: any other would change the order of the additions."""
    return _inline(graph, node, 0)


def _nested_concat(graph: Graph, node: Node) -> bool:
    return any(_inline(graph, node, i) for i in range(len(node.operands)))


def _inline(graph: Graph, node: Node, index: int) -> bool:
    inner = node.operands[index].node
    if inner.op is not node.op or dict(inner.attrs) != dict(node.attrs) or len(graph.uses(inner.result)) != 1:
        return False
    graph.set_operands(node, (*node.operands[:index], *inner.operands, *node.operands[index + 1 :]))
    graph.erase(inner)
    return True


def _constant(graph: Graph, node: Node) -> bool:
    """An op on constants, evaluated, unless the result would take more room."""
    sources = [o.node for o in node.operands]
    if not sources or any(s.op.name != "constant" or s.type.dtype != "float32" for s in sources):
        return False
    if not (node.op.acts_per_step or node.op.name in ("resample", "slice_time")):
        return False
    if node.type.timesteps * node.type.size > sum(o.type.timesteps * o.type.size for o in node.operands):
        return False
    data = [graph.tensors[s["value"].name][:, None] for s in sources]
    (value,) = node.op.evaluate(graph.call(node), *data)
    stored = graph.tensor(f"{node.name}.value", value[:, 0])
    folded = graph.add("constant", value=stored, dt=node.type.dt, name=node.name, path=node.path, before=node)
    graph.replace(node.result, folded.result)
    graph.erase(node)
    return True


_RULES: dict[str, tuple[Rule, ...]] = {
    "readout": (_mean_readout,),
    "resample": (_resample_mode, merge),
    "scale": (_scale_of_scale,),
    "flatten": (_shape_of_shape,),
    "reshape": (_shape_of_shape,),
    "add": (_nested_add,),
    "concat": (_nested_concat,),
}
