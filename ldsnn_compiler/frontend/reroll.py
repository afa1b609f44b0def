"""Re-rolling: a hand-written time loop, unrolled by ``torch.fx``, becomes one step with time implied.

Before, for T = 2 (and T copies in general)::

    cur = fc(x[0]); spk, mem = lif(cur, 0);   cur' = fc(x[1]); spk', mem' = lif(cur', mem);   torch.stack([spk, spk'])

After::

    cur = fc(step_of(x, 0)); spk, mem = lif(cur);   sequence_of(spk, 0)

Neurons keep their own state, so the states handed from call to call go. Sums, means and maxima that run along become
reductions of the sequence, a value that is used after the loop becomes its last step, and lists of all steps become
sequences. What else is carried from step to step is refused with its module and line.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import fx, nn

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.frontend.context import Context, Refused
from ldsnn_compiler.frontend.encoders import bernoulli
from ldsnn_compiler.frontend.families import At, Broken, Family, Fixed, Running, Stacked, at, describe, mapped, ranges
from ldsnn_compiler.frontend.registry import FrontEnd, FunctionImporter
from ldsnn_compiler.frontend.state import State
from ldsnn_compiler.frontend.traced import BATCH, TIME, Traced, leaves
from ldsnn_compiler.frontend.unrolled import Unrolled, is_random, is_recording

#: base classes of modules whose state goes from call to call as an argument; without it they start afresh
FORGETFUL: Final = frozenset(
    {
        "norse.torch.module.snn.SNNCell",
        "norse.torch.module.snn.SNNRecurrentCell",
        "norse.torch.module.leaky_integrator.LILinearCell",
        "norse.torch.module.sequential.RecurrentSequential",
    }
)
#: these, and base classes of modules that keep state from call to call (or draw random numbers in each)
STATEFUL: Final = FORGETFUL | {
    "spikingjelly.activation_based.base.MemoryModule",
    "spikingjelly.activation_based.encoding.StatelessEncoder",
    "snntorch._neurons.neurons.SpikingNeuron",
    "ldsnn_compiler.frontend.written.WrittenNeuron",
}
_WRONG_READING: Final = 1000
"""Weight of a reading of the example as a sequence that the loop does not index: it says nothing about the model."""
_REDUCTIONS: Final[dict[str, Callable[..., Any]]] = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}


def is_stateful(module: nn.Module) -> bool:
    """Whether successive calls of a module are successive timesteps."""
    return not _bases(module).isdisjoint(STATEFUL) and getattr(module, "step_mode", "s") == "s"


def is_forgetful(module: nn.Module) -> bool:
    """Whether a stateful module keeps nothing between calls."""
    return not _bases(module).isdisjoint(FORGETFUL)


def _bases(module: nn.Module) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__}


def step_of(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Marks, in a re-rolled graph, the present timestep of a sequence whose time is axis ``dim``."""
    return x.select(dim, 0)


def sequence_of(x: Any, dim: int, sizes: tuple[int, ...] | None = None) -> Any:
    """Marks, in a re-rolled graph, the values of all timesteps, time as a new axis ``dim``; ``sizes`` if the model
    wrote them into a tensor of that shape."""
    return x if isinstance(x, State) else x.unsqueeze(dim)


def held(x: torch.Tensor) -> torch.Tensor:
    """Marks, in a re-rolled graph, a value of the whole run that a neuron is given in every timestep."""
    return x


def reroll(traced: fx.GraphModule, ctx: Context) -> None:
    """Normaliser: replace an unrolled loop by its one step and tell the context the number of timesteps."""
    unrolled = Unrolled(traced.graph, traced, is_stateful, is_forgetful)
    if unrolled.timesteps == 1 and not _is_one_step(unrolled, ctx):
        return
    unrolled.evaluate()
    body = None if unrolled.problems else _Body(unrolled, _results_of_calls(ctx))
    graph = body.build() if body else None
    ctx.problems += [_placed(p, ctx) for p in unrolled.problems if _placed(p, ctx) not in ctx.problems]
    if graph is None or unrolled.problems:
        return
    try:
        ctx.steps(unrolled.timesteps)
    except Refused:
        ctx.time_problems += -1 if unrolled.reads_timesteps else _WRONG_READING
        return
    traced.graph = graph


