"""Predicting what a schedule costs and loses from what each choice does alone.

Losses add up. Work does not: a synapse lies between two layers and runs at the fewer of their timesteps, so if both
change, what each saves alone cannot be saved twice. With s_g the work of a synaptic node with group g changed alone,
relative to the base, over the groups adjacent to it::

    work = base * min_g s_g * max(1, min_g T_g / T_g(base))

The last factor, with two or more groups adjacent, is for synapses of which all neighbours got more timesteps. Where
every spike counts as an update (``each``), who reads it on fewer timesteps saves nothing, and factors multiply::

    work = base * prod_g s_g

Neuron evaluations belong to one group each.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.schedule import neuron_layers
from ldsnn_compiler.search.cost import Cost
from ldsnn_compiler.search.knapsack import Selection, frontier
from ldsnn_compiler.search.options import Space
from ldsnn_compiler.search.sensitivity import Sensitivity

Array = npt.NDArray[np.float64]


class Model:
    """Predictions for the schedules of one space from one sensitivity profile."""

    def __init__(self, graph: Graph, space: Space, profile: Sensitivity, cost: Cost, each: bool = False) -> None:
        self.losses = [np.array(group) for group in profile.losses(space)]
        owner = _owners(graph, space)
        near = _adjacent(graph, owner)
        base = profile.alone[0][profile.base[0]].nodes
        shared = [name for name in base if name not in owner]
        self._adjacent = np.array([[g in near.get(n, ()) for n in shared] for g in range(len(space.groups))])
        self._base = np.array([cost(base[n]) for n in shared])
        self._alone, self._own, self._steps = list[Array](), list[Array](), list[Array]()
        for g, group in enumerate(space.groups):
            figures = profile.alone[g]
            work = np.array([[cost(f.nodes[n]) if n in f.nodes else 0.0 for n in shared] for f in figures])
            self._alone.append(np.where(self._base > 0, work / np.maximum(self._base, 1e-12), 1.0))
            mine = [name for name, of in owner.items() if of == g]
            self._own.append(np.array([sum(cost(f.nodes[n]) for n in mine if n in f.nodes) for f in figures]))
            steps = np.array([float(choice.layers[0].timesteps) for choice in group.choices])
            self._steps.append(steps / steps[profile.base[g]])
        self._several = self._adjacent.sum(0) > 1
        self._each = each

    def loss(self, picks: Sequence[int]) -> float:
        """Predicted loss above the least possible."""
        return float(sum(own[pick] for own, pick in zip(self.losses, picks, strict=True)))

    def cost(self, picks: Sequence[int]) -> float:
        """Predicted cost."""
        alone = np.stack([a[p] for a, p in zip(self._alone, picks, strict=True)])
        factor = np.where(self._adjacent, alone, 1.0).prod(0) if self._each else self._shared(alone, picks)
        return float((self._base * factor).sum() + sum(o[p] for o, p in zip(self._own, picks, strict=True)))

    def _shared(self, alone: Array, picks: Sequence[int]) -> Array:
        """Factors of synapses that run at the fewer timesteps of their neighbours."""
        steps = np.array([s[p] for s, p in zip(self._steps, picks, strict=True)])
        least = np.where(self._adjacent, alone, np.inf).min(0)
        lift = np.where(self._adjacent, steps[:, None], np.inf).min(0)
        factor: Array = np.where(np.isfinite(least), least, 1.0) * np.where(self._several, np.maximum(1.0, lift), 1.0)
        return factor

    def additive(self) -> list[list[tuple[float, float]]]:
        """(loss, cost) of every option if costs added up: each neighbour of a synapse is given an equal share."""
        share = 1.0 / np.maximum(1, self._adjacent.sum(0))
        groups = []
        for g, losses in enumerate(self.losses):
            weight = self._base * share * self._adjacent[g]
            costs = (self._alone[g] * weight).sum(1) + self._own[g]
            groups.append(list(zip(losses.tolist(), costs.tolist(), strict=True)))
        return groups

    def frontier(self, resolution: float, seed: int, restarts: int = 2) -> list[Selection]:
        """Schedules worth a true evaluation, least loss first: the knapsack's frontier under shared costs, each point
        improved by descent under predicted ones, and descents from random starts."""
        exact = frontier(self.additive(), resolution)
        generator = np.random.default_rng(seed)
        found = {s.picks for s in exact}
        for price in self._prices(exact):
            starts = [min(exact, key=lambda s: price * s.loss + s.cost).picks]
            starts += [tuple(int(generator.integers(len(own))) for own in self.losses) for _ in range(restarts)]
            found |= {self._descend(start, price) for start in starts}
        selections = [Selection(self.loss(p), self.cost(p), p) for p in sorted(found)]
        return undominated(selections)

    def _prices(self, exact: list[Selection], count: int = 32) -> list[float]:
        """What a unit of loss may cost, over the range of slopes that the frontier has."""
        slopes = [(a.cost - b.cost) / (b.loss - a.loss) for a, b in pairwise(exact) if b.loss > a.loss]
        slopes = [s for s in slopes if s > 0]
        return list(np.geomspace(max(slopes), min(slopes), count)) if slopes else []

    def _descend(self, picks: tuple[int, ...], price: float, sweeps: int = 10) -> tuple[int, ...]:
        """Change one group at a time to what is best with the others as they are, until nothing changes."""
        for _ in range(sweeps):
            before = picks
            for g in range(len(picks)):
                options = [picks[:g] + (o,) + picks[g + 1 :] for o in range(len(self.losses[g]))]
                value = [price * self.loss(p) + self.cost(p) for p in options]
                picks = options[int(np.argmin(value))]
            if picks == before:
                break
        return picks


def undominated(selections: Sequence[Selection]) -> list[Selection]:
    """Those that none beats in both loss and cost, least loss first."""
    kept: list[Selection] = []
    for each in sorted(selections, key=lambda s: (s.loss, s.cost, s.picks)):
        if not kept or each.cost < kept[-1].cost:
            kept.append(each)
    return kept


def _owners(graph: Graph, space: Space) -> dict[str, int]:
    """Group index by name of neuron node."""
    names = {path: node.name for path, node in neuron_layers(graph).items()}
    return {names[path]: g for g, group in enumerate(space.groups) for path in group.paths}


def _adjacent(graph: Graph, owner: dict[str, int]) -> dict[str, set[int]]:
    """Groups whose layers a node touches with no other layer between."""
    above: dict[str, set[int]] = {}
    below: dict[str, set[int]] = {}
    for node in graph.nodes:
        above[node.name] = set().union(*(_seen(o.node, owner, above) for o in node.operands))
    for node in reversed(graph.nodes):
        users = [user for value in node.results for user, _ in graph.uses(value)]
        below[node.name] = set().union(*(_seen(user, owner, below) for user in users))
    return {name: above[name] | below[name] for name in above}


def _seen(node: Node, owner: dict[str, int], further: dict[str, set[int]]) -> set[int]:
    return {owner[node.name]} if node.name in owner else further.get(node.name, set())
