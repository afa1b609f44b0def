"""The graph: nodes own their ordered operands; :class:`Graph` owns every mutation, the use lists and the types.

``Graph.dag`` is a networkx ``MultiDiGraph`` over node names, one edge per operand keyed ``(result index, operand
index)``; it serves ordering, matching, cycles and drawing, and it *is* the use list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from math import gcd, lcm
from types import MappingProxyType
from typing import Any

import networkx as nx
import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.ir.op import REQUIRED, AttrValue, Call, OpDef, op
from ldsnn_compiler.ir.placement import Placement
from ldsnn_compiler.ir.types import Stream

STAGES = ("traced", "scheduled", "placed", "fused")


class Value:
    """One result of a node. Compared by identity; ``type`` changes only through the graph."""

    __slots__ = ("index", "node", "type")

    def __init__(self, node: Node, index: int, type: Stream) -> None:
        self.node, self.index, self.type = node, index, type

    @property
    def name(self) -> str:
        """``conv1`` for a first result, ``sn1#1`` for a second."""
        return self.node.name if self.index == 0 else f"{self.node.name}#{self.index}"

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


class Node:
    """One op applied to operands. Read-only from outside; change it through its graph."""

    __slots__ = ("_attrs", "_operands", "_results", "name", "op", "path", "placement")

    def __init__(
        self, name: str, op: OpDef, operands: Sequence[Value], attrs: Mapping[str, AttrValue], path: str
    ) -> None:
        self.name, self.op, self.path = name, op, path
        self._operands, self._attrs = tuple(operands), dict(attrs)
        self._results: tuple[Value, ...] = ()
        self.placement: Placement | None = None

    @property
    def operands(self) -> tuple[Value, ...]:
        """What the node reads, in order."""
        return self._operands

    @property
    def attrs(self) -> Mapping[str, AttrValue]:
        """Attribute values, those left at their defaults included."""
        return MappingProxyType(self._attrs)

    @property
    def results(self) -> tuple[Value, ...]:
        """What the node gives, in order."""
        return self._results

    @property
    def result(self) -> Value:
        """The first (usually only) result."""
        return self._results[0]

    @property
    def type(self) -> Stream:
        """Type of the first result."""
        return self._results[0].type

    def __getitem__(self, attr: str) -> Any:
        return self._attrs[attr]

    def __repr__(self) -> str:
        return f"<{self.op.name} %{self.name}>"


