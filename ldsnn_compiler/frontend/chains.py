"""Chains: successive calls of one stateful module, each continuing the state of the one before.

The t-th call of a chain is step t of the loop. A state is kept by the module (SpikingJelly, snnTorch with
``init_hidden=True``, or called without a state) or handed from call to call (``spk, mem = lif(cur, mem)``); a state
that is handed over must be the one that the call before returned, and the first one must be zero. Where a library's
modules keep nothing (Norse), a call without a state starts from a fresh one.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import fx, nn
from torch.fx._symbolic_trace import _assert_is_none

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.frontend.families import Family, at, describe, same

CARRY: Final = "only neuron state, running sums and running maxima may be carried from step to step"
ZEROS: Final = frozenset({torch.zeros, torch.zeros_like, "new_zeros"})


@dataclass(eq=False)
class Chain:
    """``explicit``: its first call starts a state of its own. ``family``: what all its calls do, once evaluated."""

    module: str
    calls: list[fx.Node] = field(default_factory=list)
    explicit: bool = False
    family: Family | None = None


class Chains:
    """All chains of a graph, in order of their first calls; ``place`` gives the chain and step of each call.

    ``is_forgetful`` says which stateful modules keep nothing from call to call.
    """

    def __init__(
        self,
        graph: fx.Graph,
        root: nn.Module,
        is_stateful: Callable[[nn.Module], bool],
        is_forgetful: Callable[[nn.Module], bool],
    ) -> None:
        self.root, self.is_forgetful = root, is_forgetful
        self.is_given_state = any(node.target is _assert_is_none for node in graph.nodes)
        self.problems: list[Problem] = []
        self.all: list[Chain] = []
        self.place: dict[fx.Node, tuple[Chain, int]] = {}
        latest: dict[str, Chain] = {}
        for node in graph.nodes:
            if node.op == "call_module" and is_stateful(root.get_submodule(str(node.target))):
                latest[str(node.target)] = self._add(node, latest.get(str(node.target)))
        self.timesteps = max((len(c.calls) for c in self.all), default=1)

    def _add(self, node: fx.Node, latest: Chain | None) -> Chain:
        states = self._states(node)
        forgetful = self.is_forgetful(self.root.get_submodule(str(node.target)))
        chain = self._continued(node, states) if states else None if forgetful else latest
        if chain is None:
            fresh = forgetful and not self.is_given_state
            chain = Chain(str(node.target), explicit=bool(states) or fresh)
            self.all.append(chain)
        self.place[node] = (chain, len(chain.calls))
        chain.calls.append(node)
        return chain

    def _states(self, node: fx.Node) -> list[tuple[int, Any]]:
        """(i, argument) of every state passed in; state i is what the call before returned at i.

        Results are spikes, then the state; a neuron that takes its own spikes back, as ``spk``, takes its results.
        """
        forward = inspect.signature(self.root.get_submodule(str(node.target)).forward)
        try:
            bound = forward.bind(*node.args, **node.kwargs)
        except TypeError as error:
            self.problems.append(Problem(str(error), **at(node, self.root)))
            return []
        names = list(forward.parameters)
        first = 0 if names[1:2] == ["spk"] else 1
        given = {n: v for n, v in bound.arguments.items() if v is not None}
        return [(i, given[n]) for i, n in enumerate(names[1:], first) if n in given]

    def _continued(self, node: fx.Node, states: list[tuple[int, Any]]) -> Chain | None:
        """The chain whose last call returned these states; None if they start one."""
        sources = {self._returned(value, i) for i, value in states}
        source = next(iter(sources))
        if len(sources) == 1 and source is not None and source.target == node.target:
            chain, step = self.place[source]
            if step == len(chain.calls) - 1:
                return chain
            message = f"continues the state of step {step}, which step {step + 1} has used already"
            self._report(Problem(message, hint=CARRY, **at(node, self.root)))
        elif not all(self.is_zero(value) for _, value in states):
            self._report(self._odd_state(node, states))
        return None

    def _report(self, problem: Problem) -> None:
        """Keep a problem once for each place: what is wrong in one step is usually wrong in all."""
        if not any((p.where, p.kind) == (problem.where, problem.kind) for p in self.problems):
            self.problems.append(problem)

    def _returned(self, value: Any, index: int) -> fx.Node | None:
        """The stateful call whose result number ``index`` this is."""
        value = same(value)
        if isinstance(value, fx.Node) and value.target is operator.getitem and value.args[1] == index:
            call = value.args[0]
            return call if isinstance(call, fx.Node) and call in self.place else None
        return None

    def _odd_state(self, node: fx.Node, states: list[tuple[int, Any]]) -> Problem:
        value = next(same(v) for _, v in states if not self.is_zero(v))
        if isinstance(value, fx.Node) and value.op == "placeholder":
            return Problem(
                f"takes its state from the argument {value.target!r} of forward",
                hint="set init_hidden=True, or start the state inside forward and loop there",
                **at(node, self.root),
            )
        calls = sum(chain.module == node.target for chain, _ in self.place.values())
        if (isinstance(value, fx.Node) and value.op == "get_attr") or not calls:
            forgetful = self.is_forgetful(self.root.get_submodule(str(node.target)))
            hint = "start from None" if forgetful else "start from init_leaky() or zeros"
            return Problem("starts from a state that is not zero", hint=hint, **at(node, self.root))
        what = describe(value, self.root) if isinstance(value, fx.Node) else repr(value)
        message = f"the state passed to step {calls} is not the one that step {calls - 1} returned, but {what}"
        return Problem(message, hint=CARRY, **at(node, self.root))

    def is_zero(self, value: Any) -> bool:
        """Whether an argument is the number 0, a tensor of zeros, or made by ``zeros``."""
        value = same(value)
        if not isinstance(value, fx.Node):
            return isinstance(value, int | float) and value == 0
        if value.op == "get_attr":
            return not bool(torch.as_tensor(operator.attrgetter(str(value.target))(self.root)).count_nonzero())
        return value.target in ZEROS

    def restarted(self) -> list[Problem]:
        """One problem for every module that a loop calls again and again without its state."""
        calls: dict[str, list[fx.Node]] = {}
        for chain in self.all:
            calls.setdefault(chain.module, []).append(chain.calls[0])
        message, hint = "starts from a fresh state in each of its {} calls", "hand on the state that a call returns"
        return [
            Problem(message.format(len(nodes)), hint=hint, **at(nodes[0], self.root))
            for module, nodes in calls.items()
            if len(nodes) > 1 and self.is_forgetful(self.root.get_submodule(module))
        ]

    def uneven(self) -> list[Problem]:
        """One problem for every module whose chains are not as long as the loop."""
        odd = {c.module: c for c in self.all if len(c.calls) != self.timesteps}
        return [self._uneven(c) for c in odd.values()]

    def _uneven(self, chain: Chain) -> Problem:
        steps, fresh = len(chain.calls), sum(c.module == chain.module for c in self.all)
        longest = next(c.module for c in self.all if len(c.calls) == self.timesteps)
        often = f"{steps} time{'s' * (steps > 1)}"
        message = f"is called {often} in a loop of {self.timesteps} timesteps, as often as {longest} is"
        if steps == 1 and chain.explicit and fresh > 1:
            message = f"starts from a fresh state in each of its {fresh} calls, in a loop of {self.timesteps} timesteps"
        return Problem(message, hint="call every neuron once in each timestep", **at(chain.calls[-1], self.root))
