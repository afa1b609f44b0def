"""What comes after the knapsack: global refinement starts from what is known, evaluates no more than asked, and never
makes a result worse; repairs start from cheap schedules that just miss."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import pytest
from graphs import Net
from search_worker import EFFORT, data, network

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.search.cost import COSTS, NodeWork
from ldsnn_compiler.search.criterion import Criterion
from ldsnn_compiler.search.evaluate import Figures
from ldsnn_compiler.search.optimize import optimize
from ldsnn_compiler.search.options import space
from ldsnn_compiler.search.refine import Explorer, Picks
from ldsnn_compiler.search.study import KNOWN, _known, refine_globally

WEIGHTS = (1.0, 5.0, 20.0)


@dataclass
class Told:
    """In place of a session: a layer costs in proportion to its timesteps, and the fewer they are the more it loses;
    what costs little loses much."""

    evaluated: list[Schedule] = field(default_factory=list)

    def evaluate(self, schedules: Sequence[Schedule], phase: str, base: Schedule | None = None) -> list[Figures]:
        self.evaluated += schedules
        return [self._figures([layer.timesteps for layer in s.layers.values()]) for s in schedules]

    def _figures(self, steps: list[int]) -> Figures:
        cost = sum(w * t for w, t in zip(WEIGHTS, steps, strict=True))
        lost = round(sum((16 / t - 1) / w for w, t in zip(WEIGHTS, steps, strict=True)))
        right = [0] * (100 - min(lost, 100)) + [1] * min(lost, 100)
        return Figures(tuple(right), lost / 100, {"all": NodeWork("linear", "", 1, synaptic_updates=cost)})


def explorer(budget: float = 0.1) -> Explorer:
    """Of a network of three layers and 16 timesteps; it has seen the schedule that changes nothing."""
    net = Net(16)
    x = net.input((4,))
    for _ in WEIGHTS:
        x = net.neuron(net.linear(x, 4))
    criterion = Criterion(budget, 0.0, (0,) * 100, None)
    found = Explorer(Told(), space(net.output(x)), criterion, COSTS["synaptic"], {})  # type: ignore[arg-type]
    found.look([(0, 0, 0)], "start")
    return found


def everything(one: Explorer) -> list[Picks]:
    return list(product(*(range(len(g.choices)) for g in one.space.groups)))


@pytest.mark.parametrize("trials", [0, 1, 7])
def test_it_evaluates_at_most_a_round_more_than_asked(trials: int) -> None:
    one = explorer()
    refine_globally(one, trials, seed=0, width=2)
    assert trials <= len(one.seen) - 1 <= trials + 1
    assert len(one.session.evaluated) == len(one.seen), "each once"  # type: ignore[arg-type]


def test_the_same_seed_and_history_propose_the_same() -> None:
    proposed = []
    for seed in (3, 3, 4):
        one = explorer()
        refine_globally(one, 8, seed, width=4)
        proposed.append(list(one.seen))
    assert proposed[0] == proposed[1] != proposed[2]


def test_a_space_that_is_known_ends_it() -> None:
    one = explorer()
    one.look(everything(one), "all")
    before = dict(one.seen)
    refine_globally(one, 5, seed=0, width=4)
    assert one.seen == before


@pytest.mark.parametrize("seed", range(3))
def test_it_looks_where_schedules_are_cheap_and_good(seed: int) -> None:
    """With a third of the space it finds one of the best three of it."""
    one = explorer()
    refine_globally(one, len(everything(one)) // 3, seed, width=4)
    found = one.best
    assert found is not None
    one.look(everything(one), "all")
    assert sum(one.criterion.met(p.figures) and p.cost < found.cost for p in one.seen.values()) <= 2


def test_a_study_starts_from_the_cheapest_good_and_the_nearest_bad_schedules() -> None:
    one = explorer()
    one.look(everything(one), "all")
    known = _known(one)
    good = [p for p in known if one.criterion.met(p.figures)]
    assert known[: len(good)] == good == sorted(good, key=lambda p: (p.cost, p.picks)) and len(good) <= KNOWN // 2
    excess = [one.criterion.excess(p.figures) for p in known[len(good) :]]
    assert excess == sorted(excess) and min(excess) > 0
    assert one.best == known[0]


class Predicted:
    """In place of a model: it predicts what :class:`Told` says, cost and loss for certain."""

    def __init__(self, one: Explorer) -> None:
        self._steps = [[choice.layers[0].timesteps for choice in group.choices] for group in one.space.groups]
        self.losses = [[(16 / t - 1) / w for t in own] for w, own in zip(WEIGHTS, self._steps, strict=True)]

    def loss(self, picks: Picks) -> float:
        return sum(own[p] for own, p in zip(self.losses, picks, strict=True))

    def cost(self, picks: Picks) -> float:
        return sum(w * own[p] for w, own, p in zip(WEIGHTS, self._steps, picks, strict=True))


def test_a_cheap_schedule_that_just_misses_is_repaired() -> None:
    """T = 2 everywhere loses 9 of 100 and T0 nothing; what is good enough at 6 lies beside the former."""
    one = explorer(budget=0.06)
    (bad,) = one.look([(3, 3, 3)], "start")
    (start,) = one.look([(0, 0, 0)], "start")
    assert not one.criterion.met(bad.figures) and one.best == start
    one.repair(Predicted(one), start, width=2, rounds=3)  # type: ignore[arg-type]
    assert one.best is not None and one.best.cost < start.cost / 4
    assert len(one.seen) <= 2 + 2 * 3


def test_where_nothing_just_misses_there_is_nothing_to_repair() -> None:
    one = explorer()
    start = one.seen[0, 0, 0]
    one.repair(Predicted(one), start, width=2, rounds=3)  # type: ignore[arg-type]
    assert list(one.seen) == [(0, 0, 0)]


def test_nothing_is_evaluated_twice(tmp_path: Path) -> None:
    storage, effort = str(tmp_path / "journal"), replace(EFFORT, rounds=1, moves=0)
    phases: set[str] = set()
    first, second = (
        optimize(network(), data(), 0.2, refine=4, storage=storage, effort=effort, progress=lambda p, *_: phases.add(p))
        for _ in range(2)
    )
    assert first.evaluated > 0 == second.evaluated and first.schedule == second.schedule
    assert "global refinement" in phases


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(LdsnnError, match=r"Optuna, and optuna is missing.*ldsnn-compiler\[search\]"):
        refine_globally(explorer(), 1, seed=0, width=1)
