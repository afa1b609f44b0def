"""What several passes need to know about time grids: merging resamples, keeping delays' declared types true.

A resample is area averaging of a function that is constant within each step. So two in a row are one where the first
loses nothing (it only holds values), or where every step of the last is a union of steps of the one between. 8 -> 4
-> 2 is 8 -> 2; 4 -> 8 -> 2 is 4 -> 2; 8 -> 3 -> 2 and 4 -> 2 -> 4 are not what they look like. Sums, of whole numbers,
merge only where both sum whole steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.op import Call
from ldsnn_compiler.ir.types import REAL, Stream

#: rounds of inference around a cycle after which a delay's events count as unbounded, that is real
_ROUNDS = 4


def holds(source: Fraction, dt: Fraction) -> bool:
    """Whether going from steps of ``source`` to steps of ``dt`` only repeats values."""
    return (source / dt).denominator == 1


def mode(source: Fraction, dt: Fraction) -> str:
    """The mode that says what happens: ``repeat`` wherever values are only held."""
    return "repeat" if holds(source, dt) else "mean"


def mergeable(source: Fraction, between: Fraction, dt: Fraction) -> bool:
    """Whether source -> between -> dt equals source -> dt."""
    return holds(source, between) or holds(dt, between)


def resampled(
    graph: Graph, value: Value, dt: Fraction, before: Node | None = None, is_sum: bool = False
) -> Value:  # fmt: skip
    """``value`` on steps of ``dt``: itself, an existing resample of it, or a new one (placed ``before`` a node)."""
    if value.type.dt == dt:
        return value
    for user, _ in graph.uses(value):
        if user.op.name == "resample" and user["dt"] == dt and sums(user) == is_sum:
            return user.result
    chosen = "sum" if is_sum else mode(value.type.dt, dt)
    return graph.add("resample", [value], dt=dt, mode=chosen, before=before).result


def sums(node: Node) -> bool:
    """Whether a node is a resample that sums steps in place of averaging them."""
    return node.op.name == "resample" and bool(node["mode"] == "sum")


def whole_steps(source: Fraction, dt: Fraction) -> bool:
    """Whether each step of ``dt`` is made of whole steps of ``source``."""
    return (dt / source).denominator == 1


def merge(graph: Graph, node: Node) -> bool:
    """Let a resample read what an earlier one reads, where the two are one; drop it where it comes back to that."""
    first = node.operands[0].node
    if first.op.name != "resample":
        return False
    source = first.operands[0]
    if not mergeable(source.type.dt, first["dt"], node["dt"]) or sums(first) != sums(node):
        return False
    if sums(node) and not (whole_steps(source.type.dt, first["dt"]) and whole_steps(first["dt"], node["dt"])):
        return False
    graph.replace(node.result, resampled(graph, source, node["dt"], before=first, is_sum=sums(node)))
    graph.erase(node)
    if not graph.uses(first.result):
        graph.erase(first)
    return True


def settle_delays(graph: Graph, times: Mapping[str, tuple[int, Fraction]] | None = None) -> None:
    """Declare every delay's type as its operand's; the last thing to do inside ``graph.edit()``.

    ``times`` gives new (T, dt) by delay name. Around a cycle the types are inferred until they no longer change.
    """
    delays = graph.of("delay")
    declared: dict[str, Stream] = {d.name: d["type"] for d in delays}
    for name, (steps, dt) in (times or {}).items():
        declared[name] = declared[name].with_(timesteps=steps, dt=dt)
    for attempt in range(2 * _ROUNDS) if delays else ():
        types = _inferred(graph, declared)
        found = {d.name: types[d.operands[0].name] for d in delays if d.operands}
        if attempt >= _ROUNDS:
            found = {k: t if t == declared[k] else t.with_(signal=REAL) for k, t in found.items()}
        if found == declared:
            break
        declared |= found
    for delay in delays:
        if delay["type"] != declared[delay.name]:
            graph.set_attrs(delay, type=declared[delay.name])


def _inferred(graph: Graph, declared: Mapping[str, Stream]) -> dict[str, Stream]:
    """Types of all values if the delays had the ``declared`` ones."""
    types: dict[str, Stream] = {}
    for node in graph.nodes:
        if node.op.name == "delay":
            types[node.name] = declared[node.name]
            continue
        call = Call(node.attrs, tuple(types[o.name] for o in node.operands), graph.tensors)
        types |= {value.name: t for value, t in zip(node.results, node.op.infer(call), strict=False)}
    return types
