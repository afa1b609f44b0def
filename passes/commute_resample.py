"""Move resamples to where they save the most work: the one owner of what commutes with a change of time.

Before::

    %h = resample(%image) {dt=1, mode="repeat"}     T: 1 -> 64      %s = neuron(...)            T = 8
    %c = conv2d(%h)                                 T = 64          %y = linear(%s)             T = 8
    %m = resample(%c) {dt=8}                        T: 64 -> 8      %m = resample(%y) {dt=64}   T: 8 -> 1

After::

    %c = conv2d(%image)                             T = 1           %s = neuron(...)            T = 8
    %m = resample(%c) {dt=8, mode="repeat"}         T: 1 -> 8       %m = resample(%s) {dt=64}   T: 8 -> 1
                                                                    %y = linear(%m)             T = 1

The maths. Let M average the steps of each window, H hold each step r times, L be affine and P anything that acts on
every step alone. The shares of a window sum to 1, so ``M(L x) = L(M x)``, biases included: an average that makes
fewer steps rises to the producers of a linear op. ``P(H x) = H(P x)``: a repeat sinks to the consumers of any
per-step op, max pooling included (``M`` does not commute with that). An uneven average that makes more steps sinks
through linear ops only. Two resamples in a row merge on nested grids only (see ``_grids``). What a readout takes from
held values (last, largest) it takes from the values. Nothing crosses a neuron, an encoder or a delay.

Only resamples are ever duplicated. A value with several users rises to the finest grid that any of them wants, if the
others' grids nest in it; where one user wants every step, nothing rises. Through a join, a repeat sinks where every
operand is repeated; it then runs at the most steps that an operand has. A sum in place of an average (of whole numbers)
rises as an average does, but not through what adds a constant in every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.passes._grids import holds, merge, mode, resampled, settle_delays, sums, whole_steps
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass


@register_pass
@dataclass(frozen=True)
class CommuteResample(Pass):
    """Averages up through linear ops, repeats down through per-step ops; merge what meets."""

    name: ClassVar[str] = "commute-resample"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph) -> bool:
        changed = False
        while any([_attempt(graph, node) for node in graph.nodes]):
            changed = True
        return changed


def _attempt(graph: Graph, node: Node) -> bool:
    """Try the rewrites of one node, which an earlier one of the same sweep may have removed."""
    if node.name not in graph or graph.node(node.name) is not node:
        return False
    with graph.edit():
        fired = any(rule(graph, node) for rule in (_tidy, _rise, _sink, _read_held))
        if fired:
            settle_delays(graph)
    return fired


def _tidy(graph: Graph, node: Node) -> bool:
    """Drop a resample to the grid it has, share one that exists already, merge it with the one before."""
    if node.op.name != "resample":
        return False
    source = node.operands[0]
    if node["dt"] == source.type.dt:
        graph.remove(node)
        return True
    twin = resampled(graph, source, node["dt"], is_sum=sums(node))
    if twin is not node.result:
        graph.replace(node.result, twin)
        graph.erase(node)
        return True
    return merge(graph, node)


def _rise(graph: Graph, node: Node) -> bool:
    """An affine op whose users all average its result runs on averages itself."""
    if node.op.kind != "linear" or not node.operands or len(node.results) != 1:
        return False
    wanted = _wanted(graph, node.result)
    if wanted is None or (is_sum := _summed(graph, node)) is None:
        return False
    means = {o.name: resampled(graph, o, wanted, before=node, is_sum=is_sum) for o in node.operands}
    graph.set_operands(node, [means[o.name] for o in node.operands])
    for user, _ in graph.uses(node.result):
        if user["dt"] == wanted:
            graph.remove(user)
    return True


def _summed(graph: Graph, node: Node) -> bool | None:
    """Whether the users of a result, all of them resamples, sum its steps, not average them; None where the node does
    not commute with that.

    A sum over r steps of ``w x + b`` is w times the sum of x, plus r times b.
    """
    users = [user for user, _ in graph.uses(node.result)]
    if not any(sums(user) for user in users):
        return False
    adds = node.op.name in ("batch_norm", "constant") or node.attrs.get("bias") is not None
    alike = {(user["mode"], user["dt"]) for user in users}
    whole = all(whole_steps(node.type.dt, user["dt"]) for user in users)
    return True if len(alike) == 1 and whole and not adds else None


def _wanted(graph: Graph, value: Value) -> Fraction | None:
    """The finest grid that any user averages ``value`` to, if all users do and their grids nest in it."""
    users = [user for user, _ in graph.uses(value)]
    if not users or any(u.op.name != "resample" or u["dt"] <= value.type.dt for u in users):
        return None
    finest: Fraction = min(u["dt"] for u in users)
    return finest if all(holds(u["dt"], finest) for u in users) else None


def _sink(graph: Graph, node: Node) -> bool:
    """A per-step op on held values runs on the values; its result is held."""
    sources = [o.node for o in node.operands]
    if not node.op.acts_per_step or not sources or len(node.results) != 1:
        return False
    if any(s.op.name != "resample" or sums(s) or s["dt"] >= s.operands[0].type.dt for s in sources):
        return False
    after, grids = node.type.dt, [s.operands[0].type.dt for s in sources]
    finest = min(grids)
    held = all(holds(dt, finest) and holds(dt, after) for dt in grids)
    if not held and (node.op.kind != "linear" or any(dt != finest for dt in grids)):
        return False
    users = graph.uses(node.result)
    if not users:
        return False
    graph.set_operands(node, [resampled(graph, s.operands[0], finest, before=node) for s in sources])
    _held_again(graph, node, finest, after, users)
    for source in {s.name: s for s in sources}.values():
        if not graph.uses(source.result):
            graph.erase(source)
    return True


def _held_again(
    graph: Graph, node: Node, finest: Fraction, after: Fraction, users: tuple[tuple[Node, int], ...]
) -> None:
    """Resample the result back. Types follow at the end of the edit, so the mode is set once the node is there."""
    back = graph.insert("resample", node.result, users, dt=after)
    graph.set_attrs(back, mode=mode(finest, after))


def _read_held(graph: Graph, node: Node) -> bool:
    """The last or largest of held values is that of the values."""
    if node.op.name != "readout" or node["mode"] in ("mean", "sum"):
        return False
    source = node.operands[0].node
    if source.op.name != "resample" or not holds(source.operands[0].type.dt, source["dt"]):
        return False
    graph.set_operand(node, 0, source.operands[0])
    if not graph.uses(source.result):
        graph.erase(source)
    return True