def _results_of_calls(ctx: Context) -> frozenset[Any]:
    """Functions that take a neuron's call apart; they belong into the loop even if only the last step is read."""
    states = [marker for part in ctx.tables.parts for table in part.state.values() for marker in table.values()]
    return frozenset([operator.getitem, getattr, *states])


def _placed(problem: Problem, ctx: Context) -> Problem:
    """The problem with its path seen from the whole model."""
    where = ".".join(p for p in (ctx.site.module, problem.where) if p) or "the model"
    return Problem(problem.message, where, problem.kind, problem.attribute, problem.hint)


def _is_one_step(unrolled: Unrolled, ctx: Context) -> bool:
    """Whether a forward that calls its neurons once is a loop of one timestep: it starts their states itself.

    Otherwise it is single-step code, to be run for as many timesteps as the user says.
    """
    fresh = [chain for chain in unrolled.chains.all if chain.explicit]
    problems = unrolled.problems + unrolled.chains.restarted()
    if not problems and ctx.timesteps not in (None, 1):
        message = f"starts from a fresh state in each call of forward, without a loop over {ctx.timesteps} timesteps"
        hints = {False: "set init_hidden=True and leave the state out", True: "take state=None and return the new one"}
        for chain in fresh:
            hint = f"loop inside forward, or {hints[is_forgetful(unrolled.root.get_submodule(chain.module))]}"
            problems.append(Problem(message, hint=hint, **at(chain.calls[0], unrolled.root)))
    ctx.problems += [_placed(p, ctx) for p in problems]
    return bool(fresh) and not problems


class _Body:
    """The re-rolled graph: every family that a result needs, once."""

    def __init__(self, unrolled: Unrolled, parts: frozenset[Any]) -> None:
        self.loop, self.last, self.parts = unrolled, unrolled.timesteps - 1, parts
        self.graph = fx.Graph()
        self.nodes: dict[Family, fx.Node] = {}
        self.made: dict[Any, fx.Node] = {}

    def build(self) -> fx.Graph | None:
        """The graph, or None after reporting why a result cannot be had."""
        output = next(n for n in self.loop.graph.nodes if n.op == "output")
        results = self._recorded(mapped(output.args[0], self.loop.value_of), output)
        needed = self._needed(list(leaves(results)))
        if self.loop.problems:
            return None
        for family in self.loop.families.values():
            if family in needed or family.node.op == "placeholder":
                self.nodes[family] = self._emit(family)
        self.graph.output(mapped(results, lambda v: self._operand(v, False)))
        return self.graph

    def _recorded(self, results: Any, output: fx.Node) -> Any:
        """Results with lists of all timesteps as sequences."""
        if not isinstance(results, list | tuple):
            return results
        recorded = isinstance(results, list) or self.last > 0
        if (
            not recorded
            or not is_recording(list(results), self.last + 1)
            or any(isinstance(r, Broken) for r in results)
        ):
            return type(results)(self._recorded(r, output) for r in results)
        problem = self.loop.incomplete(list(results), output)
        return Broken(problem) if problem else Stacked(results[0].family, 0)

    def _needed(self, values: list[Any]) -> set[Family]:
        """Families that these values come from; those that cannot be had after the loop are reported."""
        self.loop.problems += [p for v in values if (p := self._unfinished(v)) is not None]
        found: set[Family] = set()
        while values:
            value = values.pop()
            if not isinstance(value, Fixed | At | Running | Stacked) or value.family in found:
                continue
            family = value.family
            found.add(family)
            values += leaves((family.args, family.kwargs))
            if family.moving and not self._is_whole(family) and family.steps != {self.last}:
                self.loop.problems.append(self._only(family, sorted(family.steps)))
        return found

    def _unfinished(self, value: Any) -> Problem | None:
        """Why a result is not the value after the last timestep."""
        if isinstance(value, Broken):
            return value.problem
        if isinstance(value, At) and value.step != self.last and self._is_whole(value.family):
            return self._only(value.family, [value.step])
        if isinstance(value, Running) and value.step != self.last:
            what = describe(value.family.node, self.loop.root)
            message = f"the {value.op} of {what} over time covers timesteps 0..{value.step} of 0..{self.last}"
            return Problem(message, hint="add up every timestep", **at(value.family.node, self.loop.root))
        return None

    def _only(self, family: Family, steps: list[int]) -> Problem:
        what = describe(family.node, self.loop.root)
        message = f"of {what} only timestep {ranges(steps)} is used, the loop has 0..{self.last}"
        return Problem(message, hint="use all timesteps or the last", **at(family.node, self.loop.root))

    def _is_whole(self, family: Family) -> bool:
        """Whether a family belongs into the loop: it has a value in every step, or is a part of a neuron call."""
        if len(family.steps) == self.last + 1:
            return True
        source = family.args[0] if family.moving and family.node.target in self.parts else None
        if isinstance(source, At) and family.node.target is getattr:
            return self._is_whole(source.family)
        return isinstance(source, At) and source.family.node in self.loop.chains.place

    def _emit(self, family: Family) -> fx.Node:
        inside = family.moving and self._is_whole(family)
        args, kwargs = (mapped(a, lambda v: self._operand(v, inside)) for a in (family.args, family.kwargs))
        if (family.node in self.loop.chains.place or is_random(family.node)) and isinstance(family.args[0], Fixed):
            args = (self._once((family.args[0].family, "held"), held, args[0]), *args[1:])
        if family.time_axis is not None:
            return self.graph.call_function(step_of, (*args, family.time_axis))
        node = self.graph.create_node(family.node.op, family.node.target, args, kwargs, family.node.name)
        node.meta = dict(family.node.meta)
        return node

    def _operand(self, value: Any, inside: bool) -> Any:
        match value:
            case Fixed(family):
                return self.nodes[family]
            case At(family):
                return self.nodes[family] if inside or not self._is_whole(family) else self._after(family, "last", -1)
            case Running(op, family):
                return self._after(family, op, 0)
            case Stacked(family, dim, sizes):
                return self._sequence(family, dim, *([sizes] if sizes else []))
        return value

    def _sequence(self, family: Family, dim: int, *sizes: tuple[int, ...]) -> fx.Node:
        return self._once((family, dim, *sizes), sequence_of, self.nodes[family], dim, *sizes)

    def _after(self, family: Family, op: str, position: int) -> fx.Node:
        """A family's value over the whole run: its last step, or a reduction over time."""
        sequence = self._sequence(family, 0)
        return self._once((family, op), _REDUCTIONS.get(op, operator.getitem), sequence, position)

    def _once(self, identity: Any, function: Callable[..., Any], *args: Any) -> fx.Node:
        if identity not in self.made:
            self.made[identity] = self.graph.call_function(function, args)
        return self.made[identity]


