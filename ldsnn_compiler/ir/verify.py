"""Legality as data: the rules that hold at each stage, checked after every pass.

A rule is a function from a graph to the problems it finds. Stages inherit the rules of the stages before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import networkx as nx
import torch

from ldsnn_compiler.errors import LdsnnError, Problem, VerifyError
from ldsnn_compiler.ir.fixed import RATIO, roles
from ldsnn_compiler.ir.graph import STAGES, Graph, Node, tensor_refs
from ldsnn_compiler.ir.neuron import TensorRef


@dataclass(frozen=True)
class Rule:
    """A named rule; ``stage`` is the first stage at which it holds."""

    name: str
    stage: str
    check: Callable[[Graph], Iterator[Problem]]

    @property
    def doc(self) -> str:
        """What the rule demands."""
        return (self.check.__doc__ or "").strip()


RULES: list[Rule] = []


def rule(stage: str) -> Callable[[Callable[[Graph], Iterator[Problem]]], Callable[[Graph], Iterator[Problem]]]:
    """Declare a function as the rule of its own name."""

    def declare(check: Callable[[Graph], Iterator[Problem]]) -> Callable[[Graph], Iterator[Problem]]:
        RULES.append(Rule(check.__name__.replace("_", "-"), stage, check))
        return check

    return declare


def verify(graph: Graph, stage: str | None = None) -> None:
    """Raise :class:`VerifyError` with every problem of the first broken rule; later rules rely on earlier ones."""
    held = STAGES.index(stage or graph.stage)
    for each in RULES:
        if STAGES.index(each.stage) <= held:
            problems = [
                Problem(f"{p.message} [{each.name}]", p.where, p.kind, p.attribute, p.hint) for p in each.check(graph)
            ]
            if problems:
                raise VerifyError(problems)


def check_stable(graph: Graph) -> None:
    """Raise :class:`VerifyError` for a graph that can be looked at, but not run, whatever its stage."""
    if problems := list(stable(graph)):
        raise VerifyError(problems)


def _problem(node: Node, message: str, attribute: str = "") -> Problem:
    where = f"%{node.name}" + (f" ({node.path})" if node.path else "")
    return Problem(message, where, node.op.name, attribute)


def _members(graph: Graph) -> list[Node]:
    """All nodes, without relying on an order (which an illegal cycle denies)."""
    return [graph.node(name) for name in graph.dag.nodes]


@rule("traced")
def uses(graph: Graph) -> Iterator[Problem]:
    """Operands are results of nodes of this graph, and the use lists say the same."""
    for node in _members(graph):
        edges = sorted((k[1], a, k[0]) for a, _, k in graph.dag.in_edges(node.name, keys=True))
        if edges != [(i, o.node.name, o.index) for i, o in enumerate(node.operands)]:
            yield _problem(node, "operands and use lists disagree")
        for operand in node.operands:
            owner = operand.node
            is_node = owner.name in graph and graph.node(owner.name) is owner
            if not is_node or operand not in owner.results:
                yield _problem(node, f"operand %{operand.name} is not a value of this graph")


@rule("traced")
def cycles(graph: Graph) -> Iterator[Problem]:
    """Every cycle runs through a delay, and all its values share T and dt."""
    for component in nx.strongly_connected_components(graph.dag):
        names = sorted(component)
        if len(names) == 1 and not graph.dag.has_edge(names[0], names[0]):
            continue
        inner = graph.dag.subgraph(n for n in names if graph.node(n).op.name != "delay")
        if not nx.is_directed_acyclic_graph(inner):
            yield _problem(graph.node(names[0]), f"a cycle runs through no delay: {', '.join(names)}")
        times = {(v.type.timesteps, v.type.dt) for n in names for v in graph.node(n).results}
        if len(times) > 1:
            yield _problem(graph.node(names[0]), f"values of one cycle differ in T or dt: {', '.join(names)}")


@rule("traced")
def arity(graph: Graph) -> Iterator[Problem]:
    """Every node has as many operands as its op takes; a delay that was given none breaks the run."""
    for node in _members(graph):
        low, high = node.op.operands
        low = 1 if node.op.name == "delay" else low
        if not low <= len(node.operands) or (high is not None and len(node.operands) > high):
            yield _problem(node, f"takes {low} to {high or 'any number of'} operands, has {len(node.operands)}")


@rule("traced")
def attributes(graph: Graph) -> Iterator[Problem]:
    """Attributes are those of the op, each of its type and among its allowed values."""
    for node in _members(graph):
        for name in node.attrs.keys() - node.op.attrs.keys():
            yield _problem(node, "no such attribute", name)
        for name, attr in node.op.attrs.items():
            if name not in node.attrs:
                yield _problem(node, "is missing", name)
                continue
            try:
                if attr.coerce(node[name]) != node[name]:
                    yield _problem(node, f"{node[name]!r} is not in its canonical form", name)
            except (TypeError, ValueError) as error:
                yield _problem(node, str(error), name)


@rule("traced")
def tensors(graph: Graph) -> Iterator[Problem]:
    """Every tensor referred to is in the graph."""
    for node in _members(graph):
        for ref in tensor_refs(node):
            if ref.name not in graph.tensors:
                yield _problem(node, f"no tensor named {ref.name!r} in the graph")


@rule("traced")
def types(graph: Graph) -> Iterator[Problem]:
    """Result types are the ones the op infers from its operands."""
    for node in graph.nodes:
        try:
            inferred = node.op.infer(graph.call(node))
        except (ValueError, LdsnnError) as error:
            yield _problem(node, str(error))
            continue
        stored = tuple(v.type for v in node.results)
        if inferred != stored:
            yield _problem(node, f"has type {', '.join(map(str, stored))}, infers {', '.join(map(str, inferred))}")


@rule("traced")
def duration(graph: Graph) -> Iterator[Problem]:
    """Every stream covers the whole run, except behind a slice_time, where it covers less."""
    cut: set[str] = set()
    for node in graph.of("slice_time"):
        cut |= {node.name} | nx.descendants(graph.dag, node.name)
    for node in _members(graph):
        for value in node.results:
            covered = value.type.duration
            if covered > graph.base_timesteps or (covered != graph.base_timesteps and node.name not in cut):
                yield _problem(node, f"covers {covered} base steps, the run has {graph.base_timesteps}")


@rule("traced")
def ends(graph: Graph) -> Iterator[Problem]:
    """A graph has an output; outputs have no users and inputs no operands."""
    if not graph.of("output"):
        yield Problem("the graph has no output", where=graph.name)
    for node in graph.of("output"):
        if graph.uses(node.result):
            yield _problem(node, "an output is used")


@rule("traced")
def paths(graph: Graph) -> Iterator[Problem]:
    """Neurons have unique module paths: schedules refer to them."""
    seen: dict[str, Node] = {}
    for node in graph.of("neuron"):
        if not node.path:
            yield _problem(node, "a neuron has no module path")
        elif node.path in seen:
            yield _problem(node, f"shares its module path with %{seen[node.path].name}")
        seen[node.path] = node


@rule("scheduled")
def substeps(graph: Graph) -> Iterator[Problem]:
    """A neuron never runs finer than the base step: substeps divide into its dt."""
    for node in graph.of("neuron"):
        if node["neuron"].substeps > node.type.dt:
            yield _problem(node, f"runs {node['neuron'].substeps} substeps in {node.type.dt} base steps", "neuron")


@rule("scheduled")
def stable(graph: Graph) -> Iterator[Problem]:
    """Decays are at most 1 in magnitude: a state that grows by itself cannot be run."""
    for node in graph.of("neuron"):
        neuron = node["neuron"]
        for name, value in neuron.params.items():
            bound = neuron.family.params[name].bound
            largest = float(graph.tensors[value.name].abs().max()) if isinstance(value, TensorRef) else abs(value)
            if bound is not None and largest > bound:
                message = f"{largest:.6g} is more than {bound:g}, so the state grows without bound"
                yield _problem(node, message, name)


@rule("traced")
def whole_numbers(graph: Graph) -> Iterator[Problem]:
    """Streams of whole numbers stay whole: sums in place of means, whole weights and charges, ratios of fixed point."""
    for node in _members(graph):
        if all(v.type.dtype == "float32" for v in (*node.operands, *node.results)):
            continue
        if node.op.name in _AVERAGES or (node.op.name in ("resample", "readout") and node["mode"] == "mean"):
            yield _problem(node, "averages whole numbers; sum them, and divide in the scale")
        if node.op.name == "neuron":
            yield from _fixed_point(graph, node)
        elif node.op.name != "dequantize":
            yield from _whole_attributes(graph, node)


_AVERAGES = ("avg_pool", "adaptive_avg_pool", "batch_norm")


def _whole_attributes(graph: Graph, node: Node) -> Iterator[Problem]:
    for name, value in node.attrs.items():
        if isinstance(value, TensorRef) and graph.tensors[value.name].is_floating_point():
            yield _problem(node, "is a tensor of real numbers among whole ones", name)
        if isinstance(value, float) and node.op.name != "quantize" and not value.is_integer():
            yield _problem(node, f"is {value!r} among whole numbers", name)


def _fixed_point(graph: Graph, node: Node) -> Iterator[Problem]:
    """Charges are whole, ratios multiples of ``2**-fraction``."""
    neuron = node["neuron"]
    if neuron.fraction is None:
        return
    kinds = roles(replace(neuron, fraction=None, guard=0).program)
    for name, value in neuron.params.items():
        given = graph.tensors[value.name].double() if isinstance(value, TensorRef) else torch.tensor(value).double()
        if kinds.get(name) == RATIO:
            given = given * 2**neuron.fraction
        if not torch.equal(given, given.round()):
            places = f"a multiple of 2**-{neuron.fraction}" if kinds.get(name) == RATIO else "a whole number"
            yield _problem(node, f"is not {places}", name)


@rule("placed")
def placed(graph: Graph) -> Iterator[Problem]:
    """Every node but inputs and outputs has a placement."""
    for node in graph.nodes:
        if node.placement is None and node.op.name not in ("input", "output"):
            yield _problem(node, "has no placement")


@rule("placed")
def forms(graph: Graph) -> Iterator[Problem]:
    """Bit words carry binary events, bit planes bounded ones."""
    for node in graph.nodes:
        form = node.placement.form if node.placement else "dense"
        signal = node.type.signal
        if form == "bits" and signal.levels != 1:
            yield _problem(node, f"bit words cannot carry {signal}")
        if form == "planes" and not signal.is_bounded:
            yield _problem(node, f"bit planes cannot carry {signal}")


@rule("placed")
def recurrence(graph: Graph) -> Iterator[Problem]:
    """Nodes of one cycle step together: time runs outside."""
    for component in nx.strongly_connected_components(graph.dag):
        for name in sorted(component) if len(component) > 1 else ():
            node = graph.node(name)
            if node.placement is not None and node.placement.order != "outside":
                yield _problem(node, "is part of a cycle, so its time order is outside")


@rule("fused")
def regions(graph: Graph) -> Iterator[Problem]:
    """Every placed node has a region; a region has one time order and is convex (no path leaves and comes back)."""
    members: dict[str, set[str]] = {}
    for node in graph.nodes:
        if node.placement is not None:
            if not node.placement.region:
                yield _problem(node, "has no region")
            members.setdefault(node.placement.region, set()).add(node.name)
    for region, names in members.items():
        orders = {graph.node(n).placement.order for n in names}  # type: ignore[union-attr]
        if len(orders) > 1:
            yield Problem(f"mixes time orders {', '.join(sorted(orders))}", where=f"region {region}")
        outside = {b for a in names for b in graph.dag.successors(a)} - names
        returning = {b for a in outside for b in nx.descendants(graph.dag, a)} & names
        if returning and not _recurrent(graph, names):
            yield Problem(f"a path leaves and comes back to {', '.join(sorted(returning))}", where=f"region {region}")


def _recurrent(graph: Graph, names: set[str]) -> bool:
    return any(graph.node(n).op.name == "delay" for n in names)
