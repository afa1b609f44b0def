"""From predictions to truth: evaluate along a predicted frontier, then improve the best by local moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from math import prod

from ldsnn_compiler.search.cost import Cost
from ldsnn_compiler.search.criterion import Criterion
from ldsnn_compiler.search.evaluate import Figures
from ldsnn_compiler.search.knapsack import Selection
from ldsnn_compiler.search.model import Model
from ldsnn_compiler.search.options import Space
from ldsnn_compiler.search.session import Session

Picks = tuple[int, ...]
SMALL = 4096
"""Schedules up to which all of them are ranked, not only neighbours."""


@dataclass(frozen=True)
class Point:
    """A schedule with its true figures."""

    picks: Picks
    figures: Figures
    cost: float


@dataclass
class Explorer:
    """True evaluations of one space; ``seen`` holds all of them."""

    session: Session
    space: Space
    criterion: Criterion
    cost: Cost
    seen: dict[Picks, Point]

    def look(self, wanted: Sequence[Picks], phase: str, base: Picks | None = None) -> list[Point]:
        """Evaluate these picks (each once)."""
        new = [p for p in dict.fromkeys(wanted) if p not in self.seen]
        start = None if base is None else self.space.schedule(base)
        figures = self.session.evaluate([self.space.schedule(p) for p in new], phase, start) if new else []
        self.seen |= {p: Point(p, f, f.cost(self.cost)) for p, f in zip(new, figures, strict=True)}
        return [self.seen[p] for p in wanted]

    @property
    def best(self) -> Point | None:
        """The cheapest point that is good enough."""
        good = [p for p in self.seen.values() if self.criterion.met(p.figures)]
        return min(good, key=lambda p: (p.cost, p.figures.loss, p.picks), default=None)

    def front(self) -> list[Point]:
        """Points seen that none beats in both what is lost and cost, least lost first, so dearest first."""
        kept, least = list[Point](), float("inf")
        lost = self.criterion.lost
        for point in sorted(self.seen.values(), key=lambda p: (lost(p.figures), p.cost, p.figures.loss, p.picks)):
            if point.cost < least:
                kept, least = [*kept, point], point.cost
        return kept

    def follow(self, selections: Sequence[Selection], width: int, rounds: int) -> None:
        """Evaluate ``width`` points spread over a predicted frontier, then as many between the cheapest that is good
        enough and the next cheaper one, and so on."""
        left = list(selections)
        for _ in range(rounds):
            if not left:
                return
            spread = sorted({round(i * (len(left) - 1) / max(1, width - 1)) for i in range(width)})
            points = self.look([left[i].picks for i in spread], "candidates")
            good = [i for i, point in zip(spread, points, strict=True) if self.criterion.met(point.figures)]
            last = max(good, default=-1)
            following = min((i for i in spread if i > last), default=len(left))
            left = left[last + 1 : following]

    def improve(self, model: Model, start: Point, width: int, rounds: int, patience: int) -> Point:
        """Local moves: of a batch the cheapest that is good enough, until ``patience`` batches bring none."""
        current, misses = start, 0
        for _ in range(rounds):
            moves = self._moves(model, current)[:width]
            if not moves or misses == patience:
                break
            points = self.look(moves, "refinement", base=current.picks)
            better = [p for p in points if self.criterion.met(p.figures) and p.cost < current.cost]
            misses = 0 if better else misses + 1
            current = min(better, key=lambda p: (p.cost, p.figures.loss, p.picks), default=current)
        return current

    def repair(self, model: Model, start: Point, width: int, rounds: int, among: int = 3) -> None:
        """Where schedules cheaper than the best (or ``start``) just miss being good enough: their neighbours of less
        predicted loss, in batches, until one is good enough. Local moves from the best do not get there if what lies
        between is dearer."""
        limit = (self.best or start).cost
        for _ in range(rounds):
            missing = [p for p in self.front() if p.cost < limit and not self.criterion.met(p.figures)][:among]
            ranked = zip_longest(*(self._repairs(model, point, limit) for point in missing))
            moves = list(dict.fromkeys(picks for turn in ranked for picks in turn if picks))[:width]
            if not moves:
                return
            points = self.look(moves, "repairs", base=missing[0].picks)
            if any(self.criterion.met(p.figures) and p.cost < limit for p in points):
                return

    def _repairs(self, model: Model, point: Point, limit: float) -> list[Picks]:
        """Neighbours of a point that are to lose less and cost less than ``limit``, the most loss saved per cost added
        first."""
        loss, cost, ranked = model.loss(point.picks), model.cost(point.picks), list[tuple[float, Picks]]()
        for each in sorted(_neighbours(model, self.space, point.picks) - self.seen.keys()):
            saved, added = loss - model.loss(each), (model.cost(each) / cost - 1) * point.cost
            if saved > 0 and point.cost + added < limit:
                ranked.append((-saved / max(added, 0.01 * point.cost), each))
        return [picks for _, picks in sorted(ranked)]

    def _moves(self, model: Model, current: Point) -> list[Picks]:
        """Neighbours that are cheaper by prediction, bold and careful ones in turn.

        Bold: the cheapest whose predicted loss is no larger than that of some point known to be good enough; in a
        small space any schedule may be one. Careful: the least loss per saving, of neighbours, and in a small space of
        all.
        """
        loss, cost = model.loss(current.picks), model.cost(current.picks)
        room = max(p.figures.loss for p in self.seen.values() if self.criterion.met(p.figures)) - current.figures.loss
        near, far = _neighbours(model, self.space, current.picks), _everything(self.space)
        bold, careful, distant = (list[tuple[float, Picks]]() for _ in range(3))
        for each in sorted((near | far) - self.seen.keys()):
            saving, more = cost - model.cost(each), model.loss(each) - loss
            if saving <= 0:
                continue
            ratio = more / saving if more > 0 else -saving / cost
            bold += [(-saving, each)] if more <= room else []
            (careful if each in near else distant).append((ratio, each))
        turns = zip_longest(sorted(bold), sorted(careful), sorted(distant))
        return list(dict.fromkeys(ranked[1] for turn in turns for ranked in turn if ranked))


def _everything(space: Space) -> set[Picks]:
    """All schedules of a small space, none of a larger one."""
    choices = [range(len(group.choices)) for group in space.groups]
    return set(product(*choices)) if prod(map(len, choices)) <= SMALL else set()


def _neighbours(model: Model, space: Space, picks: Picks) -> set[Picks]:
    """One group changed, or two to options near their present ones."""
    single = {p for g in range(len(picks)) for p in _changed(picks, g, range(len(space.groups[g].choices)))}
    near = [_changed(picks, g, _near(model, picks, g)) for g in range(len(picks))]
    return single | {
        tuple(b[i] if b[i] != picks[i] else a[i] for i in range(len(picks)))
        for g, first in enumerate(near)
        for second in near[g + 1 :]
        for a in first
        for b in second
    }


def _changed(picks: Picks, g: int, options: Sequence[int]) -> list[Picks]:
    return [picks[:g] + (o,) + picks[g + 1 :] for o in options if o != picks[g]]


def _near(model: Model, picks: Picks, g: int, reach: int = 2) -> list[int]:
    """The options of a group next to the present one, cheaper and dearer, on its own frontier."""
    options = range(len(model.losses[g]))
    value = {o: (model.cost(picks[:g] + (o,) + picks[g + 1 :]), float(model.losses[g][o])) for o in options}
    front = [o for o in options if not any(value[p] < value[o] and value[p][1] <= value[o][1] for p in options)]
    cheaper = sorted((o for o in front if value[o][0] < value[picks[g]][0]), key=lambda o: -value[o][0])
    dearer = sorted((o for o in front if value[o][0] > value[picks[g]][0]), key=lambda o: value[o][0])
    return cheaper[:reach] + dearer[:reach]