def _import_step_of(ctx: Context, x: Any, dim: int) -> Traced:
    if not isinstance(x, Traced) or x.axes[dim % len(x.axes)] != TIME:
        message = f"the loop reads index after index along axis {dim} of {x}, which is not time"
        raise ctx.refuse(message, time=True, hint="let the model take [T, N, ...] or [N, T, ...]")
    if x.value.type.timesteps != ctx.timesteps:
        raise ctx.refuse(
            f"the loop reads {ctx.timesteps} of {x.value.type.timesteps} timesteps",
            time=True,
            hint="pass the timesteps that are used",
        )
    axis = dim % len(x.axes)
    return x.with_axes(x.axes[:axis] + x.axes[axis + 1 :], stepping=True)


def _import_held(ctx: Context, value: Any) -> Traced:
    x: Traced = ctx.expect(value, (BATCH,))
    return x if x.stepping else x.like(ctx.hold(x.value)).with_axes(x.axes, stepping=True)


def _import_sequence_of(ctx: Context, x: Any, dim: int, sizes: tuple[int, ...] | None = None) -> Traced:
    if not isinstance(x, Traced) or not x.stepping:
        raise ctx.refuse(f"expects a value of each timestep, got {x}", time=True)
    axis = dim % (len(x.axes) + 1)
    whole = x.with_axes((*x.axes[:axis], TIME, *x.axes[axis:]), stepping=False)
    if sizes is not None and whole.sizes(ctx.batch) != sizes:
        shape = ", ".join(map(str, sizes))
        raise ctx.refuse(f"{whole} is written into a tensor [{shape}]", hint="append to a list and torch.stack it")
    return whole


def front_end() -> FrontEnd:
    """The markers and the normaliser of this file."""
    markers: dict[Callable[..., Any], FunctionImporter] = {
        step_of: _import_step_of,
        sequence_of: _import_sequence_of,
        held: _import_held,
    }
    draws: dict[Callable[..., Any], FunctionImporter] = {torch.bernoulli: bernoulli}
    return FrontEnd(
        "time loops", functions={**markers, **draws}, methods={"bernoulli": bernoulli}, normalisers=(reroll,)
    )
