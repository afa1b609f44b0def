"""What an unrolled time loop computes, step by step.

``torch.fx`` traces ``for step in range(num_steps)`` into repeated calls of the same modules. This file evaluates such a
graph over families (:mod:`ldsnn_compiler.frontend.families`), found by hashing what nodes do, in one pass: a loop of T
steps over n nodes costs T*n look-ups. Which step a value belongs to starts at two places: the t-th call of a chain
(:mod:`ldsnn_compiler.frontend.chains`), and ``x[t]`` where the loop reads every index from 0.
"""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import fx, nn

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.frontend.chains import CARRY, Chains
from ldsnn_compiler.frontend.families import (
    SET_ITEM,
    At,
    Broken,
    Family,
    Fixed,
    Running,
    Stacked,
    Value,
    at,
    changes_operand,
    describe,
    frozen,
    indexed,
    is_same,
    key,
    mapped,
    ranges,
    same,
    selection,
)
from ldsnn_compiler.frontend.sizes import set_item
from ldsnn_compiler.frontend.traced import leaves

ALIKE: Final = "every timestep must do the same"
_RUNNING: Final = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_", "__add__", "__radd__", "__iadd__"), "sum"),
    **dict.fromkeys((torch.maximum, torch.max, "maximum", "max"), "max"),
}
RANDOM: Final = frozenset({torch.bernoulli, torch.rand_like, torch.randn_like, "bernoulli"})
"""Functions that draw anew in each call: their k-th call on the same operand belongs to step k."""
_DIVISIONS: Final = (operator.truediv, operator.itruediv, torch.div, "div", "div_", "__truediv__")
_JOINS: Final = (torch.stack, torch.cat, torch.concat)


