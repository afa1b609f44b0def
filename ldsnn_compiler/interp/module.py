"""The interpreter: the oracle. It runs a graph op by op with PyTorch, in float32, exactly as written.

Whole numbers (streams of ``int32``) are held in float64, which adds and multiplies them exactly up to 2**53.

It is a ``torch.nn.Module`` whose parameters are the graph's weights; comparisons have surrogate gradients, so a
scheduled graph can be fine-tuned and written back with :meth:`Interpreter.to_graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.interp.given import float32_tensor
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.layouts import to_caller, to_run
from ldsnn_compiler.ir.op import widened
from ldsnn_compiler.ir.verify import check_stable
from ldsnn_compiler.streaming import Streaming

Data = tuple[torch.Tensor, ...]
Observer = Callable[[Node, Data, Data], None]


@dataclass(frozen=True)
class _Run:
    tensors: Mapping[str, torch.Tensor]
    batch: int
    base_steps: int


class Interpreter(Streaming, torch.nn.Module):
    """Runs ``graph``. State is explicit: ``state[node][variable]`` is ``[N, *shape]`` (a delay's buffer ``[steps, N,
    *shape]``).

    ``observers`` are called as ``observer(node, inputs, outputs)`` with ``[T, N, *shape]`` data after each node.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        check_stable(graph)
        self.graph = graph
        self.observers: list[Observer] = []
        self.state: dict[str, dict[str, torch.Tensor]] = {}
        self.base_step = 0
        frozen = {n[k].name for n in graph.of("batch_norm") for k in ("mean", "var")}
        self._names = {name: f"t{i}" for i, name in enumerate(sorted(graph.tensors))}
        for name, attribute in self._names.items():
            value = graph.tensors[name]
            if value.is_floating_point() and name not in frozen:
                self.register_parameter(attribute, torch.nn.Parameter(value.clone()))
            else:
                self.register_buffer(attribute, value.clone())
        self._groups = _groups(graph)
        self._spent = _last_uses(self._groups)

    # ---- running

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | Data:
        """A whole run in the user's layout (:mod:`ldsnn_compiler.ir.layouts`); one output or a tuple."""
        data = [to_run(node, x) for node, x in zip(self.graph.inputs, self._given(inputs), strict=True)]
        outputs = self.run(*data)
        shown = [to_caller(node, y) for node, y in zip(self.graph.outputs, outputs, strict=True)]
        return shown[0] if len(shown) == 1 else tuple(shown)

    def run(self, *inputs: torch.Tensor) -> Data:
        """A whole run from the initial state: ``[T, N, *shape]`` in, a tuple of ``[T, N, *shape]`` out, one per
        output."""
        given = self._given(inputs)
        self.reset()
        return self._advance(given, self.graph.base_timesteps)

    def step(self, *inputs: torch.Tensor) -> Data:
        """Go on by some granules of base steps (``graph.granule`` each); inputs hold that many steps' data.

        Answers for those steps; after the whole window the answers together equal :meth:`run`.
        """
        inputs = self._given(inputs)
        granule = self.graph.granule
        covered = self.graph.inputs[0].type.dt * inputs[0].shape[0] if inputs else granule
        if covered % granule:
            raise LdsnnError(f"a step covers a multiple of {granule} base steps, the input covers {covered}")
        return self._advance(inputs, int(covered))

    def reset(self, *, samples: Sequence[int] | None = None) -> None:
        """Back to the state before the first step; with ``samples`` only these of the batch, the others go on."""
        if samples is not None:
            self._reset_samples(samples)
            return
        self.state = {}
        self.base_step = 0

    def to_graph(self) -> Graph:
        """The graph with this module's present weights."""
        graph = self.graph.clone()
        graph.tensors = {name: value.detach().clone() for name, value in self._tensors().items()}
        return graph

    # ---- inside

    def _tensors(self) -> Mapping[str, torch.Tensor]:
        """The weights as they are now."""
        return {name: getattr(self, attribute) for name, attribute in self._names.items()}

    def _advance(self, inputs: Data, base_steps: int) -> Data:
        """Run every node over these steps; a value is dropped after its last use, for a deep network fills memory."""
        self._check(inputs, base_steps)
        values: dict[str, torch.Tensor] = {}
        run = _Run(widened(self._tensors(), torch.float64), inputs[0].shape[1] if inputs else 1, base_steps)
        given = {node.name: x for node, x in zip(self.graph.inputs, inputs, strict=True)}
        for group, spent in zip(self._groups, self._spent, strict=True):
            if len(group) > 1:
                self._cycle(group, values, run)
            elif (node := group[0]).op.name == "input":
                self._record(node, values, (given[node.name],))
            else:
                data = tuple(values[o.name] for o in node.operands)
                self._record(node, values, self._evaluate(node, data, run))
            for name in spent:
                del values[name]
        self.base_step += base_steps
        return tuple(values[node.result.name] for node in self.graph.outputs)

    def _evaluate(self, node: Node, inputs: Data, run: _Run, offset: int = 0) -> Data:
        dt = (node.operands or node.results)[0].type.dt
        call = self.graph.call(
            node,
            state=self.state.setdefault(node.name, {}),
            first_step=int(self.base_step / dt) + offset,
            steps=int(run.base_steps / dt),
            batch=run.batch,
        )
        call.tensors = run.tensors
        return node.op.evaluate(call, *inputs)

    def _record(self, node: Node, values: dict[str, torch.Tensor], outputs: Data) -> None:
        for result, data in zip(node.results, outputs, strict=True):
            values[result.name] = data
        inputs = tuple(values[o.name] for o in node.operands)
        for observer in self.observers:
            observer(node, inputs, outputs)

    def _cycle(self, group: tuple[Node, ...], values: dict[str, torch.Tensor], run: _Run) -> None:
        """Step all nodes of a cycle together; a delay gives what it holds, and takes its operand when the step is
        over."""
        names = {n.name for n in group}
        steps = self._cycle_steps(group, values, run)
        collected: dict[str, list[torch.Tensor]] = {r.name: [] for n in group for r in n.results}
        for t in range(steps):
            now: dict[str, torch.Tensor] = {}
            for node in group:
                if node.op.name == "delay":
                    outputs: Data = (self._held(node, run.batch)[:1],)
                else:
                    data = (now[o.name] if o.node.name in names else values[o.name][t : t + 1] for o in node.operands)
                    outputs = self._evaluate(node, tuple(data), run, t)
                for result, y in zip(node.results, outputs, strict=True):
                    now[result.name] = y
                    collected[result.name].append(y)
            for node in group:
                if node.op.name == "delay":
                    source = node.operands[0]
                    x = now[source.name] if source.node.name in names else values[source.name][t : t + 1]
                    self.state[node.name]["held"] = torch.cat([self._held(node, run.batch)[1:], x])
        values.update({name: torch.cat(parts) for name, parts in collected.items()})
        for node in group:
            self._record(node, values, tuple(values[r.name] for r in node.results))

    def _cycle_steps(self, group: tuple[Node, ...], values: Mapping[str, torch.Tensor], run: _Run) -> int:
        names = {n.name for n in group}
        outside = [values[o.name].shape[0] for n in group for o in n.operands if o.node.name not in names]
        return outside[0] if outside else int(run.base_steps / group[0].type.dt)

    def _held(self, node: Node, batch: int) -> torch.Tensor:
        state = self.state.setdefault(node.name, {})
        if "held" not in state:
            dtype = torch.float32 if node.type.dtype == "float32" else torch.float64
            state["held"] = torch.zeros((node["steps"], batch, *node.type.shape), dtype=dtype)
        return state["held"]

    def _given(self, inputs: tuple[Any, ...]) -> Data:
        """What the caller gave as tensors, one an input."""
        nodes = self.graph.inputs
        if len(inputs) != len(nodes):
            raise LdsnnError(f"the network takes {len(nodes)} input{'s' * (len(nodes) != 1)}, not {len(inputs)}")
        return tuple(float32_tensor(x, n.path or n.name) for n, x in zip(nodes, inputs, strict=True))

    def _check(self, inputs: Data, base_steps: int) -> None:
        nodes, problems = self.graph.inputs, list[Problem]()
        for node, x in zip(nodes, inputs, strict=True):
            steps = base_steps / node.type.dt
            expected = f"[{steps}, N, {', '.join(map(str, node.type.shape))}]"
            if x.ndim < 2 or x.shape[0] != steps or tuple(x.shape[2:]) != node.type.shape:
                problems.append(
                    Problem(f"expected data {expected}, found {list(x.shape)}", where=node.path or node.name)
                )
        batches = {x.shape[1] for x in inputs if x.ndim > 1}
        if not problems and len(batches) > 1:
            problems = [Problem(f"inputs differ in batch: {', '.join(map(str, sorted(batches)))}")]
        if problems:
            raise LdsnnError(problems)


def _groups(graph: Graph) -> tuple[tuple[Node, ...], ...]:
    """Nodes in order; the nodes of one cycle together, at the place where all they need is known."""
    rank = {node.name: i for i, node in enumerate(graph.nodes)}
    condensed = nx.condensation(nx.DiGraph(graph.dag))
    members = {c: sorted(data["members"], key=rank.__getitem__) for c, data in condensed.nodes(data=True)}
    order = nx.lexicographical_topological_sort(condensed, key=lambda c: rank[members[c][0]])
    return tuple(tuple(graph.node(n) for n in members[c]) for c in order)


def _last_uses(groups: tuple[tuple[Node, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Per group, the values that nothing after it reads; what an output node gives is kept."""
    last: dict[str, int] = {}
    for i, group in enumerate(groups):
        for node in group:
            last.update(dict.fromkeys((v.name for v in (*node.operands, *node.results)), i))
    kept = {r.name for group in groups for n in group if n.op.name == "output" for r in n.results}
    spent: list[list[str]] = [[] for _ in groups]
    for name, i in last.items():
        if name not in kept:
            spent[i].append(name)
    return tuple(map(tuple, spent))