class Graph:
    """A network. ``base_timesteps`` is the number of base steps a whole run covers; ``tensors`` holds weights by
    name."""

    def __init__(self, name: str = "net", base_timesteps: int = 1, stage: str = "traced") -> None:
        self.name, self.base_timesteps, self.stage = name, base_timesteps, stage
        self.tensors: dict[str, torch.Tensor] = {}
        self.dag: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        self._nodes: dict[str, Node] = {}
        self._rank: dict[str, float] = {}
        self._order: list[Node] | None = None
        self._pending: dict[str, Node] | None = None

    # ---- reading

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, operands before users (a delay counts as a source), insertion order where free."""
        if self._order is None:
            forward = nx.DiGraph()
            forward.add_nodes_from(self._nodes)
            forward.add_edges_from((a, b) for a, b in self.dag.edges() if self._nodes[b].op.name != "delay")
            try:
                names = list(nx.lexicographical_topological_sort(forward, key=self._rank.__getitem__))
            except nx.NetworkXUnfeasible:
                cycle = " -> ".join(a for a, _ in nx.find_cycle(forward))
                raise LdsnnError(Problem("a cycle runs through no delay", where=f"%{cycle}")) from None
            self._order = [self._nodes[n] for n in names]
        return tuple(self._order)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def node(self, name: str) -> Node:
        """The node of that name; KeyError if there is none."""
        return self._nodes[name]

    def of(self, *ops: str) -> tuple[Node, ...]:
        """Nodes of these ops, in order."""
        return tuple(n for n in self.nodes if n.op.name in ops)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The ``input`` nodes, in order: the arguments of a run."""
        return self.of("input")

    @property
    def outputs(self) -> tuple[Node, ...]:
        """The ``output`` nodes, in order."""
        return self.of("output")

    def uses(self, value: Value) -> tuple[tuple[Node, int], ...]:
        """(user, operand index) of every use of a value, in graph order of the users."""
        edges = self.dag.out_edges(value.node.name, keys=True)
        found = [(self._nodes[b], key[1]) for _, b, key in edges if key[0] == value.index]
        return tuple(sorted(found, key=lambda use: (self._rank[use[0].name], use[1])))

    @property
    def numerics(self) -> str:
        """``int`` if any stream holds whole numbers, else ``fp32``."""
        return "int" if any(v.type.dtype != "float32" for n in self._nodes.values() for v in n.results) else "fp32"

    def call(self, node: Node, **run: Any) -> Call:
        """The node's op call: what ``infer``, ``evaluate`` and ``compute`` read."""
        return Call(node.attrs, tuple(o.type for o in node.operands), self.tensors, **run)

    @property
    def granule(self) -> int:
        """Base steps of the smallest block at which all streams meet: the unit of streaming."""
        after: set[str] = set()
        for node in self.of("readout"):
            after |= {node.name} | nx.descendants(self.dag, node.name)
        if self.of("slice_time"):
            return self.base_timesteps
        steps = {v.type.dt for n in self.nodes if n.name not in after for v in n.results} or {Fraction(1)}
        meet = Fraction(lcm(*(s.numerator for s in steps)), gcd(*(s.denominator for s in steps)))
        return lcm(meet.numerator, 1)

    # ---- changing

    @contextmanager
    def edit(self) -> Iterator[None]:
        """Several changes as one: types are inferred once, at the end, so that they need not fit in between."""
        if self._pending is not None:
            yield
            return
        self._pending = {}
        try:
            yield
            roots = [n for n in self._pending.values() if n.name in self._nodes]
        finally:
            self._pending = None
        self._retype(roots)

    def tensor(self, name: str, value: torch.Tensor) -> TensorRef:
        """Store a tensor and refer to it. An equal tensor of that name is shared, another one gets a new name."""
        value, candidate, n = value.detach().contiguous(), name, 1
        while candidate in self.tensors and not _same(self.tensors[candidate], value):
            n += 1
            candidate = f"{name}~{n}"
        self.tensors.setdefault(candidate, value)
        return TensorRef(candidate)

    def add(
        self, op_name: str, operands: Iterable[Value] = (), path: str = "", name: str | None = None,
        before: Node | None = None, **attrs: Any,
    ) -> Node:  # fmt: skip
        """Add a node. Missing attributes take their defaults; all that is wrong with the others is reported at once."""
        definition = op(op_name)
        node = Node(self._fresh(name or path or op_name), definition, tuple(operands), {}, path)
        node._attrs.update(_coerced(node, attrs))
        types = self._infer(node)
        node._results = tuple(Value(node, i, t) for i, t in enumerate(types))
        self._nodes[node.name] = node
        self._rank[node.name] = (
            max(self._rank.values(), default=0.0) + 1 if before is None else self._rank[before.name] - 1e-6
        )
        self.dag.add_node(node.name)
        self._connect(node)
        return node

    def insert(
        self, op_name: str, value: Value, users: Iterable[tuple[Node, int]] | None = None, **kwargs: Any
    ) -> Node:
        """Add a one-operand node after ``value`` and hand its result to ``users`` (default: all present users)."""
        users = self.uses(value) if users is None else tuple(users)
        node = self.add(op_name, [value], **kwargs)
        self._rank[node.name] = self._rank[value.node.name] + 1e-6
        self._rewire({use: node.result for use in users})
        return node

    def set_operand(self, node: Node, index: int, value: Value) -> None:
        """Replace one operand (or append it to a delay that has none)."""
        self._rewire({(node, index): value})

    def replace(self, old: Value, new: Value, users: Iterable[tuple[Node, int]] | None = None) -> None:
        """Hand ``new`` to every user of ``old`` (or to ``users`` only, given as (node, operand index))."""
        self._rewire({use: new for use in (self.uses(old) if users is None else users)})

    def set_attrs(self, node: Node, **attrs: Any) -> None:
        """Change attributes, then the types that follow."""
        previous = dict(node._attrs)
        node._attrs.update(_coerced(node, {**previous, **attrs}))
        self._retype([node])

    def set_operands(self, node: Node, operands: Sequence[Value]) -> None:
        """Replace all operands at once."""
        node._operands = tuple(operands)
        self._connect(node)
        self._retype([node])

    def place(self, node: Node, placement: Placement | None) -> None:
        """Set or clear what the back end decided for a node."""
        node.placement = placement

    def erase(self, *nodes: Node) -> None:
        """Remove nodes that nothing else uses."""
        names = {n.name for n in nodes}
        used = [(n, u) for n in nodes for v in n.results for u, _ in self.uses(v) if u.name not in names]
        if used:
            raise LdsnnError([Problem(f"cannot be erased, %{u.name} uses it", where=f"%{n.name}") for n, u in used])
        for name in names:
            self.dag.remove_node(name)
            del self._nodes[name], self._rank[name]
        self._order = None

    def remove(self, node: Node) -> None:
        """Take a one-operand node out: its users get its operand."""
        self.replace(node.result, node.operands[0])
        self.erase(node)

    def clone(self) -> Graph:
        """An independent copy; tensors are shared (they are never changed in place)."""
        copy = Graph(self.name, self.base_timesteps, self.stage)
        copy.tensors = dict(self.tensors)
        made: dict[str, Node] = {}
        for node in self.nodes:
            twin = Node(node.name, node.op, (), node.attrs, node.path)
            twin._results = tuple(Value(twin, r.index, r.type) for r in node.results)
            twin.placement = node.placement
            made[node.name] = copy._nodes[node.name] = twin
            copy.dag.add_node(node.name)
        copy._rank = dict(self._rank)
        for node in self.nodes:
            made[node.name]._operands = tuple(made[o.node.name].results[o.index] for o in node.operands)
            copy._connect(made[node.name])
        return copy

    def become(self, other: Graph) -> None:
        """Take over all that ``other`` holds, which is not to be used any more: a rewrite that is built beside it."""
        self.__dict__.update(other.__dict__)

    def prune_tensors(self) -> None:
        """Forget tensors that no node refers to."""
        used = {ref.name for node in self._nodes.values() for ref in tensor_refs(node)}
        self.tensors = {k: v for k, v in self.tensors.items() if k in used}

    # ---- inside

    def _fresh(self, wanted: str) -> str:
        base = re.sub(r"[^\w.]", "_", wanted) or "v"
        name, n = base, 1
        while name in self._nodes:
            n += 1
            name = f"{base}_{n}"
        return name

    def _connect(self, node: Node) -> None:
        self.dag.remove_edges_from(list(self.dag.in_edges(node.name, keys=True)))
        for i, value in enumerate(node.operands):
            self.dag.add_edge(value.node.name, node.name, key=(value.index, i))
        self._order = None

    def _rewire(self, changes: Mapping[tuple[Node, int], Value]) -> None:
        touched: dict[str, Node] = {}
        for (node, index), value in changes.items():
            operands = list(node.operands)
            operands[index : index + 1] = [value]
            node._operands = tuple(operands)
            touched[node.name] = node
        for node in touched.values():
            self._connect(node)
        self._retype(touched.values())

    def _infer(self, node: Node) -> tuple[Stream, ...]:
        low, high = node.op.operands
        if not low <= len(node.operands) or (high is not None and len(node.operands) > high):
            raise LdsnnError(
                Problem(f"takes {low} to {high or 'any number of'} operands, not {len(node.operands)}", **_at(node))
            )
        missing = [r.name for r in tensor_refs(node) if r.name not in self.tensors]
        if missing:
            raise LdsnnError(Problem(f"no tensor named {', '.join(missing)} in the graph", **_at(node)))
        try:
            return node.op.infer(self.call(node))
        except ValueError as error:
            raise LdsnnError(Problem(str(error), **_at(node))) from None
        except ZeroDivisionError:
            raise LdsnnError(Problem("an attribute that divides is 0", **_at(node))) from None

    def _retype(self, roots: Iterable[Node]) -> None:
        """Infer again from ``roots`` downwards, as far as types change.

        A delay comes before its operand, so it gives its declared type first and is compared with its operand last.
        """
        if self._pending is not None:
            self._pending.update((n.name, n) for n in roots)
            return
        dirty = {n.name for n in roots}
        for node in self.nodes:
            if node.name not in dirty:
                continue
            types = (node["type"],) if node.op.name == "delay" else self._infer(node)
            kept = node._results[: len(types)]
            changed = [v for v, t in zip(kept, types, strict=False) if v.type != t]
            for value, type in zip(kept, types, strict=False):
                value.type = type
            node._results = kept + tuple(Value(node, i, types[i]) for i in range(len(kept), len(types)))
            dirty |= {user.name for value in changed for user, _ in self.uses(value)}
        for node in self.nodes:
            if node.op.name == "delay" and node.name in dirty:
                self._infer(node)


def tensor_refs(node: Node) -> Iterator[TensorRef]:
    """Every tensor a node refers to, in its attributes and in its neuron's parameters."""
    for value in node.attrs.values():
        if isinstance(value, TensorRef):
            yield value
        elif value is not None and hasattr(value, "params"):
            yield from (p for p in value.params.values() if isinstance(p, TensorRef))


def _coerced(node: Node, given: Mapping[str, Any]) -> dict[str, AttrValue]:
    problems, values = [], {}
    for name in given:
        if name not in node.op.attrs:
            problems.append(Problem("no such attribute", attribute=name, **_at(node)))
    for name, attr in node.op.attrs.items():
        value = given.get(name, attr.default)
        if value is REQUIRED:
            problems.append(Problem("is required", attribute=name, **_at(node)))
            continue
        try:
            values[name] = attr.coerce(value)
        except (TypeError, ValueError) as error:
            problems.append(Problem(str(error), attribute=name, **_at(node)))
    if problems:
        raise LdsnnError(problems)
    return values


def _at(node: Node) -> dict[str, str]:
    return {"where": node.path or f"%{node.name}", "kind": node.op.name}


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a is b or (a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b))