class Unrolled:
    """The evaluated graph: ``timesteps``, ``chains``, ``values`` by node, families in order, and ``problems``."""

    def __init__(
        self,
        graph: fx.Graph,
        root: nn.Module,
        is_stateful: Callable[[nn.Module], bool],
        is_forgetful: Callable[[nn.Module], bool],
    ) -> None:
        self.graph, self.root = graph, root
        self.chains = Chains(graph, root, is_stateful, is_forgetful)
        self.timesteps = self.chains.timesteps
        self.problems = list(self.chains.problems)
        self.values: dict[fx.Node, Value] = {}
        self.families: dict[Any, Family] = {}
        self._selects: dict[fx.Node, tuple[fx.Node, int, int]] = {}
        self._draws: Counter[Any] = Counter()
        self._written: dict[fx.Node, list[At]] = defaultdict(list)

    def evaluate(self) -> None:
        """Give every node its value."""
        self.problems += self.chains.uneven()
        if self.problems:
            return
        self._selects = self._time_selects()
        for node in self.graph.nodes:
            if node.op != "output":
                self.values[node] = self._value(node)

    @property
    def reads_timesteps(self) -> bool:
        """Whether the loop takes step after step of the first axis of something, other than of what a call returns."""
        return any(family.time_axis == 0 for family in self.families.values())

    def value_of(self, argument: Any) -> Any:
        """The value of a node; anything else is itself."""
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def _time_selects(self) -> dict[fx.Node, tuple[fx.Node, int, int]]:
        """``x[t]`` nodes of groups that read every index of the loop: node -> (x, axis, t)."""
        groups: dict[Any, dict[int, list[fx.Node]]] = defaultdict(lambda: defaultdict(list))
        for node in self.graph.nodes:
            if (found := selection(node)) is not None:
                groups[found[:2]][found[2]].append(node)
        loop = set(range(self.timesteps))
        whole = {k: g for k, g in groups.items() if len(loop) > 1 and set(g) == loop}
        return {node: (*k, index) for k, group in whole.items() for index, nodes in group.items() for node in nodes}

    # ---- values

    def _value(self, node: fx.Node) -> Value:
        if node in self.chains.place:
            return self._call(node)
        if node in self._selects:
            source, axis, step = self._selects[node]
            value = self.values[source]
            if isinstance(value, Fixed | Stacked):
                return self._at(("select", key(value), axis), node, (value,), {}, step, axis)
        if is_same(node):
            return self.values[node.args[0]]  # type: ignore[index]
        if node.target is set_item and (buffer := self._write(node)) is not None:
            return buffer
        if changes_operand(node) and (problem := self._lost_change(node)) is not None:
            self._report(problem)
        return self._combined(node) or self._generic(node)

    def _call(self, node: fx.Node) -> Value:
        """Step t of a chain; its operand must be step t of one family, or fixed."""
        chain, step = self.chains.place[node]
        operand = self.value_of(node.args[0] if node.args else next(iter(node.kwargs.values())))
        if chain.family is None:
            chain.family = self.families.setdefault(("chain", id(chain)), Family(node, (operand,), {}, True))
        chain.family.steps.add(step)
        if (problem := self._odd_operand(node, step, chain.family.args[0], operand)) is not None:
            self._report(problem)
        return At(chain.family, step)

    def _odd_operand(self, node: fx.Node, step: int, first: Any, operand: Any) -> Problem | None:
        if isinstance(operand, Broken):
            return operand.problem
        if isinstance(operand, Running):
            what = describe(operand.family.node, self.root)
            return Problem(f"takes the running {operand.op} of {what}", hint=CARRY, **at(node, self.root))
        if isinstance(operand, At) and operand.step != step:
            message = f"step {step} takes a value of {self._origin(operand.family)} in step {operand.step}"
            return Problem(message, hint=CARRY, **at(node, self.root))
        if isinstance(first, Broken) or key(first) == key(operand):
            return None
        message = f"step {step} differs from step 0: {self._difference(first, operand)}"
        return Problem(message, hint=ALIKE, **at(node, self.root))

    def _combined(self, node: fx.Node) -> Value | None:
        """Running sums and maxima, their mean, stacks of all steps; None if the node is nothing of the kind."""
        if node.target in _JOINS and node.args and isinstance(node.args[0], list | tuple):
            return self._joined(node, node.args[0])
        if len(node.args) != 2 or node.kwargs:
            return None
        left, right = (self.value_of(a) for a in node.args)
        if node.target in _DIVISIONS and isinstance(left, Running):
            whole = left.op == "sum" and left.step == self.timesteps - 1 and right == self.timesteps
            return Running("mean", left.family, left.step) if whole else None
        op = _RUNNING.get(node.target)
        if op == "sum":
            for other, zero in ((left, node.args[1]), (right, node.args[0])):
                if isinstance(other, At) and self.chains.is_zero(zero):
                    return other
        return self._running(node, op, left, right) if op else None

    def _running(self, node: fx.Node, op: str, left: Any, right: Any) -> Value | None:
        """``left`` holds the steps up to t - 1 (or step 0 alone), ``right`` is step t; or the other way round."""
        if isinstance(right, Running) or (isinstance(left, At) and isinstance(right, At) and left.step > right.step):
            left, right = right, left
        started = (isinstance(left, At) and left.step == 0) or (isinstance(left, Running) and left.op == op)
        if not started or not isinstance(right, At) or right.step != left.step + 1:
            return None
        if left.family is right.family:
            return Running(op, right.family, right.step)
        if isinstance(left, At) and left.family.node.target != right.family.node.target:
            return None
        difference = self._difference(At(left.family, left.step), right)
        message = f"the {op} over time differs in step {right.step} from the steps before: {difference}"
        return Broken(Problem(message, hint=ALIKE, **at(node, self.root)))

    def _joined(self, node: fx.Node, items: Any) -> Value | None:
        """``torch.stack`` of all steps, or ``torch.cat`` of steps that each got a new axis there."""
        values = [self.value_of(i) for i in items]
        if not is_recording(values, self.timesteps):
            return None
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if (problem := self.incomplete(values, node)) is not None:
            return Broken(problem)
        family: Family = values[0].family
        if node.target is torch.stack:
            return Stacked(family, int(dim))  # type: ignore[arg-type]
        inner = family.node
        if inner.target in ("unsqueeze", torch.unsqueeze) and inner.args[1:] == (dim,):
            return Stacked(family.args[0].family, int(dim))  # type: ignore[arg-type]
        message = "joins the timesteps of the loop along an axis that is not time"
        return Broken(Problem(message, hint="use torch.stack", **at(node, self.root)))

    def _write(self, node: fx.Node) -> Value | None:
        """What a buffer is after ``buffer[t] = value`` of step t; None if the node writes anything else.

        Whatever reads the buffer later sees that: its node has this value from now on.
        """
        buffer, where, given, sizes = node.args
        value, (axis, index) = self.value_of(given), indexed(where if isinstance(where, tuple) else (where,))
        if not isinstance(buffer, fx.Node) or not isinstance(value, At) or axis is None or index != value.step:
            return None
        written = self._written[buffer]
        if not sizes or sizes[axis] != self.timesteps or index != len(written):  # type: ignore[index]
            return None
        if any(user < node and user.target not in (set_item, getattr) for user in buffer.users):
            return None  # a view taken before would see what is written
        written.append(value)
        problem = self.incomplete(written, node)
        result: Value = Broken(problem) if problem else Stacked(value.family, axis, sizes)  # type: ignore[arg-type]
        self.values[buffer] = result
        return result

    def incomplete(self, values: list[Any], node: fx.Node) -> Problem | None:
        """Why these values are not steps 0..T-1 of one family, in order."""
        for i, value in enumerate(values):
            if isinstance(value, Broken):
                return value.problem
            if not isinstance(value, At):
                message = f"item {i} of the recorded list is not a value of one timestep"
                return Problem(message, hint=ALIKE, **at(node, self.root))
        steps = [v.step for v in values]
        odd = next((v for v in values if v.family is not values[0].family), None)
        if odd is not None:
            message = f"step {odd.step} differs from step {steps[0]}: {self._difference(values[0], odd)}"
            return Problem(message, hint=ALIKE, **at(node, self.root))
        if steps == list(range(self.timesteps)):
            return None
        message = f"holds timesteps {ranges(steps)} of a loop over 0..{self.timesteps - 1}"
        return Problem(message, hint="record every timestep once, in order", **at(node, self.root))

    def _generic(self, node: fx.Node) -> Value:
        args, kwargs = mapped(node.args, self.value_of), mapped(node.kwargs, self.value_of)
        values = list(leaves((args, kwargs)))
        broken = next((v for v in values if isinstance(v, Broken)), None)
        if broken is not None:
            return broken
        steps = {v.step for v in values if isinstance(v, At | Running)}
        running = any(isinstance(v, Running) for v in values)
        identity = (node.op, node.target, frozen(args), frozen(kwargs))
        if is_random(node):
            self._draws[identity] += 1
            return self._at(identity, node, args, kwargs, self._draws[identity] - 1)
        if node.op in ("placeholder", "get_attr"):
            identity = (node.op, node.target, node.name if node.op == "placeholder" else "", ())
        if not steps or (running and steps == {self.timesteps - 1}):
            return Fixed(self.families.setdefault(identity, Family(node, args, kwargs, False)))
        if len(steps) == 1 and not running:
            return self._at(identity, node, args, kwargs, steps.pop())
        return Broken(self._mixed(node, values))

    def _at(self, identity: Any, node: fx.Node, args: Any, kwargs: Any, step: int, axis: int | None = None) -> At:
        family = self.families.setdefault(identity, Family(node, args, kwargs, True, axis))
        family.steps.add(step)
        return At(family, step)

    # ---- what is wrong

    def _report(self, problem: Problem) -> None:
        """Keep a problem once for each place: what is wrong in one step is usually wrong in all."""
        if not any((p.where, p.kind) == (problem.where, problem.kind) for p in self.problems):
            self.problems.append(problem)

    def _mixed(self, node: fx.Node, values: list[Any]) -> Problem:
        moving = [v for v in values if isinstance(v, At | Running)]
        running = next((v for v in moving if isinstance(v, Running)), None)
        if running is not None:
            what = describe(running.family.node, self.root)
            message = f"reads the running {running.op} of {what} in step {running.step}, before the loop is over"
        else:
            named = [f"step {v.step} of {self._origin(v.family)}" for v in moving]
            message = f"mixes {' and '.join(dict.fromkeys(named))}"
        return Problem(message, hint=CARRY, **at(node, self.root))

    def _difference(self, a: Any, b: Any) -> str:
        """The first thing that two values do differently, deepest first."""
        if isinstance(a, At | Fixed) and isinstance(b, At | Fixed):
            fa, fb = a.family, b.family
            alike = fa.node.op == fb.node.op and fa.node.target == fb.node.target and fa.node not in self.chains.place
            for x, y in zip(leaves((fa.args, fa.kwargs)), leaves((fb.args, fb.kwargs)), strict=False) if alike else ():
                if key(x) != key(y):
                    if isinstance(x, Value) and isinstance(y, Value):
                        return self._difference(x, y)
                    return f"{self._name(a)} became {self._name(b)} with {y!r} in place of {x!r}"
        return f"{self._name(a)} became {self._name(b)}"

    def _origin(self, family: Family) -> str:
        """The neuron call, or the index into the input, that a family's values come from."""
        waiting = [family]
        while waiting:
            found = waiting.pop()
            if found.node in self.chains.place or found.time_axis is not None:
                return describe(found.node, self.root)
            waiting += [v.family for v in leaves((found.args, found.kwargs)) if isinstance(v, At)]
        return describe(family.node, self.root)

    def _name(self, value: Any) -> str:
        named = isinstance(value, Fixed | At | Running | Stacked)
        return describe(value.family.node, self.root) if named else repr(value)

    def _lost_change(self, node: fx.Node) -> Problem | None:
        """An in-place change counts through its result only: whatever else reads the tensor would miss it."""
        target = same(node.args[0])
        sources = [target] if isinstance(target, fx.Node) else []
        if sources and target.op == "get_attr":
            sources = [n for n in self.graph.nodes if n.op == "get_attr" and n.target == target.target]
        later = any(user > node for source in sources for user in source.users)
        if node.users and not later and node.target not in SET_ITEM:
            return None
        hint = "append to a list and torch.stack it, or write total = total + value"
        return Problem("changes a tensor in place that is read elsewhere", hint=hint, **at(node, self.root))


def is_random(node: fx.Node) -> bool:
    """Whether each call of the node's function draws other numbers."""
    return node.target in RANDOM or getattr(node.target, "__name__", "") == "rate_conv"


def is_recording(values: list[Any], timesteps: int) -> bool:
    """Whether a list collects the values of several steps, or of the only one."""
    if timesteps == 1:
        return len(values) == 1 and isinstance(values[0], At)
    return len({v.step for v in values if isinstance(v, At)}) > 1 or any(isinstance(v, Broken) for v in values)
