"""Give every neuron layer its own number of timesteps: apply a schedule.

Before (64 base steps, every value on steps of 1)::

    %c = conv2d(%s0)                       stream<64, 1, ...>
    %s = neuron(%c) {neuron=if()}          stream<64, 1, ..., event(1, 1.0)>
    %o = output(%s)

After, with 8 timesteps and 4 levels for %s::

    %m = resample(%c) {dt=8}               stream<8, 8, ...>
    %s = neuron(%m) {neuron=if(max_count=4, threshold=0.25, spike_value=0.25)}     event(4, 0.25)
    %b = resample(%s) {dt=1, mode="repeat"}
    %o = output(%b)                        an output keeps its time

A layer that reads its input on fewer steps than it emits on (``input_timesteps``) gets two resamples, an average to
those and a repeat of that.

The maths: a neuron that covered one step covers r = dt'/dt; what that means is defined by ``Neuron.retime``. Per-step
ops follow their operand. Operands of a join meet at the finest of ``max(dt_i, dt of the finest consumer)``, so that
operand i runs at min(T_i, T of the consuming neuron). Outputs, encoders and what else scans over time keep their
former time; so do slices and delays whose lengths would not come out whole. The values of a cycle share one grid,
that of its neurons; a delay in it is as long as before, but at least one step. A membrane that is read out is scaled
so that it keeps its ratio to the threshold. Without a schedule only the stage moves on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

import networkx as nx

from ldsnn_compiler.errors import LdsnnError, Problem, ScheduleError
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.neuron import Neuron, TensorRef
from ldsnn_compiler.passes._grids import mode, settle_delays
from ldsnn_compiler.passes._retime import retimed
from ldsnn_compiler.pipeline.base import Pass
from ldsnn_compiler.pipeline.registry import register_pass
from ldsnn_compiler.schedule import Schedule, neuron_layers


@register_pass
@dataclass(frozen=True)
class AssignTimesteps(Pass):
    """Apply a schedule file (or the JSON text of one); move the graph to stage ``scheduled``."""

    name: ClassVar[str] = "assign-timesteps"
    exact: ClassVar[bool] = False
    schedule: str | None = None

    @classmethod
    def of(cls, schedule: Schedule) -> AssignTimesteps:
        """The pass for a schedule at hand, which its text then holds."""
        return cls(" ".join(schedule.text().split()))

    def run(self, graph: Graph) -> bool:
        if graph.stage != "traced":
            message = f"timesteps are assigned to a traced graph, this one is {graph.stage}"
            raise ScheduleError(Problem(message, where=graph.name))
        if self.schedule is not None:
            inline = self.schedule.lstrip().startswith("{")
            apply_schedule(graph, Schedule.parse(self.schedule) if inline else Schedule.read(self.schedule))
        graph.stage = "scheduled"
        return True


def with_schedule(passes: Iterable[Pass], schedule: Schedule | None) -> tuple[Pass, ...]:
    """The passes of a pipeline, an ``assign-timesteps`` that names no schedule with this one.

    Raises :class:`ScheduleError` if there is a schedule and no pass to take it: it is never ignored.
    """
    passes = tuple(passes)
    open_ = [isinstance(p, AssignTimesteps) and p.schedule is None for p in passes]
    if schedule is None:
        return passes
    if not any(open_):
        hint = "add assign-timesteps to the pipeline, without a schedule in its text"
        raise ScheduleError(Problem("no pass of the pipeline takes the schedule", hint=hint))
    return tuple(AssignTimesteps.of(schedule) if here else p for p, here in zip(passes, open_, strict=True))


def apply_schedule(graph: Graph, schedule: Schedule) -> None:
    """Retime every neuron layer and bring each operand to the grid its user needs.

    Raises :class:`ScheduleError` that names every layer that does not fit or cannot be retimed.
    """
    schedule.check(graph)
    plan = _Plan(graph, schedule)
    with graph.edit():
        plan.apply()
        delays = {d.name: plan.grid[d.name] for d in graph.of("delay")}
        settle_delays(graph, {n: (int(graph.node(n).type.duration / dt), dt) for n, dt in delays.items()})


@dataclass
class _Plan:
    """The new grid of every value, and what each operand needs, before anything changes."""

    graph: Graph
    schedule: Schedule
    grid: dict[str, Fraction] = field(default_factory=dict)
    wanted: dict[str, Fraction] = field(default_factory=dict)
    needs: dict[tuple[Node, int], Fraction] = field(default_factory=dict)
    neurons: dict[Node, Neuron] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layers = {
            node: (self.schedule.layers[path], node.type.duration / self.schedule.layers[path].timesteps)
            for path, node in neuron_layers(self.graph).items()
        }
        self.reads = {node: node.type.duration / layer.reads for node, (layer, _) in self.layers.items()}
        self.cycle = self._cycles()
        self._retime()
        if self.problems:
            raise ScheduleError(self.problems)
        self._want()
        for node in self.graph.nodes:
            dt = self._place(node)
            self.grid.update({value.name: dt for value in node.results})
            for i in range(len(node.operands)):
                self.needs.setdefault((node, i), dt)

    # ---- planning

    def _cycles(self) -> dict[str, Fraction]:
        """Node of a cycle -> the grid of that cycle: its neurons' common one, or the former one if it has none."""
        found: dict[str, Fraction] = {}
        for names in nx.strongly_connected_components(self.graph.dag):
            members = [self.graph.node(n) for n in names]
            if len(names) == 1 and members[0] not in [o.node for o in members[0].operands]:
                continue
            grids = {n: self.layers[n][1] for n in members if n in self.layers}
            if len(set(grids.values())) > 1:
                paths = ", ".join(sorted(n.path or n.name for n in grids))
                self.problems.append(Problem("layers of one cycle need the same number of timesteps", paths))
            for node in members:
                if node in self.reads and self.reads[node] != self.layers[node][1]:
                    message = "a layer of a cycle reads its input on its own timesteps"
                    self.problems.append(Problem(message, node.path or node.name, attribute="input_timesteps"))
            found |= dict.fromkeys(names, max(grids.values(), default=members[0].type.dt))
        return found

    def _retime(self) -> None:
        for node, (layer, dt) in self.layers.items():
            try:
                new = retimed(self.graph, node, dt / node.type.dt, layer)
                self.neurons[node] = new
                _membrane_scale(self.graph, node, new)
            except LdsnnError as error:
                message = "; ".join(p.message for p in error.problems)
                self.problems.append(Problem(message, node.path or node.name, str(node["neuron"]), "method"))

    def _want(self) -> None:
        """Backwards: the finest grid that anything downstream reads a value on; 0 where it reads whatever there is."""
        for node in reversed(self.graph.nodes):
            for value in node.results:
                wants = [self._wants(user, value) for user, _ in self.graph.uses(value)]
                self.wanted[value.name] = min(wants, default=Fraction(0))

    def _wants(self, user: Node, value: Value) -> Fraction:
        if user.name in self.cycle:
            return self.cycle[user.name]
        if user in self.layers:
            return self.reads[user]
        if user.op.name == "resample":
            return Fraction(user["dt"])
        if user.op.name == "readout":
            return value.type.duration if user["mode"] == "mean" else Fraction(0)
        if user.op.acts_per_step:
            return self.wanted[user.result.name]
        return value.type.dt

    def _place(self, node: Node) -> Fraction:
        """The grid of a node's results; notes what its operands need where that is another one."""
        former = node.results[0].type.dt
        if node.name in self.cycle:
            return self.cycle[node.name]
        if node in self.layers:
            self.needs |= {(node, i): self.reads[node] for i in range(len(node.operands))}
            return self.layers[node][1]
        if not node.operands:
            return former
        operands = [self.grid[o.name] for o in node.operands if o.name in self.grid]
        if node.op.acts_per_step:
            capped = [max(dt, self.wanted[node.result.name]) for dt in operands] if len(operands) > 1 else operands
            return min(capped)
        if node.op.name in ("resample", "readout"):
            self.needs[node, 0] = operands[0]
            return former
        if node.op.name in ("slice_time", "delay") and self._whole(node, operands):
            return operands[0]
        return former

    def _whole(self, node: Node, operands: list[Fraction]) -> bool:
        return bool(operands) and (node["steps"] * node.type.dt / operands[0]).denominator == 1

    # ---- applying

    def apply(self) -> None:
        made: dict[tuple[Value, Fraction], Value] = {}

        def on(value: Value, source: Fraction, dt: Fraction, before: Node) -> Value:
            if source != dt and (value, dt) not in made:
                node = self.graph.add("resample", [value], dt=dt, before=before)
                self.graph.set_attrs(node, mode=mode(source, dt))
                made[value, dt] = node.result
            return value if source == dt else made[value, dt]

        nodes = self.graph.nodes
        for node in nodes:
            for i, value in enumerate(node.operands):
                need = self.needs[node, i]
                operand = on(value, self.grid[value.name], need, node)
                if node in self.layers:
                    operand = on(operand, need, self.grid[node.name], node)
                if operand is not value:
                    self.graph.set_operand(node, i, operand)
        for node in nodes:
            self._change(node)

    def _change(self, node: Node) -> None:
        """Attributes that speak of time."""
        if node in self.neurons:
            scale = _membrane_scale(self.graph, node, self.neurons[node])
            if scale != 1.0:
                self.graph.insert("scale", node.results[1], factor=scale)
            self.graph.set_attrs(node, neuron=self.neurons[node])
        elif node.op.name == "resample" and node["mode"] == "repeat":
            self.graph.set_attrs(node, mode=mode(self.grid[node.operands[0].name], node["dt"]))
        elif node.op.name in ("slice_time", "delay"):
            steps = node["steps"] * node.type.dt / self.grid[node.name]
            self.graph.set_attrs(node, steps=max(1, round(steps)))


def _membrane_scale(graph: Graph, node: Node, new: Neuron) -> float:
    """Factor that keeps a membrane's ratio to its threshold; LdsnnError where it is not one number."""
    if not node["membrane"] or not graph.uses(node.results[1]):
        return 1.0
    old: Mapping[str, float | TensorRef] = node["neuron"].params
    before, after = old.get("threshold", 1.0), new.params.get("threshold", 1.0)
    if before == after:
        return 1.0
    if isinstance(before, TensorRef) or isinstance(after, TensorRef):
        raise LdsnnError("its membrane is read out and its thresholds differ per channel; use method micro")
    return before / after
